//! The command journal on disk, in the same tree as the outbox, so that a terminal state and the status that tells of it
//! are one transaction.

use std::time::{Duration, Instant};

use crate::command::{Meta, Row, Write};
use crate::durable::{Changes, KeyValue};
use crate::error::MqttError;
use crate::id::CommandId;
use crate::outbox::Outbox;
use crate::payload::Payload;
use crate::topic::Up;

/// Key prefix of rows: then the command's id.
const ROW: &[u8] = b"j/c/";
/// Key of the meta data.
const META: &[u8] = b"j/meta";

/// What a journal holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The commands, ended ones as tombstones.
    pub rows: Vec<Row>,
    /// Floor and counters; those of a fresh journal when there are none.
    pub meta: Meta,
    /// Rows that could not be read. Their ids are lost, so the floor alone protects against a replay.
    pub unreadable: usize,
}

/// Reads the journal. Blocks while it reads.
///
/// # Errors
/// Those of the store, and [`MqttError::StoreCorrupt`] when the meta data make no sense.
pub fn load(store: &dyn KeyValue) -> Result<Loaded, MqttError> {
    let mut loaded = Loaded::default();
    for (_, value) in store.scan(ROW)? {
        match serde_json::from_slice(&value) {
            Ok(row) => loaded.rows.push(row),
            Err(_) => loaded.unreadable += 1,
        }
    }
    if let Some(meta) = store.get(META)? {
        loaded.meta =
            serde_json::from_slice(&meta).map_err(|_| MqttError::StoreCorrupt("journal meta data".to_owned()))?;
    }
    Ok(loaded)
}

/// A write of the command core as changes of the store.
#[derive(Debug)]
#[must_use = "commit the changes, then tell outbox and core"]
pub struct StagedWrite {
    /// To be committed as one transaction.
    pub changes: Changes,
    /// For [`Outbox::committed`], once durable; none when there was no status.
    pub order: Option<u64>,
}

/// Turns a write of the command core into changes: its rows and, in the same batch, the outbox rows of its statuses.
///
/// # Errors
/// [`MqttError::Bug`] when a row or status cannot be written as JSON.
pub fn stage(outbox: &mut Outbox, now: Instant, write: &Write) -> Result<StagedWrite, MqttError> {
    let bug = |what: &str, error: &dyn std::fmt::Display| MqttError::Bug(format!("{what}: {error}"));
    let mut changes = Changes::new();
    for row in &write.rows {
        changes.put(key(row.id()), serde_json::to_vec(row).map_err(|error| bug("journal row", &error))?);
    }
    for id in &write.removed {
        changes.delete(key(id));
    }
    if let Some(meta) = &write.meta {
        changes.put(META, serde_json::to_vec(meta).map_err(|error| bug("journal meta data", &error))?);
    }
    let mut order = None;
    for status in &write.statuses {
        let body = status.to_bytes().map_err(|error| bug("status", &error))?;
        let up = Up::CommandStatus(status.id.clone());
        let staged = outbox.stage(now, &up, Duration::ZERO, status.ts, |_| body)?;
        order = Some(staged.order);
        changes.extend(staged.changes);
    }
    Ok(StagedWrite { changes, order })
}

fn key(id: &CommandId) -> Vec<u8> {
    [ROW, id.as_str().as_bytes()].concat()
}
