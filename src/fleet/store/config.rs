//! Desired configurations of devices: versions that only grow, each brought to its device by a command.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::commands::{finish, insert};
use super::once::{Once, claim};
use super::sql::{query, query_as};
use super::{Actor, NewCommand, Signed, Store, StoreError, millis};

/// A version to be made.
#[derive(Debug, Clone)]
pub struct NewConfig {
    /// The device.
    pub device_id: String,
    /// The version that the author has seen; another one since makes it stale. Without it, whatever there is, is replaced.
    pub expected: Option<i64>,
    /// The whole document, a JSON object.
    pub document: String,
    /// Remarks of the author.
    pub notes: Option<String>,
    /// The version that is gone back to.
    pub restores: Option<i64>,
    /// The request's own key: asked for again, no other version is made.
    pub once: Option<Once>,
}

/// A version as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ConfigRow {
    /// Version.
    pub ver: i64,
    /// The whole document, JSON.
    pub document: String,
    /// Remarks of the author.
    pub notes: Option<String>,
    /// The version that was gone back to.
    pub restores: Option<i64>,
    /// The command that brings it.
    pub command_id: String,
    /// Who made it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is the latest version now.
    Done(i64),
    /// It was made before, by the same request.
    Again(i64),
    /// Somebody was faster: this is the latest version.
    Stale(i64),
    /// The device is not in service.
    NoDevice,
}

macro_rules! select_config {
    ($tail:literal) => {
        concat!(
            "SELECT ver, document, notes, restores, command_id, created_by, created_at FROM config_versions ",
            $tail
        )
    };
}

impl Store {
    /// Makes a version and the command that brings it, both or neither; commands of older versions that have not begun are
    /// superseded. `build` makes the command of a version, `sign` signs it with its number.
    ///
    /// # Errors
    /// Those of the database, of `build` and of `sign`.
    pub async fn put_config<E, S>(
        &self,
        actor: &Actor,
        config: &NewConfig,
        now: DateTime<Utc>,
        build: impl FnOnce(i64) -> Result<(NewCommand, S), E>,
    ) -> Result<Put, E>
    where
        E: From<StoreError>,
        S: FnOnce(u64) -> Result<Signed, E>,
    {
        let at = millis(now);
        let mut tx = self.begin().await?;
        // The device's row first: two authors take turns at it.
        let touched =
            query("UPDATE devices SET updated_at = $3 WHERE id = $1 AND org = $2 AND decommissioned_at IS NULL")
                .bind(&config.device_id)
                .bind(&actor.org)
                .bind(at)
                .execute(&mut *tx)
                .await
                .map_err(StoreError::from)?;
        if touched.rows_affected() == 0 {
            return Ok(Put::NoDevice);
        }
        let (latest, reported): (i64, i64) = query_as(
            "SELECT COALESCE((SELECT MAX(ver) FROM config_versions WHERE device_id = $1), 0), COALESCE(MAX(s.reported_ver), 0) \
             FROM devices d JOIN device_state s ON s.device_no = d.no WHERE d.id = $1",
        )
        .bind(&config.device_id)
        .fetch_one(&mut *tx)
        .await
        .map_err(StoreError::from)?;
        let ver = latest.max(reported).max(0).saturating_add(1);
        // Before anything is found stale: this very request may be what made it so.
        if let Some(once) = &config.once
            && let Some(before) = claim(&mut tx, &actor.org, once, &ver.to_string(), at).await?
        {
            return Ok(Put::Again(before.parse().map_err(|_| StoreError::Corrupt("idempotency key"))?));
        }
        if config.expected.is_some_and(|expected| expected != latest) {
            return Ok(Put::Stale(latest));
        }
        let open: Vec<(String, String)> = query_as(
            "SELECT id, state FROM commands WHERE device_id = $1 AND config_ver IS NOT NULL AND finished_at IS NULL",
        )
        .bind(&config.device_id)
        .fetch_all(&mut *tx)
        .await
        .map_err(StoreError::from)?;
        for (id, state) in open {
            match state.as_str() {
                "draft" | "published" => {
                    finish(&mut tx, &id, "superseded", &format!("version {ver} takes its place"), at).await?;
                }
                // The device has it and not begun: it is taken back, and the device has the last word.
                "received" | "accepted" | "queued" => {
                    query("UPDATE commands SET cancel_requested = $2, retained = 'withdraw' WHERE id = $1")
                        .bind(&id)
                        .bind(true)
                        .execute(&mut *tx)
                        .await
                        .map_err(StoreError::from)?;
                }
                _ => {}
            }
        }
        let (command, sign) = build(ver)?;
        if !insert(&mut tx, actor, &command, now, sign).await? {
            return Ok(Put::NoDevice);
        }
        query(
            "INSERT INTO config_versions (device_id, ver, document, notes, restores, command_id, created_by, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&config.device_id)
        .bind(ver)
        .bind(&config.document)
        .bind(&config.notes)
        .bind(config.restores)
        .bind(&command.id)
        .bind(&actor.name)
        .bind(at)
        .execute(&mut *tx)
        .await
        .map_err(StoreError::from)?;
        record(&mut tx, actor, "device.config", &config.device_id, Some(format!("version {ver}")), at).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(Put::Done(ver))
    }

    /// The latest version, or a certain one, of a device whose organization was checked.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn config(&self, device: &str, ver: Option<i64>) -> Result<Option<ConfigRow>, StoreError> {
        let sql = match ver {
            Some(_) => select_config!("WHERE device_id = $1 AND ver = $2"),
            None => select_config!("WHERE device_id = $1 AND ver >= $2 ORDER BY ver DESC LIMIT 1"),
        };
        Ok(query_as(sql).bind(device).bind(ver.unwrap_or(0)).fetch_optional(&self.reader).await?)
    }

    /// One page of a device's versions, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn configs(&self, device: &str, offset: i64, limit: i64) -> Result<(Vec<ConfigRow>, i64), StoreError> {
        let rows = select_config!("WHERE device_id = $1 ORDER BY ver DESC LIMIT $2 OFFSET $3");
        self.page((rows, "SELECT COUNT(*) FROM config_versions WHERE device_id = $1"), device, offset, limit).await
    }
}
