//! `WS /unit/{id}` and `WS /control/{id}`: the line between an older unit and its controllers, for controllers that speak
//! nothing else.
//!
//! A unit shows its device token, a controller the access token of an operator of the unit's own organization. Frames are passed
//! on as they come. To a unit that is on the broker instead, a controller says what [`carried`] understands. A controller
//! is a program or a page: a page, which cannot set headers here, offers the protocols `r58-bridge` and `bearer.{token}`.
//!
//! Every line is pinged, and ends when it is silent, when it floods, when its reader does not keep up, or when whoever is at
//! its end may not be there any more. One server knows its own lines only.

mod carried;

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use actix_web::{HttpRequest, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, ProtocolError};
use chrono::Utc;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use self::carried::Carried;
use super::devices::no_such_device;
use super::problem::store_problem;
use super::resource;
use crate::fleet::auth::{self, DeviceCaller, Role, device};
use crate::fleet::state::Fleet;
use crate::fleet::switchboard::{End, Frame, Pace, Seat, Told};
use crate::problem::{Answer, Problem};

/// The protocol that pages ask for beside their token.
const PROTOCOL: &str = "r58-bridge";
/// A peer that takes no bytes for this long is gone.
const SEND_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/unit/{id}", "GET").route(web::get().to(unit)))
        .service(resource("/control/{id}", "GET").route(web::get().to(control)));
}

async fn unit(
    fleet: web::Data<Fleet>,
    caller: DeviceCaller,
    id: web::Path<String>,
    request: HttpRequest,
    body: web::Payload,
) -> Answer {
    if caller.id != *id {
        return Err(Problem::forbidden("a unit connects under its own name"));
    }
    let address = address(&caller.org, &caller.id)?;
    let token = header(&request, "X-Device-Token").unwrap_or_default();
    open(fleet, address, Guard::Unit { id: caller.id, token }, &request, body)
}

async fn control(fleet: web::Data<Fleet>, id: web::Path<String>, request: HttpRequest, body: web::Payload) -> Answer {
    let bearer = bearer(&request).ok_or_else(|| Problem::unauthorized("sign in first"))?;
    let session = auth::session_of(&fleet, &bearer).await?;
    if session.role < Role::Operator {
        return Err(Problem::forbidden("this needs the role operator"));
    }
    let row = fleet.store.device(&session.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_device)?;
    let address = address(&row.org, &row.id)?;
    open(fleet, address, Guard::Controller { session, bearer }, &request, body)
}

fn address(org: &str, id: &str) -> Result<DeviceAddress, Problem> {
    let names = OrgId::new(org).ok().zip(DeviceId::new(id).ok());
    names.map(|(org, device)| DeviceAddress { org, device }).ok_or_else(no_such_device)
}

fn header(request: &HttpRequest, name: &str) -> Option<String> {
    Some(request.headers().get(name)?.to_str().ok()?.to_owned())
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let by_header = header(request, AUTHORIZATION.as_str());
    let by_header = by_header.as_deref().and_then(|value| value.split_once(' '));
    if let Some((_, token)) = by_header.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        return Some(token.trim().to_owned());
    }
    let offered = header(request, SEC_WEBSOCKET_PROTOCOL.as_str())?;
    offered.split(',').find_map(|word| word.trim().strip_prefix("bearer.").map(str::to_owned))
}

/// Who is at the end of a line, and by what right.
enum Guard {
    Unit { id: String, token: String },
    Controller { session: auth::Session, bearer: String },
}

impl Guard {
    /// Whether the right still holds: tokens are rotated, people are switched off.
    async fn still_holds(&self, fleet: &Fleet) -> bool {
        match self {
            Self::Unit { id, token } => matches!(device::check_token(&fleet.store, id, token).await, Ok(Some(_))),
            Self::Controller { bearer, .. } => {
                auth::session_of(fleet, bearer).await.is_ok_and(|session| session.role >= Role::Operator)
            }
        }
    }

    /// When it ends by itself, from now.
    fn left(&self) -> Duration {
        match self {
            Self::Unit { .. } => Duration::from_secs(86_400 * 365),
            Self::Controller { session, .. } => (session.expires_at - Utc::now()).to_std().unwrap_or_default(),
        }
    }
}

fn open(
    fleet: web::Data<Fleet>,
    address: DeviceAddress,
    guard: Guard,
    request: &HttpRequest,
    body: web::Payload,
) -> Answer {
    let end = if matches!(guard, Guard::Unit { .. }) { End::Unit } else { End::Controller };
    let (seat, queue) = fleet.switchboard.join(&address, end).map_err(|full| {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, full.to_string());
        problem.retry_after(Duration::from_secs(10))
    })?;
    let (response, socket, incoming) = actix_ws::handle_with_protocols(request, body, &[PROTOCOL])
        .map_err(|error| Problem::bad_request(format!("a WebSocket is wanted here: {error}")))?;
    let limit = fleet.switchboard.plan().frame_bytes;
    let incoming = incoming.max_frame_size(limit).aggregate_continuations().max_continuation_size(limit);
    let carried = match &guard {
        Guard::Controller { session, .. } => Some(Carried::new(fleet.clone(), session.clone(), address.clone())),
        Guard::Unit { .. } => None,
    };
    tracing::info!(device = %address, ?end, "a line of the bridge is open");
    let line = Line { fleet, address, guard, seat, queue, socket, carried };
    actix_web::rt::spawn(line.run(incoming));
    Ok(response)
}

/// One connection.
struct Line {
    fleet: web::Data<Fleet>,
    address: DeviceAddress,
    guard: Guard,
    seat: Seat,
    queue: mpsc::Receiver<Frame>,
    socket: actix_ws::Session,
    carried: Option<Carried>,
}

/// Why a line ends.
struct Over(Option<CloseReason>);

fn over(code: CloseCode, why: &str) -> Over {
    Over(Some(CloseReason { code, description: Some(why.to_owned()) }))
}

impl Line {
    async fn run(mut self, mut incoming: AggregatedMessageStream) {
        let Over(reason) = self.serve(&mut incoming).await;
        let why = reason.as_ref().and_then(|reason| reason.description.clone()).unwrap_or_default();
        tracing::info!(device = %self.address, why, "a line of the bridge ended");
        // Its place is free before the peer has heard of it.
        drop(self.seat);
        let _ = timeout(SEND_WITHIN, self.socket.close(reason)).await;
    }

    async fn serve(&mut self, incoming: &mut AggregatedMessageStream) -> Over {
        let plan = *self.fleet.switchboard.plan();
        let mut closed = self.fleet.hub.closed();
        let mut ping = interval(plan.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ends = tokio::time::Instant::now() + self.guard.left();
        let (mut heard, mut pace) = (Instant::now(), Pace::new(Instant::now(), &plan));
        loop {
            let done = tokio::select! {
                _ = closed.wait_for(|closed| *closed) => Err(over(CloseCode::Away, "the server stops")),
                () = sleep_until(ends) => Err(over(CloseCode::Policy, "the access token has expired")),
                _ = ping.tick() => {
                    if heard.elapsed() >= plan.silent_after {
                        Err(over(CloseCode::Policy, "nothing was heard"))
                    } else if self.guard.still_holds(&self.fleet).await {
                        self.ping().await
                    } else {
                        Err(over(CloseCode::Policy, "the token is not valid any more"))
                    }
                }
                frame = self.queue.recv() => match frame {
                    Some(frame) => self.send(frame).await,
                    None => Err(over(CloseCode::Policy, "another connection took this place, or this one was too slow")),
                },
                Some(answer) = async { Some(self.carried.as_mut()?.next().await) } => {
                    self.send(Frame::Text(answer.into())).await
                }
                message = incoming.recv() => {
                    heard = Instant::now();
                    match message {
                        None => return Over(None),
                        Some(Err(ProtocolError::Overflow)) => Err(over(CloseCode::Size, "a frame is too large")),
                        Some(Err(error)) => Err(over(CloseCode::Protocol, &error.to_string())),
                        Some(Ok(AggregatedMessage::Close(reason))) => return Over(reason),
                        Some(Ok(_)) if !pace.handle_frame(heard) => Err(over(CloseCode::Policy, "too many frames")),
                        Some(Ok(message)) => self.take(message).await,
                    }
                }
            };
            if let Err(over) = done {
                return over;
            }
        }
    }

    async fn take(&mut self, message: AggregatedMessage) -> Result<(), Over> {
        let frame = match message {
            AggregatedMessage::Text(text) => Frame::Text(text[..].into()),
            AggregatedMessage::Binary(bytes) => Frame::Binary(bytes),
            AggregatedMessage::Ping(bytes) => {
                let sent = timeout(SEND_WITHIN, self.socket.pong(&bytes)).await;
                return if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Over(None)) };
            }
            AggregatedMessage::Pong(_) | AggregatedMessage::Close(_) => return Ok(()),
        };
        match (self.seat.tell(frame.clone()), &mut self.carried) {
            (Told::Passed, _) | (_, None) => Ok(()),
            (Told::Slow, Some(_)) => self.refuse("R58 unit does not keep up").await,
            (Told::Nobody, Some(carried)) => match &frame {
                Frame::Text(text) if carried.take(text).await => Ok(()),
                _ => self.refuse("R58 unit not connected").await,
            },
        }
    }

    /// In the words that controllers know.
    async fn refuse(&mut self, why: &str) -> Result<(), Over> {
        let words = json!({ "error": why, "unitId": self.address.device.as_str() });
        self.send(Frame::Text(words.to_string().into())).await
    }

    async fn send(&mut self, frame: Frame) -> Result<(), Over> {
        let sent = match frame {
            Frame::Text(text) => timeout(SEND_WITHIN, self.socket.text(&*text)).await,
            Frame::Binary(bytes) => timeout(SEND_WITHIN, self.socket.binary(bytes)).await,
        };
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Over(None)) }
    }

    async fn ping(&mut self) -> Result<(), Over> {
        let sent = timeout(SEND_WITHIN, self.socket.ping(b"")).await;
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Over(None)) }
    }
}
