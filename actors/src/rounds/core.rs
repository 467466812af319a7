//! When the next round is, and what there is to say about the last. No clock.

use std::time::Duration;

/// Pauses after a round that could not be done: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// A change that somebody should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// The duty cannot be done, for this reason.
    Fails(String),
    /// It is done again.
    Works,
}

/// The pace of one life.
#[derive(Debug, Default)]
pub struct Pace {
    failing: Option<Duration>,
}

impl Pace {
    /// Takes what became of a round; gives the pause until the next, and what is new.
    pub fn handle_round(&mut self, done: Result<Duration, String>) -> (Duration, Option<Say>) {
        match done {
            Ok(pause) => (pause, self.failing.take().map(|_| Say::Works)),
            Err(reason) => {
                let before = self.failing;
                let pause = before.map_or(AGAIN.0, |before| (before * 2).min(AGAIN.1));
                self.failing = Some(pause);
                (pause, before.is_none().then_some(Say::Fails(reason)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_and_tried_ever_more_patiently_until_it_is_over() {
        let mut pace = Pace::default();
        let seconds = Duration::from_secs;
        let mut failed = || pace.handle_round(Err("away".to_owned()));
        assert_eq!(failed(), (seconds(1), Some(Say::Fails("away".to_owned()))));
        let pauses: Vec<_> = (0..5).map(|_| failed()).collect();
        assert_eq!(pauses, [2, 4, 8, 10, 10].map(|pause| (seconds(pause), None)));
        assert_eq!(pace.handle_round(Ok(seconds(60))), (seconds(60), Some(Say::Works)));
        assert_eq!(pace.handle_round(Ok(Duration::ZERO)), (Duration::ZERO, None));
        assert_eq!(pace.handle_round(Err("again".to_owned())).1, Some(Say::Fails("again".to_owned())));
    }
}
