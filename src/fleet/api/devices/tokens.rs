//! A device's token, changed without losing the device: the one that it has stays good until it has used the new one, or for a
//! bounded time.
//!
//! A new token comes to a box in two ways. An administrator asks for it ([`rotate`]) and carries it there; or the box asks
//! for it itself ([`renew`]), told to by the command `rotate_token`. No command and no database ever holds a token.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::no_such_device;
use crate::fleet::api::problem::{ProblemBody, store_problem};
use crate::fleet::auth::{Admin, DeviceCaller, secret};
use crate::fleet::state::Fleet;
use crate::fleet::store::Actor;
use crate::problem::{Answer, Problem};

/// How long both tokens are good unless asked otherwise, in seconds: a day, so that a box in a case comes back to it.
pub const DEFAULT_OVERLAP: u32 = 86_400;
/// Longest: 30 days.
const MAX_OVERLAP: u32 = 30 * 86_400;

/// How to change the token.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RotateToken {
    /// Seconds that the present token stays good unless the new one is used before; 0 ends it at once.
    #[schema(minimum = 0, maximum = 2_592_000, default = 86_400)]
    overlap_seconds: Option<u32>,
}

/// A device's new token; it is shown only now.
#[derive(Serialize, ToSchema)]
pub struct NewToken {
    device_id: String,
    token: String,
    /// Until when the token before is good, unless this one is used earlier.
    old_token_until: Option<DateTime<Utc>>,
}

/// Gives a device another token. The present one stays good until the new one is used, for a day at most.
#[utoipa::path(post, path = "/api/v1/devices/{id}/rotate-token", tag = "devices", security(("user" = [])),
    params(("id" = String, Path)), request_body = Option<RotateToken>, responses((status = 200, body = NewToken),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn rotate(
    fleet: web::Data<Fleet>,
    caller: Admin,
    id: web::Path<String>,
    body: Result<web::Bytes, actix_web::Error>,
) -> Answer {
    let body = body.map_err(|error| Problem::new(error.as_response_error().status_code(), error.to_string()))?;
    // Older callers send no body at all.
    let order: Option<RotateToken> = match body.is_empty() {
        true => None,
        false => serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?,
    };
    let overlap = order.and_then(|order| order.overlap_seconds).unwrap_or(DEFAULT_OVERLAP);
    if overlap > MAX_OVERLAP {
        return Err(Problem::bad_request(format!("overlap_seconds: 0 to {MAX_OVERLAP}")));
    }
    give(&fleet, &caller.actor(), &id, overlap).await
}

/// Gives the calling device another token; the one it called with stays good until the new one is used, for a day at
/// most. An answer that was lost is asked for again.
#[utoipa::path(post, path = "/api/v1/devices/{id}/token", tag = "devices",
    security(("device_token" = [])), params(("id" = String, Path)),
    responses((status = 200, body = NewToken), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn renew(fleet: web::Data<Fleet>, caller: DeviceCaller, id: web::Path<String>) -> Answer {
    if caller.id != *id {
        return Err(no_such_device());
    }
    let actor = Actor { org: caller.org, name: format!("device:{}", caller.id) };
    give(&fleet, &actor, &id, DEFAULT_OVERLAP).await
}

async fn give(fleet: &Fleet, actor: &Actor, id: &str, overlap: u32) -> Answer {
    let (token, now) = (secret::token(), Utc::now());
    let until = (overlap > 0).then(|| now + Duration::seconds(i64::from(overlap)));
    let done = fleet.store.rotate_device_token(actor, id, &secret::hash(&token), until, now).await;
    if !done.map_err(store_problem)? {
        return Err(no_such_device());
    }
    tracing::info!(device = id, overlap, "the device has a new token");
    if until.is_none() {
        fleet.broker.disconnect(id).await;
    }
    Ok(HttpResponse::Ok().json(NewToken { device_id: id.to_owned(), token, old_token_until: until }))
}
