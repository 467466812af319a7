//! Whom the log is told to and how fast. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::logs::{Level, Record};

/// Longest lease; whoever watches renews it.
pub const LEASE_MAX: Duration = Duration::from_secs(60);
/// Records a second, over time.
const RATE: f64 = 50.0;
/// Records at once after a quiet while.
const BURST: f64 = 200.0;
/// Bytes of records in one message: well below what brokers and the protocol take.
const MESSAGE_BYTES: usize = 48 * 1024;

/// What is to be said.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    /// Oldest first.
    pub records: Vec<Arc<Record>>,
    /// Records that were not said since the last message, for their number.
    pub dropped: u64,
}

/// Who watches, and what was said.
#[derive(Debug)]
pub struct Tail {
    /// Until when somebody wants this level.
    leases: BTreeMap<Level, Instant>,
    said: u64,
    allowance: f64,
    counted: Instant,
    dropped: u64,
}

impl Tail {
    /// Nobody watches.
    pub fn new(now: Instant) -> Self {
        Self { leases: BTreeMap::new(), said: 0, allowance: BURST, counted: now, dropped: 0 }
    }

    /// Somebody watches from `last_seq` on; the number after which records will come.
    pub fn handle_watch(&mut self, now: Instant, level: Level, lease: Duration, last_seq: u64) -> u64 {
        if self.level(now).is_none() {
            self.said = last_seq;
            self.dropped = 0;
        }
        let until = now + lease.min(LEASE_MAX);
        let held = self.leases.entry(level).or_insert(until);
        *held = (*held).max(until);
        self.said
    }

    /// What is told now: the most that anybody wants. None when nobody watches.
    pub fn level(&self, now: Instant) -> Option<Level> {
        self.leases.iter().filter(|(_, until)| **until > now).map(|(level, _)| *level).max()
    }

    /// The number of the last record that was dealt with.
    pub fn said(&self) -> u64 {
        self.said
    }

    /// What to say of these records, which are all after [`Tail::said`].
    pub fn handle_records(&mut self, now: Instant, records: Vec<Arc<Record>>) -> Option<Said> {
        let level = self.level(now)?;
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.allowance = (self.allowance + passed * RATE).min(BURST);
        self.counted = now;
        let mut said = Said::default();
        let mut bytes = 0;
        for record in records {
            // What memory forgot before it could be looked at.
            self.dropped += record.seq.saturating_sub(self.said + 1);
            self.said = record.seq;
            if record.level > level {
                continue;
            }
            bytes += record.weight();
            if self.allowance < 1.0 || bytes > MESSAGE_BYTES {
                self.dropped += 1;
                continue;
            }
            self.allowance -= 1.0;
            said.records.push(record);
        }
        if said.records.is_empty() && self.dropped == 0 {
            return None;
        }
        said.dropped = std::mem::take(&mut self.dropped);
        Some(said)
    }

    /// A message did not get out.
    pub fn handle_unsaid(&mut self, said: &Said) {
        self.dropped += said.dropped + said.records.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, level: Level) -> Arc<Record> {
        Arc::new(Record {
            seq,
            ts: chrono::Utc::now(),
            level,
            target: "t".into(),
            actor: String::new(),
            message: "m".into(),
            fields: BTreeMap::new(),
        })
    }

    fn some(from: u64, count: u64) -> Vec<Arc<Record>> {
        (from..from + count).map(|seq| record(seq, Level::Info)).collect()
    }

    #[test]
    fn nothing_is_said_unless_somebody_watches_and_a_lease_ends_by_itself() {
        let start = Instant::now();
        let mut tail = Tail::new(start);
        assert_eq!(tail.handle_records(start, some(1, 3)), None);
        assert_eq!(tail.handle_watch(start, Level::Info, Duration::from_secs(600), 3), 3);
        assert_eq!(tail.handle_records(start, some(4, 2)).unwrap().records.len(), 2);
        let later = start + LEASE_MAX;
        assert_eq!(tail.level(later), None, "no lease is longer");
        assert_eq!(tail.handle_records(later, some(6, 2)), None);
        // Whoever comes next is not told what was between.
        assert_eq!(tail.handle_watch(later, Level::Warn, Duration::from_secs(5), 7), 7);
        assert_eq!(
            tail.handle_records(later, vec![record(8, Level::Info), record(9, Level::Warn)]).unwrap().records.len(),
            1
        );
    }

    #[test]
    fn the_most_curious_watcher_decides_for_as_long_as_it_watches() {
        let start = Instant::now();
        let mut tail = Tail::new(start);
        tail.handle_watch(start, Level::Warn, Duration::from_secs(30), 0);
        tail.handle_watch(start, Level::Debug, Duration::from_secs(5), 0);
        assert_eq!(tail.level(start), Some(Level::Debug));
        assert_eq!(tail.level(start + Duration::from_secs(6)), Some(Level::Warn));
    }

    #[test]
    fn a_flood_is_cut_and_what_was_left_out_is_counted_once() {
        let start = Instant::now();
        let mut tail = Tail::new(start);
        tail.handle_watch(start, Level::Info, Duration::from_secs(60), 0);
        let said = tail.handle_records(start, some(1, 1_000)).unwrap();
        assert_eq!((said.records.len(), said.dropped), (200, 800));
        let said = tail.handle_records(start + Duration::from_secs(1), some(1_001, 60)).unwrap();
        assert_eq!((said.records.len(), said.dropped), (50, 10));
        tail.handle_unsaid(&said);
        // 2,000 were forgotten before anybody looked.
        let said = tail.handle_records(start + Duration::from_secs(2), some(3_061, 1)).unwrap();
        assert_eq!((said.records.len(), said.dropped), (1, 2_060));
    }
}
