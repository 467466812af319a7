//! What devices measured: history and figures.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::devices::no_such_device;
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::resource;
use crate::fleet::auth::Viewer;
use crate::fleet::state::Fleet;
use crate::fleet::store::{DeviceNo, StoredHeartbeat, instant};
use crate::problem::{Answer, Problem};

/// Longest span of figures: 31 days.
const MAX_HOURS: u32 = 31 * 24;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/devices/{id}/heartbeats", "GET").route(web::get().to(list)))
        .service(resource("/devices/{id}/metrics", "GET").route(web::get().to(metrics)));
}

/// Which heartbeats.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Measured from then on; the last day unless given.
    since: Option<DateTime<Utc>>,
    /// From 1.
    #[param(minimum = 1, default = 1)]
    page: Option<u32>,
    /// 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u32>,
}

/// Over which span.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MetricsQuery {
    /// The last 1 to 744 hours.
    #[param(minimum = 1, maximum = 744, default = 24)]
    hours: Option<u32>,
}

/// A heartbeat.
#[derive(Serialize, ToSchema)]
pub struct HeartbeatAnswer {
    /// When it was measured, by the device's clock.
    ts: DateTime<Utc>,
    /// When it was stored, by the server's clock.
    received_at: DateTime<Utc>,
    /// All that the device said.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    body: Value,
}

impl From<StoredHeartbeat> for HeartbeatAnswer {
    fn from(row: StoredHeartbeat) -> Self {
        let mut body: Value = serde_json::from_str(&row.body).unwrap_or_else(|_| Value::Object(Default::default()));
        if let Some(fields) = body.as_object_mut() {
            // Said once, above.
            fields.remove("ts");
            fields.remove("received_at");
        }
        Self { ts: instant(row.ts), received_at: instant(row.received_at), body }
    }
}

/// One metric over the span.
#[derive(Serialize, ToSchema)]
pub struct Metric {
    min: f64,
    max: f64,
    avg: f64,
    latest: f64,
}

/// Heartbeats, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/heartbeats", tag = "telemetry", security(("user" = [])),
    params(("id" = String, Path), HistoryQuery), responses((status = 200, body = Page<HeartbeatAnswer>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    id: web::Path<String>,
    query: web::Query<HistoryQuery>,
) -> Answer {
    let span = PageQuery { page: query.page, page_size: query.page_size }.check()?;
    let device = number(&fleet, &caller.org, &id).await?;
    let since = query.since.unwrap_or_else(|| Utc::now() - Duration::days(1));
    let (rows, total) =
        fleet.store.heartbeats(device, since, span.offset(), span.limit()).await.map_err(store_problem)?;
    let items: Vec<HeartbeatAnswer> = rows.into_iter().map(HeartbeatAnswer::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// Smallest, largest, mean and latest value of each metric; one without a value is left out.
#[utoipa::path(get, path = "/api/v1/devices/{id}/metrics", tag = "telemetry", security(("user" = [])),
    params(("id" = String, Path), MetricsQuery), responses((status = 200, body = BTreeMap<String, Metric>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn metrics(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    id: web::Path<String>,
    query: web::Query<MetricsQuery>,
) -> Answer {
    let hours = query.hours.unwrap_or(24);
    if !(1..=MAX_HOURS).contains(&hours) {
        return Err(Problem::bad_request(format!("hours: 1 to {MAX_HOURS}")));
    }
    let device = number(&fleet, &caller.org, &id).await?;
    let since = Utc::now() - Duration::hours(i64::from(hours));
    let found = fleet.store.metrics(device, since).await.map_err(store_problem)?;
    let by_name: BTreeMap<&str, Metric> = found
        .into_iter()
        .map(|one| (one.name, Metric { min: one.min, max: one.max, avg: one.avg, latest: one.latest }))
        .collect();
    Ok(HttpResponse::Ok().json(by_name))
}

async fn number(fleet: &Fleet, org: &str, id: &str) -> Result<DeviceNo, Problem> {
    let row = fleet.store.device(org, id).await.map_err(store_problem)?;
    row.map(|row| DeviceNo(row.no)).ok_or_else(no_such_device)
}
