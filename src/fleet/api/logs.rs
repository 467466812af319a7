//! A device's log: past records by question and answer over the broker, new ones as they come while somebody watches.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use r58_actors::caller::LiveLog;
use r58_actors::log_tail::DROPPED;
use r58_actors::logs::Level;
use r58_actors::logs::query::{LogPage, LogQuery, MOST};
use r58_mqtt::DeviceAddress;
use r58_mqtt::payload::{Method, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use utoipa::{IntoParams, ToSchema};

use super::invitations::ask;
use super::problem::ProblemBody;
use super::resource;
use crate::fleet::auth::{Session, Viewer};
use crate::fleet::state::Fleet;
use crate::problem::{Answer, Problem};

/// The device tells its log for so long unless it is asked again; a server that dies is soon not told any more.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is asked again; also keeps proxies from closing a quiet stream.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Lines that may wait for a slow reader; beyond, its stream waits, and what is missed is counted.
const LINES: usize = 64;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/devices/{id}/logs", "GET").route(web::get().to(past)))
        .service(resource("/devices/{id}/logs/live", "GET").route(web::get().to(live)));
}

/// How bad, the worst first.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A duty stopped.
    Error,
    /// Someone should look.
    Warn,
    /// A change that a user would see.
    Info,
    /// A branch taken.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PastQuery {
    /// Not before.
    since: Option<DateTime<Utc>>,
    /// Before.
    until: Option<DateTime<Utc>>,
    /// At least as bad.
    level: Option<LogLevel>,
    /// Of this actor, or about the input or seat of this name.
    #[param(max_length = 64)]
    actor: Option<String>,
    /// 1 to 1,000; fewer come when they are long.
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<usize>,
    /// Where an earlier answer ended.
    #[param(minimum = 0)]
    cursor: Option<u64>,
}

/// A device's past records, oldest first, without secrets: {items, cursor, has_more}. Without `since` and `cursor` the
/// newest. The device itself is asked, so it must be connected.
#[utoipa::path(get, path = "/api/v1/devices/{id}/logs", tag = "logs", security(("user" = [])),
    params(("id" = String, Path), PastQuery), responses((status = 200, body = Object), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 404, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 503, body = ProblemBody), (status = 504, body = ProblemBody)))]
pub async fn past(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    device: web::Path<String>,
    query: web::Query<PastQuery>,
) -> Answer {
    let PastQuery { since, until, level, actor, limit, cursor } = query.into_inner();
    if limit.is_some_and(|limit| !(1..=MOST).contains(&limit)) {
        return Err(Problem::bad_request(format!("limit: 1 to {MOST}")));
    }
    let actor = short(actor)?;
    let wanted = LogQuery { since, until, level: level.map(Level::from), actor, limit, cursor };
    let body = json!(wanted).to_string();
    let answer = ask(&fleet, &caller, &device, Method::Post, "/api/logs".into(), body).await?;
    Ok(HttpResponse::Ok().json(read::<LogPage>(&answer)?))
}

/// Which new records.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LiveQuery {
    /// At least as bad; `info` unless given.
    level: Option<LogLevel>,
    /// Of this actor, or about the input or seat of this name.
    #[param(max_length = 64)]
    actor: Option<String>,
}

/// Server-sent events: `hello` with {cursor}, after which records come; `log` with a record, `dropped` with {count} of those
/// left out because they came too fast, `away` with {reason} while the device cannot be asked, `back` when it can again. The
/// device tells its log only while somebody watches. The stream ends with the access token.
#[utoipa::path(get, path = "/api/v1/devices/{id}/logs/live", tag = "logs", security(("user" = [])),
    params(("id" = String, Path), LiveQuery), responses(
    (status = 200, content_type = "text/event-stream", body = String), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 404, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 503, body = ProblemBody), (status = 504, body = ProblemBody)))]
pub async fn live(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    device: web::Path<String>,
    query: web::Query<LiveQuery>,
) -> Answer {
    let LiveQuery { level, actor } = query.into_inner();
    let actor = short(actor)?;
    let level = level.map_or(Level::Info, Level::from);
    // Before the device is asked: what it says at once shall not be missed.
    let heard = fleet.broker.logs();
    let cursor = renew(&fleet, &caller, &device, level).await?;
    let address = DeviceAddress::new(&caller.org, device.as_str()).map_err(|_| super::devices::no_such_device())?;
    let (lines, stream) = mpsc::channel(LINES);
    let left = (caller.expires_at - Utc::now()).to_std().unwrap_or_default();
    let closed = fleet.hub.closed();
    let watcher = Watcher {
        fleet,
        caller: caller.0,
        device: device.into_inner(),
        address,
        level,
        actor,
        heard,
        lines,
        ends: Instant::now() + left,
        away: false,
    };
    actix_web::rt::spawn(watcher.run(cursor, closed));
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let stream = futures_util::StreamExt::map(stream, Ok::<Bytes, actix_web::Error>);
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(stream))
}

fn short(actor: Option<String>) -> Result<Option<String>, Problem> {
    match &actor {
        Some(name) if name.len() > 64 || name.chars().any(char::is_control) => {
            Err(Problem::bad_request("actor: at most 64 bytes without control characters"))
        }
        _ => Ok(actor),
    }
}

/// What a box answered; whatever it says is read before it is passed on.
fn read<T: DeserializeOwned>(answer: &Response) -> Result<T, Problem> {
    match answer.status {
        200 => {
            serde_json::from_str(&answer.body).map_err(|_| Problem::unavailable("the device's answer cannot be read"))
        }
        404 | 405 => Err(Problem::unavailable("this device's software does not tell its log")),
        504 => Err(Problem::with_status(504, "the device did not read its log in time")),
        _ => Err(Problem::unavailable("the device cannot tell its log now")),
    }
}

/// Where the device's records go on from.
#[derive(Deserialize)]
struct Watched {
    cursor: u64,
}

/// Has the device tell its log for another while.
async fn renew(fleet: &Fleet, caller: &Session, device: &str, level: Level) -> Result<u64, Problem> {
    let body = json!({"level": level, "lease_seconds": LEASE.as_secs()}).to_string();
    let answer = ask(fleet, caller, device, Method::Post, "/api/logs/live".into(), body).await?;
    Ok(read::<Watched>(&answer)?.cursor)
}

struct Watcher {
    fleet: web::Data<Fleet>,
    caller: Session,
    device: String,
    address: DeviceAddress,
    level: Level,
    actor: Option<String>,
    heard: broadcast::Receiver<LiveLog>,
    lines: mpsc::Sender<Bytes>,
    ends: Instant,
    away: bool,
}

impl Watcher {
    /// Until nobody reads any more, the access token ends, or the server stops.
    async fn run(mut self, cursor: u64, mut closed: watch::Receiver<bool>) {
        if !self.say("hello", &json!({ "cursor": cursor })).await {
            return;
        }
        let mut renewal = Instant::now() + RENEW_EVERY;
        loop {
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => return,
                () = self.lines.closed() => return,
                () = sleep_until(self.ends) => return,
                () = sleep_until(renewal) => {
                    if !self.keep_up().await {
                        return;
                    }
                    renewal = Instant::now() + RENEW_EVERY;
                }
                heard = self.heard.recv() => {
                    let open = match heard {
                        Ok(log) if log.device == self.address => self.tell(&log).await,
                        Ok(_) => true,
                        Err(RecvError::Lagged(missed)) => self.say("dropped", &json!({ "count": missed })).await,
                        Err(RecvError::Closed) => return,
                    };
                    if !open {
                        return;
                    }
                }
            }
        }
    }

    async fn keep_up(&mut self) -> bool {
        match renew(&self.fleet, &self.caller, &self.device, self.level).await {
            Ok(_) if std::mem::take(&mut self.away) => self.say("back", &json!({})).await,
            Ok(_) => self.lines.send(Bytes::from_static(b": still here\n\n")).await.is_ok(),
            Err(problem) => {
                self.away = true;
                self.say("away", &json!({ "reason": problem.to_string() })).await
            }
        }
    }

    async fn tell(&self, log: &LiveLog) -> bool {
        let dropped = log.batch.extra.get(DROPPED).and_then(Value::as_u64).unwrap_or(0);
        if dropped > 0 && !self.say("dropped", &json!({ "count": dropped })).await {
            return false;
        }
        for item in &log.batch.items {
            // Whatever a box says is looked at before it is passed on.
            let Ok(record) = serde_json::from_value::<r58_actors::logs::Record>(item.data.clone()) else { continue };
            let wanted = record.level <= self.level && self.actor.as_deref().is_none_or(|actor| record.is_of(actor));
            if wanted && !self.say("log", &json!(record)).await {
                return false;
            }
        }
        true
    }

    async fn say(&self, event: &str, data: &Value) -> bool {
        self.lines.send(format!("event: {event}\ndata: {data}\n\n").into()).await.is_ok()
    }
}
