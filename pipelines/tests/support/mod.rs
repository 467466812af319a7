//! Stand-ins and waiting for the tests with the real GStreamer.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst_video::prelude::*;

use r58_pipelines::layout::Transition;
use r58_pipelines::programme::ProgrammeInput;
use r58_pipelines::{
    Fault, Feed, FeedConsumer, FeedLink, InputEvent, InputPipeline, Mode, Programme, ProgrammeEvent, ProgrammePlan,
    SceneInput, SceneSet, Signal, SourceSpec,
};

/// Small pictures: the tests look at slots and colours, not at detail.
pub const MODE: Mode = Mode::new(320, 180, 30);
/// Nothing in a test takes longer, unless it is broken.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Waits for a condition that other threads bring about.
pub struct Cell<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Cell<T> {
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value: Mutex::new(value), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `look` finds something.
    pub fn wait<R>(&self, what: &str, mut look: impl FnMut(&T) -> Option<R>) -> R {
        let deadline = Instant::now() + LIMIT;
        let mut value = self.lock();
        loop {
            if let Some(found) = look(&value) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}");
            value = self.changed.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }
}

/// One composed frame, as far as tests look at it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub pts: u64,
    /// Luma and the two chroma values at the middle.
    pub middle: (u8, u8, u8),
    /// The same at a quarter from the left and the top.
    pub quarter: (u8, u8, u8),
    /// Bright pixels of the whole frame: text.
    pub bright: usize,
}

/// A programme whose frames, sound and events are recorded.
pub struct Stage {
    pub programme: Programme,
    pub frames: Arc<Cell<Vec<Seen>>>,
    pub events: Arc<Cell<Vec<ProgrammeEvent>>>,
    pub scenes: SceneSet,
}

/// Colours as I420 has them in BT.709: red, green, blue, white.
pub const RED: (u8, u8, u8) = (63, 102, 240);
pub const GREEN: (u8, u8, u8) = (173, 42, 26);
pub const BLUE: (u8, u8, u8) = (32, 240, 118);

pub fn near(a: (u8, u8, u8), b: (u8, u8, u8), by: u8) -> bool {
    a.0.abs_diff(b.0) <= by && a.1.abs_diff(b.1) <= by && a.2.abs_diff(b.2) <= by
}

impl Stage {
    /// A programme with inputs cam1..camN, without an encoder.
    pub fn new(inputs: usize) -> Self {
        Self::with(inputs, None)
    }

    pub fn with(inputs: usize, encoder: Option<r58_pipelines::EncoderChoice>) -> Self {
        r58_pipelines::init().unwrap();
        let ids: Vec<_> = (1..=inputs).map(|n| (format!("cam{n}"), format!("CAM {n}"))).collect();
        let plan = ProgrammePlan {
            mode: MODE,
            inputs: ids.iter().map(|(id, label)| ProgrammeInput { id: id.clone(), label: label.clone() }).collect(),
            encoder,
            bitrate_kbps: 500,
        };
        let scenes: Vec<_> = ids.iter().map(|(id, label)| SceneInput::camera(id, label)).collect();
        let events = Cell::new(Vec::new());
        let sink = events.clone();
        let programme = Programme::start(plan, move |event| sink.update(|events| events.push(event))).unwrap();
        let frames = Cell::new(Vec::new());
        let sink = frames.clone();
        programme.watch_frames(move |buffer| {
            if let Some(seen) = look(buffer) {
                sink.update(|frames| frames.push(seen));
            }
        });
        Self { programme, frames, events, scenes: SceneSet::shipped(&scenes).unwrap() }
    }

    pub fn cut(&self, scene: &str) -> u64 {
        self.programme.take(self.scenes.get(scene).unwrap(), Transition::Cut).unwrap().id
    }

    pub fn mix(&self, scene: &str, ms: u64) -> u64 {
        let transition = Transition::Mix { duration: Duration::from_millis(ms) };
        self.programme.take(self.scenes.get(scene).unwrap(), transition).unwrap().id
    }

    /// Waits for `n` more frames.
    pub fn run(&self, n: usize) {
        let from = self.frames.peek(Vec::len);
        self.frames.wait("frames", |frames| (frames.len() >= from + n).then_some(()));
    }

    /// Waits until a frame looks as wanted.
    pub fn until(&self, what: &str, want: impl Fn(&Seen) -> bool) -> Seen {
        self.frames.wait(what, |frames| frames.last().filter(|seen| want(seen)).copied())
    }

    pub fn wait_live(&self, input: &str) {
        let begun = Instant::now();
        while !self.programme.inputs().iter().any(|place| place.id == input && place.live) {
            assert!(begun.elapsed() < LIMIT, "{input} never came alive");
            self.run(1);
        }
    }

    /// Every frame slot since the first frame was filled, once.
    pub fn assert_every_slot(&self) {
        assert_eq!(self.programme.stats().missed_slots, 0);
        self.frames.peek(|frames| {
            for pair in frames.windows(2) {
                let step = MODE.nearest_slot(pair[1].pts) - MODE.nearest_slot(pair[0].pts);
                assert_eq!(step, 1, "between {} and {} ns", pair[0].pts, pair[1].pts);
            }
        });
    }
}

fn look(buffer: &gst::Buffer) -> Option<Seen> {
    let pts = buffer.pts()?.nseconds();
    let caps = MODE.video_caps();
    let info = gst_video::VideoInfo::from_caps(&caps).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).ok()?;
    let at = |x: usize, y: usize| {
        let luma = frame.plane_data(0).ok()?[y * frame.plane_stride()[0] as usize + x];
        let u = frame.plane_data(1).ok()?[y / 2 * frame.plane_stride()[1] as usize + x / 2];
        let v = frame.plane_data(2).ok()?[y / 2 * frame.plane_stride()[2] as usize + x / 2];
        Some((luma, u, v))
    };
    let (w, h) = (MODE.width as usize, MODE.height as usize);
    let bright = frame.plane_data(0).ok()?.iter().filter(|luma| **luma > 180).count();
    Some(Seen { pts, middle: at(w / 2, h / 2)?, quarter: at(w / 4, h / 4 + h / 16)?, bright })
}

/// A test input with a plain colour and a tone.
pub fn colour(id: &str, pattern: &str, tone_hz: f64) -> InputPipeline {
    let spec = SourceSpec::Test { pattern: pattern.into(), tone_hz };
    InputPipeline::start(id, &id.to_uppercase(), &spec, &MODE, Arc::new(|_| {})).unwrap()
}

/// An input with recorded events.
pub fn recorded(id: &str, spec: &SourceSpec) -> (InputPipeline, Arc<Cell<Vec<InputEvent>>>) {
    r58_pipelines::init().unwrap();
    let events = Cell::new(Vec::new());
    let sink = events.clone();
    let events_sink = Arc::new(move |event| sink.update(|events: &mut Vec<InputEvent>| events.push(event)));
    (InputPipeline::start(id, &id.to_uppercase(), spec, &MODE, events_sink).unwrap(), events)
}

pub fn stall(input: &InputPipeline, fault: Fault) {
    input.rehearse(fault).unwrap();
}

/// Waits for a signal, and answers its reason.
pub fn wait_signal(events: &Cell<Vec<InputEvent>>, wanted: Signal) -> String {
    let changed = |event: &InputEvent| match event {
        InputEvent::SignalChanged { signal, reason } => Some((*signal, reason.clone())),
        _ => None,
    };
    events.wait(&format!("{wanted:?}"), |events| match events.iter().rev().find_map(changed) {
        Some((signal, reason)) if signal == wanted => Some(reason),
        _ => None,
    })
}

/// Listens to a feed: which tone is heard, and whether it has holes.
pub struct Ear {
    heard: Arc<Cell<Heard>>,
    _link: FeedLink,
}

#[derive(Default)]
struct Heard {
    /// The left channel's last half second.
    samples: VecDeque<i16>,
    /// Samples since the last hole, and where the next one is due.
    whole: usize,
    due: u64,
}

/// The part of a second that is listened to.
const LISTEN: usize = 24_000;
/// A step between two buffers that nobody hears: the mixer closes it (nanoseconds).
const CLOSED: u64 = 20_000_000;

impl Ear {
    pub fn on(feed: &Feed) -> Self {
        let heard = Cell::new(Heard::default());
        let link = feed.subscribe(Arc::new(Drum(heard.clone())));
        Self { heard, _link: link }
    }

    /// Waits until half a second of this tone and little else was heard.
    pub fn wait_tone(&self, hz: f64) {
        self.heard.wait(&format!("a tone of {hz} Hz"), |heard| (purity(&heard.samples, hz) > 0.9).then_some(()));
    }

    /// Waits for a second of sound without a hole.
    pub fn wait_whole(&self) {
        self.heard.wait("a second without a hole", |heard| (heard.whole >= 48_000).then_some(()));
    }
}

struct Drum(Arc<Cell<Heard>>);

impl FeedConsumer for Drum {
    fn video(&self, _at: u64, _picture: &gst::Buffer) {}

    fn audio(&self, at: u64, sound: &gst::Buffer) {
        let map = sound.map_readable().unwrap();
        self.0.update(|heard| {
            heard.samples.extend(map.chunks_exact(4).map(|frame| i16::from_le_bytes([frame[0], frame[1]])));
            let surplus = heard.samples.len().saturating_sub(LISTEN);
            heard.samples.drain(..surplus);
            let count = map.len() / 4;
            heard.whole = if at.abs_diff(heard.due) < CLOSED { heard.whole + count } else { count };
            heard.due = at + count as u64 * 1_000_000_000 / 48_000;
        });
    }
}

/// Share of the power that lies at `hz` (Goertzel), 0 to 1.
fn purity(samples: &VecDeque<i16>, hz: f64) -> f64 {
    let turn = 2.0 * (std::f64::consts::TAU * hz / 48_000.0).cos();
    let (mut last, mut before, mut power) = (0.0, 0.0, 0.0);
    for sample in samples {
        let value = f64::from(*sample);
        (last, before) = (value + turn * last - before, last);
        power += value * value;
    }
    let count = samples.len() as f64;
    if samples.len() < LISTEN || power / count < 1e4 {
        return 0.0;
    }
    (last * last + before * before - turn * last * before) * 2.0 / (count * power)
}

/// Waits until a feed has delivered some frames more.
pub fn wait_frames(feed: &Feed, more: u64) {
    let (begun, from) = (Instant::now(), feed.stats().frames);
    while feed.stats().frames < from + more {
        assert!(begun.elapsed() < LIMIT, "{} delivers no frames", feed.id());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
