//! Alerts: as people see them. How they come and go is in `evaluation`, of which devices in `worth`.

mod evaluation;
pub(super) mod worth;

pub use evaluation::{Looked, Since};

use chrono::{DateTime, Duration, Utc};

use super::audit::record;
use super::sql::{QueryBuilder, Tx, query, query_as};
use super::{Actor, Store, StoreError, millis};

/// How long an alert that is over is kept.
const KEPT: Duration = Duration::days(400);

/// An alert as stored, with what its device is called.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct AlertRow {
    /// ULID.
    pub id: String,
    /// Organization.
    pub org: String,
    /// The rule.
    pub rule_id: String,
    /// What the rule was called.
    pub rule_name: String,
    /// What the rule looks at.
    pub kind: String,
    /// How bad it is.
    pub severity: String,
    /// The device.
    pub device_id: String,
    /// Its name.
    pub device_name: String,
    /// Its tags, a JSON array.
    pub device_tags: String,
    /// What of the device; empty for the device itself.
    pub subject: String,
    /// `pending`, `firing`, `acknowledged` or `resolved`.
    pub state: String,
    /// What was measured.
    pub value: Option<f64>,
    /// What is the matter.
    pub detail: String,
    /// Since when the condition holds.
    pub since: i64,
    /// When it was raised.
    pub raised_at: Option<i64>,
    /// When somebody took it on.
    pub acknowledged_at: Option<i64>,
    /// Who.
    pub acknowledged_by: Option<String>,
    /// What was said then.
    pub note: Option<String>,
    /// When it was over.
    pub resolved_at: Option<i64>,
    /// Why.
    pub resolution: Option<String>,
    /// Its beginning was told.
    pub notified: bool,
}

/// Which alerts to list.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    /// `open` (firing or acknowledged) or a state; all but pending ones when absent.
    pub state: Option<&'static str>,
    /// At this severity.
    pub severity: Option<&'static str>,
    /// Of this device.
    pub device: Option<String>,
    /// Of this kind of rule.
    pub kind: Option<&'static str>,
}

/// What came of taking an alert on, or of giving it back.
#[derive(Debug)]
pub enum Acknowledged {
    /// Done, or done before.
    Done,
    /// There is no such alert.
    Unknown,
    /// It is in this state.
    Not(String),
}

macro_rules! select_alert {
    () => {
        "SELECT a.id, a.org, a.rule_id, a.rule_name, a.kind, a.severity, a.device_id, d.name AS device_name, \
         d.tags AS device_tags, a.subject, a.state, a.value, a.detail, a.since, a.raised_at, a.acknowledged_at, \
         a.acknowledged_by, a.note, a.resolved_at, a.resolution, a.notified FROM alerts a JOIN devices d ON d.id = a.device_id "
    };
}

/// How an alert stands that was not changed; it is done if somebody did it before.
async fn standing(tx: &mut Tx, org: &str, id: &str, wanted: &str) -> Result<Acknowledged, StoreError> {
    let held: Option<(String,)> = query_as("SELECT state FROM alerts WHERE id = $1 AND org = $2")
        .bind(id)
        .bind(org)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(match held {
        None => Acknowledged::Unknown,
        Some((state,)) if state == wanted => Acknowledged::Done,
        Some((state,)) => Acknowledged::Not(state),
    })
}

impl Store {
    /// An alert of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn alert(&self, org: &str, id: &str) -> Result<Option<AlertRow>, StoreError> {
        Ok(query_as(concat!(select_alert!(), "WHERE a.id = $1 AND a.org = $2"))
            .bind(id)
            .bind(org)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// Alerts of an organization, newest first, after the one named, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn alerts(
        &self,
        org: &str,
        filter: &AlertFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<AlertRow>, StoreError> {
        let mut query = QueryBuilder::new(concat!(select_alert!(), "WHERE a.org = "));
        query.push_bind(org.to_owned());
        match filter.state {
            None => query.push(" AND a.raised_at IS NOT NULL"),
            Some("open") => query.push(" AND a.resolved_at IS NULL AND a.raised_at IS NOT NULL"),
            Some("resolved") => query.push(" AND a.resolved_at IS NOT NULL"),
            Some(state) => query.push(" AND a.resolved_at IS NULL AND a.state = ").push_bind(state),
        };
        for (column, word) in [("severity", filter.severity), ("kind", filter.kind)] {
            if let Some(word) = word {
                query.push(" AND a.").push(column).push(" = ").push_bind(word);
            }
        }
        if let Some(device) = &filter.device {
            query.push(" AND a.device_id = ").push_bind(device.clone());
        }
        if let Some(after) = after {
            query.push(" AND a.id < ").push_bind(after.to_owned());
        }
        query.push(" ORDER BY a.id DESC LIMIT ").push_bind(limit);
        Ok(query.build_query_as().fetch_all(&self.reader).await?)
    }

    /// Open alerts of an organization: severity, whether acknowledged, and how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn alert_counts(&self, org: &str) -> Result<Vec<(String, String, i64)>, StoreError> {
        Ok(query_as(
            "SELECT severity, state, COUNT(*) FROM alerts WHERE org = $1 AND resolved_at IS NULL AND raised_at IS NOT NULL \
             GROUP BY severity, state",
        )
        .bind(org)
        .fetch_all(&self.reader)
        .await?)
    }

    /// Somebody takes a firing alert on.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn acknowledge_alert(
        &self,
        actor: &Actor,
        id: &str,
        note: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Acknowledged, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE alerts SET state = 'acknowledged', acknowledged_at = $3, acknowledged_by = $4, note = $5, \
             updated_at = $3 WHERE id = $1 AND org = $2 AND state = 'firing'",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(millis(now))
        .bind(&actor.name)
        .bind(note)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() > 0 {
            record(&mut tx, actor, "alert.acknowledge", id, note.map(str::to_owned), millis(now)).await?;
            tx.commit().await?;
            return Ok(Acknowledged::Done);
        }
        standing(&mut tx, &actor.org, id, "acknowledged").await
    }

    /// Gives an alert back that somebody took on: it fires again, and people hear of it if they have not yet.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unacknowledge_alert(
        &self,
        actor: &Actor,
        id: &str,
        now: DateTime<Utc>,
    ) -> Result<Acknowledged, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE alerts SET state = 'firing', acknowledged_at = NULL, acknowledged_by = NULL, note = NULL, \
             notify_at = CASE WHEN notified THEN NULL ELSE $3 END, updated_at = $3 WHERE id = $1 AND org = $2 \
             AND state = 'acknowledged'",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() > 0 {
            record(&mut tx, actor, "alert.unacknowledge", id, None, millis(now)).await?;
            tx.commit().await?;
            return Ok(Acknowledged::Done);
        }
        standing(&mut tx, &actor.org, id, "firing").await
    }

    /// Removes what was over long ago: alerts and silences.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tidy_alerts(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let old = millis(now - KEPT);
        query("DELETE FROM alerts WHERE resolved_at IS NOT NULL AND resolved_at < $1")
            .bind(old)
            .execute(&self.writer)
            .await?;
        query("DELETE FROM silences WHERE ends_at < $1").bind(old).execute(&self.writer).await?;
        Ok(())
    }
}
