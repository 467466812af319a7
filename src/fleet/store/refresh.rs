//! Refresh tokens: each is good for one use, and a second use ends the whole family.

use chrono::{DateTime, Utc};

use super::sql::{query, query_as};
use super::{Store, StoreError, millis};

/// What came of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// It was good: the user it belongs to, and the family that its successor joins.
    Good {
        /// The user.
        user_id: String,
        /// The family.
        family: String,
    },
    /// Unknown or expired.
    Unknown,
    /// It had been used before, so it may have been stolen; the family has ended.
    Reused,
}

impl Store {
    /// Stores a refresh token's hash.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn add_refresh_token(
        &self,
        user_id: &str,
        family: &str,
        hash: &str,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query("DELETE FROM refresh_tokens WHERE expires_at <= $1").bind(millis(now)).execute(&mut *tx).await?;
        query("INSERT INTO refresh_tokens (hash, user_id, family, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(hash)
            .bind(user_id)
            .bind(family)
            .bind(millis(now))
            .bind(millis(expires_at))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Uses a refresh token up.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn use_refresh_token(&self, hash: &str, now: DateTime<Utc>) -> Result<Refreshed, StoreError> {
        let mut tx = self.begin().await?;
        let row: Option<(String, String, Option<i64>)> =
            query_as("SELECT user_id, family, used_at FROM refresh_tokens WHERE hash = $1 AND expires_at > $2")
                .bind(hash)
                .bind(millis(now))
                .for_update()
                .fetch_optional(&mut *tx)
                .await?;
        let outcome = match row {
            None => Refreshed::Unknown,
            Some((_, family, Some(_))) => {
                query("DELETE FROM refresh_tokens WHERE family = $1").bind(family).execute(&mut *tx).await?;
                Refreshed::Reused
            }
            Some((user_id, family, None)) => {
                query("UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1")
                    .bind(hash)
                    .bind(millis(now))
                    .execute(&mut *tx)
                    .await?;
                Refreshed::Good { user_id, family }
            }
        };
        tx.commit().await?;
        Ok(outcome)
    }

    /// Ends the family of a refresh token; says nothing of whether there was one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn end_refresh_family(&self, hash: &str) -> Result<(), StoreError> {
        query("DELETE FROM refresh_tokens WHERE family IN (SELECT family FROM refresh_tokens WHERE hash = $1)")
            .bind(hash)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
