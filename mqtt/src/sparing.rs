//! Log lines that strangers can cause, told sparingly: the first of each minute in full, the others as one count.
//!
//! Whoever reaches the broker can send forged commands or bad passwords as fast as the network carries them; a line for
//! each would fill the disk. A shell asks [`Sparing::admit`] before each line, arms a timer for
//! [`Sparing::poll_timeout`], and says what [`Sparing::handle_timeout`] gives it. Pure.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// How long one budget of lines lasts.
const WINDOW: Duration = Duration::from_secs(60);

/// A budget of lines a minute. A minute begins with its first line.
///
/// ```
/// use std::time::{Duration, Instant};
/// use r58_mqtt::sparing::Sparing;
///
/// let (mut lines, now) = (Sparing::new(2), Instant::now());
/// assert_eq!([lines.admit(now), lines.admit(now), lines.admit(now)], [true, true, false]);
/// let later = now + Duration::from_secs(60);
/// assert_eq!(lines.handle_timeout(later).map(u64::from), Some(1));
/// assert!(lines.admit(later));
/// ```
#[derive(Debug, Clone)]
pub struct Sparing {
    per_minute: u32,
    begun: Option<Instant>,
    said: u32,
    held: u64,
}

impl Default for Sparing {
    /// Twenty lines a minute.
    fn default() -> Self {
        Self::new(20)
    }
}

impl Sparing {
    /// With at most `per_minute` lines in any one minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, begun: None, said: 0, held: 0 }
    }

    /// Whether this line may be said; counts it if not.
    pub fn admit(&mut self, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= WINDOW) {
            (self.begun, self.said) = (Some(now), 0);
        }
        let room = self.said < self.per_minute;
        match room {
            true => self.said += 1,
            false => self.held = self.held.saturating_add(1),
        }
        room
    }

    /// When the minute ends that lines were held back in.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.begun.filter(|_| self.held > 0).map(|begun| begun + WINDOW)
    }

    /// How many lines were held back since this was last asked, once their minute is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<NonZeroU64> {
        self.poll_timeout().filter(|at| *at <= now)?;
        NonZeroU64::new(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flood_is_told_as_twenty_lines_and_one_count_a_minute() {
        let (mut lines, begun) = (Sparing::default(), Instant::now());
        let (mut said, mut counted) = (0, Vec::new());
        // A thousand a second for three minutes.
        for millisecond in 0..180_000 {
            let now = begun + Duration::from_millis(millisecond);
            counted.extend(lines.handle_timeout(now));
            said += u32::from(lines.admit(now));
        }
        counted.extend(lines.handle_timeout(begun + WINDOW * 3));
        assert_eq!(said, 60);
        assert_eq!(counted.iter().map(|count| count.get()).collect::<Vec<_>>(), [59_980; 3]);
    }

    #[test]
    fn what_is_rare_is_told_in_full_and_wants_no_timer() {
        let (mut lines, begun) = (Sparing::new(1), Instant::now());
        for minute in 0..10 {
            assert!(lines.admit(begun + WINDOW * minute));
            assert_eq!(lines.poll_timeout(), None);
        }
    }

    proptest! {
        /// Whenever they come and whenever the shell looks: each line is said or counted, once.
        #[test]
        fn every_line_is_said_or_counted(steps in proptest::collection::vec((0..40_000_u64, any::<bool>()), 1..200)) {
            let (mut lines, mut now) = (Sparing::new(3), Instant::now());
            let (mut said, mut counted, mut all) = (0, 0, 0);
            for (wait, is_line) in steps {
                now += Duration::from_millis(wait);
                if is_line {
                    all += 1;
                    said += u64::from(lines.admit(now));
                } else {
                    counted += lines.handle_timeout(now).map_or(0, u64::from);
                }
            }
            counted += lines.handle_timeout(now + WINDOW).map_or(0, u64::from);
            prop_assert_eq!(said + counted, all);
        }
    }
}
