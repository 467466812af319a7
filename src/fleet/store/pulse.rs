//! What every heartbeat changes of a device: one narrow row of `device_pulse`, read and held when a batch begins, written once
//! when it ends, however many heartbeats of the device it has. On PostgreSQL half of each page is left free for that, so that
//! no index is touched.
//!
//! Whoever holds this row is alone with the device until its transaction ends: two batches of the same device, and a batch and
//! the end of the device's service, take turns. To hold a row is to write it, on PostgreSQL. A batch of nothing but heartbeats
//! only looks there: it writes a pulse where that is still the row it saw, and begins again, holding, where somebody was faster.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use r58_mqtt::DeviceAddress;
use sqlx::PgConnection;

use super::apply::address;
use super::heartbeats::HeartbeatRow;
use super::ingest::signed;
use super::many::ManyRows;
use super::sql::{Tx, query, query_as};
use super::{DeviceNo, Store, StoreError, bulk, millis};
use crate::fleet::alerts::outline;

/// Name of the heartbeats' stream. Its mark is a column here, the others' are rows of their own.
pub(super) const HEARTBEATS: &str = "hb";
/// A device whose interval is not known is taken to send every minute.
const INTERVAL_UNSAID: i64 = 60;
/// Missed heartbeats that make a device silent.
const MISSED: i64 = 3;

/// A device's pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pulse {
    /// Milliseconds since 1970, by the server's clock.
    pub last_seen: Option<i64>,
    /// Seconds between its heartbeats.
    pub interval_s: Option<i64>,
    /// Start and number of its latest heartbeat.
    pub latest: (i64, i64),
    /// When that was measured, milliseconds since 1970.
    pub ts: Option<i64>,
    /// Up to where its heartbeats are stored without a gap.
    pub mark: u64,
    /// It was found silent, and no heartbeat came since.
    pub silent: bool,
    /// What alert rules could see of its latest heartbeat.
    pub outline: i64,
    /// Of a row that was looked at and is not held: which one it was.
    pub seen_in: Option<i64>,
}

impl Pulse {
    /// The device was heard of.
    pub fn hear(&mut self, at: i64) {
        self.last_seen = self.last_seen.max(Some(at));
    }

    /// A heartbeat came; the current one only gives way to a later one.
    pub fn beat(&mut self, row: &HeartbeatRow) {
        self.hear(millis(row.received_at));
        self.silent = false;
        if (row.boot_seq, row.seq) > self.latest {
            self.latest = (row.boot_seq, row.seq);
            self.ts = Some(millis(row.ts));
            self.interval_s = row.interval_s;
            self.outline = row.outline;
        }
    }
}

/// A device's number and its pulse, as read.
type Row = (i64, Option<i64>, Option<i64>, i64, i64, Option<i64>, i64, bool, i64, Option<i64>);

fn pulse((no, last_seen, interval_s, boot, seq, ts, mark, silent, outline, seen_in): Row) -> (DeviceNo, Pulse) {
    let (latest, mark) = ((boot, seq), mark.max(0).unsigned_abs());
    (DeviceNo(no), Pulse { last_seen, interval_s, latest, ts, mark, silent, outline, seen_in })
}

macro_rules! columns {
    () => {
        "device_no, last_seen, interval_s, heartbeat_boot, heartbeat_seq, heartbeat_ts, heartbeat_mark, silent, outline"
    };
}

/// The row is there since registration; INSERT is only the portable way to say "update these many rows".
static WRITE: ManyRows = ManyRows::new(
    concat!("INSERT INTO device_pulse (", columns!(), ") VALUES "),
    "({}, {}, {}, {}, {}, {}, {}, {}, {})",
    " ON CONFLICT (device_no) DO UPDATE SET last_seen = excluded.last_seen, interval_s = excluded.interval_s, \
     heartbeat_boot = excluded.heartbeat_boot, heartbeat_seq = excluded.heartbeat_seq, \
     heartbeat_ts = excluded.heartbeat_ts, heartbeat_mark = excluded.heartbeat_mark, silent = excluded.silent, \
     outline = excluded.outline",
);

/// Gives a new device its pulse, in place of one from an earlier service.
pub(super) async fn begin(tx: &mut Tx, device: i64) -> Result<(), StoreError> {
    let (none, unset): (Option<i64>, i64) = (None, -1);
    let (_, mut statement) = WRITE.of(1, 9);
    statement.fill(device).fill(none).fill(none).fill(unset).fill(unset).fill(none).fill(0_i64).fill(false);
    statement.fill(outline::NONE);
    statement.build().execute(&mut **tx).await?;
    Ok(())
}

/// Looks at these devices without holding them. [`write`] tells whether any of them is another's by then.
pub(super) async fn look(
    connection: &mut PgConnection,
    devices: &[DeviceNo],
) -> Result<HashMap<DeviceNo, Pulse>, StoreError> {
    // The transaction that wrote a row names it: whoever writes it again puts another row in its place.
    const LOOK: &str = concat!(
        "SELECT ",
        columns!(),
        ", xmin::text::bigint FROM device_pulse WHERE in_service AND device_no = ANY($1)"
    );
    rows(connection, LOOK, devices).await
}

/// Holds these devices (in ascending order, so that two servers never hold each other's) until the transaction ends: what a
/// batch reads of a device before it writes is its own. One that was taken out of service meanwhile is missing in the answer.
pub(super) async fn hold(tx: &mut Tx, devices: &[DeviceNo]) -> Result<HashMap<DeviceNo, Pulse>, StoreError> {
    const HOLD: &str = concat!(
        "SELECT ",
        columns!(),
        ", NULL::bigint FROM device_pulse WHERE in_service AND device_no = ANY($1) ORDER BY device_no FOR NO KEY UPDATE"
    );
    // SQLite's rows come one by one from a thread of its own, with a wake for each: they are asked for as one text.
    const READ: &str = "SELECT json_group_array(json_array(device_no, last_seen, interval_s, heartbeat_boot, heartbeat_seq, \
                        heartbeat_ts, heartbeat_mark, json(CASE silent WHEN 0 THEN 'false' ELSE 'true' END), outline, NULL)) \
                        FROM device_pulse WHERE in_service AND device_no IN (SELECT value FROM json_each($1))";
    if let Some(connection) = tx.postgres() {
        return rows(connection, HOLD, devices).await;
    }
    let numbers: Vec<i64> = devices.iter().map(|no| no.0).collect();
    let numbers = serde_json::to_string(&numbers).map_err(|_| StoreError::Bug("numbers".into()))?;
    let (rows,): (String,) = query_as(READ).bind(numbers).fetch_one(&mut **tx).await?;
    let rows: Vec<Row> = serde_json::from_str(&rows).map_err(|error| StoreError::Bug(format!("pulses: {error}")))?;
    Ok(rows.into_iter().map(pulse).collect())
}

async fn rows(
    connection: &mut PgConnection,
    statement: &'static str,
    devices: &[DeviceNo],
) -> Result<HashMap<DeviceNo, Pulse>, StoreError> {
    let numbers: Vec<i64> = devices.iter().map(|no| no.0).collect();
    let rows: Vec<Row> = sqlx::query_as(statement).bind(numbers).fetch_all(connection).await?;
    Ok(rows.into_iter().map(pulse).collect())
}

/// Writes pulses that changed; devices that are no longer silent are online again. `false` when one that was only looked at was
/// written by somebody else since: the transaction must not be committed then.
pub(super) async fn write(
    tx: &mut Tx,
    held: &HashMap<DeviceNo, Pulse>,
    pulses: &BTreeMap<DeviceNo, Pulse>,
) -> Result<bool, StoreError> {
    let to_write = |no: &DeviceNo, pulse: &Pulse| pulse.seen_in.is_some() || held.get(no) != Some(pulse);
    let changed: Vec<(DeviceNo, Pulse)> =
        pulses.iter().filter(|(no, pulse)| to_write(no, pulse)).map(|(no, pulse)| (*no, *pulse)).collect();
    for (no, pulse) in &changed {
        if !pulse.silent && held.get(no).is_some_and(|held| held.silent) {
            query(
                "UPDATE device_state SET presence = 'online', presence_reason = NULL, presence_at = $2 \
                 WHERE device_no = $1 AND presence_reason = 'silent'",
            )
            .bind(no.0)
            .bind(pulse.last_seen)
            .execute(&mut **tx)
            .await?;
        }
    }
    if let Some(connection) = tx.postgres() {
        return bulk::pulses(connection, &changed).await;
    }
    let mut rest = changed.as_slice();
    while !rest.is_empty() {
        let (size, mut statement) = WRITE.of(rest.len(), 9);
        let (chunk, next) = rest.split_at(size);
        for (no, pulse) in chunk {
            statement.fill(no.0).fill(pulse.last_seen).fill(pulse.interval_s);
            statement.fill(pulse.latest.0).fill(pulse.latest.1).fill(pulse.ts);
            statement.fill(signed(pulse.mark)).fill(pulse.silent).fill(pulse.outline);
        }
        statement.build().execute(&mut **tx).await?;
        rest = next;
    }
    Ok(true)
}

/// Up to where a device's heartbeats are stored without a gap.
pub(super) async fn mark(tx: &mut Tx, device: DeviceNo) -> Result<u64, StoreError> {
    let row: Option<(i64,)> = query_as("SELECT heartbeat_mark FROM device_pulse WHERE device_no = $1")
        .bind(device.0)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.map_or(0, |(mark,)| mark.max(0).unsigned_abs()))
}

impl Store {
    /// Takes devices that missed their heartbeats for offline, and answers with them. Reads every device's pulse.
    pub(super) async fn silent(&self, now: DateTime<Utc>) -> Result<Vec<DeviceAddress>, StoreError> {
        if !self.leads() {
            return Ok(Vec::new());
        }
        let due: Vec<(String, String, i64)> = query_as(
            "SELECT d.org, d.id, d.no FROM device_pulse p JOIN device_state s ON s.device_no = p.device_no \
             JOIN devices d ON d.no = p.device_no \
             WHERE s.presence = 'online' AND p.last_seen < $1 - $2 * 1000 * COALESCE(p.interval_s, $3) ORDER BY d.no",
        )
        .bind(millis(now))
        .bind(MISSED)
        .bind(INTERVAL_UNSAID)
        .fetch_all(&self.reader)
        .await?;
        let mut gone = Vec::new();
        if due.is_empty() {
            return Ok(gone);
        }
        let mut tx = self.begin().await?;
        self.fence(&mut tx).await?;
        for (org, device, no) in due {
            let late = query(
                "UPDATE device_pulse SET silent = $5 WHERE device_no = $1 \
                 AND last_seen < $2 - $3 * 1000 * COALESCE(interval_s, $4)",
            )
            .bind(no)
            .bind(millis(now))
            .bind(MISSED)
            .bind(INTERVAL_UNSAID)
            .bind(true)
            .execute(&mut *tx)
            .await?;
            if late.rows_affected() == 0 {
                continue;
            }
            let done = query(
                "UPDATE device_state SET presence = 'offline', presence_reason = 'silent', presence_at = $2 \
                 WHERE device_no = $1 AND presence = 'online'",
            )
            .bind(no)
            .bind(millis(now))
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() > 0 {
                gone.extend(address(&org, &device));
            }
        }
        tx.commit().await?;
        Ok(gone)
    }
}
