//! Capture devices: who may touch the node when, and what to do when the cable moves.
//!
//! One owner per node. Timings and format are set only while nothing streams (setting the format of a streaming node crashed
//! the box's kernel); while it streams, the node is only read. Every call that can block runs on a thread of its own: the
//! device travels there and comes back with the answer, so a call that never returns can be seen and nothing else can touch
//! the node meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use thiserror::Error;

use super::sound::Sound;
use super::watch::{TICK, Watch};
use super::{InputEvent, Shared, uri};
use crate::clock;
use crate::elements::add_linked;
use crate::error::{ErrorKind, PipelineError};
use crate::feed::FeedConsumer;
use crate::signal::{CaptureFormat, Driver, Probe, SignalAction, SignalInput, Timings};
use crate::teardown;

mod ioctl;
mod real;
pub mod scripted;

pub use real::RealDevice;

/// A probe that takes longer than this is reported as hanging.
pub const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// How often an input without a picture is looked at.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Why a capture device could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CaptureError {
    /// A call failed.
    #[error("{call} failed: {}", nix::errno::Errno::from_raw(*.errno))]
    Call {
        /// Its name.
        call: &'static str,
        /// The errno.
        errno: i32,
    },
    /// The device cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// A capture device: the seam between the logic and the kernel. Calls may block; they are made from a thread of their own.
pub trait CaptureDevice: Send {
    /// Which capture chip it is.
    fn driver(&self) -> Driver;
    /// Asks for the timings of the signal (QUERY_DV_TIMINGS). Only reads: allowed while streaming.
    fn probe(&mut self) -> Probe;
    /// Sets timings, then format (S_DV_TIMINGS, S_FMT). Never called while streaming.
    ///
    /// # Errors
    /// Which call failed.
    fn configure(&mut self, timings: &Timings) -> Result<CaptureFormat, CaptureError>;
    /// Whether the driver has reported a change of source since the last call. Does not block.
    fn source_changed(&mut self) -> bool;
    /// An element that delivers the device's pictures, with no frame rate forced on it.
    ///
    /// # Errors
    /// When there is none.
    fn source(&mut self, format: &CaptureFormat) -> Result<gst::Element, PipelineError>;
}

enum Answer {
    Probed(Probe),
    Configured(Result<CaptureFormat, CaptureError>),
}

/// Where the device is.
enum Whereabouts {
    Here(Box<dyn CaptureDevice>),
    Away { back: Receiver<(Box<dyn CaptureDevice>, Answer)>, since: Instant, overdue: bool },
    Lost,
}

pub(super) fn start(
    shared: &Arc<Shared>,
    device: Box<dyn CaptureDevice>,
    audio: Option<&str>,
) -> Result<JoinHandle<()>, PipelineError> {
    let owner = shared.clone();
    let sound = audio.map(|audio| Sound::start(shared, audio)).transpose()?;
    let spawned = std::thread::Builder::new().name(format!("input-{}", shared.id)).spawn(move || {
        let driver = device.driver();
        let fingerprint = Arc::new(Fingerprint::default());
        let _link = owner.feed.subscribe(fingerprint.clone());
        let mut session = Session {
            shared: &owner,
            watch: Watch::new(&owner, driver),
            device: Whereabouts::Here(device),
            streaming: None,
            timings: None,
            next_probe: Instant::now(),
            fingerprint,
        };
        while !owner.is_stopping() {
            session.turn();
            if let Some(sound) = &sound {
                sound.want(session.streaming.is_some());
            }
        }
        session.stop_streaming();
        if let Some(sound) = sound {
            sound.finish();
        }
    });
    spawned.map_err(|error| {
        // The sound's thread is up already.
        shared.stopping.store(true, Ordering::SeqCst);
        PipelineError::failed(&shared.id, error)
    })
}

struct Session<'a> {
    shared: &'a Shared,
    watch: Watch<'a>,
    device: Whereabouts,
    streaming: Option<gst::Pipeline>,
    /// What the device is to be configured for, or was.
    timings: Option<Timings>,
    next_probe: Instant,
    fingerprint: Arc<Fingerprint>,
}

impl Session<'_> {
    /// One look at everything; takes about one tick.
    fn turn(&mut self) {
        self.collect();
        if self.is_here() {
            self.listen();
        }
        while let Some(action) = self.watch.core.poll_output() {
            match action {
                SignalAction::Probe => self.next_probe = Instant::now(),
                SignalAction::Restart => self.stop_streaming(),
            }
            if action == SignalAction::Probe {
                self.probe();
            }
        }
        if self.streaming.is_none() && Instant::now() >= self.next_probe {
            self.probe();
        }
        self.read_bus();
        let fingerprint = self.fingerprint.latest();
        self.watch.look(fingerprint);
    }

    fn is_here(&self) -> bool {
        matches!(self.device, Whereabouts::Here(_))
    }

    fn listen(&mut self) {
        if let Whereabouts::Here(device) = &mut self.device
            && device.source_changed()
        {
            self.watch.tell(SignalInput::SourceChange);
        }
    }

    fn probe(&mut self) {
        self.send(|device| Answer::Probed(device.probe()));
    }

    /// Sends the device away to do something that may block. Does nothing while it is away.
    fn send(&mut self, work: impl FnOnce(&mut dyn CaptureDevice) -> Answer + Send + 'static) {
        if !self.is_here() {
            return;
        }
        let Whereabouts::Here(mut device) = std::mem::replace(&mut self.device, Whereabouts::Lost) else { return };
        self.next_probe = Instant::now() + PROBE_EVERY;
        let (hand_back, back) = mpsc::channel();
        let spawned = std::thread::Builder::new().name("capture-call".into()).spawn(move || {
            let answer = work(&mut *device);
            let _ = hand_back.send((device, answer));
        });
        if spawned.is_ok() {
            self.device = Whereabouts::Away { back, since: Instant::now(), overdue: false };
        }
    }

    fn collect(&mut self) {
        let Whereabouts::Away { back, since, overdue } = &mut self.device else { return };
        match back.try_recv() {
            Ok((device, answer)) => {
                self.device = Whereabouts::Here(device);
                self.answered(answer);
            }
            Err(TryRecvError::Empty) if !*overdue && since.elapsed() >= PROBE_LIMIT => {
                *overdue = true;
                self.watch.tell(SignalInput::Probed(Probe::TimedOut));
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                self.device = Whereabouts::Lost;
                let message = "the capture device's thread died".to_owned();
                self.watch.tell(SignalInput::Error(message.clone()));
                (self.shared.events)(InputEvent::Error { message, kind: ErrorKind::Bug });
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Probed(probe) => {
                self.watch.tell(SignalInput::Probed(probe.clone()));
                match probe {
                    Probe::Timings(timings) => self.timed(timings),
                    Probe::Errno(_) | Probe::TimedOut => {
                        self.timings = None;
                        self.stop_streaming();
                    }
                }
            }
            Answer::Configured(Ok(format)) => self.stream(&format),
            Answer::Configured(Err(error)) => self.watch.tell(SignalInput::Error(error.to_string())),
        }
    }

    fn timed(&mut self, timings: Timings) {
        // The state machine has just decided: a real change stops the stream, a spurious one does not.
        while let Some(action) = self.watch.core.poll_output() {
            if action == SignalAction::Restart {
                self.stop_streaming();
            }
        }
        if self.watch.core.state() == crate::signal::Signal::NoSignal {
            self.timings = None;
            self.stop_streaming();
            return;
        }
        self.timings = Some(timings);
        if self.streaming.is_none() {
            self.send(move |device| Answer::Configured(device.configure(&timings)));
        }
    }

    fn stream(&mut self, format: &CaptureFormat) {
        if self.streaming.is_some() || self.timings.is_none() {
            return;
        }
        self.watch.tell(SignalInput::Opened);
        self.watch.tell(SignalInput::Format(format.clone()));
        if !self.watch.core.reason().is_empty() {
            return;
        }
        match self.build(format) {
            Ok(pipeline) => self.streaming = Some(pipeline),
            Err(error) => self.watch.tell(SignalInput::Error(error.to_string())),
        }
    }

    fn build(&mut self, format: &CaptureFormat) -> Result<gst::Pipeline, PipelineError> {
        let Whereabouts::Here(device) = &mut self.device else {
            return Err(PipelineError::Bug("the capture device is away".into()));
        };
        let source = device.source(format)?;
        let pipeline = gst::Pipeline::with_name(&format!("input-{}", self.shared.id));
        clock::adopt(&pipeline);
        let row = uri::video_row(self.shared)?;
        let mut elements = vec![&source];
        elements.extend(&row);
        add_linked(&pipeline, &elements)?;
        if pipeline.set_state(gst::State::Playing).is_err() {
            let reason = bus_error(&pipeline).unwrap_or_else(|| "did not start".into());
            teardown::dismantle(pipeline);
            return Err(PipelineError::failed(&self.shared.id, reason));
        }
        Ok(pipeline)
    }

    fn read_bus(&mut self) {
        let Some(pipeline) = &self.streaming else {
            std::thread::park_timeout(TICK);
            return;
        };
        let Some(bus) = pipeline.bus() else { return };
        let tick = gst::ClockTime::from_nseconds(TICK.as_nanos() as u64);
        let wanted = [gst::MessageType::Error, gst::MessageType::Eos];
        let Some(message) = bus.timed_pop_filtered(tick, &wanted) else { return };
        let reason = match message.view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => "the capture ended".into(),
        };
        self.stop_streaming();
        self.watch.tell(SignalInput::Error(reason));
    }

    fn stop_streaming(&mut self) {
        if let Some(pipeline) = self.streaming.take() {
            teardown::dismantle(pipeline);
            self.next_probe = Instant::now() + PROBE_EVERY / 4;
        }
    }
}

fn bus_error(pipeline: &gst::Pipeline) -> Option<String> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    }
}

/// A hash of about a thousand pixels of the latest picture: enough to see that a camera's picture lives, cheap enough for
/// every frame.
#[derive(Default)]
struct Fingerprint {
    latest: AtomicU64,
}

/// Bytes between two sampled ones; a prime, so that the samples wander across the lines.
const STRIDE: usize = 997;

impl Fingerprint {
    fn latest(&self) -> Option<u64> {
        Some(self.latest.load(Ordering::Relaxed))
    }
}

impl FeedConsumer for Fingerprint {
    fn video(&self, _at: u64, picture: &gst::Buffer) {
        let Ok(map) = picture.map_readable() else { return };
        // FNV-1a, 64 bits.
        let hash = map.iter().step_by(STRIDE).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        self.latest.store(hash, Ordering::Relaxed);
    }

    fn audio(&self, _at: u64, _sound: &gst::Buffer) {}
}
