//! WHIP (RFC 9725) for guests and WHEP for viewers, without a transport: HTTP and the fleet's link are two thin carriers of it.
//!
//! | room | what |
//! |---|---|
//! | `request` | what carriers hand over and get back |
//! | `links` | ICE servers as Link headers (pure) |
//!
//! What a seat or a stream says is decided by its actor; here is what the two protocols ask of any answer.

pub(super) mod links;
mod request;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use r58_actors::device::DeviceHandle;
use r58_actors::guest::{Admission, AdmitGuest, DropGuest, PatchGuest};
use r58_actors::patch::core::Precondition;
use r58_actors::patch::{Patch, Patched};
use r58_actors::turn::IceSnapshot;
use r58_actors::viewers::returns::{return_of, return_to};
use r58_actors::viewers::{AdmitViewer, DropViewer, PatchViewer};
use r58_actors::{DoorError, GuestError};
use r58_pipelines::sdp::SdpFragment;
use tokio::sync::watch;

pub use request::{SignalRequest, SignalResponse, bearer, decoded};

use super::viewer_tokens::ViewerTokens;
use crate::problem::Problem;
pub use crate::rates::RatePolicy;
use crate::rates::Rates;
use request::{Side, Target, is_type};

/// Largest body, in bytes; the largest offers that browsers make are some 8 KiB.
pub const BODY_LIMIT: usize = 64 * 1024;
/// Longest that an actor may take for an answer; whoever asks from afar gives up soon after.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const METHODS: &str = "POST, PATCH, DELETE, OPTIONS";

/// The handler of both protocols.
pub struct Signalling {
    device: DeviceHandle,
    ice: watch::Receiver<IceSnapshot>,
    viewers: Arc<ViewerTokens>,
    rates: Mutex<Rates>,
}

impl Signalling {
    /// For a box; `ice` are the servers that clients are told of.
    pub fn new(
        device: DeviceHandle,
        ice: watch::Receiver<IceSnapshot>,
        viewers: Arc<ViewerTokens>,
        policy: RatePolicy,
    ) -> Self {
        Self { device, ice, viewers, rates: Mutex::new(Rates::new(policy)) }
    }

    /// Answers a request. Its body is only asked for when everything else about it is right, so that nobody without the
    /// right token gets to send one; `body` answers with the problem to pass on when there is none.
    pub async fn handle(
        &self,
        request: SignalRequest,
        body: impl Future<Output = Result<Vec<u8>, Problem>>,
    ) -> SignalResponse {
        let Some(target) = Target::parse(&request.path) else { return Problem::not_found("no such path").into() };
        let target = self.of_the_seat(&request, target);
        let answered = self.answer(&request, &target, body).await;
        let response = answered.unwrap_or_else(SignalResponse::from);
        match target.side {
            Side::Whep if request.method != "OPTIONS" && viewer_token(&request).is_none() => response,
            // A token is sent by no browser by itself, so pages of any origin may try with one.
            Side::Whip | Side::Whep => response.header("Access-Control-Allow-Origin", "*").header(
                "Access-Control-Expose-Headers",
                "Location, Link, ETag, Retry-After, Accept-Post, Accept-Patch",
            ),
        }
    }

    async fn answer(
        &self,
        request: &SignalRequest,
        target: &Target,
        body: impl Future<Output = Result<Vec<u8>, Problem>>,
    ) -> Result<SignalResponse, Problem> {
        match (request.method.as_str(), &target.session) {
            // RFC 9725, section 4.1: a GET of endpoint or session succeeds with no content.
            ("GET" | "HEAD", _) => Ok(SignalResponse::new(204)),
            ("OPTIONS", _) => Ok(options()),
            ("POST", None) => {
                self.pass(request, target)?;
                expect_type(request, SDP, "Accept-Post", "an offer")?;
                self.post(request, target, text(body.await?)?).await
            }
            ("PATCH", Some(session)) => {
                self.pass(request, target)?;
                expect_type(request, FRAGMENT, "Accept-Patch", "a change of a session")?;
                self.patch(request, target, session, text(body.await?)?).await
            }
            ("DELETE", Some(session)) => {
                self.pass(request, target)?;
                self.delete(request, target, session).await
            }
            _ => Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "a session is made by POST, changed by PATCH, ended by DELETE",
            )
            .header(
                "Allow",
                if target.session.is_some() { "PATCH, DELETE, OPTIONS, GET, HEAD" } else { "POST, OPTIONS, GET, HEAD" },
            )),
        }
    }

    /// Counts a request of this client.
    ///
    /// # Errors
    /// 503 when there were too many.
    pub fn count(&self, client: &str) -> Result<(), Problem> {
        let passed = self.rates.lock().unwrap_or_else(PoisonError::into_inner).handle(Instant::now(), client);
        passed.map_err(|wait| Problem::unavailable("too many requests from this address").retry_after(wait))
    }

    /// A guest may ask for its return feed by its invitation's id, as it may join by it.
    fn of_the_seat(&self, request: &SignalRequest, target: Target) -> Target {
        let (Side::Whep, Some(name)) = (&target.side, return_of(&target.name)) else { return target };
        let pass = bearer(request.authorization.as_deref()).and_then(|word| self.device.book.of(&word));
        match pass.filter(|pass| pass.invitation.as_deref() == Some(name)) {
            Some(pass) => Target { name: return_to(&pass.seat), ..target },
            None => target,
        }
    }

    /// A return feed is for the guest in its seat, once it is let in, and for the crew. Tokens of viewers open none.
    fn pass_return(&self, request: &SignalRequest, target: &Target, seat: &str) -> Result<(), Problem> {
        let Some(word) = bearer(request.authorization.as_deref()) else { return request.crew.clone() };
        let book = &self.device.book;
        if target.session.is_some() {
            return book.known(seat, Some(&word)).map(drop).map_err(|error| refused(&error));
        }
        let pass = book.enter(seat, Some(&word)).map_err(|error| refused(&error))?;
        pass.admitted.then_some(()).ok_or_else(|| Problem::forbidden("the crew has not let you in yet"))
    }

    /// Rate, then token.
    fn pass(&self, request: &SignalRequest, target: &Target) -> Result<(), Problem> {
        self.count(&request.client)?;
        if let (Side::Whep, Some(seat)) = (&target.side, return_of(&target.name)) {
            return self.pass_return(request, target, seat);
        }
        let (book, bearer) = (&self.device.book, bearer(request.authorization.as_deref()));
        let passed = match target.side {
            Side::Whep => {
                return request.crew.clone().or_else(|problem| match viewer_token(request) {
                    Some(token) => self.viewers.check(&token, Some(&target.name), chrono::Utc::now()),
                    None => Err(problem),
                });
            }
            // Whoever is in may change its session and leave, also by an invitation that has ended meanwhile.
            Side::Whip if target.session.is_some() => book.known(&target.name, bearer.as_deref()),
            Side::Whip => book.enter(&target.name, bearer.as_deref()),
        };
        passed.map(drop).map_err(|error| refused(&error))
    }

    async fn post(&self, request: &SignalRequest, target: &Target, offer: String) -> Result<SignalResponse, Problem> {
        let name = target.name.clone();
        let (admitted, base) = match target.side {
            Side::Whip => {
                let order = AdmitGuest { seat: name, bearer: bearer(request.authorization.as_deref()), offer };
                (self.device.guests.admit.send_within(order, PATIENCE).await, "whip")
            }
            Side::Whep => {
                let order = AdmitViewer { name, offer };
                (self.device.viewers.admit.send_within(order, PATIENCE).await, "whep")
            }
        };
        let Admission { session, tag, answer } = asked(admitted)?;
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let mut response = SignalResponse::new(201)
            .header("Location", format!("/{base}/{name}/{session}"))
            .header("ETag", format!("\"{tag}\""))
            .header("Accept-Patch", FRAGMENT);
        for link in links::ice_links(&self.ice.borrow().servers) {
            response = response.header("Link", link);
        }
        Ok(response.body(SDP, answer))
    }

    async fn patch(
        &self,
        request: &SignalRequest,
        target: &Target,
        session: &str,
        body: String,
    ) -> Result<SignalResponse, Problem> {
        let precondition = Precondition::read(request.if_match.as_deref());
        let fragment = SdpFragment::parse(&body).map_err(|error| refused(&error.into()))?;
        let (name, session) = (target.name.clone(), session.to_owned());
        let patch = Patch { precondition, fragment };
        let patched = match target.side {
            Side::Whip => {
                let bearer = bearer(request.authorization.as_deref());
                let order = PatchGuest { seat: name, session, bearer, patch };
                self.device.guests.patch.send_within(order, PATIENCE).await
            }
            Side::Whep => {
                let order = PatchViewer { name, session, patch };
                self.device.viewers.patch.send_within(order, PATIENCE).await
            }
        };
        Ok(match asked(patched)? {
            Patched::Trickled => SignalResponse::new(204),
            Patched::Restarted { tag, answer } => {
                SignalResponse::new(200).header("ETag", format!("\"{tag}\"")).body(FRAGMENT, answer.to_string())
            }
        })
    }

    /// Whatever its `If-Match` says: who leaves, leaves.
    async fn delete(&self, request: &SignalRequest, target: &Target, session: &str) -> Result<SignalResponse, Problem> {
        let (name, session) = (target.name.clone(), session.to_owned());
        let ended = match target.side {
            Side::Whip => {
                let bearer = bearer(request.authorization.as_deref());
                self.device.guests.end.send(DropGuest { seat: name, session, bearer }).await
            }
            Side::Whep => self.device.viewers.end.send(DropViewer { name, session }).await,
        };
        asked(ended).map(|()| SignalResponse::new(200))
    }
}

/// The token that a viewer from outside shows.
fn viewer_token(request: &SignalRequest) -> Option<String> {
    bearer(request.authorization.as_deref()).or_else(|| request.token.clone()).filter(|token| !token.is_empty())
}

/// RFC 9725, section 4.2, and the preflight of browsers: no credentials asked for, and none in it.
fn options() -> SignalResponse {
    SignalResponse::new(200)
        .header("Accept-Post", SDP)
        .header("Accept-Patch", FRAGMENT)
        .header("Access-Control-Allow-Methods", METHODS)
        .header("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match")
        .header("Access-Control-Max-Age", "86400")
}

pub(super) fn expect_type(
    request: &SignalRequest,
    wanted: &str,
    accept: &'static str,
    what: &str,
) -> Result<(), Problem> {
    if is_type(request.content_type.as_deref(), wanted) {
        return Ok(());
    }
    let sentence = format!("{what} is {wanted}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence).header(accept, wanted))
}

pub(super) fn text(body: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(body).map_err(|_| Problem::bad_request("the body is not UTF-8"))
}

/// What an actor said, or why it said nothing.
fn asked<T>(answer: Result<Result<T, GuestError>, DoorError>) -> Result<T, Problem> {
    let shut =
        |error: DoorError| Problem::with_status(error.status(), error.to_string()).retry_after(Duration::from_secs(1));
    answer.map_err(shut)?.map_err(|error| refused(&error))
}

/// A refusal in the words of HTTP.
pub fn refused(error: &GuestError) -> Problem {
    let problem = Problem::with_status(error.status(), error.to_string());
    let problem = match error.retry_after() {
        Some(wait) => problem.retry_after(wait),
        None => problem,
    };
    if error.status() == 401 { problem.header("WWW-Authenticate", "Bearer") } else { problem }
}
