//! Public halves of the keys that commands are signed with.

use chrono::{DateTime, Utc};

use r58_mqtt::sign::PublicKey;

use super::sql::{query, query_as};
use super::{Store, StoreError, millis};

impl Store {
    /// Notes a public key (base64) under its identifier.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_server_key(&self, kid: &str, public_key: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        query("INSERT INTO server_keys (kid, public_key, created_at) VALUES ($1, $2, $3) ON CONFLICT (kid) DO NOTHING")
            .bind(kid)
            .bind(public_key)
            .bind(millis(now))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Every key that was noted, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn server_keys(&self) -> Result<Vec<PublicKey>, StoreError> {
        let rows: Vec<(String, String)> = query_as("SELECT kid, public_key FROM server_keys ORDER BY created_at, kid")
            .fetch_all(&self.reader)
            .await?;
        Ok(rows.into_iter().map(|(kid, public_key)| PublicKey { kid, public_key }).collect())
    }
}
