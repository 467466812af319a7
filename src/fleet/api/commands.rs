//! Commands: made, signed and stored here, carried by the broker, done by the device.

mod answer;

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, web};
use chrono::{DateTime, Duration, Utc};
use r58_mqtt::payload::{Command, IssuedBy, OnInterrupt, Precond};
use r58_mqtt::{CommandId, DeviceAddress, DeviceId, Down, OrgId, Topic};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ulid::Ulid;
use utoipa::ToSchema;

use super::devices::no_such_device;
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{by_http, idempotency, input, resource};
use crate::fleet::auth::{Operator, Role, Session, Viewer};
use crate::fleet::rehearsal::Conditions;
use crate::fleet::state::Fleet;
use crate::fleet::store::{CommandRow, HistoryRow, NewCommand, Once, Signed, StoreError};
use crate::problem::{Answer, Problem};

/// Life of a command unless asked otherwise.
const DEFAULT_LIFE: Duration = Duration::hours(1);
/// Longest life: devices remember commands for 30 days beyond their expiry (the protocol's tombstones).
const MAX_LIFE: Duration = Duration::days(30);
/// Priority unless asked otherwise.
const DEFAULT_PRIORITY: u8 = 5;
/// Attempts at what may run again; operators have always known three.
const MAX_ATTEMPTS: u32 = 3;
/// The one command that only administrators send.
const ROTATE_TOKEN: &str = "rotate_token";
/// Longest an effect may take, in seconds: the protocol's limit.
const LONGEST_EFFECT: u32 = 86_400;

pub use self::answer::CommandAnswer;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/devices/{id}/commands", "GET, POST").route(web::get().to(list)).route(web::post().to(create)),
        )
        .service(
            resource("/commands/{id}", "GET, PATCH").route(web::get().to(get)).route(web::patch().to(by_http::report)),
        )
        .service(resource("/commands/{id}/cancel", "POST").route(web::post().to(cancel)));
}

/// What must hold before a command begins; a device rejects it otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Preconditions {
    /// Activities that must not be going on, such as `recording`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    not_while: Vec<String>,
    /// The version of the configuration that must be in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    desired_ver: Option<u64>,
}

/// A command to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCommand {
    /// `update` {version, force}, `reboot` {delay_seconds}, `restart_service` {service}, `bundle` {include_logs, ...}, `config`
    /// {changes}; of boxes also `take`, `scene`, `identify`, `rotate_token`. A device rejects what it does not know.
    #[serde(rename = "type")]
    #[schema(max_length = 64, pattern = "^[a-z][a-z0-9_]*$")]
    kind: String,
    /// Arguments of the operation.
    #[serde(default)]
    #[schema(value_type = Object)]
    payload: Map<String, Value>,
    /// 1 to 10; what waits with a higher one is published first.
    #[schema(minimum = 1, maximum = 10, default = 5)]
    priority: Option<u8>,
    /// Not to be begun after; in an hour unless given, in 30 days at the latest.
    expires_at: Option<DateTime<Utc>>,
    /// Not to be begun before.
    not_before: Option<DateTime<Utc>>,
    /// What must hold before it begins.
    preconditions: Option<Preconditions>,
    /// Remarks of the operator.
    #[schema(max_length = 4000)]
    notes: Option<String>,
    /// Sign it but leave publishing to the caller, who finds `topic` and `message` in the answer.
    #[serde(default)]
    pub(super) draft: bool,
}

impl CreateCommand {
    /// A command with the defaults of everything else.
    pub(in crate::fleet) fn plain(kind: &str, payload: Map<String, Value>) -> Self {
        Self {
            kind: kind.to_owned(),
            payload,
            priority: None,
            expires_at: None,
            not_before: None,
            preconditions: None,
            notes: None,
            draft: false,
        }
    }

    /// The same, not to be begun after.
    pub(in crate::fleet) fn until(mut self, expires_at: DateTime<Utc>) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Its operation.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// Its arguments.
    pub(super) fn arguments(&self) -> &Map<String, Value> {
        &self.payload
    }

    /// Its arguments as JSON.
    pub(super) fn payload(&self) -> String {
        Value::Object(self.payload.clone()).to_string()
    }

    /// Its checked remarks.
    pub(super) fn notes(&self) -> Result<Option<String>, Problem> {
        self.notes.as_deref().map(|notes| input::text("notes", notes)).transpose()
    }

    /// What must hold before it begins.
    pub(super) fn conditions(&self) -> Conditions {
        let Preconditions { not_while, desired_ver } = self.preconditions.clone().unwrap_or_default();
        Conditions { not_while, desired_ver }
    }
}

/// Makes a command for a device. With an `Idempotency-Key` it is made once, however often it is asked for within a day.
#[utoipa::path(post, path = "/api/v1/devices/{id}/commands", tag = "commands", security(("user" = [])),
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, max_length = 200)),
    request_body = CreateCommand, responses((status = 201, body = CommandAnswer),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn create(
    fleet: web::Data<Fleet>,
    caller: Operator,
    request: HttpRequest,
    device: web::Path<String>,
    body: web::Json<CreateCommand>,
) -> Answer {
    let once = idempotency::once(&request, &caller, &device, &body.0)?;
    let answer = store(&fleet, &caller, device.into_inner(), body.into_inner(), once).await?;
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
    store(fleet, caller, device.device.to_string(), CreateCommand::plain(&kind, payload), None).await
}

/// Whether the caller may send such a command at all.
///
/// # Errors
/// 403 otherwise.
pub(super) fn check_role(caller: &Session, body: &CreateCommand) -> Result<(), Problem> {
    match body.kind == ROTATE_TOKEN && caller.role < Role::Admin {
        true => Err(Problem::forbidden("this needs the role admin")),
        false => Ok(()),
    }
}

/// A checked command as it is stored.
///
/// # Errors
/// 400 when its remarks are no text.
pub(in crate::fleet) fn row(body: &CreateCommand, command: &Command, device: &str) -> Result<NewCommand, Problem> {
    let precond = body.preconditions.as_ref().map(serde_json::to_string).transpose();
    Ok(NewCommand {
        id: command.id.to_string(),
        device_id: device.to_owned(),
        kind: body.kind.clone(),
        payload: body.payload(),
        priority: i64::from(body.priority.unwrap_or(DEFAULT_PRIORITY)),
        notes: body.notes()?,
        not_before: command.not_before,
        expires_at: command.expires_at,
        draft: body.draft,
        precond: precond.map_err(|_| Problem::bad_request("preconditions: cannot be read"))?,
        ..NewCommand::default()
    })
}

async fn store(
    fleet: &Fleet,
    caller: &Session,
    device: String,
    body: CreateCommand,
    once: Option<Once>,
) -> Result<CommandAnswer, Problem> {
    check_role(caller, &body)?;
    let (now, draft) = (Utc::now(), body.draft);
    let address = DeviceAddress {
        org: OrgId::new(&caller.org).map_err(|_| no_such_device())?,
        device: DeviceId::new(&device).map_err(|_| no_such_device())?,
    };
    let command = checked(&body, &address, caller, now)?;
    let row = NewCommand { once, ..row(&body, &command, &device)? };
    let stored = fleet.store.create_command(&caller.actor(), &row, now, |seq| sign(fleet, command, seq)).await?;
    let Some(stored) = stored else { return Err(no_such_device()) };
    if stored.id == row.id {
        tracing::info!(device = %row.device_id, command = %row.id, op = %row.kind, draft, "command made");
        if !draft {
            fleet.broker.commands_changed();
        }
        fleet.hub.command_changed(&caller.org, &row.id);
    }
    let message = stored.message.clone().filter(|_| draft);
    let mut answer = with_history(fleet, stored).await?;
    if draft {
        let id = CommandId::new(&answer.id).map_err(|_| no_such_command())?;
        answer.topic = Some(Topic::down(&address, Down::Command(id)).to_string());
        answer.message = message;
    }
    Ok(answer)
}

/// Why a command was not made.
pub(in crate::fleet) enum Refusal {
    Store(StoreError),
    Problem(Problem),
    Unsignable(String),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Store(error) => store_problem(error),
            Refusal::Problem(problem) => problem,
            Refusal::Unsignable(reason) => Self::bad_request(format!("payload: {reason}")),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Gives a command its number and the server's signature.
pub(in crate::fleet) fn sign(fleet: &Fleet, mut command: Command, seq: u64) -> Result<Signed, Refusal> {
    command.seq = seq;
    let bytes = fleet.keys.commands.sign(&mut command).map_err(|error| Refusal::Unsignable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Unsignable("is not UTF-8".into()))?;
    Ok(Signed { text, hash: command.hash.unwrap_or_default() })
}

/// The command that a body asks for.
///
/// # Errors
/// 400 when it cannot be one.
pub(in crate::fleet) fn checked(
    body: &CreateCommand,
    to: &DeviceAddress,
    caller: &Session,
    now: DateTime<Utc>,
) -> Result<Command, Problem> {
    let mut letters = body.kind.bytes();
    let good = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !good || body.kind.len() > 64 {
        return Err(Problem::bad_request("type: 1 to 64 of a-z, 0-9 and _, a letter first"));
    }
    if !(1..=10).contains(&body.priority.unwrap_or(DEFAULT_PRIORITY)) {
        return Err(Problem::bad_request("priority: 1 to 10"));
    }
    let conditions = body.conditions();
    let activity = |word: &String| (1..=32).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase());
    if conditions.not_while.len() > 16 || !conditions.not_while.iter().all(activity) {
        return Err(Problem::bad_request("preconditions.not_while: at most 16 words of a-z"));
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
    command.precond =
        Precond { desired_ver: conditions.desired_ver, not_while: conditions.not_while, ..Precond::default() };
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
        "scene" | "identify" | "rotate_token" | "bundle" => (OnInterrupt::Resume, MAX_ATTEMPTS),
        _ => (OnInterrupt::Fail, 1),
    }
}

/// A device's commands, newest first. To the device itself (by its token): those that wait for it, by priority; each counts
/// as handed out, three times at most until the device says something about it.
#[utoipa::path(get, path = "/api/v1/devices/{id}/commands", tag = "commands",
    security(("user" = []), ("device_token" = [])),
    params(("id" = String, Path), PageQuery), responses((status = 200, body = Page<CommandAnswer>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(
    fleet: web::Data<Fleet>,
    request: HttpRequest,
    device: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Answer {
    if request.headers().contains_key("X-Device-Token") {
        return by_http::pending(&fleet, &request, &device).await;
    }
    let caller = Viewer::extract(&request).await?;
    let span = page.check()?;
    if fleet.store.device(&caller.org, &device).await.map_err(store_problem)?.is_none() {
        return Err(no_such_device());
    }
    let (rows, total) =
        fleet.store.commands(&caller.org, &device, span.offset(), span.limit()).await.map_err(store_problem)?;
    let items = with_histories(&fleet, rows).await?;
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

/// Commands with their steps.
///
/// # Errors
/// Those of the database.
pub(super) async fn with_histories(fleet: &Fleet, rows: Vec<CommandRow>) -> Result<Vec<CommandAnswer>, Problem> {
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let steps = fleet.store.command_history(&ids).await.map_err(store_problem)?;
    let mut by_id: HashMap<String, Vec<HistoryRow>> = HashMap::new();
    for step in steps {
        by_id.entry(step.command_id.clone()).or_default().push(step);
    }
    let with = |row: CommandRow| {
        let steps = by_id.remove(&row.id).unwrap_or_default();
        CommandAnswer::new(row, steps)
    };
    Ok(rows.into_iter().map(with).collect())
}

pub(super) async fn with_history(fleet: &Fleet, row: CommandRow) -> Result<CommandAnswer, Problem> {
    let history = fleet.store.command_history(std::slice::from_ref(&row.id)).await.map_err(store_problem)?;
    Ok(CommandAnswer::new(row, history))
}

fn no_such_command() -> Problem {
    Problem::not_found("no such command")
}
