//! What a Camera decides: when to open its source, when to give it up and try again, and what to call its signal. Pure: the
//! shell brings the time, the jitter and what was seen.
//!
//! A source comes and goes by nature (cables, networks), so trying again has a ceiling but no end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use r58_pipelines::signal::Signal;

use crate::supervision::{RestartBudget, RestartPolicy, Verdict};

/// Longest that opening a source may take: a capture probe has three seconds, an RTSP server on a bad network needs more.
pub const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A source without a picture for this long is opened anew.
pub const REOPEN_AFTER: Duration = Duration::from_secs(3);
/// The same when it says that nothing is plugged in: somebody has to walk there.
pub const UNPLUGGED_REOPEN_AFTER: Duration = Duration::from_secs(10);
/// The same for a source that waits for its signal by itself, as capture devices do: then it has lost its way.
pub const PATIENT_REOPEN_AFTER: Duration = Duration::from_secs(30);
/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Pause after a fault that only somebody's hand can mend; cameras lock out who tries wrong passwords faster.
pub const LASTING_PAUSE: Duration = Duration::from_secs(60);

/// What happened to the camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraInput {
    /// A try came up.
    Opened {
        /// Which try.
        attempt: u64,
    },
    /// A try did not come up, or what came up has broken.
    Broke {
        /// Which try.
        attempt: u64,
        /// Why.
        reason: String,
        /// Whether somebody has to change something first, so that another try soon is of no use.
        lasting: bool,
    },
    /// The source says how its signal is.
    Signal {
        /// Which try.
        attempt: u64,
        /// The state.
        signal: Signal,
        /// Why; empty when live.
        reason: String,
    },
    /// Somebody rehearses that the cable is pulled. It stays out until [`CameraInput::Plug`].
    Unplug,
    /// Somebody puts the cable back that was pulled.
    Plug,
    /// Somebody wants it opened anew, at once.
    Reopen,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraOutput {
    /// Open the source, off-thread.
    Open {
        /// Number of this try.
        attempt: u64,
    },
    /// Take this try's feed off the mixer and stop its pipeline, off-thread.
    Close {
        /// Number of the try.
        attempt: u64,
        /// What the slate says.
        reason: String,
    },
    /// Put this try's feed on the mixer.
    Attach {
        /// Number of the try.
        attempt: u64,
    },
    /// Signal or reason changed.
    Changed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed {
        until: Instant,
    },
    Opening {
        until: Instant,
    },
    Open,
    /// Somebody holds the cable in their hand: there is nothing to try.
    Unplugged,
}

/// One camera's mind.
#[derive(Debug)]
pub struct CameraCore {
    phase: Phase,
    attempt: u64,
    /// Whether the source waits for its signal by itself.
    patient: bool,
    signal: Signal,
    reason: String,
    /// Since when there has been no picture, while the source is open.
    dark_since: Option<Instant>,
    budget: RestartBudget,
    jitter: f64,
    outputs: VecDeque<CameraOutput>,
}

impl CameraCore {
    /// Closed, and due to open at once. `patient` for a source that waits for its signal by itself; `jitter` in 0..=1 spreads
    /// the tries of several cameras.
    pub fn new(now: Instant, patient: bool, jitter: f64) -> Self {
        Self {
            phase: Phase::Closed { until: now },
            attempt: 0,
            patient,
            signal: Signal::Starting,
            reason: String::new(),
            dark_since: None,
            budget: RestartBudget::new(RestartPolicy::patient(PAUSES.0, PAUSES.1)),
            jitter,
            outputs: VecDeque::new(),
        }
    }

    /// The signal and why, empty while it is live.
    pub fn signal(&self) -> (Signal, &str) {
        (self.signal, &self.reason)
    }

    /// The present try, from 1.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Whether a source is open.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Takes in what happened. The answer says whether the try that it is about still counts; the pipeline of one that does
    /// not is to be stopped.
    pub fn handle(&mut self, now: Instant, input: CameraInput) -> bool {
        let counts = match input {
            CameraInput::Opened { attempt } => self.opened(now, attempt),
            CameraInput::Broke { attempt, reason, lasting } => {
                let counts = attempt == self.attempt && matches!(self.phase, Phase::Open | Phase::Opening { .. });
                if counts {
                    self.fail(now, Signal::Failed, reason);
                }
                if counts && lasting {
                    self.phase = Phase::Closed { until: now + LASTING_PAUSE };
                }
                counts
            }
            CameraInput::Signal { attempt, signal, reason } => {
                let counts = attempt == self.attempt && self.is_open();
                if counts {
                    self.see(now, signal, reason);
                }
                counts
            }
            CameraInput::Unplug => {
                self.close("unplugged".into());
                self.tell(Signal::NoCable, "unplugged (rehearsal)".into());
                self.phase = Phase::Unplugged;
                true
            }
            CameraInput::Plug => {
                if self.phase == Phase::Unplugged {
                    self.budget.refill();
                    self.open(now);
                }
                true
            }
            // Opening anew does not put a cable back.
            CameraInput::Reopen if self.phase == Phase::Unplugged => true,
            CameraInput::Reopen => {
                self.budget.refill();
                self.close("reopening".into());
                self.open(now);
                true
            }
        };
        self.handle_timeout(now);
        counts
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Closed { until } if now >= until => self.open(now),
            Phase::Opening { until } if now >= until => {
                self.fail(now, Signal::Failed, format!("did not open within {} s", OPEN_WITHIN.as_secs()));
            }
            // The state and the reason stay as the source told them: they say more than that it is opened anew.
            Phase::Open if self.dark_until().is_some_and(|until| now >= until) => {
                self.fail(now, self.signal, self.reason.clone());
            }
            _ => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed { until } | Phase::Opening { until } => Some(until),
            Phase::Open => self.dark_until(),
            Phase::Unplugged => None,
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<CameraOutput> {
        self.outputs.pop_front()
    }

    fn dark_until(&self) -> Option<Instant> {
        let patience = match self.signal {
            _ if self.patient => PATIENT_REOPEN_AFTER,
            Signal::NoCable => UNPLUGGED_REOPEN_AFTER,
            // The source's own patience with a first picture comes before ours.
            Signal::Starting => OPEN_WITHIN,
            _ => REOPEN_AFTER,
        };
        // A capture device that says why there is nothing is at work; one that says nothing may be stuck.
        let at_work = self.patient && !matches!(self.signal, Signal::Starting | Signal::Stalled | Signal::Failed);
        self.dark_since.filter(|_| !at_work).map(|since| since + patience)
    }

    fn see(&mut self, now: Instant, signal: Signal, reason: String) {
        if signal.has_picture() {
            self.dark_since = None;
            self.budget.handle_started(now);
        } else {
            self.dark_since = self.dark_since.or(Some(now));
        }
        self.tell(signal, reason);
    }

    fn tell(&mut self, signal: Signal, reason: String) {
        if (self.signal, &self.reason) != (signal, &reason) {
            (self.signal, self.reason) = (signal, reason);
            self.outputs.push_back(CameraOutput::Changed);
        }
    }

    fn open(&mut self, now: Instant) {
        self.attempt += 1;
        self.phase = Phase::Opening { until: now + OPEN_WITHIN };
        self.outputs.push_back(CameraOutput::Open { attempt: self.attempt });
    }

    fn opened(&mut self, now: Instant, attempt: u64) -> bool {
        if attempt != self.attempt || !matches!(self.phase, Phase::Opening { .. }) {
            return false;
        }
        self.phase = Phase::Open;
        self.dark_since = Some(now);
        self.outputs.push_back(CameraOutput::Attach { attempt });
        self.tell(Signal::Starting, String::new());
        true
    }

    fn close(&mut self, reason: String) {
        if matches!(self.phase, Phase::Open | Phase::Opening { .. }) {
            self.outputs.push_back(CameraOutput::Close { attempt: self.attempt, reason });
        }
        self.dark_since = None;
    }

    fn fail(&mut self, now: Instant, signal: Signal, reason: String) {
        self.close(reason.clone());
        self.tell(signal, reason);
        let pause = match self.budget.handle_failed(now, self.jitter) {
            Verdict::RestartIn(pause) => pause,
            // A patient budget does not give up; if it ever did, its longest pause would be right.
            Verdict::GaveUp => PAUSES.1,
        };
        self.phase = Phase::Closed { until: now + pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(core: &mut CameraCore) -> Vec<CameraOutput> {
        std::iter::from_fn(|| core.poll_output()).collect()
    }

    fn says(core: &CameraCore, signal: Signal) -> CameraInput {
        CameraInput::Signal {
            attempt: core.attempt(),
            signal,
            reason: if signal == Signal::Live { "" } else { "why" }.into(),
        }
    }

    fn live(now: Instant, patient: bool) -> CameraCore {
        let mut core = CameraCore::new(now, patient, 1.0);
        core.handle_timeout(now);
        core.handle(now, CameraInput::Opened { attempt: 1 });
        core.handle(now, says(&core, Signal::Live));
        drain(&mut core);
        core
    }

    #[test]
    fn a_camera_is_live_when_its_source_says_so_and_not_when_it_opened() {
        let now = Instant::now();
        let mut core = CameraCore::new(now, false, 1.0);
        core.handle_timeout(now);
        assert_eq!(drain(&mut core), [CameraOutput::Open { attempt: 1 }]);
        core.handle(now, CameraInput::Opened { attempt: 1 });
        assert_eq!(core.signal().0, Signal::Starting);
        assert_eq!(drain(&mut core), [CameraOutput::Attach { attempt: 1 }]);
        core.handle(now, says(&core, Signal::Live));
        assert_eq!(core.signal(), (Signal::Live, ""));
    }

    #[test]
    fn a_source_that_stalls_is_opened_anew_after_three_seconds() {
        let mut now = Instant::now();
        let mut core = live(now, false);
        core.handle(now, says(&core, Signal::Stalled));
        assert_eq!(drain(&mut core), [CameraOutput::Changed]);
        assert_eq!(core.poll_timeout(), Some(now + REOPEN_AFTER));
        now += REOPEN_AFTER;
        core.handle_timeout(now);
        assert_eq!(drain(&mut core), [CameraOutput::Close { attempt: 1, reason: "why".into() }]);
        assert_eq!(core.signal(), (Signal::Stalled, "why"), "what the source said stays");
        core.handle_timeout(core.poll_timeout().unwrap());
        assert_eq!(drain(&mut core), [CameraOutput::Open { attempt: 2 }]);
    }

    #[test]
    fn a_capture_device_without_a_cable_is_left_to_wait_for_one() {
        let now = Instant::now();
        let mut core = live(now, true);
        core.handle(now, says(&core, Signal::NoCable));
        assert_eq!(core.poll_timeout(), None);
        core.handle(now, says(&core, Signal::Stalled));
        assert_eq!(core.poll_timeout(), Some(now + PATIENT_REOPEN_AFTER));
    }

    #[test]
    fn a_cable_that_was_pulled_stays_out_until_it_is_put_back() {
        let mut now = Instant::now();
        let mut core = live(now, false);
        core.handle(now, CameraInput::Unplug);
        assert_eq!(core.signal(), (Signal::NoCable, "unplugged (rehearsal)"));
        assert_eq!(
            drain(&mut core),
            [CameraOutput::Close { attempt: 1, reason: "unplugged".into() }, CameraOutput::Changed]
        );
        now += Duration::from_secs(3_600);
        core.handle_timeout(now);
        core.handle(now, CameraInput::Broke { attempt: 1, reason: "the source ended".into(), lasting: false });
        core.handle(now, says(&core, Signal::Live));
        core.handle(now, CameraInput::Reopen);
        assert_eq!((drain(&mut core), core.signal().0, core.poll_timeout()), (vec![], Signal::NoCable, None));
        core.handle(now, CameraInput::Plug);
        assert_eq!(drain(&mut core), [CameraOutput::Open { attempt: 2 }]);
        core.handle(now, CameraInput::Opened { attempt: 2 });
        core.handle(now, CameraInput::Plug);
        assert_eq!(drain(&mut core)[0], CameraOutput::Attach { attempt: 2 });
        assert!(core.is_open(), "a cable that is in stays in");
    }

    #[test]
    fn a_source_that_opens_too_late_does_not_count() {
        let now = Instant::now();
        let mut core = CameraCore::new(now, false, 1.0);
        core.handle_timeout(now);
        core.handle_timeout(now + OPEN_WITHIN);
        assert!(!core.handle(now + OPEN_WITHIN, CameraInput::Opened { attempt: 1 }));
        assert_eq!(core.signal().0, Signal::Failed);
    }

    #[test]
    fn a_source_that_fails_for_a_day_is_still_tried_every_five_seconds() {
        let mut now = Instant::now();
        let mut core = CameraCore::new(now, false, 1.0);
        let mut tries = 0;
        let end = now + Duration::from_secs(86_400);
        while now < end {
            core.handle_timeout(now);
            for output in drain(&mut core) {
                if let CameraOutput::Open { attempt } = output {
                    tries += 1;
                    core.handle(now, CameraInput::Broke { attempt, reason: "no cable".into(), lasting: false });
                }
            }
            now = core.poll_timeout().unwrap();
        }
        assert!((17_000..17_400).contains(&tries), "{tries}");
    }

    #[test]
    fn a_refused_password_is_tried_again_after_a_minute_or_when_somebody_asks() {
        let now = Instant::now();
        let mut core = live(now, false);
        core.handle(now, CameraInput::Broke { attempt: 1, reason: "refused".into(), lasting: true });
        assert_eq!((core.signal(), core.poll_timeout()), ((Signal::Failed, "refused"), Some(now + LASTING_PAUSE)));
        drain(&mut core);
        core.handle_timeout(now + LASTING_PAUSE - Duration::from_millis(1));
        assert_eq!(drain(&mut core), []);
        core.handle(now, CameraInput::Reopen);
        assert_eq!(drain(&mut core), [CameraOutput::Open { attempt: 2 }]);
    }

    proptest! {
        /// At most one try is open, each is closed before the next is opened, and only an open one is attached. A camera
        /// without a picture always has something that it waits for, unless somebody holds its cable.
        #[test]
        fn tries_never_overlap(events in prop::collection::vec((0u8..6, 0u64..3, 0u64..8_000), 1..150)) {
            let mut now = Instant::now();
            let mut core = CameraCore::new(now, false, 0.5);
            let mut open = None;
            let mut unplugged = false;
            for (event, back, pause) in events {
                let attempt = core.attempt().saturating_sub(back);
                let signal = [Signal::Live, Signal::Stalled, Signal::NoCable, Signal::Frozen][(pause % 4) as usize];
                match event {
                    0 => { core.handle(now, CameraInput::Opened { attempt }); }
                    1 => {
                        let lasting = pause % 2 == 0;
                        core.handle(now, CameraInput::Broke { attempt, reason: "broken".into(), lasting });
                    }
                    2 => { core.handle(now, CameraInput::Signal { attempt, signal, reason: String::new() }); }
                    3 if pause < 400 => { core.handle(now, CameraInput::Reopen); }
                    3 if pause < 800 => { core.handle(now, CameraInput::Unplug); unplugged = true; }
                    3 if pause < 1_600 => { core.handle(now, CameraInput::Plug); unplugged = false; }
                    _ => { now += Duration::from_millis(pause); core.handle_timeout(now); }
                }
                for output in drain(&mut core) {
                    match output {
                        CameraOutput::Open { attempt } => {
                            prop_assert_eq!(open, None);
                            prop_assert!(!unplugged);
                            open = Some(attempt);
                        }
                        CameraOutput::Close { attempt, .. } => {
                            prop_assert_eq!(open, Some(attempt));
                            open = None;
                        }
                        CameraOutput::Attach { attempt } => prop_assert_eq!(open, Some(attempt)),
                        CameraOutput::Changed => {}
                    }
                }
                prop_assert!(open.is_some() || !core.is_open());
                let waits = core.poll_timeout().is_some() || core.attempt() == 0 || core.signal().0.has_picture();
                prop_assert!(waits != unplugged || core.attempt() == 0);
            }
        }
    }
}
