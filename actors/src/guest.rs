//! GuestIngest: lets guests in by WHIP, gives each a seat, and takes it back when nobody is seen there.
//!
//! Job: admission (token, seat, offer), one peer and one pipeline for each guest, liveness by decoded pictures, takeover of
//! dead seats. In: [`AdmitGuest`], [`DropGuest`], [`GetSeats`], and what peers and pipelines say. Out: the seats' faces in
//! the studio, [`InputChanged`] to the mixer.
//!
//! Failure policy: a guest whose peer or pipeline fails loses its seat and may come back at once. A panic ends all guests'
//! sessions; their pages join again, the seats show their slates meanwhile. Supervised by the house, not essential.

pub mod core;
pub mod join;
pub mod road;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult, ResponseActFuture,
    ResponseFuture, Supervised, WrapFuture as _,
};
use r58_pipelines::sdp::{CheckedOffer, Purpose};
use tokio::sync::watch;
use tracing::{info, warn};

use self::core::{Farewell, GuestCore, GuestOutput, SeatPolicy, SeatRefusal, SeatState};
use self::join::{GuestDoorway, GuestEvent, GuestMedia, GuestNews, Joined};
use self::road::RoadTaken;
use self::tokens::{SeatTokens, TokenVerdict};
use crate::error::GuestError;
use crate::mixer::InputChanged;
use crate::offthread::drop_off_thread;
use crate::patch::{Patch, PatchDesk, Patched};
use crate::sfu::AdmitPulled;
use crate::state::SeatReport;
use crate::studio::{InputRoom, Studio};
use crate::supervision::{Door, Life, Retire};
use crate::turn::IceSnapshot;

/// How often decoded pictures are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest that an answer may take; OBS gives up after 8 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(7);

/// Asks for a seat (WHIP POST).
#[derive(Clone, Message)]
#[rtype(result = "Result<Admission, GuestError>")]
pub struct AdmitGuest {
    /// Which seat.
    pub seat: String,
    /// The bearer token, as sent.
    pub bearer: Option<String>,
    /// The SDP offer.
    pub offer: String,
}

/// A session with its answer: of a guest, or of a viewer.
#[derive(Clone, PartialEq, Eq)]
pub struct Admission {
    /// Its id; 128 random bits in hex.
    pub session: String,
    /// The entity tag of its ICE session, without quotes.
    pub tag: String,
    /// The SDP answer.
    pub answer: String,
}

impl std::fmt::Debug for Admission {
    /// Without the SDP: it holds addresses and passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Ends a session (WHIP DELETE).
#[derive(Clone, Message)]
#[rtype(result = "Result<(), GuestError>")]
pub struct DropGuest {
    /// The seat in the URL.
    pub seat: String,
    /// The session in the URL.
    pub session: String,
    /// The bearer token, as sent.
    pub bearer: Option<String>,
}

/// Candidates that come late, or an ICE restart (WHIP PATCH). The seat, the tracks and the place in the scene stay.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Patched, GuestError>")]
pub struct PatchGuest {
    /// The seat in the URL.
    pub seat: String,
    /// The session in the URL.
    pub session: String,
    /// The bearer token, as sent.
    pub bearer: Option<String>,
    /// The change.
    pub patch: Patch,
}

/// Asks for all seats, in the order of the configuration.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<SeatReport>")]
pub struct GetSeats;

/// What [`GuestIngest`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct GuestSettings {
    /// Where the seats' rooms are.
    pub studio: Studio,
    /// The seats' ids, in order; each has a room.
    pub seats: Vec<String>,
    /// Who may sit where.
    pub tokens: SeatTokens,
    /// How patient seats are.
    pub policy: SeatPolicy,
    /// Makes peers and pipelines.
    pub doorway: Arc<dyn GuestDoorway>,
    /// The ICE servers of the moment.
    pub ice: watch::Receiver<IceSnapshot>,
    /// Whom to tell when a seat's face changes.
    pub mixer: Door<InputChanged>,
}

/// A session that has its seat and waits for its answer.
struct Admitted {
    session: String,
    /// Whether the SFU stands between.
    pulled: bool,
    /// The user fragment of its offer.
    fragment: String,
    /// It offers sound and no picture.
    is_voice: bool,
}

struct Sitter {
    media: Box<dyn GuestMedia>,
    is_voice: bool,
    patches: PatchDesk,
    path: Option<String>,
    pulled: bool,
}

impl Sitter {
    fn road(&self) -> Option<RoadTaken> {
        RoadTaken::of(self.pulled, self.path.as_deref())
    }
}

/// The actor.
pub struct GuestIngest {
    life: Life,
    settings: GuestSettings,
    core: GuestCore,
    sitters: BTreeMap<String, Sitter>,
}

/// An id that nobody guesses: 128 bits of the system's randomness.
pub(crate) fn fresh_session() -> String {
    use rand::RngCore as _;
    let mut bytes = [0u8; 16];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl GuestIngest {
    /// For the house's factory.
    pub fn new(life: Life, settings: GuestSettings) -> Self {
        let core = GuestCore::new(settings.policy, settings.seats.iter().cloned());
        Self { life, settings, core, sitters: BTreeMap::new() }
    }

    fn authorize(&self, seat: &str, bearer: Option<&str>) -> Result<(), GuestError> {
        let bearer = bearer.filter(|token| !token.is_empty()).ok_or(GuestError::NoToken)?;
        if self.core.state(seat).is_none() {
            return Err(SeatRefusal::UnknownSeat(seat.to_owned()).into());
        }
        match self.settings.tokens.check(seat, bearer) {
            TokenVerdict::Granted => Ok(()),
            TokenVerdict::WrongSeat => Err(GuestError::WrongSeat),
            TokenVerdict::Unknown => Err(GuestError::BadToken),
        }
    }

    fn room(&self, seat: &str) -> Option<&Arc<InputRoom>> {
        self.settings.studio.input(seat)
    }

    /// Everything that can be said no to without touching the stack; then the seat is this session's.
    fn admit(&mut self, request: &AdmitGuest, pulled: bool) -> Result<(Admitted, Arc<InputRoom>), GuestError> {
        self.authorize(&request.seat, request.bearer.as_deref())?;
        let offer = CheckedOffer::parse(&request.offer, Purpose::Publish)?;
        let room = self.room(&request.seat).cloned();
        let room = room.ok_or_else(|| SeatRefusal::UnknownSeat(request.seat.clone()))?;
        let session = fresh_session();
        self.core.handle_admit(Instant::now(), &request.seat, &session)?;
        self.drain();
        let (fragment, is_voice) = (offer.ufrag().to_owned(), offer.is_voice());
        Ok((Admitted { session, pulled, fragment, is_voice }, room))
    }

    fn joined(
        &mut self,
        Admitted { session, pulled, fragment, is_voice }: Admitted,
        result: Result<Joined, GuestError>,
        ctx: &mut Context<Self>,
    ) -> Result<Admission, GuestError> {
        match result {
            Ok(joined) if self.core.seat_of(&session).is_some() => {
                let patches = PatchDesk::new(joined.ice, fragment);
                let tag = patches.tag();
                let sitter = Sitter { media: joined.media, is_voice, patches, path: None, pulled };
                self.sitters.insert(session.clone(), sitter);
                self.look(ctx);
                Ok(Admission { session, tag, answer: joined.answer })
            }
            Ok(late) => {
                drop_off_thread("guest-late", late.media);
                Err(GuestError::Unavailable("the seat was given to somebody else meanwhile".into()))
            }
            Err(error) => {
                warn!(session, %error, "a guest could not join");
                let _ = self.core.handle_end(&session, Farewell::Failed);
                self.drain();
                Err(error)
            }
        }
    }

    fn look(&mut self, _: &mut Context<Self>) {
        let now = Instant::now();
        for (session, sitter) in &self.sitters {
            let (frames, last) = sitter.media.decoded();
            self.core.handle_decoded(now, session, frames, last);
        }
        self.core.handle_timeout(now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                GuestOutput::End { seat, session, why } => {
                    info!(seat, session, why = why.as_str(), "guest left");
                    if let Some(sitter) = self.sitters.remove(&session) {
                        drop_off_thread("guest-stop", sitter.media);
                    }
                }
                GuestOutput::Changed { seat, state } => {
                    info!(seat, state = state.as_str(), "seat");
                    self.show(&seat, state);
                }
            }
        }
    }

    fn is_voice(&self, seat: &str) -> bool {
        self.core.session(seat).and_then(|session| self.sitters.get(session)).is_some_and(|sitter| sitter.is_voice)
    }

    fn show(&self, seat: &str, state: SeatState) {
        let reason = match state {
            SeatState::Free => "waiting for a guest",
            SeatState::Joining => "a guest is joining",
            SeatState::Live if self.is_voice(seat) => "sound only",
            SeatState::Live => "",
            SeatState::Silent => "no picture from the guest",
        };
        if let Some(room) = self.room(seat)
            && room.show(state.as_str(), reason, state != SeatState::Free)
        {
            let _ = self.settings.mixer.try_send(InputChanged { input: seat.to_owned() });
        }
        let live = self.settings.seats.iter().filter(|seat| self.core.state(seat) == Some(SeatState::Live)).count();
        self.life.detail(format!("{live} of {} seats live", self.settings.seats.len()));
    }
}

impl Actor for GuestIngest {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Open);
    }
}

impl Supervised for GuestIngest {}
crate::supervised!(GuestIngest, ping only);

/// Starts the work, outside of `started`.
#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Handler<Open> for GuestIngest {
    type Result = ();
    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        // The first guest may have been quicker than this.
        for seat in &self.settings.seats {
            self.show(seat, self.core.state(seat).unwrap_or(SeatState::Free));
        }
        ctx.run_interval(LOOK_EVERY, Self::look);
    }
}

/// A guest's answer on its way.
type Answering = ResponseActFuture<GuestIngest, Result<Admission, GuestError>>;

impl GuestIngest {
    fn begin(&mut self, request: AdmitGuest, pulled: bool, ctx: &mut Context<Self>) -> Answering {
        let (admitted, room) = match self.admit(&request, pulled) {
            Ok(admitted) => admitted,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal)).into_actor(self)),
        };
        let session = admitted.session.clone();
        info!(seat = request.seat, session, "guest admitted");
        let (me, about) = (ctx.address().recipient::<GuestSpoke>(), session.clone());
        let news: GuestNews = Arc::new(move |event| {
            // What is lost here shows in the decoded pictures.
            let _ = me.try_send(GuestSpoke { session: about.clone(), event });
        });
        let ice = self.settings.ice.borrow().servers.clone();
        let joining = self.settings.doorway.join(&room, request.offer, ice, news);
        let bounded = async move {
            let answer = tokio::time::timeout(ANSWER_WITHIN, joining).await;
            answer.unwrap_or_else(|_| Err(GuestError::Unavailable("no answer could be made in time".into())))
        };
        Box::pin(bounded.into_actor(self).map(move |result, me, ctx| me.joined(admitted, result, ctx)))
    }
}

impl Handler<AdmitGuest> for GuestIngest {
    type Result = Answering;
    fn handle(&mut self, request: AdmitGuest, ctx: &mut Self::Context) -> Self::Result {
        self.begin(request, false, ctx)
    }
}

impl Handler<AdmitPulled> for GuestIngest {
    type Result = Answering;
    fn handle(&mut self, AdmitPulled(request): AdmitPulled, ctx: &mut Self::Context) -> Self::Result {
        self.begin(request, true, ctx)
    }
}

impl Handler<DropGuest> for GuestIngest {
    type Result = Result<(), GuestError>;
    fn handle(&mut self, request: DropGuest, _: &mut Self::Context) -> Self::Result {
        self.authorize(&request.seat, request.bearer.as_deref())?;
        if self.core.session(&request.seat) != Some(request.session.as_str()) {
            return Err(SeatRefusal::UnknownSession.into());
        }
        self.core.handle_end(&request.session, Farewell::Left)?;
        self.drain();
        Ok(())
    }
}

impl Handler<PatchGuest> for GuestIngest {
    type Result = ResponseFuture<Result<Patched, GuestError>>;
    fn handle(&mut self, request: PatchGuest, _: &mut Self::Context) -> Self::Result {
        let desk = self.authorize(&request.seat, request.bearer.as_deref()).and_then(|()| {
            let known = self.core.session(&request.seat) == Some(request.session.as_str());
            let sitter = self.sitters.get(&request.session).filter(|_| known);
            sitter.map(|sitter| sitter.patches.clone()).ok_or_else(|| SeatRefusal::UnknownSession.into())
        });
        Box::pin(async move { desk?.patch(request.patch).await })
    }
}

/// A guest's peer or pipeline says something.
#[derive(Message)]
#[rtype(result = "()")]
struct GuestSpoke {
    session: String,
    event: GuestEvent,
}

impl Handler<GuestSpoke> for GuestIngest {
    type Result = ();
    fn handle(&mut self, GuestSpoke { session, event }: GuestSpoke, ctx: &mut Self::Context) {
        let why = match event {
            GuestEvent::Picture => return self.look(ctx),
            GuestEvent::Connected(path) => {
                info!(session, path, "guest connected");
                if let Some(sitter) = self.sitters.get_mut(&session) {
                    sitter.path = Some(path);
                }
                return;
            }
            GuestEvent::Lost => Farewell::Disconnected,
            GuestEvent::Closed => Farewell::Left,
            GuestEvent::Broke(reason) => {
                warn!(session, reason, "a guest's media failed");
                Farewell::Failed
            }
        };
        // It may be over already: a peer that is closed says so, too.
        let _ = self.core.handle_end(&session, why);
        self.drain();
    }
}

impl Handler<GetSeats> for GuestIngest {
    type Result = MessageResult<GetSeats>;
    fn handle(&mut self, _: GetSeats, _: &mut Self::Context) -> Self::Result {
        let report = |seat: &String| {
            let session = self.core.session(seat).map(str::to_owned);
            let sitter = session.as_ref().and_then(|session| self.sitters.get(session));
            SeatReport {
                id: seat.clone(),
                label: self.room(seat).map(|room| room.name().label.clone()).unwrap_or_default(),
                state: self.core.state(seat).unwrap_or(SeatState::Free),
                path: sitter.and_then(|sitter| sitter.path.clone()),
                road: sitter.and_then(Sitter::road),
                session,
            }
        };
        MessageResult(self.settings.seats.iter().map(report).collect())
    }
}

impl Handler<Retire> for GuestIngest {
    type Result = ();
    fn handle(&mut self, _: Retire, _: &mut Self::Context) {
        for (_, sitter) in std::mem::take(&mut self.sitters) {
            drop_off_thread("guest-stop", sitter.media);
        }
    }
}

impl Drop for GuestIngest {
    fn drop(&mut self) {
        for (_, sitter) in std::mem::take(&mut self.sitters) {
            drop_off_thread("guest-stop", sitter.media);
        }
        if std::thread::panicking() {
            for seat in &self.settings.seats {
                self.show(seat, SeatState::Free);
            }
        }
    }
}
