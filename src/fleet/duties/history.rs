//! The leader's duty of the heartbeats' history: sums them up, removes old ones and makes room for what comes.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use r58_actors::rounds::Round;

use crate::fleet::store::Store;
use crate::fleet::store::retention::RetentionPlan;

/// How often there is a look at what is to be summed up.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often old rows are removed and partitions made.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// Parts summed up in one round, some 200 devices' hour each.
const PARTS: usize = 100;
/// Old rows of a large fleet take their time, a few thousand in a transaction.
const LONGEST: Duration = Duration::from_secs(6 * 3_600);

/// Keeps the history, while its server leads.
pub(super) struct History {
    store: Store,
    plan: RetentionPlan,
    tidied: Option<Instant>,
}

impl History {
    pub fn new(store: Store, plan: RetentionPlan) -> Self {
        Self { store, plan, tidied: None }
    }
}

#[async_trait]
impl Round for History {
    async fn round(&mut self) -> Result<Duration, String> {
        if !self.store.leads() {
            return Ok(LOOK_EVERY);
        }
        if self.tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
            self.store.keep_history(&self.plan, Utc::now()).await.map_err(|error| error.to_string())?;
            self.tidied = Some(Instant::now());
        }
        for _ in 0..PARTS {
            let now = Utc::now();
            let more = self.store.sum_up_once(now, &self.plan).await.map_err(|error| error.to_string())?;
            if !more || !self.store.leads() {
                return Ok(LOOK_EVERY);
            }
        }
        Ok(Duration::ZERO)
    }

    fn longest(&self) -> Option<Duration> {
        Some(LONGEST)
    }
}
