//! Alerts: what is the matter, and who takes it on.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{ProblemBody, store_problem};
use super::{input, paging, resource};
use crate::fleet::alerts::rule::{Kind, Severity};
use crate::fleet::alerts::silence::{Silence, silenced_until};
use crate::fleet::auth::{Operator, Viewer};
use crate::fleet::state::Fleet;
use crate::fleet::store::{Acknowledged, AlertFilter, AlertRow, instant, millis};
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/alerts", "GET").route(web::get().to(list)))
        .service(resource("/alerts/summary", "GET").route(web::get().to(summary)))
        .service(resource("/alerts/{id}", "GET").route(web::get().to(get)))
        .service(
            resource("/alerts/{id}/acknowledge", "POST, DELETE")
                .route(web::post().to(acknowledge))
                .route(web::delete().to(unacknowledge)),
        );
}

/// Which alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// Firing or acknowledged.
    Open,
    /// The condition holds, not yet for long enough.
    Pending,
    /// Nobody took it on.
    Firing,
    /// Somebody did.
    Acknowledged,
    /// Over.
    Resolved,
}

impl AlertState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// Which alerts, and from where on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AlertQuery {
    /// All but pending ones unless given.
    #[param(inline)]
    state: Option<AlertState>,
    #[param(inline)]
    severity: Option<Severity>,
    #[param(inline)]
    kind: Option<Kind>,
    /// Of this device.
    device: Option<String>,
    /// Goes on after a page: its `next_cursor`.
    cursor: Option<String>,
    /// 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u32>,
}

/// An alert.
#[derive(Serialize, ToSchema)]
pub struct Alert {
    id: String,
    rule_id: String,
    rule_name: String,
    /// offline, disk, temperature, input_lost, guest_failing, restarts or clock.
    kind: String,
    /// The same, by the name that older programs know.
    #[serde(rename = "type")]
    kind_too: String,
    severity: Severity,
    device_id: String,
    device_name: String,
    /// What of the device, such as an input; empty for the device itself.
    subject: String,
    /// pending, firing, acknowledged or resolved.
    state: String,
    /// The same in older words: active, acknowledged, resolved or, while nobody is told, silenced.
    status: &'static str,
    /// What was measured when it was raised.
    value: Option<f64>,
    /// What is the matter, in words.
    detail: String,
    /// Since when the condition holds.
    since: DateTime<Utc>,
    raised_at: Option<DateTime<Utc>>,
    acknowledged_at: Option<DateTime<Utc>>,
    acknowledged_by: Option<String>,
    note: Option<String>,
    resolved_at: Option<DateTime<Utc>>,
    /// Why it is over.
    resolution: Option<String>,
    /// Nobody is told until then.
    silenced_until: Option<DateTime<Utc>>,
}

impl Alert {
    /// As people see it, under these silences.
    pub fn new(row: AlertRow, silences: &[Silence], now: DateTime<Utc>) -> Self {
        let tags: Vec<String> = serde_json::from_str(&row.device_tags).unwrap_or_default();
        let until = match row.resolved_at {
            None => silenced_until(silences, &row.rule_id, &row.device_id, &tags, millis(now)),
            Some(_) => None,
        };
        Self {
            severity: Severity::from_stored(&row.severity),
            silenced_until: until.map(instant),
            id: row.id,
            rule_id: row.rule_id,
            rule_name: row.rule_name,
            kind_too: row.kind.clone(),
            kind: row.kind,
            device_id: row.device_id,
            device_name: row.device_name,
            subject: row.subject,
            status: match row.state.as_str() {
                "resolved" => "resolved",
                _ if until.is_some() => "silenced",
                "acknowledged" => "acknowledged",
                _ => "active",
            },
            state: row.state,
            value: row.value,
            detail: row.detail,
            since: instant(row.since),
            raised_at: row.raised_at.map(instant),
            acknowledged_at: row.acknowledged_at.map(instant),
            acknowledged_by: row.acknowledged_by,
            note: row.note,
            resolved_at: row.resolved_at.map(instant),
            resolution: row.resolution,
        }
    }
}

/// A page of alerts.
#[derive(Serialize, ToSchema)]
pub struct AlertPage {
    items: Vec<Alert>,
    has_more: bool,
    /// For the next page.
    next_cursor: Option<String>,
}

/// Open alerts in numbers.
#[derive(Serialize, Default, ToSchema)]
pub struct AlertSummary {
    /// Firing or acknowledged.
    open: i64,
    /// Firing: nobody took them on.
    firing: i64,
    /// Firing ones that are critical.
    critical: i64,
    /// Firing ones that are errors.
    error: i64,
    /// Firing ones that are warnings.
    warning: i64,
    /// Firing ones that are there to be known.
    info: i64,
}

/// Alerts, newest first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", security(("user" = [])), params(AlertQuery), responses(
    (status = 200, body = AlertPage), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, asked: web::Query<AlertQuery>) -> Answer {
    let size = asked.page_size.unwrap_or(paging::DEFAULT_SIZE);
    if !(1..=paging::MAX_SIZE).contains(&size) {
        return Err(Problem::bad_request(format!("page_size: 1 to {}", paging::MAX_SIZE)));
    }
    if asked.cursor.as_ref().is_some_and(|cursor| ulid::Ulid::from_string(cursor).is_err()) {
        return Err(Problem::bad_request("cursor: not one of ours"));
    }
    let filter = AlertFilter {
        state: asked.state.map(AlertState::as_str),
        severity: asked.severity.map(Severity::as_str),
        kind: asked.kind.map(Kind::as_str),
        device: asked.device.clone(),
    };
    let now = Utc::now();
    let rows = fleet.store.alerts(&caller.org, &filter, asked.cursor.as_deref(), i64::from(size) + 1).await;
    let mut rows = rows.map_err(store_problem)?;
    let silences = fleet.store.silences_in_force(&caller.org, now).await.map_err(store_problem)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let has_more = rows.len() > size;
    rows.truncate(size);
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.id.clone());
    let items = rows.into_iter().map(|row| Alert::new(row, &silences, now)).collect();
    Ok(HttpResponse::Ok().json(AlertPage { items, has_more, next_cursor }))
}

/// Open alerts in numbers.
#[utoipa::path(get, path = "/api/v1/alerts/summary", tag = "alerts", security(("user" = [])), responses(
    (status = 200, body = AlertSummary), (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn summary(fleet: web::Data<Fleet>, caller: Viewer) -> Answer {
    let mut summary = AlertSummary::default();
    for (severity, state, count) in fleet.store.alert_counts(&caller.org).await.map_err(store_problem)? {
        summary.open += count;
        if state == "firing" {
            summary.firing += count;
            match Severity::from_stored(&severity) {
                Severity::Critical => summary.critical += count,
                Severity::Error => summary.error += count,
                Severity::Warning => summary.warning += count,
                Severity::Info => summary.info += count,
            }
        }
    }
    Ok(HttpResponse::Ok().json(summary))
}

async fn shown(fleet: &Fleet, org: &str, id: &str) -> Answer {
    let now = Utc::now();
    let row = fleet.store.alert(org, id).await.map_err(store_problem)?.ok_or_else(no_such_alert)?;
    let silences = fleet.store.silences_in_force(org, now).await.map_err(store_problem)?;
    Ok(HttpResponse::Ok().json(Alert::new(row, &silences, now)))
}

fn no_such_alert() -> Problem {
    Problem::not_found("no such alert")
}

/// One alert.
#[utoipa::path(get, path = "/api/v1/alerts/{id}", tag = "alerts", security(("user" = [])), params(("id" = String, Path)),
    responses((status = 200, body = Alert), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, id: web::Path<String>) -> Answer {
    shown(&fleet, &caller.org, &id).await
}

/// What to say with it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    /// For the others.
    #[schema(max_length = 200)]
    note: Option<String>,
}

/// Takes a firing alert on; it stays open until its condition is gone.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/acknowledge", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), request_body = Acknowledge, responses((status = 200, body = Alert),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn acknowledge(
    fleet: web::Data<Fleet>,
    caller: Operator,
    id: web::Path<String>,
    body: web::Json<Acknowledge>,
) -> Answer {
    let note = input::optional_line("note", body.note.as_deref())?;
    let done = fleet.store.acknowledge_alert(&caller.actor(), &id, note.as_deref(), Utc::now()).await;
    told(&fleet, &caller.org, &id, done.map_err(store_problem)?).await
}

/// Gives an alert back that somebody took on: it fires again.
#[utoipa::path(delete, path = "/api/v1/alerts/{id}/acknowledge", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Alert), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn unacknowledge(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    let done = fleet.store.unacknowledge_alert(&caller.actor(), &id, Utc::now()).await;
    told(&fleet, &caller.org, &id, done.map_err(store_problem)?).await
}

async fn told(fleet: &Fleet, org: &str, id: &str, done: Acknowledged) -> Answer {
    match done {
        Acknowledged::Done => {
            fleet.hub.alert_changed(org, id);
            shown(fleet, org, id).await
        }
        Acknowledged::Unknown => Err(no_such_alert()),
        Acknowledged::Not(state) => Err(Problem::conflict(format!("the alert is {state}"))),
    }
}
