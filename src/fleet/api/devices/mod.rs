//! Devices of an organization.

pub mod bulk;
pub mod card;
mod cursor;
pub mod states;
pub mod tokens;

use actix_web::{HttpResponse, web};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use self::card::{Device, DeviceCard};
use super::paging::{self, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::{Admin, Operator, Viewer};
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
        .service(resource("/devices/summary", "GET").route(web::get().to(bulk::summary)))
        .service(resource("/devices/states", "GET").route(web::get().to(states::states)))
        .service(resource("/devices/bulk", "POST").route(web::post().to(bulk::change)))
        .service(
            resource("/devices/{id}", "GET, PATCH, DELETE")
                .route(web::get().to(get))
                .route(web::patch().to(change))
                .route(web::delete().to(decommission)),
        )
        .service(resource("/devices/{id}/rotate-token", "POST").route(web::post().to(tokens::rotate)))
        .service(resource("/devices/{id}/token", "POST").route(web::post().to(tokens::renew)));
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
    /// Only with this tag.
    #[param(max_length = 200)]
    tag: Option<String>,
    /// Where to go on: `next_cursor` of the answer before. Goes with `limit`, not with pages.
    #[param(max_length = 1000)]
    cursor: Option<String>,
    /// 1 to 200 devices of a walk by cursor; given alone, it begins one.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Devices: a page of them, or the next of a walk by cursor.
#[derive(Serialize, ToSchema)]
pub struct DeviceList {
    items: Vec<DeviceCard>,
    /// How many there are on all pages; of a page. Exact for all devices and for those of a status; a search or a tag that finds
    /// more than 10,000 is not counted to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    /// There and true when there are more than `total`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    total_is_least: bool,
    /// From 1; of a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
    /// Of a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    page_size: Option<u32>,
    /// Whether more follow.
    has_more: bool,
    /// For `cursor`, when more follow; of a walk.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
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

/// Lists devices by name.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", security(("user" = [])), params(ListQuery), responses(
    (status = 200, body = DeviceList), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, query: web::Query<ListQuery>) -> Answer {
    let search = input::optional_line("search", query.search.as_deref())?;
    let presence = query.status.map(|status| match status {
        Status::Online => PresenceFilter::Online,
        Status::Offline => PresenceFilter::Offline,
        Status::Decommissioned => PresenceFilter::Decommissioned,
    });
    let tag = input::optional_line("tag", query.tag.as_deref())?;
    let filter = DeviceFilter { presence, search, ids: None, tag };
    if query.cursor.is_some() || query.limit.is_some() {
        return walk(&fleet, &caller.org, &filter, &query).await;
    }
    let span = PageQuery { page: query.page, page_size: query.page_size }.check()?;
    let (rows, total) =
        fleet.store.devices(&caller.org, &filter, span.offset(), span.limit()).await.map_err(store_problem)?;
    let page = span.answer(rows.iter().map(DeviceCard::new).collect(), total.count);
    Ok(HttpResponse::Ok().json(DeviceList {
        items: page.items,
        total: Some(page.total),
        total_is_least: total.or_more,
        page: Some(page.page),
        page_size: Some(page.page_size),
        has_more: page.has_more || total.or_more,
        next_cursor: None,
    }))
}

/// The next devices of a walk.
async fn walk(fleet: &Fleet, org: &str, filter: &DeviceFilter, query: &ListQuery) -> Answer {
    if query.page.is_some() || query.page_size.is_some() {
        return Err(Problem::bad_request("cursor and limit do not go with page and page_size"));
    }
    let limit = query.limit.unwrap_or(paging::DEFAULT_SIZE);
    if !(1..=paging::MAX_SIZE).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: 1 to {}", paging::MAX_SIZE)));
    }
    let after = match query.cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
        None => None,
        Some(cursor) => Some(cursor::decode(cursor).ok_or_else(|| Problem::bad_request("cursor: not one of ours"))?),
    };
    // One more tells whether others follow.
    let mut rows = fleet.store.devices_after(org, filter, after, i64::from(limit) + 1).await.map_err(store_problem)?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(|last| cursor::encode(&last.name, &last.id));
    let items = rows.iter().map(DeviceCard::new).collect();
    Ok(HttpResponse::Ok().json(DeviceList {
        items,
        total: None,
        total_is_least: false,
        page: None,
        page_size: None,
        has_more,
        next_cursor,
    }))
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
    let tags = body.tags.map(|tags| self::tags("tags", &tags));
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

/// Tags as they are kept: lines in order, each once.
fn tags(field: &str, tags: &[String]) -> Result<Vec<String>, Problem> {
    if tags.len() > MAX_TAGS {
        return Err(Problem::bad_request(format!("{field}: at most {MAX_TAGS}")));
    }
    let mut tags = tags.iter().map(|tag| input::line(field, tag)).collect::<Result<Vec<_>, _>>()?;
    tags.sort();
    tags.dedup();
    Ok(tags)
}

pub(super) fn no_such_device() -> Problem {
    Problem::not_found("no such device")
}
