//! The outbox's thinking part: which entry goes next, which goes overboard, what an acknowledgement frees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::id::Name;
use crate::topic::Up;

/// Numbers stay below what JSON readers hold exactly; a server that speaks of a higher one is not believed.
pub const MAX_SEQ: u64 = 1 << 53;

/// How much an entry matters; more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Dropped first.
    Telemetry,
    /// Dropped when there is no telemetry left.
    Event,
    /// Never dropped.
    Result,
}

/// A stream of numbered entries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKey {
    /// All command statuses.
    Results,
    /// All events.
    Events,
    /// One telemetry stream.
    Telemetry(Name),
}

impl StreamKey {
    /// The stream of a topic, if it goes through the outbox.
    pub fn of(up: &Up) -> Option<Self> {
        match up {
            Up::CommandStatus(_) => Some(Self::Results),
            Up::Event(_) => Some(Self::Events),
            Up::Telemetry(name) => Some(Self::Telemetry(name.clone())),
            _ => None,
        }
    }

    /// How much its entries matter.
    pub fn class(&self) -> Class {
        match self {
            Self::Results => Class::Result,
            Self::Events => Class::Event,
            Self::Telemetry(_) => Class::Telemetry,
        }
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Results => f.write_str("cmd"),
            Self::Events => f.write_str("evt"),
            Self::Telemetry(name) => write!(f, "tm/{name}"),
        }
    }
}

/// Sizes and times.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of all entries; telemetry and events above it are dropped.
    pub max_bytes: u64,
    /// Messages in flight. The protocol's Receive Maximum is 16, and others need some of it.
    pub window: usize,
    /// Entries in one telemetry batch.
    pub batch_items: usize,
    /// Bytes in one telemetry batch, about; must leave room in a packet for the batch's frame.
    pub batch_bytes: usize,
    /// How long after its PUBACK telemetry is sent again when `down/sync` does not acknowledge it.
    pub resend_after: Duration,
}

impl Default for Limits {
    /// 64 MiB, 8 in flight, batches of 50 entries and 128 KiB, sent again after two minutes (two heartbeats).
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            window: 8,
            batch_items: 50,
            batch_bytes: 128 << 10,
            resend_after: Duration::from_secs(120),
        }
    }
}

/// What a new entry got, and what had to go for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its number in its stream.
    pub seq: u64,
    /// Its place among all entries.
    pub order: u64,
    /// Entries dropped to make room.
    pub dropped: Vec<(StreamKey, u64)>,
}

/// What to send next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Names it until it is acknowledged.
    pub ticket: u64,
    /// From which stream.
    pub stream: StreamKey,
    /// Which entries, ascending.
    pub seqs: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not durable yet.
    Staged,
    /// May be sent from then on: new, held back, or sent and not acknowledged by the server.
    Due(Instant),
    InFlight(u64),
}

#[derive(Debug)]
struct Item {
    order: u64,
    bytes: usize,
    hold_until: Instant,
    phase: Phase,
}

#[derive(Debug, Default)]
struct Stream {
    next_seq: u64,
    dropped: u64,
    items: BTreeMap<u64, Item>,
    /// The items in phase `Due`.
    due: BTreeSet<(Instant, u64)>,
    /// Telemetry keeps its order by having one batch in flight.
    batch_in_flight: bool,
    /// Results and events are all due from the same instant on, so that `due` sorts them by number alone: one that comes
    /// back after a loss goes before all later ones.
    base: Option<Instant>,
}

impl Stream {
    fn due_at(&mut self, key: &StreamKey, at: Instant) -> Phase {
        if key.class() == Class::Telemetry {
            return Phase::Due(at);
        }
        Phase::Due(*self.base.get_or_insert(at))
    }

    fn set(&mut self, seq: u64, phase: Phase) {
        let Some(item) = self.items.get_mut(&seq) else { return };
        if let Phase::Due(at) = item.phase {
            self.due.remove(&(at, seq));
        }
        if let Phase::Due(at) = phase {
            self.due.insert((at, seq));
        }
        item.phase = phase;
    }

    fn take(&mut self, seq: u64) -> Option<Item> {
        let item = self.items.remove(&seq)?;
        if let Phase::Due(at) = item.phase {
            self.due.remove(&(at, seq));
        }
        Some(item)
    }
}

/// The plan: what there is and where it stands, without the entries' bodies.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    first_seq: u64,
    streams: BTreeMap<StreamKey, Stream>,
    by_age: BTreeMap<(Class, u64), (StreamKey, u64)>,
    staged: BTreeMap<u64, (StreamKey, u64)>,
    in_flight: BTreeMap<u64, (StreamKey, Vec<u64>)>,
    bytes: u64,
    /// Bytes per class, without results.
    droppable: BTreeMap<Class, u64>,
    next_order: u64,
    next_ticket: u64,
}

impl Plan {
    /// An empty plan. Streams that have no number yet begin at `first_seq`.
    pub fn new(limits: Limits, first_seq: u64) -> Self {
        Self {
            limits,
            first_seq: first_seq.max(1),
            streams: BTreeMap::new(),
            by_age: BTreeMap::new(),
            staged: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            bytes: 0,
            droppable: BTreeMap::new(),
            next_order: 1,
            next_ticket: 1,
        }
    }

    fn stream(&mut self, key: &StreamKey) -> &mut Stream {
        let first = self.first_seq;
        self.streams.entry(key.clone()).or_insert_with(|| Stream { next_seq: first, ..Stream::default() })
    }

    /// Takes over a stream's numbering from disk.
    pub fn restore_stream(&mut self, key: StreamKey, next_seq: u64, dropped: u64) {
        let stream = self.streams.entry(key).or_default();
        stream.next_seq = stream.next_seq.max(next_seq);
        stream.dropped = dropped;
    }

    /// Takes over an entry from disk; it may be sent at once.
    pub fn restore(&mut self, now: Instant, key: StreamKey, seq: u64, order: u64, bytes: usize) {
        let class = key.class();
        let stream = self.streams.entry(key.clone()).or_default();
        stream.next_seq = stream.next_seq.max(seq.saturating_add(1));
        stream.items.insert(seq, Item { order, bytes, hold_until: now, phase: Phase::Staged });
        let due = stream.due_at(&key, now);
        stream.set(seq, due);
        self.by_age.insert((class, order), (key, seq));
        self.count_in(class, bytes);
        self.next_order = self.next_order.max(order.saturating_add(1));
    }

    /// The number the next entry of a stream will get.
    pub fn next_seq(&self, key: &StreamKey) -> u64 {
        self.streams.get(key).map_or(self.first_seq, |stream| stream.next_seq)
    }

    /// The place the next entry will get among all.
    pub fn next_order(&self) -> u64 {
        self.next_order
    }

    /// Adds an entry that is about to be written; less important and older ones go for it when there is no room. None when
    /// it is itself what has to go.
    pub fn push(&mut self, now: Instant, key: &StreamKey, bytes: usize, hold: Duration) -> Option<Pushed> {
        let class = key.class();
        let over = (self.bytes + bytes as u64).saturating_sub(self.limits.max_bytes);
        let may_go: u64 = self.droppable.iter().filter(|(of, _)| **of <= class).map(|(_, bytes)| *bytes).sum();
        if over > may_go && class != Class::Result {
            return self.refuse(key);
        }
        let mut dropped = Vec::new();
        while self.bytes + bytes as u64 > self.limits.max_bytes {
            let oldest = self.by_age.first_key_value().map(|((class, _), at)| (*class, at.clone()));
            let Some((_, at)) = oldest.filter(|(victim, _)| *victim != Class::Result) else { break };
            self.drop_entry(&at);
            dropped.push(at);
        }
        let order = self.next_order;
        self.next_order += 1;
        let stream = self.stream(key);
        let seq = stream.next_seq;
        stream.next_seq = stream.next_seq.saturating_add(1);
        let hold_until = now.checked_add(hold).unwrap_or(now);
        stream.items.insert(seq, Item { order, bytes, hold_until, phase: Phase::Staged });
        self.by_age.insert((class, order), (key.clone(), seq));
        self.staged.insert(order, (key.clone(), seq));
        self.count_in(class, bytes);
        Some(Pushed { seq, order, dropped })
    }

    /// Counts an entry that could not be taken; it keeps its number, so that the gap shows.
    pub fn refuse(&mut self, key: &StreamKey) -> Option<Pushed> {
        let stream = self.stream(key);
        stream.next_seq = stream.next_seq.saturating_add(1);
        stream.dropped += 1;
        None
    }

    fn drop_entry(&mut self, at: &(StreamKey, u64)) {
        self.remove(&at.0, at.1);
        self.stream(&at.0).dropped += 1;
    }

    fn remove(&mut self, key: &StreamKey, seq: u64) -> bool {
        let Some(item) = self.streams.get_mut(key).and_then(|stream| stream.take(seq)) else { return false };
        self.by_age.remove(&(key.class(), item.order));
        self.staged.remove(&item.order);
        self.bytes -= item.bytes as u64;
        if let Some(bytes) = self.droppable.get_mut(&key.class()) {
            *bytes -= item.bytes as u64;
        }
        true
    }

    fn count_in(&mut self, class: Class, bytes: usize) {
        self.bytes += bytes as u64;
        if class != Class::Result {
            *self.droppable.entry(class).or_default() += bytes as u64;
        }
    }

    /// Everything pushed up to `order` is durable.
    pub fn committed(&mut self, order: u64) {
        let later = self.staged.split_off(&(order.saturating_add(1)));
        for (key, seq) in std::mem::replace(&mut self.staged, later).into_values() {
            let Some(stream) = self.streams.get_mut(&key) else { continue };
            let Some(at) = stream.items.get(&seq).map(|item| item.hold_until) else { continue };
            let due = stream.due_at(&key, at);
            stream.set(seq, due);
        }
    }

    /// What to send next.
    pub fn next(&mut self, now: Instant) -> Option<Sending> {
        if self.in_flight.len() >= self.limits.window {
            return None;
        }
        // Streams sort as results, events, telemetry: by what matters more.
        let (key, seqs) = self.streams.iter().find_map(|(key, stream)| {
            let seqs = pick(key, stream, now, &self.limits);
            (!seqs.is_empty()).then(|| (key.clone(), seqs))
        })?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let stream = self.stream(&key);
        stream.batch_in_flight = true;
        for seq in &seqs {
            stream.set(*seq, Phase::InFlight(ticket));
        }
        self.in_flight.insert(ticket, (key.clone(), seqs.clone()));
        Some(Sending { ticket, stream: key, seqs })
    }

    /// The broker has a message. Returns what is done with: results and events; telemetry waits for the server.
    pub fn acked(&mut self, now: Instant, ticket: u64) -> Vec<(StreamKey, u64)> {
        let Some((key, seqs)) = self.in_flight.remove(&ticket) else { return Vec::new() };
        self.stream(&key).batch_in_flight = false;
        if key.class() != Class::Telemetry {
            return seqs.into_iter().filter(|seq| self.remove(&key, *seq)).map(|seq| (key.clone(), seq)).collect();
        }
        let again = now.checked_add(self.limits.resend_after).unwrap_or(now);
        let stream = self.stream(&key);
        for seq in seqs {
            if stream.items.get(&seq).is_some_and(|item| item.phase == Phase::InFlight(ticket)) {
                stream.set(seq, Phase::Due(again));
            }
        }
        Vec::new()
    }

    /// A message that will never be taken: its entries are dropped and counted. Returns them.
    pub fn give_up(&mut self, ticket: u64) -> Vec<(StreamKey, u64)> {
        let Some((key, seqs)) = self.in_flight.remove(&ticket) else { return Vec::new() };
        self.stream(&key).batch_in_flight = false;
        let held = |seq: &u64| self.streams.get(&key).is_some_and(|stream| stream.items.contains_key(seq));
        let gone: Vec<(StreamKey, u64)> = seqs.into_iter().filter(held).map(|seq| (key.clone(), seq)).collect();
        gone.iter().for_each(|at| self.drop_entry(at));
        gone
    }

    /// Entries that turned out to be gone or to make no sense: dropped and counted, also from what is in flight.
    pub fn remove_lost(&mut self, sending: &Sending, lost: &[u64]) {
        for seq in lost {
            self.drop_entry(&(sending.stream.clone(), *seq));
        }
        if lost.len() == sending.seqs.len() {
            self.in_flight.remove(&sending.ticket);
            self.stream(&sending.stream).batch_in_flight = false;
        }
    }

    /// The server has a stream up to `seq`. Returns what is done with.
    pub fn acked_through(&mut self, key: &StreamKey, seq: u64) -> Vec<(StreamKey, u64)> {
        let Some(stream) = self.streams.get(key) else { return Vec::new() };
        let done: Vec<u64> =
            stream.items.range(..=seq).filter(|(_, item)| item.phase != Phase::Staged).map(|(seq, _)| *seq).collect();
        done.into_iter().filter(|seq| self.remove(key, *seq)).map(|seq| (key.clone(), seq)).collect()
    }

    /// Whether the server knows a number that this plan has never given. Not while something is being written: the next
    /// `down/sync` will say so again.
    pub fn is_beyond(&self, key: &StreamKey, seq: u64) -> bool {
        seq >= self.next_seq(key) && !self.staged.values().any(|(staged, _)| staged == key)
    }

    /// Gives every entry of a stream a new number above `seq`; returns old and new.
    pub fn renumber(&mut self, now: Instant, key: &StreamKey, seq: u64) -> Vec<(u64, u64)> {
        let tickets: Vec<u64> = self.in_flight.iter().filter(|(_, of)| of.0 == *key).map(|(t, _)| *t).collect();
        for ticket in tickets {
            self.in_flight.remove(&ticket);
        }
        let stream = self.stream(key);
        let items = std::mem::take(&mut stream.items);
        stream.due.clear();
        stream.batch_in_flight = false;
        stream.next_seq = seq.saturating_add(1);
        let mut moved = Vec::new();
        let mut orders = Vec::new();
        for (old, item) in items {
            let new = stream.next_seq;
            stream.next_seq = stream.next_seq.saturating_add(1);
            orders.push((item.order, new, item.phase == Phase::Staged));
            let phase = if item.phase == Phase::Staged { Phase::Staged } else { Phase::Due(now) };
            stream.items.insert(new, Item { phase: Phase::Staged, ..item });
            stream.set(new, phase);
            moved.push((old, new));
        }
        for (order, new, staged) in orders {
            self.by_age.insert((key.class(), order), (key.clone(), new));
            if staged {
                self.staged.insert(order, (key.clone(), new));
            }
        }
        moved
    }

    /// What was in flight will be sent again.
    pub fn disconnected(&mut self, now: Instant) {
        for (ticket, (key, seqs)) in std::mem::take(&mut self.in_flight) {
            let stream = self.stream(&key);
            stream.batch_in_flight = false;
            let due = stream.due_at(&key, now);
            for seq in seqs {
                if stream.items.get(&seq).is_some_and(|item| item.phase == Phase::InFlight(ticket)) {
                    stream.set(seq, due);
                }
            }
        }
    }

    /// When the next held entry becomes due; may lie in the past when the window is used up.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.in_flight.len() >= self.limits.window {
            return None;
        }
        let open =
            self.streams.iter().filter(|(key, stream)| key.class() != Class::Telemetry || !stream.batch_in_flight);
        open.filter_map(|(_, stream)| stream.due.first().map(|(at, _)| *at)).min()
    }

    /// The lowest number a stream still holds, or its next one.
    pub fn first_available(&self, key: &StreamKey) -> u64 {
        self.streams
            .get(key)
            .map_or(self.first_seq, |stream| stream.items.first_key_value().map_or(stream.next_seq, |(seq, _)| *seq))
    }

    /// Next number and count of dropped entries.
    pub fn numbering(&self, key: &StreamKey) -> (u64, u64) {
        self.streams.get(key).map_or((self.first_seq, 0), |stream| (stream.next_seq, stream.dropped))
    }

    /// Entries not yet acknowledged.
    pub fn pending(&self) -> u64 {
        self.streams.values().map(|stream| stream.items.len() as u64).sum()
    }

    /// Bytes of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries dropped since the outbox was made.
    pub fn dropped(&self) -> u64 {
        self.streams.values().map(|stream| stream.dropped).sum()
    }

    /// The highest number given, per telemetry stream.
    pub fn last_seqs(&self) -> Vec<(Name, u64)> {
        let telemetry = self.streams.iter().filter_map(|(key, stream)| match key {
            StreamKey::Telemetry(name) => Some((name.clone(), stream.next_seq.saturating_sub(1))),
            _ => None,
        });
        telemetry.collect()
    }
}

/// The entries of one stream that may go now: one of results and events, a batch of telemetry.
fn pick(key: &StreamKey, stream: &Stream, now: Instant, limits: &Limits) -> Vec<u64> {
    let due = stream.due.iter().take_while(|(at, _)| *at <= now).map(|(_, seq)| *seq);
    if key.class() != Class::Telemetry {
        return due.take(1).collect();
    }
    if stream.batch_in_flight {
        return Vec::new();
    }
    let mut bytes = 0;
    let mut seqs: Vec<u64> = due
        .take(limits.batch_items)
        .enumerate()
        .take_while(|(n, seq)| {
            bytes += stream.items.get(seq).map_or(0, |item| item.bytes);
            *n == 0 || bytes <= limits.batch_bytes
        })
        .map(|(_, seq)| seq)
        .collect();
    seqs.sort_unstable();
    seqs
}
