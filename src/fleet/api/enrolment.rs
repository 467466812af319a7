//! Letting boxes in: codes made by an administrator, each good for one registration unless made for more.

use actix_web::http::header::HOST;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Duration, Utc};
use r58_mqtt::DeviceId;
use r58_mqtt::sign::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ulid::Ulid;
use utoipa::ToSchema;

use super::devices::tokens::DEFAULT_OVERLAP;
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::certificate::ShownCertificate;
use crate::fleet::auth::{Admin, secret};
use crate::fleet::state::Fleet;
use crate::fleet::store::{
    Actor, Certified, Enrolled, EnrolmentRow, NewDevice, NewEnrolmentCode, Store, StoreError, instant,
};
use crate::problem::{Answer, Problem};

/// Life of a code unless asked otherwise, in seconds.
pub const DEFAULT_LIFE: u32 = 3_600;
/// Longest life of a code: 30 days.
const MAX_LIFE: u32 = 30 * 86_400;
/// Most boxes that one code lets in.
const MAX_USES: u32 = 100_000;
/// Largest `capabilities`, in bytes of JSON.
const MAX_CAPABILITIES: usize = 16 * 1024;

/// Words that stand in the place of an identifier in paths under `/devices/`.
const RESERVED: [&str; 3] = ["register", "summary", "bulk"];

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/enrolment-codes", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(resource("/enrolment-codes/{id}", "DELETE").route(web::delete().to(delete)))
        .service(resource("/devices/register", "POST").route(web::post().to(register)));
}

/// What the code is for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCode {
    /// 60 s to 30 days; an hour unless given.
    #[schema(minimum = 60, maximum = 2_592_000)]
    expires_in_seconds: Option<u32>,
    /// For whom it is.
    #[schema(max_length = 200)]
    note: Option<String>,
    /// How many boxes it lets in, 1 to 100,000; one unless given.
    #[schema(minimum = 1, maximum = 100_000)]
    uses: Option<u32>,
}

/// A code; it is shown only now.
#[derive(Serialize, ToSchema)]
pub struct NewCode {
    id: String,
    #[schema(example = "7K2M-9QXD-04TN-VB3H")]
    code: String,
    expires_at: DateTime<Utc>,
}

/// A code as it is listed: without itself.
#[derive(Serialize, ToSchema)]
pub struct Code {
    id: String,
    note: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// When its last use was.
    used_at: Option<DateTime<Utc>>,
    /// The box it let in last.
    used_by: Option<String>,
    /// How many boxes it lets in.
    max_uses: i64,
    /// How many it has let in.
    uses: i64,
}

impl From<EnrolmentRow> for Code {
    fn from(row: EnrolmentRow) -> Self {
        Self {
            id: row.id,
            note: row.note,
            created_by: row.created_by,
            created_at: instant(row.created_at),
            expires_at: instant(row.expires_at),
            used_at: row.used_at.map(instant),
            used_by: row.used_by,
            max_uses: row.max_uses,
            uses: row.uses,
        }
    }
}

/// A box that asks to be let in. Fields that this server does not know are passed over: boxes may be newer.
#[derive(Deserialize, ToSchema)]
pub struct Register {
    /// From an administrator. Without one, the certificate that the connection shows (by TLS with this server itself) has to
    /// name the device, as the URI `r58:ORG/DEVICE`.
    enrolment_code: Option<String>,
    /// 1 to 64 of letters, digits, `-`, `_` and `.`, a letter or digit first.
    #[schema(max_length = 64)]
    device_id: String,
    #[schema(max_length = 200)]
    name: String,
    #[schema(max_length = 200)]
    platform: String,
    #[schema(max_length = 200)]
    arch: String,
    #[schema(max_length = 200)]
    serial_number: Option<String>,
    #[schema(max_length = 200)]
    mac_address: Option<String>,
    #[schema(max_length = 200)]
    current_version: Option<String>,
    #[schema(value_type = Option<Object>)]
    capabilities: Option<Value>,
}

/// A key that commands are signed with.
#[derive(Serialize, ToSchema)]
pub struct CommandKey {
    /// Its identifier.
    kid: String,
    /// ed25519, base64.
    public_key: String,
}

impl From<PublicKey> for CommandKey {
    fn from(key: PublicKey) -> Self {
        Self { kid: key.kid, public_key: key.public_key }
    }
}

/// All that a box needs. The token is shown only now.
#[derive(Serialize, ToSchema)]
pub struct Registered {
    device_id: String,
    /// 64 hex digits.
    token: String,
    fleet_url: String,
    org: String,
    mqtt_url: String,
    command_keys: Vec<CommandKey>,
}

/// Makes a code.
#[utoipa::path(post, path = "/api/v1/enrolment-codes", tag = "enrolment", security(("user" = [])),
    request_body = CreateCode, responses((status = 201, body = NewCode), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Admin, body: web::Json<CreateCode>) -> Answer {
    let life = body.expires_in_seconds.unwrap_or(DEFAULT_LIFE);
    if !(60..=MAX_LIFE).contains(&life) {
        return Err(Problem::bad_request(format!("expires_in_seconds: 60 to {MAX_LIFE}")));
    }
    let note = input::optional_line("note", body.note.as_deref())?;
    let uses = body.uses.unwrap_or(1);
    if !(1..=MAX_USES).contains(&uses) {
        return Err(Problem::bad_request(format!("uses: 1 to {MAX_USES}")));
    }
    let new = make_code(&fleet.store, &caller.actor(), life, uses, note.as_deref()).await.map_err(store_problem)?;
    Ok(HttpResponse::Created().json(new))
}

/// Makes a code and stores its hash.
async fn make_code(
    store: &Store,
    actor: &Actor,
    life: u32,
    uses: u32,
    note: Option<&str>,
) -> Result<NewCode, StoreError> {
    let (id, code, now) = (Ulid::new().to_string(), secret::code(), Utc::now());
    let expires_at = now + Duration::seconds(i64::from(life));
    let hash = secret::hash(&secret::normalized_code(&code));
    let stored = NewEnrolmentCode { id: &id, code_hash: &hash, note, uses, expires_at };
    store.store_enrolment_code(actor, stored, now).await?;
    Ok(NewCode { id, code, expires_at })
}

/// A code of the server's own, for a box that starts beside it.
///
/// # Errors
/// Those of the database.
pub async fn code_for_companion(store: &Store, org: &str) -> Result<String, StoreError> {
    Ok(make_code(store, &Actor::server(org), DEFAULT_LIFE, 1, Some("made by the server")).await?.code)
}

/// Lists codes, newest first.
#[utoipa::path(get, path = "/api/v1/enrolment-codes", tag = "enrolment", security(("user" = [])), params(PageQuery),
    responses((status = 200, body = Page<Code>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Admin, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) =
        fleet.store.enrolment_codes(&caller.org, span.offset(), span.limit()).await.map_err(store_problem)?;
    let codes: Vec<Code> = rows.into_iter().map(Code::from).collect();
    Ok(HttpResponse::Ok().json(span.answer(codes, total)))
}

/// Deletes a code that was not used.
#[utoipa::path(delete, path = "/api/v1/enrolment-codes/{id}", tag = "enrolment", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn delete(fleet: web::Data<Fleet>, caller: Admin, id: web::Path<String>) -> Answer {
    match fleet.store.delete_enrolment_code(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(Problem::not_found("no such code, or it was used")),
    }
}

/// Lets a box in, by a code or by its certificate. The code is used only when it succeeds. A device that registers by certificate
/// and is known already gets another token; the one before stays good until the new one is used, for a day at most.
#[utoipa::path(post, path = "/api/v1/devices/register", tag = "enrolment", request_body = Register, responses(
    (status = 201, body = Registered), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 429, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn register(request: HttpRequest, fleet: web::Data<Fleet>, body: web::Json<Register>) -> Answer {
    let from = fleet.client(&request)?;
    Fleet::check_lockout(&fleet.enrolments, "", from)?;
    let device = new_device(&body)?;
    let (token, now) = (secret::token(), Utc::now());
    let hash = secret::hash(&token);
    let outcome = match &body.enrolment_code {
        Some(code) => {
            let code = secret::hash(&secret::normalized_code(code));
            fleet.store.enrol(&code, &device, &hash, now).await.map_err(store_problem)?
        }
        None => match ShownCertificate::device(&request).filter(|named| named.device.as_str() == device.id) {
            Some(named) => {
                fleet.doorkeeper.register(&device.id)?;
                let until = now + Duration::seconds(i64::from(DEFAULT_OVERLAP));
                let order = Certified { org: named.org.as_str(), token_hash: &hash, old_until: until };
                fleet.store.enrol_certified(&device, order, now).await.map_err(store_problem)?
            }
            None => {
                Fleet::note_attempt(&fleet.enrolments, "", from, false);
                let what = "there is neither an enrolment code nor a certificate that names this device";
                return Err(Problem::forbidden(what));
            }
        },
    };
    let refused = matches!(outcome, Enrolled::BadCode | Enrolled::NoOrganization | Enrolled::Decommissioned);
    Fleet::note_attempt(&fleet.enrolments, "", from, !refused);
    let org = match outcome {
        Enrolled::Done { org } => org,
        Enrolled::BadCode => {
            return Err(Problem::forbidden("the enrolment code is unknown, expired or used"));
        }
        Enrolled::NoOrganization => return Err(Problem::forbidden("the certificate's organization is not known here")),
        Enrolled::Decommissioned => {
            return Err(Problem::forbidden(
                "this device was decommissioned; it comes back with an enrolment code only",
            ));
        }
        Enrolled::Known => return Err(Problem::conflict("a device with this id is registered already")),
    };
    tracing::info!(device = %device.id, %org, "device registered");
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    fleet.hub.device_changed(&org, &device.id);
    Ok(HttpResponse::Created().json(Registered {
        device_id: device.id,
        token,
        fleet_url: fleet.places.public_url(&host),
        org,
        mqtt_url: fleet.places.mqtt_url(&host),
        command_keys: vec![fleet.keys.commands.public_key().into()],
    }))
}

fn new_device(body: &Register) -> Result<NewDevice, Problem> {
    let id = DeviceId::new(&body.device_id).map_err(|error| Problem::bad_request(format!("device_id: {error}")))?;
    if RESERVED.contains(&id.as_str()) {
        return Err(Problem::bad_request("device_id: a word that the API uses itself"));
    }
    let capabilities = body.capabilities.as_ref().map(ToString::to_string);
    if capabilities.as_ref().is_some_and(|text| text.len() > MAX_CAPABILITIES) {
        return Err(Problem::bad_request(format!("capabilities: at most {MAX_CAPABILITIES} bytes")));
    }
    Ok(NewDevice {
        id: id.to_string(),
        name: input::line("name", &body.name)?,
        platform: input::line("platform", &body.platform)?,
        arch: input::line("arch", &body.arch)?,
        serial_number: input::optional_line("serial_number", body.serial_number.as_deref())?,
        mac_address: input::optional_line("mac_address", body.mac_address.as_deref())?,
        version: input::optional_line("current_version", body.current_version.as_deref())?,
        capabilities,
    })
}
