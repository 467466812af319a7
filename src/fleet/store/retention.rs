//! How long heartbeats and their sums are kept, and their removal.
//!
//! On PostgreSQL old partitions are dropped (see `partitions`). SQLite deletes along the primary key, device by device and a
//! few thousand rows at a time, so that the one writer is never held for long; a table a period would make every statement
//! that reads heartbeats a union, and with the file's pages being used again there is nothing to win by dropping whole ones.

use chrono::{DateTime, Duration, Utc};

use super::downsample::DAY;
use super::levels::{HOURS, MINUTES};
use super::partitions::{BY_HOUR, BY_MINUTE, RAW};
use super::sql::{Engine, QueryBuilder, query_as};
use super::{Store, StoreError, millis, overdue};

/// Rows deleted in one transaction.
const AT_ONCE: i64 = 2_000;

/// Devices of which one statement says what they have.
const DEVICES: i64 = 500;
/// What names a heartbeat.
const KEY: &str = "device_no, ts, boot_seq, seq";
/// Of the heartbeats `h` all but their devices' latest.
const NOT_LATEST: &str = " AND NOT EXISTS (SELECT 1 FROM device_pulse s WHERE s.device_no = h.device_no \
                          AND s.heartbeat_ts = h.ts AND s.heartbeat_boot = h.boot_seq AND s.heartbeat_seq = h.seq)";

/// What a device may have that is too old.
#[derive(sqlx::FromRow)]
struct Old {
    no: i64,
    raw: bool,
    /// Of a clock ahead or not set.
    wrong: bool,
    minutes: bool,
    hours: bool,
}

fn raw_of(device: i64) -> QueryBuilder {
    let mut sql = QueryBuilder::new("SELECT device_no, ts, boot_seq, seq FROM heartbeats h WHERE device_no = ");
    sql.push_bind(device);
    sql
}

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Days for which each heartbeat is kept as it came, 1 to 400. Default 14.
    pub raw_days: u32,
    /// Days for which the sums by minute are kept, `raw_days` to 3,650. Default 90.
    pub minute_days: u32,
    /// Days for which the sums by hour are kept, `minute_days` to 36,500. Default 1,825.
    pub hour_days: u32,
}

impl Default for RetentionPlan {
    fn default() -> Self {
        Self { raw_days: 14, minute_days: 90, hour_days: 1_825 }
    }
}

/// No clock that is set shows less, in milliseconds since 1970: 2020 began, before there was such a box.
pub(super) const CLOCK_SET: i64 = 1_577_836_800_000;

impl RetentionPlan {
    /// From when on raw heartbeats are kept.
    pub fn raw_from(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now - Duration::days(i64::from(self.raw_days))
    }
}

impl Store {
    /// Makes room for what comes and removes what is too old. Bounded in each of its transactions, not as a whole.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Busy`] when another server leads by now.
    pub async fn keep_history(&self, plan: &RetentionPlan, now: DateTime<Utc>) -> Result<(), StoreError> {
        let now = millis(now);
        let from = |days: u32| now - i64::from(days) * DAY;
        for (of, days) in [(RAW, plan.raw_days), (BY_MINUTE, plan.minute_days), (BY_HOUR, plan.hour_days)] {
            self.keep_partitions(of, from(days), now).await?;
        }
        self.forget_what_was_late(from(plan.raw_days)).await?;
        if self.writer.engine() == Engine::Postgres {
            return Ok(());
        }
        let mut after = i64::MIN;
        loop {
            let devices = self.with_old(after, plan, now).await?;
            let Some(last) = devices.last() else { return Ok(()) };
            after = last.no;
            for device in devices {
                if device.raw {
                    self.delete_raw(device.no, from(plan.raw_days), now).await?;
                }
                if device.wrong {
                    self.delete_wrong(device.no, from(plan.raw_days), now).await?;
                }
                let levels = [(MINUTES, plan.minute_days, device.minutes), (HOURS, plan.hour_days, device.hours)];
                for (table, days, _) in levels.into_iter().filter(|(.., old)| *old) {
                    let mut sql = QueryBuilder::new("SELECT device_no, ts FROM ");
                    sql.push(table).push(" WHERE device_no = ").push_bind(device.no);
                    sql.push(" AND ts < ").push_bind(from(days));
                    self.delete_found(table, "device_no, ts", sql).await?;
                }
            }
        }
    }

    /// The next devices, and what they may have that is too old: most have nothing, and whoever only reads holds up nobody.
    async fn with_old(&self, after: i64, plan: &RetentionPlan, now: i64) -> Result<Vec<Old>, StoreError> {
        let from = |days: u32| now - i64::from(days) * DAY;
        let devices = query_as(
            "SELECT d.no, \
             EXISTS (SELECT 1 FROM heartbeats h WHERE h.device_no = d.no AND h.ts >= $2 AND h.ts < $3) AS raw, \
             EXISTS (SELECT 1 FROM heartbeats h WHERE h.device_no = d.no AND h.ts > $4) \
             OR EXISTS (SELECT 1 FROM heartbeats h WHERE h.device_no = d.no AND h.ts < $2) AS wrong, \
             EXISTS (SELECT 1 FROM heartbeats_minute m WHERE m.device_no = d.no AND m.ts < $5) AS minutes, \
             EXISTS (SELECT 1 FROM heartbeats_hour m WHERE m.device_no = d.no AND m.ts < $6) AS hours \
             FROM devices d WHERE d.no > $1 ORDER BY d.no LIMIT $7",
        );
        let devices = devices.bind(after).bind(CLOCK_SET).bind(from(plan.raw_days)).bind(now);
        let devices = devices.bind(from(plan.minute_days)).bind(from(plan.hour_days)).bind(DEVICES);
        Ok(devices.fetch_all(&self.reader).await?)
    }

    /// Deletes what was remembered of late heartbeats, and of starts without a clock, before `from`.
    async fn forget_what_was_late(&self, from: i64) -> Result<(), StoreError> {
        let mut late =
            QueryBuilder::new("SELECT device_no, ts, boot_seq, seq FROM heartbeats_overdue WHERE merged_at < ");
        late.push_bind(from);
        self.delete_found("heartbeats_overdue", KEY, late).await?;
        let mut starts = QueryBuilder::new("SELECT b.device_no, b.boot_seq FROM boot_clocks b JOIN device_pulse s");
        starts.push(" ON s.device_no = b.device_no AND s.heartbeat_boot > b.boot_seq WHERE b.began < ").push_bind(from);
        self.delete_found("boot_clocks", "device_no, boot_seq", starts).await
    }

    /// Deletes a device's heartbeats that were measured before `from`; never its latest.
    async fn delete_raw(&self, device: i64, from: i64, now: i64) -> Result<(), StoreError> {
        let mut counted = overdue::above_gaps("heartbeats", now);
        counted.push(" AND h.device_no = ").push_bind(device).push(" AND h.ts >= ").push_bind(CLOCK_SET);
        counted.push(" AND h.ts < ").push_bind(from).push(overdue::ONCE);
        let mut tx = self.begin().await?;
        self.fence(&mut tx).await?;
        counted.build().execute(&mut *tx).await?;
        tx.commit().await?;
        let mut sql = raw_of(device);
        sql.push(" AND ts >= ").push_bind(CLOCK_SET).push(" AND ts < ").push_bind(from).push(NOT_LATEST);
        self.delete_found("heartbeats", KEY, sql).await
    }

    /// Deletes a device's heartbeats of a clock ahead or not set that were received before `from`; never its latest.
    async fn delete_wrong(&self, device: i64, from: i64, now: i64) -> Result<(), StoreError> {
        let mut sql = raw_of(device);
        sql.push(" AND (ts > ").push_bind(now).push(" OR ts < ").push_bind(CLOCK_SET);
        sql.push(") AND received_at < ").push_bind(from).push(NOT_LATEST);
        self.delete_found("heartbeats", KEY, sql).await
    }

    /// Deletes the rows whose keys `found` reads, a few at a time.
    async fn delete_found(&self, table: &str, key: &str, found: QueryBuilder) -> Result<(), StoreError> {
        loop {
            let mut delete = found.clone();
            delete.prepend(&format!("DELETE FROM {table} WHERE ({key}) IN ("));
            delete.push(" LIMIT ").push_bind(AT_ONCE).push(")");
            let mut tx = self.begin().await?;
            self.fence(&mut tx).await?;
            let gone = delete.build().execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            if gone < AT_ONCE.unsigned_abs() {
                return Ok(());
            }
        }
    }
}
