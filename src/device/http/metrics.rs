//! The box in figures, for Prometheus: for the crew, with the password as `basic_auth` where there is one.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, web};
use r58_actors::governor::Metrics;
use r58_actors::guest::core::SeatState;
use r58_actors::state::{DeviceState, InputKind};
use r58_actors::viewers::GetViewers;

use super::Face;
use crate::metrics::Sheet;
use crate::problem::Answer;

/// What is always watched by somebody, or by nobody.
const PROGRAMME: &str = "programme";
/// States of the link to the fleet.
const LINK: [&str; 4] = ["off", "connecting", "online", "backoff"];

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/metrics", web::get().to(metrics));
}

async fn metrics(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    let sheet = Sheet::new("box", face.since.elapsed());
    let state = face.device.state.borrow().clone();
    programme(&sheet, &state);
    inputs(&sheet, &state);
    fleet(&sheet, &state);
    machine(&sheet, &face.metrics.borrow().clone());
    // Viewers that cannot be asked for are not told; the tree says why.
    if let Ok(mut viewers) = face.device.viewers.count.send(GetViewers).await {
        viewers.entry(PROGRAMME.to_owned()).or_default();
        watched(&sheet, &viewers);
    }
    if let Ok(seats) = face.device.guests.seats.send(r58_actors::guest::GetSeats).await {
        let taken = seats.iter().filter(|seat| seat.state != SeatState::Free).count();
        sheet.gauge("r58_guests", "Seats that are taken.", taken as f64);
        sheet.gauge("r58_seats", "Seats for guests.", seats.len() as f64);
    }
    sheet.actors(&face.house.reports());
    sheet.answer()
}

fn programme(sheet: &Sheet, state: &DeviceState) {
    let programme = &state.programme;
    sheet.counter("r58_programme_frames_total", "Frames that left the compositor.", programme.frames);
    sheet.counter(
        "r58_programme_missed_slots_total",
        "Frame slots of the programme's clock that were not filled.",
        programme.missed_slots,
    );
    sheet.gauge("r58_programme_frames_per_second", "Frames over the last second.", programme.fps);
    let level = f64::from(state.degradation.level);
    sheet.gauge("r58_degradation_level", "What is given up: 0 nothing, 3 most.", level);
}

fn inputs(sheet: &Sheet, state: &DeviceState) {
    let kind = |kind: InputKind| if kind == InputKind::Camera { "camera" } else { "guest" };
    let inputs = || state.inputs.iter();
    sheet.gauges(
        "r58_input_live",
        "Whether an input has a picture.",
        ["input", "kind"],
        inputs().map(|input| ([input.id.as_str(), kind(input.kind)], f64::from(input.signal == "live"))),
    );
    sheet.gauges(
        "r58_input_state",
        "The state that an input is in; always 1.",
        ["input", "kind", "state"],
        inputs().map(|input| ([input.id.as_str(), kind(input.kind), input.signal.as_str()], 1.0)),
    );
    sheet.counters(
        "r58_input_frames_total",
        "Pictures decoded.",
        ["input", "kind"],
        inputs().map(|input| ([input.id.as_str(), kind(input.kind)], input.frames)),
    );
}

fn fleet(sheet: &Sheet, state: &DeviceState) {
    let fleet = &state.fleet;
    sheet.gauges(
        "r58_fleet_link_state",
        "1 for the state that the link to the fleet is in, 0 for the others.",
        ["state"],
        LINK.map(|word| ([word], f64::from(fleet.state == word))),
    );
    sheet.gauge("r58_outbox_messages", "Messages that wait on disk for the fleet.", fleet.outbox_pending as f64);
    sheet.counter(
        "r58_outbox_dropped_total",
        "Messages that were given up because the outbox was full.",
        fleet.outbox_dropped,
    );
}

/// A part that cannot be read is not told.
fn machine(sheet: &Sheet, metrics: &Metrics) {
    let sample = &metrics.sample;
    let parts = [
        (
            "r58_cpu_usage_ratio",
            "Load of all processors, 0 to 1.",
            sample.cpu_percent.map(|cpu| f64::from(cpu) / 100.0),
        ),
        ("r58_memory_usage_ratio", "Memory in use, 0 to 1.", sample.mem_percent.map(|mem| f64::from(mem) / 100.0)),
        ("r58_disk_free_bytes", "Free for the box where its state is kept.", sample.disk_free.map(|free| free as f64)),
        ("r58_disk_size_bytes", "The whole of that file system.", sample.disk_total.map(|total| total as f64)),
        ("r58_temperature_celsius", "Hottest sensor of the processor.", sample.temperature_c.map(f64::from)),
        ("r58_load_average", "Processes that run or want to, over a minute.", sample.load_avg.map(|[one, ..]| one)),
    ];
    for (name, help, value) in parts {
        if let Some(value) = value {
            sheet.gauge(name, help, value);
        }
    }
}

fn watched(sheet: &Sheet, viewers: &BTreeMap<String, usize>) {
    sheet.gauges(
        "r58_viewers",
        "Viewers by WHEP.",
        ["stream"],
        viewers.iter().map(|(stream, count)| ([stream.as_str()], *count as f64)),
    );
}
