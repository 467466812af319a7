//! Single steps of storing what devices say of themselves; `apply` puts them together.

use std::collections::HashMap;

use r58_mqtt::payload::{Presence, PresenceState, Reported};

use super::many::{CHUNKS, lists};
use super::sql::{QueryBuilder, Tx, query};
use super::{DeviceNo, StoreError, bulk, millis};

/// One item of a telemetry stream or one event.
pub(super) struct TelemetryRow<'a> {
    pub device: DeviceNo,
    pub stream: &'a str,
    pub boot_seq: i64,
    pub seq: i64,
    pub ts: i64,
    pub body: String,
}

/// Sequence numbers come unsigned and are stored signed; beyond 2^63 they all are the same.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Takes a presence message if it is newer than what is held.
pub(super) async fn presence(tx: &mut Tx, device: DeviceNo, report: &Presence, now: i64) -> Result<bool, StoreError> {
    let online = report.state == PresenceState::Online;
    // A later connection always; the same one from online to offline, or back from having been silent.
    let done = query(
        "UPDATE device_state SET presence = $2, presence_reason = $3, presence_at = $4, presence_boot = $5, \
         presence_conn = $6 WHERE device_no = $1 \
         AND (($5, $6) > (presence_boot, presence_conn) OR (presence_boot = $5 AND presence_conn = $6 \
         AND presence <> $2 AND ($2 = 'offline' OR presence_reason = 'silent')))",
    )
    .bind(device.0)
    .bind(if online { "online" } else { "offline" })
    .bind(report.reason.as_deref())
    .bind(now)
    .bind(signed(report.order.boot_seq))
    .bind(signed(report.order.conn_seq))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes a reported state if it is not older than what is held.
pub(super) async fn reported(tx: &mut Tx, device: DeviceNo, report: &Reported, body: &str) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE device_state SET reported = $5, reported_boot = $2, reported_ver = $3, reported_ts = $4 \
         WHERE device_no = $1 AND (($2, $3) > (reported_boot, reported_ver) OR (reported_boot = $2 \
         AND reported_ver = $3 AND COALESCE($4, reported_ts, 0) >= COALESCE(reported_ts, 0)))",
    )
    .bind(device.0)
    .bind(signed(report.boot_seq))
    .bind(signed(report.ver))
    .bind(report.ts.map(millis))
    .bind(body)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Replaces what a device can do.
pub(super) async fn caps(tx: &mut Tx, device: DeviceNo, body: &str) -> Result<(), StoreError> {
    query("UPDATE device_state SET caps = $2 WHERE device_no = $1")
        .bind(device.0)
        .bind(body)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Stores an item once.
pub(super) async fn telemetry(tx: &mut Tx, row: &TelemetryRow<'_>, now: i64) -> Result<(), StoreError> {
    query(
        "INSERT INTO telemetry (device_no, stream, boot_seq, seq, ts, received_at, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (device_no, stream, boot_seq, seq) DO NOTHING",
    )
    .bind(row.device.0)
    .bind(row.stream)
    .bind(row.boot_seq)
    .bind(row.seq)
    .bind(row.ts)
    .bind(now)
    .bind(&row.body)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How far the streams of these devices are stored, heartbeats aside.
pub(super) async fn marks(
    tx: &mut Tx,
    devices: &[DeviceNo],
) -> Result<HashMap<DeviceNo, HashMap<String, u64>>, StoreError> {
    let mut found: HashMap<DeviceNo, HashMap<String, u64>> = HashMap::with_capacity(devices.len());
    let numbers: Vec<i64> = devices.iter().map(|no| no.0).collect();
    for query in lists("SELECT device_no, stream, seq FROM stream_acks WHERE device_no IN (", &numbers) {
        let rows: Vec<(i64, String, i64)> = query.build_query_as().fetch_all(&mut **tx).await?;
        for (no, stream, seq) in rows {
            found.entry(DeviceNo(no)).or_default().insert(stream, seq.max(0).unsigned_abs());
        }
    }
    Ok(found)
}

/// Moves marks, those of heartbeats aside.
pub(super) async fn set_marks(tx: &mut Tx, mut marks: &[(DeviceNo, &str, u64)]) -> Result<(), StoreError> {
    if marks.is_empty() {
        return Ok(());
    }
    if let Some(connection) = tx.postgres() {
        return bulk::marks(connection, marks).await;
    }
    while !marks.is_empty() {
        let size = CHUNKS.into_iter().find(|size| *size <= marks.len()).unwrap_or(1);
        let (chunk, rest) = marks.split_at(size);
        let mut query = QueryBuilder::new("INSERT INTO stream_acks (device_no, stream, seq) ");
        query.push_values(chunk, |row, (device, stream, seq)| {
            row.push_bind(device.0).push_bind((*stream).to_owned()).push_bind(signed(*seq));
        });
        query.push(" ON CONFLICT (device_no, stream) DO UPDATE SET seq = excluded.seq");
        query.build().execute(&mut **tx).await?;
        marks = rest;
    }
    Ok(())
}
