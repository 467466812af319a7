//! What devices report of their commands.

use chrono::DateTime;
use r58_mqtt::DeviceAddress;
use r58_mqtt::outbox::MAX_SEQ;
use r58_mqtt::payload::{ClockState, CommandStatus, DeviceState, ServerState};
use serde_json::Value;

use super::commands::{append_history, select_command};
use super::sql::{Tx, query, query_as};
use super::{CommandRow, StoreError, millis};

/// What came of a status.
#[derive(Debug)]
pub(super) enum StatusOutcome {
    /// It told something new.
    News(Box<CommandRow>),
    /// It was known, or older than what is known, or speaks of a command that nobody here knows.
    Old,
    /// It repeats the end of a command that was withdrawn: somebody published the command again, so its copy at the broker has
    /// to go once more.
    Again,
    /// It speaks of another device's command.
    Foreign,
}

/// Merges one status of a device in service into the stored command.
pub(super) async fn apply(
    tx: &mut Tx,
    from: &DeviceAddress,
    status: &CommandStatus,
    now: i64,
) -> Result<StatusOutcome, StoreError> {
    let id = status.id.as_str();
    let row: Option<CommandRow> =
        query_as(select_command!("WHERE id = $1")).bind(id).for_update().fetch_optional(&mut **tx).await?;
    let row = match row {
        Some(row) if row.org == from.org.as_str() && row.device_id == from.device.as_str() => row,
        Some(_) => return Ok(StatusOutcome::Foreign),
        None => match &status.command {
            Some(command) => adopt(tx, from, status, command, now).await?,
            None => return Ok(StatusOutcome::Old),
        },
    };
    let rev = i64::try_from(status.rev).unwrap_or(i64::MAX);
    let held = row.server_state()?;
    let next = ServerState::Device(status.state);
    // Cancelled by the server before the device spoke: its word still counts, as with an expired one.
    let follows = match held {
        ServerState::Draft => true,
        ServerState::Device(DeviceState::Cancelled) if row.rev < 0 => status.state.is_terminal(),
        held => held.can_become(next),
    };
    // A refusal without a trace on the device (rev 0) may speak of another message with the same id.
    let ours = status.rev > 0 || held == ServerState::Draft || row.hash.is_none() || row.hash == status.hash;
    if rev <= row.rev || !follows || !ours {
        let again = ours && status.state.is_terminal() && row.finished_at.is_some();
        return if again && withdraw_again(tx, id).await? { Ok(StatusOutcome::Again) } else { Ok(StatusOutcome::Old) };
    }
    let finished = status.state.is_terminal().then_some(now);
    query(
        "UPDATE commands SET state = $2, rev = $3, attempts = $4, progress = $5, code = $6, reason = $7, \
         result = $8, finished_at = $9, retained = CASE WHEN $10 = 1 THEN 'withdraw' ELSE retained END \
         WHERE id = $1",
    )
    .bind(id)
    .bind(status.state.as_str())
    .bind(rev)
    .bind(i64::from(status.attempt))
    .bind(status.progress)
    .bind(&status.code)
    .bind(&status.reason)
    .bind(status.result.as_ref().map(ToString::to_string))
    .bind(finished)
    .bind(i64::from(finished.is_some()))
    .execute(&mut **tx)
    .await?;
    let ts = status.ts.filter(|_| status.clock == ClockState::Set).map_or(now, millis);
    append_history(tx, id, status.state.as_str(), rev, ts, status.reason.as_deref()).await?;
    let row = query_as(select_command!("WHERE id = $1")).bind(id).fetch_one(&mut **tx).await?;
    Ok(StatusOutcome::News(Box::new(row)))
}

async fn withdraw_again(tx: &mut Tx, id: &str) -> Result<bool, StoreError> {
    // A withdrawal under way may have overtaken the copy that the device speaks of, so it does not count for this one.
    let marked = query(
        "UPDATE commands SET retained = CASE retained WHEN 'none' THEN 'withdraw' ELSE 'again' END \
         WHERE id = $1 AND retained IN ('none', 'withdraw')",
    )
    .bind(id);
    Ok(marked.execute(&mut **tx).await?.rows_affected() > 0)
}

/// Numbers the device's next commands above `seq`. A database that was restored from a back-up may be behind a device, which takes
/// nothing that is numbered at or below its own floor.
pub(super) async fn number_above(tx: &mut Tx, device: &DeviceAddress, seq: u64) -> Result<(), StoreError> {
    if (1..MAX_SEQ).contains(&seq) {
        query("UPDATE devices SET command_seq = $2 WHERE id = $1 AND command_seq < $2")
            .bind(device.device.as_str())
            .bind(seq.cast_signed())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Takes a command in that was published past the server; it is withdrawn like any other once it is terminal.
async fn adopt(
    tx: &mut Tx,
    from: &DeviceAddress,
    status: &CommandStatus,
    body: &Value,
    now: i64,
) -> Result<CommandRow, StoreError> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let time = |key: &str| text(key).and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let args = body.get("args").filter(|args| args.is_object());
    let user = body.get("by").and_then(|by| by.get("user")).and_then(Value::as_str);
    // The server's own numbers go on above it: the device may have forgotten what was below.
    let seq = body.get("seq").and_then(Value::as_u64).filter(|seq| *seq < MAX_SEQ).unwrap_or(0).cast_signed();
    number_above(tx, from, seq.unsigned_abs()).await?;
    // Without an expiry of its own it is given a day, so that it cannot stay open for ever.
    let expires_at = time("expires_at").map_or(now + 86_400_000, |at| at.timestamp_millis());
    query(
        "INSERT INTO commands (id, org, device_id, seq, type, payload, priority, state, rev, attempts, retained, \
         hash, cancel_requested, created_by, created_at, not_before, expires_at) \
         VALUES ($1, $2, $3, $12, $4, $5, 5, 'published', -1, 0, 'there', $6, $7, $8, $9, $10, $11)",
    )
    .bind(status.id.as_str())
    .bind(from.org.as_str())
    .bind(from.device.as_str())
    .bind(text("op").unwrap_or("unknown"))
    .bind(args.map_or_else(|| "{}".to_owned(), ToString::to_string))
    .bind(&status.hash)
    .bind(false)
    .bind(format!("by hand:{}", user.unwrap_or("unknown")))
    .bind(now)
    .bind(time("not_before").map(|at| at.timestamp_millis()))
    .bind(expires_at)
    .bind(seq)
    .execute(&mut **tx)
    .await?;
    append_history(tx, status.id.as_str(), "published", -1, now, Some("published past the server")).await?;
    Ok(query_as(select_command!("WHERE id = $1")).bind(status.id.as_str()).fetch_one(&mut **tx).await?)
}
