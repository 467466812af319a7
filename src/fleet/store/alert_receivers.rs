//! Who is told of alerts.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::sql::{query, query_as};
use super::{Actor, Store, StoreError, millis, opening};
use crate::fleet::alerts::courier::Target;
use crate::fleet::vault::{Sealed, Vault, is_sealed};

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
    /// A URL, sealed, or a JSON array of addresses.
    pub target: String,
    /// What a webhook's messages are signed with, sealed.
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
    ///
    /// # Errors
    /// [`Sealed`] when its address or its secret was sealed with another server's key.
    pub fn target(&self, vault: &Vault) -> Result<Target, Sealed> {
        if self.kind == "email" {
            return Ok(Target::Email(serde_json::from_str(&self.target).unwrap_or_default()));
        }
        let secret = self.secret.as_deref().map(|secret| vault.open(&self.place("secret"), secret));
        Ok(Target::Webhook { url: vault.open(&self.place("target"), &self.target)?, secret: secret.transpose()? })
    }

    /// Seals what lies readable in it of a webhook: its address, whose path is a secret with some services, and what its
    /// messages are signed with; `false` when there is nothing.
    pub fn seal(&mut self, vault: &Vault) -> bool {
        let mut done = false;
        if self.kind != "email" && !is_sealed(&self.target) {
            (self.target, done) = (vault.seal(&self.place("target"), &self.target), true);
        }
        if let Some(secret) = self.secret.as_deref().filter(|secret| !is_sealed(secret)) {
            (self.secret, done) = (Some(vault.seal(&self.place("secret"), secret)), true);
        }
        done
    }

    fn place(&self, column: &str) -> String {
        format!("alert_receivers/{}/{column}", self.id)
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

/// Who takes one away and who names one in a rule pass here one after the other.
pub(super) const RECEIVERS: &str = "alert_receivers";

/// What came of deleting a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// Done.
    Done,
    /// There is no such receiver.
    Unknown,
    /// This rule names it, and would tell nobody.
    Named(String),
}

impl Store {
    /// Seals what an earlier version of this program stored readable. On SQLite it leaves no trace of it in the file; copies made
    /// before have it all the same.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn seal_older_receivers(&self, vault: &Vault) -> Result<(), StoreError> {
        let rows: Vec<AlertReceiverRow> = query_as(select_receiver!("ORDER BY id")).fetch_all(&self.reader).await?;
        let mut readable = Vec::new();
        for before in rows {
            let mut after = before.clone();
            if after.seal(vault) {
                readable.push((before, after));
            }
        }
        if readable.is_empty() {
            return Ok(());
        }
        opening::overwrite_freed(&self.writer, true).await?;
        let mut tx = self.begin().await?;
        for (before, after) in &readable {
            // Another server may do the same at the same time.
            query(
                "UPDATE alert_receivers SET target = $2, secret = $3 WHERE id = $1 AND target = $4 \
                 AND COALESCE(secret, '') = $5",
            )
            .bind(&after.id)
            .bind(&after.target)
            .bind(&after.secret)
            .bind(&before.target)
            .bind(before.secret.as_deref().unwrap_or_default())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        opening::overwrite_freed(&self.writer, false).await?;
        tracing::info!(receivers = readable.len(), "secrets of receivers are sealed from now on");
        Ok(())
    }

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

    /// Deletes a receiver, with what is on its way to it, unless a rule names it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_alert_receiver(
        &self,
        actor: &Actor,
        id: &str,
        now: DateTime<Utc>,
    ) -> Result<Removed, StoreError> {
        let mut tx = self.begin().await?;
        tx.alone(RECEIVERS, &actor.org).await?;
        let rules: Vec<(String, String)> =
            query_as("SELECT name, receivers FROM alert_rules WHERE org = $1 AND receivers IS NOT NULL ORDER BY id")
                .bind(&actor.org)
                .fetch_all(&mut *tx)
                .await?;
        // An identifier is in quotes there, and has none in it.
        let quoted = format!("\"{id}\"");
        if let Some((rule, _)) = rules.into_iter().find(|(_, named)| named.contains(&quoted)) {
            return Ok(Removed::Named(rule));
        }
        let gone = query("DELETE FROM alert_receivers WHERE id = $1 AND org = $2").bind(id).bind(&actor.org);
        if gone.execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(Removed::Unknown);
        }
        record(&mut tx, actor, "alert_receiver.delete", id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(Removed::Done)
    }
}
