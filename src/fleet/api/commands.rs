//! Commands: made, signed and stored here, carried by the broker, done by the device.

use std::str::FromStr;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Duration, Utc};
use r58_mqtt::payload::{Command, IssuedBy, OnInterrupt, ServerState};
use r58_mqtt::{CommandId, DeviceAddress, DeviceId, Down, OrgId, Topic};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ulid::Ulid;
use utoipa::ToSchema;

use super::devices::no_such_device;
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::{Operator, Session, Viewer};
use crate::fleet::state::Fleet;
use crate::fleet::store::{CommandRow, HistoryRow, NewCommand, Signed, StoreError, instant};
use crate::problem::{Answer, Problem};

/// Life of a command unless asked otherwise.
const DEFAULT_LIFE: Duration = Duration::hours(1);
/// Longest life: devices remember commands for 30 days beyond their expiry (the protocol's tombstones).
const MAX_LIFE: Duration = Duration::days(30);
/// Priority unless asked otherwise.
const DEFAULT_PRIORITY: u8 = 5;
/// Attempts at what may run again; operators have always known three.
const MAX_ATTEMPTS: u32 = 3;
/// Longest an effect may take, in seconds: the protocol's limit.
const LONGEST_EFFECT: u32 = 86_400;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/devices/{id}/commands", "GET, POST").route(web::get().to(list)).route(web::post().to(create)),
        )
        .service(resource("/commands/{id}", "GET").route(web::get().to(get)))
        .service(resource("/commands/{id}/cancel", "POST").route(web::post().to(cancel)));
}

/// A command to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCommand {
    /// `take`, `scene`, `restart_service`, `reboot`, `config`, `identify`; a device rejects what it does not know.
    #[serde(rename = "type")]
    #[schema(max_length = 64, pattern = "^[a-z][a-z0-9_]*$")]
    kind: String,
    /// Arguments of the operation.
    #[serde(default)]
    #[schema(value_type = Object)]
    payload: Map<String, Value>,
    /// 1 to 10.
    #[schema(minimum = 1, maximum = 10, default = 5)]
    priority: Option<u8>,
    /// Not to be begun after; in an hour unless given, in 30 days at the latest.
    expires_at: Option<DateTime<Utc>>,
    /// Not to be begun before.
    not_before: Option<DateTime<Utc>>,
    /// Remarks of the operator.
    #[schema(max_length = 4000)]
    notes: Option<String>,
    /// Sign it but leave publishing to the caller, who finds `topic` and `message` in the answer.
    #[serde(default)]
    draft: bool,
}

/// One step of a command's life.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    state: String,
    ts: DateTime<Utc>,
    reason: Option<String>,
}

/// A command.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Command)]
pub struct CommandAnswer {
    id: String,
    /// Number within the device's commands; 0 for one that was published past the server.
    seq: i64,
    device_id: String,
    #[serde(rename = "type")]
    kind: String,
    #[schema(value_type = Object)]
    payload: Value,
    priority: i64,
    /// draft, published, received, accepted, queued, executing, rebooting, verifying, succeeded, failed, rejected,
    /// timed_out, cancelled, interrupted, expired or superseded.
    state: String,
    /// The same in the older words: pending, sent, acked, running, completed, failed, cancelled or expired.
    status: String,
    attempts: i64,
    /// 0 to 1.
    progress: Option<f64>,
    code: Option<String>,
    reason: Option<String>,
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    notes: Option<String>,
    /// Cancelling was asked for; the device has the last word.
    cancel_requested: bool,
    created_at: DateTime<Utc>,
    /// When the broker took it.
    published_at: Option<DateTime<Utc>>,
    not_before: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    created_by: String,
    history: Vec<Step>,
    /// Of a draft: where to publish it, retained.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// Of a draft: what to publish, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl CommandAnswer {
    /// A stored command with its steps.
    pub fn new(row: CommandRow, history: Vec<HistoryRow>) -> Self {
        let status = ServerState::from_str(&row.state).map(|state| state.legacy(row.code.as_deref()).as_str());
        Self {
            status: status.unwrap_or("failed").to_owned(),
            payload: serde_json::from_str(&row.payload).unwrap_or(Value::Null),
            result: row.result.as_deref().and_then(|result| serde_json::from_str(result).ok()),
            created_at: instant(row.created_at),
            published_at: row.published_at.map(instant),
            not_before: row.not_before.map(instant),
            expires_at: instant(row.expires_at),
            finished_at: row.finished_at.map(instant),
            history: history
                .into_iter()
                .map(|step| Step { state: step.state, ts: instant(step.ts), reason: step.reason })
                .collect(),
            id: row.id,
            seq: row.seq,
            device_id: row.device_id,
            kind: row.kind,
            priority: row.priority,
            state: row.state,
            attempts: row.attempts,
            progress: row.progress,
            code: row.code,
            reason: row.reason,
            notes: row.notes,
            cancel_requested: row.cancel_requested,
            created_by: row.created_by,
            topic: None,
            message: None,
        }
    }
}

/// Makes a command for a device.
#[utoipa::path(post, path = "/api/v1/devices/{id}/commands", tag = "commands", security(("user" = [])),
    params(("id" = String, Path)), request_body = CreateCommand, responses((status = 201, body = CommandAnswer),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn create(
    fleet: web::Data<Fleet>,
    caller: Operator,
    device: web::Path<String>,
    body: web::Json<CreateCommand>,
) -> Answer {
    let answer = store(&fleet, &caller, device.into_inner(), body.into_inner()).await?;
    Ok(HttpResponse::build(StatusCode::CREATED)
        .insert_header(("Location", format!("/api/v1/commands/{}", answer.id)))
        .json(answer))
}

/// A command of these arguments, with the defaults of everything else; whoever calls has checked the caller's role.
///
/// # Errors
/// As [`create`].
pub(super) async fn make(
    fleet: &Fleet,
    caller: &Session,
    device: DeviceAddress,
    kind: String,
    payload: Map<String, Value>,
) -> Result<CommandAnswer, Problem> {
    let body =
        CreateCommand { kind, payload, priority: None, expires_at: None, not_before: None, notes: None, draft: false };
    store(fleet, caller, device.device.to_string(), body).await
}

async fn store(fleet: &Fleet, caller: &Session, device: String, body: CreateCommand) -> Result<CommandAnswer, Problem> {
    let (now, draft) = (Utc::now(), body.draft);
    let address = DeviceAddress {
        org: OrgId::new(&caller.org).map_err(|_| no_such_device())?,
        device: DeviceId::new(&device).map_err(|_| no_such_device())?,
    };
    let command = checked(&body, &address, caller, now)?;
    let row = NewCommand {
        id: command.id.to_string(),
        device_id: device,
        kind: body.kind,
        payload: Value::Object(body.payload).to_string(),
        priority: i64::from(body.priority.unwrap_or(DEFAULT_PRIORITY)),
        notes: body.notes.as_deref().map(|notes| input::text("notes", notes)).transpose()?,
        not_before: command.not_before,
        expires_at: command.expires_at,
        draft,
    };
    let id = command.id.clone();
    let stored =
        fleet.store.create_command(&caller.actor(), &row, now, |seq| sign(fleet, command, seq)).await.map_err(
            |refusal| match refusal {
                Refusal::Store(error) => store_problem(error),
                Refusal::Unsignable(reason) => Problem::bad_request(format!("payload: {reason}")),
            },
        )?;
    let Some(stored) = stored else { return Err(no_such_device()) };
    tracing::info!(device = %row.device_id, command = %id, op = %row.kind, draft, "command made");
    if !draft {
        fleet.broker.commands_changed();
    }
    fleet.hub.command_changed(&caller.org, id.as_str());
    let message = stored.message.clone().filter(|_| draft);
    let mut answer = with_history(fleet, stored).await?;
    if draft {
        answer.topic = Some(Topic::down(&address, Down::Command(id.clone())).to_string());
        answer.message = message;
    }
    Ok(answer)
}

enum Refusal {
    Store(StoreError),
    Unsignable(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn sign(fleet: &Fleet, mut command: Command, seq: u64) -> Result<Signed, Refusal> {
    command.seq = seq;
    let bytes = fleet.keys.commands.sign(&mut command).map_err(|error| Refusal::Unsignable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Unsignable("is not UTF-8".into()))?;
    Ok(Signed { text, hash: command.hash.unwrap_or_default() })
}

fn checked(body: &CreateCommand, to: &DeviceAddress, caller: &Session, now: DateTime<Utc>) -> Result<Command, Problem> {
    let mut letters = body.kind.bytes();
    let good = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !good || body.kind.len() > 64 {
        return Err(Problem::bad_request("type: 1 to 64 of a-z, 0-9 and _, a letter first"));
    }
    if !(1..=10).contains(&body.priority.unwrap_or(DEFAULT_PRIORITY)) {
        return Err(Problem::bad_request("priority: 1 to 10"));
    }
    let begins = body.not_before.unwrap_or(now);
    let expires_at = body.expires_at.unwrap_or_else(|| begins.max(now) + DEFAULT_LIFE);
    if expires_at <= now || expires_at <= begins {
        return Err(Problem::bad_request("expires_at: lies in the past, or before not_before"));
    }
    if expires_at > now + MAX_LIFE {
        return Err(Problem::bad_request(format!("expires_at: at most {} days ahead", MAX_LIFE.num_days())));
    }
    let id = CommandId::new(Ulid::new().to_string()).map_err(|_| Problem::unavailable("no id could be made"))?;
    let mut command = Command::new(to, id, 0, &body.kind, body.payload.clone(), now, expires_at);
    command.not_before = body.not_before;
    (command.on_interrupt, command.max_attempts) = when_cut(&body.kind);
    let delay = body.payload.get("delay_seconds").and_then(Value::as_u64).and_then(|delay| u32::try_from(delay).ok());
    let timeout = command.exec_timeout_s.saturating_add(delay.unwrap_or(0));
    command.exec_timeout_s = timeout.min(LONGEST_EFFECT);
    command.by = IssuedBy { user: caller.email.clone(), role: caller.role.as_str().to_owned(), ..IssuedBy::default() };
    Ok(command)
}

/// What a device shall do with an operation that was cut in the middle: what it can look up afterwards is verified,
/// what may run twice without harm is run again, everything else is reported as interrupted.
fn when_cut(op: &str) -> (OnInterrupt, u32) {
    match op {
        "reboot" | "config" => (OnInterrupt::Verify, 1),
        "scene" | "identify" => (OnInterrupt::Resume, MAX_ATTEMPTS),
        _ => (OnInterrupt::Fail, 1),
    }
}

/// A device's commands, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/commands", tag = "commands", security(("user" = [])),
    params(("id" = String, Path), PageQuery), responses((status = 200, body = Page<CommandAnswer>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    device: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Answer {
    let span = page.check()?;
    if fleet.store.device(&caller.org, &device).await.map_err(store_problem)?.is_none() {
        return Err(no_such_device());
    }
    let (rows, total) =
        fleet.store.commands(&caller.org, &device, span.offset(), span.limit()).await.map_err(store_problem)?;
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let mut steps = fleet.store.command_history(&ids).await.map_err(store_problem)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let (own, others) = steps.into_iter().partition(|step| step.command_id == row.id);
        steps = others;
        items.push(CommandAnswer::new(row, own));
    }
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One command.
#[utoipa::path(get, path = "/api/v1/commands/{id}", tag = "commands", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = CommandAnswer), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, id: web::Path<String>) -> Answer {
    match fleet.store.command(&caller.org, &id).await.map_err(store_problem)? {
        Some(row) => Ok(HttpResponse::Ok().json(with_history(&fleet, row).await?)),
        None => Err(no_such_command()),
    }
}

/// Cancels a command that has not begun. Of one that the device holds already, the device has the last word.
#[utoipa::path(post, path = "/api/v1/commands/{id}/cancel", tag = "commands", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = CommandAnswer), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn cancel(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    match fleet.store.cancel_command(&caller.actor(), &id, Utc::now()).await.map_err(store_problem)? {
        Ok(Some(row)) => {
            fleet.broker.commands_changed();
            fleet.hub.command_changed(&caller.org, &row.id);
            Ok(HttpResponse::Ok().json(with_history(&fleet, row).await?))
        }
        Ok(None) => Err(no_such_command()),
        Err(row) => Err(Problem::conflict(format!("too late: the command is {}", row.state))),
    }
}

async fn with_history(fleet: &Fleet, row: CommandRow) -> Result<CommandAnswer, Problem> {
    let history = fleet.store.command_history(std::slice::from_ref(&row.id)).await.map_err(store_problem)?;
    Ok(CommandAnswer::new(row, history))
}

fn no_such_command() -> Problem {
    Problem::not_found("no such command")
}
