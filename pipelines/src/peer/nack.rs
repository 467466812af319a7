//! Which lost packets to ask a publisher for again, and when (RFC 4585, section 6.2.1). Pure.
//!
//! A packet that was overtaken comes by itself: only what is still missing after [`REORDERING`] is asked for. Then the answer
//! needs its time; it is asked for again when one should have come, by what earlier ones took. Asking for everything every
//! 20 ms, as the stack's own generator does, made a client on a road with 60 ms of jitter send every packet twice.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets overtake one another by less than this where they do it often.
const REORDERING: Duration = Duration::from_millis(40);
/// Older than this a packet is of no use: a guest's pictures are held back for 400 ms.
const USEFUL: Duration = Duration::from_millis(450);
/// An answer is waited for at least and at most this long before it is asked for again.
const ANSWER: (Duration, Duration) = (Duration::from_millis(60), Duration::from_millis(250));
/// Most packets that are missed at a time; a longer gap is not filled, it wants a key frame.
const MOST: usize = 256;
/// A jump of more than this is a new stream.
const JUMP: i32 = 3000;

#[derive(Debug)]
struct Missing {
    sequence: u16,
    since: Instant,
    asked: Option<Instant>,
    times: u32,
}

/// What is missing of one stream. Feed it every packet.
#[derive(Debug)]
pub(super) struct NackPlan {
    newest: Option<u16>,
    missing: VecDeque<Missing>,
    /// What it takes until a packet that was asked for comes, smoothed.
    answer: Duration,
}

impl Default for NackPlan {
    fn default() -> Self {
        Self { newest: None, missing: VecDeque::new(), answer: Duration::from_millis(100) }
    }
}

impl NackPlan {
    /// One packet came.
    pub(super) fn handle_packet(&mut self, now: Instant, sequence: u16) {
        let Some(newest) = self.newest else {
            self.newest = Some(sequence);
            return;
        };
        let ahead = i32::from(sequence.wrapping_sub(newest) as i16);
        if ahead.abs() > JUMP || ahead > MOST as i32 {
            self.missing.clear();
            self.newest = Some(sequence);
        } else if ahead > 0 {
            for sequence in (1..ahead).map(|n| newest.wrapping_add(n as u16)) {
                self.missing.push_back(Missing { sequence, since: now, asked: None, times: 0 });
            }
            while self.missing.len() > MOST {
                self.missing.pop_front();
            }
            self.newest = Some(sequence);
        } else if let Some(place) = self.missing.iter().position(|m| m.sequence == sequence)
            && let Some(found) = self.missing.remove(place)
            && let (Some(asked), 1) = (found.asked, found.times)
        {
            // With more than one question it is not known which one was answered.
            let took = now.saturating_duration_since(asked).min(ANSWER.1);
            self.answer = (self.answer * 7 + took) / 8;
        }
    }

    /// The packets to ask for now, oldest first.
    pub(super) fn due(&mut self, now: Instant) -> Vec<u16> {
        let age = |since: Instant| now.saturating_duration_since(since);
        self.missing.retain(|missing| age(missing.since) < USEFUL);
        let again = (self.answer * 5 / 4).clamp(ANSWER.0, ANSWER.1);
        let mut due = Vec::new();
        for missing in &mut self.missing {
            let ask = match missing.asked {
                None => age(missing.since) >= REORDERING,
                Some(asked) => age(asked) >= again,
            };
            if ask {
                (missing.asked, missing.times) = (Some(now), missing.times + 1);
                due.push(missing.sequence);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_packet_that_was_only_overtaken_is_not_asked_for() {
        let (start, mut plan) = (Instant::now(), NackPlan::default());
        plan.handle_packet(start, 65_535);
        plan.handle_packet(at(start, 10), 1);
        assert!(plan.due(at(start, 30)).is_empty());
        plan.handle_packet(at(start, 45), 0);
        assert!(plan.due(at(start, 200)).is_empty());
    }

    #[test]
    fn a_lost_packet_is_asked_for_until_it_comes_or_is_of_no_use() {
        let (start, mut plan) = (Instant::now(), NackPlan::default());
        plan.handle_packet(start, 7);
        plan.handle_packet(start, 10);
        let asked: Vec<u64> = (0..60u64).map(|n| n * 10).filter(|ms| plan.due(at(start, *ms)).contains(&8)).collect();
        assert_eq!(asked, [40, 170, 300, 430]);
        assert!(plan.due(at(start, 5000)).is_empty());
    }

    #[test]
    fn a_quick_answer_teaches_to_ask_again_sooner() {
        let (start, mut plan) = (Instant::now(), NackPlan::default());
        plan.handle_packet(start, 0);
        for n in 1..40u64 {
            let now = at(start, n * 100);
            plan.handle_packet(now, 2 * n as u16);
            assert_eq!(plan.due(now + REORDERING), [2 * n as u16 - 1]);
            plan.handle_packet(now + REORDERING + Duration::from_millis(20), 2 * n as u16 - 1);
        }
        plan.handle_packet(at(start, 5000), 80);
        assert_eq!(plan.due(at(start, 5040)), [79]);
        assert!(plan.due(at(start, 5080)).is_empty());
        assert_eq!(plan.due(at(start, 5100)), [79]);
    }

    #[test]
    fn a_jump_or_a_long_gap_is_not_asked_for() {
        let (start, mut plan) = (Instant::now(), NackPlan::default());
        plan.handle_packet(start, 0);
        plan.handle_packet(start, 20_000);
        plan.handle_packet(start, 20_000 + MOST as u16 + 1);
        assert!(plan.due(at(start, 100)).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_comes_the_questions_stay_bounded(packets in prop::collection::vec((any::<u16>(), 0u64..50), 0..300)) {
            let (mut now, mut plan) = (Instant::now(), NackPlan::default());
            for (sequence, millis) in packets {
                now += Duration::from_millis(millis);
                plan.handle_packet(now, sequence);
                prop_assert!(plan.due(now).len() <= MOST);
            }
        }
    }
}
