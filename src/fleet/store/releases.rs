//! Releases and the keys that their makers sign them with.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::sql::{query, query_as};
use super::{Actor, Store, StoreError, millis};

/// Most releases of an organization.
pub const MAX_RELEASES: i64 = 2_000;

/// The public half of a maker's key.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ReleaseKeyRow {
    /// ULID.
    pub id: String,
    /// Name to show.
    pub name: String,
    /// ed25519, base64.
    pub public_key: String,
    /// Who entered it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// A release as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ReleaseRow {
    /// As semver has it.
    pub version: String,
    /// `any`, or a processor.
    pub arch: String,
    /// Channel.
    pub channel: String,
    /// Where the artifact is.
    pub artifact_url: String,
    /// Where its own signature is.
    pub signature_url: Option<String>,
    /// SHA-256 of the artifact, in hex.
    pub checksum_sha256: String,
    /// Bytes of the artifact.
    pub size_bytes: i64,
    /// Lowest version that can be updated to it directly.
    pub min_version: Option<String>,
    /// What is new.
    pub changelog: Option<String>,
    /// The maker's signature over the metadata, base64.
    pub signature: Option<String>,
    /// The key that it was made with.
    pub key_id: Option<String>,
    /// Who entered it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub published_at: Option<i64>,
}

macro_rules! select_release {
    ($tail:literal) => {
        concat!(
            "SELECT version, arch, channel, artifact_url, signature_url, checksum_sha256, size_bytes, min_version, \
             changelog, signature, key_id, created_by, created_at, published_at FROM releases ",
            $tail
        )
    };
}

impl Store {
    /// Enters a maker's key.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_release_key(
        &self,
        actor: &Actor,
        id: &str,
        name: &str,
        public_key: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO release_keys (id, org, name, public_key, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(name)
        .bind(public_key)
        .bind(&actor.name)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        record(&mut tx, actor, "release_key.create", id, Some(public_key.to_owned()), millis(now)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// One page of an organization's keys, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release_keys(
        &self,
        org: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<ReleaseKeyRow>, i64), StoreError> {
        let rows = "SELECT id, name, public_key, created_by, created_at FROM release_keys WHERE org = $1 \
                    ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3";
        self.page((rows, "SELECT COUNT(*) FROM release_keys WHERE org = $1"), org, offset, limit).await
    }

    /// A key of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release_key(&self, org: &str, id: &str) -> Result<Option<ReleaseKeyRow>, StoreError> {
        Ok(query_as("SELECT id, name, public_key, created_by, created_at FROM release_keys WHERE id = $1 AND org = $2")
            .bind(id)
            .bind(org)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// Takes a key out; what was published with it stays published. `false` when there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_release_key(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let sql = "DELETE FROM release_keys WHERE id = $1 AND org = $2";
        self.delete(sql, "release_key.delete", actor, id, now).await
    }

    /// Enters a release that is not published yet; `false` when there are too many.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the version is there for this processor.
    pub async fn create_release(
        &self,
        actor: &Actor,
        row: &ReleaseRow,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let (held,): (i64,) =
            query_as("SELECT COUNT(*) FROM releases WHERE org = $1").bind(&actor.org).fetch_one(&mut *tx).await?;
        if held >= MAX_RELEASES {
            return Ok(false);
        }
        query(
            "INSERT INTO releases (org, version, arch, channel, artifact_url, signature_url, checksum_sha256, size_bytes, \
             min_version, changelog, created_by, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(&actor.org)
        .bind(&row.version)
        .bind(&row.arch)
        .bind(&row.channel)
        .bind(&row.artifact_url)
        .bind(&row.signature_url)
        .bind(&row.checksum_sha256)
        .bind(row.size_bytes)
        .bind(&row.min_version)
        .bind(&row.changelog)
        .bind(&actor.name)
        .bind(millis(now))
        .execute(&mut *tx)
        .await
        .map_err(|error| StoreError::from(error).conflict("this version"))?;
        record(&mut tx, actor, "release.create", &row.version, Some(row.arch.clone()), millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// A release of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release(&self, org: &str, version: &str, arch: &str) -> Result<Option<ReleaseRow>, StoreError> {
        Ok(query_as(select_release!("WHERE org = $1 AND version = $2 AND arch = $3"))
            .bind(org)
            .bind(version)
            .bind(arch)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// All releases of an organization, of one channel or of all; the order of versions is not the database's to know.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn releases(&self, org: &str, channel: Option<&str>) -> Result<Vec<ReleaseRow>, StoreError> {
        Ok(query_as(select_release!("WHERE org = $1 AND channel = COALESCE($2, channel)"))
            .bind(org)
            .bind(channel)
            .fetch_all(&self.reader)
            .await?)
    }

    /// Publishes a release with its maker's signature, which was checked; `false` when it is there no more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn publish_release(
        &self,
        actor: &Actor,
        (version, arch): (&str, &str),
        (key, signature): (&str, &str),
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE releases SET key_id = $4, signature = $5, published_at = COALESCE(published_at, $6) \
             WHERE org = $1 AND version = $2 AND arch = $3",
        )
        .bind(&actor.org)
        .bind(version)
        .bind(arch)
        .bind(key)
        .bind(signature)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        record(&mut tx, actor, "release.publish", version, Some(arch.to_owned()), millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes a release out; `None` when there is none, `Some(false)` while a rollout of the version is under way.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_release(
        &self,
        actor: &Actor,
        version: &str,
        arch: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<bool>, StoreError> {
        let mut tx = self.begin().await?;
        let (used,): (i64,) = query_as(
            "SELECT COUNT(*) FROM rollouts WHERE org = $1 AND version = $2 AND state IN ('running', 'paused')",
        )
        .bind(&actor.org)
        .bind(version)
        .fetch_one(&mut *tx)
        .await?;
        let done = query("DELETE FROM releases WHERE org = $1 AND version = $2 AND arch = $3")
            .bind(&actor.org)
            .bind(version)
            .bind(arch)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        if used > 0 {
            return Ok(Some(false));
        }
        record(&mut tx, actor, "release.delete", version, Some(arch.to_owned()), millis(now)).await?;
        tx.commit().await?;
        Ok(Some(true))
    }
}
