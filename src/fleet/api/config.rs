//! Configurations of devices: what should be in force, what is, what differs, and the way back.
//!
//! A desired configuration is one whole document that lies over the device's own file. It has versions, and is brought to
//! the device by a signed `config` command: what the broker retains under `down/desired` would be unsigned, and whoever holds the
//! broker could set it. Operators and above, also to read: addresses of cameras may hold passwords.

use std::str::FromStr;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Duration, Utc};
use r58_actors::fleet_link::config::merge;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::commands::{self, CreateCommand, Refusal};
use super::devices::no_such_device;
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{idempotency, input, resource};
use crate::fleet::auth::{Operator, Session};
use crate::fleet::difference::{Difference, between, mask, within};
use crate::fleet::state::Fleet;
use crate::fleet::store::{ConfigRow, DeviceRow, NewCommand, NewConfig, Once, Put, instant};
use crate::problem::{Answer, Problem};

/// A box in its case has this long to come back for its configuration.
const LIFE: Duration = Duration::days(29);

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/devices/{id}/config", "GET, PUT, PATCH")
                .route(web::get().to(get))
                .route(web::put().to(replace))
                .route(web::patch().to(change)),
        )
        .service(resource("/devices/{id}/config/diff", "GET").route(web::get().to(diff)))
        .service(resource("/devices/{id}/config/rollback", "POST").route(web::post().to(rollback)))
        .service(resource("/devices/{id}/config/versions", "GET").route(web::get().to(versions)))
        .service(resource("/devices/{id}/config/versions/{ver}", "GET").route(web::get().to(version)));
}

/// A version of a desired configuration.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigVersion {
    ver: i64,
    /// Over the device's own file.
    #[schema(value_type = Object)]
    document: Value,
    notes: Option<String>,
    /// The version that was gone back to.
    restores: Option<i64>,
    /// The command that brings it.
    command_id: String,
    created_by: String,
    created_at: DateTime<Utc>,
}

impl From<ConfigRow> for ConfigVersion {
    fn from(row: ConfigRow) -> Self {
        Self {
            ver: row.ver,
            document: serde_json::from_str(&row.document).unwrap_or(Value::Null),
            notes: row.notes,
            restores: row.restores,
            command_id: row.command_id,
            created_by: row.created_by,
            created_at: instant(row.created_at),
        }
    }
}

/// What a device said is in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReportedConfig {
    ver: u64,
    /// Complete, without secrets.
    #[schema(value_type = Object)]
    config: Value,
}

/// Both sides.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceConfig {
    /// The latest version; none when nobody asked for anything.
    desired: Option<ConfigVersion>,
    /// None until the device has said something.
    reported: Option<ReportedConfig>,
    /// The device has the latest version in force.
    in_force: bool,
    /// State of the command that brings the latest version, such as published, executing, succeeded, failed or rejected.
    state: Option<String>,
    /// Why, when it failed.
    reason: Option<String>,
}

/// A whole document to be in force.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceConfig {
    #[schema(value_type = Object)]
    document: Map<String, Value>,
    /// The version that the author has seen, 0 for none; when there is another one, nothing is changed (409).
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    expected_ver: Option<i64>,
    #[schema(max_length = 4000)]
    notes: Option<String>,
}

/// Changes to the latest document.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeConfig {
    /// RFC 7396: objects are merged, null removes, everything else replaces.
    #[schema(value_type = Object)]
    changes: Map<String, Value>,
    /// As in a replacement.
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    expected_ver: Option<i64>,
    #[schema(max_length = 4000)]
    notes: Option<String>,
}

/// The version to go back to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    #[schema(minimum = 1, maximum = 9007199254740991_i64)]
    ver: i64,
    /// As in a replacement.
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    expected_ver: Option<i64>,
    #[schema(max_length = 4000)]
    notes: Option<String>,
}

/// What to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// `reported`, `desired` or the number of a version; `reported` unless given.
    from: Option<String>,
    /// The same; `desired` unless given.
    to: Option<String>,
}

/// What differs.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigDiff {
    from: String,
    to: String,
    /// In the order of names. Beside a reported configuration, which is complete, only what the other side speaks of is
    /// compared. Passwords in addresses are neither compared nor shown.
    differences: Vec<Difference>,
}

enum Side {
    Reported,
    Desired,
    Version(i64),
}

impl FromStr for Side {
    type Err = Problem;

    fn from_str(word: &str) -> Result<Self, Problem> {
        match word {
            "reported" => Ok(Self::Reported),
            "desired" => Ok(Self::Desired),
            number => number
                .parse()
                .ok()
                .filter(|ver| *ver > 0)
                .map(Self::Version)
                .ok_or_else(|| Problem::bad_request("from, to: reported, desired or the number of a version")),
        }
    }
}

/// What should be in force on a device, and what is.
#[utoipa::path(get, path = "/api/v1/devices/{id}/config", tag = "configuration", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = DeviceConfig), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    Ok(HttpResponse::Ok().json(both(&fleet, &caller, &id).await?))
}

async fn both(fleet: &Fleet, caller: &Session, id: &str) -> Result<DeviceConfig, Problem> {
    let row = device(fleet, caller, id).await?;
    let desired = fleet.store.config(id, None).await.map_err(store_problem)?;
    let command = match &desired {
        Some(desired) => fleet.store.command(&caller.org, &desired.command_id).await.map_err(store_problem)?,
        None => None,
    };
    let reported = reported(&row);
    let in_force = match (&desired, &reported) {
        (Some(desired), Some(reported)) => i64::try_from(reported.ver) == Ok(desired.ver),
        _ => false,
    };
    let (state, reason) = command.map(|command| (command.state, command.reason)).unzip();
    Ok(DeviceConfig { desired: desired.map(Into::into), reported, in_force, state, reason: reason.flatten() })
}

fn reported(row: &DeviceRow) -> Option<ReportedConfig> {
    let mut reported: Value = serde_json::from_str(row.reported.as_deref()?).ok()?;
    Some(ReportedConfig { ver: reported["ver"].as_u64()?, config: reported["config"].take() })
}

async fn device(fleet: &Fleet, caller: &Session, id: &str) -> Result<DeviceRow, Problem> {
    fleet.store.device(&caller.org, id).await.map_err(store_problem)?.ok_or_else(no_such_device)
}

/// Sets the whole document. With an `Idempotency-Key`, as for changes and the way back, one version is made, however often it is
/// asked for within a day; the answer is how things are now.
#[utoipa::path(put, path = "/api/v1/devices/{id}/config", tag = "configuration", security(("user" = [])),
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, max_length = 200)), request_body = ReplaceConfig, responses((status = 200, body = DeviceConfig),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn replace(
    fleet: web::Data<Fleet>,
    caller: Operator,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Json<ReplaceConfig>,
) -> Answer {
    let once = idempotency::once(&request, &caller, &format!("{id}/config"), &body.0)?;
    let ReplaceConfig { document, expected_ver, notes } = body.into_inner();
    let row = device(&fleet, &caller, &id).await?;
    put(&fleet, &caller, &row, Wanted { document, expected: expected_ver, notes, restores: None, once }).await
}

/// Changes the latest document.
#[utoipa::path(patch, path = "/api/v1/devices/{id}/config", tag = "configuration", security(("user" = [])),
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, max_length = 200)), request_body = ChangeConfig, responses((status = 200, body = DeviceConfig),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn change(
    fleet: web::Data<Fleet>,
    caller: Operator,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Json<ChangeConfig>,
) -> Answer {
    let once = idempotency::once(&request, &caller, &format!("{id}/config changes"), &body.0)?;
    let ChangeConfig { changes, expected_ver, notes } = body.into_inner();
    let row = device(&fleet, &caller, &id).await?;
    let latest = fleet.store.config(&id, None).await.map_err(store_problem)?;
    let held = latest.as_ref().and_then(|latest| serde_json::from_str(&latest.document).ok()).unwrap_or_default();
    // What was read here must still be the latest when it is written.
    let seen = expected_ver.or(Some(latest.map_or(0, |latest| latest.ver)));
    let document = merge(held, changes);
    put(&fleet, &caller, &row, Wanted { document, expected: seen, notes, restores: None, once }).await
}

/// Goes back to an earlier version: its document becomes the latest version.
#[utoipa::path(post, path = "/api/v1/devices/{id}/config/rollback", tag = "configuration", security(("user" = [])),
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, max_length = 200)), request_body = Rollback, responses((status = 200, body = DeviceConfig),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn rollback(
    fleet: web::Data<Fleet>,
    caller: Operator,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Json<Rollback>,
) -> Answer {
    let once = idempotency::once(&request, &caller, &format!("{id}/config/rollback"), &body.0)?;
    let Rollback { ver, expected_ver, notes } = body.into_inner();
    let row = device(&fleet, &caller, &id).await?;
    let old = fleet.store.config(&id, Some(ver)).await.map_err(store_problem)?.ok_or_else(no_such_version)?;
    let document = serde_json::from_str(&old.document).map_err(|_| no_such_version())?;
    put(&fleet, &caller, &row, Wanted { document, expected: expected_ver, notes, restores: Some(ver), once }).await
}

/// A version that somebody wants.
struct Wanted {
    document: Map<String, Value>,
    expected: Option<i64>,
    notes: Option<String>,
    restores: Option<i64>,
    once: Option<Once>,
}

async fn put(fleet: &Fleet, caller: &Session, device: &DeviceRow, wanted: Wanted) -> Answer {
    let Wanted { document, expected, notes, restores, once } = wanted;
    let now = Utc::now();
    let address = DeviceAddress {
        org: OrgId::new(&caller.org).map_err(|_| no_such_device())?,
        device: DeviceId::new(&device.id).map_err(|_| no_such_device())?,
    };
    let config = NewConfig {
        device_id: device.id.clone(),
        expected,
        document: Value::Object(document.clone()).to_string(),
        notes: notes.as_deref().map(|notes| input::text("notes", notes)).transpose()?,
        restores,
        once,
    };
    // An older device, which never said what it can do, knows `changes` alone.
    let key = if device.caps.is_some() { "document" } else { "changes" };
    let order = |ver: i64| {
        let arguments = Map::from_iter([(key.to_owned(), Value::Object(document)), ("version".to_owned(), json!(ver))]);
        CreateCommand::plain("config", arguments).until(now + LIFE)
    };
    let actor = caller.actor();
    let put = fleet.store.put_config(&actor, &config, now, |ver| {
        let order = order(ver);
        let command = commands::checked(&order, &address, caller, now).map_err(Refusal::Problem)?;
        let row = commands::row(&order, &command, &device.id).map_err(Refusal::Problem)?;
        let row = NewCommand { config_ver: Some(ver), ..row };
        Ok::<_, Refusal>((row, |seq| commands::sign(fleet, command, seq)))
    });
    match put.await? {
        Put::Done(ver) => {
            tracing::info!(device = %device.id, ver, "configuration desired");
            fleet.broker.commands_changed();
            fleet.hub.device_changed(&caller.org, &device.id);
            Ok(HttpResponse::Ok().json(both(fleet, caller, &device.id).await?))
        }
        Put::Again(ver) => {
            tracing::debug!(device = %device.id, ver, "asked for again");
            Ok(HttpResponse::Ok().json(both(fleet, caller, &device.id).await?))
        }
        Put::Stale(latest) => Err(Problem::conflict(format!("stale: version {latest} is the latest"))),
        Put::NoDevice => Err(no_such_device()),
    }
}

/// Versions, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/config/versions", tag = "configuration", security(("user" = [])),
    params(("id" = String, Path), PageQuery), responses((status = 200, body = Page<ConfigVersion>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn versions(
    fleet: web::Data<Fleet>,
    caller: Operator,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Answer {
    let span = page.check()?;
    device(&fleet, &caller, &id).await?;
    let (rows, total) = fleet.store.configs(&id, span.offset(), span.limit()).await.map_err(store_problem)?;
    let items: Vec<ConfigVersion> = rows.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One version.
#[utoipa::path(get, path = "/api/v1/devices/{id}/config/versions/{ver}", tag = "configuration", security(("user" = [])),
    params(("id" = String, Path), ("ver" = i64, Path, minimum = 1)), responses((status = 200, body = ConfigVersion),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn version(fleet: web::Data<Fleet>, caller: Operator, path: web::Path<(String, i64)>) -> Answer {
    let (id, ver) = path.into_inner();
    device(&fleet, &caller, &id).await?;
    let row = fleet.store.config(&id, Some(ver)).await.map_err(store_problem)?.ok_or_else(no_such_version)?;
    Ok(HttpResponse::Ok().json(ConfigVersion::from(row)))
}

/// What differs between what is in force, what should be, and versions.
#[utoipa::path(get, path = "/api/v1/devices/{id}/config/diff", tag = "configuration", security(("user" = [])),
    params(("id" = String, Path), DiffQuery), responses((status = 200, body = ConfigDiff),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn diff(
    fleet: web::Data<Fleet>,
    caller: Operator,
    id: web::Path<String>,
    query: web::Query<DiffQuery>,
) -> Answer {
    let words = [query.from.as_deref().unwrap_or("reported"), query.to.as_deref().unwrap_or("desired")];
    let sides = [words[0].parse::<Side>()?, words[1].parse::<Side>()?];
    let row = device(&fleet, &caller, &id).await?;
    let mut documents = Vec::with_capacity(2);
    for side in &sides {
        let mut document = match side {
            Side::Reported => {
                let said = reported(&row);
                said.ok_or_else(|| Problem::not_found("the device has not said what is in force"))?.config
            }
            Side::Desired | Side::Version(_) => {
                let ver = if let Side::Version(ver) = side { Some(*ver) } else { None };
                let row = fleet.store.config(&id, ver).await.map_err(store_problem)?.ok_or_else(no_such_version)?;
                serde_json::from_str(&row.document).unwrap_or(Value::Null)
            }
        };
        mask(&mut document);
        documents.push(document);
    }
    let is_reported = |side: &Side| matches!(side, Side::Reported);
    match (is_reported(&sides[0]), is_reported(&sides[1])) {
        (true, false) => documents[0] = within(&documents[0], &documents[1]),
        (false, true) => documents[1] = within(&documents[1], &documents[0]),
        _ => {}
    }
    Ok(HttpResponse::Ok().json(ConfigDiff {
        from: words[0].to_owned(),
        to: words[1].to_owned(),
        differences: between(&documents[0], &documents[1]),
    }))
}

fn no_such_version() -> Problem {
    Problem::not_found("no such version")
}
