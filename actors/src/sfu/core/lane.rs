//! One session's requests, one after the other: a change that overtakes another one is answered 406, so none does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::wire::{Ask, Failure, Reply};

/// First pause before a request is sent again; doubled each time. Far from the limit of 50 requests a second.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest such pause.
const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// How often one request is sent at most. A session that is not connected yet is waited for beyond that.
pub const ATTEMPTS: u32 = 5;

/// The request that is being carried out.
#[derive(Debug)]
struct Flight {
    ask: Ask,
    attempts: u32,
    /// An earlier attempt may have been carried out.
    doubtful: bool,
    stand: Stand,
}

#[derive(Debug)]
enum Stand {
    Sent(u64),
    Resting(Instant),
}

impl Flight {
    fn rests_until(&self) -> Option<Instant> {
        match self.stand {
            Stand::Resting(until) => Some(until),
            Stand::Sent(_) => None,
        }
    }
}

/// A session and what is asked of it.
#[derive(Debug, Default)]
pub struct Lane {
    /// Its id, once there is one.
    pub session: Option<String>,
    /// Sections that have to be closed at the end; noted before anything about them is judged.
    pub mids: Vec<String>,
    waiting: VecDeque<Ask>,
    flight: Option<Flight>,
    /// It may have tracks that nobody told us of.
    unsure: bool,
    retired: bool,
}

impl Lane {
    /// Asks something, after all that was asked before.
    pub fn ask(&mut self, ask: Ask) {
        self.waiting.push_back(ask);
    }

    /// The request to send now, if any.
    pub fn poll(&mut self, now: Instant, next: &mut u64) -> Option<(u64, Ask)> {
        if self.flight.is_none() {
            let ask = self.waiting.pop_front().or_else(|| self.last_wish())?;
            self.flight = Some(Flight { ask, attempts: 0, doubtful: false, stand: Stand::Resting(now) });
        }
        let flight = self.flight.as_mut().filter(|flight| flight.rests_until().is_some_and(|until| until <= now))?;
        *next += 1;
        flight.attempts += 1;
        flight.stand = Stand::Sent(*next);
        // Whatever comes of it, the box chose these itself.
        if let Ask::Push { tracks, .. } = &flight.ask {
            self.mids = tracks.iter().map(|track| track.mid.clone()).collect();
        }
        Some((*next, flight.ask.clone()))
    }

    /// What came of a request: `None` when it is not of this lane, or is going to be sent again.
    pub fn handle(
        &mut self,
        now: Instant,
        id: u64,
        mut result: Result<Reply, Failure>,
    ) -> Option<(Ask, Result<Reply, Failure>)> {
        let flight = self.flight.as_mut().filter(|flight| matches!(flight.stand, Stand::Sent(sent) if sent == id))?;
        let is_answer = matches!(flight.ask, Ask::Answer { .. });
        let ends_it = matches!(flight.ask, Ask::Close { .. } | Ask::Look { .. });
        if let Err(failure) = &result {
            let pause = again(&flight.ask, failure, flight.attempts).filter(|_| ends_it || !self.retired);
            if let Some(pause) = pause {
                flight.doubtful |= *failure == Failure::Lost;
                flight.stand = Stand::Resting(now + pause);
                return None;
            }
            // An answer that was taken the first time is not wanted a second time.
            if is_answer && flight.doubtful && matches!(failure, Failure::Refused(_) | Failure::Overlap) {
                result = Ok(Reply::Done);
            }
        }
        let ask = self.flight.take()?.ask;
        self.note(&ask, &result);
        Some((ask, result))
    }

    fn note(&mut self, ask: &Ask, result: &Result<Reply, Failure>) {
        match (ask, result) {
            (Ask::NewSession, Ok(Reply::Session(id))) => self.session = Some(id.clone()),
            (Ask::Pull { .. } | Ask::Look { .. }, Ok(Reply::Tracks { tracks, .. })) => {
                for mid in tracks.iter().filter(|track| track.fault.is_none()).filter_map(|track| track.mid.clone()) {
                    if !self.mids.contains(&mid) {
                        self.mids.push(mid);
                    }
                }
                self.unsure = false;
            }
            (Ask::Pull { .. }, Err(Failure::Lost)) => self.unsure = true,
            (Ask::Look { .. }, Err(_)) => self.unsure = false,
            // Closed, or given up: media that nobody takes are collected after half a minute.
            (Ask::Close { .. }, _) => self.mids.clear(),
            (_, Err(Failure::Gone)) => {
                self.mids.clear();
                self.session = None;
            }
            _ => {}
        }
    }

    /// Nothing more is wanted of it but its end: what waits is dropped, what is under way is waited for, its tracks are closed.
    pub fn retire(&mut self) {
        self.retired = true;
        self.waiting.clear();
        let rests = |flight: &Flight| flight.rests_until().is_some() && !matches!(flight.ask, Ask::Close { .. });
        if self.flight.as_ref().is_some_and(rests) {
            self.flight = None;
        }
    }

    fn last_wish(&self) -> Option<Ask> {
        let session = self.session.clone().filter(|_| self.retired)?;
        if self.unsure && self.mids.is_empty() {
            return Some(Ask::Look { session });
        }
        (!self.mids.is_empty()).then(|| Ask::Close { session, mids: self.mids.clone() })
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.flight.is_none() && self.waiting.is_empty() && self.last_wish().is_none()
    }

    /// When [`Self::poll`] has something to send that it has not now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flight.as_ref()?.rests_until()
    }
}

/// The pause before the same request is sent again; `None` when it must not be, or was often enough.
fn again(ask: &Ask, failure: &Failure, attempts: u32) -> Option<Duration> {
    let pause = BACKOFF_FIRST.saturating_mul(1 << (attempts - 1).min(8)).min(BACKOFF_MAX);
    match failure {
        Failure::NotConnected => Some(pause.min(Duration::from_secs(1))),
        _ if attempts >= ATTEMPTS => None,
        Failure::Unreachable | Failure::Down(_) | Failure::Overlap => Some(pause),
        Failure::Busy(wait) => Some(wait.unwrap_or_default().max(pause)),
        // Whether it was carried out is not known. Said twice these are the same; a session or a track would be two.
        Failure::Lost => matches!(ask, Ask::Answer { .. } | Ask::Close { .. } | Ask::Look { .. }).then_some(pause),
        Failure::NoSecret | Failure::Denied(_) | Failure::Gone | Failure::Refused(_) | Failure::Unreadable(_) => None,
    }
}
