//! Rules of alerts. Everybody reads them, administrators change them.

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::alerts::rule::{Kind, LONGEST_FOR, Severity};
use crate::fleet::auth::{Admin, Viewer};
use crate::fleet::state::Fleet;
use crate::fleet::store::{AlertRuleRow, Ruled, instant, millis};
use crate::problem::{Answer, Problem};

/// Rules of an organization: each is held against each heartbeat.
const MOST_RULES: i64 = 200;
/// Receivers that one rule names; an organization has no more.
const MOST_RECEIVERS: usize = 50;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/alert-rules", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(
            resource("/alert-rules/{id}", "GET, PATCH, DELETE")
                .route(web::get().to(get))
                .route(web::patch().to(change))
                .route(web::delete().to(delete)),
        );
}

/// A rule to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAlertRule {
    kind: Kind,
    #[schema(max_length = 200)]
    name: String,
    /// disk: raised below so many GB free, 0.1 to 100,000. temperature: at so many °C, 30 to 150. restarts: at so many within an
    /// hour, 1 to 50. clock: at so many seconds off, 1 to 86,400. Other kinds have none.
    threshold: Option<f64>,
    /// Where it clears, on the good side of the threshold; a little away from it unless given.
    clear_threshold: Option<f64>,
    /// Seconds for which the condition has to hold, and then to be gone. 60 unless given.
    #[schema(minimum = 0, maximum = 86400, default = 60)]
    for_seconds: Option<i64>,
    /// warning unless given.
    severity: Option<Severity>,
    /// Devices with this tag; all without one.
    #[schema(max_length = 200)]
    tag: Option<String>,
    /// This device alone; all without one.
    #[schema(max_length = 200)]
    device_id: Option<String>,
    /// Who is told, of those who are told of its severity; all of them unless given.
    #[schema(min_items = 1, max_items = 50)]
    receiver_ids: Option<Vec<String>>,
    /// In force unless false.
    enabled: Option<bool>,
}

/// What to change of a rule; its kind stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAlertRule {
    #[schema(max_length = 200)]
    name: Option<String>,
    /// Changed without the clearing one, that is set anew as well.
    threshold: Option<f64>,
    clear_threshold: Option<f64>,
    #[schema(minimum = 0, maximum = 86400)]
    for_seconds: Option<i64>,
    severity: Option<Severity>,
    /// `null`: all devices.
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    tag: Option<Option<String>>,
    /// `null`: all devices.
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    device_id: Option<Option<String>>,
    /// `null`: all receivers.
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 50)]
    receiver_ids: Option<Option<Vec<String>>>,
    /// Switched off, it ends its alerts.
    enabled: Option<bool>,
}

/// A rule.
#[derive(Serialize, ToSchema)]
pub struct AlertRule {
    id: String,
    /// offline, disk, temperature, input_lost, guest_failing, restarts or clock.
    kind: String,
    name: String,
    threshold: Option<f64>,
    clear_threshold: Option<f64>,
    for_seconds: i64,
    severity: Severity,
    /// Devices with it.
    tag: Option<String>,
    /// This device alone.
    device_id: Option<String>,
    /// Who is told; all receivers without them.
    receiver_ids: Option<Vec<String>>,
    enabled: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<AlertRuleRow> for AlertRule {
    fn from(row: AlertRuleRow) -> Self {
        Self {
            severity: Severity::from_stored(&row.severity),
            receiver_ids: row.receiver_ids(),
            id: row.id,
            kind: row.kind,
            name: row.name,
            threshold: row.threshold,
            clear_threshold: row.clear_threshold,
            for_seconds: row.for_s,
            tag: row.tag,
            device_id: row.device_id,
            enabled: row.enabled,
            created_at: instant(row.created_at),
            updated_at: instant(row.updated_at),
        }
    }
}

fn seconds(value: i64) -> Result<i64, Problem> {
    match (0..=LONGEST_FOR).contains(&value) {
        true => Ok(value),
        false => Err(Problem::bad_request(format!("for_seconds: 0 to {LONGEST_FOR}"))),
    }
}

fn no_such_rule() -> Problem {
    Problem::not_found("no such rule")
}

async fn device(fleet: &Fleet, org: &str, asked: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(id) = input::optional_line("device_id", asked)? else { return Ok(None) };
    match fleet.store.device(org, &id).await.map_err(store_problem)? {
        Some(_) => Ok(Some(id)),
        None => Err(Problem::not_found("no such device")),
    }
}

fn receivers(asked: Option<&[String]>) -> Result<Option<String>, Problem> {
    let Some(asked) = asked else { return Ok(None) };
    let all: BTreeSet<&String> = asked.iter().collect();
    match (1..=MOST_RECEIVERS).contains(&all.len()) && all.iter().all(|id| id.len() <= input::LINE) {
        true => Ok(Some(serde_json::json!(all).to_string())),
        false => Err(Problem::bad_request(format!("receiver_ids: 1 to {MOST_RECEIVERS}, or none for all"))),
    }
}

fn ruled(done: Ruled) -> Result<(), Problem> {
    match done {
        Ruled::Done => Ok(()),
        Ruled::Unknown => Err(no_such_rule()),
        Ruled::NoReceiver => Err(Problem::not_found("no such receiver")),
    }
}

/// Makes a rule.
#[utoipa::path(post, path = "/api/v1/alert-rules", tag = "alerts", security(("user" = [])), request_body = CreateAlertRule,
    responses((status = 201, body = AlertRule), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Admin, body: web::Json<CreateAlertRule>) -> Answer {
    let thresholds = body.kind.check(body.threshold, body.clear_threshold).map_err(Problem::bad_request)?;
    let now = millis(Utc::now());
    let row = AlertRuleRow {
        id: Ulid::new().to_string(),
        org: caller.org.clone(),
        kind: body.kind.as_str().to_owned(),
        name: input::line("name", &body.name)?,
        threshold: thresholds.map(|(raise, _)| raise),
        clear_threshold: thresholds.map(|(_, clear)| clear),
        for_s: seconds(body.for_seconds.unwrap_or(60))?,
        severity: body.severity.unwrap_or(Severity::Warning).as_str().to_owned(),
        tag: input::optional_line("tag", body.tag.as_deref())?,
        device_id: device(&fleet, &caller.org, body.device_id.as_deref()).await?,
        receivers: receivers(body.receiver_ids.as_deref())?,
        enabled: body.enabled.unwrap_or(true),
        created_at: now,
        updated_at: now,
    };
    let (_, total) = fleet.store.alert_rules(&caller.org, 0, 1).await.map_err(store_problem)?;
    if total >= MOST_RULES {
        return Err(Problem::conflict(format!("there are {MOST_RULES} rules; delete one first")));
    }
    ruled(fleet.store.create_alert_rule(&caller.actor(), &row).await.map_err(store_problem)?)?;
    let location = format!("/api/v1/alert-rules/{}", row.id);
    Ok(HttpResponse::Created().insert_header(("Location", location)).json(AlertRule::from(row)))
}

/// Rules, oldest first.
#[utoipa::path(get, path = "/api/v1/alert-rules", tag = "alerts", security(("user" = [])), params(PageQuery), responses(
    (status = 200, body = Page<AlertRule>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let rows = fleet.store.alert_rules(&caller.org, span.offset(), span.limit()).await;
    let (rows, total) = rows.map_err(store_problem)?;
    let items: Vec<AlertRule> = rows.into_iter().map(AlertRule::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One rule.
#[utoipa::path(get, path = "/api/v1/alert-rules/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = AlertRule), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, id: web::Path<String>) -> Answer {
    let row = fleet.store.alert_rule(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_rule)?;
    Ok(HttpResponse::Ok().json(AlertRule::from(row)))
}

/// Changes a rule.
#[utoipa::path(patch, path = "/api/v1/alert-rules/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), request_body = ChangeAlertRule, responses((status = 200, body = AlertRule),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn change(
    fleet: web::Data<Fleet>,
    caller: Admin,
    id: web::Path<String>,
    body: web::Json<ChangeAlertRule>,
) -> Answer {
    let mut row = fleet.store.alert_rule(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_rule)?;
    let kind = Kind::from_stored(&row.kind).ok_or_else(|| Problem::bad_request("a rule of a newer version"))?;
    let clear =
        if body.threshold.is_some() { body.clear_threshold } else { body.clear_threshold.or(row.clear_threshold) };
    let thresholds = kind.check(body.threshold.or(row.threshold), clear).map_err(Problem::bad_request)?;
    (row.threshold, row.clear_threshold) = (thresholds.map(|(raise, _)| raise), thresholds.map(|(_, clear)| clear));
    if let Some(name) = &body.name {
        row.name = input::line("name", name)?;
    }
    if let Some(value) = body.for_seconds {
        row.for_s = seconds(value)?;
    }
    if let Some(tag) = &body.tag {
        row.tag = input::optional_line("tag", tag.as_deref())?;
    }
    if let Some(asked) = &body.device_id {
        row.device_id = device(&fleet, &caller.org, asked.as_deref()).await?;
    }
    if let Some(asked) = &body.receiver_ids {
        row.receivers = receivers(asked.as_deref())?;
    }
    if let Some(severity) = body.severity {
        row.severity = severity.as_str().to_owned();
    }
    row.enabled = body.enabled.unwrap_or(row.enabled);
    row.updated_at = millis(Utc::now());
    ruled(fleet.store.change_alert_rule(&caller.actor(), &row).await.map_err(store_problem)?)?;
    fleet.hub.alerts_regrouped(&caller.org);
    Ok(HttpResponse::Ok().json(AlertRule::from(row)))
}

/// Deletes a rule and ends its alerts.
#[utoipa::path(delete, path = "/api/v1/alert-rules/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn delete(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    match fleet.store.delete_alert_rule(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        true => {
            fleet.hub.alerts_regrouped(&caller.org);
            Ok(HttpResponse::NoContent().finish())
        }
        false => Err(no_such_rule()),
    }
}
