//! From an input's own time line to the shared clock. Pure: no clock in here.
//!
//! Pictures and sound of one input share one map, so that lips and voice stay together. The map is one offset, set by the
//! first buffer, that follows slow drift and jumps only when the source's time line really broke (a restart, a file that began
//! again, a source whose clock was set).

/// A deviation of more than this, for [`BREAK_AFTER`] without pause, is a broken time line, not jitter (nanoseconds).
const BREAK: i64 = 200_000_000;
/// How long the deviation must last before the map jumps (nanoseconds).
const BREAK_AFTER: u64 = 400_000_000;
/// A deviation of more than this is a new time line at once (nanoseconds).
const LEAP: i64 = 2_000_000_000;
/// Share of a deviation that is taken over at each buffer, as a shift: 1/256, a time constant of about five seconds.
const FOLLOW: u32 = 8;

/// The offset between an input's time line and the shared clock.
#[derive(Debug, Default)]
pub struct TimeMap {
    offset: Option<i64>,
    broken_since: Option<u64>,
}

impl TimeMap {
    /// The moment of the shared clock at which a buffer stamped `media` is due, given that it arrived at `now` (nanoseconds
    /// both).
    pub fn map(&mut self, media: u64, now: u64) -> u64 {
        let arrived = now as i64 - media as i64;
        let offset = match self.offset {
            None => self.jump(arrived),
            Some(offset) => self.follow(offset, arrived, now),
        };
        (media as i64 + offset).max(0) as u64
    }

    fn follow(&mut self, offset: i64, arrived: i64, now: u64) -> i64 {
        let deviation = arrived - offset;
        if deviation.abs() > LEAP {
            return self.jump(arrived);
        }
        if deviation.abs() > BREAK {
            let since = *self.broken_since.get_or_insert(now);
            if now.saturating_sub(since) >= BREAK_AFTER {
                return self.jump(arrived);
            }
            return offset;
        }
        self.broken_since = None;
        let followed = offset + (deviation >> FOLLOW);
        self.offset = Some(followed);
        followed
    }

    fn jump(&mut self, arrived: i64) -> i64 {
        self.broken_since = None;
        self.offset = Some(arrived);
        arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 33_333_333;

    #[test]
    fn jitter_of_arrival_does_not_move_a_steady_source() {
        let mut map = TimeMap::default();
        let first = map.map(0, 1_000_000_000);
        for n in 1..300u64 {
            let jitter = [0, 4_000_000, 1_000_000, 9_000_000][n as usize % 4];
            let due = map.map(n * FRAME, 1_000_000_000 + n * FRAME + jitter);
            let ideal = first + n * FRAME;
            assert!(due.abs_diff(ideal) < 9_000_000, "frame {n} is off by {}", due.abs_diff(ideal));
        }
    }

    #[test]
    fn a_source_that_begins_again_is_due_now() {
        let mut map = TimeMap::default();
        map.map(60_000_000_000, 100_000_000_000);
        assert_eq!(map.map(0, 100_100_000_000), 100_100_000_000);
    }

    #[test]
    fn one_late_burst_is_not_taken_for_a_new_time_line() {
        let mut map = TimeMap::default();
        map.map(0, 1_000_000_000);
        assert_eq!(map.map(FRAME, 1_300_000_000), 1_000_000_000 + FRAME);
        assert_eq!(map.map(10 * FRAME, 1_000_000_000 + 10 * FRAME), 1_000_000_000 + 10 * FRAME);
    }

    #[test]
    fn a_lasting_shift_is_followed_within_half_a_second() {
        let mut map = TimeMap::default();
        map.map(0, 1_000_000_000);
        let mut due = 0;
        for n in 1..=14u64 {
            due = map.map(n * FRAME, 1_300_000_000 + n * FRAME);
        }
        assert_eq!(due, 1_300_000_000 + 14 * FRAME);
    }
}
