//! Messages about alerts on their way: gathered for each receiver, then sent until they arrive.
//!
//! `alerts.notify_at`, which is set in the transaction that raises or resolves an alert, says that somebody is to be told. The
//! leader turns it into items of the receivers' messages ([`Store::gather_notices`]); a message is closed when its time has
//! come, claimed for one attempt, and claimed again when nobody says what came of that.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ulid::Ulid;

use super::alert_receivers::{AlertReceiverRow, select_receiver};
use super::audit::record;
use super::sql::{Tx, query, query_as};
use super::{Actor, Store, StoreError, instant, millis};
use crate::fleet::alerts::message::{Item, Message, NAMED};
use crate::fleet::alerts::rule::Severity;
use crate::fleet::alerts::silence::{Silence, silenced_until};

/// Alerts gathered in one transaction.
const AT_ONCE: i64 = 500;
/// Messages sent at the same time.
const LOT: i64 = 16;
/// How long a message that arrived or failed is kept.
const KEPT: chrono::Duration = chrono::Duration::days(30);

/// A message as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct DeliveryRow {
    /// ULID.
    pub id: String,
    /// `gathering`, `pending`, `sent` or `failed`.
    pub state: String,
    /// Only to see whether it arrives.
    pub test: bool,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next.
    pub next_at: Option<i64>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// When it arrived.
    pub sent_at: Option<i64>,
    /// What went wrong last.
    pub error: Option<String>,
    /// Alerts that it is about.
    pub alerts: i64,
}

/// A message to be sent now.
pub struct DueDelivery {
    /// The same at every attempt.
    pub id: String,
    /// This attempt, from 1.
    pub attempts: u32,
    /// JSON.
    pub body: String,
    /// To whom; to nobody when the receiver was switched off.
    pub receiver: Option<AlertReceiverRow>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived.
    Sent,
    /// It did not.
    Failed {
        /// Why.
        error: String,
        /// When to try again; `None` when that was the last attempt.
        again: Option<Duration>,
    },
}

#[derive(sqlx::FromRow)]
struct NoticeRow {
    id: String,
    org: String,
    rule_id: String,
    severity: String,
    device_id: String,
    tags: String,
    state: String,
    notified: bool,
    notify_at: i64,
    receivers: Option<String>,
}

#[derive(sqlx::FromRow)]
struct ItemRow {
    event: String,
    id: String,
    severity: String,
    kind: String,
    rule_name: String,
    device_id: String,
    device_name: String,
    subject: String,
    detail: String,
    since: i64,
}

/// The message of a receiver that is being gathered; made if there is none.
async fn gathering(tx: &mut Tx, org: &str, receiver: &str, now: i64, until: i64) -> Result<String, StoreError> {
    query(
        "INSERT INTO alert_deliveries (id, org, receiver_id, state, test, attempts, next_at, created_at) \
         VALUES ($1, $2, $3, 'gathering', $4, 0, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(Ulid::new().to_string())
    .bind(org)
    .bind(receiver)
    .bind(false)
    .bind(until)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    let (id,): (String,) = query_as("SELECT id FROM alert_deliveries WHERE receiver_id = $1 AND state = 'gathering'")
        .bind(receiver)
        .for_update()
        .fetch_one(&mut **tx)
        .await?;
    Ok(id)
}

async fn compose(tx: &mut Tx, org: &str, id: &str) -> Result<Message, StoreError> {
    let (total,): (i64,) = query_as("SELECT COUNT(*) FROM alert_delivery_items WHERE delivery_id = $1")
        .bind(id)
        .fetch_one(&mut **tx)
        .await?;
    let rows: Vec<ItemRow> = query_as(
        "SELECT i.event, a.id, a.severity, a.kind, a.rule_name, a.device_id, d.name AS device_name, a.subject, a.detail, \
         a.since FROM alert_delivery_items i JOIN alerts a ON a.id = i.alert_id JOIN devices d ON d.id = a.device_id \
         WHERE i.delivery_id = $1 ORDER BY i.event, a.id LIMIT $2",
    )
    .bind(id)
    .bind(i64::try_from(NAMED).unwrap_or(i64::MAX))
    .fetch_all(&mut **tx)
    .await?;
    let alerts = rows.into_iter().map(|row| Item {
        event: row.event,
        id: row.id,
        severity: row.severity,
        kind: row.kind,
        rule_name: row.rule_name,
        device_id: row.device_id,
        device_name: row.device_name,
        subject: row.subject,
        detail: row.detail,
        since: instant(row.since),
    });
    Ok(Message {
        v: 1,
        delivery_id: id.to_owned(),
        org: org.to_owned(),
        test: false,
        total: usize::try_from(total).unwrap_or(0),
        alerts: alerts.collect(),
    })
}

impl Store {
    /// Takes alerts whose change is to be told into their receivers' messages, or puts them off while they are silenced;
    /// `false` when there are none.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Busy`] when another server leads by now.
    pub async fn gather_notices(&self, now: DateTime<Utc>, within: Duration) -> Result<bool, StoreError> {
        let at = millis(now);
        let due: Vec<NoticeRow> = query_as(
            "SELECT a.id, a.org, a.rule_id, a.severity, a.device_id, d.tags, a.state, a.notified, a.notify_at, \
             a.receivers FROM alerts a \
             JOIN devices d ON d.id = a.device_id WHERE a.notify_at IS NOT NULL AND a.notify_at <= $1 \
             ORDER BY a.notify_at LIMIT $2",
        )
        .bind(at)
        .bind(AT_ONCE)
        .fetch_all(&self.reader)
        .await?;
        if due.is_empty() {
            return Ok(false);
        }
        let mut orgs: Vec<&str> = due.iter().map(|notice| notice.org.as_str()).collect();
        orgs.sort_unstable();
        orgs.dedup();
        for org in orgs {
            let mut tx = self.begin().await?;
            self.fence(&mut tx).await?;
            // Read within: a silence that begins or ends meanwhile sets `notify_at` anew, and then nothing is written here.
            let silences = self.silences_in_force(org, now).await?;
            let receivers: Vec<AlertReceiverRow> =
                query_as(select_receiver!("WHERE org = $1 AND enabled = $2 ORDER BY id"))
                    .bind(org)
                    .bind(true)
                    .fetch_all(&mut *tx)
                    .await?;
            for notice in due.iter().filter(|notice| notice.org == org) {
                gather(&mut tx, notice, &silences, &receivers, at, at.saturating_add(ms(within))).await?;
            }
            tx.commit().await?;
        }
        Ok(i64::try_from(due.len()).is_ok_and(|count| count >= AT_ONCE))
    }

    /// Messages to be sent now, each claimed for `claim`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn due_deliveries(&self, now: DateTime<Utc>, claim: Duration) -> Result<Vec<DueDelivery>, StoreError> {
        let at = millis(now);
        let due: Vec<(String, String)> = query_as(
            "SELECT id, org FROM alert_deliveries WHERE next_at IS NOT NULL AND next_at <= $1 ORDER BY next_at LIMIT $2",
        )
        .bind(at)
        .bind(LOT)
        .fetch_all(&self.reader)
        .await?;
        let mut all = Vec::with_capacity(due.len());
        for (id, org) in due {
            let mut tx = self.begin().await?;
            self.fence(&mut tx).await?;
            let claimed: Option<(i64, Option<String>, String)> = query_as(
                "UPDATE alert_deliveries SET state = 'pending', attempts = attempts + 1, next_at = $3 WHERE id = $1 \
                 AND next_at IS NOT NULL AND next_at <= $2 RETURNING attempts, body, receiver_id",
            )
            .bind(&id)
            .bind(at)
            .bind(at.saturating_add(ms(claim)))
            .fetch_optional(&mut *tx)
            .await?;
            let Some((attempts, body, receiver)) = claimed else { continue };
            let body = match body {
                Some(body) => body,
                None => {
                    let message = compose(&mut tx, &org, &id).await?;
                    let body = serde_json::to_string(&message).map_err(|error| StoreError::Bug(error.to_string()))?;
                    query("UPDATE alert_deliveries SET body = $2 WHERE id = $1")
                        .bind(&id)
                        .bind(&body)
                        .execute(&mut *tx)
                        .await?;
                    body
                }
            };
            let receiver = query_as(select_receiver!("WHERE id = $1 AND enabled = $2"))
                .bind(&receiver)
                .bind(true)
                .fetch_optional(&mut *tx)
                .await?;
            tx.commit().await?;
            all.push(DueDelivery { id, attempts: u32::try_from(attempts).unwrap_or(u32::MAX), body, receiver });
        }
        Ok(all)
    }

    /// Notes what came of an attempt.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_delivery(&self, id: &str, outcome: &Outcome, now: DateTime<Utc>) -> Result<(), StoreError> {
        let at = millis(now);
        let note = match outcome {
            Outcome::Sent => {
                query("UPDATE alert_deliveries SET state = 'sent', sent_at = $2, next_at = NULL, error = NULL WHERE id = $1")
                    .bind(id)
                    .bind(at)
            }
            Outcome::Failed { error, again: Some(pause) } => {
                query("UPDATE alert_deliveries SET next_at = $2, error = $3 WHERE id = $1 AND state = 'pending'")
                    .bind(id)
                    .bind(at.saturating_add(ms(*pause)))
                    .bind(error)
            }
            Outcome::Failed { error, again: None } => {
                query(
                    "UPDATE alert_deliveries SET state = 'failed', next_at = NULL, error = $2 WHERE id = $1 AND state = 'pending'",
                )
                .bind(id)
                .bind(error)
            }
        };
        note.execute(&self.writer).await?;
        Ok(())
    }

    /// Sends a receiver a message to see whether it arrives; answers with its identifier, or `None` when there is no such
    /// receiver.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn send_test(
        &self,
        actor: &Actor,
        receiver: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<String>, StoreError> {
        if self.alert_receiver(&actor.org, receiver).await?.is_none() {
            return Ok(None);
        }
        let id = Ulid::new().to_string();
        let message =
            Message { v: 1, delivery_id: id.clone(), org: actor.org.clone(), test: true, total: 0, alerts: Vec::new() };
        let body = serde_json::to_string(&message).map_err(|error| StoreError::Bug(error.to_string()))?;
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO alert_deliveries (id, org, receiver_id, state, test, attempts, next_at, created_at, body) \
             VALUES ($1, $2, $3, 'pending', $4, 0, $5, $5, $6)",
        )
        .bind(&id)
        .bind(&actor.org)
        .bind(receiver)
        .bind(true)
        .bind(millis(now))
        .bind(&body)
        .execute(&mut *tx)
        .await?;
        record(&mut tx, actor, "alert_receiver.test", receiver, None, millis(now)).await?;
        tx.commit().await?;
        Ok(Some(id))
    }

    /// One page of the messages of a receiver, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deliveries(
        &self,
        receiver: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<DeliveryRow>, i64), StoreError> {
        let rows = "SELECT d.id, d.state, d.test, d.attempts, d.next_at, d.created_at, d.sent_at, d.error, \
                    (SELECT COUNT(*) FROM alert_delivery_items i WHERE i.delivery_id = d.id) AS alerts \
                    FROM alert_deliveries d WHERE d.receiver_id = $1 ORDER BY d.id DESC LIMIT $2 OFFSET $3";
        let count = "SELECT COUNT(*) FROM alert_deliveries WHERE receiver_id = $1";
        self.page((rows, count), receiver, offset, limit).await
    }

    /// Removes messages that are over.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tidy_deliveries(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        query("DELETE FROM alert_deliveries WHERE next_at IS NULL AND created_at < $1")
            .bind(millis(now - KEPT))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

async fn gather(
    tx: &mut Tx,
    notice: &NoticeRow,
    silences: &[Silence],
    receivers: &[AlertReceiverRow],
    now: i64,
    until: i64,
) -> Result<(), StoreError> {
    let event = match notice.state.as_str() {
        "firing" => Some("firing"),
        "resolved" if notice.notified => Some("resolved"),
        // Somebody has it already, or it was over before anybody was told.
        _ => None,
    };
    let tags: Vec<String> = serde_json::from_str(&notice.tags).unwrap_or_default();
    let later = silenced_until(silences, &notice.rule_id, &notice.device_id, &tags, now).filter(|_| event.is_some());
    let done = query(
        "UPDATE alerts SET notify_at = $3, notified = CASE WHEN $4 THEN $4 ELSE notified END WHERE id = $1 \
         AND notify_at = $2 AND state = $5",
    )
    .bind(&notice.id)
    .bind(notice.notify_at)
    .bind(later)
    .bind(later.is_none() && event == Some("firing"))
    .bind(&notice.state)
    .execute(&mut **tx)
    .await?;
    let Some(event) = event.filter(|_| later.is_none() && done.rows_affected() > 0) else { return Ok(()) };
    let severity = Severity::from_stored(&notice.severity);
    let named: Option<Vec<String>> = notice.receivers.as_deref().and_then(|list| serde_json::from_str(list).ok());
    let wants = |one: &&AlertReceiverRow| severity >= Severity::from_stored(&one.min_severity);
    let is_named = |one: &&AlertReceiverRow| named.as_ref().is_none_or(|named| named.contains(&one.id));
    for receiver in receivers.iter().filter(wants).filter(is_named) {
        let delivery = gathering(tx, &notice.org, &receiver.id, now, until).await?;
        query("INSERT INTO alert_delivery_items (delivery_id, alert_id, event) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(&delivery)
            .bind(&notice.id)
            .bind(event)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
