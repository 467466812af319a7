//! Organizations; platform administrators only. Who is inside of one is its own administrators' business.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use r58_mqtt::OrgId;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::users::{address, hashed};
use super::{input, resource};
use crate::fleet::auth::{PlatformAdmin, Role, secret};
use crate::fleet::state::Fleet;
use crate::fleet::store::{NewUser, OrganizationRow, instant};
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/organizations", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(
            resource("/organizations/{id}", "GET, PATCH").route(web::get().to(get)).route(web::patch().to(change)),
        );
}

/// An organization.
#[derive(Serialize, ToSchema)]
pub struct Organization {
    /// Word of its topics.
    id: String,
    name: String,
    created_at: DateTime<Utc>,
    /// How many users it has.
    users: i64,
    /// How many devices of it are in service.
    devices: i64,
}

impl From<OrganizationRow> for Organization {
    fn from(row: OrganizationRow) -> Self {
        Self { created_at: instant(row.created_at), id: row.id, name: row.name, users: row.users, devices: row.devices }
    }
}

/// The first administrator of an organization.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstAdmin {
    #[schema(max_length = 200)]
    email: String,
    #[schema(max_length = 200)]
    name: String,
    /// One is made when it is absent.
    #[schema(min_length = 10, max_length = 256, format = Password)]
    password: Option<String>,
}

/// An organization to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    /// 1 to 64 of letters, digits, `-`, `_` and `.`, a letter or digit first.
    #[schema(max_length = 64)]
    id: String,
    #[schema(max_length = 200)]
    name: String,
    admin: FirstAdmin,
}

/// What to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeOrganization {
    #[schema(max_length = 200)]
    name: String,
}

/// A new organization and who may sign in to it.
#[derive(Serialize, ToSchema)]
pub struct NewOrganization {
    organization: Organization,
    admin_email: String,
    /// If the server made it; it is shown only now.
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_password: Option<String>,
}

/// Lists organizations.
#[utoipa::path(get, path = "/api/v1/organizations", tag = "organizations", security(("user" = [])), params(PageQuery),
    responses((status = 200, body = Page<Organization>), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, _: PlatformAdmin, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) = fleet.store.organizations(span.offset(), span.limit()).await.map_err(store_problem)?;
    let items: Vec<Organization> = rows.into_iter().map(Organization::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// Makes an organization with its first administrator.
#[utoipa::path(post, path = "/api/v1/organizations", tag = "organizations", security(("user" = [])),
    request_body = CreateOrganization, responses((status = 201, body = NewOrganization),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: PlatformAdmin, body: web::Json<CreateOrganization>) -> Answer {
    let body = body.into_inner();
    let id = OrgId::new(&body.id).map_err(|error| Problem::bad_request(format!("id: {error}")))?;
    let name = input::line("name", &body.name)?;
    let (password, made) = match body.admin.password {
        Some(password) => (password, None),
        None => {
            let password = secret::password();
            (password.clone(), Some(password))
        }
    };
    let admin = NewUser {
        id: Ulid::new().to_string(),
        email: address("admin.email", &body.admin.email)?,
        name: input::line("admin.name", &body.admin.name)?,
        role: Role::Admin.as_str().to_owned(),
        password_hash: hashed(password).await?,
    };
    let actor = caller.0.actor();
    fleet.store.create_organization(&actor, id.as_str(), &name, &admin, Utc::now()).await.map_err(store_problem)?;
    tracing::info!(org = %id, "organization made");
    let organization = read(&fleet, id.as_str()).await?;
    Ok(HttpResponse::Created()
        .insert_header(("Location", format!("/api/v1/organizations/{id}")))
        .json(NewOrganization { organization, admin_email: admin.email, admin_password: made }))
}

/// One organization.
#[utoipa::path(get, path = "/api/v1/organizations/{id}", tag = "organizations", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Organization), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, _: PlatformAdmin, id: web::Path<String>) -> Answer {
    Ok(HttpResponse::Ok().json(read(&fleet, &id).await?))
}

/// Gives an organization another name.
#[utoipa::path(patch, path = "/api/v1/organizations/{id}", tag = "organizations", security(("user" = [])),
    params(("id" = String, Path)), request_body = ChangeOrganization, responses((status = 200, body = Organization),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn change(
    fleet: web::Data<Fleet>,
    caller: PlatformAdmin,
    id: web::Path<String>,
    body: web::Json<ChangeOrganization>,
) -> Answer {
    let name = input::line("name", &body.name)?;
    let actor = caller.0.actor();
    fleet.store.rename_organization(&actor, &id, &name, Utc::now()).await.map_err(store_problem)?;
    Ok(HttpResponse::Ok().json(read(&fleet, &id).await?))
}

async fn read(fleet: &Fleet, id: &str) -> Result<Organization, Problem> {
    let row = fleet.store.organization(id).await.map_err(store_problem)?;
    row.map(Organization::from).ok_or_else(|| Problem::not_found("no such organization"))
}
