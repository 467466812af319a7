//! Devices that only speak HTTP: heartbeats, commands handed out, what became of them. The state machine is that of the
//! devices on the broker; the older words are put into its states by `r58_mqtt::payload::LegacyStatus` alone.

use std::sync::Arc;

use actix_web::{FromRequest as _, HttpRequest, HttpResponse, web};
use chrono::{DateTime, NaiveDateTime, Utc};
use r58_actors::ingest::store::{Record, Report};
use r58_mqtt::payload::{ClockState, CommandStatus, DeviceState, Heartbeat, LegacyStatus, Payload as _, ServerState};
use r58_mqtt::{CommandId, DeviceAddress, DeviceId, OrgId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::commands::{CommandAnswer, with_history};
use super::devices::no_such_device;
use super::dry_run::outlook;
use super::paging::PageQuery;
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::ErrorKind;
use crate::fleet::auth::DeviceCaller;
use crate::fleet::rehearsal::{Conditions, unmet};
use crate::fleet::state::Fleet;
use crate::fleet::store::{CommandRow, DeviceNo};
use crate::problem::{Answer, Problem};

/// Seconds between heartbeats of a device that does not say.
const INTERVAL: u32 = 60;
/// Largest result of a command, in bytes of JSON.
const MAX_RESULT: usize = 16 * 1024;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/devices/{id}/heartbeat", "POST").route(web::post().to(heartbeat)));
}

/// A heartbeat. Fields that this server does not know are kept.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "for the description; read as the broker's heartbeats are")]
pub struct HeartbeatBody {
    /// When it was measured, by the device's clock; UTC where it does not say otherwise.
    ts: DateTime<Utc>,
    version: Option<String>,
    #[schema(minimum = 0)]
    uptime_seconds: Option<u64>,
    /// {cpu_percent, mem_percent, disk_free_gb, disk_total_gb?, temperature_c?, load_avg?}
    #[schema(value_type = Option<Object>)]
    metrics: Option<Value>,
    /// {recording_active, mixer_active, active_inputs, degradation_level}
    #[schema(value_type = Option<Object>)]
    status: Option<Value>,
    errors: Option<Vec<String>>,
}

/// What a device should know after its heartbeat.
#[derive(Serialize, ToSchema)]
pub struct HeartbeatAck {
    /// Always true: it is stored.
    ack: bool,
    /// Commands that wait for `GET /devices/{id}/commands`.
    commands_pending: i64,
    /// Version that it should reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_version: Option<String>,
    server_time: DateTime<Utc>,
}

/// What became of a command.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportCommand {
    /// acked, running, completed, failed or cancelled.
    #[schema(value_type = String, example = "completed")]
    status: LegacyStatus,
    /// What it answered; at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    /// What went wrong.
    #[schema(max_length = 4000)]
    error: Option<String>,
}

/// Takes a heartbeat of a device without a broker.
#[utoipa::path(post, path = "/api/v1/devices/{id}/heartbeat", tag = "devices without a broker",
    security(("device_token" = [])), params(("id" = String, Path)), request_body = HeartbeatBody,
    responses((status = 200, body = HeartbeatAck), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn heartbeat(
    fleet: web::Data<Fleet>,
    caller: DeviceCaller,
    id: web::Path<String>,
    body: web::Json<Map<String, Value>>,
) -> Answer {
    let device = own(&caller, &id)?;
    let now = Utc::now();
    let (heartbeat, text) = understood(body.into_inner(), now)?;
    let report = Report::Heartbeat { heartbeat: Box::new(heartbeat), body: text };
    apply(&fleet, Record { device, received_at: now, report }).await?;
    let row = fleet.store.device(&caller.org, &caller.id).await.map_err(store_problem)?.ok_or_else(no_such_device)?;
    fleet.store.seen_over_http(DeviceNo(row.no), now).await.map_err(store_problem)?;
    fleet.hub.device_changed(&caller.org, &caller.id);
    let commands_pending = fleet.store.waiting_commands(&caller.org, &caller.id, now).await.map_err(store_problem)?;
    Ok(HttpResponse::Ok().json(HeartbeatAck {
        ack: true,
        commands_pending,
        target_version: row.target_version,
        server_time: now,
    }))
}

/// The broker's heartbeat of an older one. Such a device counts nothing, so its heartbeats are ordered by their arrival.
fn understood(mut fields: Map<String, Value>, now: DateTime<Utc>) -> Result<(Heartbeat, Arc<str>), Problem> {
    let wrong = |error: String| Problem::bad_request(format!("the heartbeat cannot be read: {error}"));
    in_todays_words(&mut fields);
    fields.insert("boot_seq".into(), json!(0));
    fields.insert("seq".into(), json!(now.timestamp_millis()));
    fields.entry("interval_s").or_insert(json!(INTERVAL));
    let text = Value::Object(fields).to_string();
    let heartbeat = Heartbeat::parse(text.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    Ok((heartbeat, text.into()))
}

/// What older devices write otherwise: a load of one figure, an uptime with a fraction, a time that does not say that it is UTC.
fn in_todays_words(fields: &mut Map<String, Value>) {
    if let Some(load) = fields.get_mut("metrics").and_then(|metrics| metrics.get_mut("load_avg"))
        && load.is_number()
    {
        *load = json!([load.take()]);
    }
    if let Some(uptime) = fields.get_mut("uptime_seconds")
        && let Some(seconds) = uptime.as_f64().filter(|seconds| uptime.is_f64() && *seconds >= 0.0)
    {
        *uptime = json!(seconds as u64);
    }
    if let Some(ts) = fields.get_mut("ts")
        && let Some(time) = ts.as_str().and_then(|text| text.parse::<NaiveDateTime>().ok())
    {
        *ts = json!(time.and_utc());
    }
}

/// What a device should do now, as `GET /devices/{id}/commands` answers it.
///
/// # Errors
/// 401 without a good token, 404 for another device's.
pub async fn pending(fleet: &Fleet, request: &HttpRequest, id: &str) -> Answer {
    let caller = DeviceCaller::extract(request).await?;
    let device = own(&caller, id)?;
    let now = Utc::now();
    let (rows, given_up) = fleet.store.hand_out(&caller.org, id, now).await.map_err(store_problem)?;
    let mut changed = given_up.len();
    let known = fleet.store.device(&caller.org, id).await.map_err(store_problem)?.map(|row| outlook(&row));
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        // Such a device knows no conditions: they are judged for it.
        let conditions = conditions(row);
        match known.as_ref().and_then(|known| unmet(known, &conditions)) {
            Some(reason) => {
                let status = status(row, DeviceState::Rejected, Some("precondition"), Some(reason), None)?;
                apply(fleet, Record { device: device.clone(), received_at: now, report: status }).await?;
                changed += 1;
            }
            None => items.push(CommandAnswer::whole(row.clone())),
        }
    }
    for id in rows.iter().map(|row| &row.id).chain(&given_up) {
        fleet.hub.command_changed(&caller.org, id);
    }
    if changed > 0 {
        fleet.broker.commands_changed();
    }
    let total = i64::try_from(items.len()).unwrap_or(i64::MAX);
    Ok(HttpResponse::Ok().json(PageQuery::default().check()?.answer(items, total)))
}

/// Takes what became of a command from the device that has it.
#[utoipa::path(patch, path = "/api/v1/commands/{id}", tag = "devices without a broker",
    security(("device_token" = [])), params(("id" = String, Path)), request_body = ReportCommand,
    responses((status = 200, body = CommandAnswer), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn report(
    fleet: web::Data<Fleet>,
    caller: DeviceCaller,
    id: web::Path<String>,
    body: web::Json<ReportCommand>,
) -> Answer {
    let ReportCommand { status: word, result, error } = body.into_inner();
    let next = word
        .device_state()
        .ok_or_else(|| Problem::bad_request("status: a device says acked, running, completed, failed or cancelled"))?;
    if result.as_ref().is_some_and(|result| result.to_string().len() > MAX_RESULT) {
        return Err(Problem::bad_request(format!("result: at most {MAX_RESULT} bytes")));
    }
    let error = error.as_deref().map(|error| input::text("error", error)).transpose()?;
    let device = own(&caller, &caller.id)?;
    let row = own_command(&fleet, &caller, &id).await?;
    let held = row.server_state().map_err(store_problem)?;
    if held == ServerState::Device(next) && next.is_terminal() {
        // Said twice, because the first answer was lost.
        return Ok(HttpResponse::Ok().json(with_history(&fleet, row).await?));
    }
    if !held.can_become(ServerState::Device(next)) {
        return Err(Problem::conflict(format!("the command is {}", row.state)));
    }
    let withdrawn =
        row.cancel_requested && !next.is_terminal() && !matches!(held, ServerState::Device(s) if s.is_begun());
    let next = if withdrawn { DeviceState::Cancelled } else { next };
    let code = (next == DeviceState::Failed).then_some("device");
    let report = status(&row, next, code, error, result)?;
    apply(&fleet, Record { device, received_at: Utc::now(), report }).await?;
    fleet.hub.command_changed(&caller.org, &row.id);
    fleet.broker.commands_changed();
    if withdrawn {
        return Err(Problem::conflict("the command was cancelled: do not carry it out"));
    }
    let row = own_command(&fleet, &caller, &id).await?;
    match row.state == next.as_str() {
        true => Ok(HttpResponse::Ok().json(with_history(&fleet, row).await?)),
        // Somebody else was faster.
        false => Err(Problem::conflict(format!("the command is {}", row.state))),
    }
}

async fn own_command(fleet: &Fleet, caller: &DeviceCaller, id: &str) -> Result<CommandRow, Problem> {
    let row = fleet.store.command(&caller.org, id).await.map_err(store_problem)?;
    row.filter(|row| row.device_id == caller.id).ok_or_else(|| Problem::not_found("no such command"))
}

/// A status as a device on the broker would say it.
fn status(
    row: &CommandRow,
    state: DeviceState,
    code: Option<&str>,
    reason: Option<String>,
    result: Option<Value>,
) -> Result<Report, Problem> {
    let status = CommandStatus {
        id: CommandId::new(&row.id).map_err(|_| Problem::not_found("no such command"))?,
        // 0 would mark a refusal that left no trace.
        rev: row.rev.max(0).unsigned_abs() + 1,
        state,
        attempt: u32::try_from(row.attempts).unwrap_or(u32::MAX).max(1),
        boot_id: String::new(),
        progress: None,
        code: code.map(str::to_owned),
        reason,
        result,
        ts: None,
        clock: ClockState::Unset,
        hash: row.hash.clone(),
        command: None,
        extra: Map::new(),
    };
    Ok(Report::Status { status, position: None })
}

fn conditions(row: &CommandRow) -> Conditions {
    let held: Value = row.precond.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let words = held["not_while"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Conditions { not_while: words.map(str::to_owned).collect(), desired_ver: held["desired_ver"].as_u64() }
}

async fn apply(fleet: &Fleet, record: Record) -> Result<(), Problem> {
    match fleet.store.take(&[record]).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::Transient | ErrorKind::Unavailable) => {
            tracing::warn!(%error, "what a device said over HTTP could not be stored");
            Err(store_problem(error))
        }
        Err(error) => {
            tracing::warn!(%error, "what a device said over HTTP was refused");
            Err(Problem::bad_request("this cannot be stored"))
        }
    }
}

/// The caller's own address.
fn own(caller: &DeviceCaller, id: &str) -> Result<DeviceAddress, Problem> {
    if caller.id != id {
        return Err(no_such_device());
    }
    Ok(DeviceAddress {
        org: OrgId::new(&caller.org).map_err(|_| no_such_device())?,
        device: DeviceId::new(id).map_err(|_| no_such_device())?,
    })
}
