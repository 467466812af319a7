//! Commands and presence of devices that only speak HTTP: they are asked nothing, they come and ask.

use chrono::{DateTime, Utc};

use super::commands::{append_history, finish, select_command};
use super::sql::{query, query_as};
use super::{CommandRow, DeviceNo, Store, StoreError, millis};

/// How often a command is handed out without a word of the device about it.
pub const MAX_HANDED: i64 = 3;
/// After the last time, the device has this long to say something, in milliseconds: three missed minutes.
const PATIENCE: i64 = 180_000;
/// Commands of one answer.
const AT_ONCE: i64 = 50;

impl Store {
    /// The commands that a device should have now, by priority and then in order; each counts as handed out once more. One that
    /// was handed out three times without a word, and whose last time is three minutes ago, has failed: the second value
    /// names those.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn hand_out(
        &self,
        org: &str,
        device: &str,
        now: DateTime<Utc>,
    ) -> Result<(Vec<CommandRow>, Vec<String>), StoreError> {
        let now = millis(now);
        let mut tx = self.begin().await?;
        let given_up: Vec<(String,)> = query_as(
            "SELECT id FROM commands WHERE org = $1 AND device_id = $2 AND finished_at IS NULL AND state = 'published' \
             AND attempts >= $3 AND handed_at <= $4",
        )
        .bind(org)
        .bind(device)
        .bind(MAX_HANDED)
        .bind(now - PATIENCE)
        .for_update()
        .fetch_all(&mut *tx)
        .await?;
        for (id,) in &given_up {
            finish(&mut tx, id, "failed", "the device was given it three times and never said a word", now).await?;
            query("UPDATE commands SET code = 'unacknowledged' WHERE id = $1").bind(id).execute(&mut *tx).await?;
        }
        let mut rows: Vec<CommandRow> = query_as(select_command!(
            "WHERE org = $1 AND device_id = $2 AND finished_at IS NULL AND state = 'published' AND attempts < $3 \
             AND cancel_requested = $4 AND expires_at > $5 AND COALESCE(not_before, 0) <= $5 \
             ORDER BY priority DESC, seq, created_at LIMIT $6"
        ))
        .bind(org)
        .bind(device)
        .bind(MAX_HANDED)
        .bind(false)
        .bind(now)
        .bind(AT_ONCE)
        .for_update()
        .fetch_all(&mut *tx)
        .await?;
        for row in &mut rows {
            query(
                "UPDATE commands SET attempts = attempts + 1, handed_at = $2, published_at = COALESCE(published_at, $2) \
                 WHERE id = $1",
            )
            .bind(&row.id)
            .bind(now)
            .execute(&mut *tx)
            .await?;
            if row.handed_at.is_none() {
                append_history(&mut tx, &row.id, "published", -1, now, Some("given to the device over HTTP")).await?;
            }
            row.attempts += 1;
            row.handed_at = Some(now);
        }
        tx.commit().await?;
        Ok((rows, given_up.into_iter().map(|(id,)| id).collect()))
    }

    /// How many commands wait for a device that asks.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn waiting_commands(&self, org: &str, device: &str, now: DateTime<Utc>) -> Result<i64, StoreError> {
        let (count,): (i64,) = query_as(
            "SELECT COUNT(*) FROM commands WHERE org = $1 AND device_id = $2 AND finished_at IS NULL \
             AND state = 'published' AND attempts < $3 AND cancel_requested = $4 AND expires_at > $5 \
             AND COALESCE(not_before, 0) <= $5",
        )
        .bind(org)
        .bind(device)
        .bind(MAX_HANDED)
        .bind(false)
        .bind(millis(now))
        .fetch_one(&self.reader)
        .await?;
        Ok(count)
    }

    /// Notes that a device was heard of over HTTP: one that never connected to the broker is online by it, until it misses
    /// three heartbeats.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn seen_over_http(&self, device: DeviceNo, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for statement in [
            "UPDATE device_pulse SET last_seen = $2 WHERE device_no = $1 AND (last_seen IS NULL OR last_seen < $2)",
            "UPDATE device_state SET presence = 'online', presence_reason = NULL, presence_at = $2 \
             WHERE device_no = $1 AND presence <> 'online' AND presence_boot < 0",
        ] {
            query(statement).bind(device.0).bind(millis(now)).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}
