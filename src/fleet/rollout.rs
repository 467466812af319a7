//! A staged rollout: who is in, how many at a time, and when it has to stop. Pure.

use sha2::{Digest, Sha256};

/// Places are hundredths of a per cent.
const PLACES: u64 = 10_000;

/// How the commands of a rollout stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Done.
    pub succeeded: u64,
    /// Failed, refused, timed out, interrupted or expired.
    pub failed: u64,
    /// The device does not know the operation: nothing was tried.
    pub unsupported: u64,
    /// Not ended.
    pub open: u64,
}

/// Why a rollout stops by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// Too many failed.
    Failures,
    /// Too many cannot do it at all.
    Unsupported,
}

impl Tally {
    /// Counts commands in a state of the server, with the device's word for it.
    pub fn add(&mut self, state: &str, code: Option<&str>, count: u64) {
        match (state, code) {
            ("succeeded", _) => self.succeeded += count,
            // Taken back by somebody: neither good nor bad.
            ("cancelled" | "superseded", _) => {}
            ("rejected" | "failed", Some("unsupported")) => self.unsupported += count,
            ("failed" | "rejected" | "timed_out" | "interrupted" | "expired" | "closed", _) => self.failed += count,
            _ => self.open += count,
        }
    }

    /// Whether to stop: more than `abort_percent` of those that ended have failed, or cannot do it.
    pub fn halt(&self, abort_percent: u64) -> Option<Halt> {
        let ended = self.succeeded + self.failed + self.unsupported;
        let over = |count: u64| count * 100 > abort_percent * ended;
        match () {
            () if over(self.failed) => Some(Halt::Failures),
            () if over(self.unsupported) => Some(Halt::Unsupported),
            () => None,
        }
    }

    /// How many more may begin.
    pub fn room(&self, at_once: u64) -> u64 {
        at_once.saturating_sub(self.open)
    }
}

/// Whether a device is in at `percent` (0 to 100). The place depends on the rollout and the device alone: who is in stays in when
/// the percentage grows, and it is not always the same devices that go first.
pub fn is_in(rollout: &str, device: &str, percent: u64) -> bool {
    place(rollout, device) < percent * (PLACES / 100)
}

fn place(rollout: &str, device: &str) -> u64 {
    let hash = Sha256::new().chain_update(rollout).chain_update([0]).chain_update(device).finalize();
    let first = hash.iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    first % PLACES
}

/// Who of these is in first, when the percentage grows: the one that goes where it is so small that of so few none would.
pub fn first_of<'a>(rollout: &str, devices: &'a [String]) -> Option<&'a String> {
    devices.iter().min_by_key(|device| place(rollout, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_few_is_in_whenever_one_of_them_is() {
        let few: Vec<String> = (0..5).map(|n| format!("box{n}")).collect();
        for rollout in ["r", "s", "t"] {
            let first = first_of(rollout, &few).unwrap();
            for percent in 0..=100 {
                assert!(is_in(rollout, first, percent) || !few.iter().any(|one| is_in(rollout, one, percent)));
            }
        }
        assert_eq!(first_of("r", &[]), None);
    }

    fn members(rollout: &str, percent: u64) -> Vec<u32> {
        (0..10_000).filter(|n| is_in(rollout, &format!("box{n}"), percent)).collect()
    }

    #[test]
    fn who_is_in_stays_in_and_the_share_is_what_was_asked_for() {
        let (mut before, mut last) = (members("r", 0), 0);
        assert!(before.is_empty());
        for percent in [1, 5, 20, 50, 100] {
            let now = members("r", percent);
            assert!(before.iter().all(|n| now.contains(n)), "{percent}");
            let share = now.len() as f64 / 100.0;
            assert!((share - percent as f64).abs() < 2.0, "{percent}: {share}");
            (before, last) = (now, percent);
        }
        assert_eq!((before.len(), last), (10_000, 100));
        assert_ne!(members("r", 5), members("s", 5), "not always the same go first");
    }

    #[test]
    fn it_stops_over_the_threshold_and_not_at_it() {
        let tally = |succeeded, failed, unsupported| Tally { succeeded, failed, unsupported, open: 7 };
        assert_eq!(tally(0, 0, 0).halt(10), None);
        assert_eq!(tally(9, 1, 0).halt(10), None);
        assert_eq!(tally(8, 1, 0).halt(10), Some(Halt::Failures));
        assert_eq!(tally(0, 1, 0).halt(99), Some(Halt::Failures));
        assert_eq!(tally(0, 5, 0).halt(100), None);
        assert_eq!(tally(1, 0, 1).halt(10), Some(Halt::Unsupported));
    }

    #[test]
    fn states_are_counted_for_what_they_mean() {
        let mut tally = Tally::default();
        for (state, code) in [
            ("published", None),
            ("executing", None),
            ("succeeded", None),
            ("rejected", Some("unsupported")),
            ("rejected", Some("precondition")),
            ("expired", None),
            ("cancelled", None),
        ] {
            tally.add(state, code, 1);
        }
        assert_eq!(tally, Tally { succeeded: 1, failed: 2, unsupported: 1, open: 2 });
        assert_eq!((tally.room(5), tally.room(1)), (3, 0));
    }
}
