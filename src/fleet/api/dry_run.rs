//! What devices would say to a command; nothing is made.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use chrono::Utc;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::command_groups::{CreateGroup, MOST};
use super::commands::{self, CreateCommand};
use super::devices::bulk::{selected, unknown};
use super::devices::no_such_device;
use super::problem::{ProblemBody, store_problem};
use super::resource;
use crate::fleet::auth::Operator;
use crate::fleet::rehearsal::{Outlook, Verdict, judge};
use crate::fleet::state::Fleet;
use crate::fleet::store::{DeviceFilter, DeviceRow};
use crate::problem::{Answer, Problem};

/// Devices read in one query.
const AT_ONCE: usize = 200;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/devices/{id}/commands/dry-run", "POST").route(web::post().to(one)))
        .service(resource("/command-groups/dry-run", "POST").route(web::post().to(many)));
}

/// What one device would say.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rehearsed {
    device_id: String,
    verdict: Verdict,
    /// The same as a sentence.
    reason: Option<String>,
}

/// What many devices would say.
#[derive(Debug, Serialize, ToSchema)]
pub struct RehearsedGroup {
    /// Devices by verdict.
    verdicts: BTreeMap<String, usize>,
    devices: Vec<Rehearsed>,
    /// Named devices that are not in service here.
    unknown: Vec<String>,
}

/// What is known of a stored device.
pub fn outlook(row: &DeviceRow) -> Outlook {
    let read = |text: Option<&str>| text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    Outlook {
        online: row.presence == "online" && row.decommissioned_at.is_none(),
        caps: read(row.caps.as_deref()),
        reported: read(row.reported.as_deref()),
        heartbeat: read(row.heartbeat.as_deref()),
    }
}

fn rehearse(row: &DeviceRow, command: &CreateCommand) -> Rehearsed {
    let (verdict, reason) = judge(&outlook(row), command.kind(), command.arguments(), &command.conditions());
    Rehearsed { device_id: row.id.clone(), verdict, reason }
}

/// What a device would say to a command, by what it last said of itself.
#[utoipa::path(post, path = "/api/v1/devices/{id}/commands/dry-run", tag = "commands", security(("user" = [])),
    params(("id" = String, Path)), request_body = CreateCommand, responses((status = 200, body = Rehearsed),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn one(
    fleet: web::Data<Fleet>,
    caller: Operator,
    device: web::Path<String>,
    body: web::Json<CreateCommand>,
) -> Answer {
    commands::check_role(&caller, &body)?;
    let row = fleet.store.device(&caller.org, &device).await.map_err(store_problem)?;
    let row = row.filter(|row| row.decommissioned_at.is_none()).ok_or_else(no_such_device)?;
    commands::checked(&body, &address(&caller.org, &row.id)?, &caller, Utc::now())?;
    Ok(HttpResponse::Ok().json(rehearse(&row, &body)))
}

/// What many devices would say to a command.
#[utoipa::path(post, path = "/api/v1/command-groups/dry-run", tag = "commands", security(("user" = [])),
    request_body = CreateGroup, responses((status = 200, body = RehearsedGroup), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn many(fleet: web::Data<Fleet>, caller: Operator, body: web::Json<CreateGroup>) -> Answer {
    let (which, command) = body.into_inner().parts();
    commands::check_role(&caller, &command)?;
    let selection = which.check(MOST)?;
    commands::checked(&command, &address(&caller.org, "nobody")?, &caller, Utc::now())?;
    let ids = selected(&fleet, &caller.org, &selection, MOST).await?;
    let mut answer =
        RehearsedGroup { verdicts: BTreeMap::new(), devices: Vec::new(), unknown: unknown(&selection, &ids) };
    for chunk in ids.chunks(AT_ONCE) {
        let filter = DeviceFilter { ids: Some(chunk.to_vec()), ..DeviceFilter::default() };
        let rows =
            fleet.store.devices_after(&caller.org, &filter, None, AT_ONCE as i64).await.map_err(store_problem)?;
        answer.devices.extend(rows.iter().map(|row| rehearse(row, &command)));
    }
    answer.devices.sort_by(|a, b| a.device_id.cmp(&b.device_id));
    for device in &answer.devices {
        *answer.verdicts.entry(device.verdict.as_str().to_owned()).or_insert(0) += 1;
    }
    Ok(HttpResponse::Ok().json(answer))
}

fn address(org: &str, device: &str) -> Result<DeviceAddress, Problem> {
    let (org, device) = (OrgId::new(org).map_err(|_| no_such_device())?, DeviceId::new(device));
    Ok(DeviceAddress { org, device: device.map_err(|_| no_such_device())? })
}
