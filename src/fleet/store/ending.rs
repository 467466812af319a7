//! Commands that end without the device: cancelled by an operator, or by time.

use chrono::{DateTime, Utc};
use r58_mqtt::payload::ServerState;

use super::audit::record;
use super::commands::{finish, select_command};
use super::sql::{query, query_as};
use super::{Actor, CommandRef, CommandRow, Store, StoreError, millis};

impl Store {
    /// Cancels a command that has not begun. One the device never spoke of is cancelled at once; of one it holds, the
    /// broker's copy is removed and the device has the last word. `Ok(Err(row))` when it is too late.
    ///
    /// # Errors
    /// Those of the database; `Ok(Ok(None))` when there is no such command.
    #[allow(clippy::type_complexity)]
    pub async fn cancel_command(
        &self,
        actor: &Actor,
        id: &str,
        now: DateTime<Utc>,
    ) -> Result<Result<Option<CommandRow>, CommandRow>, StoreError> {
        let mut tx = self.begin().await?;
        let row: Option<CommandRow> = query_as(select_command!("WHERE id = $1 AND org = $2"))
            .bind(id)
            .bind(&actor.org)
            .for_update()
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(Ok(None)) };
        let state = row.server_state()?;
        let begun = matches!(state, ServerState::Device(device) if device.is_begun());
        if state.is_terminal() || begun {
            return Ok(Err(row));
        }
        if matches!(state, ServerState::Draft | ServerState::Published) {
            finish(&mut tx, id, "cancelled", "cancelled by an operator", millis(now)).await?;
        }
        query("UPDATE commands SET cancel_requested = $2, retained = 'withdraw' WHERE id = $1")
            .bind(id)
            .bind(true)
            .execute(&mut *tx)
            .await?;
        record(&mut tx, actor, "command.cancel", id, None, millis(now)).await?;
        let row = query_as(select_command!("WHERE id = $1")).bind(id).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        Ok(Ok(row))
    }

    /// Ends commands whose time has passed and of which the device never said that it began; answers with them. One
    /// that had begun is given `grace` to report.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn expire(
        &self,
        now: DateTime<Utc>,
        grace: chrono::Duration,
        limit: i64,
    ) -> Result<Vec<CommandRef>, StoreError> {
        let mut due: Vec<CommandRef> = query_as(
            "SELECT id, org, device_id, message FROM commands WHERE finished_at IS NULL AND (expires_at <= $2 \
             OR (expires_at <= $1 AND state NOT IN ('executing', 'rebooting', 'verifying'))) \
             ORDER BY expires_at LIMIT $3",
        )
        .bind(millis(now))
        .bind(millis(now - grace))
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        if due.is_empty() {
            return Ok(due);
        }
        // Locked in the order of their keys, as everywhere.
        due.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut tx = self.begin().await?;
        self.fence(&mut tx).await?;
        let mut ended = Vec::with_capacity(due.len());
        for row in due {
            // The device may have spoken since: look again, now that nobody else can write it.
            let state: Option<(String,)> = query_as("SELECT state FROM commands WHERE id = $1 AND finished_at IS NULL")
                .bind(&row.id)
                .for_update()
                .fetch_optional(&mut *tx)
                .await?;
            let Some((state,)) = state else { continue };
            let reason = match state.as_str() {
                "executing" | "rebooting" | "verifying" => "the device began it and never said what came of it",
                _ => "its time passed before the device began it",
            };
            finish(&mut tx, &row.id, "expired", reason, millis(now)).await?;
            ended.push(row);
        }
        tx.commit().await?;
        Ok(ended)
    }
}
