//! Support bundles: who asked for them, how much has come, until when they are kept. The bytes are files elsewhere.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::sql::{query, query_as};
use super::{Actor, Store, StoreError, millis};

/// A bundle as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct BundleRow {
    /// That of the command that asked for it.
    pub id: String,
    /// Organization.
    pub org: String,
    /// The device.
    pub device_id: String,
    /// `requested`, `uploading`, `ready` or `failed`.
    pub state: String,
    /// As the device announced it.
    pub size_bytes: Option<i64>,
    /// As the device announced it.
    pub sha256: Option<String>,
    /// Bytes that are here for certain.
    pub received_bytes: i64,
    /// Why it failed.
    pub error: Option<String>,
    /// Who asked for it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub completed_at: Option<i64>,
    /// Milliseconds since 1970.
    pub expires_at: i64,
}

/// A bundle that is asked for.
#[derive(Debug)]
pub struct NewBundle<'a> {
    /// That of the command.
    pub id: &'a str,
    /// The device.
    pub device: &'a str,
    /// When it goes.
    pub expires_at: DateTime<Utc>,
}

/// What a device announces.
#[derive(Debug)]
pub struct Announcement<'a> {
    /// The device's organization.
    pub org: &'a str,
    /// The device.
    pub device: &'a str,
    /// That of the command.
    pub id: &'a str,
    /// Bytes of the archive.
    pub size: i64,
    /// Its checksum, 64 hex digits.
    pub sha256: &'a str,
    /// Bytes of all bundles that the organization may have.
    pub quota: i64,
    /// When it goes, unless that was said before.
    pub expires_at: DateTime<Utc>,
}

/// What came of an announcement.
#[derive(Debug)]
pub enum Announced {
    /// Send it.
    Welcome(Box<BundleRow>),
    /// Nobody asked this device for it, or it was deleted.
    Unknown,
    /// It was announced before as another one.
    Different,
    /// The organization has no room for it.
    OverQuota,
}

impl Store {
    /// Notes that a bundle was asked for.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_bundle(
        &self,
        actor: &Actor,
        new: &NewBundle<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        // The device may have been faster than we.
        query(
            "INSERT INTO support_bundles (id, org, device_id, state, received_bytes, created_by, created_at, expires_at) \
             VALUES ($1, $2, $3, 'requested', 0, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
        )
        .bind(new.id)
        .bind(&actor.org)
        .bind(new.device)
        .bind(&actor.name)
        .bind(millis(now))
        .bind(millis(new.expires_at))
        .execute(&mut *tx)
        .await?;
        record(&mut tx, actor, "bundle.create", new.id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// One page of a device's bundles, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn bundles(
        &self,
        org: &str,
        device: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<BundleRow>, i64), StoreError> {
        let sql = "SELECT id, org, device_id, state, size_bytes, sha256, received_bytes, error, created_by, created_at, \
                   completed_at, expires_at FROM support_bundles WHERE org = $1 AND device_id = $2 \
                   ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4";
        let rows = query_as(sql).bind(org).bind(device).bind(limit).bind(offset).fetch_all(&self.reader).await?;
        let count = "SELECT COUNT(*) FROM support_bundles WHERE org = $1 AND device_id = $2";
        let (total,): (i64,) = query_as(count).bind(org).bind(device).fetch_one(&self.reader).await?;
        Ok((rows, total))
    }

    /// One bundle of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn bundle(&self, org: &str, id: &str) -> Result<Option<BundleRow>, StoreError> {
        let sql = "SELECT id, org, device_id, state, size_bytes, sha256, received_bytes, error, created_by, created_at, \
                   completed_at, expires_at FROM support_bundles WHERE org = $1 AND id = $2";
        Ok(query_as(sql).bind(org).bind(id).fetch_optional(&self.reader).await?)
    }

    /// Whether there is a bundle of this id at all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn bundle_exists(&self, id: &str) -> Result<bool, StoreError> {
        let found: Option<(i64,)> = query_as("SELECT created_at FROM support_bundles WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        Ok(found.is_some())
    }

    /// A device says what it is about to send. Announced again, the answer tells where it stands.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn announce_bundle(&self, new: &Announcement<'_>, now: DateTime<Utc>) -> Result<Announced, StoreError> {
        let mut tx = self.begin().await?;
        // What an organization holds is read before something is added to it.
        tx.alone("bundles", new.org).await?;
        // A command `bundle` that did not come by way of `/bundles` has its bundle too, unless that was deleted: the
        // audit log remembers.
        query(
            "INSERT INTO support_bundles (id, org, device_id, state, received_bytes, created_by, created_at, expires_at) \
             SELECT id, org, device_id, 'requested', 0, created_by, $4, $5 FROM commands \
             WHERE id = $1 AND org = $2 AND device_id = $3 AND type = 'bundle' AND NOT EXISTS \
             (SELECT 1 FROM audit_log WHERE org = $2 AND target = $1 AND action = 'bundle.delete') \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(new.id)
        .bind(new.org)
        .bind(new.device)
        .bind(millis(now))
        .bind(millis(new.expires_at))
        .execute(&mut *tx)
        .await?;
        let sql = "SELECT id, org, device_id, state, size_bytes, sha256, received_bytes, error, created_by, created_at, \
                   completed_at, expires_at FROM support_bundles WHERE id = $1 AND org = $2 AND device_id = $3";
        let row: Option<BundleRow> =
            query_as(sql).bind(new.id).bind(new.org).bind(new.device).fetch_optional(&mut *tx).await?;
        let Some(row) = row.filter(|row| row.state != "failed") else { return Ok(Announced::Unknown) };
        if let (Some(size), Some(sha256)) = (row.size_bytes, row.sha256.as_deref()) {
            tx.commit().await?;
            return Ok(if (size, sha256) == (new.size, new.sha256) {
                Announced::Welcome(Box::new(row))
            } else {
                Announced::Different
            });
        }
        let (held,): (i64,) =
            query_as("SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM support_bundles WHERE org = $1")
                .bind(new.org)
                .fetch_one(&mut *tx)
                .await?;
        if held.saturating_add(new.size) > new.quota {
            return Ok(Announced::OverQuota);
        }
        query("UPDATE support_bundles SET state = 'uploading', size_bytes = $2, sha256 = $3 WHERE id = $1")
            .bind(new.id)
            .bind(new.size)
            .bind(new.sha256)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        let (size_bytes, sha256) = (Some(new.size), Some(new.sha256.to_owned()));
        Ok(Announced::Welcome(Box::new(BundleRow { state: "uploading".into(), size_bytes, sha256, ..row })))
    }

    /// Notes that the file now ends at `to` for certain; `false` when it did not end at `from`, or nobody wants it any more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn grow_bundle(&self, org: &str, id: &str, from: i64, to: i64) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let grown = query(
            "UPDATE support_bundles SET received_bytes = $4 \
             WHERE org = $1 AND id = $2 AND received_bytes = $3 AND state = 'uploading'",
        )
        .bind(org)
        .bind(id)
        .bind(from)
        .bind(to)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(grown.rows_affected() == 1)
    }

    /// Notes that all of it is here and right.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn complete_bundle(&self, org: &str, id: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query(
            "UPDATE support_bundles SET state = 'ready', completed_at = $3 \
             WHERE org = $1 AND id = $2 AND state = 'uploading'",
        )
        .bind(org)
        .bind(id)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Deletes a bundle's row; `false` when there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_bundle(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let sql = "DELETE FROM support_bundles WHERE id = $1 AND org = $2";
        self.delete(sql, "bundle.delete", actor, id, now).await
    }

    /// Lets go of bundles whose time is over; answers with their ids, whose files are to be removed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn expire_bundles(&self, now: DateTime<Utc>) -> Result<Vec<String>, StoreError> {
        let mut tx = self.begin().await?;
        let gone: Vec<(String,)> = query_as("DELETE FROM support_bundles WHERE expires_at <= $1 RETURNING id")
            .bind(millis(now))
            .fetch_all(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(gone.into_iter().map(|(id,)| id).collect())
    }
}
