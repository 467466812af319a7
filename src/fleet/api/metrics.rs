//! The server in figures, for Prometheus.
//!
//! Whoever shows the server's own token (`fleet.metrics_token_file`) sees all of it. A person, or an API key with the scope
//! `metrics:read`, sees its organization's part, and nothing that would tell of the others.

use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, web};
use r58_actors::fleet_link::identity::Secret;
use r58_actors::ingest::IngestStats;

use super::problem::{ProblemBody, store_problem};
use super::resource;
use crate::fleet::auth::{secret, session};
use crate::fleet::state::Fleet;
use crate::fleet::store::{Census, Counted};
use crate::metrics::Sheet;
use crate::problem::Answer;

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/metrics", "GET").route(web::get().to(metrics)));
}

/// Figures in the text format of Prometheus: with the server's own token all of them, else those of the caller's organization.
#[utoipa::path(get, path = "/metrics", tag = "metrics", security(("user" = [])), responses(
    (status = 200, content_type = "text/plain", body = String), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn metrics(fleet: web::Data<Fleet>, request: HttpRequest) -> Answer {
    if shows(&request, fleet.access.metrics_token.as_ref()) {
        return whole(&fleet).await?.answer();
    }
    let caller = session(&request).await?;
    let mut census = fleet.meters.census(&fleet.store).await.map_err(store_problem)?;
    for rows in [&mut census.devices, &mut census.commands] {
        rows.retain(|(org, ..)| *org == caller.org);
    }
    census.alerts.retain(|(org, ..)| *org == caller.org);
    let sheet = Sheet::new("fleet", fleet.started.elapsed());
    organizations(&sheet, &census);
    sheet.answer()
}

/// Whether a request shows the token. Digests are compared, so the time says nothing about it.
fn shows(request: &HttpRequest, token: Option<&Secret>) -> bool {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown =
        shown.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match (shown, token) {
        (Some((_, shown)), Some(token)) => secret::hash(shown.trim()) == secret::hash(token.expose()),
        _ => false,
    }
}

/// Everything.
async fn whole(fleet: &Fleet) -> Result<Sheet, crate::problem::Problem> {
    let sheet = Sheet::new("fleet", fleet.started.elapsed());
    match fleet.meters.census(&fleet.store).await {
        Ok(census) => organizations(&sheet, &census),
        // Who watches the server wants to see the rest above all when the database is away.
        Err(error) => tracing::debug!(%error, "devices and commands cannot be counted now"),
    }
    let meters = fleet.store.meters();
    sheet.held(meters.heartbeats.clone());
    sheet.held(meters.batch_seconds.clone());
    sheet.held(meters.batch_records.clone());
    sheet.held(meters.lag_seconds.clone());
    sheet.held(meters.ended.clone());
    sheet.held(meters.effect_seconds.clone());
    sheet.held(fleet.meters.untold.clone());
    sheet.held(meters.look_seconds.clone());
    sheet.held(meters.looked.clone());
    sheet.held(fleet.meters.requests.clone());
    sheet.held(fleet.meters.seconds.clone());
    sheet.gauges(
        "r58_fleet_database_connections",
        "Connections to the database.",
        ["pool", "state"],
        fleet
            .store
            .pools()
            .into_iter()
            .flat_map(|pool| [([pool.pool, "busy"], pool.busy as f64), ([pool.pool, "idle"], pool.idle as f64)]),
    );
    let leads = f64::from(fleet.store.leads());
    sheet.gauge("r58_fleet_leader", "Whether this server leads those of its database.", leads);
    let listeners = fleet.hub.listeners() as f64;
    sheet.gauge("r58_fleet_live_listeners", "Pages and programs that follow the live updates.", listeners);
    let figures = fleet.broker.figures().await;
    if let Some(connections) = figures.connections {
        sheet.gauge("r58_fleet_broker_connections", "Clients of the embedded broker.", connections as f64);
    }
    ingest(&sheet, &figures.ingest.unwrap_or_default());
    sheet.actors(&figures.actors);
    Ok(sheet)
}

/// What is counted by organization.
fn organizations(sheet: &Sheet, census: &Census) {
    fn row((org, state, count): &Counted) -> ([&str; 2], f64) {
        ([org, state], *count as f64)
    }
    let labels = ["org", "state"];
    sheet.gauges("r58_fleet_devices", "Boxes in service.", labels, census.devices.iter().map(row));
    sheet.gauges("r58_fleet_commands_open", "Commands that have not ended.", labels, census.commands.iter().map(row));
    let alerts = census.alerts.iter().map(|(org, severity, kind, count)| {
        let labels: [&str; 3] = [org, severity, kind];
        (labels, *count as f64)
    });
    let labels = ["org", "severity", "kind"];
    sheet.gauges("r58_fleet_alerts_firing", "Alerts that fire and were not taken on.", labels, alerts);
}

fn ingest(sheet: &Sheet, stats: &IngestStats) {
    sheet.gauge("r58_fleet_broker_up", "Whether Ingest is connected to the broker.", f64::from(stats.linked));
    sheet.gauge("r58_fleet_ingest_held_messages", "Messages that wait for the database.", stats.held as f64);
    sheet.counter("r58_fleet_ingest_messages_total", "Messages read from the broker.", stats.received);
    sheet.counters(
        "r58_fleet_ingest_records_total",
        "What became of what boxes said.",
        ["outcome"],
        [
            (["stored"], stats.stored),
            (["unreadable"], stats.refused),
            (["refused"], stats.given_up),
            (["unknown_device"], stats.unknown),
        ],
    );
}
