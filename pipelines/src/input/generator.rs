//! The test source: a still test pattern with a moving bar, the input's name, a running time code, and a tone.
//!
//! The pattern is drawn once by GStreamer; after that a picture costs one copy and a few thousand dots, so that four of them
//! leave a small machine to the mixer.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use gst::prelude::*;

use super::burnin::Canvas;
use super::watch::{TICK, Watch};
use super::{Fault, InputEvent, Shared};
use crate::clock;
use crate::error::{ErrorKind, PipelineError};
use crate::mode::{AUDIO_RATE, Mode};
use crate::render;
use crate::signal::{Driver, SignalInput};

/// Peak of the tone: -20 dBFS RMS is what broadcasters line up with.
const TONE_PEAK: f64 = 32_768.0 * 0.1 * std::f64::consts::SQRT_2;

pub(super) fn start(
    shared: &Arc<Shared>,
    label: &str,
    pattern: &str,
    tone_hz: f64,
) -> Result<JoinHandle<()>, PipelineError> {
    if tone_hz != 0.0 && !(20.0..=20_000.0).contains(&tone_hz) {
        let reason = format!("{tone_hz} is neither 0 nor from 20 to 20000");
        return Err(PipelineError::misconfigured("source.tone_hz", reason));
    }
    let mode = shared.feed.mode();
    let still = render::pattern(&mode, pattern)?;
    let painter = Painter { mode, still, label: label.to_owned() };
    let tone = Tone { step: tone_hz / f64::from(AUDIO_RATE), phase: 0.0, samples: 0 };
    let shared = shared.clone();
    let name = format!("input-{}", shared.id);
    let spawned = std::thread::Builder::new().name(name).spawn(move || run(&shared, &painter, tone));
    spawned.map_err(|error| PipelineError::failed("test source", error))
}

fn run(shared: &Shared, painter: &Painter, mut tone: Tone) {
    let clock = clock::media_clock();
    let mut watch = Watch::new(shared, Driver::Generic);
    watch.tell(SignalInput::Opened);
    let begun = clock::now_nanos();
    let mut looked = Instant::now();
    let mut unplugged = false;
    let mut n = 0;
    while !shared.is_stopping() {
        let due = begun + painter.mode.slot_start(n);
        let _ = clock.new_single_shot_id(gst::ClockTime::from_nseconds(due)).wait();
        if let Some(picture) = painter.paint(n) {
            shared.feed.push_video(due, &picture);
        }
        let until = painter.mode.slot_start(n + 1);
        if let Some((at, sound)) = tone.play(until) {
            shared.feed.push_audio(begun + at, &sound);
        }
        n += 1;
        let gone = shared.fault() == Fault::Unplug;
        if gone && !unplugged {
            let message = "unplugged (rehearsal)".to_owned();
            watch.tell(SignalInput::Error(message.clone()));
            (shared.events)(InputEvent::Error { message, kind: ErrorKind::Unavailable });
        }
        unplugged = gone;
        if looked.elapsed() >= TICK {
            looked = Instant::now();
            watch.look(None);
        }
    }
}

struct Painter {
    mode: Mode,
    still: gst::Buffer,
    label: String,
}

impl Painter {
    fn paint(&self, n: u64) -> Option<gst::Buffer> {
        let mut picture = self.still.copy_deep().ok()?;
        let (width, height) = (self.mode.width as usize, self.mode.height as usize);
        {
            let mut map = picture.get_mut()?.map_writable().ok()?;
            let mut canvas = Canvas::new(map.as_mut_slice(), width, height)?;
            let scale = (height / 180).max(1);
            let bar = (width / 40).next_multiple_of(2);
            let travel = (n as usize * width / 128 * 2) % (width - bar);
            canvas.fill(travel / 2 * 2, height * 7 / 10, bar, (height / 12).next_multiple_of(2), 235);
            canvas.text(&self.label, width / 20, height / 12, scale * 2);
            canvas.text(&self.time_code(n), width / 20, height * 5 / 6, scale * 2);
        }
        Some(picture)
    }

    fn time_code(&self, n: u64) -> String {
        let fps = u64::from(self.mode.fps_n).div_ceil(u64::from(self.mode.fps_d));
        let (seconds, frame) = (n / fps, n % fps);
        format!("{:02}:{:02}:{:02}:{frame:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }
}

struct Tone {
    /// Turns per sample.
    step: f64,
    phase: f64,
    samples: u64,
}

impl Tone {
    /// The sound up to `until` nanoseconds from the beginning, and where it begins.
    fn play(&mut self, until: u64) -> Option<(u64, gst::Buffer)> {
        let end = (u128::from(until) * u128::from(AUDIO_RATE) / 1_000_000_000) as u64;
        let at = self.samples * 1_000_000_000 / u64::from(AUDIO_RATE);
        let count = end.checked_sub(self.samples).filter(|count| *count > 0)?;
        self.samples = end;
        let mut bytes = Vec::with_capacity(count as usize * 4);
        for _ in 0..count {
            let value =
                if self.step == 0.0 { 0 } else { (TONE_PEAK * (self.phase * std::f64::consts::TAU).sin()) as i16 };
            self.phase = (self.phase + self.step).fract();
            bytes.extend_from_slice(&value.to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        let mut sound = gst::Buffer::from_mut_slice(bytes);
        let length = gst::ClockTime::from_nseconds(count * 1_000_000_000 / u64::from(AUDIO_RATE));
        sound.get_mut()?.set_duration(length);
        Some((at, sound))
    }
}
