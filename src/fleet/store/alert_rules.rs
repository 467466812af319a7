//! Rules of alerts, and the usual ones for every organization.

use chrono::{DateTime, Utc};
use ulid::Ulid;

use super::audit::record;
use super::sql::{QueryBuilder, Tx, query, query_as};
use super::{Actor, Store, StoreError, millis};
use crate::fleet::alerts::rule::{Kind, Rule, Severity, USUAL};

/// A rule as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct AlertRuleRow {
    /// ULID.
    pub id: String,
    /// Organization.
    pub org: String,
    /// What it looks at.
    pub kind: String,
    /// Name to show.
    pub name: String,
    /// Where it raises.
    pub threshold: Option<f64>,
    /// Where it clears.
    pub clear_threshold: Option<f64>,
    /// Seconds.
    pub for_s: i64,
    /// How bad it is.
    pub severity: String,
    /// Devices with it.
    pub tag: Option<String>,
    /// In force.
    pub enabled: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

impl AlertRuleRow {
    /// As it is evaluated; `None` for a kind that this program does not know.
    pub fn rule(self) -> Option<Rule> {
        Some(Rule {
            kind: Kind::from_stored(&self.kind)?,
            thresholds: self.threshold.zip(self.clear_threshold),
            severity: Severity::from_stored(&self.severity),
            id: self.id,
            name: self.name,
            for_s: self.for_s,
            tag: self.tag,
        })
    }
}

macro_rules! select_rule {
    ($tail:literal) => {
        concat!(
            "SELECT id, org, kind, name, threshold, clear_threshold, for_s, severity, tag, enabled, created_at, updated_at \
             FROM alert_rules ",
            $tail
        )
    };
}

async fn insert(tx: &mut Tx, row: &AlertRuleRow) -> Result<(), StoreError> {
    query(
        "INSERT INTO alert_rules (id, org, kind, name, threshold, clear_threshold, for_s, severity, tag, enabled, created_at, \
         updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
    )
    .bind(&row.id)
    .bind(&row.org)
    .bind(&row.kind)
    .bind(&row.name)
    .bind(row.threshold)
    .bind(row.clear_threshold)
    .bind(row.for_s)
    .bind(&row.severity)
    .bind(&row.tag)
    .bind(row.enabled)
    .bind(row.created_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends what a rule has open, because it is not in force any more.
async fn end_alerts_of(tx: &mut Tx, rule: &str, why: &str, now: i64) -> Result<(), StoreError> {
    query("DELETE FROM alerts WHERE rule_id = $1 AND state = 'pending'").bind(rule).execute(&mut **tx).await?;
    query(
        "UPDATE alerts SET state = 'resolved', resolved_at = $2, resolution = $3, due_at = NULL, updated_at = $2, \
         notify_at = CASE WHEN notified THEN $2 ELSE NULL END WHERE rule_id = $1 AND resolved_at IS NULL",
    )
    .bind(rule)
    .bind(now)
    .bind(why)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Makes the usual rules of an organization, once in its life.
pub(super) async fn make_usual(tx: &mut Tx, org: &str, now: i64) -> Result<(), StoreError> {
    let first = query("UPDATE organizations SET alert_rules_made = $2 WHERE id = $1 AND alert_rules_made <> $2");
    if first.bind(org).bind(true).execute(&mut **tx).await?.rows_affected() == 0 {
        return Ok(());
    }
    for (kind, name, threshold, for_s, severity) in USUAL {
        let thresholds = kind.check(threshold, None).map_err(StoreError::Bug)?;
        let row = AlertRuleRow {
            id: Ulid::new().to_string(),
            org: org.to_owned(),
            kind: kind.as_str().to_owned(),
            name: name.to_owned(),
            threshold: thresholds.map(|(raise, _)| raise),
            clear_threshold: thresholds.map(|(_, clear)| clear),
            for_s,
            severity: severity.as_str().to_owned(),
            tag: None,
            enabled: true,
            created_at: now,
            updated_at: now,
        };
        insert(tx, &row).await?;
    }
    Ok(())
}

impl Store {
    /// Gives every organization that has none yet the usual rules: those of a database that is older than rules.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn make_usual_alert_rules(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let without: Vec<(String,)> = query_as("SELECT id FROM organizations WHERE alert_rules_made <> $1")
            .bind(true)
            .fetch_all(&self.reader)
            .await?;
        for (org,) in without {
            let mut tx = self.begin().await?;
            make_usual(&mut tx, &org, millis(now)).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Makes a rule.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_alert_rule(&self, actor: &Actor, row: &AlertRuleRow) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        insert(&mut tx, row).await?;
        record(&mut tx, actor, "alert_rule.create", &row.id, Some(row.name.clone()), row.created_at).await?;
        tx.commit().await?;
        Ok(())
    }

    /// One page of an organization's rules, oldest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn alert_rules(
        &self,
        org: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<AlertRuleRow>, i64), StoreError> {
        let rows = select_rule!("WHERE org = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3");
        self.page((rows, "SELECT COUNT(*) FROM alert_rules WHERE org = $1"), org, offset, limit).await
    }

    /// A rule of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn alert_rule(&self, org: &str, id: &str) -> Result<Option<AlertRuleRow>, StoreError> {
        Ok(query_as(select_rule!("WHERE id = $1 AND org = $2")).bind(id).bind(org).fetch_optional(&self.reader).await?)
    }

    /// Replaces what may change of a rule; `false` when it is gone. One that is switched off ends its alerts.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn change_alert_rule(&self, actor: &Actor, row: &AlertRuleRow) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query(
            "UPDATE alert_rules SET name = $3, threshold = $4, clear_threshold = $5, for_s = $6, severity = $7, tag = $8, \
             enabled = $9, updated_at = $10 WHERE id = $1 AND org = $2",
        )
        .bind(&row.id)
        .bind(&actor.org)
        .bind(&row.name)
        .bind(row.threshold)
        .bind(row.clear_threshold)
        .bind(row.for_s)
        .bind(&row.severity)
        .bind(&row.tag)
        .bind(row.enabled)
        .bind(row.updated_at)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        if !row.enabled {
            end_alerts_of(&mut tx, &row.id, "its rule was switched off", row.updated_at).await?;
        }
        record(&mut tx, actor, "alert_rule.change", &row.id, Some(row.name.clone()), row.updated_at).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes a rule and ends its alerts; `false` when it is gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_alert_rule(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query("DELETE FROM alert_rules WHERE id = $1 AND org = $2").bind(id).bind(&actor.org);
        if done.execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        end_alerts_of(&mut tx, id, "its rule was deleted", millis(now)).await?;
        record(&mut tx, actor, "alert_rule.delete", id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The rules in force of these organizations.
    pub(super) async fn rules_in_force(&self, orgs: &[&str]) -> Result<Vec<AlertRuleRow>, StoreError> {
        let mut query = QueryBuilder::new(select_rule!("WHERE enabled = "));
        query.push_bind(true).push(" AND org IN (");
        let mut list = query.separated(", ");
        for org in orgs {
            list.push_bind((*org).to_owned());
        }
        list.push_unseparated(") ORDER BY created_at, id");
        Ok(query.build_query_as().fetch_all(&self.reader).await?)
    }
}
