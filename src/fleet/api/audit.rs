//! The audit log of an organization; administrators only.

use actix_web::http::header::{ContentDisposition, DispositionParam, DispositionType};
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, pin_mut};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{ProblemBody, store_problem};
use super::{input, paging, resource};
use crate::audit::Change;
use crate::audit::verify::{Kept, Misfit, Verdict, Verifier};
use crate::fleet::audit;
use crate::fleet::auth::Admin;
use crate::fleet::state::Fleet;
use crate::fleet::store::{AuditFilter, instant};
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/audit", "GET").route(web::get().to(list)))
        .service(resource("/audit/export", "GET").route(web::get().to(export)))
        .service(resource("/audit/verify", "GET").route(web::get().to(verify)));
}

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// By this one: `user:{email}`, `device:{id}` or `server`.
    #[param(max_length = 200)]
    actor: Option<String>,
    /// Of this kind, such as `device.change`.
    #[param(max_length = 200)]
    action: Option<String>,
    /// To this: an id.
    #[param(max_length = 200)]
    target: Option<String>,
    /// From then on.
    since: Option<DateTime<Utc>>,
    /// Before then.
    until: Option<DateTime<Utc>>,
    /// Where to go on: `next_cursor` of the answer before.
    #[param(max_length = 1000)]
    cursor: Option<String>,
    /// 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

/// A change.
#[derive(Serialize, ToSchema)]
pub struct AuditChange {
    /// From 1 in each organization, without gaps.
    seq: u64,
    at: DateTime<Utc>,
    /// `user:{email}`, `device:{id}` or `server`.
    actor: String,
    #[schema(example = "device.change")]
    action: String,
    target: String,
    detail: Option<String>,
    /// Over this change and the one before it.
    hash: String,
}

impl From<Change> for AuditChange {
    fn from(change: Change) -> Self {
        Self {
            seq: change.seq,
            at: instant(change.at_ms),
            actor: change.actor,
            action: change.action,
            target: change.target,
            detail: change.detail,
            hash: change.hash.to_string(),
        }
    }
}

/// Changes, newest first.
#[derive(Serialize, ToSchema)]
pub struct AuditList {
    items: Vec<AuditChange>,
    /// Whether more follow.
    has_more: bool,
    /// For `cursor`, when more follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists changes, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", security(("user" = [])), params(AuditQuery), responses(
    (status = 200, body = AuditList), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Admin, query: web::Query<AuditQuery>) -> Answer {
    let limit = query.limit.unwrap_or(paging::DEFAULT_SIZE);
    if !(1..=paging::MAX_SIZE).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: 1 to {}", paging::MAX_SIZE)));
    }
    let before = match query.cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
        None => None,
        Some(cursor) => Some(cursor.parse().map_err(|_| Problem::bad_request("cursor: not one of ours"))?),
    };
    let filter = AuditFilter {
        actor: input::optional_line("actor", query.actor.as_deref())?,
        action: input::optional_line("action", query.action.as_deref())?,
        target: input::optional_line("target", query.target.as_deref())?,
        since: query.since,
        until: query.until,
    };
    // One more tells whether others follow.
    let mut rows =
        fleet.store.changes(&caller.org, &filter, before, i64::from(limit) + 1).await.map_err(store_problem)?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(|last| last.seq.to_string());
    let items = rows.into_iter().map(AuditChange::from).collect();
    Ok(HttpResponse::Ok().json(AuditList { items, has_more, next_cursor }))
}

/// The whole log as lines of JSON, each with the hash that chains it to the one before, and signed heads. `r58 ctl audit verify`
/// checks it; what is hashed and signed stands in the source's `src/audit.rs`.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", security(("user" = [])), responses(
    (status = 200, content_type = "application/x-ndjson", body = String), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn export(fleet: web::Data<Fleet>, caller: Admin) -> Answer {
    let org = caller.org.clone();
    // An organization's id is letters, digits, hyphens, underscores and points.
    let name = DispositionParam::Filename(format!("r58-audit-{org}.jsonl"));
    let named = ContentDisposition { disposition: DispositionType::Attachment, parameters: vec![name] };
    let lines = audit::export(fleet.store.clone(), fleet.keys.commands.clone(), org).await.map_err(store_problem)?;
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").insert_header(named).streaming(lines))
}

/// What a look through the whole log found.
#[derive(Serialize, ToSchema)]
pub struct AuditVerdict {
    /// Whole, unchanged and signed.
    valid: bool,
    /// How many changes there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<u64>,
    /// Hash of the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    /// Signed heads in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoints: Option<u64>,
    /// Id of the key that signed the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The first change that is not what it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<u64>,
    /// What does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl AuditVerdict {
    fn of(found: Result<Verdict, Misfit>) -> Self {
        let none =
            Self { valid: false, changes: None, head: None, checkpoints: None, key: None, change: None, reason: None };
        match found {
            Ok(Verdict { changes, head, checkpoints, kid, .. }) => Self {
                valid: true,
                changes: Some(changes),
                head: Some(head.to_string()),
                checkpoints: Some(checkpoints),
                key: Some(kid),
                ..none
            },
            Err(misfit) => Self { change: misfit.change, reason: Some(misfit.why.to_string()), ..none },
        }
    }
}

/// Looks through the whole log. It is the server's own word: who does not trust the server keeps exports elsewhere, and has them
/// compared by `r58 ctl audit verify --against`.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "audit", security(("user" = [])), responses(
    (status = 200, body = AuditVerdict), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn verify(fleet: web::Data<Fleet>, caller: Admin) -> Answer {
    let (store, signer) = (fleet.store.clone(), fleet.keys.commands.clone());
    let lines = audit::export(store, signer, caller.org.clone()).await.map_err(store_problem)?;
    pin_mut!(lines);
    let mut verifier = Verifier::new(Kept::default(), Vec::new());
    while let Some(some) = lines.next().await {
        for line in String::from_utf8_lossy(&some.map_err(store_problem)?).lines() {
            if let Err(misfit) = verifier.line(line) {
                return Ok(HttpResponse::Ok().json(AuditVerdict::of(Err(misfit))));
            }
        }
    }
    Ok(HttpResponse::Ok().json(AuditVerdict::of(verifier.finish())))
}
