//! API keys: what programs sign in with. Only their hashes are kept.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::sql::{query, query_as};
use super::{Actor, Store, StoreError, millis};

/// The use of a key is noted at most this often, in milliseconds: a program may use it many times in a second.
const NOTE_EVERY: i64 = 60_000;

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// ULID.
    pub id: String,
    /// Its maker.
    pub user_id: String,
    /// Name to show.
    pub name: String,
    /// SHA-256 of the key, in hex.
    pub hash: String,
    /// JSON array of words.
    pub scopes: String,
    /// End of its life; none when it has none.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key as stored, with its maker.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ApiKeyRow {
    /// ULID.
    pub id: String,
    /// Organization.
    pub org: String,
    /// Its maker.
    pub user_id: String,
    /// The maker's address.
    pub email: String,
    /// The maker's role as it is now.
    pub role: String,
    /// Whether the maker may sign in.
    pub is_active: bool,
    /// Name to show.
    pub name: String,
    /// JSON array of words.
    pub scopes: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Milliseconds since 1970; up to a minute old.
    pub last_used_at: Option<i64>,
}

macro_rules! select_key {
    ($tail:literal) => {
        concat!(
            "SELECT k.id, k.org, k.user_id, u.email, u.role, u.is_active, k.name, k.scopes, k.created_at, k.expires_at, \
             k.last_used_at FROM api_keys k JOIN users u ON u.id = k.user_id ",
            $tail
        )
    };
}

impl Store {
    /// Stores a key's hash.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_api_key(
        &self,
        actor: &Actor,
        key: &NewApiKey,
        now: DateTime<Utc>,
    ) -> Result<Option<ApiKeyRow>, StoreError> {
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO api_keys (id, org, user_id, name, hash, scopes, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&key.id)
        .bind(&actor.org)
        .bind(&key.user_id)
        .bind(&key.name)
        .bind(&key.hash)
        .bind(&key.scopes)
        .bind(millis(now))
        .bind(key.expires_at.map(millis))
        .execute(&mut *tx)
        .await?;
        record(&mut tx, actor, "api_key.create", &key.id, Some(key.scopes.clone()), millis(now)).await?;
        let row = query_as(select_key!("WHERE k.id = $1")).bind(&key.id).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// The key with this hash, and its maker.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn api_key_by_hash(&self, hash: &str) -> Result<Option<ApiKeyRow>, StoreError> {
        Ok(query_as(select_key!("WHERE k.hash = $1")).bind(hash).fetch_optional(&self.reader).await?)
    }

    /// Notes that a key was used, at most once a minute.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_api_key_use(&self, key: &ApiKeyRow, now: DateTime<Utc>) -> Result<(), StoreError> {
        if key.last_used_at.is_some_and(|last| millis(now) - last < NOTE_EVERY) {
            return Ok(());
        }
        query("UPDATE api_keys SET last_used_at = $2 WHERE id = $1")
            .bind(&key.id)
            .bind(millis(now))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// One page of an organization's keys, newest first, of one maker or of all, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn api_keys(
        &self,
        org: &str,
        maker: Option<&str>,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<ApiKeyRow>, i64), StoreError> {
        let rows = query_as(select_key!(
            "WHERE k.org = $1 AND k.user_id = COALESCE($2, k.user_id) ORDER BY k.created_at DESC, k.id DESC LIMIT $3 OFFSET $4"
        ))
        .bind(org)
        .bind(maker)
        .bind(limit)
        .bind(offset)
        .fetch_all(&self.reader)
        .await?;
        let (total,): (i64,) =
            query_as("SELECT COUNT(*) FROM api_keys WHERE org = $1 AND user_id = COALESCE($2, user_id)")
                .bind(org)
                .bind(maker)
                .fetch_one(&self.reader)
                .await?;
        Ok((rows, total))
    }

    /// Deletes a key, of one maker or of any; `false` when there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_api_key(
        &self,
        actor: &Actor,
        maker: Option<&str>,
        id: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query("DELETE FROM api_keys WHERE id = $1 AND org = $2 AND user_id = COALESCE($3, user_id)")
            .bind(id)
            .bind(&actor.org)
            .bind(maker)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        record(&mut tx, actor, "api_key.delete", id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }
}
