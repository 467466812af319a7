//! Tokens of devices: one that is good, and for a time the one before it.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::sql::{Tx, query, query_as};
use super::{Actor, Store, StoreError, millis};

/// What a device's token is checked against.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct DeviceSecrets {
    /// Organization.
    pub org: String,
    /// SHA-256 of the token, in hex.
    pub token_hash: String,
    /// The same of the token before it, while the device has not used the new one.
    pub old_token_hash: Option<String>,
    /// Until when that one is good, in milliseconds since 1970.
    pub old_token_until: Option<i64>,
}

impl Store {
    /// The hashed tokens of a device that is in service.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_secrets(&self, id: &str) -> Result<Option<DeviceSecrets>, StoreError> {
        Ok(query_as(
            "SELECT org, token_hash, old_token_hash, old_token_until FROM devices \
             WHERE id = $1 AND decommissioned_at IS NULL AND token_hash IS NOT NULL",
        )
        .bind(id)
        .fetch_optional(&self.reader)
        .await?)
    }

    /// The device in service with a token of this hash, be it the current one or the one before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_of_token(&self, hash: &str) -> Result<Option<String>, StoreError> {
        let found: Option<(String,)> = query_as(
            "SELECT id FROM devices WHERE token_hash = $1 AND decommissioned_at IS NULL \
             UNION ALL SELECT id FROM devices WHERE old_token_hash = $1 AND decommissioned_at IS NULL LIMIT 1",
        )
        .bind(hash)
        .fetch_optional(&self.reader)
        .await?;
        Ok(found.map(|(id,)| id))
    }

    /// Ends the token before the current one: the device has used the current one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retire_old_token(&self, id: &str, current: &str) -> Result<(), StoreError> {
        query("UPDATE devices SET old_token_hash = NULL, old_token_until = NULL WHERE id = $1 AND token_hash = $2")
            .bind(id)
            .bind(current)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Gives a device another token. The one it uses stays good until `old_until`, or until the new one is used; without
    /// `old_until` it is dead at once. `false` when the device is not in service.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rotate_device_token(
        &self,
        actor: &Actor,
        id: &str,
        token_hash: &str,
        old_until: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !rotate(&mut tx, actor, id, token_hash, old_until, now).await? {
            return Ok(false);
        }
        record(&mut tx, actor, "device.rotate_token", id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Gives a device in service another token, in a transaction of the caller's; `false` when there is none.
pub(super) async fn rotate(
    tx: &mut Tx,
    actor: &Actor,
    id: &str,
    token_hash: &str,
    old_until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    // A new token that was never used is not the one that the device has: the one before it goes on.
    let done = query(
        "UPDATE devices SET old_token_hash = CASE WHEN $5 IS NULL THEN NULL WHEN old_token_until > $4 \
         THEN old_token_hash ELSE token_hash END, old_token_until = $5, token_hash = $3, updated_at = $4 \
         WHERE id = $1 AND org = $2 AND decommissioned_at IS NULL",
    )
    .bind(id)
    .bind(&actor.org)
    .bind(token_hash)
    .bind(millis(now))
    .bind(old_until.map(millis))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}
