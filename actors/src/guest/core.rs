//! What GuestIngest decides about its seats. Pure: the shell brings the time, fresh session ids and what was decoded.
//!
//! A seat is judged by decoded pictures alone: a guest whose packets arrive and whose pictures do not is as absent as one
//! that left. A guest that offers sound and nothing else is judged by decoded sound; "picture" below means that, too.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How patient a seat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatPolicy {
    /// Without a decoded picture for this long the seat may be taken over at once.
    pub dead_after: Duration,
    /// Without a decoded picture for this long the guest loses its seat.
    pub lost_after: Duration,
    /// A guest that has shown no picture at all for this long after admission loses its seat.
    pub joining_limit: Duration,
    /// Guests that may be joining at the same time; more are told to come back.
    pub half_open: usize,
}

impl Default for SeatPolicy {
    /// Three seconds: six times the longest gap of a healthy call that was seen (a lost keyframe, asked for again after one
    /// second). Thirty: RFC 7675 lets consent expire after as long. Twenty: ICE over TURN on a bad network.
    fn default() -> Self {
        Self {
            dead_after: Duration::from_secs(3),
            lost_after: Duration::from_secs(30),
            joining_limit: Duration::from_secs(20),
            half_open: 8,
        }
    }
}

/// Where a seat stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeatState {
    /// Nobody sits there.
    #[default]
    Free,
    /// Admitted, no picture decoded yet.
    Joining,
    /// Pictures are decoded, and the crew has not let the guest in yet.
    Waiting,
    /// Pictures are decoded.
    Live,
    /// Pictures were decoded, and are no more.
    Silent,
}

impl SeatState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Joining => "joining",
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Silent => "silent",
        }
    }
}

/// Why nobody is admitted, or nothing is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeatRefusal {
    /// There is no such seat.
    #[error("there is no seat {0:?}")]
    UnknownSeat(String),
    /// There is no such session, or no longer.
    #[error("there is no such session")]
    UnknownSession,
    /// Nobody sits there.
    #[error("nobody sits there")]
    Empty,
    /// The guest is in already.
    #[error("the guest has been let in; it can only be removed")]
    NotWaiting,
    /// Somebody sits there and is seen.
    #[error("the seat is taken")]
    Taken {
        /// When it may be worth another try.
        retry_after: Duration,
    },
    /// Too many guests are joining at once.
    #[error("too many guests are joining")]
    Busy {
        /// When it may be worth another try.
        retry_after: Duration,
    },
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The guest left.
    Left,
    /// Its peer connection was lost.
    Disconnected,
    /// Its peer connection or its pipeline failed.
    Failed,
    /// It never showed a picture.
    NeverSeen,
    /// It showed no picture for too long.
    Silent,
    /// Another publisher took the dead seat.
    TakenOver,
    /// The crew did not let it in.
    Refused,
    /// The crew put it out.
    Removed,
}

impl Farewell {
    /// The words on the slate of the seat.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "LEFT",
            Self::Disconnected => "DISCONNECTED",
            Self::Failed => "CONNECTION FAILED",
            Self::NeverSeen => "NO PICTURE",
            Self::Silent => "NO PICTURE",
            Self::TakenOver => "TAKEN OVER",
            Self::Refused => "NOT LET IN",
            Self::Removed => "REMOVED",
        }
    }
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestOutput {
    /// End this session's peer and pipeline.
    End {
        /// The seat it had.
        seat: String,
        /// The session.
        session: String,
        /// Why.
        why: Farewell,
    },
    /// The seat's state changed.
    Changed {
        /// The seat.
        seat: String,
        /// Where it stands now.
        state: SeatState,
    },
}

#[derive(Debug, Clone)]
struct Sitting {
    session: String,
    /// In the waiting room: pictures come and nobody but the crew sees them.
    waiting: bool,
    admitted: Instant,
    frames: u64,
    last_frame: Option<Instant>,
    state: SeatState,
}

/// The seats and who sits there.
#[derive(Debug)]
pub struct GuestCore {
    policy: SeatPolicy,
    seats: BTreeMap<String, Option<Sitting>>,
    outputs: VecDeque<GuestOutput>,
}

impl GuestCore {
    /// All seats free.
    pub fn new(policy: SeatPolicy, seats: impl IntoIterator<Item = String>) -> Self {
        Self { policy, seats: seats.into_iter().map(|seat| (seat, None)).collect(), outputs: VecDeque::new() }
    }

    /// Whether a publisher would be admitted now.
    ///
    /// # Errors
    /// `UnknownSeat`, `Taken`, `Busy`.
    pub fn may_admit(&self, now: Instant, seat: &str) -> Result<(), SeatRefusal> {
        let sitting = self.seats.get(seat).ok_or_else(|| SeatRefusal::UnknownSeat(seat.to_owned()))?;
        if let Some(sitting) = sitting {
            let seen = sitting.last_frame.unwrap_or(sitting.admitted);
            let left = self.policy.dead_after.saturating_sub(now.saturating_duration_since(seen));
            if !left.is_zero() {
                return Err(SeatRefusal::Taken { retry_after: left });
            }
        }
        let joining = |(name, sitting): &(&String, &Option<Sitting>)| {
            name.as_str() != seat && sitting.as_ref().is_some_and(|sitting| sitting.state == SeatState::Joining)
        };
        if self.seats.iter().filter(joining).count() >= self.policy.half_open {
            return Err(SeatRefusal::Busy { retry_after: self.policy.dead_after });
        }
        Ok(())
    }

    /// Seats a publisher under a fresh session id, in the waiting room or past it; a dead incumbent has to go.
    ///
    /// # Errors
    /// As [`Self::may_admit`]; nothing changed then.
    pub fn handle_admit(&mut self, now: Instant, seat: &str, session: &str, waiting: bool) -> Result<(), SeatRefusal> {
        self.may_admit(now, seat)?;
        self.vacate(seat, Farewell::TakenOver);
        let sitting = Sitting {
            session: session.to_owned(),
            waiting,
            admitted: now,
            frames: 0,
            last_frame: None,
            state: SeatState::Joining,
        };
        self.seats.insert(seat.to_owned(), Some(sitting));
        self.changed(seat, SeatState::Joining);
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// `UnknownSession` when it is over already.
    pub fn handle_end(&mut self, session: &str, why: Farewell) -> Result<(), SeatRefusal> {
        let seat = self.seat_of(session).ok_or(SeatRefusal::UnknownSession)?.to_owned();
        self.vacate(&seat, why);
        self.changed(&seat, SeatState::Free);
        Ok(())
    }

    /// The crew lets the guest of a seat in; nothing changes for one who is in.
    ///
    /// # Errors
    /// `UnknownSeat`, `Empty`.
    pub fn handle_let_in(&mut self, seat: &str) -> Result<(), SeatRefusal> {
        let sitting = self.seats.get_mut(seat).ok_or_else(|| SeatRefusal::UnknownSeat(seat.to_owned()))?;
        let sitting = sitting.as_mut().ok_or(SeatRefusal::Empty)?;
        sitting.waiting = false;
        if sitting.state == SeatState::Waiting {
            sitting.state = SeatState::Live;
        }
        let state = sitting.state;
        self.changed(seat, state);
        Ok(())
    }

    /// Takes note of how many pictures a session has decoded so far, and when the last.
    pub fn handle_decoded(&mut self, now: Instant, session: &str, frames: u64, last_frame: Option<Instant>) {
        let Some(seat) = self.seat_of(session).map(str::to_owned) else { return };
        let Some(Some(sitting)) = self.seats.get_mut(&seat) else { return };
        if frames > sitting.frames {
            sitting.frames = frames;
            sitting.last_frame = last_frame.or(Some(now));
        }
        self.handle_timeout(now);
    }

    /// Judges every seat by its last decoded picture.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut verdicts = Vec::new();
        for (seat, sitting) in &mut self.seats {
            let Some(sitting) = sitting else { continue };
            let (since, patience, why) = match sitting.last_frame {
                Some(last) => (last, self.policy.lost_after, Farewell::Silent),
                None => (sitting.admitted, self.policy.joining_limit, Farewell::NeverSeen),
            };
            let quiet = now.saturating_duration_since(since);
            if quiet >= patience {
                verdicts.push((seat.clone(), Err(why)));
                continue;
            }
            let state = match sitting.last_frame {
                None => SeatState::Joining,
                Some(_) if quiet >= self.policy.dead_after => SeatState::Silent,
                Some(_) if sitting.waiting => SeatState::Waiting,
                Some(_) => SeatState::Live,
            };
            if state != sitting.state {
                sitting.state = state;
                verdicts.push((seat.clone(), Ok(state)));
            }
        }
        for (seat, verdict) in verdicts {
            match verdict {
                Ok(state) => self.changed(&seat, state),
                Err(why) => {
                    self.vacate(&seat, why);
                    self.changed(&seat, SeatState::Free);
                }
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |sitting: &Sitting| match (sitting.last_frame, sitting.state) {
            (None, _) => sitting.admitted + self.policy.joining_limit,
            (Some(last), SeatState::Silent) => last + self.policy.lost_after,
            (Some(last), _) => last + self.policy.dead_after,
        };
        self.seats.values().flatten().map(due).min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<GuestOutput> {
        self.outputs.pop_front()
    }

    /// Where a seat stands; `None` when there is no such seat.
    pub fn state(&self, seat: &str) -> Option<SeatState> {
        self.seats.get(seat).map(|sitting| sitting.as_ref().map_or(SeatState::Free, |sitting| sitting.state))
    }

    /// The session that has the seat.
    pub fn session(&self, seat: &str) -> Option<&str> {
        self.seats.get(seat)?.as_ref().map(|sitting| sitting.session.as_str())
    }

    /// Whether the guest of a seat waits to be let in.
    pub fn is_waiting(&self, seat: &str) -> bool {
        self.seats.get(seat).and_then(Option::as_ref).is_some_and(|sitting| sitting.waiting)
    }

    /// The seat that a session has.
    pub fn seat_of(&self, session: &str) -> Option<&str> {
        let has = |sitting: &Option<Sitting>| sitting.as_ref().is_some_and(|sitting| sitting.session == session);
        self.seats.iter().find(|(_, sitting)| has(sitting)).map(|(seat, _)| seat.as_str())
    }

    fn vacate(&mut self, seat: &str, why: Farewell) {
        let Some(sitting) = self.seats.get_mut(seat).and_then(Option::take) else { return };
        self.outputs.push_back(GuestOutput::End { seat: seat.to_owned(), session: sitting.session, why });
    }

    fn changed(&mut self, seat: &str, state: SeatState) {
        self.outputs.push_back(GuestOutput::Changed { seat: seat.to_owned(), state });
    }
}

#[cfg(test)]
mod tests;
