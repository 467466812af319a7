//! Viewers: WHEP and HLS for the programme and, on demand, for each input.
//!
//! Job: admit viewers up to a cap, start an input's encoder with its first viewer and stop it after its last, count them. In:
//! [`AdmitViewer`], [`DropViewer`], [`OpenHls`](hls::OpenHls), [`GetViewers`], the Governor's [`AllowInputViewers`], and what
//! peers say. Out: the counts in the studio, the streams on the shelf.
//!
//! Failure policy: a viewer whose peer fails is forgotten, its page comes back by itself. A panic ends all viewers' sessions
//! and no frame of the programme. Supervised by the house, not essential.

pub mod doorway;
pub mod hls;
mod previews;
pub mod returns;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult, ResponseActFuture,
    ResponseFuture, Supervised, WrapFuture as _,
};
use futures_util::FutureExt as _;
use r58_pipelines::sdp::{CheckedOffer, Purpose};
use tokio::sync::{oneshot, watch};
use tracing::debug;

use self::doorway::{ViewerDoorway, ViewerEvent, ViewerNews, Watched};
use self::hls::HlsShelf;
use self::previews::{LINGER, RunningPreview};
use self::returns::return_of;
use crate::error::GuestError;
use crate::governor::AllowInputViewers;
use crate::guest::core::SeatRefusal;
use crate::guest::{Admission, fresh_session};
use crate::offthread::drop_off_thread;
use crate::patch::{Patch, PatchDesk, Patched};
use crate::studio::{InputRoom, Studio};
use crate::supervision::{Life, Retire};
use crate::turn::IceSnapshot;

/// The name of the programme among what can be watched.
pub const PROGRAMME: &str = "programme";
/// Viewers that may be on their way at the same time; each holds sockets for up to 30 s without proof that anybody is there.
const MOST_HALF_OPEN: usize = 32;
/// Longest that an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(7);

/// Asks to watch (WHEP POST).
#[derive(Clone, Message)]
#[rtype(result = "Result<Admission, GuestError>")]
pub struct AdmitViewer {
    /// `programme`, an input's id, or the name of a guest's [return feed](returns).
    pub name: String,
    /// The SDP offer.
    pub offer: String,
}

/// Ends a session (WHEP DELETE).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), GuestError>")]
pub struct DropViewer {
    /// The name in the URL.
    pub name: String,
    /// The session in the URL.
    pub session: String,
}

/// Candidates that come late, or an ICE restart (WHEP PATCH).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Patched, GuestError>")]
pub struct PatchViewer {
    /// The name in the URL.
    pub name: String,
    /// The session in the URL.
    pub session: String,
    /// The change.
    pub patch: Patch,
}

/// Asks how many watch what.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BTreeMap<String, usize>")]
pub struct GetViewers;

/// What [`Viewers`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct ViewerSettings {
    /// Where the programme and the inputs stand.
    pub studio: Studio,
    /// Makes peers and input encoders.
    pub doorway: Arc<dyn ViewerDoorway>,
    /// The ICE servers of the moment.
    pub ice: watch::Receiver<IceSnapshot>,
    /// The HLS streams.
    pub hls: HlsShelf,
    /// Most viewers by WHEP at the same time, of everything together.
    pub most: usize,
}

struct Viewer {
    name: String,
    /// The user fragment of its offer.
    fragment: String,
    /// Absent while the answer is being made.
    media: Option<(Box<dyn Send>, PatchDesk)>,
    /// Whether its peer was ever up.
    connected: bool,
}

/// The actor.
pub struct Viewers {
    life: Life,
    settings: ViewerSettings,
    viewers: BTreeMap<String, Viewer>,
    previews: BTreeMap<String, RunningPreview>,
    /// Inputs whose encoder is being started, with whoever came meanwhile; each is told why it did not start.
    starting: BTreeMap<String, Vec<oneshot::Sender<Option<String>>>>,
}

impl Viewers {
    /// For the house's factory.
    pub fn new(life: Life, settings: ViewerSettings) -> Self {
        Self { life, settings, viewers: BTreeMap::new(), previews: BTreeMap::new(), starting: BTreeMap::new() }
    }

    /// Everything that can be said no to without touching the stack.
    fn check(&self, request: &AdmitViewer) -> Result<(CheckedOffer, Option<Arc<InputRoom>>), GuestError> {
        let name = &request.name;
        if name != PROGRAMME && self.settings.studio.input(return_of(name).unwrap_or(name)).is_none() {
            return Err(GuestError::UnknownStream(name.clone()));
        }
        let offer = CheckedOffer::parse(&request.offer, Purpose::View)?;
        if self.viewers.len() >= self.settings.most {
            return Err(GuestError::TooManyViewers);
        }
        if self.viewers.values().filter(|viewer| !viewer.connected).count() >= MOST_HALF_OPEN {
            return Err(GuestError::TooManyJoining);
        }
        let room = match return_of(name) {
            Some(seat) => Some(self.seat_room(name, seat)?),
            None => self.check_name(name)?,
        };
        Ok((offer, room))
    }

    /// Whether that can be watched now, by whichever way.
    fn check_name(&self, name: &str) -> Result<Option<Arc<InputRoom>>, GuestError> {
        if name == PROGRAMME {
            return Ok(None);
        }
        let room = self.settings.studio.input(name).ok_or_else(|| GuestError::UnknownStream(name.to_owned()))?;
        if !room.face().attached {
            return Err(GuestError::NoPicture(name.to_owned()));
        }
        if !self.settings.studio.previews_allowed() {
            return Err(GuestError::PreviewsOff);
        }
        Ok(Some(room.clone()))
    }

    fn forget(&mut self, session: &str) -> bool {
        let Some(viewer) = self.viewers.remove(session) else { return false };
        debug!(name = viewer.name, session, "viewer left");
        if let Some((media, _)) = viewer.media {
            drop_off_thread("viewer-stop", media);
        }
        self.count(&viewer.name);
        true
    }

    fn count(&mut self, name: &str) {
        let count = self.viewers.values().filter(|viewer| viewer.name == name).count();
        self.settings.studio.set_viewers(name, count);
        let watched = count > 0 || self.settings.hls.get(name).is_some();
        if let Some(running) = self.previews.get_mut(name) {
            running.unused_since = if watched { None } else { running.unused_since.or(Some(Instant::now())) };
        }
        self.life.detail(format!("{} viewers, {} inputs encoded", self.viewers.len(), self.previews.len()));
    }

    fn sweep(&mut self, _: &mut Context<Self>) {
        self.sweep_hls();
        self.sweep_returns();
        self.sweep_previews();
    }

    fn end_inputs(&mut self) {
        let of_input = |viewer: &Viewer| viewer.name != PROGRAMME && return_of(&viewer.name).is_none();
        let watching = self.viewers.iter().filter(|(_, viewer)| of_input(viewer));
        let sessions: Vec<String> = watching.map(|(session, _)| session.clone()).collect();
        for session in sessions {
            self.forget(&session);
        }
    }

    fn put_down(&mut self) {
        self.settings.hls.clear();
        for (_, viewer) in std::mem::take(&mut self.viewers) {
            drop_off_thread("viewer-stop", viewer.media);
            self.settings.studio.set_viewers(&viewer.name, 0);
        }
        for (_, running) in std::mem::take(&mut self.previews) {
            drop_off_thread("preview-stop", running.preview);
        }
    }

    fn watched(&mut self, session: String, result: Result<Watched, GuestError>) -> Result<Admission, GuestError> {
        match (result, self.viewers.get_mut(&session)) {
            (Ok(watched), Some(viewer)) => {
                let patches = PatchDesk::new(watched.ice, viewer.fragment.clone());
                let tag = patches.tag();
                viewer.media = Some((watched.media, patches));
                Ok(Admission { session, tag, answer: watched.answer })
            }
            (Ok(late), None) => {
                drop_off_thread("viewer-late", late.media);
                Err(GuestError::Unavailable("the session ended before its answer".into()))
            }
            (Err(error), _) => {
                self.forget(&session);
                Err(error)
            }
        }
    }
}

impl Actor for Viewers {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Whatever an earlier round of this life was starting went with its futures.
        self.starting.clear();
        ctx.run_interval(LINGER / 3, Self::sweep);
    }
}

impl Supervised for Viewers {}
crate::supervised!(Viewers, ping only);

impl Handler<AdmitViewer> for Viewers {
    type Result = ResponseActFuture<Self, Result<Admission, GuestError>>;

    fn handle(&mut self, request: AdmitViewer, ctx: &mut Self::Context) -> Self::Result {
        let (offer, room) = match self.check(&request) {
            Ok(checked) => checked,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal)).into_actor(self)),
        };
        let (name, session) = (request.name, fresh_session());
        self.viewers.insert(
            session.clone(),
            Viewer { name: name.clone(), fragment: offer.ufrag().to_owned(), media: None, connected: false },
        );
        self.count(&name);
        let (me, about) = (ctx.address().recipient::<ViewerSpoke>(), session.clone());
        let news: ViewerNews = Arc::new(move |event| {
            let spoke = ViewerSpoke { session: about.clone(), event: event.clone() };
            match event {
                ViewerEvent::Connected(_) => drop(me.try_send(spoke)),
                // Lost, it would leave a viewer counted for ever. There is one of these, or two, to an admitted session.
                ViewerEvent::Gone => me.do_send(spoke),
            }
        });
        let stream = self.stream(&name, room);
        let (ice, offer) = (self.settings.ice.borrow().servers.clone(), request.offer);
        let answered = stream.into_actor(self).then(move |stream, me, _| {
            let fanout = me.found(&name, stream);
            me.count(&name);
            let answering = match fanout {
                Ok(fanout) => me.settings.doorway.watch(fanout, offer, ice, news),
                Err(error) => std::future::ready(Err(error)).boxed(),
            };
            let bounded = async move {
                let answer = tokio::time::timeout(ANSWER_WITHIN, answering).await;
                answer.unwrap_or_else(|_| Err(GuestError::Unavailable("no answer could be made in time".into())))
            };
            bounded.into_actor(me)
        });
        Box::pin(answered.map(move |result, me, _| me.watched(session, result)))
    }
}

impl Handler<DropViewer> for Viewers {
    type Result = Result<(), GuestError>;
    fn handle(&mut self, DropViewer { name, session }: DropViewer, _: &mut Self::Context) -> Self::Result {
        let known = self.viewers.get(&session).is_some_and(|viewer| viewer.name == name);
        if !known {
            return Err(SeatRefusal::UnknownSession.into());
        }
        self.forget(&session);
        Ok(())
    }
}

impl Handler<PatchViewer> for Viewers {
    type Result = ResponseFuture<Result<Patched, GuestError>>;
    fn handle(&mut self, PatchViewer { name, session, patch }: PatchViewer, _: &mut Self::Context) -> Self::Result {
        let viewer = self.viewers.get(&session).filter(|viewer| viewer.name == name);
        let desk = viewer.and_then(|viewer| viewer.media.as_ref()).map(|(_, patches)| patches.clone());
        Box::pin(async move { desk.ok_or(SeatRefusal::UnknownSession)?.patch(patch).await })
    }
}

/// A viewer's peer says something.
#[derive(Message)]
#[rtype(result = "()")]
struct ViewerSpoke {
    session: String,
    event: ViewerEvent,
}

impl Handler<ViewerSpoke> for Viewers {
    type Result = ();
    fn handle(&mut self, ViewerSpoke { session, event }: ViewerSpoke, _: &mut Self::Context) {
        match event {
            ViewerEvent::Connected(path) => {
                debug!(session, path, "viewer connected");
                if let Some(viewer) = self.viewers.get_mut(&session) {
                    viewer.connected = true;
                }
            }
            ViewerEvent::Gone => {
                self.forget(&session);
            }
        }
    }
}

impl Handler<AllowInputViewers> for Viewers {
    type Result = ();
    fn handle(&mut self, AllowInputViewers(allowed): AllowInputViewers, _: &mut Self::Context) {
        self.settings.studio.allow_previews(allowed);
        if !allowed {
            self.end_inputs();
            self.sweep_previews();
            self.sweep_hls();
        }
    }
}

impl Handler<GetViewers> for Viewers {
    type Result = MessageResult<GetViewers>;
    fn handle(&mut self, _: GetViewers, _: &mut Self::Context) -> Self::Result {
        let mut counts = BTreeMap::new();
        for viewer in self.viewers.values() {
            *counts.entry(viewer.name.clone()).or_insert(0) += 1;
        }
        MessageResult(counts)
    }
}

impl Handler<Retire> for Viewers {
    type Result = ();
    fn handle(&mut self, _: Retire, _: &mut Self::Context) {
        self.put_down();
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.put_down();
    }
}
