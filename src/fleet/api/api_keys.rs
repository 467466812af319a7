//! API keys: what programs sign in with. Operators have their own; administrators see all of their organization.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::scope::Scope;
use crate::fleet::auth::{KEY_PREFIX, Operator, Role, Session, secret};
use crate::fleet::state::Fleet;
use crate::fleet::store::{ApiKeyRow, NewApiKey, instant};
use crate::problem::{Answer, Problem};

/// Most scopes of a key: there are no more.
const MAX_SCOPES: usize = 32;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/api-keys", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(resource("/api-keys/{id}", "DELETE").route(web::delete().to(delete)));
}

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    #[schema(max_length = 200)]
    name: String,
    /// `devices`, `telemetry`, `commands`, `config`, `releases`, `guests`, `bundles`, `logs`, `alerts`, `audit`, `enrolment` or
    /// `users`, each with `:read` or `:write`, which includes reading; `events:read` and `metrics:read`.
    #[schema(min_items = 1, max_items = 32)]
    scopes: Vec<String>,
    /// Good until then; for ever when it is absent.
    expires_at: Option<DateTime<Utc>>,
}

/// A key as it is listed: without itself.
#[derive(Serialize, ToSchema)]
pub struct ApiKey {
    id: String,
    name: String,
    scopes: Vec<String>,
    /// Its maker, whose role limits it.
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    /// Up to a minute old.
    last_used_at: Option<DateTime<Utc>>,
}

impl From<ApiKeyRow> for ApiKey {
    fn from(row: ApiKeyRow) -> Self {
        Self {
            scopes: serde_json::from_str(&row.scopes).unwrap_or_default(),
            id: row.id,
            name: row.name,
            created_by: row.email,
            created_at: instant(row.created_at),
            expires_at: row.expires_at.map(instant),
            last_used_at: row.last_used_at.map(instant),
        }
    }
}

/// A new key.
#[derive(Serialize, ToSchema)]
pub struct NewKey {
    #[serde(flatten)]
    about: ApiKey,
    /// For `Authorization: Bearer`; it is shown only now.
    #[schema(example = "r58k_0f1e...")]
    key: String,
}

/// Makes a key.
#[utoipa::path(post, path = "/api/v1/api-keys", tag = "api keys", security(("user" = [])), request_body = CreateApiKey,
    responses((status = 201, body = NewKey), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Operator, body: web::Json<CreateApiKey>) -> Answer {
    let now = Utc::now();
    if body.scopes.is_empty() || body.scopes.len() > MAX_SCOPES {
        return Err(Problem::bad_request(format!("scopes: 1 to {MAX_SCOPES}")));
    }
    let mut scopes = Vec::new();
    for word in &body.scopes {
        let scope: Scope = word.parse().map_err(|error| Problem::bad_request(format!("scopes: {error}")))?;
        scopes.push(scope.to_string());
    }
    scopes.sort();
    scopes.dedup();
    if body.expires_at.is_some_and(|end| end <= now) {
        return Err(Problem::bad_request("expires_at: lies in the past"));
    }
    let key = format!("{KEY_PREFIX}{}", secret::token());
    let new = NewApiKey {
        id: Ulid::new().to_string(),
        user_id: caller.user_id.clone(),
        name: input::line("name", &body.name)?,
        hash: secret::hash(&key),
        scopes: serde_json::json!(scopes).to_string(),
        expires_at: body.expires_at,
    };
    let row = fleet.store.create_api_key(&caller.actor(), &new, now).await.map_err(store_problem)?;
    let row = row.ok_or_else(|| Problem::unauthorized("the user is gone"))?;
    Ok(HttpResponse::Created().json(NewKey { about: row.into(), key }))
}

/// Lists keys, newest first: one's own, for administrators all of the organization.
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "api keys", security(("user" = [])), params(PageQuery), responses(
    (status = 200, body = Page<ApiKey>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Operator, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) =
        fleet.store.api_keys(&caller.org, maker(&caller), span.offset(), span.limit()).await.map_err(store_problem)?;
    let items: Vec<ApiKey> = rows.into_iter().map(ApiKey::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// Ends a key: one's own, for administrators any of the organization.
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", tag = "api keys", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn delete(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    let done = fleet.store.delete_api_key(&caller.actor(), maker(&caller), &id, Utc::now()).await;
    match done.map_err(store_problem)? {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(Problem::not_found("no such key")),
    }
}

/// Whose keys a caller reaches; `None` for those of all.
fn maker(caller: &Session) -> Option<&str> {
    (caller.role < Role::Admin).then_some(caller.user_id.as_str())
}
