//! Heartbeats summed up by minute and by hour.
//!
//! An hour is summed up once it has been over for [`GRACE`], device by device, a few hundred in a transaction that also says how
//! far it came: a server that is killed in the middle goes on there, and doing a part twice gives the same rows. A server that
//! begins, or was away, passes over the hours in which nobody said anything. Whatever arrives later than [`LATE`] after it was
//! measured (an outbox after an outage) notes its hour, and that hour is summed up again from the raw rows. Both times leave room
//! between them for a transaction under way and for servers' clocks.
//!
//! Hours whose raw rows are about to go are not summed up again, which would forget what is gone; what comes late for them is
//! added to what there is (see `overdue`).

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{ColumnIndex, Decode, FromRow, Type};

use super::downsample::{DAY, HOUR, METRICS, MINUTE, Point, Summaries, Summary, floor, sum_up};
use super::heartbeats::HeartbeatRow;
use super::many::ManyRows;
use super::retention::RetentionPlan;
use super::sql::{Conn, QueryBuilder, Tx, query, query_as};
use super::{Store, StoreError, millis, overdue};

/// How long an hour has to be over before it is summed up, in milliseconds.
const GRACE: i64 = 15 * MINUTE;
/// A heartbeat that arrives this long after it was measured is late, in milliseconds.
const LATE: i64 = 5 * MINUTE;
/// Devices whose hour is summed up in one transaction.
const DEVICES: i64 = 200;
/// A mark this far behind, in milliseconds, passes over hours in which nobody said anything.
const BEHIND: i64 = 2 * HOUR;
/// Late hours summed up in one transaction.
const LATE_AT_ONCE: i64 = 100;
/// Name of the only mark.
const MARK: &str = "hours";

/// The sums by minute.
pub(super) const MINUTES: &str = "heartbeats_minute";
/// The sums by hour.
pub(super) const HOURS: &str = "heartbeats_hour";

/// Columns of a level, in order.
macro_rules! columns {
    () => {
        "device_no, ts, cpu_min, cpu_max, cpu_sum, cpu_count, cpu_latest, mem_min, mem_max, mem_sum, mem_count, mem_latest, \
         disk_min, disk_max, disk_sum, disk_count, disk_latest, temp_min, temp_max, temp_sum, temp_count, temp_latest, \
         load_min, load_max, load_sum, load_count, load_latest, level_min, level_max, level_sum, level_count, level_latest"
    };
}

/// Replaces what is there.
macro_rules! upsert {
    ($table:literal) => {
        ManyRows::new(
            concat!("INSERT INTO ", $table, " (", columns!(), ") VALUES "),
            "({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, \
             {}, {}, {}, {})",
            " ON CONFLICT (device_no, ts) DO UPDATE SET cpu_min = excluded.cpu_min, cpu_max = excluded.cpu_max, \
             cpu_sum = excluded.cpu_sum, cpu_count = excluded.cpu_count, cpu_latest = excluded.cpu_latest, \
             mem_min = excluded.mem_min, mem_max = excluded.mem_max, mem_sum = excluded.mem_sum, \
             mem_count = excluded.mem_count, mem_latest = excluded.mem_latest, disk_min = excluded.disk_min, \
             disk_max = excluded.disk_max, disk_sum = excluded.disk_sum, disk_count = excluded.disk_count, \
             disk_latest = excluded.disk_latest, temp_min = excluded.temp_min, temp_max = excluded.temp_max, \
             temp_sum = excluded.temp_sum, temp_count = excluded.temp_count, temp_latest = excluded.temp_latest, \
             load_min = excluded.load_min, load_max = excluded.load_max, load_sum = excluded.load_sum, \
             load_count = excluded.load_count, load_latest = excluded.load_latest, level_min = excluded.level_min, \
             level_max = excluded.level_max, level_sum = excluded.level_sum, level_count = excluded.level_count, \
             level_latest = excluded.level_latest",
        )
    };
}

pub(super) static INTO_MINUTES: ManyRows = upsert!("heartbeats_minute");
pub(super) static INTO_HOURS: ManyRows = upsert!("heartbeats_hour");

impl<'r, R> FromRow<'r, R> for Point
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    Option<f64>: Decode<'r, R::Database> + Type<R::Database>,
{
    /// A row of a level, or of raw heartbeats: device, time, and then one column a metric.
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let raw = row.len() == 2 + METRICS.len();
        let mut metrics: Summaries = [None; METRICS.len()];
        for (n, metric) in metrics.iter_mut().enumerate() {
            if raw {
                *metric = row.try_get::<Option<f64>, _>(2 + n)?.map(Summary::of);
                continue;
            }
            let at = 2 + 5 * n;
            let [min, max, sum, latest] = [at, at + 1, at + 2, at + 4].map(|at| row.try_get::<Option<f64>, _>(at));
            let count = row.try_get::<Option<i64>, _>(at + 3)?;
            if let (Some(min), Some(max), Some(sum), Some(count), Some(latest)) = (min?, max?, sum?, count, latest?) {
                *metric = Some(Summary { min, max, sum, count, latest });
            }
        }
        Ok(Self { device: row.try_get(0)?, ts: row.try_get(1)?, metrics })
    }
}

/// The columns of a level, for a statement.
pub(super) const COLUMNS: &str = columns!();

/// The columns of raw heartbeats as a [`Point`] wants them.
pub(super) const RAW: &str = "h.device_no, h.ts, h.cpu_percent, h.mem_percent, h.disk_free_gb, h.temperature_c, h.load_avg, \
                              CAST(h.degradation_level AS DOUBLE PRECISION)";

pub(super) async fn write(tx: &mut Tx, into: &'static ManyRows, mut points: &[Point]) -> Result<(), StoreError> {
    while !points.is_empty() {
        let (size, mut statement) = into.of(points.len(), 2 + 5 * METRICS.len());
        let (chunk, rest) = points.split_at(size);
        for point in chunk {
            statement.fill(point.device).fill(point.ts);
            for metric in &point.metrics {
                statement.fill(metric.map(|metric| metric.min)).fill(metric.map(|metric| metric.max));
                statement.fill(metric.map(|metric| metric.sum)).fill(metric.map(|metric| metric.count));
                statement.fill(metric.map(|metric| metric.latest));
            }
        }
        statement.build().execute(&mut **tx).await?;
        points = rest;
    }
    Ok(())
}

/// Sums one hour of these devices (from the first to the last number) up, from the raw rows.
async fn sum_hour(tx: &mut Tx, (first, last): (i64, i64), hour: i64) -> Result<(), StoreError> {
    let mut raw = QueryBuilder::new("SELECT ");
    raw.push(RAW).push(" FROM devices d JOIN heartbeats h ON h.device_no = d.no WHERE d.no BETWEEN ");
    raw.push_bind(first).push(" AND ").push_bind(last).push(" AND h.ts >= ").push_bind(hour);
    raw.push(" AND h.ts < ").push_bind(hour.saturating_add(HOUR));
    raw.push(" ORDER BY h.device_no, h.ts, h.boot_seq, h.seq");
    let conn: &mut Conn = tx;
    let raw: Vec<Point> = raw.build_query_as().fetch_all(conn).await?;
    let minutes = sum_up(raw, MINUTE);
    write(tx, &INTO_MINUTES, &minutes).await?;
    write(tx, &INTO_HOURS, &sum_up(minutes, HOUR)).await
}

/// The first hour from this one on in which a device said something; if there is none, `to`, or a day later if that is sooner.
async fn next_hour(tx: &mut Tx, hour: i64, to: i64) -> Result<i64, StoreError> {
    let to = to.min(hour.saturating_add(DAY));
    // A look at the index for each device; of a server's partitions two are opened at most.
    let (said,): (Option<i64>,) = query_as(
        "SELECT MIN((SELECT MIN(h.ts) FROM heartbeats h WHERE h.device_no = d.no AND h.ts >= $1 AND h.ts < $2)) FROM devices d",
    )
    .bind(hour)
    .bind(to)
    .fetch_one(&mut **tx)
    .await?;
    Ok(said.map_or(to, |said| floor(said, HOUR)))
}

/// Sums up an hour of the next devices; where to go on.
async fn sum_part(tx: &mut Tx, hour: i64, device: i64) -> Result<(i64, i64), StoreError> {
    let next: Vec<(i64,)> = query_as("SELECT no FROM devices WHERE no > $1 ORDER BY no LIMIT $2")
        .bind(device)
        .bind(DEVICES)
        .fetch_all(&mut **tx)
        .await?;
    let (Some((first,)), Some((last,))) = (next.first(), next.last()) else { return Ok((hour + HOUR, i64::MIN)) };
    sum_hour(tx, (*first, *last), hour).await?;
    Ok((hour, *last))
}

/// Notes the hours of heartbeats that came late. The row is written even when it is there: whoever sums the hour up deletes
/// it first, so one of the two waits for the other, and the heartbeat is either seen or noted anew.
pub(super) async fn note_late(tx: &mut Tx, rows: &[HeartbeatRow]) -> Result<(), StoreError> {
    let late = |row: &&HeartbeatRow| millis(row.ts) < millis(row.received_at) - LATE;
    let hours: BTreeSet<(i64, i64)> =
        rows.iter().filter(late).map(|row| (row.device.0, floor(millis(row.ts), HOUR))).collect();
    for (device, hour) in hours {
        query(
            "INSERT INTO heartbeats_late (device_no, hour, n) VALUES ($1, $2, 1) \
             ON CONFLICT (device_no, hour) DO UPDATE SET n = heartbeats_late.n + 1",
        )
        .bind(device)
        .bind(hour)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

impl Store {
    /// Up to where every hour is summed up, milliseconds since 1970; `None` before the first.
    pub(super) async fn summed_upto(&self) -> Result<Option<i64>, StoreError> {
        let row: Option<(i64,)> =
            query_as("SELECT upto FROM summed_up WHERE name = $1").bind(MARK).fetch_optional(&self.reader).await?;
        Ok(row.map(|(upto,)| upto))
    }

    /// Does one part of what is to be summed up; `false` when nothing is left.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Busy`] when another server leads by now.
    pub async fn sum_up_once(&self, now: DateTime<Utc>, plan: &RetentionPlan) -> Result<bool, StoreError> {
        let (oldest, now) = (floor(millis(plan.raw_from(now)), HOUR).saturating_add(HOUR), millis(now));
        let mut tx = self.begin().await?;
        self.fence(&mut tx).await?;
        if self.sum_late(&mut tx, oldest, plan, now).await? {
            tx.commit().await?;
            return Ok(true);
        }
        let mark: Option<(i64, i64)> = query_as("SELECT upto, device_no FROM summed_up WHERE name = $1")
            .bind(MARK)
            .for_update()
            .fetch_optional(&mut *tx)
            .await?;
        // A mark in the future was made by a clock that was wrong; one from long ago before a pause of the whole server.
        let (hour, device) = mark.filter(|(upto, _)| (oldest..=now).contains(upto)).unwrap_or((oldest, i64::MIN));
        if hour.saturating_add(HOUR + GRACE) > now && mark.is_none_or(|(upto, _)| upto <= now) {
            return Ok(false);
        }
        let behind = device == i64::MIN && hour.saturating_add(BEHIND + GRACE) < now;
        let next = if behind { next_hour(&mut tx, hour, floor(now - GRACE, HOUR)).await? } else { hour };
        let mark = if next > hour { (next, i64::MIN) } else { sum_part(&mut tx, hour, device).await? };
        query(
            "INSERT INTO summed_up (name, upto, device_no) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET upto = excluded.upto, device_no = excluded.device_no",
        )
        .bind(MARK)
        .bind(mark.0)
        .bind(mark.1)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn sum_late(&self, tx: &mut Tx, oldest: i64, plan: &RetentionPlan, now: i64) -> Result<bool, StoreError> {
        let late: Vec<(i64, i64)> =
            query_as("SELECT device_no, hour FROM heartbeats_late ORDER BY device_no, hour LIMIT $1")
                .bind(LATE_AT_ONCE)
                .fetch_all(&mut **tx)
                .await?;
        for (device, hour) in &late {
            query("DELETE FROM heartbeats_late WHERE device_no = $1 AND hour = $2")
                .bind(device)
                .bind(hour)
                .execute(&mut **tx)
                .await?;
            if *hour >= oldest {
                overdue::mark(tx, *device, *hour, now).await?;
                sum_hour(tx, (*device, *device), *hour).await?;
            } else {
                overdue::merge(tx, *device, *hour, plan, now).await?;
            }
        }
        Ok(!late.is_empty())
    }
}
