//! One input's place on the programme: its pictures while they come, its slate while they do not.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::snap::Snapper;
use super::types::{InputOnProgramme, ProgrammeEvent, ProgrammeInput};
use crate::clock;
use crate::feed::fader::fade;
use crate::feed::{Feed, FeedConsumer, FeedLink};
use crate::mode::Mode;
use crate::thumbnail::Thumbnails;

/// The last picture stands for this long when an input goes silent; then the slate takes its place.
pub const HOLD: Duration = Duration::from_millis(700);
/// What the slate says when nobody gave a reason.
const NO_REASON: &str = "no pictures arrive";

/// Tells whoever listens.
pub(super) type Events = Arc<dyn Fn(ProgrammeEvent) + Send + Sync>;

/// Whether an input's own picture is shown. Pure: the time is handed in.
#[derive(Debug)]
pub(super) struct SlotCore {
    attached: bool,
    live: bool,
    reason: String,
    last_picture: Option<Instant>,
    /// The text that the slate on show was asked for with.
    slated: Option<String>,
}

impl SlotCore {
    pub(super) fn new(reason: &str) -> Self {
        Self { attached: false, live: false, reason: reason.into(), last_picture: None, slated: None }
    }

    fn attach(&mut self) {
        self.attached = true;
    }

    fn detach(&mut self, reason: &str) {
        self.attached = false;
        self.live = false;
        self.reason = reason.to_owned();
    }

    fn explain(&mut self, reason: &str) {
        self.reason = reason.to_owned();
    }

    /// A picture came. Answers whether it may be shown, and whether the input has just come alive.
    fn picture(&mut self, now: Instant) -> (bool, bool) {
        if !self.attached {
            return (false, false);
        }
        let woke = !self.live;
        self.live = true;
        self.slated = None;
        self.last_picture = Some(now);
        if woke {
            self.reason.clear();
        }
        (true, woke)
    }

    /// Lets time pass. Answers the reason to put on the slate, when a new slate is needed.
    pub(super) fn tick(&mut self, now: Instant) -> Option<String> {
        if self.live && self.last_picture.is_none_or(|last| now.duration_since(last) >= HOLD) {
            self.live = false;
        }
        if self.live {
            return None;
        }
        let reason = if self.reason.is_empty() { NO_REASON } else { &self.reason };
        if self.slated.as_deref() == Some(reason) {
            return None;
        }
        self.slated = Some(reason.to_owned());
        self.slated.clone()
    }
}

/// Takes a slot's sound as the programme does, stamped from the programme's beginning, with the gain of the programme's mix.
/// Called on streaming threads: hand over and return, never wait.
pub(super) type SoundTap = dyn Fn(&gst::Buffer, f32) + Send + Sync;

/// The running part of a slot.
pub(super) struct Slot {
    pub(super) input: ProgrammeInput,
    mode: Mode,
    /// The programme's time zero on the shared clock.
    base: Arc<AtomicU64>,
    video: gst_app::AppSrc,
    audio: gst_app::AppSrc,
    core: Mutex<SlotCore>,
    snapper: Mutex<Snapper>,
    link: Mutex<Option<(Feed, FeedLink)>>,
    generation: AtomicU64,
    taken: AtomicU64,
    surplus: AtomicU64,
    /// The gain of the programme's mix, as the bits of an `f32`.
    gain: AtomicU32,
    taps: Mutex<Vec<Weak<SoundTap>>>,
    pub(super) thumbnails: Thumbnails,
    events: Events,
}

/// A feed's way into a slot; it is deaf as soon as another feed is attached.
struct Inlet {
    slot: Arc<Slot>,
    generation: u64,
    feed: Feed,
    /// The factor that the last sound ended with.
    gain: Mutex<f32>,
}

impl Slot {
    pub(super) fn new(
        input: ProgrammeInput,
        mode: Mode,
        base: Arc<AtomicU64>,
        sources: (gst_app::AppSrc, gst_app::AppSrc),
        thumbnails: Thumbnails,
        events: Events,
    ) -> Self {
        Self {
            input,
            mode,
            base,
            video: sources.0,
            audio: sources.1,
            core: Mutex::new(SlotCore::new("not connected")),
            snapper: Mutex::new(Snapper::new(mode)),
            link: Mutex::new(None),
            generation: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            surplus: AtomicU64::new(0),
            gain: AtomicU32::new(0),
            taps: Mutex::default(),
            thumbnails,
            events,
        }
    }

    pub(super) fn attach(self: &Arc<Self>, feed: &Feed) {
        // The old link is dropped after the lock, not under it: dropping waits for nothing, but needs the feed's lock.
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        lock(&self.snapper).restart();
        lock(&self.core).attach();
        let gain = Mutex::new(feed.fader().gain());
        let link = feed.subscribe(Arc::new(Inlet { slot: self.clone(), generation, feed: feed.clone(), gain }));
        let old = lock(&self.link).replace((feed.clone(), link));
        drop(old);
    }

    pub(super) fn detach(&self, reason: &str) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let old = lock(&self.link).take();
        drop(old);
        lock(&self.core).detach(reason);
    }

    pub(super) fn explain(&self, reason: &str) {
        lock(&self.core).explain(reason);
    }

    /// The reason for a slate that must be shown now, if any.
    pub(super) fn wants_slate(&self, now: Instant) -> Option<String> {
        lock(&self.core).tick(now)
    }

    /// What stands above the reason on a slate: behind a curtain nothing is missing, it is only not shown.
    pub(super) fn headline(&self) -> String {
        let curtained = lock(&self.link).as_ref().is_some_and(|(feed, _)| feed.fader().is_curtained());
        if curtained { self.input.label.clone() } else { format!("NO SIGNAL  {}", self.input.label) }
    }

    /// Shows a still picture from the next free frame slot on, unless pictures have come meanwhile.
    pub(super) fn show_slate(&self, picture: &gst::Buffer, reason: &str) {
        if lock(&self.core).live {
            return;
        }
        self.show_still(picture);
        self.thumbnails.offer_now(picture);
        (self.events)(ProgrammeEvent::InputSlated { input: self.input.id.clone(), reason: reason.to_owned() });
    }

    /// Shows a still picture from the next free frame slot on.
    fn show_still(&self, picture: &gst::Buffer) {
        let slot = lock(&self.snapper).next_free(self.running(clock::now_nanos()));
        self.push(slot, picture);
    }

    /// Gives both pads and the sound something before the programme's time begins.
    pub(super) fn prime(&self, picture: &gst::Buffer, silence: &gst::Buffer) {
        self.push(lock(&self.snapper).next_free(0), picture);
        let _ = self.audio.push_buffer(silence.clone());
    }

    fn running(&self, at: u64) -> u64 {
        at.saturating_sub(self.base.load(Ordering::Relaxed))
    }

    pub(super) fn report(&self) -> InputOnProgramme {
        let feed = lock(&self.link).as_ref().map(|(feed, _)| feed.stats());
        let core = lock(&self.core);
        InputOnProgramme {
            id: self.input.id.clone(),
            live: core.live,
            reason: if core.live { String::new() } else { core.slated.clone().unwrap_or_else(|| core.reason.clone()) },
            taken: self.taken.load(Ordering::Relaxed),
            surplus: self.surplus.load(Ordering::Relaxed),
            feed,
        }
    }

    fn push(&self, slot: u64, picture: &gst::Buffer) {
        let (start, end) = (self.mode.slot_start(slot), self.mode.slot_start(slot + 1));
        // The pixels are shared; only the stamps are new.
        let mut picture = picture.copy();
        if let Some(buffer) = picture.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(start));
            buffer.set_dts(None);
            buffer.set_duration(gst::ClockTime::from_nseconds(end - start));
            buffer.set_flags(gst::BufferFlags::empty());
        }
        // Refused only while the programme is being stopped.
        let _ = self.video.push_buffer(picture);
    }

    pub(super) fn set_gain(&self, gain: f64) {
        self.gain.store((gain as f32).to_bits(), Ordering::Relaxed);
    }

    /// Hands every further sound to a tap, for as long as somebody else keeps it.
    pub(super) fn tap_sound(&self, tap: &Arc<SoundTap>) {
        lock(&self.taps).push(Arc::downgrade(tap));
    }

    fn hand_out(&self, sound: &gst::Buffer) {
        let taps: Vec<_> = {
            let mut taps = lock(&self.taps);
            taps.retain(|tap| tap.strong_count() > 0);
            taps.iter().filter_map(Weak::upgrade).collect()
        };
        let gain = f32::from_bits(self.gain.load(Ordering::Relaxed));
        for tap in taps {
            tap(sound, gain);
        }
    }

    fn current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::SeqCst) == generation
    }
}

impl FeedConsumer for Inlet {
    fn video(&self, at: u64, picture: &gst::Buffer) {
        let slot = &*self.slot;
        if !slot.current(self.generation) {
            return;
        }
        if self.feed.fader().is_curtained() {
            // Only the crew sees it.
            slot.thumbnails.offer(picture);
            return;
        }
        let (shown, woke) = lock(&slot.core).picture(Instant::now());
        if !shown {
            return;
        }
        match lock(&slot.snapper).snap(slot.running(at)) {
            Some(n) => {
                slot.taken.fetch_add(1, Ordering::Relaxed);
                slot.push(n, picture);
                slot.thumbnails.offer(picture);
            }
            None => {
                slot.surplus.fetch_add(1, Ordering::Relaxed);
            }
        }
        if woke {
            (slot.events)(ProgrammeEvent::InputLive { input: slot.input.id.clone() });
        }
    }

    fn audio(&self, at: u64, sound: &gst::Buffer) {
        let slot = &*self.slot;
        if !slot.current(self.generation) {
            return;
        }
        let (was, gain) = {
            let (mut last, gain) = (lock(&self.gain), self.feed.fader().gain());
            (std::mem::replace(&mut *last, gain), gain)
        };
        let mut sound = fade(sound, was, gain);
        if let Some(buffer) = sound.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(slot.running(at)));
            buffer.set_dts(None);
        }
        slot.hand_out(&sound);
        let _ = slot.audio.push_buffer(sound);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_picture_stands_for_a_moment_and_then_the_slate_says_why() {
        let start = Instant::now();
        let mut core = SlotCore::new("not connected");
        assert_eq!(core.tick(start).as_deref(), Some("not connected"));
        assert_eq!(core.tick(start), None);
        core.attach();
        assert_eq!(core.picture(start), (true, true));
        assert_eq!(core.picture(start), (true, false));
        assert_eq!(core.tick(start + HOLD / 2), None);
        assert_eq!(core.tick(start + HOLD).as_deref(), Some(NO_REASON));
        core.explain("no cable");
        assert_eq!(core.tick(start + HOLD).as_deref(), Some("no cable"));
        assert_eq!(core.picture(start + HOLD * 2), (true, true));
        assert_eq!(core.tick(start + HOLD * 2), None);
    }

    #[test]
    fn a_detached_input_shows_its_slate_at_once_and_no_late_picture() {
        let start = Instant::now();
        let mut core = SlotCore::new("not connected");
        core.attach();
        core.picture(start);
        core.detach("unplugged");
        assert_eq!(core.picture(start), (false, false));
        assert_eq!(core.tick(start).as_deref(), Some("unplugged"));
    }
}
