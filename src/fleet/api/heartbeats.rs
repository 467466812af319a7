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
use crate::fleet::store::downsample::{DAY, HOUR, METRICS, MINUTE, Summaries, Summary};
use crate::fleet::store::{DeviceNo, StoredHeartbeat, instant};
use crate::problem::{Answer, Problem};

/// Longest span of figures: 31 days.
const MAX_HOURS: u32 = 31 * 24;
/// Most points of a line: as many as a wide screen has room for.
const MAX_POINTS: i64 = 1_500;
/// The year 10,000, in milliseconds since 1970; times beyond it are nobody's.
const FAR: i64 = 253_402_300_800_000;

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

/// Over which span: the last `hours` as one figure a metric, or `from`, `to` and `bucket` as a line.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MetricsQuery {
    /// The last 1 to 744 hours.
    #[param(minimum = 1, maximum = 744, default = 24)]
    hours: Option<u32>,
    /// Beginning of a line.
    from: Option<DateTime<Utc>>,
    /// End of a line; now unless given.
    to: Option<DateTime<Utc>>,
    /// One point of a line; at most 1,500 fit between `from` and `to`.
    bucket: Option<Bucket>,
}

/// One point of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// A minute.
    Minute,
    /// Five minutes.
    FiveMinutes,
    /// A quarter of an hour.
    Quarter,
    /// An hour.
    Hour,
    /// Six hours.
    SixHours,
    /// A day, from midnight UTC.
    Day,
}

impl Bucket {
    fn millis(self) -> i64 {
        match self {
            Self::Minute => MINUTE,
            Self::FiveMinutes => 5 * MINUTE,
            Self::Quarter => 15 * MINUTE,
            Self::Hour => HOUR,
            Self::SixHours => 6 * HOUR,
            Self::Day => DAY,
        }
    }
}

/// A heartbeat.
#[derive(Serialize, ToSchema)]
pub struct HeartbeatAnswer {
    /// When it was measured, by the device's clock. Where that is not set (it shows a time before 2020), by how long its process
    /// had been running, from when the server first heard of that start.
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
    /// How many heartbeats said it.
    count: i64,
}

/// A point of a line.
#[derive(Serialize, ToSchema)]
pub struct LinePoint {
    /// Beginning of the bucket.
    ts: DateTime<Utc>,
    /// A metric without a value is left out.
    metrics: BTreeMap<String, Metric>,
}

/// Every metric over time; a bucket without a heartbeat is left out.
#[derive(Serialize, ToSchema)]
pub struct Line {
    /// Seconds of one bucket.
    bucket_seconds: i64,
    /// In the order of time.
    points: Vec<LinePoint>,
}

/// Figures of a span, by metric, or a line.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum MetricsAnswer {
    /// With `from`.
    Line(Line),
    /// With `hours`.
    Figures(BTreeMap<String, Metric>),
}

fn figures(summaries: &Summaries) -> BTreeMap<String, Metric> {
    let named = METRICS.iter().zip(summaries);
    let told = named.filter_map(|((name, _), sum)| sum.map(|sum| (*name, sum)));
    told.map(|(name, sum)| {
        let Summary { min, max, latest, count, .. } = sum;
        (name.to_owned(), Metric { min, max, avg: sum.avg(), latest, count })
    })
    .collect()
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
    params(("id" = String, Path), MetricsQuery), responses((status = 200, body = MetricsAnswer),
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
    let line = line_of(&query)?;
    let device = number(&fleet, &caller.org, &id).await?;
    let Some((from, to, span)) = line else {
        let since = Utc::now() - Duration::hours(i64::from(hours));
        let found = fleet.store.metrics(device, since).await.map_err(store_problem)?;
        return Ok(HttpResponse::Ok().json(MetricsAnswer::Figures(figures(&found))));
    };
    let found = fleet.store.metric_series(device, from, to, span).await.map_err(store_problem)?;
    let points =
        found.iter().map(|point| LinePoint { ts: instant(point.ts), metrics: figures(&point.metrics) }).collect();
    Ok(HttpResponse::Ok().json(MetricsAnswer::Line(Line { bucket_seconds: span / 1_000, points })))
}

/// Beginning, end and milliseconds of a bucket.
type Span = (DateTime<Utc>, DateTime<Utc>, i64);

/// The line that is asked for, if one is.
fn line_of(query: &MetricsQuery) -> Result<Option<Span>, Problem> {
    let Some(from) = query.from else {
        return match query.to.is_some() || query.bucket.is_some() {
            true => Err(Problem::bad_request("from: a line wants a beginning")),
            false => Ok(None),
        };
    };
    let (to, span) = (query.to.unwrap_or_else(Utc::now), query.bucket.unwrap_or(Bucket::Hour).millis());
    let length = to.timestamp_millis().saturating_sub(from.timestamp_millis());
    if length <= 0 || length / span > MAX_POINTS || to.timestamp_millis() > FAR {
        return Err(Problem::bad_request(format!(
            "from, to, bucket: 1 to {MAX_POINTS} points, the first before the last"
        )));
    }
    Ok(Some((from, to, span)))
}

async fn number(fleet: &Fleet, org: &str, id: &str) -> Result<DeviceNo, Problem> {
    let row = fleet.store.device(org, id).await.map_err(store_problem)?;
    row.map(|row| DeviceNo(row.no)).ok_or_else(no_such_device)
}
