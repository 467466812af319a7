//! Signing in: short access tokens, refresh tokens that are good for one use.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::problem::{ProblemBody, store_problem};
use super::resource;
use super::users::User;
use crate::fleet::auth::{Viewer, password, secret, token};
use crate::fleet::state::Fleet;
use crate::fleet::store::{Refreshed, UserRow};
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/auth/login", "POST").route(web::post().to(login)))
        .service(resource("/auth/refresh", "POST").route(web::post().to(refresh)))
        .service(resource("/auth/logout", "POST").route(web::post().to(logout)))
        .service(resource("/auth/me", "GET").route(web::get().to(me)));
}

/// Credentials.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    email: String,
    #[schema(format = Password)]
    password: String,
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    refresh_token: String,
}

/// Tokens of a session.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds that the access token is good for.
    expires_in: i64,
    /// Good for one `POST /auth/refresh`.
    refresh_token: String,
    /// Seconds that the refresh token is good for.
    refresh_expires_in: i64,
}

/// Signs in.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = Login, responses(
    (status = 200, body = Tokens),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 429, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn login(request: HttpRequest, fleet: web::Data<Fleet>, body: web::Json<Login>) -> Answer {
    let email = body.email.trim().to_lowercase();
    let from = fleet.client(&request)?;
    Fleet::check_lockout(&fleet.sign_ins, &email, from)?;
    let user = fleet.store.user_by_email(&email).await.map_err(store_problem)?;
    let stored = user.as_ref().map(|user| user.password_hash.clone());
    let right = password::verify(body.into_inner().password, stored).await;
    let user = user.filter(|user| right && user.is_active);
    Fleet::note_attempt(&fleet.sign_ins, &email, from, user.is_some());
    let Some(user) = user else {
        tracing::warn!(%from, "a sign-in failed");
        return Err(Problem::unauthorized("email or password is wrong"));
    };
    let now = Utc::now();
    fleet.store.note_login(&user.id, now).await.map_err(store_problem)?;
    fleet.hub.signed_in(&user.org);
    let tokens = issue(&fleet, &user, &Ulid::new().to_string(), now).await?;
    tracing::info!(user = %user.email, %from, "signed in");
    Ok(HttpResponse::Ok().json(tokens))
}

/// Trades a refresh token for new tokens. Using one twice ends the session.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", request_body = Refresh, responses(
    (status = 200, body = Tokens),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn refresh(fleet: web::Data<Fleet>, body: web::Json<Refresh>) -> Answer {
    let now = Utc::now();
    let hash = secret::hash(&body.refresh_token);
    let (user_id, family) = match fleet.store.use_refresh_token(&hash, now).await.map_err(store_problem)? {
        Refreshed::Good { user_id, family } => (user_id, family),
        Refreshed::Unknown => return Err(Problem::unauthorized("the refresh token is not valid or has expired")),
        Refreshed::Reused => {
            tracing::warn!("a refresh token was used twice; its session was ended");
            return Err(Problem::unauthorized("the refresh token was used before; sign in again"));
        }
    };
    let user = fleet.store.user_by_id(&user_id).await.map_err(store_problem)?.filter(|user| user.is_active);
    let Some(user) = user else { return Err(Problem::unauthorized("the user cannot sign in any more")) };
    Ok(HttpResponse::Ok().json(issue(&fleet, &user, &family, now).await?))
}

/// Ends the session that a refresh token belongs to.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", request_body = Refresh, responses(
    (status = 204), (status = 400, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn logout(fleet: web::Data<Fleet>, body: web::Json<Refresh>) -> Answer {
    fleet.store.end_refresh_family(&secret::hash(&body.refresh_token)).await.map_err(store_problem)?;
    Ok(HttpResponse::NoContent().finish())
}

/// The signed-in user.
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "auth", security(("user" = [])), responses(
    (status = 200, body = User), (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn me(fleet: web::Data<Fleet>, caller: Viewer) -> Answer {
    let user = fleet.store.user(&caller.org, &caller.user_id).await.map_err(store_problem)?;
    match user {
        Some(user) => Ok(HttpResponse::Ok().json(User::from(user))),
        None => Err(Problem::unauthorized("the user is gone")),
    }
}

async fn issue(fleet: &Fleet, user: &UserRow, family: &str, now: DateTime<Utc>) -> Result<Tokens, Problem> {
    let access_ttl = chrono::Duration::from_std(fleet.access.access_ttl).unwrap_or(chrono::Duration::minutes(15));
    let refresh_ttl = chrono::Duration::from_std(fleet.access.refresh_ttl).unwrap_or(chrono::Duration::days(14));
    let access = token::issue(&fleet.keys.access, &user.id, &user.org, user.generation, now, now + access_ttl);
    let refresh = secret::token();
    let hash = secret::hash(&refresh);
    fleet.store.add_refresh_token(&user.id, family, &hash, now, now + refresh_ttl).await.map_err(store_problem)?;
    Ok(Tokens {
        access_token: access.ok_or_else(|| Problem::unavailable("no token could be made"))?,
        token_type: "Bearer",
        expires_in: access_ttl.num_seconds(),
        refresh_token: refresh,
        refresh_expires_in: refresh_ttl.num_seconds(),
    })
}
