//! What a device keeps through a power cut: keys and values in one ordered tree, changed in atomic batches.
//!
//! The [`KeyValue`] trait is the whole of what outbox and journal need. [`Store`] puts it on disk (sled, with a real
//! fsync, a group commit on a thread of its own and a quarantine for corrupt data); [`Memory`] is for tests and
//! simulated devices, and [`Prefixed`] lets many of those share one.
//!
//! One tree is shared by all, told apart by key prefix, because only then is "terminal state and its outbox row" one
//! transaction.

mod prefixed;
mod quarantine;
mod store;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::MqttError;

pub use prefixed::Prefixed;
pub use store::{Opened, Store, StoreOptions};

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Called once, from the writer's thread, when a batch is durable or has failed. Keep it short: post a message.
pub type Done = Box<dyn FnOnce(Result<(), MqttError>) + Send>;

/// Changes that become durable together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Changes {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), Some(value.into())));
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), None));
    }

    /// Appends what `other` changes.
    pub fn extend(&mut self, other: Changes) {
        self.writes.extend(other.writes);
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Keys and values to be written, in bytes.
    pub fn bytes(&self) -> usize {
        self.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }

    /// Each key with its new value, or none where it is removed, in the order given.
    pub fn into_writes(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.writes
    }
}

/// An ordered map on which batches are atomic and become durable in the order they were submitted.
pub trait KeyValue: Send + Sync + 'static {
    /// The value of a key. Sees every submitted batch that has been applied, durable or not.
    ///
    /// # Errors
    /// [`MqttError::Store`] or [`MqttError::StoreCorrupt`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MqttError>;

    /// All rows whose key begins with `prefix`, in order of key.
    ///
    /// # Errors
    /// As [`KeyValue::get`].
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, MqttError>;

    /// Hands over a batch and returns at once; `done` is called when it is durable, batches in order.
    fn submit(&self, changes: Changes, done: Done);

    /// Hands over a batch that nobody waits for, and that a power cut may take: it is applied and becomes durable with the
    /// next batch that somebody waits for, or after a second. Costs no sync of its own.
    fn submit_lazily(&self, changes: Changes) {
        self.submit(changes, Box::new(|_| ()));
    }

    /// Bytes on disk; 0 where there is none.
    fn disk_bytes(&self) -> u64;

    /// Whether the disk's share is used up, so that nothing droppable should be added.
    fn is_full(&self) -> bool {
        false
    }

    /// Hands over a batch and waits until it is durable. Blocks: not for an async thread.
    ///
    /// # Errors
    /// [`MqttError::Store`] when it could not be written; whether it was is then unknown.
    fn commit(&self, changes: Changes) -> Result<(), MqttError> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.submit(changes, Box::new(move |result| drop(tell.send(result))));
        told.recv().map_err(|_| MqttError::Stopped("durable store"))?
    }
}

/// Hands over a batch and resolves when it is durable.
///
/// # Errors
/// As [`KeyValue::commit`].
pub async fn commit_async(store: &dyn KeyValue, changes: Changes) -> Result<(), MqttError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    store.submit(changes, Box::new(move |result| drop(tell.send(result))));
    told.await.map_err(|_| MqttError::Stopped("durable store"))?
}

/// A store without a disk.
#[derive(Debug, Default)]
pub struct Memory {
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        // A batch is applied without a point where it could panic, so a poisoned map is still whole.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyValue for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MqttError> {
        Ok(self.rows().get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, MqttError> {
        let rows = self.rows();
        let from = rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn submit(&self, changes: Changes, done: Done) {
        {
            let mut rows = self.rows();
            for (key, value) in changes.into_writes() {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        }
        done(Ok(()));
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

#[cfg(test)]
#[path = "durable/tests.rs"]
mod tests;
