//! Silences: for a while nobody is told.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::sql::{Tx, query, query_as};
use super::{Actor, Store, StoreError, millis};
use crate::fleet::alerts::silence::Silence;

/// A silence as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SilenceRow {
    /// ULID.
    pub id: String,
    /// Alerts of this rule.
    pub rule_id: Option<String>,
    /// Alerts of this device.
    pub device_id: Option<String>,
    /// Alerts of devices with this tag.
    pub tag: Option<String>,
    /// Why.
    pub reason: String,
    /// Who.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub starts_at: i64,
    /// Milliseconds since 1970.
    pub ends_at: i64,
}

impl From<SilenceRow> for Silence {
    fn from(row: SilenceRow) -> Self {
        Self {
            rule_id: row.rule_id,
            device_id: row.device_id,
            tag: row.tag,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
        }
    }
}

/// Most silences of an organization that are not over; each is held against each alert.
pub const MOST_SILENCES: i64 = 500;

macro_rules! select_silence {
    ($tail:literal) => {
        concat!(
            "SELECT id, rule_id, device_id, tag, reason, created_by, created_at, starts_at, ends_at FROM silences ",
            $tail
        )
    };
}

/// Alerts that wait for the end of a silence are thought of anew: there is one more, or one less.
async fn think_again(tx: &mut Tx, org: &str, now: i64) -> Result<(), StoreError> {
    query("UPDATE alerts SET notify_at = $2 WHERE org = $1 AND notify_at IS NOT NULL AND notify_at > $2")
        .bind(org)
        .bind(now)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Store {
    /// Begins a silence; `false` when there are too many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_silence(&self, actor: &Actor, row: &SilenceRow) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        tx.alone("silences", &actor.org).await?;
        let (count,): (i64,) = query_as("SELECT COUNT(*) FROM silences WHERE org = $1 AND ends_at > $2")
            .bind(&actor.org)
            .bind(row.created_at)
            .fetch_one(&mut *tx)
            .await?;
        if count >= MOST_SILENCES {
            return Ok(false);
        }
        query(
            "INSERT INTO silences (id, org, rule_id, device_id, tag, reason, created_by, created_at, starts_at, ends_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(&row.id)
        .bind(&actor.org)
        .bind(&row.rule_id)
        .bind(&row.device_id)
        .bind(&row.tag)
        .bind(&row.reason)
        .bind(&row.created_by)
        .bind(row.created_at)
        .bind(row.starts_at)
        .bind(row.ends_at)
        .execute(&mut *tx)
        .await?;
        think_again(&mut tx, &actor.org, row.created_at).await?;
        record(&mut tx, actor, "silence.create", &row.id, Some(row.reason.clone()), row.created_at).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// One page of an organization's silences, those that end last first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn silences(&self, org: &str, offset: i64, limit: i64) -> Result<(Vec<SilenceRow>, i64), StoreError> {
        let rows = select_silence!("WHERE org = $1 ORDER BY ends_at DESC, id DESC LIMIT $2 OFFSET $3");
        self.page((rows, "SELECT COUNT(*) FROM silences WHERE org = $1"), org, offset, limit).await
    }

    /// A silence of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn silence(&self, org: &str, id: &str) -> Result<Option<SilenceRow>, StoreError> {
        Ok(query_as(select_silence!("WHERE id = $1 AND org = $2"))
            .bind(id)
            .bind(org)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// Silences of an organization that are in force.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn silences_in_force(&self, org: &str, now: DateTime<Utc>) -> Result<Vec<Silence>, StoreError> {
        let rows: Vec<SilenceRow> = query_as(select_silence!("WHERE org = $1 AND ends_at > $2 AND starts_at <= $2"))
            .bind(org)
            .bind(millis(now))
            .fetch_all(&self.reader)
            .await?;
        Ok(rows.into_iter().map(Silence::from).collect())
    }

    /// Ends a silence now; `false` when there is none. It stays in the list; one that is over stays as it is.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn end_silence(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE silences SET ends_at = CASE WHEN ends_at < $3 THEN ends_at ELSE $3 END WHERE id = $1 AND org = $2",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        think_again(&mut tx, &actor.org, millis(now)).await?;
        record(&mut tx, actor, "silence.end", id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }
}
