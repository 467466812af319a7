//! `GET /conformance`: what WHIP and WHEP ask, point by point, with the last result; `POST` runs the checks anew.
//!
//! The box is its own client here, over its own listener and at a seat that is free. Results are those of real runs, with
//! their time; what only the test suite can check stays unchecked.

use actix_web::{HttpRequest, HttpResponse, web};
use r58_actors::guest::GetSeats;
use r58_actors::guest::core::SeatState;
use serde_json::json;

use super::{Face, shut};
use crate::conformance::{Board, Probe, Verdict};
use crate::problem::{Answer, Problem};

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/conformance").route(web::get().to(list)).route(web::post().to(run)));
}

async fn list(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(summary(&face.conformance)))
}

/// Takes some ten seconds, in which the seat shows a guest that joins.
async fn run(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    let seats = face.device.guests.seats.send(GetSeats).await.map_err(|error| shut(&error))?;
    let free = seats.iter().find(|seat| seat.state == SeatState::Free);
    let free = free.ok_or_else(|| Problem::conflict("every seat is taken: the checks need one"))?;
    let token = face.seats.iter().find(|seat| seat.id == free.id).map(|seat| seat.token.clone()).unwrap_or_default();
    let probe = Probe::new(&face.own.url, &free.id, &token, face.own.crew.as_deref()).map_err(Problem::unavailable)?;
    if !face.conformance.run(&probe).await {
        return Err(Problem::conflict("a run is under way"));
    }
    Ok(HttpResponse::Ok().json(summary(&face.conformance)))
}

fn summary(board: &Board) -> serde_json::Value {
    let items = board.outcomes();
    let count = |verdict| items.iter().filter(|item| item.verdict == verdict).count();
    json!({
        "passed": count(Verdict::Passed),
        "failed": count(Verdict::Failed),
        "unchecked": count(Verdict::Unchecked),
        "items": items,
    })
}
