//! Commands from draft to their terminal state, and the broker's copy of each.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use r58_mqtt::payload::ServerState;

use super::audit::record;
use super::once::claim;
use super::sql::{QueryBuilder, Tx, query, query_as};
use super::{Actor, Once, Store, StoreError, millis};

/// What the broker holds of a command, or should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retained {
    /// Nothing.
    None,
    /// It is to be published.
    Publish,
    /// It is there.
    There,
    /// It is to be removed.
    Withdraw,
    /// It is to be removed, and once more after that: another copy came while a removal was under way.
    Again,
}

impl Retained {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Publish => "publish",
            Self::There => "there",
            Self::Withdraw => "withdraw",
            Self::Again => "again",
        }
    }
}

/// A command to be made.
#[derive(Debug, Clone, Default)]
pub struct NewCommand {
    /// ULID.
    pub id: String,
    /// The device.
    pub device_id: String,
    /// Operation.
    pub kind: String,
    /// Its arguments, a JSON object.
    pub payload: String,
    /// 1 to 10.
    pub priority: i64,
    /// Remarks of the operator.
    pub notes: Option<String>,
    /// Not to be begun before.
    pub not_before: Option<DateTime<Utc>>,
    /// Not to be begun after.
    pub expires_at: DateTime<Utc>,
    /// Sign it but leave publishing to the operator.
    pub draft: bool,
    /// What must hold before it begins, JSON.
    pub precond: Option<String>,
    /// The group that it is made in.
    pub group: Option<String>,
    /// The version of the configuration that it brings.
    pub config_ver: Option<i64>,
    /// Asked for with a key.
    pub once: Option<Once>,
}

/// A signed message and its hash.
#[derive(Debug, Clone)]
pub struct Signed {
    /// What is published.
    pub text: String,
    /// `sha256:` and the hash of its canonical bytes.
    pub hash: String,
}

/// A command as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct CommandRow {
    /// ULID, or what the hand-made command said.
    pub id: String,
    /// Organization.
    pub org: String,
    /// The device.
    pub device_id: String,
    /// Number within the device's commands; 0 for an adopted one.
    pub seq: i64,
    /// Operation.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// Its arguments, JSON.
    pub payload: String,
    /// 1 to 10.
    pub priority: i64,
    /// A word of [`ServerState`].
    pub state: String,
    /// The device's latest revision; -1 before the first.
    pub rev: i64,
    /// Attempts begun.
    pub attempts: i64,
    /// 0 to 1.
    pub progress: Option<f64>,
    /// The device's word for what happened.
    pub code: Option<String>,
    /// The same as a sentence.
    pub reason: Option<String>,
    /// JSON.
    pub result: Option<String>,
    /// Remarks of the operator.
    pub notes: Option<String>,
    /// The signed message.
    pub message: Option<String>,
    /// Its hash, which statuses repeat.
    pub hash: Option<String>,
    /// A word of [`Retained`].
    pub retained: String,
    /// Cancelling was asked for.
    pub cancel_requested: bool,
    /// Who made it.
    pub created_by: String,
    /// Milliseconds since 1970, like all that follow.
    pub created_at: i64,
    /// Not to be begun before.
    pub not_before: Option<i64>,
    /// Not to be begun after.
    pub expires_at: i64,
    /// When the broker took it.
    pub published_at: Option<i64>,
    /// When it reached its terminal state.
    pub finished_at: Option<i64>,
    /// What must hold before it begins, JSON.
    pub precond: Option<String>,
    /// The group that it was made in.
    pub group_id: Option<String>,
    /// When a device that speaks HTTP was last given it.
    pub handed_at: Option<i64>,
    /// The version of the configuration that it brings.
    pub config_ver: Option<i64>,
}

impl CommandRow {
    /// Its state.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the word is not one.
    pub fn server_state(&self) -> Result<ServerState, StoreError> {
        ServerState::from_str(&self.state).map_err(|_| StoreError::Corrupt("command state"))
    }
}

/// One step of a command's life.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct HistoryRow {
    /// The command.
    pub command_id: String,
    /// A word of [`ServerState`].
    pub state: String,
    /// The device's revision; -1 for a step of the server.
    pub rev: i64,
    /// Milliseconds since 1970: by the device's clock where it has one, else by the server's.
    pub ts: i64,
    /// Why.
    pub reason: Option<String>,
}

/// A command and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct CommandRef {
    /// The command.
    pub id: String,
    /// Organization.
    pub org: String,
    /// The device.
    pub device_id: String,
    /// The signed message.
    pub message: Option<String>,
}

macro_rules! select_command {
    ($tail:literal) => {
        concat!(
            "SELECT id, org, device_id, seq, type, payload, priority, state, rev, attempts, progress, code, reason, \
             result, notes, message, hash, retained, cancel_requested, created_by, created_at, not_before, expires_at, \
             published_at, finished_at, precond, group_id, handed_at, config_ver FROM commands ",
            $tail
        )
    };
}
pub(super) use select_command;

pub(super) async fn append_history(
    tx: &mut Tx,
    id: &str,
    state: &str,
    rev: i64,
    ts: i64,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO command_history (command_id, n, state, rev, ts, reason) \
         SELECT $1, COALESCE(MAX(n), 0) + 1, $2, $3, $4, $5 FROM command_history WHERE command_id = $1",
    )
    .bind(id)
    .bind(state)
    .bind(rev)
    .bind(ts)
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends a command on the server's own account and has the broker's copy removed.
pub(super) async fn finish(tx: &mut Tx, id: &str, state: &str, reason: &str, now: i64) -> Result<(), StoreError> {
    let done = query(
        "UPDATE commands SET state = $2, reason = $3, finished_at = $4, retained = 'withdraw' \
         WHERE id = $1 AND finished_at IS NULL",
    )
    .bind(id)
    .bind(state)
    .bind(reason)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 0 {
        // It came to its end in another way meanwhile.
        return Ok(());
    }
    append_history(tx, id, state, -1, now, Some(reason)).await
}

/// Writes a command down with the device's next number; `false` when the device is not in service.
pub(super) async fn insert<E>(
    tx: &mut Tx,
    actor: &Actor,
    command: &NewCommand,
    now: DateTime<Utc>,
    sign: impl FnOnce(u64) -> Result<Signed, E>,
) -> Result<bool, E>
where
    E: From<StoreError>,
{
    let seq: Option<(i64,)> = query_as(
        "UPDATE devices SET command_seq = command_seq + 1 \
         WHERE id = $1 AND org = $2 AND decommissioned_at IS NULL RETURNING command_seq",
    )
    .bind(&command.device_id)
    .bind(&actor.org)
    .fetch_optional(&mut **tx)
    .await
    .map_err(StoreError::from)?;
    let Some((seq,)) = seq else { return Ok(false) };
    let message = sign(seq.unsigned_abs())?;
    let (state, retained) = match command.draft {
        true => (ServerState::Draft, Retained::None),
        false => (ServerState::Published, Retained::Publish),
    };
    query(
        "INSERT INTO commands (id, org, device_id, seq, type, payload, priority, state, rev, attempts, notes, \
         message, hash, retained, cancel_requested, created_by, created_at, not_before, expires_at, precond, group_id, \
         config_ver) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, -1, 0, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
    )
    .bind(&command.id)
    .bind(&actor.org)
    .bind(&command.device_id)
    .bind(seq)
    .bind(&command.kind)
    .bind(&command.payload)
    .bind(command.priority)
    .bind(state.as_str())
    .bind(&command.notes)
    .bind(&message.text)
    .bind(&message.hash)
    .bind(retained.as_str())
    .bind(false)
    .bind(&actor.name)
    .bind(millis(now))
    .bind(command.not_before.map(millis))
    .bind(millis(command.expires_at))
    .bind(&command.precond)
    .bind(&command.group)
    .bind(command.config_ver)
    .execute(&mut **tx)
    .await
    .map_err(StoreError::from)?;
    append_history(tx, &command.id, state.as_str(), -1, millis(now), None).await?;
    Ok(true)
}

impl Store {
    /// Makes a command: takes the device's next number, has `sign` make the message with it, and stores both.
    /// `None` when the device is not in service. One whose key was used for the same before is not made: the answer is that one.
    ///
    /// # Errors
    /// Those of the database and of `sign`; then nothing is stored and the number is not used up.
    pub async fn create_command<E>(
        &self,
        actor: &Actor,
        command: &NewCommand,
        now: DateTime<Utc>,
        sign: impl FnOnce(u64) -> Result<Signed, E>,
    ) -> Result<Option<CommandRow>, E>
    where
        E: From<StoreError>,
    {
        let mut tx = self.begin().await?;
        if let Some(once) = &command.once
            && let Some(before) = claim(&mut tx, &actor.org, once, &command.id, millis(now)).await?
        {
            return Ok(self.command(&actor.org, &before).await?);
        }
        if !insert(&mut tx, actor, command, now, sign).await? {
            return Ok(None);
        }
        record(&mut tx, actor, "command.create", &command.id, Some(command.kind.clone()), millis(now)).await?;
        let row = query_as(select_command!("WHERE id = $1"))
            .bind(&command.id)
            .fetch_optional(&mut *tx)
            .await
            .map_err(StoreError::from)?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(row)
    }

    /// A command of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn command(&self, org: &str, id: &str) -> Result<Option<CommandRow>, StoreError> {
        Ok(query_as(select_command!("WHERE id = $1 AND org = $2"))
            .bind(id)
            .bind(org)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// One page of a device's commands, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn commands(
        &self,
        org: &str,
        device: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<CommandRow>, i64), StoreError> {
        let rows = query_as(select_command!(
            "WHERE device_id = $1 AND org = $2 ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
        ))
        .bind(device)
        .bind(org)
        .bind(limit)
        .bind(offset)
        .fetch_all(&self.reader)
        .await?;
        let (total,): (i64,) = query_as("SELECT COUNT(*) FROM commands WHERE device_id = $1 AND org = $2")
            .bind(device)
            .bind(org)
            .fetch_one(&self.reader)
            .await?;
        Ok((rows, total))
    }

    /// The steps of these commands, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn command_history(&self, ids: &[String]) -> Result<Vec<HistoryRow>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut query =
            QueryBuilder::new("SELECT command_id, state, rev, ts, reason FROM command_history WHERE command_id IN (");
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.clone());
        }
        list.push_unseparated(") ORDER BY command_id, n");
        Ok(query.build_query_as().fetch_all(&self.reader).await?)
    }

    /// Published commands of a device that are not terminal, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open_commands_of(&self, device: &str, now: DateTime<Utc>) -> Result<Vec<CommandRef>, StoreError> {
        Ok(query_as(
            "SELECT id, org, device_id, message FROM commands WHERE device_id = $1 AND finished_at IS NULL \
             AND expires_at > $2 AND cancel_requested = $3 AND state <> 'draft' ORDER BY seq, created_at",
        )
        .bind(device)
        .bind(millis(now))
        .bind(false)
        .fetch_all(&self.reader)
        .await?)
    }

    /// Commands of a device that are not terminal, drafts included: one that was published by hand is heard of only by its
    /// statuses, and those can be lost with a broker.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn awaited_commands_of(&self, device: &str, now: DateTime<Utc>) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = query_as(
            "SELECT id FROM commands WHERE device_id = $1 AND finished_at IS NULL AND expires_at > $2 \
             AND cancel_requested = $3 ORDER BY seq, created_at",
        )
        .bind(device)
        .bind(millis(now))
        .bind(false)
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// The highest number of a device's commands below which, itself included, all are terminal.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn seq_floor(&self, device: &str) -> Result<u64, StoreError> {
        let row: Option<(i64, Option<i64>)> = query_as(
            "SELECT d.command_seq, (SELECT MIN(seq) FROM commands WHERE device_id = $1 AND finished_at IS NULL \
             AND seq > 0) FROM devices d WHERE d.id = $1",
        )
        .bind(device)
        .fetch_optional(&self.reader)
        .await?;
        Ok(match row {
            Some((_, Some(open))) => open.saturating_sub(1).max(0).unsigned_abs(),
            Some((highest, None)) => highest.max(0).unsigned_abs(),
            None => 0,
        })
    }

    /// Commands whose copy at the broker is to be made or removed: the highest priority first, then the oldest.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn undelivered(&self, change: Retained, limit: i64) -> Result<Vec<CommandRef>, StoreError> {
        Ok(query_as(
            "SELECT id, org, device_id, message FROM commands WHERE retained IN ($1, $3) \
             AND retained IN ('publish', 'withdraw', 'again') ORDER BY priority DESC, created_at, seq, id LIMIT $2",
        )
        .bind(change.as_str())
        .bind(limit)
        .bind(if change == Retained::Withdraw { Retained::Again } else { change }.as_str())
        .fetch_all(&self.reader)
        .await?)
    }

    /// Notes that the broker took these changes, unless another one came since.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn mark_delivered(&self, change: Retained, ids: &[&str], now: DateTime<Utc>) -> Result<(), StoreError> {
        let next = if change == Retained::Publish { Retained::There } else { Retained::None };
        let published = (change == Retained::Publish).then(|| millis(now));
        let mut tx = self.begin().await?;
        for id in ids {
            query(
                "UPDATE commands SET retained = CASE retained WHEN 'again' THEN 'withdraw' ELSE $3 END, \
                 published_at = COALESCE(published_at, $4) \
                 WHERE id = $1 AND (retained = $2 OR (retained = 'again' AND $2 = 'withdraw'))",
            )
            .bind(*id)
            .bind(change.as_str())
            .bind(next.as_str())
            .bind(published)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
