//! Requests of the fleet on the box's side: each is carried out once, by whoever answers the box's own HTTP, and its answer
//! goes to the server that asked.
//!
//! What was answered outlives the link and its sessions: a request that the broker brings again after a reconnect gets the
//! same answer, and nothing is done twice.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use r58_mqtt::payload::{Request, Response};
use r58_mqtt::request::{Answers, DEADLINE, Verdict};
use tracing::{debug, warn};

use crate::supervision::lock;

/// Answers requests as the box's HTTP face would.
#[async_trait]
pub trait RequestDesk: Send + Sync {
    /// The answer; errors are answers too. The signature was checked, the rights of whoever asked the fleet were not.
    async fn answer(&self, request: Request) -> Response;
}

/// The desk and what it has answered. Cheap to clone.
#[derive(Clone)]
pub struct Requests {
    desk: Arc<dyn RequestDesk>,
    answers: Arc<Mutex<Answers>>,
}

/// What becomes of a request.
pub(super) enum Taken {
    /// Say this.
    Say(Response),
    /// Await this and say it; it goes on whether it is awaited by a link or not.
    Await(BoxFuture<'static, Response>),
    /// Nothing is to be said.
    Silence,
}

impl Requests {
    /// Requests for this desk.
    pub fn new(desk: Arc<dyn RequestDesk>) -> Self {
        Self { desk, answers: Arc::default() }
    }

    pub(super) fn take(&self, now: Instant, wall: Option<DateTime<Utc>>, request: Request) -> Taken {
        match lock(&self.answers).handle_request(now, wall, &request) {
            Verdict::CarryOut => Taken::Await(self.clone().carry_out(request).boxed()),
            Verdict::SayAgain(answer) => Taken::Say(answer),
            Verdict::UnderWay => Taken::Silence,
            Verdict::TooLate => {
                debug!(id = %request.id, "a request came too late");
                Taken::Silence
            }
            Verdict::Busy => {
                let mut answer = problem(&request, 503, "too many requests are under way");
                answer.headers.push(("Retry-After".to_owned(), "2".to_owned()));
                Taken::Say(answer)
            }
        }
    }

    async fn carry_out(self, request: Request) -> Response {
        let late = problem(&request, 504, "the box did not come to an answer in time");
        let broken = problem(&request, 500, "the request failed in a way that nobody foresaw");
        let work = AssertUnwindSafe(self.desk.answer(request)).catch_unwind();
        let answer = match tokio::time::timeout(DEADLINE, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                warn!(id = %broken.id, "a request panicked");
                broken
            }
            Err(_) => late,
        };
        lock(&self.answers).handle_answered(Instant::now(), &answer);
        answer
    }
}

/// An error in the form of RFC 9457.
fn problem(request: &Request, status: u16, title: &str) -> Response {
    let mut answer = Response::new(request.id.clone(), status);
    answer.headers.push(("Content-Type".to_owned(), "application/problem+json".to_owned()));
    answer.body =
        serde_json::json!({ "type": "about:blank", "status": status, "title": title, "detail": title }).to_string();
    answer
}
