//! Many rows in one statement, PostgreSQL's way: an array a column, unfolded by `unnest`.
//!
//! Chosen over `COPY` because a heartbeat that comes again has to be passed over (`ON CONFLICT`), which `COPY` cannot; a
//! `COPY` into a temporary table and an `INSERT` from there writes everything twice. One statement for each table keeps a batch at
//! a handful of round trips whatever its size, and there is one text to prepare, not one for each number of rows.

use std::sync::OnceLock;

use sqlx::PgConnection;

use super::heartbeats::{Advanced, HeartbeatRow, ManyRows};
use super::ingest::signed;
use super::{DeviceNo, StoreError, millis};

/// Stores heartbeats that are not there yet.
pub(super) async fn heartbeats(
    connection: &mut PgConnection,
    into: &'static ManyRows,
    rows: &[HeartbeatRow],
) -> Result<(), StoreError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        into.unfolded(
            "SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::float8[], \
             $7::float8[], $8::float8[], $9::float8[], $10::float8[], $11::bigint[], $12::text[])",
        )
    });
    let ints = |value: fn(&HeartbeatRow) -> i64| rows.iter().map(value).collect::<Vec<i64>>();
    let floats = |value: fn(&HeartbeatRow) -> Option<f64>| rows.iter().map(value).collect::<Vec<Option<f64>>>();
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
        .bind(rows.iter().map(|row| row.degradation_level).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| &*row.body).collect::<Vec<&str>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves devices' latest states forward, each device once.
pub(super) async fn advance(
    connection: &mut PgConnection,
    into: &'static ManyRows,
    rows: &[Advanced<'_>],
) -> Result<(), StoreError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| {
        into.unfolded(
            "SELECT n, 'unknown', -1, -1, seen, every, boot, seq, ts, -1, -1 FROM unnest($1::bigint[], $2::bigint[], \
             $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS rows (n, seen, every, boot, seq, ts)",
        )
    });
    let ints = |value: fn(&HeartbeatRow) -> i64| rows.iter().map(|(row, _)| value(row)).collect::<Vec<i64>>();
    sqlx::query(text.as_str())
        .bind(ints(|row| row.device.0))
        .bind(rows.iter().map(|(_, seen)| millis(*seen)).collect::<Vec<i64>>())
        .bind(rows.iter().map(|(row, _)| row.interval_s).collect::<Vec<Option<i64>>>())
        .bind(ints(|row| row.boot_seq))
        .bind(ints(|row| row.seq))
        .bind(ints(|row| millis(row.ts)))
        .execute(connection)
        .await?;
    Ok(())
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
