//! The same command for many devices: one call, one command for each, one summary.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use r58_mqtt::payload::ServerState;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ulid::Ulid;
use utoipa::ToSchema;

use super::commands::{self, CommandAnswer, CreateCommand, Refusal, sign};
use super::devices::bulk::{Which, selected, unknown};
use super::devices::no_such_device;
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{idempotency, resource};
use crate::fleet::auth::{Operator, Viewer};
use crate::fleet::state::Fleet;
use crate::fleet::store::{GroupRow, NewGroup, Selection, StateCount, instant};
use crate::problem::{Answer, Problem};

/// Most devices of a group: all its commands are signed and written in one transaction, in about a second.
pub const MOST: usize = 2_000;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/command-groups", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(resource("/command-groups/{id}", "GET").route(web::get().to(get)))
        .service(resource("/command-groups/{id}/commands", "GET").route(web::get().to(members)))
        .service(resource("/command-groups/{id}/cancel", "POST").route(web::post().to(cancel)));
}

/// A command for many devices.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    devices: Which,
    command: CreateCommand,
}

impl CreateGroup {
    /// Which devices, and what for.
    pub(super) fn parts(self) -> (Which, CreateCommand) {
        (self.devices, self.command)
    }
}

/// A group of commands.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandGroup {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[schema(value_type = Object)]
    payload: Value,
    /// The tag that chose its devices.
    tag: Option<String>,
    /// Commands in it.
    total: i64,
    /// How many are in which state.
    states: BTreeMap<String, i64>,
    /// The same in the older words.
    statuses: BTreeMap<String, i64>,
    /// How many have ended, however.
    ended: i64,
    notes: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
}

impl CommandGroup {
    fn new(row: GroupRow, counts: &[StateCount]) -> Self {
        let (mut states, mut statuses, mut ended) = (BTreeMap::new(), BTreeMap::new(), 0);
        for count in counts {
            *states.entry(count.state.clone()).or_insert(0) += count.count;
            if let Ok(state) = count.state.parse::<ServerState>() {
                *statuses.entry(state.legacy(count.code.as_deref()).as_str().to_owned()).or_insert(0) += count.count;
                ended += if state.is_terminal() { count.count } else { 0 };
            }
        }
        Self {
            payload: serde_json::from_str(&row.payload).unwrap_or(Value::Null),
            id: row.id,
            kind: row.kind,
            tag: row.tag,
            total: row.total,
            states,
            statuses,
            ended,
            notes: row.notes,
            created_by: row.created_by,
            created_at: instant(row.created_at),
        }
    }
}

/// A new group.
#[derive(Serialize, ToSchema)]
pub struct NewCommandGroup {
    #[serde(flatten)]
    group: CommandGroup,
    /// Named devices that are not in service here; they have no command.
    unknown: Vec<String>,
}

/// Makes a command for each of many devices. With an `Idempotency-Key`, however often it is asked for.
#[utoipa::path(post, path = "/api/v1/command-groups", tag = "commands", security(("user" = [])),
    params(("Idempotency-Key" = Option<String>, Header, max_length = 200)), request_body = CreateGroup,
    responses((status = 201, body = NewCommandGroup), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(
    fleet: web::Data<Fleet>,
    caller: Operator,
    request: HttpRequest,
    body: web::Json<CreateGroup>,
) -> Answer {
    let once = idempotency::once(&request, &caller, "command-groups", &body.0)?;
    let CreateGroup { devices, command } = body.into_inner();
    let now = Utc::now();
    if command.draft {
        return Err(Problem::bad_request("command.draft: a group is published by the server"));
    }
    commands::check_role(&caller, &command)?;
    let selection = devices.check(MOST)?;
    let ids = selected(&fleet, &caller.org, &selection, MOST).await?;
    let org = OrgId::new(&caller.org).map_err(|_| no_such_device())?;
    let group = NewGroup {
        id: Ulid::new().to_string(),
        kind: command.kind().to_owned(),
        payload: command.payload(),
        tag: match &selection {
            Selection::Tag(tag) => Some(tag.clone()),
            Selection::Ids(_) => None,
        },
        notes: command.notes()?,
        once,
    };
    let (mut rows, mut messages) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
    for id in &ids {
        let device = DeviceId::new(id).map_err(|_| no_such_device())?;
        let address = DeviceAddress { org: org.clone(), device };
        let message = commands::checked(&command, &address, &caller, now)?;
        let mut row = commands::row(&command, &message, id)?;
        row.group = Some(group.id.clone());
        rows.push(row);
        messages.push(message);
    }
    if ids.is_empty() {
        // What cannot be a command is refused for nobody as well.
        let nobody = DeviceAddress { org, device: DeviceId::new("nobody").map_err(|_| no_such_device())? };
        commands::checked(&command, &nobody, &caller, now)?;
    }
    let actor = caller.actor();
    let made = fleet.store.create_group(&actor, &group, &rows, now, |place, seq| {
        let message = messages.get(place).cloned();
        message.map_or_else(|| Err(Refusal::Unsignable("has no message".into())), |message| sign(&fleet, message, seq))
    });
    let id = made.await.map_err(Problem::from)?;
    if id == group.id {
        tracing::info!(group = %id, op = %group.kind, devices = rows.len(), "commands made");
        fleet.broker.commands_changed();
        for row in &rows {
            fleet.hub.command_changed(&caller.org, &row.id);
        }
    }
    let answer = NewCommandGroup { group: read(&fleet, &caller.org, &id).await?, unknown: unknown(&selection, &ids) };
    Ok(HttpResponse::Created().insert_header(("Location", format!("/api/v1/command-groups/{id}"))).json(answer))
}

async fn read(fleet: &Fleet, org: &str, id: &str) -> Result<CommandGroup, Problem> {
    let row = fleet.store.group(org, id).await.map_err(store_problem)?;
    let row = row.ok_or_else(|| Problem::not_found("no such group"))?;
    Ok(CommandGroup::new(row, &fleet.store.group_states(id).await.map_err(store_problem)?))
}

/// Groups, newest first.
#[utoipa::path(get, path = "/api/v1/command-groups", tag = "commands", security(("user" = [])), params(PageQuery),
    responses((status = 200, body = Page<CommandGroup>), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) = fleet.store.groups(&caller.org, span.offset(), span.limit()).await.map_err(store_problem)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let counts = fleet.store.group_states(&row.id).await.map_err(store_problem)?;
        items.push(CommandGroup::new(row, &counts));
    }
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One group.
#[utoipa::path(get, path = "/api/v1/command-groups/{id}", tag = "commands", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = CommandGroup), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, id: web::Path<String>) -> Answer {
    Ok(HttpResponse::Ok().json(read(&fleet, &caller.org, &id).await?))
}

/// The commands of a group, by device.
#[utoipa::path(get, path = "/api/v1/command-groups/{id}/commands", tag = "commands", security(("user" = [])),
    params(("id" = String, Path), PageQuery), responses((status = 200, body = Page<CommandAnswer>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn members(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Answer {
    let span = page.check()?;
    let group = read(&fleet, &caller.org, &id).await?;
    let rows = fleet.store.group_commands(&caller.org, &id, span.offset(), span.limit()).await;
    let items = commands::with_histories(&fleet, rows.map_err(store_problem)?).await?;
    Ok(HttpResponse::Ok().json(span.answer(items, group.total)))
}

/// Cancels every command of a group that has not begun. Of those that devices hold already, the devices have the last word.
#[utoipa::path(post, path = "/api/v1/command-groups/{id}/cancel", tag = "commands", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = CommandGroup), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn cancel(fleet: web::Data<Fleet>, caller: Operator, id: web::Path<String>) -> Answer {
    read(&fleet, &caller.org, &id).await?;
    let open = fleet.store.open_of_group(&caller.org, &id).await.map_err(store_problem)?;
    for command in &open {
        // One that has begun or ended meanwhile is left alone.
        let _ = fleet.store.cancel_command(&caller.actor(), command, Utc::now()).await.map_err(store_problem)?;
        fleet.hub.command_changed(&caller.org, command);
    }
    fleet.broker.commands_changed();
    Ok(HttpResponse::Ok().json(read(&fleet, &caller.org, &id).await?))
}
