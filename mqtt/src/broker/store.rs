//! What the broker keeps on disk: retained messages, sessions, and what waits for clients that are away.
//!
//! sled under `{state_dir}/broker`, one tree for each kind, rows by postcard. sled writes changes to the file each
//! `flush_interval`: what is older survives `kill -9`. There is no fsync, because none of it is the truth: the database
//! and the devices' outboxes are, and `sync` repairs what a power cut takes. Data that cannot be read are moved aside.
//!
//! [`Store::close`] gives the directory back even while rmqtt still holds references to this store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking::Locked;
use rmqtt::codec::v5::Disconnect as DisconnectPacket;
use rmqtt::inflight::OutInflightMessage;
use rmqtt::types::{
    ConnectInfo, Disconnect, DisconnectInfo, From as Sender, Id, Publish, Retain, SubscriptionOptions, TimestampMillis,
    TopicFilter,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::MqttError;

/// Memory that sled may use for its page cache.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// A session without its messages.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SessionRow {
    pub id: Id,
    pub conn: ConnectInfo,
    pub created_at: TimestampMillis,
    pub connected_at: TimestampMillis,
}

/// When and how a client went; rmqtt's own record of it also holds reasons that nobody reads again.
#[derive(Debug, Serialize, Deserialize)]
struct GoneRow {
    at: TimestampMillis,
    goodbye: bool,
    expiry_secs: Option<u32>,
}

impl GoneRow {
    fn of(gone: &DisconnectInfo) -> Self {
        let expiry_secs = match &gone.mqtt_disconnect {
            Some(Disconnect::V5(packet)) => packet.session_expiry_interval_secs,
            _ => None,
        };
        Self { at: gone.disconnected_at, goodbye: gone.mqtt_disconnect.is_some(), expiry_secs }
    }

    fn into_info(self) -> DisconnectInfo {
        let mut gone = DisconnectInfo::new(self.at);
        gone.mqtt_disconnect = self.goodbye.then(|| {
            Disconnect::V5(DisconnectPacket { session_expiry_interval_secs: self.expiry_secs, ..Default::default() })
        });
        gone
    }
}

/// A session as it is found at a start.
pub(super) struct Found {
    pub row: SessionRow,
    pub subscriptions: Vec<(TopicFilter, SubscriptionOptions)>,
    pub gone: Option<DisconnectInfo>,
    pub inflight: Vec<OutInflightMessage>,
    pub queue: Vec<(Sender, Publish)>,
}

/// A retained message as it is kept: eight bytes of expiry (milliseconds since 1970, 0 for never), then the message. It
/// shares no memory with the packet that it came in: rmqtt's messages are slices of its read buffers, and one of them
/// would keep some kilobytes alive for as long as it is retained.
pub(super) struct RetainedRow<'a>(pub &'a [u8]);

impl RetainedRow<'_> {
    pub(super) fn encode(retain: &Retain, expires_at: Option<TimestampMillis>) -> Option<Vec<u8>> {
        let mut row = expires_at.unwrap_or(0).to_be_bytes().to_vec();
        row.extend_from_slice(&encode(retain)?);
        Some(row)
    }

    pub(super) fn decode(&self) -> Option<Retain> {
        decode(self.0.get(8..)?)
    }

    /// Whether it has expired.
    pub(super) fn is_over(&self, now: TimestampMillis) -> bool {
        let expiry = self.0.first_chunk().map_or(0, |bytes| TimestampMillis::from_be_bytes(*bytes));
        expiry != 0 && expiry <= now
    }
}

#[derive(Debug)]
struct Trees {
    db: sled::Db,
    retained: sled::Tree,
    sessions: sled::Tree,
    subscriptions: sled::Tree,
    gone: sled::Tree,
    inflight: sled::Tree,
    queue: sled::Tree,
}

#[derive(Debug)]
struct Open {
    trees: Option<Trees>,
    /// Which connection of a client writes its rows; an older one has been taken over.
    owners: HashMap<String, Id>,
    sequence: u64,
}

/// The store; shared by reference.
#[derive(Debug)]
pub(super) struct Store {
    open: Locked<Open>,
}

/// A mutex that outlives a panic of one holder: every change to the rows is whole by itself.
mod parking {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    #[derive(Debug)]
    pub(super) struct Locked<T>(Mutex<T>);

    impl<T> Locked<T> {
        pub(super) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

impl Store {
    /// Opens or makes the store.
    pub(super) fn open(state_dir: &Path, flush_interval: Duration) -> Result<Self, MqttError> {
        let path = state_dir.join("broker");
        std::fs::create_dir_all(&path)
            .map_err(|source| MqttError::Io { what: format!("make {}", path.display()), source })?;
        let trees = match open_trees(&path, flush_interval) {
            Ok(trees) => trees,
            Err(e) if is_locked(&e) => return Err(MqttError::StoreLocked { path: path.display().to_string() }),
            Err(e @ (sled::Error::Corruption { .. } | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_))) => {
                quarantine(&path, &e)?;
                open_trees(&path, flush_interval).map_err(|e| MqttError::Store(e.to_string()))?
            }
            Err(e) => return Err(MqttError::Store(e.to_string())),
        };
        let sequence = last_sequence(&trees.queue);
        Ok(Self { open: Locked::new(Open { trees: Some(trees), owners: HashMap::new(), sequence }) })
    }

    /// Writes everything and closes the files. Later calls do nothing.
    pub(super) fn close(&self) {
        let trees = self.open.lock().trees.take();
        if let Some(trees) = trees
            && let Err(e) = trees.db.flush()
        {
            error!(error = %e, "broker store not flushed");
        }
    }

    fn with<R>(&self, work: impl FnOnce(&Trees) -> sled::Result<R>) -> Option<R> {
        let open = self.open.lock();
        match work(open.trees.as_ref()?) {
            Ok(done) => Some(done),
            Err(e) => {
                error!(error = %e, "broker store");
                None
            }
        }
    }

    // Retained messages.

    /// Keeps a retained message.
    pub(super) fn put_retained(&self, topic: &str, row: Vec<u8>) {
        self.with(|t| t.retained.insert(topic, row).map(drop));
    }

    /// Forgets a retained message.
    pub(super) fn remove_retained(&self, topic: &str) {
        self.with(|t| t.retained.remove(topic).map(drop));
    }

    /// Hands out all retained messages that have not expired; expired and unreadable ones are removed.
    pub(super) fn each_retained(&self, now: TimestampMillis, mut found: impl FnMut(&str, &[u8])) {
        self.with(|t| {
            for item in &t.retained {
                let (key, row) = item?;
                let retained = RetainedRow(&row);
                match std::str::from_utf8(&key) {
                    Ok(topic) if !retained.is_over(now) && retained.decode().is_some() => found(topic, &row),
                    _ => drop(t.retained.remove(&key)?),
                }
            }
            Ok(())
        });
    }

    /// Removes what has expired.
    pub(super) fn sweep_retained(&self, now: TimestampMillis) {
        let expired = self.with(|t| {
            let mut expired = Vec::new();
            for item in &t.retained {
                let (key, value) = item?;
                if RetainedRow(&value).is_over(now) {
                    expired.push(key);
                }
            }
            Ok(expired)
        });
        for key in expired.unwrap_or_default() {
            self.with(|t| t.retained.remove(&key).map(drop));
        }
    }

    // Sessions. Only the connection that owns a client's rows may write them.

    /// Makes this connection the owner of its client's rows.
    pub(super) fn adopt(&self, id: &Id) {
        self.open.lock().owners.insert(id.client_id.to_string(), id.clone());
    }

    fn owned<R>(&self, id: &Id, work: impl FnOnce(&Trees) -> sled::Result<R>) -> Option<R> {
        let open = self.open.lock();
        if open.owners.get(&*id.client_id) != Some(id) {
            return None;
        }
        match work(open.trees.as_ref()?) {
            Ok(done) => Some(done),
            Err(e) => {
                error!(error = %e, "broker store");
                None
            }
        }
    }

    /// A client connected: its session is here, and it is not gone.
    pub(super) fn put_session(&self, row: &SessionRow) {
        let Some(value) = encode(row) else { return };
        self.owned(&row.id, |t| {
            t.gone.remove(key(&row.id))?;
            t.sessions.insert(key(&row.id), value).map(drop)
        });
    }

    /// Its subscriptions changed.
    pub(super) fn put_subscriptions(&self, id: &Id, subscriptions: &[(TopicFilter, SubscriptionOptions)]) {
        let Some(value) = encode(&subscriptions) else { return };
        self.owned(id, |t| t.subscriptions.insert(key(id), value).map(drop));
    }

    /// Its subscriptions.
    pub(super) fn subscriptions(&self, id: &Id) -> Vec<(TopicFilter, SubscriptionOptions)> {
        self.owned(id, |t| get(&t.subscriptions, key(id))).flatten().unwrap_or_default()
    }

    /// It went.
    pub(super) fn put_gone(&self, id: &Id, gone: &DisconnectInfo) {
        let Some(value) = encode(&GoneRow::of(gone)) else { return };
        self.owned(id, |t| t.gone.insert(key(id), value).map(drop));
    }

    /// What it had not acknowledged when it went.
    pub(super) fn put_inflight(&self, id: &Id, messages: &[OutInflightMessage]) {
        let Some(value) = encode(&messages) else { return };
        self.owned(id, |t| t.inflight.insert(key(id), value).map(drop));
    }

    /// A message waits for it.
    pub(super) fn push_queue(&self, id: &Id, from: &Sender, publish: &Publish) {
        let Some(value) = encode(&(from, publish)) else { return };
        let sequence = {
            let mut open = self.open.lock();
            open.sequence += 1;
            open.sequence
        };
        let mut queue_key = prefix(id);
        queue_key.extend_from_slice(&sequence.to_be_bytes());
        self.owned(id, |t| t.queue.insert(queue_key, value).map(drop));
    }

    /// Nothing waits for it any more: it has been handed to the connection.
    pub(super) fn clear_messages(&self, id: &Id) {
        self.owned(id, |t| {
            t.inflight.remove(key(id))?;
            clear_prefix(&t.queue, &prefix(id))
        });
    }

    /// Its session ended.
    pub(super) fn remove_session(&self, id: &Id) {
        self.owned(id, |t| {
            t.sessions.remove(key(id))?;
            t.subscriptions.remove(key(id))?;
            t.gone.remove(key(id))?;
            t.inflight.remove(key(id))?;
            clear_prefix(&t.queue, &prefix(id))
        });
        let mut open = self.open.lock();
        if open.owners.get(&*id.client_id) == Some(id) {
            open.owners.remove(&*id.client_id);
        }
    }

    /// All sessions, as a start finds them. Unreadable rows are removed.
    pub(super) fn all_sessions(&self) -> Vec<Found> {
        self.with(|t| {
            let mut found = Vec::new();
            for item in &t.sessions {
                let (key, value) = item?;
                let Some(row) = decode::<SessionRow>(&value) else {
                    t.sessions.remove(&key)?;
                    continue;
                };
                let mut queue = Vec::new();
                for item in t.queue.scan_prefix(prefix(&row.id)) {
                    queue.extend(decode(&item?.1));
                }
                found.push(Found {
                    subscriptions: get(&t.subscriptions, &key)?.unwrap_or_default(),
                    gone: get(&t.gone, &key)?.map(GoneRow::into_info),
                    inflight: get(&t.inflight, &key)?.unwrap_or_default(),
                    queue,
                    row,
                });
            }
            Ok(found)
        })
        .unwrap_or_default()
    }
}

fn open_trees(path: &Path, flush_interval: Duration) -> sled::Result<Trees> {
    let every = u64::try_from(flush_interval.as_millis()).unwrap_or(500).max(1);
    let db = sled::Config::default()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(every))
        .open()?;
    Ok(Trees {
        retained: db.open_tree("retained")?,
        sessions: db.open_tree("sessions")?,
        subscriptions: db.open_tree("subscriptions")?,
        gone: db.open_tree("gone")?,
        inflight: db.open_tree("inflight")?,
        queue: db.open_tree("queue")?,
        db,
    })
}

fn is_locked(e: &sled::Error) -> bool {
    matches!(e, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

/// Moves unreadable files aside, for whoever wants to look, and makes room for fresh ones.
fn quarantine(path: &Path, why: &sled::Error) -> Result<(), MqttError> {
    let aside = (0..1000)
        .map(|n| PathBuf::from(format!("{}.corrupt-{n}", path.display())))
        .find(|p| !p.exists())
        .unwrap_or_else(|| PathBuf::from(format!("{}.corrupt", path.display())));
    warn!(error = %why, aside = %aside.display(), "broker store is corrupt: moved aside, starting empty");
    std::fs::rename(path, &aside)
        .and_then(|()| std::fs::create_dir_all(path))
        .map_err(|source| MqttError::Io { what: format!("move {} aside", path.display()), source })
}

fn encode<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| error!(error = %e, "broker store: row not written")).ok()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).map_err(|e| warn!(error = %e, "broker store: unreadable row skipped")).ok()
}

fn get<T: DeserializeOwned>(tree: &sled::Tree, key: &[u8]) -> sled::Result<Option<T>> {
    Ok(tree.get(key)?.and_then(|value| decode(&value)))
}

fn key(id: &Id) -> &[u8] {
    id.client_id.as_bytes()
}

/// A client id cannot contain a zero byte (MQTT 1.5.4), so no client's prefix begins another's.
fn prefix(id: &Id) -> Vec<u8> {
    let mut prefix = id.client_id.as_bytes().to_vec();
    prefix.push(0);
    prefix
}

fn clear_prefix(tree: &sled::Tree, prefix: &[u8]) -> sled::Result<()> {
    let mut batch = sled::Batch::default();
    for key in tree.scan_prefix(prefix).keys() {
        batch.remove(key?);
    }
    tree.apply_batch(batch)
}

/// Highest sequence number among all queued messages; they end in it.
fn last_sequence(queue: &sled::Tree) -> u64 {
    queue
        .iter()
        .keys()
        .filter_map(Result::ok)
        .filter_map(|key| Some(u64::from_be_bytes(key.get(key.len().checked_sub(8)?..)?.try_into().ok()?)))
        .max()
        .unwrap_or(0)
}
