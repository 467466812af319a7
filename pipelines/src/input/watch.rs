//! What every input's watch does: frames into the signal's state machine, changes of state out to the owner.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{InputEvent, Shared};
use crate::signal::{CaptureFormat, Driver, Signal, SignalCore, SignalInput};

/// How often a watch looks.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// The rate is reported over this long.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Follows one input's signal.
pub(super) struct Watch<'a> {
    shared: &'a Shared,
    pub(super) core: SignalCore,
    seen: u64,
    reported: (Signal, String),
    format: Option<CaptureFormat>,
    rate: VecDeque<(Instant, u64)>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(shared: &'a Shared, driver: Driver) -> Self {
        let core = SignalCore::new(Instant::now(), driver);
        let reported = (Signal::Starting, String::new());
        Self { shared, core, seen: 0, reported, format: None, rate: VecDeque::new() }
    }

    /// Looks at the frames that came since the last call, and reports what changed.
    pub(super) fn look(&mut self, fingerprint: Option<u64>) {
        let now = Instant::now();
        let frames = self.shared.feed.stats().frames;
        if frames > self.seen {
            if self.seen == 0 {
                (self.shared.events)(InputEvent::FirstFrame);
            }
            self.seen = frames;
            self.core.handle(now, SignalInput::Frame(fingerprint));
        }
        self.core.handle_timeout(now);
        self.rate.push_back((now, frames));
        while self.rate.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) {
            self.rate.pop_front();
        }
        self.report();
    }

    /// Tells the state machine something else.
    pub(super) fn tell(&mut self, input: SignalInput) {
        self.core.handle(Instant::now(), input);
        self.report();
    }

    fn report(&mut self) {
        if self.core.format() != self.format.as_ref() {
            self.format = self.core.format().cloned();
            if let Some(format) = self.words() {
                (self.shared.events)(InputEvent::FormatChanged { format });
            }
        }
        {
            let mut report = self.shared.report.lock().unwrap_or_else(PoisonError::into_inner);
            report.signal = self.core.state();
            report.reason = self.core.reason().to_owned();
            report.fps = self.fps();
            report.format = self.words();
        }
        if self.reported.0 != self.core.state() || self.reported.1 != self.core.reason() {
            self.reported = (self.core.state(), self.core.reason().to_owned());
            let (signal, reason) = self.reported.clone();
            (self.shared.events)(InputEvent::SignalChanged { signal, reason });
        }
    }

    fn words(&self) -> Option<String> {
        self.format.as_ref().map(|format| format!("{}x{} {}", format.width, format.height, format.fourcc))
    }

    fn fps(&self) -> f64 {
        let (Some(first), Some(last)) = (self.rate.front(), self.rate.back()) else { return 0.0 };
        let span = last.0.duration_since(first.0).as_secs_f64();
        if span <= 0.0 { 0.0 } else { ((last.1 - first.1) as f64 / span * 100.0).round() / 100.0 }
    }
}
