//! GuestIngest: lets guests in by WHIP, gives each a seat, and takes it back when nobody is seen there.
//!
//! Job: admission (token, seat, offer), the waiting room, one peer and one pipeline for each guest, liveness by decoded
//! pictures, takeover of dead seats. In: [`AdmitGuest`], [`PatchGuest`], [`DropGuest`], [`GetSeats`], the crew's
//! [`ManageGuest`], and what peers and pipelines say. Out: the seats' faces in the studio, [`InputChanged`] to the mixer.
//!
//! Failure policy: a guest whose peer or pipeline fails loses its seat and may come back at once. A panic ends all guests'
//! sessions; their pages join again, the seats show their slates meanwhile. Who was let in is in the [`GuestBook`], and the
//! curtain before a guest who waits belongs to its seat's feed: neither is this actor's. Supervised by the house, not essential.

pub mod book;
pub mod core;
mod crew;
pub mod diagnosis;
pub mod invitations;
pub mod join;
pub mod messages;
mod observe;
pub mod road;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;
pub mod vitals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseActFuture, ResponseFuture,
    Supervised, WrapFuture as _,
};
use r58_pipelines::sdp::{CheckedOffer, Purpose};
use tokio::sync::watch;
use tracing::{info, warn};

use self::book::{GuestBook, Pass};
use self::core::{Farewell, GuestCore, GuestOutput, SeatPolicy, SeatRefusal, SeatState};
use self::join::{GuestDoorway, GuestEvent, GuestMedia, GuestNews, Joined};
pub use self::messages::{Admission, AdmitGuest, DropGuest, GetSeats, GuestOrder, ManageGuest, PatchGuest};
use self::observe::GuestWatch;
use self::road::RoadTaken;
use crate::error::GuestError;
use crate::mixer::InputChanged;
use crate::offthread::drop_off_thread;
use crate::patch::{PatchDesk, Patched};
use crate::sfu::AdmitPulled;
use crate::studio::{InputRoom, Studio};
use crate::supervision::{Door, Life, Retire};
use crate::turn::IceSnapshot;

/// How often decoded pictures are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest that an answer may take; OBS gives up after 8 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(7);

/// What [`GuestIngest`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct GuestSettings {
    /// Where the seats' rooms are.
    pub studio: Studio,
    /// The seats' ids, in order; each has a room.
    pub seats: Vec<String>,
    /// Who may come in.
    pub book: GuestBook,
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
    watch: GuestWatch,
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
    /// The invitations of those who came by one, by session; from the seat's taking to its end.
    invited: BTreeMap<String, String>,
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
        settings.book.all_left();
        Self { life, settings, core, sitters: BTreeMap::new(), invited: BTreeMap::new() }
    }

    /// The seat of a session, for the bearer that the session was made with: also when that opens nothing any more.
    fn seat_of(&self, name: &str, session: &str, bearer: Option<&str>) -> Result<String, GuestError> {
        let pass = self.settings.book.known(name, bearer)?;
        let own =
            self.core.session(&pass.seat) == Some(session) && self.invited.get(session) == pass.invitation.as_ref();
        own.then_some(pass.seat).ok_or_else(|| SeatRefusal::UnknownSession.into())
    }

    fn room(&self, seat: &str) -> Option<&Arc<InputRoom>> {
        self.settings.studio.input(seat)
    }

    /// Everything that can be said no to without touching the stack; then the seat is this session's.
    fn admit(&mut self, request: &AdmitGuest, pulled: bool) -> Result<(Admitted, Arc<InputRoom>), GuestError> {
        let pass = self.settings.book.enter(&request.seat, request.bearer.as_deref())?;
        let offer = CheckedOffer::parse(&request.offer, Purpose::Publish)?;
        let Pass { seat, invitation, name, admitted, .. } = pass;
        let room = self.room(&seat).cloned().ok_or_else(|| SeatRefusal::UnknownSeat(seat.clone()))?;
        let session = fresh_session();
        self.core.handle_admit(Instant::now(), &seat, &session, !admitted)?;
        self.drain();
        room.set_label(name);
        if let Some(invitation) = invitation {
            self.invited.insert(session.clone(), invitation);
        }
        info!(seat, session, waits = !admitted, "guest admitted");
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
                let watch = GuestWatch::begin(Instant::now());
                let sitter = Sitter { media: joined.media, is_voice, patches, path: None, pulled, watch };
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
        self.watch_media(now);
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                GuestOutput::End { seat, session, why } => {
                    info!(seat, session, why = why.as_str(), "guest left");
                    if let Some(sitter) = self.sitters.remove(&session) {
                        drop_off_thread("guest-stop", sitter.media);
                    }
                    if let Some(invitation) = self.invited.remove(&session) {
                        self.settings.book.left(&invitation);
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
            SeatState::Waiting => "in the waiting room",
            SeatState::Live if self.is_voice(seat) => "sound only",
            SeatState::Live => "",
            SeatState::Silent => "no picture from the guest",
        };
        let Some(room) = self.room(seat) else { return };
        // At once, by nobody's mailbox: no picture of a guest who waits may pass, and none of one who was there before and
        // whose pipeline takes a moment to end.
        let seen = matches!(state, SeatState::Live | SeatState::Silent);
        room.feed().fader().set_curtain(!seen || self.core.is_waiting(seat));
        if state == SeatState::Free {
            room.set_label(None);
        }
        if room.show(state.as_str(), reason, state != SeatState::Free) {
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
        self.seat_of(&request.seat, &request.session, request.bearer.as_deref())?;
        self.core.handle_end(&request.session, Farewell::Left)?;
        self.drain();
        Ok(())
    }
}

impl Handler<PatchGuest> for GuestIngest {
    type Result = ResponseFuture<Result<Patched, GuestError>>;
    fn handle(&mut self, request: PatchGuest, _: &mut Self::Context) -> Self::Result {
        let desk = self.seat_of(&request.seat, &request.session, request.bearer.as_deref()).and_then(|_| {
            let sitter = self.sitters.get(&request.session);
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
                let seat = self.core.seat_of(&session);
                if let (Some(seat), Some(invitation)) = (seat, self.invited.get(&session)) {
                    self.settings.book.connected(invitation, !self.core.is_waiting(seat));
                }
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
