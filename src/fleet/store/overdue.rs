//! Heartbeats that come so late that the raw rows of their hour are gone: a box that was away for weeks delivers its outbox.
//!
//! An hour whose raw rows are all there is summed up from them anew (see `levels`). One whose raw rows have begun to go cannot be:
//! what came late is added to its minutes and its hour instead, as far back as those are kept. So that nothing is added
//! twice, everything that comes later than [`OVERDUE`] after it was measured is written down once in `heartbeats_overdue`, unless
//! it is there already or among the raw rows, and marked in the transaction that adds it. The marks stay for as long as raw rows
//! would; by then the box has long been told that it is stored, and what it repeats below that is passed over by its number.
//!
//! What a box said live above a gap was not acknowledged: it comes again with what fills the gap, however late. It is written down
//! as counted before its raw row goes.

use std::collections::{BTreeMap, HashSet};

use super::downsample::{DAY, HOUR, MINUTE, Point, add, floor, sum_up};
use super::heartbeats::HeartbeatRow;
use super::levels::{COLUMNS, HOURS, INTO_HOURS, INTO_MINUTES, MINUTES, RAW, write};
use super::many::ManyRows;
use super::retention::RetentionPlan;
use super::sql::{Conn, QueryBuilder, Tx, query, query_as};
use super::{StoreError, millis};

/// From this age on a heartbeat is overdue, in milliseconds: an hour goes no earlier than 23 hours after it began (`raw_days` is
/// one at least), and the leader may take some time to come round to it.
const OVERDUE: i64 = 20 * HOUR;

static INSERT: ManyRows = ManyRows::new(
    "INSERT INTO heartbeats_overdue (device_no, ts, boot_seq, seq, cpu_percent, mem_percent, disk_free_gb, temperature_c, \
     load_avg, degradation_level) VALUES ",
    "({}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
    " ON CONFLICT (device_no, ts, boot_seq, seq) DO NOTHING",
);

/// Time, start and number of a heartbeat.
type Key = (i64, i64, i64);

fn key(row: &HeartbeatRow) -> Key {
    (millis(row.ts), row.boot_seq, row.seq)
}

/// Writes overdue heartbeats down; before they are stored as raw rows.
pub(super) async fn note(tx: &mut Tx, rows: &[HeartbeatRow]) -> Result<(), StoreError> {
    let mut late: BTreeMap<i64, Vec<&HeartbeatRow>> = BTreeMap::new();
    for row in rows.iter().filter(|row| millis(row.ts) < millis(row.received_at) - OVERDUE) {
        late.entry(row.device.0).or_default().push(row);
    }
    for (device, rows) in late {
        let times = || rows.iter().map(|row| millis(row.ts));
        let there: Vec<Key> =
            query_as("SELECT ts, boot_seq, seq FROM heartbeats WHERE device_no = $1 AND ts BETWEEN $2 AND $3")
                .bind(device)
                .bind(times().min())
                .bind(times().max())
                .fetch_all(&mut **tx)
                .await?;
        let there: HashSet<Key> = there.into_iter().collect();
        let new: Vec<&HeartbeatRow> = rows.into_iter().filter(|row| !there.contains(&key(row))).collect();
        let mut rest = new.as_slice();
        while !rest.is_empty() {
            let (size, mut statement) = INSERT.of(rest.len(), 10);
            let (chunk, next) = rest.split_at(size);
            for row in chunk {
                statement.fill(device).fill(millis(row.ts)).fill(row.boot_seq).fill(row.seq);
                statement.fill(row.cpu_percent).fill(row.mem_percent).fill(row.disk_free_gb);
                statement.fill(row.temperature_c).fill(row.load_avg).fill(row.degradation_level);
            }
            statement.build().execute(&mut **tx).await?;
            rest = next;
        }
    }
    Ok(())
}

/// The statement that writes down as counted what `from` (whose rows are called `h`) holds above the gaps of its devices; it
/// ends where more conditions may follow, and then [`ONCE`]. A box of before this protocol numbers nothing and repeats nothing.
pub(super) fn above_gaps(from: &str, now: i64) -> QueryBuilder {
    let mut statement = QueryBuilder::new(
        "INSERT INTO heartbeats_overdue (device_no, ts, boot_seq, seq, cpu_percent, mem_percent, disk_free_gb, \
         temperature_c, load_avg, degradation_level, merged_at) SELECT h.device_no, h.ts, h.boot_seq, h.seq, h.cpu_percent, \
         h.mem_percent, h.disk_free_gb, h.temperature_c, h.load_avg, h.degradation_level, CAST(",
    );
    statement.push_bind(now).push(" AS BIGINT) FROM ").push(from);
    statement
        .push(" h JOIN device_pulse p ON p.device_no = h.device_no WHERE h.boot_seq > 0 AND h.seq > p.heartbeat_mark");
    statement
}

/// What follows it: once each.
pub(super) const ONCE: &str = " ON CONFLICT (device_no, ts, boot_seq, seq) DO NOTHING";

/// Marks what a device said within an hour as counted; it is about to be summed up with the raw rows.
pub(super) async fn mark(tx: &mut Tx, device: i64, hour: i64, now: i64) -> Result<(), StoreError> {
    query(
        "UPDATE heartbeats_overdue SET merged_at = $4 WHERE device_no = $1 AND ts >= $2 AND ts < $3 AND merged_at IS NULL",
    )
    .bind(device)
    .bind(hour)
    .bind(hour.saturating_add(HOUR))
    .bind(now)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// From when on every hour of a level is whole, when it is kept for so many days.
fn whole_from(now: i64, days: u32) -> i64 {
    floor(now - i64::from(days) * DAY, HOUR) + HOUR
}

/// Adds what a device said within an hour, and was not counted yet, to the sums of that hour.
pub(super) async fn merge(
    tx: &mut Tx,
    device: i64,
    hour: i64,
    plan: &RetentionPlan,
    now: i64,
) -> Result<(), StoreError> {
    let mut raw = QueryBuilder::new("SELECT ");
    raw.push(RAW).push(" FROM heartbeats_overdue h WHERE h.merged_at IS NULL");
    within(&mut raw, device, hour);
    raw.push(" ORDER BY h.ts, h.boot_seq, h.seq");
    let conn: &mut Conn = tx;
    let minutes = sum_up(raw.build_query_as::<Point>().fetch_all(conn).await?, MINUTE);
    if minutes.is_empty() || hour < whole_from(now, plan.hour_days) {
        return mark(tx, device, hour, now).await;
    }
    let sum = if hour >= whole_from(now, plan.minute_days) {
        let held = held(tx, MINUTES, device, hour).await?;
        let minutes = together(held.clone(), minutes);
        let changed: Vec<Point> = minutes.iter().filter(|point| !held.contains(point)).copied().collect();
        write(tx, &INTO_MINUTES, &changed).await?;
        sum_up(minutes, HOUR)
    } else {
        together(held(tx, HOURS, device, hour).await?, sum_up(minutes, HOUR))
    };
    write(tx, &INTO_HOURS, &sum).await?;
    mark(tx, device, hour, now).await
}

fn within(query: &mut QueryBuilder, device: i64, hour: i64) {
    query.push(" AND h.device_no = ").push_bind(device).push(" AND h.ts >= ").push_bind(hour);
    query.push(" AND h.ts < ").push_bind(hour.saturating_add(HOUR));
}

/// What a level holds of a device's hour.
async fn held(tx: &mut Tx, level: &str, device: i64, hour: i64) -> Result<Vec<Point>, StoreError> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM ").push(level).push(" h WHERE TRUE");
    within(&mut query, device, hour);
    query.push(" ORDER BY h.ts");
    let conn: &mut Conn = tx;
    Ok(query.build_query_as().fetch_all(conn).await?)
}

/// Sums over the same spans put together, in the order of time. Within a span what was held counts as the later: of two sums it
/// is not known which was measured last.
fn together(held: Vec<Point>, late: Vec<Point>) -> Vec<Point> {
    let mut sums: BTreeMap<i64, Point> = late.into_iter().map(|point| (point.ts, point)).collect();
    for point in held {
        match sums.get_mut(&point.ts) {
            Some(sum) => add(&mut sum.metrics, &point.metrics),
            None => drop(sums.insert(point.ts, point)),
        }
    }
    sums.into_values().collect()
}
