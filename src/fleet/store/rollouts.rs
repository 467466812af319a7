//! Rollouts: which release goes to whom, and how far it has come.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::commands::{insert, select_command};
use super::sql::{query, query_as};
use super::{Actor, CommandRow, NewCommand, Signed, Store, StoreError, millis};

/// A rollout as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct RolloutRow {
    /// ULID; also the group of its commands.
    pub id: String,
    /// Organization.
    pub org: String,
    /// The release.
    pub version: String,
    /// Devices with this tag; without one, those of the channel.
    pub tag: Option<String>,
    /// The release's channel.
    pub channel: String,
    /// 1 to 100.
    pub percent: i64,
    /// 1 to 100.
    pub abort_percent: i64,
    /// Devices at a time.
    pub at_once: i64,
    /// `running`, `paused`, `halted`, `unsupported`, `completed` or `cancelled`.
    pub state: String,
    /// Why it stopped.
    pub reason: Option<String>,
    /// Who began it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

macro_rules! select_rollout {
    ($tail:literal) => {
        concat!(
            "SELECT id, org, version, tag, channel, percent, abort_percent, at_once, state, reason, created_by, created_at, \
             updated_at FROM rollouts ",
            $tail
        )
    };
}

/// Devices that a rollout is for; takes organization, tag and channel.
macro_rules! for_whom {
    () => {
        "FROM devices d JOIN device_state s ON s.device_no = d.no WHERE d.org = $1 AND d.decommissioned_at IS NULL \
         AND (($2 IS NULL AND d.update_channel = $3) OR EXISTS (SELECT 1 FROM device_tags t WHERE t.org = d.org \
         AND t.tag = $2 AND t.device_id = d.id)) "
    };
}

/// All commands, or with a true third value those that ended badly: as [`crate::fleet::rollout::Tally`] counts them.
macro_rules! ended_badly {
    () => {
        "(NOT $3 OR state IN ('failed', 'rejected', 'timed_out', 'interrupted', 'expired', 'closed')) "
    };
}

impl Store {
    /// Begins a rollout.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_rollout(&self, actor: &Actor, row: &RolloutRow) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO rollouts (id, org, version, tag, channel, percent, abort_percent, at_once, state, created_by, \
             created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
        )
        .bind(&row.id)
        .bind(&actor.org)
        .bind(&row.version)
        .bind(&row.tag)
        .bind(&row.channel)
        .bind(row.percent)
        .bind(row.abort_percent)
        .bind(row.at_once)
        .bind(&row.state)
        .bind(&actor.name)
        .bind(row.created_at)
        .execute(&mut *tx)
        .await?;
        record(&mut tx, actor, "rollout.create", &row.id, Some(row.version.clone()), row.created_at).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A rollout of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rollout(&self, org: &str, id: &str) -> Result<Option<RolloutRow>, StoreError> {
        Ok(query_as(select_rollout!("WHERE id = $1 AND org = $2"))
            .bind(id)
            .bind(org)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// One page of an organization's rollouts, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rollouts(&self, org: &str, offset: i64, limit: i64) -> Result<(Vec<RolloutRow>, i64), StoreError> {
        let rows = select_rollout!("WHERE org = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3");
        self.page((rows, "SELECT COUNT(*) FROM rollouts WHERE org = $1"), org, offset, limit).await
    }

    /// Rollouts of all organizations that are under way.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn running_rollouts(&self) -> Result<Vec<RolloutRow>, StoreError> {
        Ok(query_as(select_rollout!("WHERE state = 'running' ORDER BY id")).fetch_all(&self.reader).await?)
    }

    /// Moves a rollout from one state to another, with a larger percentage where one is given; `false` when it is not in
    /// that state any more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn move_rollout(
        &self,
        actor: &Actor,
        id: &str,
        (from, to): (&str, &str),
        percent: Option<i64>,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE rollouts SET state = $4, percent = COALESCE($5, percent), reason = $6, updated_at = $7 \
             WHERE id = $1 AND org = $2 AND state = $3",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(from)
        .bind(to)
        .bind(percent)
        .bind(reason)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let detail = format!("{to} {}", percent.map(|percent| format!("{percent} %")).unwrap_or_default());
        record(&mut tx, actor, "rollout.change", id, Some(detail.trim().to_owned()), millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Connected devices that a rollout is for and that it has not reached, after an identifier, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rollout_candidates(
        &self,
        rollout: &RolloutRow,
        after: &str,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = query_as(concat!(
            "SELECT d.id ",
            for_whom!(),
            "AND d.id > $4 AND s.presence = 'online' AND NOT EXISTS (SELECT 1 FROM rollout_devices r \
             WHERE r.rollout_id = $5 AND r.device_id = d.id) ORDER BY d.id LIMIT $6"
        ))
        .bind(&rollout.org)
        .bind(&rollout.tag)
        .bind(&rollout.channel)
        .bind(after)
        .bind(&rollout.id)
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// How many devices a rollout is for, and how many it has reached.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rollout_reach(&self, rollout: &RolloutRow) -> Result<(i64, i64), StoreError> {
        let (whole,): (i64,) = query_as(concat!("SELECT COUNT(*) ", for_whom!()))
            .bind(&rollout.org)
            .bind(&rollout.tag)
            .bind(&rollout.channel)
            .fetch_one(&self.reader)
            .await?;
        let (reached,): (i64,) = query_as("SELECT COUNT(*) FROM rollout_devices WHERE rollout_id = $1")
            .bind(&rollout.id)
            .fetch_one(&self.reader)
            .await?;
        Ok((whole, reached))
    }

    /// One page of a rollout's commands, by device, and how many there are; of all, or of those that ended badly.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rollout_commands(
        &self,
        org: &str,
        rollout: &str,
        failed: bool,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<CommandRow>, i64), StoreError> {
        let rows = query_as(concat!(
            select_command!("WHERE group_id = $1 AND org = $2 AND "),
            ended_badly!(),
            "ORDER BY device_id, id LIMIT $4 OFFSET $5"
        ));
        let rows = rows.bind(rollout).bind(org).bind(failed).bind(limit).bind(offset).fetch_all(&self.reader).await?;
        let (total,): (i64,) =
            query_as(concat!("SELECT COUNT(*) FROM commands WHERE group_id = $1 AND org = $2 AND ", ended_badly!()))
                .bind(rollout)
                .bind(org)
                .bind(failed)
                .fetch_one(&self.reader)
                .await?;
        Ok((rows, total))
    }

    /// Sends a rollout to one device: its command and its version to reach, once, however many servers do it at the same time.
    /// `false` when it was done before, or the rollout was stopped meanwhile.
    ///
    /// # Errors
    /// Those of the database and of `sign`.
    pub async fn roll_to<E>(
        &self,
        actor: &Actor,
        rollout: &RolloutRow,
        command: &NewCommand,
        now: DateTime<Utc>,
        sign: impl FnOnce(u64) -> Result<Signed, E>,
    ) -> Result<bool, E>
    where
        E: From<StoreError>,
    {
        let mut tx = self.begin().await?;
        let first = query(
            "INSERT INTO rollout_devices (rollout_id, device_id, command_id) \
             SELECT id, $2, $3 FROM rollouts WHERE id = $1 AND state = 'running' \
             ON CONFLICT (rollout_id, device_id) DO NOTHING",
        )
        .bind(&rollout.id)
        .bind(&command.device_id)
        .bind(&command.id)
        .execute(&mut *tx)
        .await
        .map_err(StoreError::from)?;
        if first.rows_affected() == 0 || !insert(&mut tx, actor, command, now, sign).await? {
            return Ok(false);
        }
        query("UPDATE devices SET target_version = $2, updated_at = $3 WHERE id = $1")
            .bind(&command.device_id)
            .bind(&rollout.version)
            .bind(millis(now))
            .execute(&mut *tx)
            .await
            .map_err(StoreError::from)?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(true)
    }
}
