//! Many rows at once, PostgreSQL's way.
//!
//! Heartbeats that are new for certain go by `COPY`: nothing writes rows faster. It cannot pass over what is there already, so what
//! may have come before goes by `INSERT … ON CONFLICT` out of arrays, unfolded by `unnest`, as do all other tables. One statement
//! for each table keeps a batch at a handful of round trips whatever its size, and there is one text to prepare, not one for
//! each number of rows.

use std::collections::HashMap;
use std::sync::OnceLock;

use sqlx::{Connection as _, PgConnection};

use super::heartbeats::HeartbeatRow;
use super::ingest::signed;
use super::many::ManyRows;
use super::pulse::Pulse;
use super::{DeviceNo, StoreError, millis};

/// Columns of a heartbeat.
const COLUMNS: i16 = 12;
/// Where `COPY`'s binary format begins: its signature, no flags, no extension.
const BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Where it ends: a row of -1 columns.
const END: [u8; 2] = (-1_i16).to_be_bytes();
/// Bytes on their way at a time: the server stores some while the next are made.
const PIECE: usize = 64 * 1024;

/// Stores heartbeats that are not there yet, of devices of which `held` tells the latest one.
pub(super) async fn heartbeats(
    connection: &mut PgConnection,
    into: &'static ManyRows,
    rows: &[HeartbeatRow],
    held: &HashMap<DeviceNo, Pulse>,
) -> Result<(), StoreError> {
    let mut latest: HashMap<DeviceNo, (i64, i64)> = HashMap::with_capacity(rows.len());
    let (new, rest): (Vec<&HeartbeatRow>, Vec<&HeartbeatRow>) = rows.iter().partition(|row| {
        let latest =
            latest.entry(row.device).or_insert_with(|| held.get(&row.device).map_or((i64::MAX, 0), |held| held.latest));
        let later = (row.boot_seq, row.seq) > *latest;
        if later {
            *latest = (row.boot_seq, row.seq);
        }
        later
    });
    if !new.is_empty() && !copied(connection, into, &new).await? {
        return inserted(connection, into, rows.iter()).await;
    }
    if rest.is_empty() { Ok(()) } else { inserted(connection, into, rest.into_iter()).await }
}

/// Copies rows; `false` when one was there nevertheless, and then none is: a device that was taken out of service and came back
/// counts from its beginning, over the heartbeats of its earlier life.
async fn copied(
    connection: &mut PgConnection,
    into: &'static ManyRows,
    rows: &[&HeartbeatRow],
) -> Result<bool, StoreError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| into.copied());
    let mut point = connection.begin().await?;
    let mut copy = point.copy_in_raw(text).await?;
    let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
    piece.extend(BEGIN);
    for row in rows {
        encode(row, &mut piece)?;
        if piece.len() >= PIECE {
            copy.send(piece.as_slice()).await?;
            piece.clear();
        }
    }
    piece.extend(END);
    copy.send(piece.as_slice()).await?;
    match copy.finish().await {
        Ok(_) => point.commit().await?,
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            point.rollback().await?;
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// A row in `COPY`'s binary format: the number of its columns, then each with its length before it.
fn encode(row: &HeartbeatRow, piece: &mut Vec<u8>) -> Result<(), StoreError> {
    piece.extend(COLUMNS.to_be_bytes());
    let ints = [row.device.0, millis(row.ts), row.boot_seq, row.seq, millis(row.received_at)];
    let floats = [row.cpu_percent, row.mem_percent, row.disk_free_gb, row.temperature_c, row.load_avg];
    let mut eight = |bytes: Option<[u8; 8]>| match bytes {
        Some(bytes) => {
            piece.extend(8_i32.to_be_bytes());
            piece.extend(bytes);
        }
        None => piece.extend((-1_i32).to_be_bytes()),
    };
    ints.into_iter().for_each(|int| eight(Some(int.to_be_bytes())));
    floats.into_iter().for_each(|float| eight(float.map(f64::to_be_bytes)));
    eight(row.degradation_level.map(i64::to_be_bytes));
    let length = i32::try_from(row.body.len()).map_err(|_| StoreError::Bug("a heartbeat of 2 GB".into()))?;
    piece.extend(length.to_be_bytes());
    piece.extend(row.body.as_bytes());
    Ok(())
}

/// Inserts rows and passes over those that are there.
async fn inserted(
    connection: &mut PgConnection,
    into: &'static ManyRows,
    rows: impl Iterator<Item = &HeartbeatRow> + Clone,
) -> Result<(), StoreError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        into.unfolded(
            "SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::float8[], \
             $7::float8[], $8::float8[], $9::float8[], $10::float8[], $11::bigint[], $12::text[])",
        )
    });
    let ints = |value: fn(&HeartbeatRow) -> i64| rows.clone().map(value).collect::<Vec<i64>>();
    let floats = |value: fn(&HeartbeatRow) -> Option<f64>| rows.clone().map(value).collect::<Vec<Option<f64>>>();
    sqlx::query(text.as_str())
        .bind(ints(|row| row.device.0))
        .bind(ints(|row| millis(row.ts)))
        .bind(ints(|row| row.boot_seq))
        .bind(ints(|row| row.seq))
        .bind(ints(|row| millis(row.received_at)))
        .bind(floats(|row| row.cpu_percent))
        .bind(floats(|row| row.mem_percent))
        .bind(floats(|row| row.disk_free_gb))
        .bind(floats(|row| row.temperature_c))
        .bind(floats(|row| row.load_avg))
        .bind(rows.clone().map(|row| row.degradation_level).collect::<Vec<Option<i64>>>())
        .bind(rows.clone().map(|row| &*row.body).collect::<Vec<&str>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes devices' pulses; `false` when the row of one that the transaction does not hold is not the one that it saw.
pub(super) async fn pulses(connection: &mut PgConnection, pulses: &[(DeviceNo, Pulse)]) -> Result<bool, StoreError> {
    if pulses.is_empty() {
        return Ok(true);
    }
    let ints = |value: fn(&Pulse) -> i64| pulses.iter().map(|(_, pulse)| value(pulse)).collect::<Vec<i64>>();
    let maybe = |value: fn(&Pulse) -> Option<i64>| pulses.iter().map(|(_, pulse)| value(pulse)).collect::<Vec<_>>();
    let written = sqlx::query(
        "UPDATE device_pulse p SET last_seen = r.seen, interval_s = r.every, heartbeat_boot = r.boot, heartbeat_seq = r.seq, \
         heartbeat_ts = r.ts, heartbeat_mark = r.mark, silent = r.silent, outline = r.outline FROM unnest($1::bigint[], \
         $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::boolean[], $9::bigint[], \
         $10::bigint[]) AS r (n, seen, every, boot, seq, ts, mark, silent, outline, seen_in) \
         WHERE p.device_no = r.n AND (r.seen_in IS NULL OR p.xmin::text::bigint = r.seen_in)",
    )
    .bind(pulses.iter().map(|(no, _)| no.0).collect::<Vec<i64>>())
    .bind(maybe(|pulse| pulse.last_seen))
    .bind(maybe(|pulse| pulse.interval_s))
    .bind(ints(|pulse| pulse.latest.0))
    .bind(ints(|pulse| pulse.latest.1))
    .bind(maybe(|pulse| pulse.ts))
    .bind(ints(|pulse| signed(pulse.mark)))
    .bind(pulses.iter().map(|(_, pulse)| pulse.silent).collect::<Vec<bool>>())
    .bind(ints(|pulse| pulse.outline))
    .bind(maybe(|pulse| pulse.seen_in))
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == pulses.len() as u64)
}

/// Moves marks of streams.
pub(super) async fn marks(connection: &mut PgConnection, marks: &[(DeviceNo, &str, u64)]) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO stream_acks (device_no, stream, seq) SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[]) \
         ON CONFLICT (device_no, stream) DO UPDATE SET seq = excluded.seq",
    )
    .bind(marks.iter().map(|(device, ..)| device.0).collect::<Vec<i64>>())
    .bind(marks.iter().map(|(_, stream, _)| *stream).collect::<Vec<&str>>())
    .bind(marks.iter().map(|(.., seq)| signed(*seq)).collect::<Vec<i64>>())
    .execute(connection)
    .await?;
    Ok(())
}
