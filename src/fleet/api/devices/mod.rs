//! Devices of an organization.

pub mod card;

use actix_web::{HttpResponse, web};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use self::card::{Device, DeviceCard};
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::{Admin, Operator, Viewer, secret};
use crate::fleet::state::Fleet;
use crate::fleet::store::{DeviceChange, DeviceFilter, PresenceFilter};
use crate::problem::{Answer, Problem};

/// Most tags of a device.
const MAX_TAGS: usize = 32;
/// Largest metadata, in bytes of JSON.
const MAX_METADATA: usize = 16 * 1024;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/devices", "GET").route(web::get().to(list)))
        .service(
            resource("/devices/{id}", "GET, PATCH, DELETE")
                .route(web::get().to(get))
                .route(web::patch().to(change))
                .route(web::delete().to(decommission)),
        )
        .service(resource("/devices/{id}/rotate-token", "POST").route(web::post().to(rotate_token)));
}

/// State to list by.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Connected.
    Online,
    /// In service, not connected.
    Offline,
    /// Taken out of service.
    Decommissioned,
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// From 1.
    #[param(minimum = 1, default = 1)]
    page: Option<u32>,
    /// 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u32>,
    /// All in service unless given.
    #[param(inline)]
    status: Option<Status>,
    /// Part of identifier, name, place or a tag, in any case.
    #[param(max_length = 200)]
    search: Option<String>,
}

/// What to change; `null` clears.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeDevice {
    #[schema(max_length = 200)]
    name: Option<String>,
    #[serde(deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    location: Option<Option<String>>,
    #[schema(max_items = 32)]
    tags: Option<Vec<String>>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    #[serde(deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>, max_length = 4000)]
    notes: Option<Option<String>>,
    #[schema(max_length = 200)]
    update_channel: Option<String>,
    #[serde(deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    target_version: Option<Option<String>>,
}

/// A device's new token; it is shown only now.
#[derive(Serialize, ToSchema)]
pub struct NewToken {
    device_id: String,
    token: String,
}

/// Lists devices by name.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", security(("user" = [])), params(ListQuery), responses(
    (status = 200, body = Page<DeviceCard>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, query: web::Query<ListQuery>) -> Answer {
    let span = PageQuery { page: query.page, page_size: query.page_size }.check()?;
    let search = input::optional_line("search", query.search.as_deref())?;
    let presence = query.status.map(|status| match status {
        Status::Online => PresenceFilter::Online,
        Status::Offline => PresenceFilter::Offline,
        Status::Decommissioned => PresenceFilter::Decommissioned,
    });
    let filter = DeviceFilter { presence, search, ids: None };
    let (rows, total) =
        fleet.store.devices(&caller.org, &filter, span.offset(), span.limit()).await.map_err(store_problem)?;
    let cards: Vec<DeviceCard> = rows.iter().map(DeviceCard::new).collect();
    Ok(HttpResponse::Ok().json(span.answer(cards, total)))
}

/// One device in full.
#[utoipa::path(get, path = "/api/v1/devices/{id}", tag = "devices", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Device), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, id: web::Path<String>) -> Answer {
    match fleet.store.device(&caller.org, &id).await.map_err(store_problem)? {
        Some(row) => Ok(HttpResponse::Ok().json(Device::new(row))),
        None => Err(no_such_device()),
    }
}

/// Changes what operators know of a device.
#[utoipa::path(patch, path = "/api/v1/devices/{id}", tag = "devices", security(("user" = [])),
    params(("id" = String, Path)), request_body = ChangeDevice, responses((status = 200, body = Device),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn change(
    fleet: web::Data<Fleet>,
    caller: Operator,
    id: web::Path<String>,
    body: web::Json<ChangeDevice>,
) -> Answer {
    let change = checked(body.into_inner())?;
    match fleet.store.change_device(&caller.actor(), &id, change, Utc::now()).await.map_err(store_problem)? {
        Some(row) => {
            fleet.hub.device_changed(&row.org, &row.id);
            Ok(HttpResponse::Ok().json(Device::new(row)))
        }
        None => Err(no_such_device()),
    }
}

fn checked(body: ChangeDevice) -> Result<DeviceChange, Problem> {
    let line = |field: &str, value: Option<Option<String>>| -> Result<Option<Option<String>>, Problem> {
        value.map(|value| input::optional_line(field, value.as_deref())).transpose()
    };
    let tags = body.tags.map(|tags| {
        if tags.len() > MAX_TAGS {
            return Err(Problem::bad_request(format!("tags: at most {MAX_TAGS}")));
        }
        let mut tags = tags.iter().map(|tag| input::line("tags", tag)).collect::<Result<Vec<_>, _>>()?;
        tags.sort();
        tags.dedup();
        Ok(tags)
    });
    if let Some(metadata) = &body.metadata
        && (!metadata.is_object() || metadata.to_string().len() > MAX_METADATA)
    {
        return Err(Problem::bad_request(format!("metadata: an object of at most {MAX_METADATA} bytes")));
    }
    let notes = match body.notes {
        Some(Some(notes)) => Some(Some(input::text("notes", &notes)?)),
        other => other,
    };
    Ok(DeviceChange {
        name: body.name.as_deref().map(|name| input::line("name", name)).transpose()?,
        location: line("location", body.location)?,
        tags: tags.transpose()?,
        metadata: body.metadata,
        notes,
        update_channel: body.update_channel.as_deref().map(|name| input::line("update_channel", name)).transpose()?,
        target_version: line("target_version", body.target_version)?,
    })
}

/// Takes a device out of service: its token dies, its open commands are withdrawn, its history stays.
#[utoipa::path(delete, path = "/api/v1/devices/{id}", tag = "devices", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn decommission(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    if !fleet.store.decommission_device(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        return Err(no_such_device());
    }
    fleet.broker.commands_changed();
    fleet.broker.disconnect(&id).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Gives a device another token; the old one is dead at once.
#[utoipa::path(post, path = "/api/v1/devices/{id}/rotate-token", tag = "devices", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = NewToken), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn rotate_token(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    let (token, actor) = (secret::token(), caller.actor());
    let hash = secret::hash(&token);
    if !fleet.store.rotate_device_token(&actor, &id, &hash, Utc::now()).await.map_err(store_problem)? {
        return Err(no_such_device());
    }
    fleet.broker.disconnect(&id).await;
    Ok(HttpResponse::Ok().json(NewToken { device_id: id.into_inner(), token }))
}

pub(super) fn no_such_device() -> Problem {
    Problem::not_found("no such device")
}
