//! What a warden decides about one actor. Pure: the house brings time and jitter and carries the outputs out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::budget::{RestartBudget, RestartPolicy, Verdict};

/// How often an actor is pinged and how long it may take to answer.
#[derive(Debug, Clone, Copy)]
pub struct WardTimes {
    /// Pause between an answer and the next ping.
    pub ping_every: Duration,
    /// An actor that has not answered for this long is stuck.
    pub ping_timeout: Duration,
}

impl Default for WardTimes {
    /// An actor never blocks for as long as a second by design; ten of them on a busy two-core machine mean that it is stuck.
    fn default() -> Self {
        Self { ping_every: Duration::from_secs(5), ping_timeout: Duration::from_secs(10) }
    }
}

/// What happened to the actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WardInput {
    /// It ended by a panic, or without having been asked.
    Ended {
        /// Which of its lives ended.
        generation: u64,
    },
    /// It answered a ping.
    PingAnswered {
        /// Which of its lives answered.
        generation: u64,
    },
    /// An operator wants it rebuilt, with a full budget.
    Restart,
    /// It shall stay down.
    Retire,
}

/// What the house has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WardOutput {
    /// Build this life from the factory.
    Build(u64),
    /// Ping this life.
    Ping(u64),
    /// Take this life's address from the doors and let its thread end when it can.
    Abandon {
        /// The life.
        generation: u64,
        /// Whether it was found stuck, as opposed to ended or replaced on demand.
        stuck: bool,
    },
    /// The budget is spent.
    GiveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// A ping is out; the life came up if it was `fresh`.
    Asked {
        fresh: bool,
        until: Instant,
    },
    Running {
        next_ping: Instant,
    },
    Backoff {
        until: Instant,
    },
    Degraded,
    Retired,
}

/// One actor's case file.
#[derive(Debug)]
pub struct Ward {
    times: WardTimes,
    budget: RestartBudget,
    generation: u64,
    stand: Stand,
    outputs: VecDeque<WardOutput>,
}

impl Ward {
    /// Opens the file; the first output is to build life 1.
    pub fn new(now: Instant, policy: RestartPolicy, times: WardTimes) -> Self {
        let stand = Stand::Backoff { until: now };
        let mut ward =
            Self { times, budget: RestartBudget::new(policy), generation: 0, stand, outputs: VecDeque::new() };
        ward.build(now);
        ward
    }

    /// Takes note of an input. `jitter` in 0..=1.
    pub fn handle(&mut self, now: Instant, input: WardInput, jitter: f64) {
        match input {
            WardInput::Ended { generation } if generation == self.generation && self.is_up() => {
                self.failed(now, false, jitter)
            }
            WardInput::PingAnswered { generation } if generation == self.generation => self.answered(now),
            WardInput::Restart if self.stand != Stand::Retired => {
                self.budget.refill();
                if self.is_up() {
                    self.outputs.push_back(WardOutput::Abandon { generation: self.generation, stuck: false });
                }
                self.build(now);
            }
            WardInput::Retire => self.stand = Stand::Retired,
            // News of an earlier life, or of one that is being replaced already.
            WardInput::Ended { .. } | WardInput::PingAnswered { .. } | WardInput::Restart => {}
        }
    }

    /// Acts on a deadline that has passed. `jitter` in 0..=1.
    pub fn handle_timeout(&mut self, now: Instant, jitter: f64) {
        match self.stand {
            Stand::Asked { until, .. } if now >= until => self.failed(now, true, jitter),
            Stand::Running { next_ping } if now >= next_ping => {
                self.stand = Stand::Asked { fresh: false, until: now + self.times.ping_timeout };
                self.outputs.push_back(WardOutput::Ping(self.generation));
            }
            Stand::Backoff { until } if now >= until => self.build(now),
            _ => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.stand {
            Stand::Asked { until, .. } | Stand::Backoff { until } => Some(until),
            Stand::Running { next_ping } => Some(next_ping),
            Stand::Degraded | Stand::Retired => None,
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<WardOutput> {
        self.outputs.pop_front()
    }

    /// The life that counts, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn is_up(&self) -> bool {
        matches!(self.stand, Stand::Asked { .. } | Stand::Running { .. })
    }

    fn build(&mut self, now: Instant) {
        self.generation += 1;
        self.stand = Stand::Asked { fresh: true, until: now + self.times.ping_timeout };
        self.outputs.push_back(WardOutput::Build(self.generation));
        self.outputs.push_back(WardOutput::Ping(self.generation));
    }

    fn answered(&mut self, now: Instant) {
        let Stand::Asked { fresh, .. } = self.stand else { return };
        if fresh {
            self.budget.handle_started(now);
        }
        self.stand = Stand::Running { next_ping: now + self.times.ping_every };
    }

    fn failed(&mut self, now: Instant, stuck: bool, jitter: f64) {
        self.outputs.push_back(WardOutput::Abandon { generation: self.generation, stuck });
        self.stand = match self.budget.handle_failed(now, jitter) {
            Verdict::RestartIn(pause) => Stand::Backoff { until: now + pause },
            Verdict::GaveUp => {
                self.outputs.push_back(WardOutput::GiveUp);
                Stand::Degraded
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(ward: &mut Ward) -> Vec<WardOutput> {
        std::iter::from_fn(|| ward.poll_output()).collect()
    }

    fn up(now: Instant) -> Ward {
        let mut ward = Ward::new(now, RestartPolicy::default(), WardTimes::default());
        ward.handle(now, WardInput::PingAnswered { generation: 1 }, 1.0);
        drain(&mut ward);
        ward
    }

    #[test]
    fn an_actor_that_panicked_is_rebuilt_after_a_second() {
        let now = Instant::now();
        let mut ward = up(now);
        ward.handle(now, WardInput::Ended { generation: 1 }, 1.0);
        assert_eq!(drain(&mut ward), [WardOutput::Abandon { generation: 1, stuck: false }]);
        let due = ward.poll_timeout().unwrap();
        assert_eq!(due, now + Duration::from_secs(1));
        ward.handle_timeout(due, 1.0);
        assert_eq!(drain(&mut ward), [WardOutput::Build(2), WardOutput::Ping(2)]);
    }

    #[test]
    fn an_actor_that_does_not_answer_its_ping_is_stuck() {
        let now = Instant::now();
        let mut ward = up(now);
        let asked = ward.poll_timeout().unwrap();
        ward.handle_timeout(asked, 1.0);
        assert_eq!(drain(&mut ward), [WardOutput::Ping(1)]);
        ward.handle_timeout(asked + Duration::from_secs(10), 1.0);
        assert_eq!(drain(&mut ward), [WardOutput::Abandon { generation: 1, stuck: true }]);
        // When it gets unstuck and ends at last, that is old news.
        ward.handle(asked + Duration::from_secs(11), WardInput::Ended { generation: 1 }, 1.0);
        assert_eq!(drain(&mut ward), []);
    }

    #[test]
    fn a_spent_budget_degrades_and_an_operator_revives() {
        let mut now = Instant::now();
        let mut ward = Ward::new(now, RestartPolicy::default(), WardTimes::default());
        let mut outputs = Vec::new();
        for generation in 1..=6 {
            ward.handle(now, WardInput::Ended { generation }, 0.0);
            outputs = drain(&mut ward);
            if let Some(due) = ward.poll_timeout() {
                now = due;
                ward.handle_timeout(now, 0.0);
            }
        }
        assert_eq!(outputs.last(), Some(&WardOutput::GiveUp));
        assert_eq!(ward.poll_timeout(), None);
        ward.handle(now, WardInput::Restart, 0.0);
        assert_eq!(drain(&mut ward), [WardOutput::Build(7), WardOutput::Ping(7)]);
    }

    proptest! {
        /// Whatever happens in whichever order: at most one life is up, lives are never reused, and nothing is built while
        /// degraded or after retirement except on an operator's demand.
        #[test]
        fn at_most_one_life_is_up(events in prop::collection::vec((0u8..5, 0u64..4, 0u64..20_000), 1..200)) {
            let mut now = Instant::now();
            let mut ward = Ward::new(now, RestartPolicy::default(), WardTimes::default());
            let (mut alive, mut last, mut retired) = (Some(1), 1, false);
            drain(&mut ward);
            for (event, back, pause) in events {
                let generation = last - back.min(last - 1);
                match event {
                    0 => ward.handle(now, WardInput::Ended { generation }, 0.5),
                    1 => ward.handle(now, WardInput::PingAnswered { generation }, 0.5),
                    2 if pause < 500 => ward.handle(now, WardInput::Restart, 0.5),
                    3 if pause < 200 => { ward.handle(now, WardInput::Retire, 0.5); retired = true; }
                    _ => { now += Duration::from_millis(pause); ward.handle_timeout(now, 0.5); }
                }
                for output in drain(&mut ward) {
                    match output {
                        WardOutput::Build(life) => {
                            prop_assert!(!retired && alive.is_none() && life == last + 1);
                            (alive, last) = (Some(life), life);
                        }
                        WardOutput::Abandon { generation, .. } => {
                            prop_assert_eq!(alive, Some(generation));
                            alive = None;
                        }
                        WardOutput::Ping(life) => prop_assert_eq!(alive, Some(life)),
                        WardOutput::GiveUp => prop_assert_eq!(alive, None),
                    }
                }
            }
        }
    }
}
