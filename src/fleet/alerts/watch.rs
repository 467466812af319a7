//! The leader's duty: looks at what devices reported, raises and resolves. A server that does not lead does nothing; one that
//! begins to lead looks a little back, and its round over all devices finds the rest.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use r58_actors::rounds::Round;

use crate::fleet::push::Hub;
use crate::fleet::store::{Since, Store, StoreError};

/// How often there is a look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Boxes that went away so lately are left for the next look: what was received before them may be committed after them.
const SETTLE: chrono::Duration = chrono::Duration::seconds(1);
/// How far back a new leader looks for boxes that went away.
const LOOK_BACK: chrono::Duration = chrono::Duration::minutes(2);
/// Looks in a row while there is more; the database has other work.
const IN_A_ROW: usize = 10;
/// How often is removed what nobody looks at any more.
const TIDY_EVERY: Duration = Duration::from_secs(300);

/// The duty.
pub struct Watch {
    store: Store,
    hub: Hub,
    since: Option<Since>,
    tidied: Option<Instant>,
}

impl Watch {
    /// One that has looked at nothing yet.
    pub fn new(store: Store, hub: Hub) -> Self {
        Self { store, hub, since: None, tidied: None }
    }
}

#[async_trait]
impl Round for Watch {
    async fn round(&mut self) -> Result<Duration, String> {
        if !self.store.leads() {
            self.since = None;
            return Ok(LOOK_EVERY);
        }
        let looked = look(&self.store, &self.hub, &mut self.since).await;
        if self.tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) && tidy(&self.store).await.is_ok() {
            self.tidied = Some(Instant::now());
        }
        looked.map_err(|error| error.to_string())?;
        Ok(LOOK_EVERY)
    }
}

async fn tidy(store: &Store) -> Result<(), StoreError> {
    store.tidy_alerts(Utc::now()).await?;
    store.tidy_deliveries(Utc::now()).await
}

async fn look(store: &Store, hub: &Hub, since: &mut Option<Since>) -> Result<(), StoreError> {
    for _ in 0..IN_A_ROW {
        let now = Utc::now();
        let since = since.get_or_insert_with(|| Since::from(now - LOOK_BACK));
        let looked = store.look_for_alerts(since, now - SETTLE, now).await?;
        for (org, id) in &looked.changed {
            hub.alert_changed(org, id);
        }
        if !looked.more {
            break;
        }
    }
    Ok(())
}
