//! The exchange at every connect that repairs what a broker lost, truncated or kept too long.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::status::ClockState;
use super::{Extra, MAX_PAYLOAD_BYTES, payload};
use crate::id::{CommandId, Name};

/// The body of `up/sync`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SyncUp {
    /// Commands the device holds that have not reached a terminal state.
    #[serde(default)]
    pub pending: Vec<CommandId>,
    /// Commands at or below this that the device does not know are stale to it: it has forgotten them on purpose, or was
    /// told so by the server.
    #[serde(default)]
    pub seq_floor: u64,
    /// The desired state it has applied.
    #[serde(default)]
    pub desired_ver: u64,
    /// Whether its wall clock is set.
    #[serde(default)]
    pub clock: ClockState,
    /// The highest seq ever given per stream, so that the server notices a renumbered or wiped outbox.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<Name, u64>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(SyncUp, "sync", MAX_PAYLOAD_BYTES);

/// The body of `down/sync`: after `up/sync`, and again whenever something was stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncDown {
    /// The server's wall clock.
    pub server_time: DateTime<Utc>,
    /// Commands the server wants done; null in a mere acknowledgement.
    #[serde(default)]
    pub pending: Option<Vec<CommandId>>,
    /// [`pending_hash`] of them.
    #[serde(default)]
    pub pending_hash: Option<String>,
    /// What is stored, per stream: everything up to this seq.
    #[serde(default)]
    pub acked: BTreeMap<Name, u64>,
    /// The highest command seq below or at which the server holds nothing that is not terminal, and no less than the
    /// device ever reported. A device whose disk was wiped learns from it what it must not run again.
    #[serde(default)]
    pub seq_floor: Option<u64>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(SyncDown, "sync", MAX_PAYLOAD_BYTES);

/// One value for a set of pending commands: `sha256:` and the hash of the sorted ids, one per line.
///
/// ```
/// use r58_mqtt::{payload::pending_hash, CommandId};
/// let (a, b) = (CommandId::new("a").unwrap(), CommandId::new("b").unwrap());
/// assert_eq!(pending_hash([&a, &b]), pending_hash([&b, &a]));
/// assert_ne!(pending_hash([&a, &b]), pending_hash([&a]));
/// ```
pub fn pending_hash<'a>(ids: impl IntoIterator<Item = &'a CommandId>) -> String {
    let mut ids: Vec<&CommandId> = ids.into_iter().collect();
    ids.sort();
    let mut hasher = Sha256::new();
    for id in ids {
        hasher.update(id.as_str());
        hasher.update(b"\n");
    }
    format!("sha256:{}", hex::encode(hasher.finalize()))
}
