//! A guest's media: RTP packets in, pictures and sound of a [`Feed`] out, like any camera.
//!
//! ```text
//! RTP -> appsrc -> rtpjitterbuffer -> depay -> queue -> decoder -> convert, scale, rate -> Feed     (video)
//! RTP -> appsrc -> rtpjitterbuffer -> depay -> opusdec (concealment) -> queue -> convert -> Feed    (audio)
//! ```
//!
//! Packets are pushed unchanged; each kind has its own bounded, leaky entrance and its own jitter buffer, so that neither
//! waits for the other and nothing here can slow the peer down. A branch is built by the payload type of the packets that
//! really come (never by what was promised), so a guest with only a picture or only a voice works, and one that changes its
//! codec gets a new branch. There is no decodebin and no waiting for preroll.
//!
//! Lips and voice are kept together by the guest's sender reports ([`lipsync`]), by arrival until they have come.
//!
//! A key frame is asked for when a branch begins, when GStreamer asks for one (loss, a decoder out of step), and when packets
//! come but nothing decodes; the peer sees to it that it is at most one a second. Life is told by decoded frames: a
//! guest that sends what nobody can decode is as good as absent.

mod branch;
mod lipsync;
mod stats;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;

use crate::clock;
use crate::error::PipelineError;
use crate::feed::Feed;
use crate::peer::{PublisherSink, RtpSink, SenderClock};
use crate::sdp::{CheckedOffer, Codec, MediaKind};

use branch::Branch;
use lipsync::{HoldBack, LipSync};
pub use stats::GuestStats;
use watch::DecodeWatch;

/// Longest that stopping waits for GStreamer; after that the pipeline is left to its thread.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// How long packets are held back to put them in order and to get lost ones again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestSettings {
    /// For video. 200 ms proved too tight across the internet, 400 ms were chosen elsewhere and are the default here.
    pub video_latency: Duration,
    /// For audio, which nobody sends again: only the jitter counts.
    pub audio_latency: Duration,
}

impl Default for GuestSettings {
    fn default() -> Self {
        Self { video_latency: Duration::from_millis(400), audio_latency: Duration::from_millis(120) }
    }
}

/// What happens in a guest's pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// The first picture was decoded, or the first after a change of codec.
    FirstFrame {
        /// What it was encoded with.
        codec: Codec,
    },
    /// The guest's pictures have this size now, in pixels, before they are scaled.
    Size {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// GStreamer gave up; the pipeline is of no use any more.
    Error {
        /// What it said.
        message: String,
    },
}

/// Takes the events; called on streaming threads, must not block.
pub type GuestEvents = Arc<dyn Fn(GuestEvent) + Send + Sync>;

type KeyframeHook = Arc<dyn Fn() + Send + Sync>;

/// The pipeline of one guest. Dropping it stops it, without waiting.
pub struct GuestPipeline {
    inner: Arc<Inner>,
}

struct Inner {
    seat: String,
    pipeline: gst::Pipeline,
    feed: Feed,
    settings: GuestSettings,
    events: GuestEvents,
    state: Mutex<State>,
    seen: Arc<Seen>,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    codecs: HashMap<u8, (Codec, String)>,
    video: Option<Branch>,
    audio: Option<Branch>,
    watch: DecodeWatch,
    /// The time stamp of the last key frame.
    keyframe: Option<u32>,
    held: HoldBack,
}

/// What is shared with the streaming threads: counts, and the way to ask for a key frame.
#[derive(Default)]
struct Seen {
    stats: Mutex<GuestStats>,
    keyframe_requests: AtomicU64,
    hook: Mutex<Option<KeyframeHook>>,
    lips: Mutex<LipSync>,
}

impl Seen {
    fn ask_for_keyframe(&self) {
        self.keyframe_requests.fetch_add(1, Ordering::Relaxed);
        let hook = lock(&self.hook).clone();
        if let Some(hook) = hook {
            hook();
        }
    }
}

impl GuestPipeline {
    /// Starts an empty pipeline that fills `feed`; its branches come with the packets.
    ///
    /// # Errors
    /// `Failed` when GStreamer does not start it, `MissingElements` when a decoder is not installed.
    pub fn start(seat: &str, feed: &Feed, settings: GuestSettings, events: GuestEvents) -> Result<Self, PipelineError> {
        preload()?;
        let pipeline = gst::Pipeline::with_name(&format!("guest-{seat}"));
        clock::adopt(&pipeline);
        watch_bus(&pipeline, &events)?;
        pipeline.set_state(gst::State::Playing).map_err(|error| PipelineError::failed(&pipeline.name(), error))?;
        let inner = Inner {
            seat: seat.to_owned(),
            pipeline,
            feed: feed.clone(),
            settings,
            events,
            state: Mutex::default(),
            seen: Arc::default(),
            stopped: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the peer puts the guest's packets. It may outlive the pipeline; packets go nowhere then.
    pub fn sink(&self) -> PublisherSink {
        self.inner.clone()
    }

    /// Sets what asks the guest for a key frame; see [`crate::peer::PublisherPeer::keyframe_requester`].
    pub fn on_keyframe_request(&self, hook: KeyframeHook) {
        *lock(&self.inner.seen.hook) = Some(hook);
    }

    /// The feed that it fills.
    pub fn feed(&self) -> Feed {
        self.inner.feed.clone()
    }

    /// What was received and decoded so far.
    pub fn stats(&self) -> GuestStats {
        let requests = self.inner.seen.keyframe_requests.load(Ordering::Relaxed);
        let pictures_later = lock(&self.inner.seen.lips).offset();
        GuestStats { keyframe_requests: requests, pictures_later, ..lock(&self.inner.seen.stats).clone() }
    }

    /// Stops the pipeline. Blocks for at most two seconds: call it where that is allowed.
    pub fn stop(self) {
        if let Some(done) = self.inner.shut_down()
            && done.recv_timeout(STOP_DEADLINE).is_err()
        {
            tracing::warn!(seat = self.inner.seat, "a guest's pipeline does not stop; it is left to its thread");
        }
    }
}

impl Drop for GuestPipeline {
    fn drop(&mut self) {
        self.inner.shut_down();
    }
}

impl RtpSink for Inner {
    fn negotiated(&self, offer: &CheckedOffer) {
        let codecs = offer.media.iter().flat_map(|m| &m.codecs);
        lock(&self.state).codecs = codecs.map(|c| (c.payload_type, (c.codec, c.fmtp.clone()))).collect();
    }

    fn rtp(&self, kind: MediaKind, payload_type: u8, packet: Bytes) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let last_decoded = self.note_packet(kind, now);
        let mut state = lock(&self.state);
        let Some((codec, fmtp)) = state.codecs.get(&payload_type).cloned() else {
            tracing::trace!(payload_type, "a packet of a payload type that was not negotiated");
            return;
        };
        if let Err(error) = self.ensure_branch(&mut state, payload_type, codec, &fmtp) {
            // Without its branch this payload type is noise; the error is told once.
            state.codecs.remove(&payload_type);
            drop(state);
            (self.events)(GuestEvent::Error { message: error.to_string() });
            return;
        }
        if let Some(stamp) = stats::keyframe_of(codec, &packet)
            && state.keyframe.replace(stamp) != Some(stamp)
        {
            let mut stats = lock(&self.seen.stats);
            (stats.keyframes, stats.last_keyframe) = (stats.keyframes + 1, Some(now));
        }
        let ask = codec.kind() == MediaKind::Video && state.watch.handle_packet(now, last_decoded);
        let branch = if codec.kind() == MediaKind::Video { &state.video } else { &state.audio };
        if let Some(branch) = branch {
            branch.push(packet);
        }
        drop(state);
        if ask {
            self.seen.ask_for_keyframe();
        }
    }

    fn sender_report(&self, kind: MediaKind, clock: SenderClock) {
        let Some(held) = lock(&self.seen.lips).handle_report(kind, clock) else { return };
        tracing::debug!(seat = self.seat, ?held, "lips and voice by the sender's reports");
        let mut state = lock(&self.state);
        state.held = held;
        for (branch, nanos) in [(&state.video, held.video), (&state.audio, held.audio)] {
            if let Some(branch) = branch {
                branch.hold_back(nanos);
            }
        }
    }
}

impl Inner {
    fn note_packet(&self, kind: MediaKind, now: Instant) -> Option<Instant> {
        let mut stats = lock(&self.seen.stats);
        stats.last_packet = Some(now);
        match kind {
            MediaKind::Video => {
                stats.video_packets += 1;
                stats.last_video_packet = Some(now);
            }
            MediaKind::Audio => stats.audio_packets += 1,
        }
        stats.last_decoded_frame
    }

    fn ensure_branch(
        &self,
        state: &mut State,
        payload_type: u8,
        codec: Codec,
        fmtp: &str,
    ) -> Result<(), PipelineError> {
        let slot = if codec.kind() == MediaKind::Video { &mut state.video } else { &mut state.audio };
        if slot.as_ref().is_some_and(|branch| branch.serves(payload_type, codec)) {
            return Ok(());
        }
        if let Some(old) = slot.take() {
            tracing::info!(seat = self.seat, codec = codec.name(), "the guest changed its codec");
            old.remove(&self.pipeline);
        }
        let probes = branch::Probes {
            decoded: self.on_decoded(codec),
            size: self.on_size(),
            dark: self.on_look(),
            keyframe: self.on_gstreamers_request(),
            put: self.on_put(codec.kind()),
        };
        lock(&self.seen.lips).handle_stream(codec.kind(), codec.clock_rate());
        let branch = Branch::add(&self.pipeline, &self.feed, payload_type, codec, fmtp, &self.settings, probes)?;
        branch.hold_back(if codec.kind() == MediaKind::Video { state.held.video } else { state.held.audio });
        *slot = Some(branch);
        // A pipeline computes its latency when it starts; this one was empty then.
        spread_latency(&self.pipeline);
        if codec.kind() == MediaKind::Video {
            lock(&self.seen.stats).video_codec = Some(codec);
            state.watch = DecodeWatch::default();
        }
        Ok(())
    }

    fn on_decoded(&self, codec: Codec) -> Box<dyn Fn() + Send + Sync> {
        let (seen, events, first) = (self.seen.clone(), self.events.clone(), AtomicBool::new(true));
        Box::new(move || {
            let mut stats = lock(&seen.stats);
            if codec.kind() == MediaKind::Audio {
                stats.decoded_sounds += 1;
                stats.last_decoded_sound = Some(Instant::now());
                return;
            }
            let now = Instant::now();
            stats.decoded_frames += 1;
            stats.first_decoded_frame.get_or_insert(now);
            stats.last_decoded_frame = Some(now);
            drop(stats);
            if first.swap(false, Ordering::Relaxed) {
                events(GuestEvent::FirstFrame { codec });
            }
        })
    }

    fn on_put(&self, kind: MediaKind) -> Box<dyn Fn(u32, u64) + Send + Sync> {
        let seen = self.seen.clone();
        Box::new(move |stamp, at| lock(&seen.lips).handle_put(kind, stamp, at))
    }

    fn on_look(&self) -> Box<dyn Fn(bool) + Send + Sync> {
        let seen = self.seen.clone();
        Box::new(move |dark| lock(&seen.stats).dark = dark)
    }

    fn on_size(&self) -> Box<dyn Fn(u32, u32) + Send + Sync> {
        let (seen, events) = (self.seen.clone(), self.events.clone());
        Box::new(move |width, height| {
            lock(&seen.stats).size = Some((width, height));
            events(GuestEvent::Size { width, height });
        })
    }

    /// GStreamer's depayloaders and decoders ask upstream, and the question ends at our appsrc.
    fn on_gstreamers_request(&self) -> Box<dyn Fn() + Send + Sync> {
        let seen = self.seen.clone();
        Box::new(move || seen.ask_for_keyframe())
    }

    /// Stops the pipeline on a thread of its own; the receiver hears of the end. `None` if it was stopped before.
    fn shut_down(&self) -> Option<mpsc::Receiver<()>> {
        if self.stopped.swap(true, Ordering::Relaxed) {
            return None;
        }
        *lock(&self.seen.hook) = None;
        let mut state = lock(&self.state);
        (state.video, state.audio) = (None, None);
        drop(state);
        let (pipeline, (done, wait)) = (self.pipeline.clone(), mpsc::sync_channel(1));
        std::thread::spawn(move || {
            if let Some(bus) = pipeline.bus() {
                bus.unset_sync_handler();
            }
            if let Err(error) = pipeline.set_state(gst::State::Null) {
                tracing::debug!(%error, "while stopping a guest's pipeline");
            }
            let _ = done.send(());
        });
        Some(wait)
    }
}

/// Messages are taken where they are posted: there is no main loop, and nothing here takes long.
fn watch_bus(pipeline: &gst::Pipeline, events: &GuestEvents) -> Result<(), PipelineError> {
    let bus = pipeline.bus().ok_or_else(|| PipelineError::failed(&pipeline.name(), "it has no bus"))?;
    let (weak, events) = (pipeline.downgrade(), events.clone());
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Error(error) => {
                events(GuestEvent::Error { message: error.error().to_string() });
            }
            gst::MessageView::Warning(warning) => {
                tracing::debug!(warning = %warning.error(), "in a guest's pipeline");
            }
            gst::MessageView::Latency(_) => {
                if let Some(pipeline) = weak.upgrade() {
                    spread_latency(&pipeline);
                }
            }
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
    Ok(())
}

/// Lets all sinks hold back alike, which keeps lips and voice together. Not on the calling thread: it may hold the lock that
/// the recalculation wants.
fn spread_latency(pipeline: &gst::Pipeline) {
    pipeline.call_async(|pipeline| {
        if let Err(error) = pipeline.recalculate_latency() {
            tracing::debug!(%error, "latency");
        }
    });
}

/// Loads the plugins once, so that no guest waits for the linker (the first `avdec_h264` of a process takes 40 ms and more).
/// [`GuestPipeline::start`] does it too; called when the box starts, it spares the first guest the wait.
///
/// # Errors
/// `Init` when GStreamer cannot start. A decoder that is not installed is no error here.
pub fn preload() -> Result<(), PipelineError> {
    static LOADED: OnceLock<()> = OnceLock::new();
    crate::elements::init()?;
    LOADED.get_or_init(|| {
        for element in branch::ELEMENTS {
            if let Some(factory) = gst::ElementFactory::find(element)
                && let Err(error) = factory.load()
            {
                tracing::debug!(element, %error, "not loaded");
            }
        }
    });
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
