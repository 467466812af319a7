//! Rollouts: a published release, brought to a growing part of the devices, stopped when too many fail.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::{IntoParams, ToSchema};

use super::commands::{self, CommandAnswer};
use super::paging::{Page, PageQuery};
use super::problem::{ProblemBody, store_problem};
use super::{input, resource};
use crate::fleet::auth::{Admin, Viewer};
use crate::fleet::rollout::Tally;
use crate::fleet::rollouts::{take_back, tally};
use crate::fleet::state::Fleet;
use crate::fleet::store::{RolloutRow, instant, millis};
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/rollouts", "GET, POST").route(web::get().to(list)).route(web::post().to(create)))
        .service(resource("/rollouts/{id}", "GET, PATCH").route(web::get().to(get)).route(web::patch().to(change)))
        .service(resource("/rollouts/{id}/commands", "GET").route(web::get().to(members)));
}

/// A rollout to be begun.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRollout {
    /// A published release.
    #[schema(max_length = 100)]
    version: String,
    /// Devices with this tag; without one, those on the release's channel.
    #[schema(max_length = 200)]
    tag: Option<String>,
    /// Part of them: 1 to 100.
    #[schema(minimum = 1, maximum = 100)]
    percent: i64,
    /// More than this many of a hundred that ended have failed: it halts. 10 unless given.
    #[schema(minimum = 1, maximum = 100, default = 10)]
    abort_percent: Option<i64>,
    /// Devices that are at it at the same time; 50 unless given.
    #[schema(minimum = 1, maximum = 1000, default = 50)]
    at_once: Option<i64>,
}

/// What to do with a rollout that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Go on.
    Running,
    /// Begin with no other device.
    Paused,
    /// End it, and take back what has not begun.
    Cancelled,
}

/// What to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRollout {
    /// Larger than before: who is in stays in.
    #[schema(minimum = 1, maximum = 100)]
    percent: Option<i64>,
    state: Option<Wanted>,
}

/// Which of a rollout's commands.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MembersQuery {
    /// From 1.
    #[param(minimum = 1, default = 1)]
    page: Option<u32>,
    /// 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u32>,
    /// Only those that ended badly; all unless given.
    failed: Option<bool>,
}

/// How the devices of a rollout stand.
#[derive(Serialize, ToSchema)]
pub struct RolloutCounts {
    /// Devices that it was sent to.
    sent: i64,
    succeeded: u64,
    failed: u64,
    /// Those that cannot update by themselves yet.
    unsupported: u64,
    /// Not ended.
    open: u64,
}

/// A rollout.
#[derive(Serialize, ToSchema)]
pub struct Rollout {
    id: String,
    version: String,
    tag: Option<String>,
    channel: String,
    percent: i64,
    abort_percent: i64,
    at_once: i64,
    /// running, paused, halted (too many failed), unsupported (too many cannot do it), completed or cancelled.
    state: String,
    reason: Option<String>,
    /// Devices that it is for at 100 per cent.
    devices: i64,
    counts: RolloutCounts,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

async fn shown(fleet: &Fleet, row: RolloutRow) -> Result<Rollout, Problem> {
    let (devices, sent) = fleet.store.rollout_reach(&row).await.map_err(store_problem)?;
    let Tally { succeeded, failed, unsupported, open } = tally(&fleet.store, &row.id).await.map_err(store_problem)?;
    Ok(Rollout {
        id: row.id,
        version: row.version,
        tag: row.tag,
        channel: row.channel,
        percent: row.percent,
        abort_percent: row.abort_percent,
        at_once: row.at_once,
        state: row.state,
        reason: row.reason,
        devices,
        counts: RolloutCounts { sent, succeeded, failed, unsupported, open },
        created_by: row.created_by,
        created_at: instant(row.created_at),
        updated_at: instant(row.updated_at),
    })
}

fn within(field: &str, value: i64, most: i64) -> Result<i64, Problem> {
    match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(Problem::bad_request(format!("{field}: 1 to {most}"))),
    }
}

/// Begins a rollout.
#[utoipa::path(post, path = "/api/v1/rollouts", tag = "releases", security(("user" = [])), request_body = CreateRollout,
    responses((status = 201, body = Rollout), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(fleet: web::Data<Fleet>, caller: Admin, body: web::Json<CreateRollout>) -> Answer {
    let releases = fleet.store.releases(&caller.org, None).await.map_err(store_problem)?;
    let release = releases.into_iter().find(|row| row.version == body.version && row.published_at.is_some());
    let release = release.ok_or_else(|| Problem::not_found("no such published release"))?;
    let now = millis(Utc::now());
    let row = RolloutRow {
        id: Ulid::new().to_string(),
        org: caller.org.clone(),
        version: release.version,
        tag: input::optional_line("tag", body.tag.as_deref())?,
        channel: release.channel,
        percent: within("percent", body.percent, 100)?,
        abort_percent: within("abort_percent", body.abort_percent.unwrap_or(10), 100)?,
        at_once: within("at_once", body.at_once.unwrap_or(50), 1_000)?,
        state: "running".into(),
        reason: None,
        created_by: caller.actor().name,
        created_at: now,
        updated_at: now,
    };
    fleet.store.create_rollout(&caller.actor(), &row).await.map_err(store_problem)?;
    tracing::info!(rollout = %row.id, version = %row.version, percent = row.percent, "rollout begun");
    fleet.hub.rollout_changed(&caller.org, &row.id);
    let location = format!("/api/v1/rollouts/{}", row.id);
    Ok(HttpResponse::Created().insert_header(("Location", location)).json(shown(&fleet, row).await?))
}

/// Rollouts, newest first.
#[utoipa::path(get, path = "/api/v1/rollouts", tag = "releases", security(("user" = [])), params(PageQuery), responses(
    (status = 200, body = Page<Rollout>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Viewer, page: web::Query<PageQuery>) -> Answer {
    let span = page.check()?;
    let (rows, total) = fleet.store.rollouts(&caller.org, span.offset(), span.limit()).await.map_err(store_problem)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push(shown(&fleet, row).await?);
    }
    Ok(HttpResponse::Ok().json(span.answer(items, total)))
}

/// One rollout.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}", tag = "releases", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Rollout), (status = 401, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn get(fleet: web::Data<Fleet>, caller: Viewer, id: web::Path<String>) -> Answer {
    let row = fleet.store.rollout(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_rollout)?;
    Ok(HttpResponse::Ok().json(shown(&fleet, row).await?))
}

/// Takes a rollout further, pauses it, goes on with it, or ends it. One that halted is over.
#[utoipa::path(patch, path = "/api/v1/rollouts/{id}", tag = "releases", security(("user" = [])),
    params(("id" = String, Path)), request_body = ChangeRollout, responses((status = 200, body = Rollout),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn change(
    fleet: web::Data<Fleet>,
    caller: Admin,
    id: web::Path<String>,
    body: web::Json<ChangeRollout>,
) -> Answer {
    let row = fleet.store.rollout(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_rollout)?;
    let percent = body.percent.map(|percent| within("percent", percent, 100)).transpose()?;
    if percent.is_some_and(|percent| percent < row.percent) {
        return Err(Problem::conflict(format!("{} per cent are in and stay in", row.percent)));
    }
    let next = match body.state {
        None => row.state.as_str(),
        Some(Wanted::Running) => "running",
        Some(Wanted::Paused) => "paused",
        Some(Wanted::Cancelled) => "cancelled",
    };
    if !matches!(row.state.as_str(), "running" | "paused") {
        return Err(Problem::conflict(format!("the rollout is {}; begin another one", row.state)));
    }
    let actor = caller.actor();
    let moved = fleet.store.move_rollout(&actor, &id, (&row.state, next), percent, None, Utc::now()).await;
    if !moved.map_err(store_problem)? {
        return Err(Problem::conflict("the rollout has moved on meanwhile"));
    }
    if next == "cancelled" {
        take_back(&fleet, &actor, &id).await.map_err(store_problem)?;
    }
    fleet.hub.rollout_changed(&caller.org, &id);
    let row = fleet.store.rollout(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_rollout)?;
    Ok(HttpResponse::Ok().json(shown(&fleet, row).await?))
}

/// The commands of a rollout, by device: who has the release, who is at it, and who failed and why.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}/commands", tag = "releases", security(("user" = [])),
    params(("id" = String, Path), MembersQuery), responses((status = 200, body = Page<CommandAnswer>),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn members(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    id: web::Path<String>,
    query: web::Query<MembersQuery>,
) -> Answer {
    let span = PageQuery { page: query.page, page_size: query.page_size }.check()?;
    fleet.store.rollout(&caller.org, &id).await.map_err(store_problem)?.ok_or_else(no_such_rollout)?;
    let failed = query.failed.unwrap_or(false);
    let found = fleet.store.rollout_commands(&caller.org, &id, failed, span.offset(), span.limit()).await;
    let (rows, total) = found.map_err(store_problem)?;
    Ok(HttpResponse::Ok().json(span.answer(commands::with_histories(&fleet, rows).await?, total)))
}

fn no_such_rollout() -> Problem {
    Problem::not_found("no such rollout")
}
