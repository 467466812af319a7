//! Releases: entered, signed by their makers, published, found by channel. Versions compare as semver, not as text.
//!
//! The server holds no private key: a maker signs the release's metadata (`signed_text`, the canonical JSON of its fields) at
//! home, and publishing takes the signature only if it is good for a key that an administrator has entered.

use actix_web::{FromRequest as _, HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use ed25519_dalek::{Signature, VerifyingKey};
use r58_mqtt::sign::canonical_bytes;
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::json;
use ulid::Ulid;
use utoipa::{IntoParams, ToSchema};

use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::{Admin, DeviceCaller, Viewer};
use crate::fleet::state::Fleet;
use crate::fleet::store::{ReleaseKeyRow, ReleaseRow, instant};
use crate::problem::{Answer, Problem};

/// Every processor.
const ANY: &str = "any";
/// Longest address, in bytes.
const LONGEST_URL: usize = 2_000;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/release-keys", "GET, POST").route(web::get().to(keys)).route(web::post().to(create_key)))
        .service(resource("/release-keys/{id}", "DELETE").route(web::delete().to(delete_key)))
        .service(resource("/releases", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(resource("/releases/latest", "GET").route(web::get().to(latest)))
        .service(resource("/releases/{v}", "GET, DELETE").route(web::get().to(get)).route(web::delete().to(delete)))
        .service(resource("/releases/{v}/publish", "POST").route(web::post().to(publish)));
}

/// A release to be entered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRelease {
    /// As semver has it.
    #[schema(max_length = 100, example = "1.4.0-rc.1")]
    version: String,
    /// `stable`, `beta` or a word of one's own.
    #[schema(max_length = 64)]
    channel: String,
    /// Processor that it is for; `any` unless given.
    #[schema(max_length = 64)]
    arch: Option<String>,
    /// http:// or https://
    #[schema(max_length = 2000)]
    artifact_url: String,
    /// http:// or https://
    #[schema(max_length = 2000)]
    signature_url: Option<String>,
    /// 64 hex digits.
    #[schema(min_length = 64, max_length = 64)]
    checksum_sha256: String,
    #[schema(minimum = 1, maximum = 9007199254740991_i64)]
    size_bytes: i64,
    /// Lowest version that can be updated to it directly.
    #[schema(max_length = 100)]
    min_version: Option<String>,
    #[schema(max_length = 4000)]
    changelog: Option<String>,
}

/// A release.
#[derive(Serialize, ToSchema)]
pub struct Release {
    version: String,
    channel: String,
    arch: String,
    artifact_url: String,
    signature_url: Option<String>,
    checksum_sha256: String,
    size_bytes: i64,
    min_version: Option<String>,
    changelog: Option<String>,
    published: bool,
    /// What its maker signs, byte for byte: canonical JSON.
    signed_text: String,
    /// The maker's signature over it: ed25519, base64.
    signature: Option<String>,
    /// The key that the signature was made with.
    key_id: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
    published_at: Option<DateTime<Utc>>,
}

impl From<ReleaseRow> for Release {
    fn from(row: ReleaseRow) -> Self {
        Self {
            signed_text: signed_text(&row),
            published: row.published_at.is_some(),
            version: row.version,
            channel: row.channel,
            arch: row.arch,
            artifact_url: row.artifact_url,
            signature_url: row.signature_url,
            checksum_sha256: row.checksum_sha256,
            size_bytes: row.size_bytes,
            min_version: row.min_version,
            changelog: row.changelog,
            signature: row.signature,
            key_id: row.key_id,
            created_by: row.created_by,
            created_at: instant(row.created_at),
            published_at: row.published_at.map(instant),
        }
    }
}

/// Everything that decides what a device installs; what is only read by people may be corrected later.
fn signed_text(row: &ReleaseRow) -> String {
    let metadata = json!({
        "version": row.version, "channel": row.channel, "arch": row.arch, "artifact_url": row.artifact_url,
        "checksum_sha256": row.checksum_sha256, "size_bytes": row.size_bytes, "min_version": row.min_version,
    });
    String::from_utf8_lossy(&canonical_bytes(&metadata)).into_owned()
}

/// A maker's key to be entered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateReleaseKey {
    #[schema(max_length = 200)]
    name: String,
    /// ed25519, the 32 bytes in base64.
    #[schema(max_length = 64)]
    public_key: String,
}

/// A maker's key.
#[derive(Serialize, ToSchema)]
pub struct ReleaseKey {
    id: String,
    name: String,
    public_key: String,
    created_by: String,
    created_at: DateTime<Utc>,
}

impl From<ReleaseKeyRow> for ReleaseKey {
    fn from(row: ReleaseKeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            public_key: row.public_key,
            created_by: row.created_by,
            created_at: instant(row.created_at),
        }
    }
}

/// A maker's signature.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The key that it was made with.
    #[schema(max_length = 64)]
    key_id: String,
    /// Over `signed_text`: ed25519, the 64 bytes in base64.
    #[schema(max_length = 128)]
    signature: String,
}

/// Which releases.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReleaseQuery {
    /// Only of this channel.
    channel: Option<String>,
    /// From 1.
    #[param(minimum = 1, default = 1)]
    page: Option<u32>,
    /// 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u32>,
}

/// For which processor.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ArchQuery {
    /// `any` unless given.
    arch: Option<String>,
}

impl ArchQuery {
    fn arch(&self) -> &str {
        self.arch.as_deref().unwrap_or(ANY)
    }
}

/// For whom.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LatestQuery {
    /// `stable` unless given.
    channel: Option<String>,
    /// A release for every processor is good for it as well.
    arch: Option<String>,
}

fn version(field: &str, text: &str) -> Result<Version, Problem> {
    let good = Some(text).filter(|text| text.len() <= 100).and_then(|text| Version::parse(text).ok());
    good.ok_or_else(|| Problem::bad_request(format!("{field}: not a version as semver has it")))
}

fn url(field: &str, text: &str) -> Result<String, Problem> {
    let good = text.starts_with("https://") || text.starts_with("http://");
    match good && text.len() <= LONGEST_URL && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(Problem::bad_request(format!("{field}: an http:// or https:// address"))),
    }
}

/// Enters a release; it is published later, with its maker's signature.
#[utoipa::path(post, path = "/api/v1/releases", tag = "releases", security(("user" = [])), request_body = CreateRelease,
    responses((status = 201, body = Release), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Admin, body: web::Json<CreateRelease>) -> Answer {
    let body = body.into_inner();
    let hex = body.checksum_sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if body.checksum_sha256.len() != 64 || !hex {
        return Err(Problem::bad_request("checksum_sha256: 64 hex digits"));
    }
    if !(1..=9_007_199_254_740_991).contains(&body.size_bytes) {
        return Err(Problem::bad_request("size_bytes: at least 1"));
    }
    let actor = caller.actor();
    let row = ReleaseRow {
        version: version("version", &body.version)?.to_string(),
        arch: input::line("arch", body.arch.as_deref().unwrap_or(ANY))?,
        channel: input::line("channel", &body.channel)?,
        artifact_url: url("artifact_url", &body.artifact_url)?,
        signature_url: body.signature_url.as_deref().map(|text| url("signature_url", text)).transpose()?,
        checksum_sha256: body.checksum_sha256.to_lowercase(),
        size_bytes: body.size_bytes,
        min_version: match &body.min_version {
            Some(text) => Some(version("min_version", text)?.to_string()),
            None => None,
        },
        changelog: body.changelog.as_deref().map(|text| input::text("changelog", text)).transpose()?,
        signature: None,
        key_id: None,
        created_by: actor.name.clone(),
        created_at: 0,
        published_at: None,
    };
    if !fleet.store.create_release(&actor, &row, Utc::now()).await.map_err(store_problem)? {
        return Err(Problem::conflict("there are too many releases; delete old ones"));
    }
    let row = read(&fleet, &caller.org, &row.version, &row.arch).await?;
    Ok(HttpResponse::Created().json(Release::from(row)))
}

async fn read(fleet: &Fleet, org: &str, version: &str, arch: &str) -> Result<ReleaseRow, Problem> {
    let row = fleet.store.release(org, version, arch).await.map_err(store_problem)?;
    row.ok_or_else(no_such_release)
}

/// Releases, the highest version first.
#[utoipa::path(get, path = "/api/v1/releases", tag = "releases", security(("user" = [])), params(ReleaseQuery),
    responses((status = 200, body = Page<Release>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, query: web::Query<ReleaseQuery>) -> Answer {
    let span = PageQuery { page: query.page, page_size: query.page_size }.check()?;
    let mut rows = fleet.store.releases(&caller.org, query.channel.as_deref()).await.map_err(store_problem)?;
    // There are few enough of them to put in order here, where versions are understood.
    rows.sort_by_cached_key(|row| std::cmp::Reverse((Version::parse(&row.version).ok(), row.arch.clone())));
    let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let (skip, take) = (usize::try_from(span.offset()), usize::try_from(span.limit()));
    let page = rows.into_iter().skip(skip.unwrap_or(usize::MAX)).take(take.unwrap_or(0));
    Ok(HttpResponse::Ok().json(span.answer(page.map(Release::from).collect(), total)))
}

/// The highest published version of a channel; for devices as well.
#[utoipa::path(get, path = "/api/v1/releases/latest", tag = "releases",
    security(("user" = []), ("device_token" = [])), params(LatestQuery),
    responses((status = 200, body = Release), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn latest(request: HttpRequest, fleet: web::Data<Fleet>, query: web::Query<LatestQuery>) -> Answer {
    let org = match request.headers().contains_key("X-Device-Token") {
        true => DeviceCaller::extract(&request).await?.org,
        false => Viewer::extract(&request).await?.org.clone(),
    };
    let channel = query.channel.as_deref().unwrap_or("stable");
    let rows = fleet.store.releases(&org, Some(channel)).await.map_err(store_problem)?;
    let fits = |row: &ReleaseRow| row.arch == ANY || query.arch.as_ref().is_none_or(|arch| *arch == row.arch);
    let published = rows.into_iter().filter(|row| row.published_at.is_some() && fits(row));
    // Of two of the same version, the one for this processor.
    let highest = published.max_by_key(|row| (Version::parse(&row.version).ok(), row.arch != ANY));
    highest.map(|row| HttpResponse::Ok().json(Release::from(row))).ok_or_else(no_such_release)
}

/// One release.
#[utoipa::path(get, path = "/api/v1/releases/{v}", tag = "releases", security(("user" = [])),
    params(("v" = String, Path), ArchQuery), responses((status = 200, body = Release), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, v: web::Path<String>, arch: web::Query<ArchQuery>) -> Answer {
    Ok(HttpResponse::Ok().json(Release::from(read(&fleet, &caller.org, &v, arch.arch()).await?)))
}

/// Publishes a release with its maker's signature.
#[utoipa::path(post, path = "/api/v1/releases/{v}/publish", tag = "releases", security(("user" = [])),
    params(("v" = String, Path), ArchQuery), request_body = Publish, responses((status = 200, body = Release),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn publish(
    fleet: web::Data<Fleet>,
    caller: Admin,
    v: web::Path<String>,
    arch: web::Query<ArchQuery>,
    body: web::Json<Publish>,
) -> Answer {
    let row = read(&fleet, &caller.org, &v, arch.arch()).await?;
    let key = fleet.store.release_key(&caller.org, &body.key_id).await.map_err(store_problem)?;
    let key = key.ok_or_else(|| Problem::bad_request("key_id: no such key"))?;
    let good = verifying(&key.public_key).is_some_and(|verifying| {
        let signature = STANDARD.decode(&body.signature).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
        signature.is_some_and(|signature| verifying.verify_strict(signed_text(&row).as_bytes(), &signature).is_ok())
    });
    if !good {
        return Err(Problem::bad_request("signature: not one of this key over signed_text"));
    }
    let (actor, now) = (caller.actor(), Utc::now());
    let which = (row.version.as_str(), row.arch.as_str());
    let done = fleet.store.publish_release(&actor, which, (&key.id, &body.signature), now).await;
    if !done.map_err(store_problem)? {
        return Err(no_such_release());
    }
    tracing::info!(version = %row.version, arch = %row.arch, channel = %row.channel, "release published");
    Ok(HttpResponse::Ok().json(Release::from(read(&fleet, &caller.org, &row.version, &row.arch).await?)))
}

/// Takes a release out; not while it is being rolled out.
#[utoipa::path(delete, path = "/api/v1/releases/{v}", tag = "releases", security(("user" = [])),
    params(("v" = String, Path), ArchQuery), responses((status = 204), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 409, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn delete(
    fleet: web::Data<Fleet>,
    caller: Admin,
    v: web::Path<String>,
    arch: web::Query<ArchQuery>,
) -> Answer {
    let done = fleet.store.delete_release(&caller.actor(), &v, arch.arch(), Utc::now()).await;
    match done.map_err(store_problem)? {
        Some(true) => Ok(HttpResponse::NoContent().finish()),
        Some(false) => Err(Problem::conflict("the release is being rolled out")),
        None => Err(no_such_release()),
    }
}

fn verifying(base64: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = STANDARD.decode(base64).ok()?.try_into().ok()?;
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak())
}

/// Enters a maker's key.
#[utoipa::path(post, path = "/api/v1/release-keys", tag = "releases", security(("user" = [])),
    request_body = CreateReleaseKey, responses((status = 201, body = ReleaseKey), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create_key(fleet: web::Data<Fleet>, caller: Admin, body: web::Json<CreateReleaseKey>) -> Answer {
    let name = input::line("name", &body.name)?;
    if verifying(&body.public_key).is_none() {
        return Err(Problem::bad_request("public_key: not an ed25519 key in base64"));
    }
    let id = Ulid::new().to_string();
    let made = fleet.store.create_release_key(&caller.actor(), &id, &name, &body.public_key, Utc::now()).await;
    made.map_err(store_problem)?;
    let row = fleet.store.release_key(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_key)?;
    Ok(HttpResponse::Created().json(ReleaseKey::from(row)))
}

/// Lists makers' keys, newest first.
#[utoipa::path(get, path = "/api/v1/release-keys", tag = "releases", security(("user" = [])), params(PageQuery),
    responses((status = 200, body = Page<ReleaseKey>), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn keys(fleet: web::Data<Fleet>, caller: Viewer, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) =
        fleet.store.release_keys(&caller.org, span.offset(), span.limit()).await.map_err(store_problem)?;
    let items: Vec<ReleaseKey> = rows.into_iter().map(ReleaseKey::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// Takes a maker's key out; what was published with it stays published.
#[utoipa::path(delete, path = "/api/v1/release-keys/{id}", tag = "releases", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn delete_key(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    match fleet.store.delete_release_key(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(no_such_key()),
    }
}

fn no_such_release() -> Problem {
    Problem::not_found("no such release")
}

fn no_such_key() -> Problem {
    Problem::not_found("no such key")
}
