//! When messages go to the store, and what becomes of them when it fails: pure, in virtual time.
//!
//! One batch is under way at a time. Urgent messages (a presence, a command's status) go at once; others wait
//! up to [`LINGER`] for company. While a batch is under way the next one gathers by itself, so batches grow
//! with the load. A store that is not available gets the same batch again, later and later; a batch that it
//! refuses is halved until the message at fault is alone, and that one is given up: it must not loop.
//!
//! The room is bounded: from [`ROOM`] messages on the shell stops reading the broker, which then keeps what
//! is not acknowledged.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages of one transaction at most. What a transaction costs beside its rows (a sync of the disk, pages that several
/// rows share) is the same for many: in batches of 1,024 a third fewer heartbeats are stored a second.
pub const BATCH_MAX: usize = 4096;
/// How long a message that is not urgent waits for company.
pub const LINGER: Duration = Duration::from_millis(20);
/// Messages held in memory at most.
pub const ROOM: usize = 2 * BATCH_MAX;
/// Pause after the first failure of the store; doubled up to [`RETRY_MAX`].
pub const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between two attempts at the store.
pub const RETRY_MAX: Duration = Duration::from_secs(10);

/// How the store took a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is stored.
    Stored,
    /// Nothing is, but may be later.
    Unavailable,
    /// Nothing is: something in it can never be.
    Refused,
}

/// What is left to do after a batch.
#[derive(Debug, PartialEq)]
pub enum Settled<T> {
    /// These are stored: acknowledge and answer.
    Stored(Vec<T>),
    /// This one can never be stored: acknowledge it and count it.
    GivenUp(T),
    /// Tried again by itself.
    Kept,
}

/// Gathers messages into batches.
#[derive(Debug)]
pub struct Gatherer<T> {
    waiting: VecDeque<T>,
    /// Batches to be tried before anything that waits; the front one is under way or due.
    again: VecDeque<Vec<T>>,
    held: usize,
    due: Option<Instant>,
    under_way: bool,
    failures: u32,
}

impl<T> Default for Gatherer<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), again: VecDeque::new(), held: 0, due: None, under_way: false, failures: 0 }
    }
}

impl<T> Gatherer<T> {
    /// Takes a message.
    pub fn handle_arrived(&mut self, now: Instant, item: T, urgent: bool) {
        self.waiting.push_back(item);
        self.held += 1;
        let due = if urgent { now } else { now + LINGER };
        // A retry's pause holds for what arrives meanwhile too.
        if self.failures == 0 {
            self.due = Some(self.due.map_or(due, |held| held.min(due)));
        }
    }

    /// Whether the shell may read on.
    pub fn has_room(&self) -> bool {
        self.held < ROOM
    }

    /// Messages held, under way or waiting.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether the store has failed and not yet worked again.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The next batch to give to the store, if it is time.
    pub fn poll_batch(&mut self, now: Instant) -> Option<Vec<T>> {
        if self.under_way {
            return None;
        }
        let full = self.failures == 0 && (self.waiting.len() >= BATCH_MAX || !self.again.is_empty());
        if !full && self.due.is_none_or(|due| now < due) {
            return None;
        }
        let batch = match self.again.pop_front() {
            Some(batch) => batch,
            None => self.waiting.drain(..self.waiting.len().min(BATCH_MAX)).collect(),
        };
        self.due = (!self.waiting.is_empty()).then_some(now);
        self.under_way = !batch.is_empty();
        self.under_way.then_some(batch)
    }

    /// Takes back the batch with its outcome. `jitter` in 0..1 spreads the retry.
    pub fn handle_outcome(&mut self, now: Instant, mut batch: Vec<T>, outcome: Outcome, jitter: f64) -> Settled<T> {
        self.under_way = false;
        match outcome {
            Outcome::Stored => {
                self.failures = 0;
                self.held -= batch.len();
                self.due = (!self.waiting.is_empty() || !self.again.is_empty()).then_some(now);
                Settled::Stored(batch)
            }
            Outcome::Unavailable => {
                let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
                self.failures = self.failures.saturating_add(1);
                self.due = Some(now + pause.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)));
                self.again.push_front(batch);
                Settled::Kept
            }
            Outcome::Refused => {
                self.failures = 0;
                self.due = Some(now);
                let second = batch.split_off(batch.len() / 2);
                match batch.is_empty() {
                    true => self.give_up(second),
                    false => {
                        self.again.push_front(second);
                        self.again.push_front(batch);
                        Settled::Kept
                    }
                }
            }
        }
    }

    /// When [`Gatherer::poll_batch`] has one, if nothing arrives before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.under_way)
    }

    fn give_up(&mut self, single: Vec<T>) -> Settled<T> {
        self.held -= single.len();
        match single.into_iter().next() {
            Some(item) => Settled::GivenUp(item),
            None => Settled::Kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_urgent_message_takes_the_waiting_ones_with_it() {
        let mut gatherer = Gatherer::default();
        let now = Instant::now();
        gatherer.handle_arrived(now, 1, false);
        assert_eq!(gatherer.poll_batch(now), None);
        assert_eq!(gatherer.poll_timeout(), Some(now + LINGER));
        gatherer.handle_arrived(now, 2, true);
        assert_eq!(gatherer.poll_batch(now), Some(vec![1, 2]));
        assert_eq!(gatherer.poll_timeout(), None, "nothing to do before the outcome");
    }

    #[test]
    fn a_store_that_is_away_gets_the_same_batch_again_and_nothing_overtakes() {
        let mut gatherer = Gatherer::default();
        let mut now = Instant::now();
        gatherer.handle_arrived(now, 1, true);
        let mut pauses = Vec::new();
        for n in 2..8 {
            let batch = gatherer.poll_batch(now).unwrap();
            assert_eq!(batch, [1]);
            assert_eq!(gatherer.handle_outcome(now, batch, Outcome::Unavailable, 1.0), Settled::Kept);
            gatherer.handle_arrived(now, n, true);
            assert_eq!(gatherer.poll_batch(now), None);
            let due = gatherer.poll_timeout().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400]);
        let batch = gatherer.poll_batch(now).unwrap();
        gatherer.handle_outcome(now, batch, Outcome::Stored, 0.0);
        assert_eq!(gatherer.poll_batch(now), Some(vec![2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn reading_stops_while_the_room_is_full() {
        let mut gatherer = Gatherer::default();
        let now = Instant::now();
        for n in 0..ROOM {
            assert!(gatherer.has_room());
            gatherer.handle_arrived(now, n, false);
        }
        assert!(!gatherer.has_room());
        let batch = gatherer.poll_batch(now).unwrap();
        assert_eq!(batch.len(), BATCH_MAX);
        assert!(!gatherer.has_room(), "what is under way still takes its room");
        gatherer.handle_outcome(now, batch, Outcome::Stored, 0.0);
        assert!(gatherer.has_room());
    }

    proptest! {
        #[test]
        fn everything_is_stored_once_in_order_but_what_the_store_refuses(
            poison in proptest::collection::btree_set(0usize..300, 0..6),
            script in proptest::collection::vec((0u8..4, 0u64..30, 0.0f64..1.0), 50..400),
        ) {
            let mut gatherer = Gatherer::default();
            let mut now = Instant::now();
            let (mut next, mut stored, mut given_up) = (0, Vec::new(), Vec::new());
            let mut script = script.into_iter().chain(std::iter::repeat_n((9, 20_000, 0.5), 400));
            while stored.len() + given_up.len() < 300 {
                let (event, millis, jitter) = script.next().unwrap();
                now += Duration::from_millis(millis);
                while next < 300 && (event < 3 || event == 9) {
                    gatherer.handle_arrived(now, next, next % 3 == 0);
                    next += 1;
                    if event != 9 && next % 7 == 0 {
                        break;
                    }
                }
                let Some(batch) = gatherer.poll_batch(now) else { continue };
                prop_assert!(gatherer.poll_batch(now).is_none());
                let outcome = if event == 1 {
                    Outcome::Unavailable
                } else if batch.iter().any(|item| poison.contains(item)) {
                    Outcome::Refused
                } else {
                    Outcome::Stored
                };
                match gatherer.handle_outcome(now, batch, outcome, jitter) {
                    Settled::Stored(items) => stored.extend(items),
                    Settled::GivenUp(item) => given_up.push(item),
                    Settled::Kept => {}
                }
            }
            prop_assert_eq!(gatherer.held(), 0);
            prop_assert!(stored.is_sorted());
            prop_assert_eq!(given_up, poison.into_iter().collect::<Vec<_>>());
        }
    }
}
