//! Groups of commands: one for each of many devices, made and looked at together.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::commands::{insert, select_command};
use super::once::claim;
use super::sql::{query, query_as};
use super::{Actor, CommandRow, NewCommand, Once, Signed, Store, StoreError, millis};

/// A group to be made.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// ULID.
    pub id: String,
    /// Operation of all.
    pub kind: String,
    /// Its arguments, a JSON object.
    pub payload: String,
    /// The tag that chose the devices.
    pub tag: Option<String>,
    /// Remarks of the operator.
    pub notes: Option<String>,
    /// Asked for with a key.
    pub once: Option<Once>,
}

/// A group as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct GroupRow {
    /// ULID.
    pub id: String,
    /// Operation of all.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// Its arguments, JSON.
    pub payload: String,
    /// The tag that chose the devices.
    pub tag: Option<String>,
    /// Commands in it.
    pub total: i64,
    /// Remarks of the operator.
    pub notes: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// How many commands of a group are in a state.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StateCount {
    /// A word of the server's states.
    pub state: String,
    /// The device's word for what happened.
    pub code: Option<String>,
    /// Commands.
    pub count: i64,
}

impl Store {
    /// Makes a group and all of its commands, or nothing; devices that went out of service meanwhile are left out. `Ok(None)`
    /// when the key was used for the same before: the second value names that group.
    ///
    /// # Errors
    /// Those of the database and of `sign`, which is given the command's place in the list and its number.
    pub async fn create_group<E>(
        &self,
        actor: &Actor,
        group: &NewGroup,
        commands: &[NewCommand],
        now: DateTime<Utc>,
        mut sign: impl FnMut(usize, u64) -> Result<Signed, E>,
    ) -> Result<String, E>
    where
        E: From<StoreError>,
    {
        let mut tx = self.begin().await?;
        if let Some(once) = &group.once
            && let Some(before) = claim(&mut tx, &actor.org, once, &group.id, millis(now)).await?
        {
            return Ok(before);
        }
        let mut total = 0;
        for (place, command) in commands.iter().enumerate() {
            if insert(&mut tx, actor, command, now, |seq| sign(place, seq)).await? {
                total += 1;
            }
        }
        query(
            "INSERT INTO command_groups (id, org, type, payload, tag, total, notes, created_by, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&group.id)
        .bind(&actor.org)
        .bind(&group.kind)
        .bind(&group.payload)
        .bind(&group.tag)
        .bind(i64::from(total))
        .bind(&group.notes)
        .bind(&actor.name)
        .bind(millis(now))
        .execute(&mut *tx)
        .await
        .map_err(StoreError::from)?;
        record(&mut tx, actor, "command_group.create", &group.id, Some(group.kind.clone()), millis(now)).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(group.id.clone())
    }

    /// A group of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn group(&self, org: &str, id: &str) -> Result<Option<GroupRow>, StoreError> {
        Ok(query_as(
            "SELECT id, type, payload, tag, total, notes, created_by, created_at FROM command_groups \
             WHERE id = $1 AND org = $2",
        )
        .bind(id)
        .bind(org)
        .fetch_optional(&self.reader)
        .await?)
    }

    /// One page of an organization's groups, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn groups(&self, org: &str, offset: i64, limit: i64) -> Result<(Vec<GroupRow>, i64), StoreError> {
        let rows = "SELECT id, type, payload, tag, total, notes, created_by, created_at FROM command_groups \
                    WHERE org = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3";
        self.page((rows, "SELECT COUNT(*) FROM command_groups WHERE org = $1"), org, offset, limit).await
    }

    /// How many commands of a group are in which state.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn group_states(&self, group: &str) -> Result<Vec<StateCount>, StoreError> {
        Ok(query_as(
            "SELECT state, code, COUNT(*) AS count FROM commands WHERE group_id = $1 GROUP BY state, code \
             ORDER BY state",
        )
        .bind(group)
        .fetch_all(&self.reader)
        .await?)
    }

    /// One page of a group's commands, by device.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn group_commands(
        &self,
        org: &str,
        group: &str,
        offset: i64,
        limit: i64,
    ) -> Result<Vec<CommandRow>, StoreError> {
        Ok(query_as(select_command!("WHERE group_id = $1 AND org = $2 ORDER BY device_id, id LIMIT $3 OFFSET $4"))
            .bind(group)
            .bind(org)
            .bind(limit)
            .bind(offset)
            .fetch_all(&self.reader)
            .await?)
    }

    /// Identifiers of a group's commands that are not terminal.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open_of_group(&self, org: &str, group: &str) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            query_as("SELECT id FROM commands WHERE group_id = $1 AND org = $2 AND finished_at IS NULL")
                .bind(group)
                .bind(org)
                .fetch_all(&self.reader)
                .await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }
}
