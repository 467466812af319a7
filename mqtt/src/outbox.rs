//! What is on its way to the fleet and must arrive: statuses, events, telemetry, on disk until acknowledged.
//!
//! Three classes. Results (command statuses) and events are acknowledged by PUBACK, one message each. Telemetry goes in
//! batches and is acknowledged by the server's `down/sync`, since a PUBACK only means that the broker has it. When the
//! outbox is full, the oldest telemetry goes first, then the oldest events; results are never dropped.
//!
//! [`Plan`] is the thinking part (numbers and sizes only); [`Outbox`] joins it to a [`KeyValue`] store. Numbers of a
//! stream only grow, also across restarts. After a wiped disk they begin at [`OutboxConfig::first_seq`]; see there.

mod plan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};

use crate::durable::{Changes, KeyValue};
use crate::error::MqttError;
use crate::id::Name;
use crate::payload::{Batch, BatchItem, Extra, Payload};
use crate::topic::Up;

pub use plan::{Class, Limits, MAX_SEQ, Plan, Pushed, Sending, StreamKey};

/// Key prefix of entries: then class digit, stream, `/` and the seq in big-endian.
const ENTRY: &[u8] = b"o/e/";
/// Key prefix of what is kept per stream.
const META: &[u8] = b"o/m/";
/// Stands for "no time known".
const NO_TIME: i64 = i64::MIN;

/// Settings of the outbox.
#[derive(Debug, Clone)]
pub struct OutboxConfig {
    /// Sizes and times of the plan.
    pub limits: Limits,
    /// Which start of the process this is.
    pub boot_seq: u64,
    /// The first number of a stream that has none yet. On a fresh disk use [`fresh_seq`], so that numbers still grow when
    /// an earlier disk of this device was wiped.
    pub first_seq: u64,
}

/// A first number that lies above all that an earlier life of this device can have used: seconds since 1970 shifted by
/// 20 bits, that is, a million entries a second; below 2^53 until the year 2242. 1 when the clock is not set.
pub fn fresh_seq(wall: Option<DateTime<Utc>>) -> u64 {
    let seconds = wall.and_then(|wall| u64::try_from(wall.timestamp()).ok()).unwrap_or(0);
    (seconds << 20).max(1)
}

/// An entry that has its number but is not durable yet.
#[derive(Debug)]
#[must_use = "commit the changes, then tell the outbox"]
pub struct Staged {
    /// Its number in its stream.
    pub seq: u64,
    /// For [`Outbox::committed`].
    pub order: u64,
    /// To be committed, alone or with others.
    pub changes: Changes,
}

/// A message to publish, QoS 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// For [`Outbox::acked`].
    pub ticket: u64,
    /// Where it goes.
    pub up: Up,
    /// The body.
    pub payload: Vec<u8>,
    /// The highest number in it.
    pub seq: u64,
    /// How many entries it carries.
    pub entries: usize,
}

/// What is kept per stream.
#[derive(Debug, Serialize, Deserialize)]
struct StreamMeta {
    next_seq: u64,
    dropped: u64,
}

/// The durable outbox.
pub struct Outbox {
    store: Arc<dyn KeyValue>,
    plan: Plan,
    config: OutboxConfig,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("pending", &self.plan.pending()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Reads what an earlier start left; all of it may be sent at once. Blocks while it reads.
    ///
    /// # Errors
    /// Those of the store. Entries that make no sense are dropped and counted.
    pub fn open(now: Instant, store: Arc<dyn KeyValue>, config: OutboxConfig) -> Result<Self, MqttError> {
        let mut plan = Plan::new(config.limits.clone(), config.first_seq);
        for (key, value) in store.scan(META)? {
            let stream = key.get(META.len()..).and_then(read_stream);
            let meta: Option<StreamMeta> = serde_json::from_slice(&value).ok();
            if let Some((stream, meta)) = stream.zip(meta) {
                plan.restore_stream(stream, meta.next_seq, meta.dropped);
            }
        }
        let mut broken = Changes::new();
        for (key, value) in store.scan(ENTRY)? {
            match read_key(&key).zip(Entry::read(&value)) {
                Some(((stream, seq), entry)) => plan.restore(now, stream, seq, entry.order, value.len()),
                None => broken.delete(key),
            }
        }
        let outbox = Self { store, plan, config };
        outbox.submit(broken);
        Ok(outbox)
    }

    /// Gives an entry its number; `payload` makes its body from that. Commit the changes (together with others, if that
    /// should be one transaction), then call [`Outbox::committed`]: nothing is published before it is durable.
    ///
    /// `hold` keeps telemetry back for a while, because a live copy is on its way.
    ///
    /// # Errors
    /// [`MqttError::StoreFull`] for telemetry and events when nothing less important can make room (counted as dropped);
    /// [`MqttError::Bug`] for a topic that does not go through the outbox.
    pub fn stage(
        &mut self,
        now: Instant,
        up: &Up,
        hold: Duration,
        ts: Option<DateTime<Utc>>,
        payload: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<Staged, MqttError> {
        let stream = StreamKey::of(up).ok_or_else(|| MqttError::Bug(format!("{up} does not go through the outbox")))?;
        let seq = self.plan.next_seq(&stream);
        let body = payload(seq);
        let entry = Entry {
            order: self.plan.next_order(),
            ts_ms: ts.map_or(NO_TIME, |ts| ts.timestamp_millis()),
            target: up.to_string(),
            body,
        };
        let value = entry.write();
        let full = self.store.is_full() && stream.class() != Class::Result;
        let pushed = if full { self.plan.refuse(&stream) } else { self.plan.push(now, &stream, value.len(), hold) };
        let Some(pushed) = pushed else {
            let mut changes = Changes::new();
            self.put_meta(&mut changes, &stream);
            self.submit(changes);
            return Err(MqttError::StoreFull { used: self.plan.bytes(), limit: self.config.limits.max_bytes });
        };
        let mut changes = Changes::new();
        changes.put(entry_key(&stream, pushed.seq), value);
        self.delete(&mut changes, &pushed.dropped);
        Ok(Staged { seq: pushed.seq, order: pushed.order, changes })
    }

    /// Everything staged up to `order` is durable now.
    pub fn committed(&mut self, order: u64) {
        self.plan.committed(order);
    }

    /// Stages, waits until it is durable, and makes it sendable. Blocks: for tests and simple programs.
    ///
    /// # Errors
    /// As [`Outbox::stage`], and those of the store.
    pub fn enqueue(
        &mut self,
        now: Instant,
        up: &Up,
        ts: Option<DateTime<Utc>>,
        payload: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<u64, MqttError> {
        let staged = self.stage(now, up, Duration::ZERO, ts, payload)?;
        self.store.commit(staged.changes)?;
        self.committed(staged.order);
        Ok(staged.seq)
    }

    /// The next message to publish, results before events before telemetry; none when the window is used up or nothing is
    /// due. It counts as in flight until [`Outbox::acked`] or [`Outbox::disconnected`].
    ///
    /// # Errors
    /// Those of the store.
    pub fn next_batch(&mut self, now: Instant) -> Result<Option<Outgoing>, MqttError> {
        while let Some(sending) = self.plan.next(now) {
            let entries = self.read(&sending)?;
            let (outgoing, lost) = self.pack(&sending, entries);
            // Rows that are gone or make no sense must not stand in the way of those behind them.
            if !lost.is_empty() {
                let mut changes = Changes::new();
                self.plan.remove_lost(&sending, &lost);
                let lost: Vec<_> = lost.into_iter().map(|seq| (sending.stream.clone(), seq)).collect();
                self.delete(&mut changes, &lost);
                self.submit(changes);
            }
            if outgoing.is_some() {
                return Ok(outgoing);
            }
        }
        Ok(None)
    }

    fn read(&self, sending: &Sending) -> Result<Vec<(u64, Option<Entry>)>, MqttError> {
        let row = |seq: &u64| {
            let value = self.store.get(&entry_key(&sending.stream, *seq))?;
            Ok((*seq, value.as_deref().and_then(Entry::read)))
        };
        sending.seqs.iter().map(row).collect()
    }

    /// The message, and the numbers of what could not go into one.
    fn pack(&self, sending: &Sending, entries: Vec<(u64, Option<Entry>)>) -> (Option<Outgoing>, Vec<u64>) {
        let ticket = sending.ticket;
        let StreamKey::Telemetry(stream) = &sending.stream else {
            let whole = entries.into_iter().find_map(|(seq, entry)| {
                let entry = entry?;
                let up = entry.target.parse().ok()?;
                Some(Outgoing { ticket, up, payload: entry.body, seq, entries: 1 })
            });
            let lost = if whole.is_some() { Vec::new() } else { sending.seqs.clone() };
            return (whole, lost);
        };
        let mut lost = Vec::new();
        let mut items = Vec::with_capacity(entries.len());
        for (seq, entry) in entries {
            let item = entry.and_then(|entry| {
                let ts = Utc.timestamp_millis_opt(entry.ts_ms).single();
                Some(BatchItem { seq, ts, data: serde_json::from_slice(&entry.body).ok()? })
            });
            match item {
                Some(item) => items.push(item),
                None => lost.push(seq),
            }
        }
        let (seq, entries) = (items.last().map_or(0, |item| item.seq), items.len());
        let payload = if items.is_empty() { None } else { self.batch(&sending.stream, stream, items) };
        let up = Up::Telemetry(stream.clone());
        match payload {
            Some(payload) => (Some(Outgoing { ticket, up, payload, seq, entries }), lost),
            None => (None, sending.seqs.clone()),
        }
    }

    fn batch(&self, key: &StreamKey, stream: &Name, items: Vec<BatchItem>) -> Option<Vec<u8>> {
        let batch = Batch {
            stream: stream.clone(),
            boot_seq: self.config.boot_seq,
            first_available: self.plan.first_available(key),
            items,
            extra: Extra::new(),
        };
        batch.to_bytes().ok()
    }

    /// The broker acknowledged a message. Telemetry stays until the server has said that it is stored.
    pub fn acked(&mut self, now: Instant, ticket: u64) {
        let removed = self.plan.acked(now, ticket);
        let mut changes = Changes::new();
        self.delete(&mut changes, &removed);
        self.submit(changes);
    }

    /// The broker will never take a message (too large for it, not authorized): its entries are dropped and counted, since
    /// sending them again would not end.
    pub fn give_up(&mut self, ticket: u64) {
        let gone = self.plan.give_up(ticket);
        let mut changes = Changes::new();
        self.delete(&mut changes, &gone);
        self.submit(changes);
    }

    /// The server has stored a telemetry stream up to `seq` (`down/sync`).
    ///
    /// # Errors
    /// Those of the store, when entries have to be renumbered: the server knows higher numbers than this outbox ever gave,
    /// so this disk was wiped while the clock was not set.
    pub fn acked_through(&mut self, now: Instant, stream: &Name, seq: u64) -> Result<(), MqttError> {
        if seq >= MAX_SEQ {
            tracing::warn!(%stream, seq, "an impossible acknowledgement is ignored");
            return Ok(());
        }
        let key = StreamKey::Telemetry(stream.clone());
        let mut changes = Changes::new();
        if self.plan.is_beyond(&key, seq) {
            for (old, new) in self.plan.renumber(now, &key, seq) {
                if let Some(value) = self.store.get(&entry_key(&key, old))? {
                    changes.put(entry_key(&key, new), value);
                }
                changes.delete(entry_key(&key, old));
            }
            self.put_meta(&mut changes, &key);
        } else {
            let removed = self.plan.acked_through(&key, seq);
            self.delete(&mut changes, &removed);
        }
        self.submit(changes);
        Ok(())
    }

    /// The connection is gone: whatever was in flight will be sent again, in order.
    pub fn disconnected(&mut self, now: Instant) {
        self.plan.disconnected(now);
    }

    /// When something that is held back or not yet acknowledged becomes due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.plan.poll_timeout()
    }

    /// Entries not yet acknowledged.
    pub fn pending(&self) -> u64 {
        self.plan.pending()
    }

    /// Entries dropped since the outbox was made.
    pub fn dropped(&self) -> u64 {
        self.plan.dropped()
    }

    /// The highest number given, per telemetry stream.
    pub fn last_seqs(&self) -> Vec<(Name, u64)> {
        self.plan.last_seqs()
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn KeyValue> {
        &self.store
    }

    fn delete(&self, changes: &mut Changes, removed: &[(StreamKey, u64)]) {
        let mut touched: Vec<&StreamKey> = Vec::new();
        for (stream, seq) in removed {
            changes.delete(entry_key(stream, *seq));
            if !touched.contains(&stream) {
                touched.push(stream);
            }
        }
        // A stream may now be empty: its numbering must survive that.
        for stream in touched {
            self.put_meta(changes, stream);
        }
    }

    fn put_meta(&self, changes: &mut Changes, stream: &StreamKey) {
        let (next_seq, dropped) = self.plan.numbering(stream);
        if let Ok(meta) = serde_json::to_vec(&StreamMeta { next_seq, dropped }) {
            changes.put([META, stream.to_string().as_bytes()].concat(), meta);
        }
    }

    /// For changes nobody waits for: what they remove would merely be sent again.
    fn submit(&self, changes: Changes) {
        if !changes.is_empty() {
            self.store.submit_lazily(changes);
        }
    }
}

/// An entry as it lies on disk: time, order, target, body.
struct Entry {
    order: u64,
    ts_ms: i64,
    target: String,
    body: Vec<u8>,
}

impl Entry {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(18 + self.target.len() + self.body.len());
        out.extend(self.ts_ms.to_be_bytes());
        out.extend(self.order.to_be_bytes());
        // A target is a topic's tail, under 80 bytes.
        out.extend((self.target.len() as u16).to_be_bytes());
        out.extend(self.target.as_bytes());
        out.extend(&self.body);
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (ts, rest) = bytes.split_first_chunk::<8>()?;
        let (order, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (target, body) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
        Some(Self {
            ts_ms: i64::from_be_bytes(*ts),
            order: u64::from_be_bytes(*order),
            target: String::from_utf8(target.to_vec()).ok()?,
            body: body.to_vec(),
        })
    }
}

fn entry_key(stream: &StreamKey, seq: u64) -> Vec<u8> {
    [ENTRY, stream.to_string().as_bytes(), b"/", &seq.to_be_bytes()].concat()
}

fn read_key(key: &[u8]) -> Option<(StreamKey, u64)> {
    let rest = key.strip_prefix(ENTRY)?;
    let (stream, seq) = rest.split_last_chunk::<8>()?;
    Some((read_stream(stream.strip_suffix(b"/")?)?, u64::from_be_bytes(*seq)))
}

fn read_stream(bytes: &[u8]) -> Option<StreamKey> {
    match std::str::from_utf8(bytes).ok()? {
        "cmd" => Some(StreamKey::Results),
        "evt" => Some(StreamKey::Events),
        other => Some(StreamKey::Telemetry(Name::new(other.strip_prefix("tm/")?).ok()?)),
    }
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;
