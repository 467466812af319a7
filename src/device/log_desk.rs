//! The box's log for whoever may read it, without a transport: HTTP and the fleet's link are two thin carriers of it.
//!
//! | path | what |
//! |---|---|
//! | `/api/logs` | a page of past records, oldest first |
//! | `/api/logs/live` | the fleet watches: new records go out on `up/tm/log` until the lease ends |

use std::time::Duration;

use r58_actors::log_tail::WatchLogs;
use r58_actors::logs::query::{LogPage, LogQuery, MOST};
use r58_actors::logs::{Level, LogBook};
use r58_actors::supervision::Door;
use r58_mqtt::payload::{Payload, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::signalling::SignalResponse;
use crate::problem::Problem;

/// Bytes of an answer that travels by the broker, with room for the envelope.
const CARRIED: usize = Response::MAX_BYTES - 4 * 1024;
/// Bytes of records in an answer of the box's own pages.
const LOCAL: usize = 1024 * 1024;
/// Life of a lease unless asked otherwise, in seconds.
const USUAL_LEASE: u64 = 30;

/// See the module.
pub struct LogDesk {
    /// The records.
    pub book: LogBook,
    /// Who says them live; none on a box without a fleet.
    pub watch: Door<WatchLogs>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    level: Option<Level>,
    lease_seconds: Option<u64>,
}

impl LogDesk {
    /// Whether a path is answered here.
    pub fn serves(path: &str) -> bool {
        path == "/api/logs" || path == "/api/logs/live"
    }

    /// Answers the fleet.
    pub async fn handle(&self, method: &str, path: &str, body: &str) -> SignalResponse {
        let answer = match (method, path) {
            ("POST", "/api/logs") => self.carried(body).await,
            ("POST", "/api/logs/live") => self.live(body).await,
            _ => Err(Problem::with_status(405, "the log is asked for by POST").header("Allow", "POST")),
        };
        answer.unwrap_or_else(SignalResponse::from)
    }

    /// A page for the crew.
    ///
    /// # Errors
    /// 400 for a limit out of range, 500 when the reader failed.
    pub async fn page(&self, query: LogQuery) -> Result<LogPage, Problem> {
        self.read(query, LOCAL).await
    }

    async fn carried(&self, body: &str) -> Result<SignalResponse, Problem> {
        let query: LogQuery = parse(body)?;
        // Text is escaped once in the page and once more in the envelope: fewer records until what is left fits.
        let mut bytes = CARRIED / 2;
        loop {
            let page = self.read(query.clone(), bytes).await?;
            let answer = json(&page);
            if page.items.len() <= 1 || serde_json::to_string(&answer.body).is_ok_and(|text| text.len() <= CARRIED) {
                return Ok(answer);
            }
            bytes /= 2;
        }
    }

    async fn read(&self, query: LogQuery, bytes: usize) -> Result<LogPage, Problem> {
        if query.limit.is_some_and(|limit| !(1..=MOST).contains(&limit)) {
            return Err(Problem::bad_request(format!("limit: 1 to {MOST}")));
        }
        let book = self.book.clone();
        let read = tokio::task::spawn_blocking(move || book.query(&query, bytes)).await;
        read.map_err(|_| Problem::with_status(500, "the log could not be read"))
    }

    async fn live(&self, body: &str) -> Result<SignalResponse, Problem> {
        let Watch { level, lease_seconds } = parse(body)?;
        let lease = Duration::from_secs(lease_seconds.unwrap_or(USUAL_LEASE));
        let order = WatchLogs { level: level.unwrap_or(Level::Info), lease };
        let cursor =
            self.watch.send(order).await.map_err(|error| Problem::with_status(error.status(), error.to_string()))?;
        Ok(json(&json!({ "cursor": cursor })))
    }
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, Problem> {
    serde_json::from_str(body).map_err(|error| Problem::bad_request(error.to_string()))
}

fn json(document: &impl serde::Serialize) -> SignalResponse {
    let body = serde_json::to_string(document).unwrap_or_else(|_| "{}".to_owned());
    SignalResponse::new(200).header("Cache-Control", "no-store").body("application/json", body)
}
