//! What Ingest and the CommandDesk need of the fleet's database.
//!
//! The database is the truth; the broker only caches. Every write is guarded, because a shared subscription
//! keeps no order and a device repeats what was not acknowledged: applying any message twice, or an old one
//! after a newer, changes nothing. Several servers may call at the same time on the same database.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use r58_mqtt::payload::{Batch, Caps, CommandStatus, Event, Heartbeat, Presence, Reported, SyncUp};
use r58_mqtt::{CommandId, DeviceAddress, Name};

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Not now: the caller keeps what it has and tries again (locked, disconnected, disk full).
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// This very record can never be stored. Nothing of the batch was: the caller tries its records one by
    /// one and drops the one that is at fault.
    #[error("the store refuses the record: {0}")]
    Refused(String),
}

/// One valid message of a device.
#[derive(Debug, Clone)]
pub struct Record {
    /// Who said it, from the topic (the broker's ACL vouches for it).
    pub device: DeviceAddress,
    /// When it arrived, by the server's clock: the device's `last_seen`.
    pub received_at: DateTime<Utc>,
    /// What was said.
    pub report: Report,
}

/// Where a single message (not a batch) stands in its device's outbox stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// The outbox stream, such as `cmd` or `evt`.
    pub stream: Name,
    /// The number within the stream.
    pub seq: u64,
    /// The lowest number the device still holds: everything below is acknowledged or gone for good.
    pub first_available: u64,
}

impl StreamPosition {
    /// Up to where the stream is whole once this message is stored, when it was whole up to `have`.
    pub fn contiguous_after(&self, have: u64) -> u64 {
        let floor = have.max(self.first_available.saturating_sub(1));
        match self.seq == floor.saturating_add(1) {
            true => self.seq,
            false => floor,
        }
    }
}

/// What a device said.
///
/// A device that is not registered (or decommissioned) stores nothing and is no error. `last_seen` grows with
/// every report except an offline presence.
#[derive(Debug, Clone)]
pub enum Report {
    /// Taken only if [`Presence::is_news`] against what is held.
    Presence(Presence),
    /// The live copy. Stored once by (`boot_seq`, `seq`, `ts`); replaces the device's current one only if its
    /// (`boot_seq`, `seq`) is greater. Advances the acknowledged `hb` only if its seq is the next one. A
    /// device whose presence is offline **by silence** is online again with it.
    Heartbeat {
        /// What it says.
        heartbeat: Box<Heartbeat>,
        /// Its own text, with whatever this version does not know.
        body: Arc<str>,
    },
    /// Items of one stream; those at or below the acknowledged seq are skipped. Stream `hb` holds
    /// heartbeats, to be treated as the live ones (an item that is none is skipped, and counts as stored).
    /// The acknowledged seq becomes [`Batch::contiguous_after`] of what it was.
    Batch(Batch),
    /// Stored once by its stream and seq.
    Event {
        /// The event.
        event: Event,
        /// Absent when it did not come through an outbox.
        position: Option<StreamPosition>,
    },
    /// Taken only if [`CommandStatus::is_news`] against the row's rev and the state may follow. An unknown id
    /// with a `command` inside is adopted as a row (published by hand); an unknown one without is skipped.
    /// The terminal state and the row's new `withdraw` mark are one write.
    Status {
        /// The status.
        status: CommandStatus,
        /// Absent when it did not come through an outbox.
        position: Option<StreamPosition>,
    },
    /// Replaces.
    Caps(Caps),
    /// Replaces one of a lower (`boot_seq`, `ver`), and of the same where `ts` is not older.
    Reported {
        /// What it says.
        reported: Reported,
        /// Its own text, with whatever this version does not know.
        body: Arc<str>,
    },
    /// The device connected. Where `streams` names a highest seq **below** what is acknowledged, the device's
    /// outbox was wiped: the acknowledged seq of that stream becomes 0.
    Sync(SyncUp),
}

/// What a batch changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// Devices whose card is another one now; each once.
    pub devices: Vec<DeviceAddress>,
    /// Commands whose row changed, was adopted, or has to be withdrawn now.
    pub commands: Vec<(DeviceAddress, CommandId)>,
    /// Per device the acknowledged seq of every stream that this batch **touched**, also where it did not
    /// advance: the device may have missed the last acknowledgement. A live heartbeat that came in turn may be left to the
    /// acknowledgement of the next one.
    pub acked: BTreeMap<DeviceAddress, BTreeMap<Name, u64>>,
    /// Records of devices that are not registered.
    pub unknown: u64,
}

/// The answer to a device's `up/sync`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncState {
    /// Commands that are published and not terminal.
    pub pending: Vec<CommandId>,
    /// Every stream that was ever acknowledged.
    pub acked: BTreeMap<Name, u64>,
    /// The highest command seq that is terminal, with all below it terminal too; 0 for none.
    pub seq_floor: u64,
}

/// A command as it goes to the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// For whom.
    pub device: DeviceAddress,
    /// Which.
    pub id: CommandId,
    /// The signed message as stored when it was created: signing again could give another hash.
    pub message: Bytes,
}

/// The fleet's database, as far as its broker side uses it.
#[async_trait]
pub trait FleetStore: Send + Sync + 'static {
    /// Applies the records, those of each device in their order and in **one** transaction: all are stored when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; what each device said is stored whole or not at all then, and repeating the batch does no harm.
    async fn apply(&self, records: &[Record]) -> Result<Applied, StoreError>;

    /// Turns every device that is online, and was not heard of for three of its heartbeat intervals (60 s
    /// where it never told one), offline by silence. Gives those that changed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn mark_silent(&self, now: DateTime<Utc>) -> Result<Vec<DeviceAddress>, StoreError>;

    /// What `down/sync` answers to this device; `None` when it is not registered.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn sync_state(&self, device: &DeviceAddress) -> Result<Option<SyncState>, StoreError>;

    /// Commands whose time passed without a terminal status become expired, to be withdrawn. Gives those.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn expire_commands(&self, now: DateTime<Utc>) -> Result<Vec<(DeviceAddress, CommandId)>, StoreError>;

    /// Commands that have to be published now, oldest first, at most `limit`; never those that their author
    /// publishes by hand.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn commands_to_publish(&self, limit: usize) -> Result<Vec<Outgoing>, StoreError>;

    /// The broker has them (PUBACK). Draft becomes published; a row that has moved on meanwhile stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn mark_published(&self, ids: &[CommandId], at: DateTime<Utc>) -> Result<(), StoreError>;

    /// Commands whose retained message has to go: terminal, expired or cancelled. At most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn commands_to_withdraw(&self, limit: usize) -> Result<Vec<(DeviceAddress, CommandId)>, StoreError>;

    /// The broker's copy is gone (PUBACK of the empty message).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn mark_withdrawn(&self, ids: &[CommandId]) -> Result<(), StoreError>;

    /// The published commands of one device that are not terminal, in their order: published again when the
    /// device syncs without knowing them, for the broker may have lost its copy.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn open_commands(&self, device: &DeviceAddress) -> Result<Vec<Outgoing>, StoreError>;
}
