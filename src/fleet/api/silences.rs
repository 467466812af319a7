//! Silences: alerts that nobody is told of for a while. They show all the same.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::{Operator, Viewer};
use crate::fleet::state::Fleet;
use crate::fleet::store::{MOST_SILENCES, SilenceRow, instant, millis};
use crate::problem::{Answer, Problem};

/// Longest silence, and farthest beginning: a year.
const LONGEST: Duration = Duration::days(366);

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/silences", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(resource("/silences/{id}", "GET, DELETE").route(web::get().to(get)).route(web::delete().to(end)));
}

/// A silence to be begun. At least one of rule, device and tag, which have to fit all together; or `all`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSilence {
    rule_id: Option<String>,
    device_id: Option<String>,
    #[schema(max_length = 200)]
    tag: Option<String>,
    /// Every alert of the organization; said on purpose, and with none of the above.
    all: Option<bool>,
    #[schema(max_length = 200)]
    reason: String,
    /// Now unless given.
    starts_at: Option<DateTime<Utc>>,
    /// At most a year from now.
    ends_at: DateTime<Utc>,
}

/// A silence.
#[derive(Serialize, ToSchema)]
pub struct SilenceAnswer {
    id: String,
    rule_id: Option<String>,
    device_id: Option<String>,
    tag: Option<String>,
    /// Every alert of the organization.
    all: bool,
    reason: String,
    created_by: String,
    created_at: DateTime<Utc>,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    /// Now.
    active: bool,
}

impl From<SilenceRow> for SilenceAnswer {
    fn from(row: SilenceRow) -> Self {
        Self {
            active: (row.starts_at..row.ends_at).contains(&millis(Utc::now())),
            all: row.rule_id.is_none() && row.device_id.is_none() && row.tag.is_none(),
            id: row.id,
            rule_id: row.rule_id,
            device_id: row.device_id,
            tag: row.tag,
            reason: row.reason,
            created_by: row.created_by,
            created_at: instant(row.created_at),
            starts_at: instant(row.starts_at),
            ends_at: instant(row.ends_at),
        }
    }
}

/// Begins a silence.
#[utoipa::path(post, path = "/api/v1/silences", tag = "alerts", security(("user" = [])), request_body = CreateSilence,
    responses((status = 201, body = SilenceAnswer), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Operator, body: web::Json<CreateSilence>) -> Answer {
    let now = Utc::now();
    let tag = input::optional_line("tag", body.tag.as_deref())?;
    let names_none = body.rule_id.is_none() && body.device_id.is_none() && tag.is_none();
    if names_none != body.all.unwrap_or(false) {
        return Err(Problem::bad_request("rule_id, device_id or tag: at least one of them, or else all"));
    }
    let starts_at = body.starts_at.unwrap_or(now).max(now);
    if body.ends_at <= starts_at || body.ends_at > now + LONGEST {
        return Err(Problem::bad_request("ends_at: after the beginning, at most a year from now"));
    }
    if let Some(rule) = &body.rule_id
        && fleet.store.alert_rule(&caller.org, rule).await.map_err(store_problem)?.is_none()
    {
        return Err(Problem::not_found("no such rule"));
    }
    if let Some(device) = &body.device_id
        && fleet.store.device(&caller.org, device).await.map_err(store_problem)?.is_none()
    {
        return Err(Problem::not_found("no such device"));
    }
    let row = SilenceRow {
        id: Ulid::new().to_string(),
        rule_id: body.rule_id.clone(),
        device_id: body.device_id.clone(),
        tag,
        reason: input::line("reason", &body.reason)?,
        created_by: caller.actor().name,
        created_at: millis(now),
        starts_at: millis(starts_at),
        ends_at: millis(body.ends_at),
    };
    if !fleet.store.create_silence(&caller.actor(), &row).await.map_err(store_problem)? {
        return Err(Problem::conflict(format!("there are {MOST_SILENCES} silences; end one first")));
    }
    fleet.hub.alerts_regrouped(&caller.org);
    let location = format!("/api/v1/silences/{}", row.id);
    Ok(HttpResponse::Created().insert_header(("Location", location)).json(SilenceAnswer::from(row)))
}

/// Silences, those that end last first; those that are over too.
#[utoipa::path(get, path = "/api/v1/silences", tag = "alerts", security(("user" = [])), params(PageQuery), responses(
    (status = 200, body = Page<SilenceAnswer>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) = fleet.store.silences(&caller.org, span.offset(), span.limit()).await.map_err(store_problem)?;
    let items: Vec<SilenceAnswer> = rows.into_iter().map(SilenceAnswer::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One silence.
#[utoipa::path(get, path = "/api/v1/silences/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = SilenceAnswer), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, id: web::Path<String>) -> Answer {
    let row = fleet.store.silence(&caller.org, &id).await.map_err(store_problem)?;
    let row = row.ok_or_else(|| Problem::not_found("no such silence"))?;
    Ok(HttpResponse::Ok().json(SilenceAnswer::from(row)))
}

/// Ends a silence now. It stays in the list.
#[utoipa::path(delete, path = "/api/v1/silences/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn end(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    if !fleet.store.end_silence(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        return Err(Problem::not_found("no such silence"));
    }
    fleet.hub.alerts_regrouped(&caller.org);
    Ok(HttpResponse::NoContent().finish())
}
