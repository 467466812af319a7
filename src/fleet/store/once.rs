//! Requests that are carried out once however often they come: by the key that the caller gave them.

use super::StoreError;
use super::sql::{Tx, query, query_as};

/// How long a key is remembered, in milliseconds: a day.
const REMEMBERED: i64 = 86_400_000;

/// A request's key and what it asked for.
#[derive(Debug, Clone)]
pub struct Once {
    /// The caller's word for it.
    pub key: String,
    /// Hash of who asked for what.
    pub hash: String,
}

/// Takes the key for `target`, or answers with what it was taken for before. Two that come at the same time wait for
/// each other in the database.
///
/// # Errors
/// [`StoreError::Conflict`] when the key belongs to another request.
pub(super) async fn claim(
    tx: &mut Tx,
    org: &str,
    once: &Once,
    target: &str,
    now: i64,
) -> Result<Option<String>, StoreError> {
    query("DELETE FROM idempotency_keys WHERE created_at < $1").bind(now - REMEMBERED).execute(&mut **tx).await?;
    let taken = query(
        "INSERT INTO idempotency_keys (org, key, hash, target, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (org, key) DO NOTHING",
    )
    .bind(org)
    .bind(&once.key)
    .bind(&once.hash)
    .bind(target)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    if taken.rows_affected() > 0 {
        return Ok(None);
    }
    let (hash, before): (String, String) =
        query_as("SELECT hash, target FROM idempotency_keys WHERE org = $1 AND key = $2")
            .bind(org)
            .bind(&once.key)
            .fetch_one(&mut **tx)
            .await?;
    match hash == once.hash {
        true => Ok(Some(before)),
        false => Err(StoreError::Conflict("another request with this Idempotency-Key")),
    }
}
