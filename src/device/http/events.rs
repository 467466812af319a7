//! The state and the levels, pushed: pages never poll.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use r58_actors::state::{DeviceState, InputState};
use serde::Serialize;
use tokio_stream::wrappers::{IntervalStream, WatchStream};

use super::super::access::bearer;
use super::super::signalling::refused;
use super::Face;
use crate::problem::{Answer, Problem};

/// Pages that may listen at the same time: a crew's screens, with room to spare; more is a flood.
const MOST_LISTENERS: usize = 64;
/// A comment this often keeps proxies from closing a quiet connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

static LISTENERS: AtomicUsize = AtomicUsize::new(0);

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/api/state", web::get().to(state)).route("/api/events", web::get().to(events));
}

async fn state(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    let state = face.device.state.borrow().clone();
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(&*state))
}

/// For the crew everything; for a guest with a seat's token what concerns that seat.
async fn events(face: web::Data<Face>, request: HttpRequest) -> Answer {
    let seat = match bearer(&request) {
        Some(token) => Some(face.device.book.opens(&token).map_err(|error| refused(&error))?.seat),
        None => None,
    };
    if seat.is_none() {
        face.access.crew(&request)?;
    }
    let listener = Listener::enter()?;
    let states = WatchStream::new(face.device.state.clone());
    let states = states.map(move |state| match &seat {
        Some(seat) => event("state", &SeatView::of(&state, seat)),
        None => event("state", &*state),
    });
    let crew = bearer(&request).is_none();
    let levels = WatchStream::new(face.device.levels.clone());
    let levels = levels.filter_map(move |levels| std::future::ready(crew.then(|| event("levels", &*levels))));
    let beats = IntervalStream::new(tokio::time::interval(KEEP_ALIVE)).map(|_| Bytes::from_static(b":\n\n"));
    // The stream ends with the states: when the box stops, its pages are told by the closed connection.
    let news = until_first_ends(states, stream::select(levels, beats));
    let body = news.map(move |bytes| {
        let _stays = &listener;
        Ok::<_, Infallible>(bytes)
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

/// What a guest may know of the box: whether its own seat is on air.
#[derive(Serialize)]
struct SeatView<'a> {
    inputs: Vec<&'a InputState>,
}

impl<'a> SeatView<'a> {
    fn of(state: &'a DeviceState, seat: &str) -> Self {
        Self { inputs: state.inputs.iter().filter(|input| input.id == seat).collect() }
    }
}

fn until_first_ends<T>(first: impl Stream<Item = T>, second: impl Stream<Item = T>) -> impl Stream<Item = T> {
    let first = first.map(Some).chain(stream::once(async { None }));
    stream::select(first, second.map(Some))
        .take_while(|item| std::future::ready(item.is_some()))
        .filter_map(std::future::ready)
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".into());
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// One place among the listeners, given back when dropped.
struct Listener;

impl Listener {
    fn enter() -> Result<Self, Problem> {
        let entered =
            LISTENERS.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MOST_LISTENERS).then_some(n + 1));
        let full = || Problem::unavailable("too many pages are open on this box").retry_after(Duration::from_secs(10));
        entered.map(|_| Self).map_err(|_| full())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::AcqRel);
    }
}
