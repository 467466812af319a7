//! The last results: only what a real run said, and when.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{POINTS, Probe, Way, check};

/// What a run said of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not.
    Failed,
    /// Nobody has looked: there was no run yet, or it needs more than the box has.
    Unchecked,
}

/// One line of the list.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Number of the point.
    pub number: &'static str,
    /// The section that asks for it.
    pub section: &'static str,
    /// What is asked.
    pub sentence: String,
    /// What the last run said.
    pub verdict: Verdict,
    /// The fault, or why nobody has looked.
    pub detail: String,
    /// When that was, RFC 3339.
    pub checked_at: Option<DateTime<Utc>>,
}

/// Keeps the last results of a box's own runs.
pub struct Board {
    outcomes: Mutex<Vec<Outcome>>,
    /// Held by a run: there is one at a time.
    running: tokio::sync::Mutex<()>,
}

impl Default for Board {
    fn default() -> Self {
        let outcome = |point: &super::Point| Outcome {
            number: point.number,
            section: point.section,
            sentence: point.sentence(),
            verdict: Verdict::Unchecked,
            detail: match point.way {
                Way::Http => "not run yet",
                Way::Alone => "only the test suite checks it: it shuts others out for a while",
                Way::Client => "only the test suite checks it: it needs a WebRTC client",
            }
            .to_owned(),
            checked_at: None,
        };
        Self { outcomes: Mutex::new(POINTS.iter().map(outcome).collect()), running: tokio::sync::Mutex::new(()) }
    }
}

impl Board {
    /// The list.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks every point that needs nothing but HTTP; false when a run is under way.
    pub async fn run(&self, probe: &Probe) -> bool {
        let Ok(_running) = self.running.try_lock() else { return false };
        for (n, point) in POINTS.iter().enumerate().filter(|(_, point)| point.way == Way::Http) {
            let checked = check(probe, point).await;
            let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(outcome) = outcomes.get_mut(n) {
                outcome.verdict = if checked.is_ok() { Verdict::Passed } else { Verdict::Failed };
                outcome.detail = checked.err().unwrap_or_default();
                outcome.checked_at = Some(Utc::now());
            }
        }
        true
    }
}
