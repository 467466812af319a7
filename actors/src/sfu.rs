//! SfuLink: brings guests in by Cloudflare's SFU, when no road leads from them to the box.
//!
//! Job: a guest's offer goes to the SFU and the SFU's answer to the guest; once its media flow there, the box pulls them by a
//! session of its own, and the seat answers the SFU's offer as it answers a guest's. In: [`PublishBySfu`], [`EndCall`],
//! [`GetCalls`], and the studio's changes, by which it learns that a seat was given up. Out: requests to the SFU, [`AdmitPulled`]
//! and [`DropGuest`] to the seats.
//!
//! Failure policy: what the SFU does not do in time is told to the guest, and tried again where that asks for nothing twice
//! (`sfu/core/lane.rs`). A panic forgets the calls: their guests stay where they are until their seats are given up, and the SFU
//! collects tracks without media after half a minute. Supervised by the house, not essential; only there when configured.

pub mod client;
pub mod core;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult, ResponseFuture,
    SpawnHandle, Supervised, WrapFuture as _,
};
use r58_pipelines::sdp::{CheckedOffer, MediaKind, Purpose};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

use self::client::SfuClient;
use self::core::{CallError, CallReport, Output, SfuCore};
use self::wire::{Ask, Failure, LocalTrack};
use crate::error::GuestError;
use crate::guest::core::SeatState;
use crate::guest::{Admission, AdmitGuest, DropGuest, GetSeats, fresh_session};
use crate::state::SeatReport;
use crate::studio::Studio;
use crate::supervision::{Door, DoorError, Life};

/// How often the seats are looked at when nothing seems to change.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A guest's offer, to be published by the SFU. Whoever sends it has judged the token.
#[derive(Clone, Message)]
#[rtype(result = "Result<Published, SfuError>")]
pub struct PublishBySfu {
    /// Which seat.
    pub seat: String,
    /// What the guest called it in its address: the seat, or an invitation to it.
    pub name: String,
    /// The bearer token, as sent; the seat judges it again when it is given to the guest.
    pub bearer: Option<String>,
    /// The SDP offer; it goes on letter by letter.
    pub offer: String,
}

/// A call with the SFU's answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Published {
    /// Names the call; 128 random bits in hex.
    pub session: String,
    /// The SFU's answer.
    pub answer: String,
}

impl std::fmt::Debug for Published {
    /// Without the SDP: it holds addresses and passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Asks a seat to take a guest that the SFU offers in its place.
#[derive(Clone, Message)]
#[rtype(result = "Result<Admission, GuestError>")]
pub struct AdmitPulled(pub AdmitGuest);

/// Ends a call. Whoever sends it has judged the right to.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), CallError>")]
pub struct EndCall {
    /// The seat.
    pub seat: String,
    /// The call; whichever there is when absent.
    pub session: Option<String>,
}

/// Asks for all calls, or for that of one seat, which is told of after its end too.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<CallReport>")]
pub struct GetCalls(pub Option<String>);

/// Why a guest is not published.
#[derive(Debug, thiserror::Error)]
pub enum SfuError {
    /// The offer, or the seats, say no.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The call did not come about.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The seats do not answer.
    #[error(transparent)]
    Door(#[from] DoorError),
}

impl SfuError {
    /// The HTTP status that says the same.
    pub fn status(&self) -> u16 {
        match self {
            Self::Guest(error) => error.status(),
            Self::Call(error) => error.status(),
            Self::Door(error) => error.status(),
        }
    }

    /// When another try may be worth it.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Guest(error) => error.retry_after(),
            Self::Call(error) => error.retry_after(),
            Self::Door(_) => Some(Duration::from_secs(1)),
        }
    }
}

/// What a [`SfuLink`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct SfuSettings {
    /// The SFU.
    pub client: SfuClient,
    /// Gives a seat to what was pulled.
    pub admit: Door<AdmitPulled>,
    /// Takes it away.
    pub end: Door<DropGuest>,
    /// Who sits where.
    pub seats: Door<GetSeats>,
    /// Says when that may have changed.
    pub studio: Studio,
}

/// The actor.
pub struct SfuLink {
    life: Life,
    settings: SfuSettings,
    core: SfuCore,
    /// Guests that wait for their answer, by call.
    waiting: BTreeMap<String, oneshot::Sender<Result<String, CallError>>>,
    /// What each call's guest showed: the name in its address, and its token.
    passes: BTreeMap<String, (String, Option<String>)>,
    timer: Option<SpawnHandle>,
}

impl SfuLink {
    /// For the house's factory.
    pub fn new(life: Life, settings: SfuSettings) -> Self {
        let (core, waiting, passes) = (SfuCore::default(), BTreeMap::new(), BTreeMap::new());
        Self { life, settings, core, waiting, passes, timer: None }
    }

    /// The seats are looked at when anything in the studio has changed, and from time to time. Only what was held before
    /// the question can be missing in the answer.
    fn watch_seats(&self, mut changes: watch::Receiver<u64>, ctx: &mut Context<Self>) {
        let waited = async move {
            // Without a sender the studio is gone, and the box with it.
            let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            changes
        };
        ctx.spawn(waited.into_actor(self).then(|changes, me, _| {
            let (held, seats) = (me.core.seated(), me.settings.seats.clone());
            let looked = async move {
                let reports = if held.is_empty() { Ok(Vec::new()) } else { seats.send(GetSeats).await };
                (changes, held, reports)
            };
            looked.into_actor(me).map(|(changes, held, reports), me, ctx| {
                if let Ok(reports) = reports {
                    let sits = |session: &String| reports.iter().any(|report| report.session.as_ref() == Some(session));
                    for session in held.iter().filter(|session| !sits(session)) {
                        me.core.handle_unseated(Instant::now(), session);
                    }
                    me.drain(ctx);
                }
                me.watch_seats(changes, ctx);
            })
        }));
    }

    fn drain(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(id, ask) => self.send(id, ask, ctx),
                Output::Answered { call, answer } => self.tell(&call, Ok(answer)),
                Output::Refused { call, why } => self.tell(&call, Err(why)),
                Output::Seat { call, offer } => self.seat(call, offer, ctx),
                Output::Unseat { call, session, .. } => self.unseat(&call, session, ctx),
                Output::Over { call, seat, why } => {
                    self.passes.remove(&call);
                    match why {
                        Some(why) => warn!(seat, call, %why, "a guest did not come in by the SFU"),
                        None => info!(seat, call, "a guest by the SFU is gone, its tracks are closed"),
                    }
                }
            }
        }
        self.life.detail(format!("{} calls", self.core.reports().len()));
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = self.core.poll_timeout().map(|at| {
            ctx.run_later(at.saturating_duration_since(Instant::now()), |me, ctx| {
                me.core.handle_timeout(Instant::now());
                me.drain(ctx);
            })
        });
    }

    fn send(&self, id: u64, ask: Ask, ctx: &mut Context<Self>) {
        let client = self.settings.client.clone();
        let asked = async move {
            let result = client.exchange(&ask).await;
            (ask, result)
        };
        ctx.spawn(asked.into_actor(self).map(move |(ask, result), me, ctx| {
            match &result {
                Ok(_) => debug!(?ask, "the SFU did"),
                Err(Failure::NotConnected) => debug!(?ask, "the SFU wants to wait"),
                Err(failure) => info!(?ask, ?failure, "the SFU did not"),
            }
            me.core.handle_reply(Instant::now(), id, result);
            me.drain(ctx);
        }));
    }

    fn tell(&mut self, call: &str, answer: Result<String, CallError>) {
        // A guest that does not wait any more ends its call by itself, or is lost by its seat.
        if let Some(waiting) = self.waiting.remove(call) {
            let _ = waiting.send(answer);
        }
    }

    fn seat(&self, call: String, offer: String, ctx: &mut Context<Self>) {
        let Some((seat, bearer)) = self.passes.get(&call).cloned() else { return };
        let order = AdmitPulled(AdmitGuest { seat, bearer, offer });
        let admit = self.settings.admit.clone();
        let asked = async move { admit.send_within(order, core::ANSWER_WITHIN).await };
        ctx.spawn(asked.into_actor(self).map(move |asked, me, ctx| {
            let result = match asked {
                Ok(Ok(Admission { session, answer, .. })) => Ok((session, answer)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            me.core.handle_seated(Instant::now(), &call, result);
            me.drain(ctx);
        }));
    }

    fn unseat(&self, call: &str, session: String, ctx: &mut Context<Self>) {
        let Some((seat, bearer)) = self.passes.get(call).cloned() else { return };
        let end = self.settings.end.clone();
        let asked = async move { end.send(DropGuest { seat, session, bearer }).await };
        ctx.spawn(asked.into_actor(self).map(|asked, _, _| {
            // It may be over already.
            if let Ok(Err(error)) = asked {
                debug!(%error, "a seat could not be given back");
            }
        }));
    }

    /// Everything that can be said no to without the SFU.
    fn begin(&mut self, request: &PublishBySfu, reports: &[SeatReport]) -> Result<String, SfuError> {
        let offer = CheckedOffer::parse(&request.offer, Purpose::Publish).map_err(GuestError::from)?;
        let name = |kind| if kind == MediaKind::Video { "video" } else { "audio" };
        let tracks =
            offer.media.iter().map(|media| LocalTrack { mid: media.mid.clone(), name: name(media.kind).into() });
        let occupied = reports.iter().find(|report| report.id == request.seat);
        let occupied = occupied.map_or(SeatState::Free, |report| report.state);
        let call = fresh_session();
        self.core.handle_publish(
            Instant::now(),
            (&request.seat, &call),
            request.offer.clone(),
            tracks.collect(),
            occupied,
        )?;
        self.passes.insert(call.clone(), (request.name.clone(), request.bearer.clone()));
        info!(seat = request.seat, call, "a guest comes by the SFU");
        Ok(call)
    }
}

impl Actor for SfuLink {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Open);
    }
}

impl Supervised for SfuLink {}
crate::supervised!(SfuLink);

/// Starts the work, outside of `started`.
#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Handler<Open> for SfuLink {
    type Result = ();
    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.life.opened();
        self.watch_seats(self.settings.studio.changes(), ctx);
        self.drain(ctx);
    }
}

/// The seats' word is there: the rest of [`PublishBySfu`].
#[derive(Message)]
#[rtype(result = "Result<(String, oneshot::Receiver<Result<String, CallError>>), SfuError>")]
struct Begin(PublishBySfu, Vec<SeatReport>);

impl Handler<Begin> for SfuLink {
    type Result = Result<(String, oneshot::Receiver<Result<String, CallError>>), SfuError>;
    fn handle(&mut self, Begin(request, reports): Begin, ctx: &mut Self::Context) -> Self::Result {
        let call = self.begin(&request, &reports)?;
        let (tell, told) = oneshot::channel();
        self.waiting.insert(call.clone(), tell);
        self.drain(ctx);
        Ok((call, told))
    }
}

impl Handler<PublishBySfu> for SfuLink {
    type Result = ResponseFuture<Result<Published, SfuError>>;
    fn handle(&mut self, request: PublishBySfu, ctx: &mut Self::Context) -> Self::Result {
        let (seats, me) = (self.settings.seats.clone(), ctx.address());
        Box::pin(async move {
            let reports = seats.send(GetSeats).await?;
            let interrupted = || DoorError::Interrupted("the link to the SFU".into());
            let (session, told) = me.send(Begin(request, reports)).await.map_err(|_| interrupted())??;
            let answer = told.await.map_err(|_| interrupted())??;
            Ok(Published { session, answer })
        })
    }
}

impl Handler<EndCall> for SfuLink {
    type Result = Result<(), CallError>;
    fn handle(&mut self, EndCall { seat, session }: EndCall, ctx: &mut Self::Context) -> Self::Result {
        self.core.handle_leave(Instant::now(), &seat, session.as_deref())?;
        self.drain(ctx);
        Ok(())
    }
}

impl Handler<GetCalls> for SfuLink {
    type Result = MessageResult<GetCalls>;
    fn handle(&mut self, GetCalls(seat): GetCalls, _: &mut Self::Context) -> Self::Result {
        MessageResult(match seat {
            Some(seat) => self.core.report(&seat).into_iter().collect(),
            None => self.core.reports(),
        })
    }
}
