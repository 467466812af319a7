//! Rules of alerts, and the usual ones for every organization.

use chrono::{DateTime, Utc};
use ulid::Ulid;

use super::alert_receivers::RECEIVERS;
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
    /// This device.
    pub device_id: Option<String>,
    /// Who is told, a JSON array of identifiers; all receivers when there is none.
    pub receivers: Option<String>,
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
            device: self.device_id,
        })
    }

    /// Who is told; everybody when there are none.
    pub fn receiver_ids(&self) -> Option<Vec<String>> {
        serde_json::from_str(self.receivers.as_deref()?).ok()
    }
}

/// What came of making or changing a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruled {
    /// Done.
    Done,
    /// There is no such rule.
    Unknown,
    /// It names a receiver that the organization does not have.
    NoReceiver,
}

macro_rules! select_rule {
    ($tail:literal) => {
        concat!(
            "SELECT id, org, kind, name, threshold, clear_threshold, for_s, severity, tag, device_id, receivers, enabled, \
             created_at, updated_at FROM alert_rules ",
            $tail
        )
    };
}

async fn insert(tx: &mut Tx, row: &AlertRuleRow) -> Result<(), StoreError> {
    query(
        "INSERT INTO alert_rules (id, org, kind, name, threshold, clear_threshold, for_s, severity, tag, device_id, \
         receivers, enabled, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
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
    .bind(&row.device_id)
    .bind(&row.receivers)
    .bind(row.enabled)
    .bind(row.created_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Whether the organization has every receiver that a rule names. None of them goes before the transaction ends.
async fn knows_receivers(tx: &mut Tx, org: &str, row: &AlertRuleRow) -> Result<bool, StoreError> {
    let Some(named) = row.receiver_ids() else { return Ok(true) };
    tx.alone(RECEIVERS, org).await?;
    let mut select = QueryBuilder::new("SELECT id FROM alert_receivers WHERE org = ");
    select.push_bind(org.to_owned()).push(" AND id IN (");
    let mut list = select.separated(", ");
    for id in &named {
        list.push_bind(id.clone());
    }
    list.push_unseparated(")");
    let known: Vec<(String,)> = select.build_query_as().fetch_all(&mut **tx).await?;
    Ok(named.iter().all(|id| known.iter().any(|(other,)| other == id)))
}

/// Ends what a rule has open, because it is not in force any more.
async fn end_alerts_of(tx: &mut Tx, rule: &str, why: &str, now: i64) -> Result<(), StoreError> {
    query("DELETE FROM alerts WHERE rule_id = $1 AND resolved_at IS NULL AND state = 'pending'")
        .bind(rule)
        .execute(&mut **tx)
        .await?;
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

/// Makes the usual rules of the actor's organization, once in its life.
pub(super) async fn make_usual(tx: &mut Tx, actor: &Actor, now: i64) -> Result<(), StoreError> {
    let org = actor.org.as_str();
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
            device_id: None,
            receivers: None,
            enabled: true,
            created_at: now,
            updated_at: now,
        };
        insert(tx, &row).await?;
    }
    record(tx, actor, "alert_rule.create_usual", org, Some(format!("{} rules", USUAL.len())), now).await
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
            make_usual(&mut tx, &Actor::server(&org), millis(now)).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Makes a rule.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_alert_rule(&self, actor: &Actor, row: &AlertRuleRow) -> Result<Ruled, StoreError> {
        let mut tx = self.begin().await?;
        if !knows_receivers(&mut tx, &actor.org, row).await? {
            return Ok(Ruled::NoReceiver);
        }
        insert(&mut tx, row).await?;
        record(&mut tx, actor, "alert_rule.create", &row.id, Some(row.name.clone()), row.created_at).await?;
        tx.commit().await?;
        Ok(Ruled::Done)
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

    /// Replaces what may change of a rule. One that is switched off ends its alerts.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn change_alert_rule(&self, actor: &Actor, row: &AlertRuleRow) -> Result<Ruled, StoreError> {
        let mut tx = self.begin().await?;
        if !knows_receivers(&mut tx, &actor.org, row).await? {
            return Ok(Ruled::NoReceiver);
        }
        let done = query(
            "UPDATE alert_rules SET name = $3, threshold = $4, clear_threshold = $5, for_s = $6, severity = $7, tag = $8, \
             enabled = $9, updated_at = $10, device_id = $11, receivers = $12 WHERE id = $1 AND org = $2",
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
        .bind(&row.device_id)
        .bind(&row.receivers)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(Ruled::Unknown);
        }
        if !row.enabled {
            end_alerts_of(&mut tx, &row.id, "its rule was switched off", row.updated_at).await?;
        }
        record(&mut tx, actor, "alert_rule.change", &row.id, Some(row.name.clone()), row.updated_at).await?;
        tx.commit().await?;
        Ok(Ruled::Done)
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

    /// The rules in force of all organizations, one organization after the other.
    pub(super) async fn all_rules_in_force(&self) -> Result<Vec<AlertRuleRow>, StoreError> {
        Ok(query_as(select_rule!("WHERE enabled = $1 ORDER BY org, created_at, id"))
            .bind(true)
            .fetch_all(&self.reader)
            .await?)
    }
}
