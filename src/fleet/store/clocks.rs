//! Heartbeats of boxes whose clock is not set: they show 1970, or whatever the machine begins with, and are given a time here.
//!
//! A box says how long its process has been running, which its clock does not touch. What the server hears first of a start says
//! when that start began: when it was heard, less the uptime. Each heartbeat of the start is then that much later than its
//! beginning, live or out of the outbox. A word that was long on its way puts the beginning too late; one that came faster, by
//! more than [`CLOSER`], puts it right for what follows. What is stored keeps the time that it was given, so that a heartbeat that
//! comes again is known as the same. Of an earlier start, told afterwards, it is known only that it ended before the next began.
//!
//! A box of before this protocol counts no starts, and speaks only live: its heartbeats are from when they came. Only times
//! before 2020 are taken for those of a clock that is not set; one that is set wrong is an alert, not corrected.

use std::collections::{BTreeMap, HashMap};

use super::heartbeats::HeartbeatRow;
use super::retention::CLOCK_SET;
use super::sql::{Tx, query, query_as};
use super::{StoreError, instant, millis};

/// Milliseconds by which a beginning has to be earlier to be taken in place of the one before.
const CLOSER: i64 = 60_000;
/// No process runs for longer, in seconds: ten years.
const UPTIME_MOST: i64 = 10 * 365 * 86_400;

/// What a batch says of a start.
struct Start {
    /// When it began, at the latest.
    began: i64,
    /// The longest uptime of it, in milliseconds.
    ran: i64,
    /// The shortest.
    from: i64,
    /// Numbers of its heartbeats, the lowest and the highest.
    seqs: (i64, i64),
}

/// Milliseconds for which the process had been running.
fn uptime(row: &HeartbeatRow) -> i64 {
    row.uptime_s.clamp(0, UPTIME_MOST) * 1_000
}

fn is_unset(row: &HeartbeatRow) -> bool {
    millis(row.ts) < CLOCK_SET
}

/// Gives heartbeats of a clock that is not set their time.
pub(super) async fn set_right(tx: &mut Tx, rows: &mut [HeartbeatRow]) -> Result<(), StoreError> {
    let mut starts: BTreeMap<(i64, i64), Start> = BTreeMap::new();
    for row in rows.iter().filter(|row| is_unset(row) && row.boot_seq > 0) {
        let (began, ran, seq) = (millis(row.received_at) - uptime(row), uptime(row), row.seq);
        let new = Start { began, ran, from: ran, seqs: (seq, seq) };
        let start = starts.entry((row.device.0, row.boot_seq)).or_insert(new);
        *start = Start {
            began: start.began.min(began),
            ran: start.ran.max(ran),
            from: start.from.min(ran),
            seqs: (start.seqs.0.min(seq), start.seqs.1.max(seq)),
        };
    }
    let mut known: BTreeMap<(i64, i64), (i64, HashMap<i64, i64>)> = BTreeMap::new();
    // The latest starts first: earlier ones ended before them.
    for ((device, boot), start) in starts.into_iter().rev() {
        let began = beginning(tx, device, boot, &start).await?;
        let stored = stored(tx, device, boot, began, &start).await?;
        known.insert((device, boot), (began, stored));
    }
    for row in rows.iter_mut().filter(|row| is_unset(row)) {
        row.ts = match known.get(&(row.device.0, row.boot_seq)) {
            None => row.received_at,
            Some((began, stored)) => instant(stored.get(&row.seq).copied().unwrap_or(began + uptime(row))),
        };
    }
    Ok(())
}

/// Times of a start's heartbeats that are stored already, by number. A beginning is only ever put earlier, so none of them is
/// placed before where it would be now; of what is told live there is nothing beyond that to be read.
async fn stored(
    tx: &mut Tx,
    device: i64,
    boot: i64,
    began: i64,
    start: &Start,
) -> Result<HashMap<i64, i64>, StoreError> {
    let rows: Vec<(i64, i64)> = query_as(
        "SELECT seq, ts FROM heartbeats WHERE device_no = $1 AND ts >= $2 AND boot_seq = $3 AND seq BETWEEN $4 AND $5",
    )
    .bind(device)
    .bind(began + start.from)
    .bind(boot)
    .bind(start.seqs.0)
    .bind(start.seqs.1)
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().collect())
}

/// When a start began: as it is known, or as the batch says.
async fn beginning(tx: &mut Tx, device: i64, boot: i64, start: &Start) -> Result<i64, StoreError> {
    let held: Option<(i64,)> = query_as("SELECT began FROM boot_clocks WHERE device_no = $1 AND boot_seq = $2")
        .bind(device)
        .bind(boot)
        .fetch_optional(&mut **tx)
        .await?;
    if let Some((held,)) = held
        && held - start.began < CLOSER
    {
        return Ok(held);
    }
    let (next,): (Option<i64>,) = query_as("SELECT MIN(began) FROM boot_clocks WHERE device_no = $1 AND boot_seq > $2")
        .bind(device)
        .bind(boot)
        .fetch_one(&mut **tx)
        .await?;
    let began = next.map_or(start.began, |next| start.began.min(next - start.ran));
    query(
        "INSERT INTO boot_clocks (device_no, boot_seq, began) VALUES ($1, $2, $3) \
         ON CONFLICT (device_no, boot_seq) DO UPDATE SET began = excluded.began",
    )
    .bind(device)
    .bind(boot)
    .bind(began)
    .execute(&mut **tx)
    .await?;
    Ok(began)
}
