//! What one local socket has to say to its TURN server, and what it has asked: a bounded queue that knows TURN. Pure.
//!
//! The local side speaks as if over UDP: it repeats requests, and nobody stops it when the stream stalls. On a stream a repeated
//! request is waste, so it is left out while the first one is unanswered; and when the stream stalls the oldest message goes,
//! because a live picture that is late is worth nothing. A stream that is opened anew knows no allocation: all but requests would
//! be thrown away at its other end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::frame::{Role, TransactionId, role};

/// Messages that wait at most: a third of a second of the programme at 2.5 Mbit/s.
pub const MOST_WAITING: usize = 128;
/// Their bytes at most.
pub const MOST_BYTES: usize = 256 * 1024;
/// A stream that answers nothing for this long after a request is lost. A client by UDP repeats for 7.9 s (RFC 8489, 6.2.1).
pub const ANSWER_WITHIN: Duration = Duration::from_secs(8);

const MOST_ASKED: usize = 32;

/// The conversation of one local socket.
#[derive(Debug, Default)]
pub struct Talk {
    waiting: VecDeque<(Bytes, Role)>,
    bytes: usize,
    asked: VecDeque<(TransactionId, Instant)>,
    heard: Option<Instant>,
    released: Option<TransactionId>,
}

impl Talk {
    /// Takes a message of the local socket's; answers how many older ones had to go for it.
    pub fn say(&mut self, message: Bytes) -> u64 {
        let mut dropped = 0;
        while self.waiting.len() >= MOST_WAITING || (self.bytes + message.len() > MOST_BYTES && self.bytes > 0) {
            self.pop();
            dropped += 1;
        }
        self.bytes += message.len();
        let role = role(&message);
        self.waiting.push_back((message, role));
        dropped
    }

    /// Whether something waits that is worth opening a stream for.
    pub fn wants_stream(&self) -> bool {
        self.waiting.iter().any(|(_, role)| matches!(role, Role::Request { .. }))
    }

    /// A stream begins, the first or another one; answers how many messages it has no use for.
    pub fn stream_opened(&mut self) -> u64 {
        let before = self.waiting.len();
        self.waiting.retain(|(_, role)| matches!(role, Role::Request { .. }));
        self.bytes = self.waiting.iter().map(|(message, _)| message.len()).sum();
        self.asked.clear();
        (self.heard, self.released) = (None, None);
        (before - self.waiting.len()) as u64
    }

    /// The next message for the stream, without requests that are on their way already.
    pub fn next_message(&mut self, now: Instant) -> Option<Bytes> {
        while let Some((message, role)) = self.pop() {
            let Role::Request { id, release } = role else { return Some(message) };
            if self.asked.iter().any(|(asked, _)| *asked == id) {
                continue;
            }
            if self.asked.len() == MOST_ASKED {
                self.asked.pop_front();
            }
            self.asked.push_back((id, now));
            if release {
                self.released = Some(id);
            }
            return Some(message);
        }
        None
    }

    /// Notes what the stream said. True when the allocation was given back by that: nothing follows on this stream.
    pub fn hear(&mut self, now: Instant, message: &[u8]) -> bool {
        self.heard = Some(now);
        let Role::Answer(id) = role(message) else { return false };
        self.asked.retain(|(asked, _)| *asked != id);
        self.released == Some(id)
    }

    /// Whether the stream has said anything yet.
    pub fn has_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Whether the stream is silent for longer than [`ANSWER_WITHIN`] after a request.
    pub fn is_unanswered(&self, now: Instant) -> bool {
        self.asked.front().is_some_and(|(_, at)| {
            now.saturating_duration_since(*at) >= ANSWER_WITHIN && self.heard.is_none_or(|heard| heard < *at)
        })
    }

    fn pop(&mut self) -> Option<(Bytes, Role)> {
        let (message, role) = self.waiting.pop_front()?;
        self.bytes -= message.len();
        Some((message, role))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::tests::{channel, stun};
    use super::*;

    const ALLOCATE: u16 = 0x0003;
    const ALLOCATED: u16 = 0x0103;
    const NO_LIFETIME: [u8; 8] = [0, 0x0D, 0, 4, 0, 0, 0, 0];

    #[test]
    fn a_repeated_request_is_sent_once_and_again_after_its_answer_or_on_another_stream() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        let ask = stun(ALLOCATE, 1, &[]);
        talk.say(ask.clone());
        talk.say(ask.clone());
        assert_eq!(talk.next_message(now), Some(ask.clone()));
        assert_eq!(talk.next_message(now), None);
        talk.say(ask.clone());
        assert_eq!(talk.next_message(now), None);
        talk.stream_opened();
        talk.say(ask.clone());
        assert_eq!(talk.next_message(now), Some(ask.clone()));
        assert!(!talk.hear(now, &stun(ALLOCATED, 1, &[])));
        talk.say(ask.clone());
        assert_eq!(talk.next_message(now), Some(ask));
    }

    #[test]
    fn a_stream_is_opened_for_a_request_and_gets_nothing_that_needs_an_allocation() {
        let mut talk = Talk::default();
        talk.say(channel(0x4000, b"late"));
        talk.say(stun(0x0016, 1, &[]));
        assert!(!talk.wants_stream());
        talk.say(stun(ALLOCATE, 2, &[]));
        assert!(talk.wants_stream());
        assert_eq!(talk.stream_opened(), 2);
        assert_eq!(talk.next_message(Instant::now()), Some(stun(ALLOCATE, 2, &[])));
        assert_eq!(talk.next_message(Instant::now()), None);
    }

    #[test]
    fn the_answer_to_a_release_ends_the_conversation() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        talk.say(stun(0x0004, 5, &NO_LIFETIME));
        talk.next_message(now);
        assert!(!talk.hear(now, &stun(0x0104, 4, &[])));
        assert!(talk.hear(now, &stun(0x0104, 5, &[])));
    }

    #[test]
    fn a_stream_that_answers_nothing_is_noticed_and_one_that_is_quiet_unasked_is_not() {
        let (mut talk, begin) = (Talk::default(), Instant::now());
        talk.say(channel(0x4000, b"media"));
        talk.next_message(begin);
        assert!(!talk.is_unanswered(begin + 10 * ANSWER_WITHIN));
        talk.say(stun(ALLOCATE, 1, &[]));
        talk.next_message(begin);
        assert!(!talk.is_unanswered(begin + ANSWER_WITHIN / 2));
        assert!(talk.is_unanswered(begin + ANSWER_WITHIN));
        // Whatever it says, it lives.
        talk.hear(begin + ANSWER_WITHIN / 2, &channel(0x4000, b"media"));
        assert!(!talk.is_unanswered(begin + ANSWER_WITHIN));
    }

    proptest! {
        #[test]
        fn whatever_is_said_the_newest_stays_and_the_bounds_hold(sizes in proptest::collection::vec(0usize..9_000, 1..400)) {
            let (mut talk, mut dropped) = (Talk::default(), 0);
            for (n, size) in sizes.iter().enumerate() {
                let message = channel(0x4000 + n as u16, &vec![0; *size]);
                dropped += talk.say(message.clone());
                prop_assert!(talk.waiting.len() <= MOST_WAITING && talk.bytes <= MOST_BYTES);
                prop_assert_eq!(talk.bytes, talk.waiting.iter().map(|(message, _)| message.len()).sum::<usize>());
                prop_assert_eq!(&talk.waiting.back().unwrap().0, &message);
            }
            let left = std::iter::from_fn(|| talk.next_message(Instant::now())).count() as u64;
            prop_assert_eq!(left + dropped, sizes.len() as u64);
            prop_assert_eq!(talk.bytes, 0);
        }
    }
}
