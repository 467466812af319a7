//! Support bundles for operators: asked for, listed, downloaded, deleted. A bundle has the id of the command that makes it.

use actix_files::NamedFile;
use actix_web::http::StatusCode;
use actix_web::http::header::{ContentDisposition, ContentEncoding, DispositionParam, DispositionType};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use utoipa::ToSchema;

use super::devices::no_such_device;
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{commands, resource};
use crate::fleet::auth::Operator;
use crate::fleet::state::Fleet;
use crate::fleet::store::{BundleRow, CommandRow, NewBundle, instant};
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/devices/{id}/bundles", "GET, POST").route(web::get().to(list)).route(web::post().to(create)),
        )
        .service(resource("/bundles/{id}", "GET, DELETE").route(web::get().to(get)).route(web::delete().to(delete)))
        .service(resource("/bundles/{id}/download", "GET").route(web::get().to(download)));
}

/// What is wanted in it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBundle {
    /// The device's log.
    #[schema(default = true)]
    include_logs: Option<bool>,
    /// Its configuration, without secrets.
    #[schema(default = true)]
    include_config: Option<bool>,
    /// Its recordings.
    #[schema(default = false)]
    include_recordings: Option<bool>,
    /// Actor tree, state, pipeline graphs, recent telemetry, facts of the machine.
    #[schema(default = true)]
    include_diagnostics: Option<bool>,
}

/// A support bundle.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bundle)]
pub struct BundleAnswer {
    /// Also that of the command that makes it.
    id: String,
    device_id: String,
    /// requested, making, uploading, ready or failed.
    state: String,
    /// 0 to 1, of what it is busy with.
    progress: Option<f64>,
    size_bytes: Option<i64>,
    received_bytes: i64,
    /// Checksum of the archive.
    sha256: Option<String>,
    /// Why there is none.
    error: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
}

impl BundleAnswer {
    /// A stored bundle; `command` made or makes it.
    fn new(row: BundleRow, command: Option<&CommandRow>) -> Self {
        let mut answer = Self {
            progress: match (row.state.as_str(), row.size_bytes) {
                ("uploading", Some(size)) if size > 0 => Some(row.received_bytes as f64 / size as f64),
                _ => None,
            },
            id: row.id,
            device_id: row.device_id,
            state: row.state,
            size_bytes: row.size_bytes,
            received_bytes: row.received_bytes,
            sha256: row.sha256,
            error: row.error,
            created_by: row.created_by,
            created_at: instant(row.created_at),
            completed_at: row.completed_at.map(instant),
            expires_at: instant(row.expires_at),
        };
        // Until the device announces it, the command knows how it stands.
        if let Some(command) = command.filter(|_| answer.state == "requested") {
            match (command.finished_at, command.state.as_str()) {
                (Some(_), "succeeded") => answer.state = "uploading".into(),
                (Some(_), _) => {
                    answer.state = "failed".into();
                    answer.error = command.reason.clone().or_else(|| Some(command.state.clone()));
                }
                (None, "executing") => {
                    answer.state = "making".into();
                    answer.progress = command.progress;
                }
                (None, _) => {}
            }
        }
        answer
    }
}

async fn answer_of(fleet: &Fleet, row: BundleRow) -> Result<BundleAnswer, Problem> {
    let command = match row.state.as_str() {
        "requested" => fleet.store.command(&row.org, &row.id).await.map_err(store_problem)?,
        _ => None,
    };
    Ok(BundleAnswer::new(row, command.as_ref()))
}

/// Has a device make a bundle and send it here.
#[utoipa::path(post, path = "/api/v1/devices/{id}/bundles", tag = "bundles", security(("user" = [])),
    params(("id" = String, Path)), request_body = CreateBundle, responses((status = 201, body = BundleAnswer),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn create(
    fleet: web::Data<Fleet>,
    caller: Operator,
    device: web::Path<String>,
    body: web::Json<CreateBundle>,
) -> Answer {
    let CreateBundle { include_logs, include_config, include_recordings, include_diagnostics } = body.into_inner();
    let address = DeviceAddress {
        org: OrgId::new(&caller.org).map_err(|_| no_such_device())?,
        device: DeviceId::new(device.as_str()).map_err(|_| no_such_device())?,
    };
    let wants: Map<_, _> = [
        ("include_logs", include_logs.unwrap_or(true)),
        ("include_config", include_config.unwrap_or(true)),
        ("include_recordings", include_recordings.unwrap_or(false)),
        ("include_diagnostics", include_diagnostics.unwrap_or(true)),
    ]
    .into_iter()
    .map(|(name, wanted)| (name.to_owned(), json!(wanted)))
    .collect();
    let id = commands::make(&fleet, &caller, address, "bundle".into(), wants).await?.id().to_owned();
    let now = Utc::now();
    let keep = TimeDelta::from_std(fleet.bundles.plan.keep).unwrap_or(TimeDelta::days(30));
    let new = NewBundle { id: &id, device: &device, expires_at: now + keep };
    fleet.store.create_bundle(&caller.actor(), &new, now).await.map_err(store_problem)?;
    let row = fleet.store.bundle(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_bundle)?;
    tracing::info!(device = %device, bundle = id, by = caller.email, "support bundle asked for");
    Ok(HttpResponse::build(StatusCode::CREATED)
        .insert_header(("Location", format!("/api/v1/bundles/{id}")))
        .json(answer_of(&fleet, row).await?))
}

/// A device's bundles, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/bundles", tag = "bundles", security(("user" = [])),
    params(("id" = String, Path), PageQuery), responses((status = 200, body = Page<BundleAnswer>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(
    fleet: web::Data<Fleet>,
    caller: Operator,
    device: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Answer {
    let span = page.check()?;
    if fleet.store.device(&caller.org, &device).await.map_err(store_problem)?.is_none() {
        return Err(no_such_device());
    }
    let found = fleet.store.bundles(&caller.org, &device, span.offset(), span.limit()).await;
    let (rows, total) = found.map_err(store_problem)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push(answer_of(&fleet, row).await?);
    }
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One bundle.
#[utoipa::path(get, path = "/api/v1/bundles/{id}", tag = "bundles", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = BundleAnswer), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    let row = fleet.store.bundle(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_bundle)?;
    Ok(HttpResponse::Ok().json(answer_of(&fleet, row).await?))
}

/// Deletes a bundle with its file; a device that still sends it is told to stop.
#[utoipa::path(delete, path = "/api/v1/bundles/{id}", tag = "bundles", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn delete(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    if !fleet.store.delete_bundle(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        return Err(no_such_bundle());
    }
    let files = fleet.bundles.clone();
    // What cannot be removed now, the sweep removes.
    let _ = web::block(move || files.remove(&id)).await;
    Ok(HttpResponse::NoContent().finish())
}

/// The archive, a tar.gz. Understands `Range` and conditions (RFC 9110, sections 13 and 14), so that a download goes on.
#[utoipa::path(get, path = "/api/v1/bundles/{id}/download", tag = "bundles", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, content_type = "application/gzip", body = Vec<u8>),
    (status = 206, content_type = "application/gzip", body = Vec<u8>), (status = 304), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 412, body = ProblemBody), (status = 416, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn download(
    fleet: web::Data<Fleet>,
    caller: Operator,
    request: HttpRequest,
    id: web::Path<String>,
) -> Answer {
    let row = fleet.store.bundle(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_bundle)?;
    if row.state != "ready" {
        return Err(Problem::conflict("the bundle is not here yet"));
    }
    let path = fleet.bundles.path(&row.id).ok_or_else(no_such_bundle)?;
    let file =
        NamedFile::open_async(path).await.map_err(|_| Problem::unavailable("the bundle's file is out of reach"))?;
    // Both parts are letters, digits, hyphens and underscores.
    let name = DispositionParam::Filename(format!("r58-{}-{}.tar.gz", row.device_id, row.id));
    let named = ContentDisposition { disposition: DispositionType::Attachment, parameters: vec![name] };
    let gzip: mime_guess::Mime = "application/gzip".parse().map_err(|_| Problem::unavailable("no media type"))?;
    let response = file
        .set_content_type(gzip)
        .set_content_disposition(named)
        .set_content_encoding(ContentEncoding::Identity)
        .prefer_utf8(false)
        .into_response(&request);
    match response.status() {
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let size = format!("bytes */{}", row.size_bytes.unwrap_or(0));
            Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "the range lies outside")
                .header("Content-Range", &size))
        }
        StatusCode::PRECONDITION_FAILED => {
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, "the bundle is another one"))
        }
        _ => Ok(response),
    }
}

fn no_such_bundle() -> Problem {
    Problem::not_found("no such bundle")
}
