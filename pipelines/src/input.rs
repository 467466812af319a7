//! One input: a source, decoded into a [`Feed`], with its signal watched.
//!
//! Each input has its own pipeline (or generator) and a watch thread that owns it. The watch turns bus messages, delivered
//! frames and the driver's words into a [`Signal`] and reports changes. When a source breaks, the input says so once and
//! stays quiet; building it again is the camera actor's business. Only a v4l2 input comes back by itself, because
//! waiting for a cable is its normal state.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, PipelineError};
use crate::feed::{Feed, FeedStats};
use crate::mode::Mode;
use crate::signal::{Driver, Signal};

pub mod burnin;
mod generator;
mod sound;
mod uri;
pub mod v4l2;
mod watch;

/// Where an input's pictures come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceSpec {
    /// A moving picture with its name and time burnt in, and a tone.
    Test {
        /// One of videotestsrc's patterns, by nick name (`smpte`, `ball`, `red`, ...).
        #[serde(default = "default_pattern")]
        pattern: String,
        /// Frequency of the tone in hertz, 20..=20,000; 0 is silence.
        #[serde(default = "default_tone")]
        tone_hz: f64,
    },
    /// A file that is played over and over.
    File {
        /// Where it is.
        path: PathBuf,
    },
    /// A camera on the network.
    Rtsp {
        /// `rtsp://` or `rtsps://`; may carry user and password.
        url: String,
        /// How long the jitter buffer holds packets, in milliseconds.
        #[serde(default = "default_latency")]
        latency_ms: u32,
        /// Whether to use TCP only.
        #[serde(default = "default_tcp")]
        tcp: bool,
    },
    /// A capture device.
    V4l2 {
        /// The video node.
        device: PathBuf,
        /// The subdevice that knows the true signal, where the node itself does not.
        #[serde(default)]
        subdev: Option<PathBuf>,
        /// Which capture chip it is.
        #[serde(default)]
        driver: Driver,
        /// The ALSA device that its sound comes from, such as `hw:CARD=hdmi0`; without one there is no sound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audio: Option<String>,
    },
}

fn default_pattern() -> String {
    "smpte".into()
}

fn default_tone() -> f64 {
    440.0
}

fn default_latency() -> u32 {
    200
}

fn default_tcp() -> bool {
    true
}

impl SourceSpec {
    /// The word of its kind, as in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Test { .. } => "test",
            Self::File { .. } => "file",
            Self::Rtsp { .. } => "rtsp",
            Self::V4l2 { .. } => "v4l2",
        }
    }
}

/// What an input reports. Called on its watch thread: hand over and return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputEvent {
    /// The first picture was decoded.
    FirstFrame,
    /// The state of its signal changed.
    SignalChanged {
        /// The new state.
        signal: Signal,
        /// Why; empty when live.
        reason: String,
    },
    /// The source now delivers another format.
    FormatChanged {
        /// Such as `1920x1080 UYVY`.
        format: String,
    },
    /// The source broke and will not come back by itself: stop this input and start it again.
    Error {
        /// What it said.
        message: String,
        /// [`ErrorKind::Misconfigured`] when somebody has to change something first, and trying again soon is of no use.
        kind: ErrorKind,
    },
    /// The source ended. A file that can be read again does not.
    Eos,
}

/// A fault to rehearse, on test sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// All is well.
    None,
    /// Pictures and sound stop; nothing says why.
    Stall,
    /// The source says that its cable is gone, and delivers nothing.
    Unplug,
}

/// What is known about an input's signal.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalReport {
    /// The state.
    pub signal: Signal,
    /// Why; empty when live.
    pub reason: String,
    /// Pictures decoded.
    pub frames: u64,
    /// Pictures per second over the last two seconds.
    pub fps: f64,
    /// What the source delivers, such as `1920x1080 UYVY`, when known.
    pub format: Option<String>,
    /// Why a capture device's sound is missing; empty when it is there, or none is configured.
    pub sound: String,
}

pub(crate) type InputEvents = Arc<dyn Fn(InputEvent) + Send + Sync>;

/// What the input's threads share with its owner.
pub(crate) struct Shared {
    pub(crate) id: String,
    pub(crate) feed: Feed,
    pub(crate) events: InputEvents,
    pub(crate) stopping: AtomicBool,
    pub(crate) fault: Mutex<Fault>,
    pub(crate) report: Mutex<SignalReport>,
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running input.
pub struct InputPipeline {
    shared: Arc<Shared>,
    rehearsable: bool,
    watch: Option<std::thread::JoinHandle<()>>,
}

/// How long [`InputPipeline::stop`] waits for the input's threads.
const STOP_LIMIT: Duration = Duration::from_secs(4);

impl InputPipeline {
    /// Starts an input. A source that is not there yet is not an error: its signal says so.
    ///
    /// # Errors
    /// `Misconfigured` for a source that can never work, `SourceUnavailable` for a file that is not there,
    /// `MissingElements`, `Failed`.
    pub fn start(
        id: &str,
        label: &str,
        spec: &SourceSpec,
        mode: &Mode,
        events: Arc<dyn Fn(InputEvent) + Send + Sync>,
    ) -> Result<Self, PipelineError> {
        crate::init()?;
        mode.validate()?;
        let shared = Self::shared(id, mode, events);
        let watch = match spec {
            SourceSpec::Test { pattern, tone_hz } => generator::start(&shared, label, pattern, *tone_hz)?,
            SourceSpec::File { path } => uri::start_file(&shared, path)?,
            SourceSpec::Rtsp { url, latency_ms, tcp } => uri::start_rtsp(&shared, url, *latency_ms, *tcp)?,
            SourceSpec::V4l2 { device, subdev, driver, audio } => {
                let device = v4l2::RealDevice::new(device, subdev.as_deref(), *driver);
                v4l2::start(&shared, Box::new(device), audio.as_deref())?
            }
        };
        let rehearsable = matches!(spec, SourceSpec::Test { .. });
        Ok(Self { shared, rehearsable, watch: Some(watch) })
    }

    /// Starts an input on a capture device of the caller's, with the sound of an ALSA device: the seam that a scripted device
    /// drives in tests.
    ///
    /// # Errors
    /// As [`InputPipeline::start`].
    pub fn start_capture(
        id: &str,
        device: Box<dyn v4l2::CaptureDevice>,
        audio: Option<&str>,
        mode: &Mode,
        events: Arc<dyn Fn(InputEvent) + Send + Sync>,
    ) -> Result<Self, PipelineError> {
        crate::init()?;
        mode.validate()?;
        let shared = Self::shared(id, mode, events);
        let watch = v4l2::start(&shared, device, audio)?;
        Ok(Self { shared, rehearsable: false, watch: Some(watch) })
    }

    fn shared(id: &str, mode: &Mode, events: InputEvents) -> Arc<Shared> {
        Arc::new(Shared {
            id: id.to_owned(),
            feed: Feed::new(id, mode),
            events,
            stopping: AtomicBool::new(false),
            fault: Mutex::new(Fault::None),
            report: Mutex::new(SignalReport {
                signal: Signal::Starting,
                reason: String::new(),
                frames: 0,
                fps: 0.0,
                format: None,
                sound: String::new(),
            }),
        })
    }

    /// Its pictures and sound.
    pub fn feed(&self) -> Feed {
        self.shared.feed.clone()
    }

    /// What it delivered.
    pub fn stats(&self) -> FeedStats {
        self.shared.feed.stats()
    }

    /// The state of its signal.
    pub fn signal(&self) -> SignalReport {
        let mut report = self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report.frames = self.shared.feed.stats().frames;
        report
    }

    /// Plays a fault on a test source, until `Fault::None`.
    ///
    /// # Errors
    /// `Rejected` when this input is no test source.
    pub fn rehearse(&self, fault: Fault) -> Result<(), PipelineError> {
        if !self.rehearsable {
            let reason = format!("{} is no test source, its faults cannot be rehearsed", self.shared.id);
            return Err(PipelineError::Rejected(reason));
        }
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.shared.feed.shut(fault != Fault::None);
        Ok(())
    }

    /// Stops it, and waits a bounded time for that. Answers whether it stopped in time.
    pub fn stop(mut self) -> bool {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let Some(watch) = self.watch.take() else { return true };
        let deadline = Instant::now() + STOP_LIMIT;
        while !watch.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        watch.is_finished()
    }
}

impl Drop for InputPipeline {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
    }
}
