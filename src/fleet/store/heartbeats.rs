//! Heartbeats: written many at a time, read as history and as figures.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::many::ManyRows;
use super::pulse::Pulse;
use super::sql::{Tx, query_as};
use super::{DeviceNo, Store, StoreError, bulk, millis};

/// A heartbeat to be stored.
#[derive(Debug, Clone)]
pub struct HeartbeatRow {
    /// The device.
    pub device: DeviceNo,
    /// When it was measured, by the device's clock; see `clocks` for one that is not set.
    pub ts: DateTime<Utc>,
    /// Which start of the device's process.
    pub boot_seq: i64,
    /// Seconds for which the process had been running.
    pub uptime_s: i64,
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
    /// What alert rules could see of it, in a number.
    pub outline: i64,
    /// When the server received it.
    pub received_at: DateTime<Utc>,
    /// The whole heartbeat, JSON.
    pub body: Arc<str>,
}

/// A heartbeat as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredHeartbeat {
    /// Milliseconds since 1970, by the device's clock; see `clocks` for one that is not set.
    pub ts: i64,
    /// Milliseconds since 1970, by the server's clock.
    pub received_at: i64,
    /// The whole heartbeat, JSON.
    pub body: String,
}

static INSERT: ManyRows = ManyRows::new(
    "INSERT INTO heartbeats (device_no, ts, boot_seq, seq, received_at, cpu_percent, mem_percent, disk_free_gb, \
     temperature_c, load_avg, degradation_level, body) VALUES ",
    "({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
    " ON CONFLICT (device_no, ts, boot_seq, seq) DO NOTHING",
);

/// Stores heartbeats that are not there yet, of devices of which `held` tells the latest one.
pub(super) async fn insert(
    tx: &mut Tx,
    mut rows: &[HeartbeatRow],
    held: &HashMap<DeviceNo, Pulse>,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    if let Some(connection) = tx.postgres() {
        return bulk::heartbeats(connection, &INSERT, rows, held).await;
    }
    while !rows.is_empty() {
        let (size, mut statement) = INSERT.of(rows.len(), 12);
        let (chunk, rest) = rows.split_at(size);
        for heartbeat in chunk {
            statement
                .fill(heartbeat.device.0)
                .fill(millis(heartbeat.ts))
                .fill(heartbeat.boot_seq)
                .fill(heartbeat.seq)
                .fill(millis(heartbeat.received_at))
                .fill(heartbeat.cpu_percent)
                .fill(heartbeat.mem_percent)
                .fill(heartbeat.disk_free_gb)
                .fill(heartbeat.temperature_c)
                .fill(heartbeat.load_avg)
                .fill(heartbeat.degradation_level)
                .fill(heartbeat.body.clone());
        }
        statement.build().execute(&mut **tx).await?;
        rows = rest;
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
        let rows = query_as(
            "SELECT ts, received_at, body FROM heartbeats WHERE device_no = $1 AND ts >= $2 \
             ORDER BY ts DESC, boot_seq DESC, seq DESC LIMIT $3 OFFSET $4",
        )
        .bind(device.0)
        .bind(millis(since))
        .bind(limit)
        .bind(offset)
        .fetch_all(&self.reader)
        .await?;
        let (total,): (i64,) = query_as("SELECT COUNT(*) FROM heartbeats WHERE device_no = $1 AND ts >= $2")
            .bind(device.0)
            .bind(millis(since))
            .fetch_one(&self.reader)
            .await?;
        Ok((rows, total))
    }
}
