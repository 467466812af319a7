//! The studio: what stands in the box whoever works in it. Feeds, thumbnails, the programme and what the actors knew of them
//! outlive any actor, so that a rebuilt one finds everything where it was and the programme never notices.
//!
//! Everything here is read and written without a mailbox, and never blocks for longer than a lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use r58_pipelines::feed::fader::Fader;
use r58_pipelines::thumbnail::{Thumbnail, Thumbnails};
use r58_pipelines::{Feed, FeedStats, Mode, PipelineError};
use tokio::sync::watch;

use crate::mixer::room::ProgrammeRoom;
use crate::state::{GuestReport, InputKind};
use crate::supervision::lock;

/// One input that the plan names: a camera or a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputName {
    /// Its id, unique among cameras and seats.
    pub id: String,
    /// What the crew calls it.
    pub label: String,
    /// Camera or guest.
    pub kind: InputKind,
}

/// What an input's owner last said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFace {
    /// The signal in one word.
    pub signal: String,
    /// Why, in words for the crew; empty while there is a picture.
    pub reason: String,
    /// Whether something fills the feed.
    pub attached: bool,
    /// Why there is no sound with the picture, in words for the crew; empty when there is, or none is expected.
    pub sound: String,
}

/// A rate from a counter that is looked at now and then.
#[derive(Debug, Default)]
pub struct Rate {
    looks: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Rate per second between this look and the one a second or more ago.
    pub fn handle(&mut self, now: Instant, count: u64) -> f64 {
        let fresh = self.looks.back().is_none_or(|(at, _)| now.duration_since(*at) >= RATE_STEP);
        if fresh {
            self.looks.push_back((now, count));
        }
        while self.looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER) {
            self.looks.pop_front();
        }
        let Some((at, before)) = self.looks.front() else { return 0.0 };
        let span = now.duration_since(*at).as_secs_f64();
        if span < RATE_STEP.as_secs_f64() { 0.0 } else { count.saturating_sub(*before) as f64 / span }
    }
}

/// Over how long a rate is taken, at least.
const RATE_OVER: Duration = Duration::from_secs(1);
/// How close two looks may be to count as two.
const RATE_STEP: Duration = Duration::from_millis(100);

/// One input's place in the studio.
pub struct InputRoom {
    name: InputName,
    feed: Feed,
    face: Mutex<InputFace>,
    /// What its guest is called, in place of the seat's label.
    label: Mutex<Option<String>>,
    rate: Mutex<Rate>,
    guest: Mutex<Option<GuestReport>>,
    unplugged: AtomicBool,
    changes: Arc<watch::Sender<u64>>,
}

impl InputRoom {
    fn new(name: InputName, mode: &Mode, changes: Arc<watch::Sender<u64>>) -> Self {
        let feed = Feed::new(&name.id, mode);
        let signal = if name.kind == InputKind::Guest { "free" } else { "starting" };
        let face = InputFace { signal: signal.into(), reason: String::new(), attached: false, sound: String::new() };
        let (face, label, rate, guest) = (Mutex::new(face), Mutex::default(), Mutex::default(), Mutex::default());
        Self { name, feed, face, label, rate, guest, unplugged: false.into(), changes }
    }

    /// What the plan says about it.
    pub fn name(&self) -> &InputName {
        &self.name
    }

    /// What people call it now.
    pub fn label(&self) -> String {
        lock(&self.label).clone().unwrap_or_else(|| self.name.label.clone())
    }

    /// Calls it otherwise, or as the plan does again.
    pub(crate) fn set_label(&self, label: Option<String>) {
        let before = std::mem::replace(&mut *lock(&self.label), label.clone());
        if before != label {
            self.changed();
        }
    }

    /// Changes what the crew may change about its sound.
    pub(crate) fn change_fader(&self, with: impl FnOnce(&Fader)) {
        with(self.feed.fader());
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Its pictures and sound, whoever fills it; the same for the life of the process.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What it decoded.
    pub fn stats(&self) -> FeedStats {
        self.feed.stats()
    }

    /// Pictures per second over the last second or two, by the feed's counter.
    pub fn fps(&self) -> f64 {
        lock(&self.rate).handle(Instant::now(), self.feed.stats().frames)
    }

    /// What its owner last said.
    pub fn face(&self) -> InputFace {
        lock(&self.face).clone()
    }

    /// Whether somebody rehearses that its cable is out.
    pub fn is_unplugged(&self) -> bool {
        self.unplugged.load(Ordering::Relaxed)
    }

    /// Pulls the rehearsed cable or puts it back; it lies in the room, so that a rebuilt owner finds it as it was. Answers
    /// how it was before.
    pub fn set_unplugged(&self, unplugged: bool) -> bool {
        self.unplugged.swap(unplugged, Ordering::Relaxed)
    }

    /// The owner says how it looks. Answers whether that is news.
    pub fn show(&self, signal: &str, reason: &str, attached: bool) -> bool {
        self.change(|face| InputFace { signal: signal.to_owned(), reason: reason.to_owned(), attached, ..face.clone() })
    }

    /// The owner says why there is no sound; empty when there is. Answers whether that is news.
    pub fn show_sound(&self, fault: &str) -> bool {
        self.change(|face| InputFace { sound: fault.to_owned(), ..face.clone() })
    }

    /// How the guest who sits here is doing; `None` while nobody does.
    pub fn guest(&self) -> Option<GuestReport> {
        lock(&self.guest).clone()
    }

    pub(crate) fn tell_of_guest(&self, report: Option<GuestReport>) {
        *lock(&self.guest) = report;
    }

    fn change(&self, to: impl FnOnce(&InputFace) -> InputFace) -> bool {
        let news = {
            let mut old = lock(&self.face);
            let face = to(&old);
            let news = *old != face;
            *old = face;
            news
        };
        if news {
            self.changed();
        }
        news
    }
}

/// Small pictures by name, readable without a mailbox. Cheap to clone.
#[derive(Clone, Default)]
pub struct ThumbnailBoard(Arc<Mutex<BTreeMap<String, Thumbnails>>>);

impl ThumbnailBoard {
    /// The newest picture of an input, or of `programme`.
    pub fn latest(&self, name: &str) -> Option<Thumbnail> {
        lock(&self.0).get(name)?.latest()
    }

    /// The names that have or will have pictures.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }

    /// How often pictures are made.
    pub fn set_interval(&self, interval: Duration) {
        for thumbnails in lock(&self.0).values() {
            thumbnails.set_interval(interval);
        }
    }

    /// Puts up a maker of pictures, in place of an earlier one of that name.
    pub fn put_up(&self, name: &str, thumbnails: Thumbnails) {
        lock(&self.0).insert(name.to_owned(), thumbnails);
    }
}

/// All rooms. Cheap to clone.
#[derive(Clone)]
pub struct Studio {
    inner: Arc<Inner>,
}

struct Inner {
    mode: Mode,
    inputs: Vec<Arc<InputRoom>>,
    programme: ProgrammeRoom,
    thumbnails: ThumbnailBoard,
    viewers: Mutex<BTreeMap<String, usize>>,
    previews_allowed: AtomicBool,
    changes: Arc<watch::Sender<u64>>,
    revisions: AtomicU64,
}

impl Studio {
    /// Sets the rooms up, cameras and seats in the order given.
    ///
    /// # Errors
    /// When GStreamer does not start.
    pub fn set_up(mode: &Mode, inputs: Vec<InputName>) -> Result<Self, PipelineError> {
        r58_pipelines::init()?;
        let changes = Arc::new(watch::Sender::new(0));
        let thumbnails = ThumbnailBoard::default();
        let rooms: Vec<_> =
            inputs.into_iter().map(|name| Arc::new(InputRoom::new(name, mode, changes.clone()))).collect();
        let inner = Inner {
            mode: *mode,
            inputs: rooms,
            programme: ProgrammeRoom::default(),
            thumbnails,
            viewers: Mutex::default(),
            previews_allowed: true.into(),
            changes,
            revisions: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Picture size and rate of everything.
    pub fn mode(&self) -> Mode {
        self.inner.mode
    }

    /// Cameras, then seats.
    pub fn inputs(&self) -> &[Arc<InputRoom>] {
        &self.inner.inputs
    }

    /// One input's room.
    pub fn input(&self, id: &str) -> Option<&Arc<InputRoom>> {
        self.inner.inputs.iter().find(|room| room.name.id == id)
    }

    /// A label that may hold an input's: with what that input is called now.
    pub fn renamed(&self, label: &str) -> String {
        let other = self.inputs().iter().filter(|room| lock(&room.label).is_some());
        let other = other.filter(|room| !room.name.label.is_empty());
        // A longer name first: GUEST 1 is a part of GUEST 12.
        match other.filter(|room| label.contains(&room.name.label)).max_by_key(|room| room.name.label.len()) {
            Some(room) => label.replace(&room.name.label, &room.label()),
            None => label.to_owned(),
        }
    }

    /// The programme's room.
    pub fn programme(&self) -> &ProgrammeRoom {
        &self.inner.programme
    }

    /// All thumbnails.
    pub fn thumbnails(&self) -> &ThumbnailBoard {
        &self.inner.thumbnails
    }

    /// How many watch `name` by WHEP.
    pub fn viewers(&self, name: &str) -> usize {
        lock(&self.inner.viewers).get(name).copied().unwrap_or(0)
    }

    pub(crate) fn set_viewers(&self, name: &str, count: usize) {
        let before = lock(&self.inner.viewers).insert(name.to_owned(), count);
        if before.unwrap_or(0) != count {
            self.changed();
        }
    }

    /// Whether single inputs may be watched by WHEP.
    pub fn previews_allowed(&self) -> bool {
        self.inner.previews_allowed.load(Ordering::Relaxed)
    }

    pub(crate) fn allow_previews(&self, allowed: bool) {
        if self.inner.previews_allowed.swap(allowed, Ordering::Relaxed) != allowed {
            self.changed();
        }
    }

    /// Bumped with every change that a page would show, counters and levels apart.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    pub(crate) fn changed(&self) {
        self.inner.changes.send_modify(|n| *n += 1);
    }

    /// A number that was not given before in this process, for what has to be told apart.
    pub(crate) fn next_revision(&self) -> u64 {
        self.inner.revisions.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_a_counter_that_stops() {
        let (start, mut rate) = (Instant::now(), Rate::default());
        let at = |ms: u64| start + Duration::from_millis(ms);
        for n in 0..20 {
            rate.handle(at(n * 100), n * 3);
        }
        assert!((rate.handle(at(2000), 60) - 30.0).abs() < 1.0);
        for n in 20..40 {
            rate.handle(at(n * 100), 60);
        }
        assert_eq!(rate.handle(at(4000), 60), 0.0);
    }
}
