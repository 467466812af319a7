//! Heartbeats: written many at a time, read as history and as figures.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use sqlx::{QueryBuilder, Transaction};

use super::{Db, DeviceNo, PLACEHOLDER, Store, StoreError, millis};

/// Rows in one statement. A few fixed sizes keep the statements prepared; 128 rows of 12 values are well below SQLite's
/// 32,766 placeholders.
pub(super) const CHUNKS: [usize; 3] = [128, 16, 1];

/// A heartbeat to be stored.
#[derive(Debug, Clone)]
pub struct HeartbeatRow {
    /// The device.
    pub device: DeviceNo,
    /// When it was measured, by the device's clock.
    pub ts: DateTime<Utc>,
    /// Which start of the device's process.
    pub boot_seq: i64,
    /// Number within the stream.
    pub seq: i64,
    /// 0 to 100.
    pub cpu_percent: Option<f64>,
    /// 0 to 100.
    pub mem_percent: Option<f64>,
    /// GB.
    pub disk_free_gb: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Over one minute.
    pub load_avg: Option<f64>,
    /// 0 to 3.
    pub degradation_level: Option<i64>,
    /// Seconds until the next one.
    pub interval_s: Option<i64>,
    /// When the server received it.
    pub received_at: DateTime<Utc>,
    /// The whole heartbeat, JSON.
    pub body: Arc<str>,
}

/// A heartbeat as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredHeartbeat {
    /// Milliseconds since 1970, by the device's clock.
    pub ts: i64,
    /// Milliseconds since 1970, by the server's clock.
    pub received_at: i64,
    /// The whole heartbeat, JSON.
    pub body: String,
}

/// One metric over a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricSummary {
    /// Name of the metric, as in a heartbeat.
    pub name: &'static str,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Mean of the values.
    pub avg: f64,
    /// Latest value.
    pub latest: f64,
}

/// Columns that [`Store::metrics`] sums up.
const METRICS: [&str; 6] =
    ["cpu_percent", "mem_percent", "disk_free_gb", "temperature_c", "load_avg", "degradation_level"];

/// The text of a statement with many rows of values, made once for each size of [`CHUNKS`].
struct ManyRows {
    head: &'static str,
    /// One row; `{}` stands for a placeholder.
    row: &'static str,
    tail: &'static str,
    texts: [OnceLock<String>; CHUNKS.len()],
}

impl ManyRows {
    const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Self {
        Self { head, row, tail, texts: [const { OnceLock::new() }; CHUNKS.len()] }
    }

    /// The largest chunk that fits into so many rows, and its statement.
    fn of(&'static self, rows: usize) -> (usize, &'static str) {
        let at = CHUNKS.into_iter().position(|size| size <= rows).unwrap_or(CHUNKS.len() - 1);
        let text = self.texts[at].get_or_init(|| {
            let mut text = self.head.to_owned();
            for n in 0..CHUNKS[at] {
                text.push_str(if n == 0 { "" } else { ", " });
                for (n, piece) in self.row.split("{}").enumerate() {
                    // Numbered ones would cost SQLite a search for each of them, through all of them.
                    text.push_str(if n > 0 { PLACEHOLDER } else { "" });
                    text.push_str(piece);
                }
            }
            text.push_str(self.tail);
            text
        });
        (CHUNKS[at], text)
    }
}

static INSERT: ManyRows = ManyRows::new(
    "INSERT INTO heartbeats (device_no, ts, boot_seq, seq, received_at, cpu_percent, mem_percent, disk_free_gb, \
     temperature_c, load_avg, degradation_level, body) VALUES ",
    "({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
    " ON CONFLICT (device_no, ts, boot_seq, seq) DO NOTHING",
);

/// The row is there since registration; INSERT is only the portable way to say "update these many rows". A device that had
/// fallen silent is online again with any heartbeat; its current one only gives way to a later one.
static ADVANCE: ManyRows = ManyRows::new(
    "INSERT INTO device_state (device_no, presence, presence_boot, presence_conn, last_seen, interval_s, \
     heartbeat_boot, heartbeat_seq, heartbeat_ts, reported_boot, reported_ver) VALUES ",
    "({}, 'unknown', -1, -1, {}, {}, {}, {}, {}, -1, -1)",
    " ON CONFLICT (device_no) DO UPDATE SET \
     last_seen = CASE WHEN device_state.last_seen > excluded.last_seen THEN device_state.last_seen \
         ELSE excluded.last_seen END, \
     presence_at = CASE WHEN device_state.presence_reason = 'silent' THEN excluded.last_seen \
         ELSE device_state.presence_at END, \
     presence = CASE WHEN device_state.presence_reason = 'silent' THEN 'online' ELSE device_state.presence END, \
     presence_reason = CASE WHEN device_state.presence_reason = 'silent' THEN NULL \
         ELSE device_state.presence_reason END, \
     interval_s = CASE WHEN (excluded.heartbeat_boot, excluded.heartbeat_seq) > \
         (device_state.heartbeat_boot, device_state.heartbeat_seq) THEN excluded.interval_s \
         ELSE device_state.interval_s END, \
     heartbeat_ts = CASE WHEN (excluded.heartbeat_boot, excluded.heartbeat_seq) > \
         (device_state.heartbeat_boot, device_state.heartbeat_seq) THEN excluded.heartbeat_ts \
         ELSE device_state.heartbeat_ts END, \
     heartbeat_seq = CASE WHEN (excluded.heartbeat_boot, excluded.heartbeat_seq) > \
         (device_state.heartbeat_boot, device_state.heartbeat_seq) THEN excluded.heartbeat_seq \
         ELSE device_state.heartbeat_seq END, \
     heartbeat_boot = CASE WHEN excluded.heartbeat_boot > device_state.heartbeat_boot \
         THEN excluded.heartbeat_boot ELSE device_state.heartbeat_boot END",
);

pub(super) async fn insert(tx: &mut Transaction<'static, Db>, mut rows: &[HeartbeatRow]) -> Result<(), StoreError> {
    while !rows.is_empty() {
        let (size, statement) = INSERT.of(rows.len());
        let (chunk, rest) = rows.split_at(size);
        let mut query = sqlx::query(statement);
        for heartbeat in chunk {
            query = query
                .bind(heartbeat.device.0)
                .bind(millis(heartbeat.ts))
                .bind(heartbeat.boot_seq)
                .bind(heartbeat.seq)
                .bind(millis(heartbeat.received_at))
                .bind(heartbeat.cpu_percent)
                .bind(heartbeat.mem_percent)
                .bind(heartbeat.disk_free_gb)
                .bind(heartbeat.temperature_c)
                .bind(heartbeat.load_avg)
                .bind(heartbeat.degradation_level)
                .bind(heartbeat.body.clone());
        }
        query.execute(&mut **tx).await?;
        rows = rest;
    }
    Ok(())
}

/// Moves each device's latest state forward, once a device however many heartbeats it has in the batch.
pub(super) async fn advance(tx: &mut Transaction<'static, Db>, rows: &[HeartbeatRow]) -> Result<(), StoreError> {
    let mut latest: HashMap<DeviceNo, (&HeartbeatRow, DateTime<Utc>)> = HashMap::new();
    for row in rows {
        let entry = latest.entry(row.device).or_insert((row, row.received_at));
        entry.1 = entry.1.max(row.received_at);
        if (row.boot_seq, row.seq) >= (entry.0.boot_seq, entry.0.seq) {
            entry.0 = row;
        }
    }
    let latest: Vec<(&HeartbeatRow, DateTime<Utc>)> = latest.into_values().collect();
    let mut rest = latest.as_slice();
    while !rest.is_empty() {
        let (size, statement) = ADVANCE.of(rest.len());
        let (chunk, next) = rest.split_at(size);
        let mut query = sqlx::query(statement);
        for (row, seen) in chunk {
            query = query
                .bind(row.device.0)
                .bind(millis(*seen))
                .bind(row.interval_s)
                .bind(row.boot_seq)
                .bind(row.seq)
                .bind(millis(row.ts));
        }
        query.execute(&mut **tx).await?;
        rest = next;
    }
    Ok(())
}

impl Store {
    /// Heartbeats of a device measured from `since` on, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn heartbeats(
        &self,
        device: DeviceNo,
        since: DateTime<Utc>,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<StoredHeartbeat>, i64), StoreError> {
        let rows = sqlx::query_as(
            "SELECT ts, received_at, body FROM heartbeats WHERE device_no = $1 AND ts >= $2 \
             ORDER BY ts DESC, boot_seq DESC, seq DESC LIMIT $3 OFFSET $4",
        )
        .bind(device.0)
        .bind(millis(since))
        .bind(limit)
        .bind(offset)
        .fetch_all(&self.reader)
        .await?;
        let (total,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM heartbeats WHERE device_no = $1 AND ts >= $2")
            .bind(device.0)
            .bind(millis(since))
            .fetch_one(&self.reader)
            .await?;
        Ok((rows, total))
    }

    /// Smallest, largest, mean and latest value of each metric from `since` on; a metric without a value is left out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn metrics(&self, device: DeviceNo, since: DateTime<Utc>) -> Result<Vec<MetricSummary>, StoreError> {
        let mut found = Vec::new();
        for name in METRICS {
            let mut query = QueryBuilder::<Db>::new("SELECT MIN(v), MAX(v), AVG(v), ");
            query.push("(SELECT CAST(").push(name).push(" AS DOUBLE PRECISION) FROM heartbeats WHERE device_no = ");
            query.push_bind(device.0).push(" AND ts >= ").push_bind(millis(since)).push(" AND ").push(name);
            query.push(" IS NOT NULL ORDER BY ts DESC, boot_seq DESC, seq DESC LIMIT 1) FROM (SELECT CAST(").push(name);
            query.push(" AS DOUBLE PRECISION) AS v FROM heartbeats WHERE device_no = ").push_bind(device.0);
            query.push(" AND ts >= ").push_bind(millis(since)).push(" AND ").push(name).push(" IS NOT NULL) AS span");
            let row: (Option<f64>, Option<f64>, Option<f64>, Option<f64>) =
                query.build_query_as().fetch_one(&self.reader).await?;
            if let (Some(min), Some(max), Some(avg), Some(latest)) = row {
                found.push(MetricSummary { name, min, max, avg, latest });
            }
        }
        Ok(found)
    }
}
