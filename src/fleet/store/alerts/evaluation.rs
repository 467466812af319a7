//! How alerts come and go: which devices to look at, what they said last, and what becomes of their alerts.
//!
//! A look costs what changed: devices of which rules could see something new (see `worth`; a few hundred at a time, so that a
//! large fleet waits for its alerts and not for its database), devices that went away (along an index of their own), alerts whose
//! time has come (along theirs), some of those that have an alert, for what only time changes, and a few of all devices in turn,
//! for rules that changed. Everything is written so that doing it twice changes nothing: two servers that both believe to
//! lead make one alert, by the unique index of open ones.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use r58_mqtt::payload::Heartbeat;
use ulid::Ulid;

use crate::fleet::alerts::core::{State, Step};
use crate::fleet::alerts::memory::Memory;
use crate::fleet::alerts::reading::{Change, Held, Reading};
use crate::fleet::alerts::rule::Rule;
use crate::fleet::store::sql::{QueryBuilder, Tx, query, query_as};
use crate::fleet::store::{Store, StoreError, millis};

use super::worth::Waiting;

/// Devices looked at in one transaction.
const AT_ONCE: usize = 200;

/// Devices that went away.
const GONE: &str = "SELECT device_no, presence_at FROM device_state WHERE presence = 'offline' AND presence_at > $1 \
                    AND presence_at <= $2 ORDER BY presence_at LIMIT $3";

/// Devices with an alert that is not over.
const TROUBLED: &str = "SELECT DISTINCT device_no FROM alerts WHERE resolved_at IS NULL AND device_no > $1 \
                        ORDER BY device_no LIMIT $2";

/// Up to where devices were looked at.
#[derive(Debug, Clone)]
pub struct Since {
    waiting: Waiting,
    /// Gone up to then, milliseconds since 1970.
    gone: i64,
    /// The last device of the round over those that have an alert.
    troubled: i64,
    /// The last device of the round over all.
    round: i64,
}

impl Since {
    /// Devices that went away from then on, and rounds from the first device.
    pub fn from(at: DateTime<Utc>) -> Self {
        Self { waiting: Waiting::default(), gone: millis(at), troubled: i64::MIN, round: i64::MIN }
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Looked {
    /// Alerts that people may see and that changed: organization and identifier.
    pub changed: Vec<(String, String)>,
    /// There is more than one look takes.
    pub more: bool,
}

#[derive(sqlx::FromRow)]
struct ReadingRow {
    no: i64,
    id: String,
    org: String,
    tags: String,
    decommissioned_at: Option<i64>,
    presence: String,
    presence_reason: Option<String>,
    presence_at: Option<i64>,
    body: Option<String>,
    received_at: Option<i64>,
    memory: Option<String>,
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    id: String,
    device_no: i64,
    rule_id: String,
    subject: String,
    state: String,
    since: i64,
    clear_since: Option<i64>,
}

impl From<&HeldRow> for Held {
    fn from(row: &HeldRow) -> Self {
        let state = match row.state.as_str() {
            "pending" => State::Pending { since: row.since },
            _ => State::Open { clear_since: row.clear_since },
        };
        Self { id: row.id.clone(), rule_id: row.rule_id.clone(), subject: row.subject.clone(), state }
    }
}

/// A change of an alert, with whose it is.
struct Decided<'a> {
    device: &'a ReadingRow,
    rule: Option<&'a Rule>,
    change: Change,
}

fn numbers(query: &mut QueryBuilder, numbers: &[i64]) {
    let mut list = query.separated(", ");
    for no in numbers {
        list.push_bind(*no);
    }
    list.push_unseparated(")");
}

impl Store {
    /// Devices to look at now, each once, and `since` moved on.
    async fn to_look_at(&self, since: &mut Since, upto: i64, now: i64) -> Result<(BTreeSet<i64>, bool), StoreError> {
        let most = AT_ONCE as i64;
        self.fill(&mut since.waiting).await?;
        let gone: Vec<(i64, i64)> =
            query_as(GONE).bind(since.gone).bind(upto).bind(most).fetch_all(&self.reader).await?;
        let due: Vec<(i64,)> =
            query_as("SELECT device_no FROM alerts WHERE due_at IS NOT NULL AND due_at <= $1 ORDER BY due_at LIMIT $2")
                .bind(now)
                .bind(most)
                .fetch_all(&self.reader)
                .await?;
        let troubled: Vec<(i64,)> =
            query_as(TROUBLED).bind(since.troubled).bind(most / 4).fetch_all(&self.reader).await?;
        let round: Vec<(i64,)> = query_as("SELECT no FROM devices WHERE no > $1 ORDER BY no LIMIT $2")
            .bind(since.round)
            .bind(most / 4)
            .fetch_all(&self.reader)
            .await?;
        let many_gone = gone.len() >= AT_ONCE;
        since.gone = match gone.last() {
            // Others may have the very same time as the last one, unless all have it.
            Some((_, last)) if many_gone => (last - 1).max(since.gone + 1),
            _ => upto.max(since.gone),
        };
        since.troubled = troubled.last().map_or(i64::MIN, |(no,)| *no);
        since.round = round.last().map_or(0, |(no,)| *no);
        let mut all: BTreeSet<i64> = gone.into_iter().map(|(no, _)| no).collect();
        // Until they were looked at they wait, whatever goes wrong meanwhile.
        since.waiting.devices.extend(&all);
        all.extend(due.iter().chain(&troubled).chain(&round).map(|(no,)| *no));
        all.extend(since.waiting.devices.iter().take(AT_ONCE));
        Ok((all, many_gone || due.len() >= AT_ONCE))
    }

    /// Looks once: at what was reported, at what went away until `upto`, and at what is due `now`.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Busy`] when another server leads by now.
    pub async fn look_for_alerts(
        &self,
        since: &mut Since,
        upto: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Looked, StoreError> {
        let timer = self.meters.look_seconds.start_timer();
        let (devices, more) = self.to_look_at(since, millis(upto), millis(now)).await?;
        let mut looked = Looked { more, ..Looked::default() };
        let devices: Vec<i64> = devices.into_iter().collect();
        for some in devices.chunks(AT_ONCE) {
            looked.changed.extend(self.look_at(some, millis(now)).await?);
            for no in some {
                since.waiting.devices.remove(no);
            }
        }
        looked.more |= self.looked_at(&mut since.waiting).await?;
        timer.observe_duration();
        self.meters.looked.inc_by(devices.len() as u64);
        Ok(looked)
    }

    async fn look_at(&self, devices: &[i64], now: i64) -> Result<Vec<(String, String)>, StoreError> {
        let mut select = QueryBuilder::new(
            "SELECT d.no, d.id, d.org, d.tags, d.decommissioned_at, s.presence, s.presence_reason, s.presence_at, h.body, \
             h.received_at, m.body AS memory FROM devices d JOIN device_state s ON s.device_no = d.no \
             JOIN device_pulse p ON p.device_no = d.no \
             LEFT JOIN heartbeats h ON h.device_no = p.device_no AND h.ts = p.heartbeat_ts AND h.boot_seq = p.heartbeat_boot \
             AND h.seq = p.heartbeat_seq LEFT JOIN alert_memory m ON m.device_no = d.no WHERE d.no IN (",
        );
        numbers(&mut select, devices);
        select.push(" ORDER BY d.no");
        let rows: Vec<ReadingRow> = select.build_query_as().fetch_all(&self.reader).await?;
        let mut select = QueryBuilder::new(
            "SELECT id, device_no, rule_id, subject, state, since, clear_since FROM alerts WHERE resolved_at IS NULL \
             AND device_no IN (",
        );
        numbers(&mut select, devices);
        let held: Vec<HeldRow> = select.build_query_as().fetch_all(&self.reader).await?;
        let mut orgs: Vec<&str> = rows.iter().map(|row| row.org.as_str()).collect();
        orgs.sort_unstable();
        orgs.dedup();
        if orgs.is_empty() {
            return Ok(Vec::new());
        }
        let rules: Vec<(String, Rule)> = self
            .rules_in_force(&orgs)
            .await?
            .into_iter()
            .filter_map(|row| Some((row.org.clone(), row.rule()?)))
            .collect();
        let rules_of = |org: &str| -> Vec<Rule> {
            rules.iter().filter(|(owner, _)| owner == org).map(|(_, rule)| rule.clone()).collect()
        };
        let rules: Vec<(&str, Vec<Rule>)> = orgs.iter().map(|org| (*org, rules_of(org))).collect();
        let (mut decided, mut remembered) = (Vec::new(), Vec::new());
        for row in &rows {
            let rules = rules.iter().find(|(org, _)| *org == row.org).map_or(&[][..], |(_, rules)| rules);
            let held: Vec<Held> = held.iter().filter(|held| held.device_no == row.no).map(Held::from).collect();
            let (reading, news) = reading(row);
            remembered.extend(news.map(|memory| (row.no, memory)));
            decided.extend(reading.changes(rules, &held, now).into_iter().map(|change| Decided {
                device: row,
                rule: change.rule.and_then(|n| rules.get(n)),
                change,
            }));
        }
        if decided.is_empty() && remembered.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        self.fence(&mut tx).await?;
        for (no, memory) in remembered {
            query(
                "INSERT INTO alert_memory (device_no, body) VALUES ($1, $2) \
                 ON CONFLICT (device_no) DO UPDATE SET body = excluded.body",
            )
            .bind(no)
            .bind(memory)
            .execute(&mut *tx)
            .await?;
        }
        let mut changed = Vec::new();
        for one in &decided {
            if let Some(id) = write(&mut tx, one, now).await? {
                changed.push((one.device.org.clone(), id));
            }
        }
        tx.commit().await?;
        Ok(changed)
    }
}

/// What is known of a device, and what is to be remembered of it if that is news.
fn reading(row: &ReadingRow) -> (Reading, Option<String>) {
    let heartbeat =
        row.body.as_deref().and_then(|body| serde_json::from_str::<Heartbeat>(body).ok()).zip(row.received_at);
    let held: Memory = row.memory.as_deref().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    let memory = heartbeat.as_ref().map_or_else(|| held.clone(), |(heartbeat, at)| held.with(heartbeat, *at));
    let news = (memory != held).then(|| serde_json::to_string(&memory).ok()).flatten();
    let reading = Reading {
        device: row.id.clone(),
        tags: serde_json::from_str(&row.tags).unwrap_or_default(),
        in_service: row.decommissioned_at.is_none(),
        presence: row.presence.clone(),
        reason: row.presence_reason.clone(),
        presence_at: row.presence_at,
        heartbeat,
        memory,
    };
    (reading, news)
}

/// Writes one change; answers with the alert when people see a difference.
async fn write(tx: &mut Tx, decided: &Decided<'_>, now: i64) -> Result<Option<String>, StoreError> {
    let Decided { device, rule, change } = decided;
    let hold = rule.map_or(0, |rule| rule.for_s * 1_000);
    let Some(id) = &change.alert else {
        let (since, raised) = match change.step {
            Step::Wait { since } => (since, None),
            Step::Raise { since } => (since, Some(now)),
            _ => return Ok(None),
        };
        let Some(rule) = rule else { return Ok(None) };
        let id = Ulid::new().to_string();
        let done = query(
            "INSERT INTO alerts (id, org, rule_id, rule_name, kind, severity, device_id, device_no, subject, state, value, \
             detail, since, due_at, raised_at, notify_at, notified, updated_at, receivers) \
             SELECT $1, $2, id, name, kind, severity, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14, receivers FROM alert_rules \
             WHERE id = $3 AND enabled = $15 ON CONFLICT DO NOTHING",
        )
        .bind(&id)
        .bind(&device.org)
        .bind(&rule.id)
        .bind(&device.id)
        .bind(device.no)
        .bind(&change.subject)
        .bind(if raised.is_some() { "firing" } else { "pending" })
        .bind(change.value)
        .bind(&change.detail)
        .bind(since)
        .bind(raised.is_none().then_some(since + hold))
        .bind(raised)
        .bind(false)
        .bind(now)
        .bind(true)
        .execute(&mut **tx)
        .await?;
        return Ok((done.rows_affected() > 0 && raised.is_some()).then_some(id));
    };
    let done = match change.step {
        Step::Raise { .. } => {
            query(
                "UPDATE alerts SET state = 'firing', raised_at = $2, notify_at = $2, due_at = NULL, value = $3, detail = $4, \
                 updated_at = $2 WHERE id = $1 AND state = 'pending'",
            )
            .bind(id)
            .bind(now)
            .bind(change.value)
            .bind(&change.detail)
        }
        Step::Clearing { since } => {
            query("UPDATE alerts SET clear_since = $2, due_at = $3 WHERE id = $1 AND resolved_at IS NULL")
                .bind(id)
                .bind(since)
                .bind(since + hold)
        }
        Step::Unclear => {
            query("UPDATE alerts SET clear_since = NULL, due_at = NULL WHERE id = $1 AND resolved_at IS NULL").bind(id)
        }
        Step::Resolve => {
            query(
                "UPDATE alerts SET state = 'resolved', resolved_at = $2, resolution = $3, due_at = NULL, updated_at = $2, \
                 notify_at = CASE WHEN notified THEN $2 ELSE NULL END WHERE id = $1 AND resolved_at IS NULL",
            )
            .bind(id)
            .bind(now)
            .bind(&change.detail)
        }
        Step::Drop => query("DELETE FROM alerts WHERE id = $1 AND state = 'pending'").bind(id),
        Step::Keep | Step::Wait { .. } => return Ok(None),
    };
    let done = done.execute(&mut **tx).await?;
    let seen = matches!(change.step, Step::Raise { .. } | Step::Resolve);
    Ok((done.rows_affected() > 0 && seen).then(|| id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::store::sql::Pool;

    /// Without them a look costs what all devices cost, however few of them have something new.
    #[tokio::test]
    async fn a_look_goes_along_indexes_and_reads_no_other_devices() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(None, None, dir.path()).await.unwrap();
        let Pool::Sqlite(pool) = &store.reader else { panic!("a file") };
        let plan = async |statement: &str, values: usize| {
            let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan =
                (0..values).fold(sqlx::query_as::<_, (i64, i64, i64, String)>(plan), |plan, n| plan.bind(n as i64));
            plan.fetch_all(pool).await.unwrap()
        };
        for (statement, values, range) in [(GONE, 3, "presence=? AND presence_at>"), (TROUBLED, 2, "alerts_of_device")]
        {
            let plan = plan(statement, values).await;
            assert!(plan.len() == 1 && plan[0].3.contains(range), "{statement}: {plan:?}");
        }
        store.close().await;
    }
}
