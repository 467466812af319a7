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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeatState {
    /// Nobody sits there.
    Free,
    /// Admitted, no picture decoded yet.
    Joining,
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

    /// Seats a publisher under a fresh session id; a dead incumbent has to go.
    ///
    /// # Errors
    /// As [`Self::may_admit`]; nothing changed then.
    pub fn handle_admit(&mut self, now: Instant, seat: &str, session: &str) -> Result<(), SeatRefusal> {
        self.may_admit(now, seat)?;
        self.vacate(seat, Farewell::TakenOver);
        let sitting = Sitting {
            session: session.to_owned(),
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn core(seats: &[&str]) -> GuestCore {
        GuestCore::new(SeatPolicy::default(), seats.iter().map(|seat| (*seat).to_owned()))
    }

    fn drain(core: &mut GuestCore) -> Vec<GuestOutput> {
        std::iter::from_fn(|| core.poll_output()).collect()
    }

    fn ended(session: &str, why: Farewell) -> GuestOutput {
        GuestOutput::End { seat: "g1".into(), session: session.into(), why }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_seat_goes_from_free_over_joining_to_live() {
        let (now, mut core) = (Instant::now(), core(&["g1"]));
        assert_eq!(core.state("g1"), Some(SeatState::Free));
        core.handle_admit(now, "g1", "s1").unwrap();
        assert_eq!(core.state("g1"), Some(SeatState::Joining));
        core.handle_decoded(now + secs(1), "s1", 1, Some(now + secs(1)));
        assert_eq!(core.state("g1"), Some(SeatState::Live));
    }

    #[test]
    fn a_live_seat_answers_taken_and_says_when_to_come_back() {
        let (now, mut core) = (Instant::now(), core(&["g1"]));
        core.handle_admit(now, "g1", "s1").unwrap();
        core.handle_decoded(now, "s1", 30, Some(now));
        let refused = core.handle_admit(now + secs(1), "g1", "s2");
        assert_eq!(refused, Err(SeatRefusal::Taken { retry_after: secs(2) }));
        assert_eq!(core.session("g1"), Some("s1"));
    }

    #[test]
    fn a_dead_seat_is_taken_over_at_once() {
        let (now, mut core) = (Instant::now(), core(&["g1"]));
        core.handle_admit(now, "g1", "s1").unwrap();
        core.handle_decoded(now, "s1", 30, Some(now));
        drain(&mut core);
        core.handle_admit(now + secs(3), "g1", "s2").unwrap();
        assert_eq!(drain(&mut core)[0], ended("s1", Farewell::TakenOver));
        assert_eq!(core.session("g1"), Some("s2"));
    }

    #[test]
    fn a_silent_guest_loses_its_seat_after_thirty_seconds() {
        let (now, mut core) = (Instant::now(), core(&["g1"]));
        core.handle_admit(now, "g1", "s1").unwrap();
        core.handle_decoded(now, "s1", 30, Some(now));
        core.handle_timeout(core.poll_timeout().unwrap());
        assert_eq!(core.state("g1"), Some(SeatState::Silent));
        // Its packets still arrive and decode to nothing: that does not count.
        core.handle_decoded(now + secs(20), "s1", 30, Some(now));
        assert_eq!(core.poll_timeout(), Some(now + secs(30)));
        drain(&mut core);
        core.handle_timeout(now + secs(30));
        assert_eq!(drain(&mut core)[0], ended("s1", Farewell::Silent));
        assert_eq!(core.state("g1"), Some(SeatState::Free));
    }

    #[test]
    fn a_guest_that_never_shows_a_picture_loses_its_seat() {
        let (now, mut core) = (Instant::now(), core(&["g1"]));
        core.handle_admit(now, "g1", "s1").unwrap();
        drain(&mut core);
        core.handle_timeout(now + secs(20));
        assert_eq!(drain(&mut core)[0], ended("s1", Farewell::NeverSeen));
    }

    #[test]
    fn the_second_farewell_finds_no_session() {
        let (now, mut core) = (Instant::now(), core(&["g1"]));
        core.handle_admit(now, "g1", "s1").unwrap();
        assert_eq!(core.handle_end("s1", Farewell::Left), Ok(()));
        assert_eq!(core.handle_end("s1", Farewell::Left), Err(SeatRefusal::UnknownSession));
    }

    #[test]
    fn only_so_many_guests_join_at_once() {
        let now = Instant::now();
        let policy = SeatPolicy { half_open: 1, ..SeatPolicy::default() };
        let mut core = GuestCore::new(policy, ["g1".to_owned(), "g2".to_owned()]);
        core.handle_admit(now, "g1", "s1").unwrap();
        assert!(matches!(core.handle_admit(now, "g2", "s2"), Err(SeatRefusal::Busy { .. })));
        core.handle_decoded(now, "s1", 1, Some(now));
        core.handle_admit(now, "g2", "s2").unwrap();
    }

    proptest! {
        /// Every session that was admitted ends exactly once or still has its seat, in any order of events; no guest that
        /// decoded a picture within three seconds ever loses its seat to another or to a clock.
        #[test]
        fn sessions_end_exactly_once(events in prop::collection::vec((0u8..5, 0usize..3, 0u64..12_000), 1..150)) {
            let seats = ["g1", "g2", "g3"];
            let (mut now, mut core) = (Instant::now(), core(&seats));
            let mut open: BTreeMap<String, Option<Instant>> = BTreeMap::new();
            let (mut next, mut frames) = (0, 0);
            for (event, which, pause) in events {
                let seat = seats[which];
                let sitting = core.session(seat).map(str::to_owned);
                let mut left = None;
                match event {
                    0 => {
                        next += 1;
                        let session = format!("s{next}");
                        if core.handle_admit(now, seat, &session).is_ok() {
                            open.insert(session, None);
                        }
                    }
                    1 => if let Some(session) = sitting {
                        frames += 1;
                        open.insert(session.clone(), Some(now));
                        core.handle_decoded(now, &session, frames, Some(now));
                    }
                    2 => if let Some(session) = sitting {
                        core.handle_end(&session, Farewell::Left).unwrap();
                        left = Some(session);
                    }
                    _ => {
                        now += Duration::from_millis(pause);
                        core.handle_timeout(now);
                    }
                }
                for output in drain(&mut core) {
                    if let GuestOutput::End { session, .. } = output {
                        let last = open.remove(&session);
                        prop_assert!(last.is_some(), "{session} ended twice");
                        if left.as_deref() != Some(session.as_str()) && let Some(Some(last)) = last {
                            prop_assert!(now.duration_since(last) >= secs(3));
                        }
                    }
                }
                for session in open.keys() {
                    prop_assert!(core.seat_of(session).is_some());
                }
                prop_assert!(core.poll_timeout().is_none_or(|due| due > now));
            }
        }
    }
}
