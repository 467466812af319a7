//! Is there a picture on this input, and if not, why? A pure state machine; the time is handed in.
//!
//! State comes from frames that arrived and from what the driver said, never from what was asked for. The errno map, the
//! formats that only look like a signal, and the spurious change events were learnt on the real capture chips of the box.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What is known about an input's picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Opened, nothing seen yet.
    Starting,
    /// Frames arrive.
    Live,
    /// Nothing is plugged in.
    NoCable,
    /// A cable, but no stable picture on it.
    NoSync,
    /// A source that sends nothing, or the capture chip's own picture of nothing.
    NoSignal,
    /// A picture that the capture chip cannot take.
    OutOfRange,
    /// Frames arrive, but they are all the same.
    Frozen,
    /// Frames came and stopped.
    Stalled,
    /// The source could not be opened or broke.
    Failed,
}

impl Signal {
    /// The word used in the API and on the pages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::NoCable => "no_cable",
            Self::NoSync => "no_sync",
            Self::NoSignal => "no_signal",
            Self::OutOfRange => "out_of_range",
            Self::Frozen => "frozen",
            Self::Stalled => "stalled",
            Self::Failed => "failed",
        }
    }

    /// Whether there is a picture worth showing: a frozen one still is.
    pub fn has_picture(self) -> bool {
        matches!(self, Self::Live | Self::Frozen)
    }
}

/// Which capture chip a node belongs to; they lie in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// HDMI through an LT6911UXE bridge.
    Rkcif,
    /// The chip's own HDMI receiver.
    RkHdmirx,
    /// Anything else that takes the same calls.
    #[default]
    Generic,
}

/// The digital video timings of a source: what `VIDIOC_QUERY_DV_TIMINGS` answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Active pixels across.
    pub width: u32,
    /// Active lines.
    pub height: u32,
    /// Pixels per second, blanking included.
    pub pixel_clock: u64,
    /// Whether the lines are interlaced.
    pub interlaced: bool,
}

/// The format that a node delivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureFormat {
    /// Four-character code, such as `UYVY`.
    pub fourcc: String,
    /// Pixels across.
    pub width: u32,
    /// Lines.
    pub height: u32,
}

/// What a probe of the source said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A stable picture.
    Timings(Timings),
    /// The query failed with this errno.
    Errno(i32),
    /// The query did not come back within its limit.
    TimedOut,
}

/// What happened on an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalInput {
    /// A pipeline was started on it.
    Opened,
    /// A probe came back.
    Probed(Probe),
    /// The node delivers this format.
    Format(CaptureFormat),
    /// A frame arrived. The fingerprint is a hash of some of its pixels, or `None` when this source cannot freeze.
    Frame(Option<u64>),
    /// The driver says that the source changed.
    SourceChange,
    /// The source broke.
    Error(String),
}

/// What the shell is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAction {
    /// Query the timings (on a thread of its own) and report `Probed`.
    Probe,
    /// The timings really changed: stop the pipeline, set timings and format, start it again.
    Restart,
}

/// No frame for this long is a stall.
const STALL_AFTER: Duration = Duration::from_secs(1);
/// Identical frames for this long are a frozen source. A slide is identical too, so this is a remark, not a fault.
const FROZEN_AFTER: Duration = Duration::from_secs(10);
/// No first frame for this long after opening is no signal.
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);
/// First pause after a change event, doubled for each spurious one (15 spurious events in two hours were seen).
const QUIET_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two looks at change events.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// The state machine of one input.
#[derive(Debug)]
pub struct SignalCore {
    driver: Driver,
    state: Signal,
    reason: String,
    opened: Instant,
    last_frame: Option<Instant>,
    frames: u64,
    fingerprint: Option<u64>,
    changed: Instant,
    format: Option<CaptureFormat>,
    timings: Option<Timings>,
    quiet: Duration,
    quiet_until: Option<Instant>,
    change_waits: bool,
    spurious: u64,
    actions: Vec<SignalAction>,
}

impl SignalCore {
    /// An input that is being opened.
    pub fn new(now: Instant, driver: Driver) -> Self {
        Self {
            driver,
            state: Signal::Starting,
            reason: String::new(),
            opened: now,
            last_frame: None,
            frames: 0,
            fingerprint: None,
            changed: now,
            format: None,
            timings: None,
            quiet: QUIET_MIN,
            quiet_until: None,
            change_waits: false,
            spurious: 0,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: SignalInput) {
        match input {
            SignalInput::Opened => self.open(now),
            SignalInput::Probed(probe) => self.probed(now, probe),
            SignalInput::Format(format) => self.formatted(format),
            SignalInput::Frame(fingerprint) => self.frame(now, fingerprint),
            SignalInput::SourceChange => self.source_changed(now),
            SignalInput::Error(message) => self.become_(Signal::Failed, message),
        }
    }

    /// Lets time pass: stalls, first frames that never came, pauses that are over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.change_waits && self.quiet_until.is_none_or(|until| now >= until) {
            self.change_waits = false;
            self.actions.push(SignalAction::Probe);
        }
        match (self.state, self.last_frame) {
            (Signal::Live | Signal::Frozen, Some(last)) if now.duration_since(last) >= STALL_AFTER => {
                self.become_(Signal::Stalled, format!("no frames for {} s", STALL_AFTER.as_secs()));
            }
            (Signal::Live, Some(_)) if self.is_frozen(now) => {
                self.become_(Signal::Frozen, format!("the picture has not changed for {} s", FROZEN_AFTER.as_secs()));
            }
            (Signal::Starting, _) if now.duration_since(self.opened) >= FIRST_FRAME_WITHIN => {
                self.become_(Signal::NoSignal, format!("no frames {} s after opening", FIRST_FRAME_WITHIN.as_secs()));
            }
            _ => {}
        }
    }

    /// When to call [`SignalCore::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let state = match self.state {
            Signal::Live => self.last_frame.map(|last| {
                let freezes = self.fingerprint.map(|_| self.changed + FROZEN_AFTER);
                freezes.map_or(last + STALL_AFTER, |freezes| freezes.min(last + STALL_AFTER))
            }),
            Signal::Frozen => self.last_frame.map(|last| last + STALL_AFTER),
            Signal::Starting => Some(self.opened + FIRST_FRAME_WITHIN),
            _ => None,
        };
        let waiting = self.change_waits.then_some(self.quiet_until).flatten();
        [state, waiting].into_iter().flatten().min()
    }

    /// What the shell should do now, oldest first.
    pub fn poll_output(&mut self) -> Option<SignalAction> {
        (!self.actions.is_empty()).then(|| self.actions.remove(0))
    }

    /// The state.
    pub fn state(&self) -> Signal {
        self.state
    }

    /// Why, in words for the crew; empty when live.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Frames seen.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The format the node last reported.
    pub fn format(&self) -> Option<&CaptureFormat> {
        self.format.as_ref()
    }

    /// Change events that turned out to be nothing.
    pub fn spurious_changes(&self) -> u64 {
        self.spurious
    }

    fn open(&mut self, now: Instant) {
        self.opened = now;
        self.last_frame = None;
        self.fingerprint = None;
        self.changed = now;
        self.become_(Signal::Starting, String::new());
    }

    fn probed(&mut self, now: Instant, probe: Probe) {
        match probe {
            Probe::Timings(timings) => self.timed(now, timings),
            Probe::Errno(errno) => {
                self.timings = None;
                let (state, reason) = from_errno(errno);
                self.become_(state, reason);
            }
            Probe::TimedOut => self.become_(Signal::Failed, "the capture driver did not answer".into()),
        }
    }

    fn timed(&mut self, now: Instant, timings: Timings) {
        if looks_like_nothing(self.driver, timings.width, timings.height, None) {
            self.timings = None;
            self.become_(Signal::NoSignal, describe_nothing(timings.width, timings.height));
            return;
        }
        let known = self.timings.replace(timings);
        if known == Some(timings) {
            self.spurious += 1;
            self.quiet = (self.quiet * 2).min(QUIET_MAX);
        } else {
            self.actions.push(SignalAction::Restart);
            self.quiet = QUIET_MIN;
        }
        self.quiet_until = Some(now + self.quiet);
    }

    fn formatted(&mut self, format: CaptureFormat) {
        if looks_like_nothing(self.driver, format.width, format.height, Some(&format.fourcc)) {
            self.become_(Signal::NoSignal, describe_nothing(format.width, format.height));
        } else if self.state == Signal::NoSignal {
            self.become_(Signal::Starting, String::new());
        }
        self.format = Some(format);
    }

    fn frame(&mut self, now: Instant, fingerprint: Option<u64>) {
        self.frames += 1;
        self.last_frame = Some(now);
        if fingerprint.is_none() || fingerprint != self.fingerprint {
            self.changed = now;
        }
        self.fingerprint = fingerprint;
        let format = self.format.as_ref();
        if format.is_some_and(|f| looks_like_nothing(self.driver, f.width, f.height, Some(&f.fourcc))) {
            return;
        }
        match self.state {
            Signal::Frozen if self.is_frozen(now) => {}
            Signal::Live => {}
            _ => self.become_(Signal::Live, String::new()),
        }
    }

    fn source_changed(&mut self, now: Instant) {
        if self.quiet_until.is_some_and(|until| now < until) {
            self.change_waits = true;
            return;
        }
        self.change_waits = false;
        self.actions.push(SignalAction::Probe);
    }

    fn is_frozen(&self, now: Instant) -> bool {
        self.fingerprint.is_some() && now.duration_since(self.changed) >= FROZEN_AFTER
    }

    fn become_(&mut self, state: Signal, reason: String) {
        self.state = state;
        self.reason = reason;
    }
}

/// What the errno of a timings query means.
pub fn from_errno(errno: i32) -> (Signal, String) {
    use nix::errno::Errno;
    match Errno::from_raw(errno) {
        Errno::ENOLINK => (Signal::NoCable, "no cable".into()),
        Errno::ENOLCK | Errno::EIO | Errno::ETIMEDOUT => (Signal::NoSync, "no stable picture on the cable".into()),
        Errno::ERANGE => (Signal::OutOfRange, "the picture's format is not supported".into()),
        Errno::ENODATA => (Signal::NoSignal, "the source sends no picture".into()),
        other => (Signal::Failed, format!("the capture device answered {other}")),
    }
}

/// Whether a format is the capture chip's own picture of nothing.
fn looks_like_nothing(driver: Driver, width: u32, height: u32, fourcc: Option<&str>) -> bool {
    if (width, height) == (720, 240) {
        return true;
    }
    match driver {
        Driver::Rkcif => width < 640 || height < 480,
        Driver::RkHdmirx => (width, height) == (640, 480) && fourcc.is_some_and(|code| code.starts_with("BGR")),
        Driver::Generic => width == 0 || height == 0,
    }
}

fn describe_nothing(width: u32, height: u32) -> String {
    if (width, height) == (720, 240) {
        return "no picture (720x240: the cable may be bad)".into();
    }
    format!("no picture (the capture chip reports {width}x{height})")
}

#[cfg(test)]
mod tests;
