//! The sound of a capture device: an ALSA device beside the picture's node, in a pipeline and on a thread of its own.
//!
//! A sound device that is missing, busy, silent or breaks costs the sound and nothing else: the reason is reported, and it is
//! tried again while there is a picture.
//!
//! Sound is stamped here, by counting its samples and following the moments at which they arrive ([`TimeMap`]): a device whose
//! clock drifts stays with its picture, and its jitter is not passed on. alsasrc's own stamps are not used: beside the shared
//! clock it takes the driver's, and those are of the wall clock in ALSA's plugins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::Shared;
use super::watch::TICK;
use crate::clock;
use crate::elements::{add_linked, make};
use crate::error::PipelineError;
use crate::feed::timemap::TimeMap;
use crate::mode::{AUDIO_RATE, audio_caps};
use crate::teardown;

/// Pause before a device that could not be opened, or broke, is tried again.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// A device that delivers nothing for this long is opened anew: HDMI's sound stands still when its sample rate changes, and
/// alsasrc tries for ever to recover a device that has gone.
const SILENT_AFTER: Duration = Duration::from_secs(4);

/// Bytes of one sample of both channels.
const FRAME: u64 = 4;
/// What ends a capture.
const FATAL: [gst::MessageType; 2] = [gst::MessageType::Error, gst::MessageType::Eos];

/// A sound device that is captured whenever it is wanted.
pub(super) struct Sound {
    wanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sound {
    /// Nothing is opened before it is wanted.
    pub(super) fn start(shared: &Arc<Shared>, device: &str) -> Result<Self, PipelineError> {
        let wanted = Arc::new(AtomicBool::new(false));
        let mut session =
            Session { shared: shared.clone(), device: device.to_owned(), capture: None, next_try: Instant::now() };
        let wish = wanted.clone();
        let spawned = std::thread::Builder::new().name(format!("sound-{}", shared.id)).spawn(move || {
            while !session.shared.is_stopping() {
                session.turn(wish.load(Ordering::SeqCst));
            }
            session.close();
        });
        let thread = spawned.map_err(|error| PipelineError::failed(&shared.id, error))?;
        Ok(Self { wanted, thread: Some(thread) })
    }

    /// Sound is wanted while there is a picture.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Waits for the thread to end; the input must be stopping.
    pub(super) fn finish(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Session {
    shared: Arc<Shared>,
    device: String,
    capture: Option<Capture>,
    next_try: Instant,
}

struct Capture {
    pipeline: gst::Pipeline,
    begun: Instant,
}

impl Session {
    /// One look; takes about one tick.
    fn turn(&mut self, wanted: bool) {
        match &self.capture {
            None => {
                if wanted && Instant::now() >= self.next_try {
                    self.open();
                }
                std::thread::park_timeout(TICK);
            }
            Some(_) if !wanted => {
                self.close();
                self.say(String::new());
            }
            Some(capture) => match self.fault(capture) {
                Some(reason) => self.give_up(reason),
                None if self.last_sound().is_some_and(|at| at > capture.begun) => self.say(String::new()),
                None => {}
            },
        }
    }

    fn open(&mut self) {
        match self.build() {
            Ok(pipeline) => self.capture = Some(Capture { pipeline, begun: Instant::now() }),
            Err(reason) => self.give_up(reason),
        }
    }

    fn build(&self) -> Result<gst::Pipeline, String> {
        let words = |error: PipelineError| error.to_string();
        let pipeline = gst::Pipeline::with_name(&format!("sound-{}", self.shared.id));
        crate::graphs::note(&pipeline);
        let source = make("alsasrc").map_err(words)?;
        source.set_property("device", &self.device);
        let (convert, resample) = (make("audioconvert").map_err(words)?, make("audioresample").map_err(words)?);
        let sink = self.sink();
        add_linked(&pipeline, &[&source, &convert, &resample, sink.upcast_ref()]).map_err(words)?;
        if pipeline.set_state(gst::State::Playing).is_err() {
            let said = pipeline.bus().and_then(|bus| bus.pop_filtered(&FATAL));
            let reason = said.map_or_else(|| "did not start".into(), |message| words_of(&message));
            teardown::dismantle(pipeline);
            return Err(reason);
        }
        Ok(pipeline)
    }

    /// Takes samples as they come and gives them to the feed with their place on the shared clock.
    fn sink(&self) -> gst_app::AppSink {
        let feed = self.shared.feed.clone();
        let (mut map, mut samples) = (TimeMap::default(), 0u64);
        let sink = gst_app::AppSink::builder().caps(&audio_caps()).sync(false).async_(false).build();
        sink.set_property("enable-last-sample", false);
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    if let Some(sound) = sample.buffer_owned() {
                        let media = samples * 1_000_000_000 / u64::from(AUDIO_RATE);
                        samples += sound.size() as u64 / FRAME;
                        feed.push_audio(map.map(media, clock::now_nanos()), &sound);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        sink
    }

    /// What is wrong with a running capture; waits a tick for it to say so.
    fn fault(&self, capture: &Capture) -> Option<String> {
        let tick = gst::ClockTime::from_nseconds(TICK.as_nanos() as u64);
        if let Some(message) = capture.pipeline.bus().and_then(|bus| bus.timed_pop_filtered(tick, &FATAL)) {
            return Some(words_of(&message));
        }
        let heard = self.last_sound().filter(|at| *at > capture.begun).unwrap_or(capture.begun);
        (heard.elapsed() >= SILENT_AFTER).then(|| format!("delivers nothing for {} s", SILENT_AFTER.as_secs()))
    }

    fn last_sound(&self) -> Option<Instant> {
        self.shared.feed.stats().last_audio
    }

    fn give_up(&mut self, reason: String) {
        self.close();
        self.next_try = Instant::now() + TRY_EVERY;
        self.say(format!("{}: {reason}", self.device));
    }

    fn close(&mut self) {
        if let Some(capture) = self.capture.take() {
            teardown::dismantle(capture.pipeline);
        }
    }

    fn say(&self, fault: String) {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).sound = fault;
    }
}

/// ALSA's own words stand in the second line of the detail; the message in front of it only says that it failed.
fn words_of(message: &gst::Message) -> String {
    let gst::MessageView::Error(error) = message.view() else { return "the capture ended".into() };
    let detail = error.debug();
    let own = detail.as_deref().and_then(|detail| detail.split_once('\n')).map(|(_, own)| own.trim());
    own.filter(|own| !own.is_empty()).map_or_else(|| error.error().to_string(), str::to_owned)
}
