//! When to try again: full jitter, reset only by a connection that held.
//!
//! Pure: no clock and no randomness in it. The caller says how long the last connection held and throws the dice.

use std::time::Duration;

/// Limits of the pauses between two attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffSettings {
    /// Ceiling of the first pause; it doubles with each failure. Default 1 s.
    pub first: Duration,
    /// Ceiling that no pause exceeds. Default 60 s.
    pub max: Duration,
    /// No pause is shorter, so that zero jitter does not make a hot loop. Default 100 ms.
    pub floor: Duration,
    /// A connection that held this long sets the pause back to [`Self::first`]. Default 30 s.
    pub stable: Duration,
    /// Pause after refused credentials: nothing gets better by asking fast. Half of it to all of it. Default 60 s.
    pub refused: Duration,
}

impl Default for BackoffSettings {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
            floor: Duration::from_millis(100),
            stable: Duration::from_secs(30),
            refused: Duration::from_secs(60),
        }
    }
}

/// How the last attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It never connected, or lost its connection after this time.
    Lost {
        /// How long it had been connected, if it ever was.
        held: Option<Duration>,
    },
    /// The broker refused the credentials or the client id.
    Refused,
}

/// Counts failures and says how long to wait.
#[derive(Debug, Clone)]
pub struct Backoff {
    settings: BackoffSettings,
    failures: u32,
}

impl Backoff {
    /// Starts with no failure counted.
    pub fn new(settings: BackoffSettings) -> Self {
        Self { settings, failures: 0 }
    }

    /// Failures since the last connection that held.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause before the next attempt. `jitter` is in `0.0..=1.0`; values outside are clamped.
    pub fn pause_after(&mut self, ending: Ending, jitter: f64) -> Duration {
        let jitter = jitter.clamp(0.0, 1.0);
        match ending {
            Ending::Refused => {
                self.failures = self.failures.saturating_add(1);
                self.settings.refused.mul_f64(0.5 + jitter / 2.0)
            }
            Ending::Lost { held } => {
                if held.is_some_and(|held| held >= self.settings.stable) {
                    self.failures = 0;
                }
                // 2^20 times the first pause is beyond any useful ceiling and far from overflow.
                let ceiling = self.settings.first.saturating_mul(1 << self.failures.min(20)).min(self.settings.max);
                self.failures = self.failures.saturating_add(1);
                ceiling.mul_f64(jitter).max(self.settings.floor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEVER: Ending = Ending::Lost { held: None };

    #[test]
    fn the_ceiling_doubles_up_to_its_limit() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        let pauses: Vec<u64> = (0..8).map(|_| backoff.pause_after(NEVER, 1.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn only_a_connection_that_held_resets_the_pause() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        for _ in 0..4 {
            backoff.pause_after(NEVER, 1.0);
        }
        let short = Ending::Lost { held: Some(Duration::from_secs(29)) };
        assert_eq!(backoff.pause_after(short, 1.0).as_secs(), 16);
        let long = Ending::Lost { held: Some(Duration::from_secs(30)) };
        assert_eq!(backoff.pause_after(long, 1.0).as_secs(), 1);
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn refused_credentials_are_asked_again_slowly() {
        let mut backoff = Backoff::new(BackoffSettings::default());
        assert_eq!(backoff.pause_after(Ending::Refused, 0.0).as_secs(), 30);
        assert_eq!(backoff.pause_after(Ending::Refused, 1.0).as_secs(), 60);
    }

    proptest! {
        #[test]
        fn a_pause_is_never_outside_of_its_limits(jitters in proptest::collection::vec(-1.0f64..2.0, 1..200)) {
            let settings = BackoffSettings::default();
            let mut backoff = Backoff::new(settings);
            for jitter in jitters {
                let pause = backoff.pause_after(NEVER, jitter);
                prop_assert!(pause >= settings.floor && pause <= settings.max);
            }
        }
    }
}
