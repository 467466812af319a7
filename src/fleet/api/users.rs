//! Users of an organization; administrators only.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::{Admin, Role, password, secret};
use crate::fleet::state::Fleet;
use crate::fleet::store::{NewUser, UserChange, UserRow};
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/users", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(
            resource("/users/{id}", "GET, PATCH, DELETE")
                .route(web::get().to(get))
                .route(web::patch().to(change))
                .route(web::delete().to(delete)),
        )
        .service(resource("/users/{id}/reset-password", "POST").route(web::post().to(reset_password)));
}

/// A user.
#[derive(Serialize, ToSchema)]
pub struct User {
    id: String,
    org: String,
    email: String,
    name: String,
    role: Role,
    is_active: bool,
    /// Makes and lists organizations.
    platform_admin: bool,
    created_at: DateTime<Utc>,
    last_login_at: Option<DateTime<Utc>>,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            role: Role::from_stored(&row.role),
            id: row.id,
            org: row.org,
            email: row.email,
            name: row.name,
            is_active: row.is_active,
            platform_admin: row.platform,
            created_at: crate::fleet::store::instant(row.created_at),
            last_login_at: row.last_login_at.map(crate::fleet::store::instant),
        }
    }
}

/// A user to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    #[schema(max_length = 200)]
    email: String,
    #[schema(max_length = 200)]
    name: String,
    role: Role,
    #[schema(min_length = 10, max_length = 256, format = Password)]
    password: String,
}

/// What to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    #[schema(max_length = 200)]
    name: Option<String>,
    role: Option<Role>,
    is_active: Option<bool>,
    /// For platform administrators to give and to take.
    platform_admin: Option<bool>,
}

/// A new password; one is made when it is absent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    #[schema(min_length = 10, max_length = 256, format = Password)]
    password: Option<String>,
}

/// The new password, if the server made it; it is shown only now.
#[derive(Serialize, ToSchema)]
pub struct PasswordReset {
    user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// Lists users.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", security(("user" = [])), params(PageQuery), responses(
    (status = 200, body = Page<User>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Admin, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) = fleet.store.users(&caller.org, span.offset(), span.limit()).await.map_err(store_problem)?;
    let users: Vec<User> = rows.into_iter().map(User::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(users, total)))
}

/// Makes a user.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", security(("user" = [])), request_body = CreateUser,
    responses((status = 201, body = User), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Admin, body: web::Json<CreateUser>) -> Answer {
    let body = body.into_inner();
    let user = NewUser {
        id: Ulid::new().to_string(),
        email: address("email", &body.email)?,
        name: input::line("name", &body.name)?,
        role: body.role.as_str().to_owned(),
        password_hash: hashed(body.password).await?,
    };
    let row = fleet.store.create_user(&caller.actor(), user, Utc::now()).await.map_err(store_problem)?;
    let location = format!("/api/v1/users/{}", row.id);
    Ok(HttpResponse::Created().insert_header(("Location", location)).json(User::from(row)))
}

/// One user.
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = User), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    match fleet.store.user(&caller.org, &id).await.map_err(store_problem)? {
        Some(row) => Ok(HttpResponse::Ok().json(User::from(row))),
        None => Err(no_such_user()),
    }
}

/// Changes a user. Nobody takes away their own role or switches themselves off.
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path)), request_body = ChangeUser, responses((status = 200, body = User),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn change(
    fleet: web::Data<Fleet>,
    caller: Admin,
    id: web::Path<String>,
    body: web::Json<ChangeUser>,
) -> Answer {
    let own = *id == caller.user_id;
    if own && (body.is_active == Some(false) || body.role.is_some_and(|role| role != caller.role)) {
        return Err(Problem::conflict("nobody changes their own role or switches themselves off"));
    }
    if let Some(platform) = body.platform_admin {
        if !caller.platform {
            return Err(Problem::forbidden("only a platform administrator makes another one"));
        }
        if own && !platform {
            return Err(Problem::conflict("nobody takes this from themselves"));
        }
    }
    let change = UserChange {
        name: body.name.as_deref().map(|name| input::line("name", name)).transpose()?,
        // The same role again changes nothing and ends no session.
        role: body.role.filter(|_| !own).map(|role| role.as_str().to_owned()),
        is_active: body.is_active,
        password_hash: None,
    };
    let (actor, now) = (caller.actor(), Utc::now());
    if let Some(platform) = body.platform_admin {
        fleet.store.set_platform(&actor, &id, platform, now).await.map_err(store_problem)?;
    }
    match fleet.store.change_user(&actor, &id, change, now).await.map_err(store_problem)? {
        Some(row) => Ok(HttpResponse::Ok().json(User::from(row))),
        None => Err(no_such_user()),
    }
}

/// Deletes a user; not oneself.
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn delete(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    if *id == caller.user_id {
        return Err(Problem::conflict("nobody deletes themselves"));
    }
    match fleet.store.delete_user(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(no_such_user()),
    }
}

/// Sets another password and ends the user's sessions.
#[utoipa::path(post, path = "/api/v1/users/{id}/reset-password", tag = "users", security(("user" = [])),
    params(("id" = String, Path)), request_body = ResetPassword, responses((status = 200, body = PasswordReset),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn reset_password(
    fleet: web::Data<Fleet>,
    caller: Admin,
    id: web::Path<String>,
    body: web::Json<ResetPassword>,
) -> Answer {
    let (password, made) = match body.into_inner().password {
        Some(password) => (password, None),
        None => {
            let password = secret::password();
            (password.clone(), Some(password))
        }
    };
    let change = UserChange { password_hash: Some(hashed(password).await?), ..UserChange::default() };
    match fleet.store.change_user(&caller.actor(), &id, change, Utc::now()).await.map_err(store_problem)? {
        Some(row) => Ok(HttpResponse::Ok().json(PasswordReset { user_id: row.id, password: made })),
        None => Err(no_such_user()),
    }
}

/// An address to sign in with, in lower case.
pub(super) fn address(field: &str, text: &str) -> Result<String, Problem> {
    let email = input::line(field, text)?.to_lowercase();
    let plausible = email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    match plausible && !email.contains(char::is_whitespace) {
        true => Ok(email),
        false => Err(Problem::bad_request(format!("{field}: not an address"))),
    }
}

pub(super) async fn hashed(text: String) -> Result<String, Problem> {
    if text.chars().count() < password::MIN_CHARS || text.len() > password::MAX_BYTES {
        let (min, max) = (password::MIN_CHARS, password::MAX_BYTES);
        return Err(Problem::bad_request(format!("password: at least {min} characters, at most {max} bytes")));
    }
    password::hash(text).await.ok_or_else(|| Problem::unavailable("the password could not be hashed"))
}

fn no_such_user() -> Problem {
    Problem::not_found("no such user")
}
