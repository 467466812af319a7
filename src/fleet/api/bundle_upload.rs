//! Bundles come in: a device announces one, asks how much is here, and sends the rest piece by piece.
//!
//! The database says how much is here for certain; a piece is written, made durable, and only then counted, so a server that is
//! killed in between forgets it and the device sends it again. Every piece has its checksum, and so has the whole. Any replica
//! may take any piece.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use r58_actors::bundle_courier::{CHECKSUM, OFFSET, PIECE};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::{IntoResponses, ToSchema};

use super::problem::{ProblemBody, store_problem};
use super::resource;
use crate::fleet::auth::DeviceCaller;
use crate::fleet::bundles::BundleFiles;
use crate::fleet::state::Fleet;
use crate::fleet::store::{Announced, Announcement, BundleRow};
use crate::problem::{Answer, Problem};

/// Says that the whole is here (the name of the IETF's draft on resumable uploads).
const COMPLETE: &str = "upload-complete";

pub(super) fn configure(config: &mut web::ServiceConfig) {
    let piece = usize::try_from(PIECE).unwrap_or(usize::MAX);
    config.service(
        resource("/bundles/{id}/upload", "HEAD, PATCH, POST")
            .app_data(web::PayloadConfig::new(piece))
            .route(web::post().to(announce))
            .route(web::head().to(state))
            .route(web::patch().to(append)),
    );
}

/// What is to come.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// Bytes of the archive.
    #[schema(minimum = 1)]
    size_bytes: i64,
    /// Its SHA-256, 64 hex digits.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    sha256: String,
}

/// Where an upload stands.
#[derive(IntoResponses)]
#[response(status = 204, headers(
    ("Upload-Offset" = i64, description = "Bytes that are here."),
    ("Upload-Length" = i64, description = "Bytes that were announced."),
    ("Upload-Complete" = String, description = "`?1` when all of it is here and right.")))]
pub struct Standing;

/// A device announces a bundle that it was asked for. `Upload-Offset` of the answer says where to begin, or to go on.
#[utoipa::path(post, path = "/api/v1/bundles/{id}/upload", tag = "bundles",
    security(("device_token" = [])), params(("id" = String, Path)), request_body = Announce, responses(
    Standing, (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn announce(
    fleet: web::Data<Fleet>,
    device: DeviceCaller,
    id: web::Path<String>,
    body: web::Json<Announce>,
) -> Answer {
    let limits = &fleet.bundles.plan;
    let most = i64::try_from(limits.max_bytes).unwrap_or(i64::MAX);
    if fleet.bundles.path(&id).is_none() {
        return Err(no_such_bundle());
    }
    if body.size_bytes < 1 || !is_sha256(&body.sha256) {
        return Err(Problem::bad_request("size_bytes: at least 1; sha256: 64 of 0-9 and a-f"));
    }
    if body.size_bytes > most {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a bundle has at most {most} bytes here")));
    }
    let now = Utc::now();
    let announcement = Announcement {
        org: &device.org,
        device: &device.id,
        id: &id,
        size: body.size_bytes,
        sha256: &body.sha256,
        quota: i64::try_from(limits.quota_bytes).unwrap_or(i64::MAX),
        expires_at: now + TimeDelta::from_std(limits.keep).unwrap_or(TimeDelta::days(30)),
    };
    match fleet.store.announce_bundle(&announcement, now).await.map_err(store_problem)? {
        Announced::Welcome(row) => Ok(standing(&row)),
        Announced::Unknown => Err(no_such_bundle()),
        Announced::Different => Err(Problem::conflict("another bundle was announced by this id")),
        Announced::OverQuota => {
            let detail = "the organization's bundles have no room for it: delete some, or wait until they expire";
            Err(Problem::new(StatusCode::INSUFFICIENT_STORAGE, detail)
                .retry_after(std::time::Duration::from_secs(3_600)))
        }
    }
}

/// How much of a bundle is here, in `Upload-Offset`.
#[utoipa::path(head, path = "/api/v1/bundles/{id}/upload", tag = "bundles",
    security(("device_token" = [])), params(("id" = String, Path)), responses(
    Standing, (status = 401, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn state(fleet: web::Data<Fleet>, device: DeviceCaller, id: web::Path<String>) -> Answer {
    Ok(standing(&own(&fleet, &device, &id).await?))
}

/// Appends a piece of at most a mebibyte at `Upload-Offset`; `Upload-Checksum` is its SHA-256 in hex. 409 says where the
/// upload really stands, 422 that the whole is not what was announced and begins anew. With the last piece the answer has
/// `Upload-Complete: ?1`.
#[utoipa::path(patch, path = "/api/v1/bundles/{id}/upload", tag = "bundles",
    security(("device_token" = [])), params(("id" = String, Path),
    ("Upload-Offset" = i64, Header), ("Upload-Checksum" = String, Header)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    Standing, (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 409, body = ProblemBody, headers(("Upload-Offset" = i64, description = "Where to go on."))),
    (status = 413, body = ProblemBody),
    (status = 422, body = ProblemBody, headers(("Upload-Offset" = i64, description = "0: from the start."))),
    (status = 503, body = ProblemBody)))]
pub async fn append(
    fleet: web::Data<Fleet>,
    device: DeviceCaller,
    request: HttpRequest,
    id: web::Path<String>,
    piece: Bytes,
) -> Answer {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let row = own(&fleet, &device, &id).await?;
    let offset = header(OFFSET).and_then(|text| text.parse::<i64>().ok());
    let (Some(offset), Some(checksum)) = (offset, header(CHECKSUM)) else {
        return Err(Problem::bad_request("a piece has Upload-Offset and Upload-Checksum"));
    };
    if hex::encode(Sha256::digest(&piece)) != checksum {
        return Err(Problem::bad_request("the piece does not have its checksum"));
    }
    if row.state == "ready" {
        return Ok(standing(&row));
    }
    let (Some(size), Some(sha256)) = (row.size_bytes, row.sha256.clone()) else {
        return Err(Problem::bad_request("announce the bundle first"));
    };
    let end = offset.saturating_add(piece.len() as i64);
    if end > size {
        return Err(Problem::bad_request("the piece goes beyond the announced size"));
    }
    if offset != row.received_bytes {
        return Err(stands_at(row.received_bytes));
    }
    let path = fleet.bundles.path(&row.id).ok_or_else(no_such_bundle)?;
    let from = u64::try_from(offset).map_err(|_| Problem::bad_request("Upload-Offset: 0 or more"))?;
    if !piece.is_empty() {
        let file = path.clone();
        let written = web::block(move || BundleFiles::write(&file, from, &piece)).await;
        written.map_err(|_| failed("could not be written"))?.map_err(|error| disk(&error))?;
        if !fleet.store.grow_bundle(&device.org, &row.id, offset, end).await.map_err(store_problem)? {
            // Another request was faster, or it was deleted meanwhile.
            let now = own(&fleet, &device, &id).await?;
            return Err(stands_at(now.received_bytes));
        }
    }
    if end < size {
        return Ok(standing(&BundleRow { received_bytes: end, ..row }));
    }
    let file = path.clone();
    let sum = web::block(move || BundleFiles::checksum(&file)).await.map_err(|_| failed("could not be read"))?;
    if sum.map_err(|error| disk(&error))? != sha256 {
        fleet.store.grow_bundle(&device.org, &row.id, end, 0).await.map_err(store_problem)?;
        let detail = "the whole does not have the announced checksum: begin anew";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).header("Upload-Offset", "0"));
    }
    fleet.store.complete_bundle(&device.org, &row.id, Utc::now()).await.map_err(store_problem)?;
    tracing::info!(device = device.id, bundle = row.id, bytes = size, "support bundle came in");
    Ok(standing(&BundleRow { received_bytes: end, state: "ready".into(), ..row }))
}

async fn own(fleet: &Fleet, device: &DeviceCaller, id: &str) -> Result<BundleRow, Problem> {
    let row = fleet.store.bundle(&device.org, id).await.map_err(store_problem)?;
    row.filter(|row| row.device_id == device.id).ok_or_else(no_such_bundle)
}

/// 204 with where it stands.
fn standing(row: &BundleRow) -> HttpResponse {
    let mut answer = HttpResponse::NoContent();
    answer.insert_header((OFFSET, row.received_bytes.to_string()));
    if let Some(size) = row.size_bytes {
        answer.insert_header(("upload-length", size.to_string()));
    }
    if row.state == "ready" {
        answer.insert_header((COMPLETE, "?1"));
    }
    answer.finish()
}

fn stands_at(offset: i64) -> Problem {
    Problem::conflict("the upload stands elsewhere").header("Upload-Offset", &offset.to_string())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn no_such_bundle() -> Problem {
    Problem::not_found("no such bundle")
}

fn failed(what: &str) -> Problem {
    Problem::unavailable(format!("the bundle {what}"))
}

fn disk(error: &std::io::Error) -> Problem {
    tracing::warn!(%error, "a bundle's file");
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "the server's disk is full")
        }
        _ => failed("could not be kept"),
    }
}
