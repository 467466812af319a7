//! How often, and after which pause, something may be started again. Pure: the caller brings the time and the jitter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The figures of a [`RestartBudget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Pause before the first restart; doubles with each further one.
    pub first: Duration,
    /// The longest pause.
    pub ceiling: Duration,
    /// Restarts that are granted within [`Self::within`].
    pub most: u32,
    /// The window over which restarts are counted.
    pub within: Duration,
    /// After running this long, pause and count start anew.
    pub stable: Duration,
}

impl Default for RestartPolicy {
    /// 1 s doubling to 60 s, five in 60 s: the figures that thin-edge.io's supervisor arrived at.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            ceiling: Duration::from_secs(60),
            most: 5,
            within: Duration::from_secs(60),
            stable: Duration::from_secs(60),
        }
    }
}

impl RestartPolicy {
    /// A policy that never gives up: for what comes and goes by nature, such as a cable or a link.
    pub fn patient(first: Duration, ceiling: Duration) -> Self {
        Self { first, ceiling, most: u32::MAX, within: Duration::ZERO, stable: ceiling }
    }
}

/// What the budget grants after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start again after this pause.
    RestartIn(Duration),
    /// The budget is spent.
    GaveUp,
}

/// Counts failures and grants restarts.
#[derive(Debug, Clone)]
pub struct RestartBudget {
    policy: RestartPolicy,
    recent: VecDeque<Instant>,
    in_a_row: u32,
    running_since: Option<Instant>,
}

impl RestartBudget {
    /// A full budget.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, recent: VecDeque::new(), in_a_row: 0, running_since: None }
    }

    /// The thing came up at `now`; from here on it counts as running stably.
    pub fn handle_started(&mut self, now: Instant) {
        self.running_since = Some(now);
    }

    /// The thing failed at `now`. `jitter` in 0..=1 picks a pause between half and the whole of the nominal one.
    pub fn handle_failed(&mut self, now: Instant, jitter: f64) -> Verdict {
        let stable =
            self.running_since.take().is_some_and(|since| now.saturating_duration_since(since) >= self.policy.stable);
        if stable {
            self.refill();
        }
        while self.recent.front().is_some_and(|first| now.saturating_duration_since(*first) >= self.policy.within) {
            self.recent.pop_front();
        }
        if self.recent.len() as u64 >= u64::from(self.policy.most) {
            return Verdict::GaveUp;
        }
        if !self.policy.within.is_zero() {
            self.recent.push_back(now);
        }
        let doubled = self.policy.first.saturating_mul(1u32.checked_shl(self.in_a_row).unwrap_or(u32::MAX));
        self.in_a_row = (self.in_a_row + 1).min(31);
        let nominal = doubled.min(self.policy.ceiling);
        Verdict::RestartIn(nominal.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)))
    }

    /// Gives the whole budget back, as when an operator asks for another try.
    pub fn refill(&mut self) {
        self.recent.clear();
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(verdict: Verdict) -> f64 {
        match verdict {
            Verdict::RestartIn(pause) => pause.as_secs_f64(),
            Verdict::GaveUp => panic!("gave up"),
        }
    }

    #[test]
    fn pauses_double_from_one_second_to_sixty() {
        let mut budget = RestartBudget::new(RestartPolicy { most: 100, ..RestartPolicy::default() });
        let now = Instant::now();
        let pauses: Vec<f64> = (0..9).map(|_| seconds(budget.handle_failed(now, 1.0))).collect();
        assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
    }

    #[test]
    fn the_sixth_failure_within_sixty_seconds_is_given_up() {
        let mut budget = RestartBudget::new(RestartPolicy::default());
        let start = Instant::now();
        for n in 0..5 {
            assert_ne!(budget.handle_failed(start + Duration::from_secs(n * 11), 0.0), Verdict::GaveUp);
        }
        assert_eq!(budget.handle_failed(start + Duration::from_secs(59), 0.0), Verdict::GaveUp);
    }

    #[test]
    fn stable_running_starts_the_count_and_the_pause_anew() {
        let mut budget = RestartBudget::new(RestartPolicy::default());
        let start = Instant::now();
        for _ in 0..5 {
            budget.handle_failed(start, 1.0);
        }
        budget.handle_started(start);
        assert_eq!(seconds(budget.handle_failed(start + Duration::from_secs(60), 1.0)), 1.0);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_restarts_than_granted(gaps in prop::collection::vec((0u64..30_000, 0.0f64..=1.0), 1..60)) {
            let policy = RestartPolicy { stable: Duration::from_secs(3600), ..RestartPolicy::default() };
            let mut budget = RestartBudget::new(policy);
            let mut now = Instant::now();
            let mut granted: Vec<Instant> = Vec::new();
            for (gap, jitter) in gaps {
                now += Duration::from_millis(gap);
                if let Verdict::RestartIn(pause) = budget.handle_failed(now, jitter) {
                    prop_assert!(pause >= policy.first / 2 && pause <= policy.ceiling);
                    granted.push(now);
                }
                let inside = granted.iter().filter(|at| now.duration_since(**at) < policy.within).count();
                prop_assert!(inside <= 5);
            }
        }

        #[test]
        fn a_patient_policy_never_gives_up(failures in 1usize..200) {
            let mut budget = RestartBudget::new(RestartPolicy::patient(Duration::from_millis(500), Duration::from_secs(4)));
            let now = Instant::now();
            for _ in 0..failures {
                prop_assert!(matches!(budget.handle_failed(now, 1.0), Verdict::RestartIn(p) if p <= Duration::from_secs(4)));
            }
        }
    }
}
