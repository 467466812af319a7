//! The database as Ingest and the CommandDesk use it: many messages in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use r58_actors::ingest::store::{Applied, FleetStore, Outgoing, Record, Report, StoreError as SeamError, SyncState};
use r58_mqtt::payload::{Batch, Heartbeat, Presence, PresenceState};
use r58_mqtt::{CommandId, DeviceAddress, DeviceId, Name, OrgId};
use serde::Deserialize as _;

use super::alerts::worth;
use super::commands::Retained;
use super::heartbeats::{HeartbeatRow, insert};
use super::ingest::{self, TelemetryRow, signed};
use super::levels;
use super::meters::{CommandEnd, StoreMeters};
use super::pulse::{self, HEARTBEATS, Pulse};
use super::sql::Tx;
use super::status::{self, StatusOutcome};
use super::{CommandRef, DeviceNo, Store, StoreError, clocks, millis, overdue};
use crate::fleet::ErrorKind;
use crate::fleet::alerts::outline::{NO_RULES, Outlooks};

/// How long after its expiry a command that had begun may still report before it counts as expired.
const GRACE: Duration = Duration::hours(24);
/// Parts in which many records are stored.
const PARTS: usize = 4;
/// So many records are many.
const MANY: usize = 1024;
/// Of a device's live heartbeats that come in turn every second one is acknowledged, with the one before it: a device waits two of
/// them before it sends one again. Half of what a server says to its fleet is saved that way.
const ACKNOWLEDGED_EVERY: u64 = 2;
/// Commands that expire in one transaction.
const EXPIRE_AT_ONCE: i64 = 500;

impl From<StoreError> for SeamError {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            ErrorKind::Transient | ErrorKind::Unavailable => Self::Unavailable(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// What a batch does with the pulses of its devices before it writes them.
#[derive(Debug, Clone, Copy)]
enum Hold {
    Look,
    Hold,
}

/// What a batch does, gathered before it is written.
struct Work<'a> {
    tx: Tx,
    heartbeats: Vec<HeartbeatRow>,
    /// What was known of each device before the batch; the transaction holds them, or only looked at them.
    held: HashMap<DeviceNo, Pulse>,
    /// How far each other stream was stored before the batch.
    streams: HashMap<DeviceNo, HashMap<String, u64>>,
    /// How far it is with the batch, for each stream that the batch touches.
    marks: HashMap<(DeviceNo, &'a str), (&'a DeviceAddress, u64)>,
    /// Devices that are told how far their heartbeats are stored.
    told: BTreeSet<DeviceNo>,
    seen: HashMap<DeviceNo, i64>,
    /// Those whose alerts somebody has to look at.
    changed: BTreeSet<DeviceNo>,
    outlooks: Arc<Outlooks>,
    devices: HashMap<DeviceNo, &'a DeviceAddress>,
    commands: BTreeSet<(&'a DeviceAddress, CommandId)>,
    /// How commands ended.
    ends: Vec<CommandEnd>,
}

/// Whether a report moves the mark of a stream other than that of heartbeats.
fn names_a_stream(report: &Report) -> bool {
    match report {
        Report::Batch(batch) => batch.stream.as_str() != HEARTBEATS,
        Report::Event { position, .. } => position.is_some(),
        Report::Status { position, .. } => position.is_some(),
        Report::Sync(_) => true,
        Report::Presence(_) | Report::Heartbeat { .. } | Report::Caps(_) | Report::Reported { .. } => false,
    }
}

impl<'a> Work<'a> {
    fn held(&self, no: DeviceNo, stream: &str) -> u64 {
        match stream {
            HEARTBEATS => self.held.get(&no).map_or(0, |held| held.mark),
            _ => self.streams.get(&no).and_then(|streams| streams.get(stream)).copied().unwrap_or(0),
        }
    }

    fn mark(&mut self, device: &'a DeviceAddress, no: DeviceNo, stream: &'a str) -> &mut u64 {
        let held = self.held(no, stream);
        &mut self.marks.entry((no, stream)).or_insert((device, held)).1
    }

    fn heartbeat(&mut self, record: &Record, no: DeviceNo, heartbeat: &Heartbeat, body: Arc<str>) {
        let (metrics, received_at) = (&heartbeat.metrics, record.received_at);
        let outlook = self.outlooks.get(record.device.org.as_str());
        self.heartbeats.push(HeartbeatRow {
            device: no,
            ts: heartbeat.ts,
            boot_seq: signed(heartbeat.boot_seq),
            uptime_s: signed(heartbeat.uptime_seconds),
            seq: signed(heartbeat.seq),
            received_at,
            cpu_percent: metrics.cpu_percent,
            mem_percent: metrics.mem_percent,
            disk_free_gb: metrics.disk_free_gb,
            temperature_c: metrics.temperature_c,
            load_avg: metrics.load_avg.as_ref().and_then(|load| load.first().copied()),
            degradation_level: Some(i64::from(heartbeat.status.degradation_level)),
            interval_s: (heartbeat.interval_s > 0).then_some(i64::from(heartbeat.interval_s)),
            outline: outlook.unwrap_or(&NO_RULES).outline(heartbeat, millis(received_at)),
            body,
        });
    }

    async fn record(&mut self, no: DeviceNo, record: &'a Record) -> Result<(), StoreError> {
        let device = &record.device;
        let now = millis(record.received_at);
        if !matches!(&record.report, Report::Presence(Presence { state: PresenceState::Offline, .. })) {
            let seen = self.seen.entry(no).or_insert(now);
            *seen = now.max(*seen);
        }
        match &record.report {
            Report::Presence(presence) => {
                if ingest::presence(&mut self.tx, no, presence, now).await? {
                    self.devices.insert(no, device);
                    self.changed.insert(no);
                }
            }
            Report::Heartbeat { heartbeat, body } => {
                self.heartbeat(record, no, heartbeat, body.clone());
                let mark = self.mark(device, no, HEARTBEATS);
                let in_turn = heartbeat.seq == mark.saturating_add(1);
                if in_turn {
                    *mark = heartbeat.seq;
                }
                if !in_turn || heartbeat.seq.is_multiple_of(ACKNOWLEDGED_EVERY) {
                    self.told.insert(no);
                }
                self.devices.insert(no, device);
            }
            Report::Batch(batch) => self.batch(record, no, batch).await?,
            Report::Event { event, position } => {
                if let Some(position) = position {
                    let mark = self.mark(device, no, position.stream.as_str());
                    *mark = position.contiguous_after(*mark);
                }
                let row = TelemetryRow {
                    device: no,
                    stream: &format!("evt/{}", event.kind),
                    boot_seq: signed(event.boot_seq),
                    seq: signed(event.seq),
                    ts: event.ts.map_or(now, millis),
                    body: serde_json::to_string(event).map_err(|_| StoreError::Bug("event".into()))?,
                };
                ingest::telemetry(&mut self.tx, &row, now).await?;
            }
            Report::Status { status, position } => {
                if let Some(position) = position {
                    let mark = self.mark(device, no, position.stream.as_str());
                    *mark = position.contiguous_after(*mark);
                }
                match status::apply(&mut self.tx, device, status, now).await? {
                    StatusOutcome::News(row) => {
                        tracing::debug!(%device, command = %row.id, state = %row.state, "status stored");
                        self.commands.insert((device, status.id.clone()));
                        self.ends.extend(CommandEnd::of(&row));
                    }
                    StatusOutcome::Again => {
                        self.commands.insert((device, status.id.clone()));
                    }
                    StatusOutcome::Old => {}
                    StatusOutcome::Foreign => {
                        tracing::debug!(%device, "a status speaks of another device's command");
                    }
                }
            }
            Report::Caps(caps) => {
                let body = serde_json::to_string(caps).map_err(|_| StoreError::Bug("caps".into()))?;
                ingest::caps(&mut self.tx, no, &body).await?;
                self.devices.insert(no, device);
            }
            Report::Reported { reported, body } => {
                if ingest::reported(&mut self.tx, no, reported, body).await? {
                    self.devices.insert(no, device);
                }
            }
            Report::Sync(sync) => {
                status::number_above(&mut self.tx, device, sync.seq_floor).await?;
                self.told.insert(no);
                for (stream, highest) in &sync.streams {
                    let mark = self.mark(device, no, stream.as_str());
                    if *highest < *mark {
                        tracing::debug!(%device, %stream, "the device numbers this stream anew: its outbox was wiped");
                        *mark = 0;
                    }
                }
            }
        }
        Ok(())
    }

    async fn batch(&mut self, record: &'a Record, no: DeviceNo, batch: &'a Batch) -> Result<(), StoreError> {
        let (device, now) = (&record.device, millis(record.received_at));
        let mark = self.mark(device, no, batch.stream.as_str());
        let held = *mark;
        *mark = batch.contiguous_after(held);
        let heartbeats = batch.stream.as_str() == HEARTBEATS;
        for item in batch.items.iter().filter(|item| item.seq > held) {
            if heartbeats {
                match Heartbeat::deserialize(&item.data) {
                    Ok(heartbeat) => self.heartbeat(record, no, &heartbeat, item.data.to_string().into()),
                    Err(_) => tracing::debug!(%device, seq = item.seq, "an item of stream hb is no heartbeat"),
                }
                continue;
            }
            let row = TelemetryRow {
                device: no,
                stream: batch.stream.as_str(),
                boot_seq: signed(batch.boot_seq),
                seq: signed(item.seq),
                ts: item.ts.map_or(now, millis),
                body: item.data.to_string(),
            };
            ingest::telemetry(&mut self.tx, &row, now).await?;
        }
        if heartbeats {
            self.devices.insert(no, device);
            self.told.insert(no);
        }
        Ok(())
    }

    /// `None`, and nothing is stored, when somebody else wrote of a device that was only looked at.
    async fn commit(mut self, unknown: u64, meters: &StoreMeters) -> Result<Option<Applied>, StoreError> {
        clocks::set_right(&mut self.tx, &mut self.heartbeats).await?;
        overdue::note(&mut self.tx, &self.heartbeats).await?;
        insert(&mut self.tx, &self.heartbeats, &self.held).await?;
        levels::note_late(&mut self.tx, &self.heartbeats).await?;
        let mut pulses: BTreeMap<DeviceNo, Pulse> = self.held.iter().map(|(no, pulse)| (*no, *pulse)).collect();
        for (no, at) in &self.seen {
            pulses.entry(*no).and_modify(|pulse| pulse.hear(*at));
        }
        for row in &self.heartbeats {
            pulses.entry(row.device).and_modify(|pulse| pulse.beat(row));
        }
        let mut moved = Vec::new();
        for (&(no, stream), &(_, seq)) in &self.marks {
            if stream == HEARTBEATS {
                pulses.entry(no).and_modify(|pulse| pulse.mark = seq);
            } else if self.held(no, stream) != seq {
                moved.push((no, stream, seq));
            }
        }
        for (no, pulse) in &pulses {
            let held = self.held.get(no).map(|held| (held.outline, held.silent));
            if held != Some((pulse.outline, pulse.silent)) {
                self.changed.insert(*no);
            }
        }
        if !pulse::write(&mut self.tx, &self.held, &pulses).await? {
            self.tx.rollback().await?;
            return Ok(None);
        }
        worth::note(&mut self.tx, &self.changed).await?;
        ingest::set_marks(&mut self.tx, &moved).await?;
        self.tx.commit().await?;
        meters.heartbeats.inc_by(self.heartbeats.len() as u64);
        self.ends.iter().for_each(|end| meters.ended(end));
        let mut acked: BTreeMap<DeviceAddress, BTreeMap<Name, u64>> = BTreeMap::new();
        for ((no, stream), (device, seq)) in self.marks {
            if (stream != HEARTBEATS || self.told.contains(&no))
                && let Ok(stream) = Name::new(stream)
            {
                acked.entry(device.clone()).or_default().insert(stream, seq);
            }
        }
        Ok(Some(Applied {
            devices: self.devices.into_values().cloned().collect(),
            commands: self.commands.into_iter().map(|(device, id)| (device.clone(), id)).collect(),
            acked,
            unknown,
        }))
    }
}

impl Store {
    /// Stores what devices said; what [`FleetStore::apply`] does, with the store's own error. What one device said is stored in
    /// one transaction. Many records go to a server in [`PARTS`] at once, so that it reads and writes on several processors.
    ///
    /// # Errors
    /// Those of the database; of what was said in another part something may be stored then. To repeat all of it does no harm.
    pub async fn take(&self, records: &[Record]) -> Result<Applied, StoreError> {
        let begun = Instant::now();
        let parts = if self.is_shared() && records.len() >= MANY { PARTS } else { 1 };
        let mut split: [Vec<(&Record, DeviceNo)>; PARTS] = std::array::from_fn(|_| Vec::new());
        let mut applied = Applied::default();
        let numbers = self.device_numbers(records.iter().map(|record| &record.device)).await?;
        for (record, no) in records.iter().zip(numbers) {
            match no {
                Some(no) => split[no.0.unsigned_abs() as usize % parts].push((record, no)),
                None => applied.unknown += 1,
            }
        }
        let outlooks = self.outlooks().await?;
        let under_way =
            split.iter().filter(|part| !part.is_empty()).map(|part| self.apply_part(part, outlooks.clone()));
        // All of them to their end, whatever becomes of one.
        for part in futures_util::future::join_all(under_way).await {
            let Applied { devices, commands, acked, unknown } = part?;
            applied.devices.extend(devices);
            applied.commands.extend(commands);
            applied.acked.extend(acked);
            applied.unknown += unknown;
        }
        self.meters.applied(records, begun.elapsed(), Utc::now());
        Ok(applied)
    }

    async fn apply_part(
        &self,
        records: &[(&Record, DeviceNo)],
        outlooks: Arc<Outlooks>,
    ) -> Result<Applied, StoreError> {
        let heartbeats = records.iter().all(|(record, _)| matches!(record.report, Report::Heartbeat { .. }));
        if heartbeats
            && self.is_shared()
            && let Some(applied) = self.apply_as(Hold::Look, records, outlooks.clone()).await?
        {
            return Ok(applied);
        }
        let applied = self.apply_as(Hold::Hold, records, outlooks).await?;
        applied.ok_or_else(|| StoreError::Bug("a pulse that is held was written by somebody else".into()))
    }

    async fn apply_as(
        &self,
        hold: Hold,
        records: &[(&Record, DeviceNo)],
        outlooks: Arc<Outlooks>,
    ) -> Result<Option<Applied>, StoreError> {
        let numbers: BTreeSet<DeviceNo> = records.iter().map(|(_, no)| *no).collect();
        let numbers: Vec<DeviceNo> = numbers.into_iter().collect();
        let mut tx = self.begin().await?;
        let held = match (hold, tx.postgres()) {
            (Hold::Look, Some(connection)) => pulse::look(connection, &numbers).await?,
            _ => pulse::hold(&mut tx, &numbers).await?,
        };
        let others: BTreeSet<DeviceNo> =
            records.iter().filter(|(record, _)| names_a_stream(&record.report)).map(|(_, no)| *no).collect();
        let streams = ingest::marks(&mut tx, &others.into_iter().collect::<Vec<_>>()).await?;
        let mut work = Work {
            tx,
            heartbeats: Vec::with_capacity(records.len()),
            held,
            streams,
            marks: HashMap::with_capacity(numbers.len()),
            told: BTreeSet::new(),
            seen: HashMap::with_capacity(numbers.len()),
            changed: BTreeSet::new(),
            outlooks,
            devices: HashMap::with_capacity(numbers.len()),
            commands: BTreeSet::new(),
            ends: Vec::new(),
        };
        let mut unknown = 0;
        for (record, no) in records {
            if work.held.contains_key(no) {
                work.record(*no, record).await?;
            } else {
                // Another server may have taken a device out of service since this one learned its number.
                self.forget_number(record.device.device.as_str());
                unknown += 1;
            }
        }
        work.commit(unknown, &self.meters).await
    }
}

/// What the tables hold was checked on its way in; a row that is not an address is passed over.
pub(super) fn address(org: &str, device: &str) -> Option<DeviceAddress> {
    Some(DeviceAddress { org: OrgId::new(org).ok()?, device: DeviceId::new(device).ok()? })
}

fn reference(row: &CommandRef) -> Option<(DeviceAddress, CommandId)> {
    Some((address(&row.org, &row.device_id)?, CommandId::new(&row.id).ok()?))
}

fn outgoing(row: CommandRef) -> Option<Outgoing> {
    let (device, id) = reference(&row)?;
    Some(Outgoing { device, id, message: Bytes::from(row.message?) })
}

fn ids(ids: &[CommandId]) -> Vec<&str> {
    ids.iter().map(CommandId::as_str).collect()
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[async_trait]
impl FleetStore for Store {
    async fn apply(&self, records: &[Record]) -> Result<Applied, SeamError> {
        Ok(self.take(records).await?)
    }

    async fn mark_silent(&self, now: DateTime<Utc>) -> Result<Vec<DeviceAddress>, SeamError> {
        Ok(self.silent(now).await?)
    }

    async fn sync_state(&self, device: &DeviceAddress) -> Result<Option<SyncState>, SeamError> {
        let (org, id) = (device.org.as_str(), device.device.as_str());
        let Some(no) = self.device_no(org, id).await? else { return Ok(None) };
        let awaited = self.awaited_commands_of(id, Utc::now()).await?;
        let mut tx = self.reader.begin().await.map_err(StoreError::from)?;
        let marks = ingest::marks(&mut tx, &[no]).await?.into_values().flatten();
        let heartbeats = pulse::mark(&mut tx, no).await?;
        let marks = marks.chain((heartbeats > 0).then(|| (HEARTBEATS.to_owned(), heartbeats)));
        Ok(Some(SyncState {
            pending: awaited.iter().filter_map(|id| CommandId::new(id).ok()).collect(),
            acked: marks.filter_map(|(stream, seq)| Some((Name::new(stream).ok()?, seq))).collect(),
            seq_floor: self.seq_floor(id).await?,
        }))
    }

    async fn expire_commands(&self, now: DateTime<Utc>) -> Result<Vec<(DeviceAddress, CommandId)>, SeamError> {
        if !self.leads() {
            return Ok(Vec::new());
        }
        Ok(self.expire(now, GRACE, EXPIRE_AT_ONCE).await?.iter().filter_map(reference).collect())
    }

    async fn commands_to_publish(&self, at_most: usize) -> Result<Vec<Outgoing>, SeamError> {
        if !self.leads() {
            return Ok(Vec::new());
        }
        let rows = self.undelivered(Retained::Publish, limit(at_most)).await?;
        Ok(rows.into_iter().filter_map(outgoing).collect())
    }

    async fn mark_published(&self, published: &[CommandId], at: DateTime<Utc>) -> Result<(), SeamError> {
        Ok(self.mark_delivered(Retained::Publish, &ids(published), at).await?)
    }

    async fn commands_to_withdraw(&self, at_most: usize) -> Result<Vec<(DeviceAddress, CommandId)>, SeamError> {
        if !self.leads() {
            return Ok(Vec::new());
        }
        let rows = self.undelivered(Retained::Withdraw, limit(at_most)).await?;
        Ok(rows.iter().filter_map(reference).collect())
    }

    async fn mark_withdrawn(&self, withdrawn: &[CommandId]) -> Result<(), SeamError> {
        Ok(self.mark_delivered(Retained::Withdraw, &ids(withdrawn), Utc::now()).await?)
    }

    async fn open_commands(&self, device: &DeviceAddress) -> Result<Vec<Outgoing>, SeamError> {
        let rows = self.open_commands_of(device.device.as_str(), Utc::now()).await?;
        Ok(rows.into_iter().filter_map(outgoing).collect())
    }
}
