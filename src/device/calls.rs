//! Guests by way of the SFU, without a transport: the names that operators know, and WHIP in form.
//!
//! | path | what | who |
//! |---|---|---|
//! | `/api/calls/whip/{guest}` | POST an offer: it is published by the SFU, and the box fetches it | the guest, by its token |
//! | `/api/calls/whip/{guest}/{session}` | DELETE: this call ends | the guest |
//! | `/api/calls/session/{guest}` | GET: how the call stands, or how the last one ended; DELETE: whichever there is ends | the guest, the crew |
//! | `/api/calls/sessions` | GET: all calls | the crew |
//!
//! The SFU answers connectivity checks and makes none, so there are no late candidates to send and PATCH is not known here.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use r58_actors::DoorError;
use r58_actors::device::DeviceHandle;
use r58_actors::sfu::core::CallError;
use r58_actors::sfu::{EndCall, GetCalls, PublishBySfu, Published, SfuError};
use r58_actors::turn::IceSnapshot;
use serde_json::json;
use tokio::sync::watch;

use super::sfu::SfuDoors;
use super::signalling::{
    SDP, SignalRequest, SignalResponse, Signalling, bearer, decoded, expect_type, links, refused, text,
};
use crate::problem::Problem;

/// Longest that an answer may take: the link gives up before.
const PATIENCE: Duration = Duration::from_secs(9);
const PREFIX: &str = "/api/calls/";
const JSON: &str = "application/json";

/// See the module.
pub struct Calls {
    device: DeviceHandle,
    /// None when no SFU is configured.
    link: Option<SfuDoors>,
    ice: watch::Receiver<IceSnapshot>,
    signalling: Arc<Signalling>,
}

/// Whom a path is for.
enum Target {
    Endpoint(String),
    Call(String, String),
    Guest(String),
    All,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix(PREFIX)?.split('/').collect();
        match parts.as_slice() {
            ["whip", guest] => Some(Self::Endpoint(decoded(guest)?)),
            ["whip", guest, session] => Some(Self::Call(decoded(guest)?, decoded(session)?)),
            ["session", guest] => Some(Self::Guest(decoded(guest)?)),
            ["sessions"] => Some(Self::All),
            _ => None,
        }
    }
}

impl Calls {
    /// For a box; `ice` are the servers that guests are told of.
    pub fn new(
        device: DeviceHandle,
        link: Option<SfuDoors>,
        ice: watch::Receiver<IceSnapshot>,
        signalling: Arc<Signalling>,
    ) -> Self {
        Self { device, link, ice, signalling }
    }

    /// Whether a path is answered here.
    pub fn serves(path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    /// Answers a request. Its body is only asked for when everything else about it is right.
    pub async fn handle(
        &self,
        request: SignalRequest,
        body: impl Future<Output = Result<Vec<u8>, Problem>>,
    ) -> SignalResponse {
        self.answer(&request, body).await.unwrap_or_else(SignalResponse::from).header("Cache-Control", "no-store")
    }

    async fn answer(
        &self,
        request: &SignalRequest,
        body: impl Future<Output = Result<Vec<u8>, Problem>>,
    ) -> Result<SignalResponse, Problem> {
        let target = Target::parse(&request.path).ok_or_else(|| Problem::not_found("no such path"))?;
        let link = self.link.as_ref().ok_or_else(|| Problem::not_found("this box has no SFU"))?;
        self.signalling.count(&request.client)?;
        match (request.method.as_str(), target) {
            ("OPTIONS", Target::Endpoint(_) | Target::Call(..)) => {
                Ok(SignalResponse::new(200).header("Accept-Post", SDP).header("Allow", "POST, DELETE, OPTIONS, GET"))
            }
            ("GET" | "HEAD", Target::Endpoint(_) | Target::Call(..)) => Ok(SignalResponse::new(204)),
            ("POST", Target::Endpoint(name)) => {
                let bearer = bearer(request.authorization.as_deref());
                let pass = self.device.book.enter(&name, bearer.as_deref()).map_err(|error| refused(&error))?;
                expect_type(request, SDP, "Accept-Post", "an offer")?;
                let offer = text(body.await?)?;
                let order = PublishBySfu { seat: pass.seat, name, bearer, offer };
                self.publish(link, &request.path, order).await
            }
            ("DELETE", Target::Call(name, session)) => {
                let seat = self.guest(request, &name)?;
                end(link, seat, Some(session)).await
            }
            ("DELETE", Target::Guest(name)) => {
                let seat = self.guest_or_crew(request, &name)?;
                end(link, seat, None).await
            }
            ("GET", Target::Guest(name)) => {
                let seat = self.guest_or_crew(request, &name)?;
                let calls = link.calls.send(GetCalls(Some(seat))).await.map_err(|error| shut(&error))?;
                let call =
                    calls.first().ok_or_else(|| Problem::not_found("no guest of this seat has come by the SFU"))?;
                Ok(SignalResponse::new(200).body(JSON, json!(call).to_string()))
            }
            ("GET", Target::All) => {
                request.crew.clone()?;
                let calls = link.calls.send(GetCalls(None)).await.map_err(|error| shut(&error))?;
                Ok(SignalResponse::new(200).body(JSON, json!({ "items": calls }).to_string()))
            }
            (_, target) => {
                let allowed = match target {
                    Target::Endpoint(_) => "POST, OPTIONS, GET, HEAD",
                    Target::Call(..) => "DELETE, OPTIONS, GET, HEAD",
                    Target::Guest(_) => "GET, DELETE",
                    Target::All => "GET",
                };
                let sentence = "a call is made by POST and ended by DELETE";
                Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, sentence).header("Allow", allowed))
            }
        }
    }

    /// The seat of a guest that has a call, by the word that it came with: also when that opens nothing any more.
    fn guest(&self, request: &SignalRequest, name: &str) -> Result<String, Problem> {
        let bearer = bearer(request.authorization.as_deref());
        self.device.book.known(name, bearer.as_deref()).map(|pass| pass.seat).map_err(|error| refused(&error))
    }

    fn guest_or_crew(&self, request: &SignalRequest, name: &str) -> Result<String, Problem> {
        if bearer(request.authorization.as_deref()).is_some() {
            return self.guest(request, name);
        }
        request.crew.clone().map(|()| name.to_owned())
    }

    async fn publish(&self, link: &SfuDoors, path: &str, order: PublishBySfu) -> Result<SignalResponse, Problem> {
        let published = link.publish.send_within(order, PATIENCE).await.map_err(|error| shut(&error))?;
        let Published { session, answer } = published.map_err(|error| problem_of(&error))?;
        let mut response = SignalResponse::new(201)
            .header("Location", format!("{}/{session}", path.trim_end_matches('/')))
            .header("ETag", format!("\"{session}\""));
        for link in links::ice_links(&self.ice.borrow().servers) {
            response = response.header("Link", link);
        }
        Ok(response.body(SDP, answer))
    }
}

async fn end(link: &SfuDoors, seat: String, session: Option<String>) -> Result<SignalResponse, Problem> {
    let ended = link.end.send(EndCall { seat, session }).await.map_err(|error| shut(&error))?;
    ended.map(|()| SignalResponse::new(200)).map_err(|error: CallError| problem_of(&error.into()))
}

fn shut(error: &DoorError) -> Problem {
    Problem::with_status(error.status(), error.to_string()).retry_after(Duration::from_secs(1))
}

/// A refusal in the words of HTTP.
fn problem_of(error: &SfuError) -> Problem {
    match error {
        SfuError::Guest(error) => refused(error),
        other => {
            let problem = Problem::with_status(other.status(), other.to_string());
            other.retry_after().map_or(problem.clone(), |wait| problem.retry_after(wait))
        }
    }
}
