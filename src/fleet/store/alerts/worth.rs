//! Which devices are worth a look: those of which alert rules could see something new, noted with what they said and gone when
//! somebody has looked. So nothing is forgotten when the server that looks dies, and nothing is looked at again that did not change.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ulid::Ulid;

use crate::fleet::alerts::outline::{Outlook, Outlooks};
use crate::fleet::store::sql::{QueryBuilder, Tx, query, query_as};
use crate::fleet::store::{DeviceNo, Store, StoreError};

/// Batches taken at a time.
const BATCHES: usize = 64;
/// How old the rules may be by which a heartbeat is outlined.
const FRESH: Duration = Duration::from_secs(5);

/// Devices that wait for a look.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    /// Each once, however often it was noted.
    pub devices: BTreeSet<i64>,
    /// The batches that noted them.
    batches: Vec<String>,
}

/// The rules by which heartbeats are outlined, as they were read last.
#[derive(Default)]
pub(in crate::fleet::store) struct LastOutlooks(Mutex<Option<(Instant, Arc<Outlooks>)>>);

/// Notes devices that are worth a look, with what they said.
pub(in crate::fleet::store) async fn note(tx: &mut Tx, devices: &BTreeSet<DeviceNo>) -> Result<(), StoreError> {
    if devices.is_empty() {
        return Ok(());
    }
    let devices: Vec<i64> = devices.iter().map(|no| no.0).collect();
    let devices = serde_json::to_string(&devices).map_err(|_| StoreError::Bug("numbers".into()))?;
    query("INSERT INTO to_look_at (id, devices) VALUES ($1, $2)")
        .bind(Ulid::new().to_string())
        .bind(devices)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Store {
    /// The rules of all organizations, a few seconds old at most.
    pub(in crate::fleet::store) async fn outlooks(&self) -> Result<Arc<Outlooks>, StoreError> {
        let held = self.outlooks.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, outlooks)) = held.filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(outlooks);
        }
        let mut outlooks = Outlooks::new();
        // In the order of organizations.
        for rules in self.all_rules_in_force().await?.chunk_by(|one, two| one.org == two.org) {
            let known = rules.iter().filter_map(|row| Some((row.clone().rule()?, row.updated_at)));
            outlooks.insert(rules[0].org.clone(), Outlook::of(&known.collect::<Vec<_>>()));
        }
        let outlooks = Arc::new(outlooks);
        *self.outlooks.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), outlooks.clone()));
        Ok(outlooks)
    }

    /// Takes the next batches when nobody waits any more.
    pub(super) async fn fill(&self, waiting: &mut Waiting) -> Result<(), StoreError> {
        if !waiting.devices.is_empty() {
            return Ok(());
        }
        let batches: Vec<(String, String)> = query_as("SELECT id, devices FROM to_look_at ORDER BY id LIMIT $1")
            .bind(BATCHES as i64)
            .fetch_all(&self.reader)
            .await?;
        for (batch, devices) in batches {
            waiting.devices.extend(serde_json::from_str::<Vec<i64>>(&devices).unwrap_or_default());
            waiting.batches.push(batch);
        }
        Ok(())
    }

    /// Removes batches of which all were looked at; whether there may be more to look at.
    pub(super) async fn looked_at(&self, waiting: &mut Waiting) -> Result<bool, StoreError> {
        if !waiting.devices.is_empty() || waiting.batches.is_empty() {
            return Ok(!waiting.devices.is_empty());
        }
        let mut delete = QueryBuilder::new("DELETE FROM to_look_at WHERE id IN (");
        let mut list = delete.separated(", ");
        for batch in &waiting.batches {
            list.push_bind(batch.clone());
        }
        list.push_unseparated(")");
        delete.build().execute(&self.writer).await?;
        let full = waiting.batches.len() >= BATCHES;
        waiting.batches.clear();
        Ok(full)
    }
}
