//! Who is told of alerts.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::sql::{query, query_as};
use super::{Actor, Store, StoreError};
use crate::fleet::alerts::courier::Target;

/// A receiver as stored.
#[derive(Clone, sqlx::FromRow)]
pub struct AlertReceiverRow {
    /// ULID.
    pub id: String,
    /// Organization.
    pub org: String,
    /// Name to show.
    pub name: String,
    /// `webhook` or `email`.
    pub kind: String,
    /// A URL, or a JSON array of addresses.
    pub target: String,
    /// What a webhook's messages are signed with.
    pub secret: Option<String>,
    /// Less is not told.
    pub min_severity: String,
    /// In use.
    pub enabled: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

impl AlertReceiverRow {
    /// Where its messages go.
    pub fn target(&self) -> Target {
        target(&self.kind, &self.target, self.secret.clone())
    }
}

/// Where messages of a stored receiver go.
pub(super) fn target(kind: &str, target: &str, secret: Option<String>) -> Target {
    match kind {
        "email" => Target::Email(serde_json::from_str(target).unwrap_or_default()),
        _ => Target::Webhook { url: target.to_owned(), secret },
    }
}

macro_rules! select_receiver {
    ($tail:literal) => {
        concat!(
            "SELECT id, org, name, kind, target, secret, min_severity, enabled, created_at, updated_at FROM alert_receivers ",
            $tail
        )
    };
}
pub(super) use select_receiver;

impl Store {
    /// Makes a receiver.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_alert_receiver(&self, actor: &Actor, row: &AlertReceiverRow) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO alert_receivers (id, org, name, kind, target, secret, min_severity, enabled, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
        )
        .bind(&row.id)
        .bind(&actor.org)
        .bind(&row.name)
        .bind(&row.kind)
        .bind(&row.target)
        .bind(&row.secret)
        .bind(&row.min_severity)
        .bind(row.enabled)
        .bind(row.created_at)
        .execute(&mut *tx)
        .await?;
        record(&mut tx, actor, "alert_receiver.create", &row.id, Some(row.name.clone()), row.created_at).await?;
        tx.commit().await?;
        Ok(())
    }

    /// One page of an organization's receivers, oldest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn alert_receivers(
        &self,
        org: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<AlertReceiverRow>, i64), StoreError> {
        let rows = select_receiver!("WHERE org = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3");
        self.page((rows, "SELECT COUNT(*) FROM alert_receivers WHERE org = $1"), org, offset, limit).await
    }

    /// A receiver of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn alert_receiver(&self, org: &str, id: &str) -> Result<Option<AlertReceiverRow>, StoreError> {
        let one = query_as(select_receiver!("WHERE id = $1 AND org = $2")).bind(id).bind(org);
        Ok(one.fetch_optional(&self.reader).await?)
    }

    /// Replaces what may change of a receiver; `false` when it is gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn change_alert_receiver(&self, actor: &Actor, row: &AlertReceiverRow) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE alert_receivers SET name = $3, target = $4, secret = $5, min_severity = $6, enabled = $7, updated_at = $8 \
             WHERE id = $1 AND org = $2",
        )
        .bind(&row.id)
        .bind(&actor.org)
        .bind(&row.name)
        .bind(&row.target)
        .bind(&row.secret)
        .bind(&row.min_severity)
        .bind(row.enabled)
        .bind(row.updated_at)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        record(&mut tx, actor, "alert_receiver.change", &row.id, Some(row.name.clone()), row.updated_at).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes a receiver, with what is on its way to it; `false` when it is gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_alert_receiver(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        self.delete("DELETE FROM alert_receivers WHERE id = $1 AND org = $2", "alert_receiver.delete", actor, id, now)
            .await
    }
}
