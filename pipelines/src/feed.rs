//! What one input offers the rest of the box: decoded pictures and sound, and the proof that they arrive.
//!
//! A [`Feed`] is the bridge out of an input's pipeline. Its appsinks hand every buffer to whoever subscribed (the programme, a
//! preview encoder, the thumbnails) and return at once; consumers never wait, never see an end of stream, an error, or a new
//! format. When the pipeline dies, the frames stop, and that is all anybody sees.
//!
//! Why not gstreamer-utils' `StreamProducer`: it forwards latency changes into the consumer, which redistributes latency in a
//! running programme, and it passes the producer's timestamps on, which a restarted input does not keep. Here each buffer
//! carries the moment of the shared clock at which it is due ([`timemap`]).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::clock;
use crate::mode::{Mode, audio_caps};

pub mod fader;
pub mod level;
pub mod timemap;

use fader::Fader;
use level::{SILENCE_DB, rms_db};
use timemap::TimeMap;

/// A level older than this is reported as silence.
const LEVEL_HOLD: Duration = Duration::from_millis(500);

/// Somebody who takes an input's pictures and sound. Called on streaming threads: hand over and return, never wait.
pub trait FeedConsumer: Send + Sync {
    /// One picture, I420 in the feed's mode, due at `at` nanoseconds of the shared clock. Its own timestamps mean nothing.
    fn video(&self, at: u64, picture: &gst::Buffer);
    /// Some sound, S16LE stereo at 48 kHz, due at `at` nanoseconds of the shared clock.
    fn audio(&self, at: u64, sound: &gst::Buffer);
}

/// What an input has delivered: counted at its decoder's output, never what was intended.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedStats {
    /// Pictures delivered.
    pub frames: u64,
    /// When the last picture was delivered.
    pub last_frame: Option<Instant>,
    /// When the last sound was delivered.
    pub last_audio: Option<Instant>,
    /// RMS level of the last sound in dBFS, 0 loudest, [`SILENCE_DB`] when there is none.
    pub audio_level_db: f32,
    /// Pictures not delivered: rehearsed faults, or not in the feed's mode.
    pub dropped: u64,
}

type Consumers = Arc<Vec<(u64, Arc<dyn FeedConsumer>)>>;

struct Inner {
    id: String,
    mode: Mode,
    consumers: RwLock<Consumers>,
    next_consumer: AtomicU64,
    times: Mutex<TimeMap>,
    gate_shut: AtomicBool,
    frames: AtomicU64,
    dropped: AtomicU64,
    last_frame: Mutex<Option<Instant>>,
    last_audio: Mutex<Option<Instant>>,
    level: AtomicU32,
    fader: Fader,
}

/// One input's pictures and sound. Cheap to clone; it outlives the pipeline that fills it, and can be filled by its successor.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

impl Feed {
    /// A feed that nothing fills yet. Pictures are I420 in `mode`, sound is S16LE stereo at 48 kHz.
    pub fn new(id: &str, mode: &Mode) -> Self {
        Self {
            inner: Arc::new(Inner {
                id: id.to_owned(),
                mode: *mode,
                consumers: RwLock::default(),
                next_consumer: AtomicU64::new(1),
                times: Mutex::new(TimeMap::default()),
                gate_shut: AtomicBool::new(false),
                frames: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                last_frame: Mutex::new(None),
                last_audio: Mutex::new(None),
                level: AtomicU32::new(SILENCE_DB.to_bits()),
                fader: Fader::default(),
            }),
        }
    }

    /// The input's id.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The mode of its pictures.
    pub fn mode(&self) -> Mode {
        self.inner.mode
    }

    /// What the crew does to it on its way to the programme. The feed's own level and pictures are those before it.
    pub fn fader(&self) -> &Fader {
        &self.inner.fader
    }

    /// A sink for decoded pictures, already wired to this feed: put it at the end of a branch that delivers
    /// [`Mode::video_caps`]. It plays to the clock, keeps two buffers, drops the oldest and never holds the pipeline up.
    pub fn video_sink(&self) -> gst_app::AppSink {
        let feed = self.clone();
        let sink = bare_sink("feed-video", &self.inner.mode.video_caps());
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if let Some(at) = sample_time(&sample, sink)
                        && let Some(buffer) = sample.buffer_owned()
                    {
                        feed.push_video(at, &buffer);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        sink
    }

    /// The same for decoded sound, in [`audio_caps`].
    pub fn audio_sink(&self) -> gst_app::AppSink {
        let feed = self.clone();
        let sink = bare_sink("feed-audio", &audio_caps());
        sink.set_max_buffers(16);
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if let Some(at) = sample_time(&sample, sink)
                        && let Some(buffer) = sample.buffer_owned()
                    {
                        feed.push_audio(at, &buffer);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        sink
    }

    /// Delivers one picture by hand. `media` is its time on the input's own time line, in nanoseconds of the shared clock;
    /// only its steps matter.
    pub fn push_video(&self, media: u64, picture: &gst::Buffer) {
        let inner = &*self.inner;
        if inner.gate_shut.load(Ordering::Relaxed) || !is_whole(picture, &inner.mode) {
            inner.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let at = self.due(media);
        inner.frames.fetch_add(1, Ordering::Relaxed);
        *lock(&inner.last_frame) = Some(Instant::now());
        for (_, consumer) in self.consumers().iter() {
            consumer.video(at, picture);
        }
    }

    /// Delivers some sound by hand; see [`Feed::push_video`].
    pub fn push_audio(&self, media: u64, sound: &gst::Buffer) {
        let inner = &*self.inner;
        if inner.gate_shut.load(Ordering::Relaxed) {
            return;
        }
        let at = self.due(media);
        if let Ok(map) = sound.map_readable() {
            inner.level.store(rms_db(map.as_slice()).to_bits(), Ordering::Relaxed);
        }
        *lock(&inner.last_audio) = Some(Instant::now());
        for (_, consumer) in self.consumers().iter() {
            consumer.audio(at, sound);
        }
    }

    /// Hands every further buffer to `consumer`, until the link is dropped.
    pub fn subscribe(&self, consumer: Arc<dyn FeedConsumer>) -> FeedLink {
        let id = self.inner.next_consumer.fetch_add(1, Ordering::Relaxed);
        let mut consumers = self.inner.consumers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut consumers).push((id, consumer));
        FeedLink { feed: self.clone(), id }
    }

    /// What it delivered so far.
    pub fn stats(&self) -> FeedStats {
        let last_audio = *lock(&self.inner.last_audio);
        let fresh = last_audio.is_some_and(|at| at.elapsed() < LEVEL_HOLD);
        let level = f32::from_bits(self.inner.level.load(Ordering::Relaxed));
        FeedStats {
            frames: self.inner.frames.load(Ordering::Relaxed),
            last_frame: *lock(&self.inner.last_frame),
            last_audio,
            audio_level_db: if fresh { level } else { SILENCE_DB },
            dropped: self.inner.dropped.load(Ordering::Relaxed),
        }
    }

    /// Shuts the feed: nothing passes any more, as if the source had gone silent (fault rehearsal).
    pub(crate) fn shut(&self, shut: bool) {
        self.inner.gate_shut.store(shut, Ordering::Relaxed);
    }

    fn due(&self, media: u64) -> u64 {
        lock(&self.inner.times).map(media, clock::now_nanos())
    }

    fn consumers(&self) -> Consumers {
        self.inner.consumers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A subscription to a feed; dropping it ends it.
#[must_use = "dropping the link ends the subscription"]
pub struct FeedLink {
    feed: Feed,
    id: u64,
}

impl Drop for FeedLink {
    fn drop(&mut self) {
        let mut consumers = self.feed.inner.consumers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut consumers).retain(|(id, _)| *id != self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink that follows the clock, is not waited for when the pipeline starts (an input without sound must start too), and
/// sends no quality-of-service events upstream.
fn bare_sink(name: &str, caps: &gst::Caps) -> gst_app::AppSink {
    let sink =
        gst_app::AppSink::builder().name(name).caps(caps).sync(true).async_(false).max_buffers(2).drop(true).build();
    sink.set_property("qos", false);
    sink.set_property("enable-last-sample", false);
    sink
}

/// The sample's place on its pipeline's time line, as nanoseconds of the shared clock. What the sink is told to hold back
/// (its `ts-offset`) is part of it: a stream that is held back is due later.
fn sample_time(sample: &gst::Sample, sink: &gst_app::AppSink) -> Option<u64> {
    let pts = sample.buffer()?.pts()?;
    let running = sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(pts)?;
    let due = running.nseconds() + sink.base_time().map_or(0, |t| t.nseconds());
    due.checked_add_signed(sink.property::<i64>("ts-offset"))
}

fn is_whole(picture: &gst::Buffer, mode: &Mode) -> bool {
    if let Some(meta) = picture.meta::<gst_video::VideoMeta>() {
        return meta.format() == gst_video::VideoFormat::I420
            && meta.width() == mode.width
            && meta.height() == mode.height;
    }
    picture.size() == (mode.width * mode.height * 3 / 2) as usize
}
