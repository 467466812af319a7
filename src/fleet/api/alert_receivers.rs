//! Who is told of alerts: webhooks and mail addresses. For administrators alone, for an address may be a secret.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use lettre::Address;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::alerts::courier::Target;
use crate::fleet::alerts::rule::Severity;
use crate::fleet::alerts::target::{check_url, shown};
use crate::fleet::auth::Admin;
use crate::fleet::state::Fleet;
use crate::fleet::store::{AlertReceiverRow, DeliveryRow, Removed, instant, millis};
use crate::fleet::vault::{Sealed, Vault, is_sealed};
use crate::problem::{Answer, Problem};

/// Receivers of an organization.
const MOST_RECEIVERS: i64 = 50;
/// Addresses of one receiver.
const MOST_ADDRESSES: usize = 20;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/alert-receivers", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(
            resource("/alert-receivers/{id}", "GET, PATCH, DELETE")
                .route(web::get().to(get))
                .route(web::patch().to(change))
                .route(web::delete().to(delete)),
        )
        .service(resource("/alert-receivers/{id}/deliveries", "GET").route(web::get().to(deliveries)))
        .service(resource("/alert-receivers/{id}/test", "POST").route(web::post().to(test)));
}

/// A receiver to be made: `url` for a webhook, or `addresses` for mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAlertReceiver {
    #[schema(max_length = 200)]
    name: String,
    /// Public, unless the server's settings allow others. It is not shown again in full.
    #[schema(max_length = 2000)]
    url: Option<String>,
    /// What a webhook's messages are signed with: 16 to 200 bytes. It is not shown again.
    #[schema(min_length = 16, max_length = 200)]
    secret: Option<String>,
    /// 1 to 20.
    #[schema(min_items = 1, max_items = 20)]
    addresses: Option<Vec<String>>,
    /// Less is not told; warning unless given.
    min_severity: Option<Severity>,
    /// In use unless false.
    enabled: Option<bool>,
}

/// What to change of a receiver; a webhook stays one, and so does mail.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAlertReceiver {
    #[schema(max_length = 200)]
    name: Option<String>,
    #[schema(max_length = 2000)]
    url: Option<String>,
    /// `null`: messages are not signed any more.
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>, min_length = 16, max_length = 200)]
    secret: Option<Option<String>>,
    #[schema(min_items = 1, max_items = 20)]
    addresses: Option<Vec<String>>,
    min_severity: Option<Severity>,
    enabled: Option<bool>,
}

/// A receiver.
#[derive(Serialize, ToSchema)]
pub struct AlertReceiver {
    id: String,
    name: String,
    /// webhook or email.
    kind: String,
    /// Of a webhook: its server; the rest of the address may be a secret.
    url: Option<String>,
    addresses: Option<Vec<String>>,
    /// Messages are signed.
    has_secret: bool,
    min_severity: Severity,
    enabled: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl AlertReceiver {
    /// As administrators see it.
    pub fn new(row: AlertReceiverRow, vault: &Vault) -> Self {
        let (url, addresses) = match row.target(vault) {
            Ok(Target::Webhook { url, .. }) => (Some(shown(&url)), None),
            Ok(Target::Email(addresses)) => (None, Some(addresses)),
            // Its deliveries say so.
            Err(Sealed) => (Some("…".into()), None),
        };
        Self {
            url,
            addresses,
            has_secret: row.secret.is_some(),
            min_severity: Severity::from_stored(&row.min_severity),
            id: row.id,
            name: row.name,
            kind: row.kind,
            enabled: row.enabled,
            created_at: instant(row.created_at),
            updated_at: instant(row.updated_at),
        }
    }
}

/// A message on its way, or arrived, or given up.
#[derive(Serialize, ToSchema)]
pub struct AlertDelivery {
    /// The same at every attempt, and in the message.
    id: String,
    /// gathering, pending, sent or failed (given up).
    state: String,
    test: bool,
    /// Alerts that it is about.
    alerts: i64,
    attempts: i64,
    next_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    sent_at: Option<DateTime<Utc>>,
    /// What went wrong last.
    error: Option<String>,
}

impl From<DeliveryRow> for AlertDelivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            state: row.state,
            test: row.test,
            alerts: row.alerts,
            attempts: row.attempts,
            next_at: row.next_at.map(instant),
            created_at: instant(row.created_at),
            sent_at: row.sent_at.map(instant),
            error: row.error,
        }
    }
}

/// A test message on its way.
#[derive(Serialize, ToSchema)]
pub struct TestSent {
    /// Among the receiver's deliveries.
    delivery_id: String,
}

fn url(fleet: &Fleet, text: &str) -> Result<String, Problem> {
    let checked = check_url(text, fleet.alerts.allow_private_targets);
    checked.map(String::from).map_err(|error| Problem::bad_request(format!("url: {error}")))
}

fn secret(text: &str) -> Result<String, Problem> {
    match (16..=200).contains(&text.len()) {
        true if !is_sealed(text) => Ok(text.to_owned()),
        true => Err(Problem::bad_request("secret: it begins like one that is sealed already")),
        false => Err(Problem::bad_request("secret: 16 to 200 bytes")),
    }
}

fn addresses(fleet: &Fleet, given: &[String]) -> Result<String, Problem> {
    if fleet.alerts.smtp.is_none() {
        return Err(Problem::bad_request("addresses: this server has no mail server; see fleet.smtp"));
    }
    if !(1..=MOST_ADDRESSES).contains(&given.len()) {
        return Err(Problem::bad_request(format!("addresses: 1 to {MOST_ADDRESSES}")));
    }
    for address in given {
        if address.len() > 254 || address.parse::<Address>().is_err() {
            return Err(Problem::bad_request("addresses: one is not a mail address"));
        }
    }
    Ok(serde_json::json!(given).to_string())
}

fn no_such_receiver() -> Problem {
    Problem::not_found("no such receiver")
}

async fn found(fleet: &Fleet, org: &str, id: &str) -> Result<AlertReceiverRow, Problem> {
    fleet.store.alert_receiver(org, id).await.map_err(store_problem)?.ok_or_else(no_such_receiver)
}

/// Makes a receiver.
#[utoipa::path(post, path = "/api/v1/alert-receivers", tag = "alerts", security(("user" = [])),
    request_body = CreateAlertReceiver, responses((status = 201, body = AlertReceiver), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Admin, body: web::Json<CreateAlertReceiver>) -> Answer {
    let (kind, target) = match (&body.url, &body.addresses) {
        (Some(text), None) => ("webhook", url(&fleet, text)?),
        (None, Some(given)) if body.secret.is_none() => ("email", addresses(&fleet, given)?),
        _ => return Err(Problem::bad_request("url, with or without secret, or addresses: one of the two")),
    };
    let now = millis(Utc::now());
    let mut row = AlertReceiverRow {
        id: Ulid::new().to_string(),
        org: caller.org.clone(),
        name: input::line("name", &body.name)?,
        kind: kind.to_owned(),
        target,
        secret: body.secret.as_deref().map(secret).transpose()?,
        min_severity: body.min_severity.unwrap_or(Severity::Warning).as_str().to_owned(),
        enabled: body.enabled.unwrap_or(true),
        created_at: now,
        updated_at: now,
    };
    row.seal(&fleet.keys.vault);
    let (_, total) = fleet.store.alert_receivers(&caller.org, 0, 1).await.map_err(store_problem)?;
    if total >= MOST_RECEIVERS {
        return Err(Problem::conflict(format!("there are {MOST_RECEIVERS} receivers; delete one first")));
    }
    fleet.store.create_alert_receiver(&caller.actor(), &row).await.map_err(store_problem)?;
    let location = format!("/api/v1/alert-receivers/{}", row.id);
    Ok(HttpResponse::Created().insert_header(("Location", location)).json(AlertReceiver::new(row, &fleet.keys.vault)))
}

/// Receivers, oldest first.
#[utoipa::path(get, path = "/api/v1/alert-receivers", tag = "alerts", security(("user" = [])), params(PageQuery),
    responses((status = 200, body = Page<AlertReceiver>), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Admin, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let rows = fleet.store.alert_receivers(&caller.org, span.offset(), span.limit()).await;
    let (rows, total) = rows.map_err(store_problem)?;
    let items: Vec<AlertReceiver> = rows.into_iter().map(|row| AlertReceiver::new(row, &fleet.keys.vault)).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One receiver.
#[utoipa::path(get, path = "/api/v1/alert-receivers/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = AlertReceiver), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    let row = found(&fleet, &caller.org, &id).await?;
    Ok(HttpResponse::Ok().json(AlertReceiver::new(row, &fleet.keys.vault)))
}

/// Changes a receiver.
#[utoipa::path(patch, path = "/api/v1/alert-receivers/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), request_body = ChangeAlertReceiver, responses((status = 200, body = AlertReceiver),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn change(
    fleet: web::Data<Fleet>,
    caller: Admin,
    id: web::Path<String>,
    body: web::Json<ChangeAlertReceiver>,
) -> Answer {
    let mut row = found(&fleet, &caller.org, &id).await?;
    let webhook = row.kind == "webhook";
    if (webhook && body.addresses.is_some()) || (!webhook && (body.url.is_some() || body.secret.is_some())) {
        return Err(Problem::bad_request(format!("a receiver of kind {} has none of that", row.kind)));
    }
    if let Some(text) = &body.url {
        row.target = url(&fleet, text)?;
    }
    if let Some(given) = &body.addresses {
        row.target = addresses(&fleet, given)?;
    }
    if let Some(text) = &body.secret {
        row.secret = text.as_deref().map(secret).transpose()?;
    }
    if let Some(name) = &body.name {
        row.name = input::line("name", name)?;
    }
    if let Some(severity) = body.min_severity {
        row.min_severity = severity.as_str().to_owned();
    }
    row.enabled = body.enabled.unwrap_or(row.enabled);
    row.updated_at = millis(Utc::now());
    row.seal(&fleet.keys.vault);
    match fleet.store.change_alert_receiver(&caller.actor(), &row).await.map_err(store_problem)? {
        true => Ok(HttpResponse::Ok().json(AlertReceiver::new(row, &fleet.keys.vault))),
        false => Err(no_such_receiver()),
    }
}

/// Deletes a receiver, with what is on its way to it. One that a rule names is kept, or that rule would tell nobody.
#[utoipa::path(delete, path = "/api/v1/alert-receivers/{id}", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn delete(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    match fleet.store.delete_alert_receiver(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        Removed::Done => Ok(HttpResponse::NoContent().finish()),
        Removed::Unknown => Err(no_such_receiver()),
        Removed::Named(rule) => Err(Problem::conflict(format!("the rule {rule:?} names it; change that first"))),
    }
}

/// Messages of a receiver, newest first.
#[utoipa::path(get, path = "/api/v1/alert-receivers/{id}/deliveries", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path), PageQuery), responses((status = 200, body = Page<AlertDelivery>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn deliveries(
    fleet: web::Data<Fleet>,
    caller: Admin,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Answer {
    let span = page.check()?;
    let receiver = found(&fleet, &caller.org, &id).await?;
    let rows = fleet.store.deliveries(&receiver.id, span.offset(), span.limit()).await;
    let (rows, total) = rows.map_err(store_problem)?;
    let items: Vec<AlertDelivery> = rows.into_iter().map(AlertDelivery::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// Sends a receiver a message to see whether it arrives; its delivery says what came of it.
#[utoipa::path(post, path = "/api/v1/alert-receivers/{id}/test", tag = "alerts", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 202, body = TestSent), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn test(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    let sent = fleet.store.send_test(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)?;
    let delivery_id = sent.ok_or_else(no_such_receiver)?;
    Ok(HttpResponse::Accepted().json(TestSent { delivery_id }))
}
