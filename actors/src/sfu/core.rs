//! What SfuLink decides: the calls of guests who come by the SFU, from their offer to the last closed track. Pure: the shell brings
//! the time, fresh ids, the SFU's words and what became of the seat; requests and effects come out.
//!
//! A call has two sides. The guest publishes into a session of its own; the box pulls by another one, whose offer the seat
//! answers as if it were a guest's. One pulling session a guest: what goes wrong with it is nobody else's trouble.

mod call;
mod lane;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use self::call::Call;
use super::wire::{Ask, Failure, LocalTrack, Reply};
use crate::guest::core::SeatState;

/// Longest that a guest waits for its answer; OBS gives up after 8 s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(7);
/// From the answer to a seat; as long as a seat waits for a first picture.
pub const SEATED_WITHIN: Duration = Duration::from_secs(20);
/// Calls of one seat that may be closing at the same time: joining and leaving as fast as one can shall not pile up sessions.
const CLOSING_MOST: usize = 4;
/// When it may be worth asking again for a seat that is taken.
const TAKEN_FOR: Duration = Duration::from_secs(3);

/// Why a guest does not come in by the SFU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Somebody has that seat.
    #[error("the seat is taken")]
    Taken,
    /// Earlier calls of the seat are still being closed.
    #[error("too many calls of this seat are being closed")]
    Closing,
    /// There is no such call, or no longer.
    #[error("there is no such session")]
    Unknown,
    /// No connection.
    #[error("the SFU cannot be reached")]
    Unreachable,
    /// No answer in time.
    #[error("the SFU did not answer in time")]
    Late,
    /// The secret is not there.
    #[error("the secret of the SFU's app cannot be read")]
    NoSecret,
    /// The connection broke, or stood still, with a request under way.
    #[error("the SFU's answer was lost")]
    Lost,
    /// App id or secret are wrong.
    #[error("the SFU does not accept this box's app id or secret (status {0})")]
    Denied(u16),
    /// Too many requests, or a fault of its own.
    #[error("the SFU is out of order or busy (status {0})")]
    Down(u16),
    /// It says no.
    #[error("the SFU refused {0}: {1}")]
    Refused(&'static str, String),
    /// It says something else than its API.
    #[error("the SFU's answer cannot be used: {0}")]
    Unreadable(&'static str),
    /// Its session ended before its time.
    #[error("the SFU has dropped the session")]
    Gone,
    /// The guest has its answer, and its media never came.
    #[error("no picture or sound of the guest reached the SFU")]
    NoMedia,
    /// The box could not take what it pulled.
    #[error("the seat did not take the guest: {0}")]
    Seat(String),
    /// The guest left before it was in.
    #[error("the guest left")]
    Left,
}

impl CallError {
    /// The HTTP status that says the same (RFC 9110, section 15).
    pub fn status(&self) -> u16 {
        match self {
            Self::Taken | Self::Left => 409,
            Self::Unknown => 404,
            Self::Closing | Self::Unreachable | Self::Late | Self::Lost | Self::Down(_) => 503,
            Self::NoSecret
            | Self::Denied(_)
            | Self::Refused(..)
            | Self::Unreadable(_)
            | Self::Gone
            | Self::NoMedia
            | Self::Seat(_) => 502,
        }
    }

    /// When another try may be worth it, for `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Taken => Some(TAKEN_FOR),
            other if other.status() == 503 => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    fn of(ask: &Ask, failure: Failure) -> Self {
        match failure {
            Failure::NoSecret => Self::NoSecret,
            Failure::Unreachable => Self::Unreachable,
            Failure::Lost => Self::Lost,
            Failure::NotConnected => Self::Late,
            Failure::Denied(status) => Self::Denied(status),
            Failure::Overlap => Self::Refused(ask.name(), "it is busy with another change".into()),
            Failure::Gone => Self::Gone,
            Failure::Busy(_) => Self::Down(429),
            Failure::Down(status) => Self::Down(status),
            Failure::Refused(code) => Self::Refused(ask.name(), code),
            Failure::Unreadable(what) => Self::Unreadable(what),
        }
    }
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// The guest waits for the SFU's answer.
    Publishing,
    /// The guest connects to the SFU.
    Connecting,
    /// The box fetches its tracks.
    Pulling,
    /// It has its seat.
    Joined,
    /// It is over, and what it opened is being closed.
    Closing,
    /// It is over.
    Ended,
}

/// A call as the crew and its guest see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallReport {
    /// The seat.
    pub guest: String,
    /// Names the call.
    pub session: String,
    /// Where it stands.
    pub state: CallState,
    /// Why it is over, if it did not just end.
    pub reason: Option<String>,
}

/// What the shell has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this; its result is wanted under this number.
    Send(u64, Ask),
    /// Answer the guest.
    Answered {
        /// Which call.
        call: String,
        /// The SFU's answer, letter by letter.
        answer: String,
    },
    /// Refuse the guest.
    Refused {
        /// Which call.
        call: String,
        /// Why.
        why: CallError,
    },
    /// Give the seat this offer, and say what it answers.
    Seat {
        /// Which call.
        call: String,
        /// The SFU's offer.
        offer: String,
    },
    /// End the seat's session.
    Unseat {
        /// The call that had it.
        call: String,
        /// Which seat.
        seat: String,
        /// The seat's session.
        session: String,
    },
    /// A call is over, and everything that it opened is closed or given up.
    Over {
        /// Which call.
        call: String,
        /// The seat it was for.
        seat: String,
        /// Why, if it did not just end.
        why: Option<CallError>,
    },
}

/// All calls.
#[derive(Debug, Default)]
pub struct SfuCore {
    calls: BTreeMap<String, Call>,
    /// How the last call of a seat went, once it is over.
    ended: BTreeMap<String, CallReport>,
    requests: u64,
    outputs: VecDeque<Output>,
}

impl SfuCore {
    /// Begins a call: `tracks` name the sections of `offer`, `occupied` is what its seat says of itself.
    ///
    /// # Errors
    /// `Taken`, `Closing`; nothing changed then.
    pub fn handle_publish(
        &mut self,
        now: Instant,
        (seat, call): (&str, &str),
        offer: String,
        tracks: Vec<LocalTrack>,
        occupied: SeatState,
    ) -> Result<(), CallError> {
        let incumbent = self.calls.values().find(|call| call.seat == seat && !call.is_closing());
        let taken = match (incumbent, occupied) {
            (None, SeatState::Free | SeatState::Silent) => false,
            (None, SeatState::Joining | SeatState::Waiting | SeatState::Live) => true,
            // Seen once and no more: whoever comes takes over.
            (Some(call), state) => !(call.is_joined() && matches!(state, SeatState::Silent | SeatState::Free)),
        };
        if taken {
            return Err(CallError::Taken);
        }
        if self.calls.values().filter(|call| call.seat == seat && call.is_closing()).count() >= CLOSING_MOST {
            return Err(CallError::Closing);
        }
        for call in self.calls.values_mut().filter(|call| call.seat == seat) {
            call.end(now, None, &mut self.outputs);
        }
        self.ended.remove(seat);
        self.calls.insert(call.to_owned(), Call::new(now, call, seat, with_line_end(offer), tracks));
        self.settle(now);
        Ok(())
    }

    /// Ends a call of a seat: the named one, or whichever there is.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn handle_leave(&mut self, now: Instant, seat: &str, call: Option<&str>) -> Result<(), CallError> {
        let wanted = |one: &&mut Call| one.seat == seat && !one.is_closing() && call.is_none_or(|call| one.id == call);
        let call = self.calls.values_mut().find(wanted).ok_or(CallError::Unknown)?;
        call.end(now, None, &mut self.outputs);
        self.settle(now);
        Ok(())
    }

    /// What came of a request.
    pub fn handle_reply(&mut self, now: Instant, request: u64, result: Result<Reply, Failure>) {
        for call in self.calls.values_mut() {
            if call.handle_reply(now, request, &result, &mut self.outputs) {
                break;
            }
        }
        self.settle(now);
    }

    /// What the seat said to the offer: its session and its answer, or why not.
    pub fn handle_seated(&mut self, now: Instant, call: &str, result: Result<(String, String), String>) {
        if let Some(call) = self.calls.get_mut(call) {
            call.handle_seated(now, result, &mut self.outputs);
        }
        self.settle(now);
    }

    /// The seats' sessions that calls hold.
    pub fn seated(&self) -> Vec<String> {
        self.calls.values().filter_map(Call::seat_session).map(str::to_owned).collect()
    }

    /// One of [`Self::seated`] is over: its guest was removed, lost, or taken over.
    pub fn handle_unseated(&mut self, now: Instant, session: &str) {
        for call in self.calls.values_mut().filter(|call| call.seat_session() == Some(session)) {
            call.handle_unseated(now);
        }
        self.settle(now);
    }

    /// Something may be due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.calls.values().filter_map(Call::poll_timeout).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// All calls, those that are over apart.
    pub fn reports(&self) -> Vec<CallReport> {
        self.calls.values().map(Call::report).collect()
    }

    /// The call of a seat: the one that runs, or how the last one ended.
    pub fn report(&self, seat: &str) -> Option<CallReport> {
        let of_seat = || self.calls.values().filter(|call| call.seat == seat);
        let call = of_seat().find(|call| !call.is_closing()).or_else(|| of_seat().next());
        call.map(Call::report).or_else(|| self.ended.get(seat).cloned())
    }

    fn settle(&mut self, now: Instant) {
        let mut over = Vec::new();
        for call in self.calls.values_mut() {
            call.settle(now, &mut self.outputs);
            while let Some((id, ask)) = call.poll_send(now, &mut self.requests) {
                self.outputs.push_back(Output::Send(id, ask));
            }
            if call.is_over(now) {
                over.push(call.id.clone());
            }
        }
        for call in over.into_iter().filter_map(|id| self.calls.remove(&id)) {
            let report = CallReport { state: CallState::Ended, ..call.report() };
            let why = call.why().cloned();
            self.ended.insert(call.seat.clone(), report);
            self.outputs.push_back(Output::Over { call: call.id, seat: call.seat, why });
        }
    }
}

/// The offer as it came, but for the end of its last line: without it the SFU takes none of it.
fn with_line_end(mut offer: String) -> String {
    if !offer.ends_with('\n') {
        offer.push_str("\r\n");
    }
    offer
}
