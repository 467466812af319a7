//! Latest pictures of a device's inputs and programme.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};

use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use sha2::{Digest as _, Sha256};

use super::problem::{ProblemBody, store_problem};
use super::resource;
use crate::fleet::auth::Viewer;
use crate::fleet::state::Fleet;
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/devices/{id}/thumbnails/{name}", "GET").route(web::get().to(get)));
}

/// The latest picture of an input, or of the `programme`; 204 while none came in under that name.
#[utoipa::path(get, path = "/api/v1/devices/{id}/thumbnails/{name}", tag = "telemetry", security(("user" = [])),
    params(("id" = String, Path), ("name" = String, Path)), responses(
    (status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 204), (status = 304), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(
    request: HttpRequest,
    fleet: web::Data<Fleet>,
    caller: Viewer,
    path: web::Path<(String, String)>,
) -> Answer {
    let (device, name) = path.into_inner();
    let address = OrgId::new(&caller.org).ok().zip(DeviceId::new(&device).ok());
    let picture = address.and_then(|(org, device)| fleet.thumbnails.get(&DeviceAddress { org, device }, &name));
    let Some(picture) = picture else {
        let known = fleet.store.device(&caller.org, &device).await.map_err(store_problem)?;
        known.ok_or_else(|| Problem::not_found("no such device"))?;
        return Ok(HttpResponse::NoContent().finish());
    };
    // Of what it shows: the same at every server.
    let etag = format!("\"{}\"", hex::encode(&Sha256::digest(&picture.jpeg)[..16]));
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    if known {
        return Ok(HttpResponse::NotModified().insert_header((ETAG, etag)).finish());
    }
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "image/jpeg"))
        .insert_header((CACHE_CONTROL, "private, no-cache"))
        .insert_header((ETAG, etag))
        .body(picture.jpeg))
}
