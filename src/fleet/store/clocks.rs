//! Heartbeats of boxes whose clock is not set: they show 1970, or whatever the machine begins with, and are given a time here.
//!
//! A box says how long its process has been running, which its clock does not touch. What the server hears first of a start says
//! when that start began: when it was heard, less the uptime. Each heartbeat of the start is then that much later than its
//! beginning, live or out of the outbox, and the same each time that it comes. A word that was long on its way puts the beginning
//! too late; one that came faster, by more than [`CLOSER`], puts it right for what follows. Of an earlier start, told
//! afterwards, it is known only that it ended before the next began.
//!
//! A box of before this protocol counts no starts, and speaks only live: its heartbeats are from when they came. Only times
//! before 2020 are taken for those of a clock that is not set; one that is set wrong is an alert, not corrected.

use std::collections::BTreeMap;

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
        let (began, ran) = (millis(row.received_at) - uptime(row), uptime(row));
        let start = starts.entry((row.device.0, row.boot_seq)).or_insert(Start { began, ran });
        *start = Start { began: start.began.min(began), ran: start.ran.max(ran) };
    }
    let mut known: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    // The latest starts first: earlier ones ended before them.
    for ((device, boot), start) in starts.into_iter().rev() {
        known.insert((device, boot), beginning(tx, device, boot, &start).await?);
    }
    for row in rows.iter_mut().filter(|row| is_unset(row)) {
        let began = known.get(&(row.device.0, row.boot_seq));
        row.ts = began.map_or(row.received_at, |began| instant(began + uptime(row)));
    }
    Ok(())
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
