//! The box's HTTP face: pages, JSON, WHIP and WHEP, all from one origin.
//!
//! | room | what it answers |
//! |---|---|
//! | `mixer` | scenes, takes, cameras, thumbnails |
//! | `webrtc` | WHIP, WHEP, seats, ICE servers |
//! | `guests` | invitations, guests, a guest's own state and page |
//! | `hls` | HLS |
//! | `logs` | what the box says of itself |
//! | `metrics` | the same in figures, for Prometheus |
//! | `viewers` | viewers' page and tokens |
//! | `calls` | guests by way of the SFU |
//! | `conformance` | what the box says of its own WHIP and WHEP |
//! | `events` | the state and the levels by server-sent events |
//!
//! Handlers translate and nothing else: what they answer comes through doors and watches of the actors.

mod calls;
mod conformance;
mod events;
mod guests;
mod hls;
mod logs;
mod metrics;
mod mixer;
mod viewers;
mod webrtc;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use r58_actors::House;
use r58_actors::device::DeviceHandle;
use serde::Serialize;
use serde_json::json;

use super::access::Access;
use super::calls::Calls;
use super::guest_desk::GuestDesk;
use super::log_desk::LogDesk;
use super::signalling::Signalling;
use super::viewer_tokens::ViewerTokens;
use crate::pages::{self, PageSet};
use crate::problem::{self, Answer, Problem};
use crate::proxies::TrustedProxies;
use crate::rates::client_of;

/// One seat as the crew is told of it.
#[derive(Debug, Clone, Serialize)]
pub struct SeatLink {
    /// Name in addresses.
    pub id: String,
    /// Name that people see.
    pub label: String,
    /// The secret in the link.
    pub token: String,
    /// The link for the guest.
    pub join_url: String,
}

/// What the box needs to be a client of itself.
#[derive(Clone)]
pub struct SelfCheck {
    /// Address of its listener.
    pub url: String,
    /// The crew's password.
    pub crew: Option<String>,
}

/// Everything that the handlers reach.
pub struct Face {
    /// Doors and watches of the actors.
    pub device: DeviceHandle,
    /// The tree.
    pub house: House,
    /// Guests by way of the SFU.
    pub calls: Arc<Calls>,
    /// WHIP and WHEP.
    pub signalling: Arc<Signalling>,
    /// Invitations and guests.
    pub desk: Arc<GuestDesk>,
    /// The log.
    pub logs: Arc<LogDesk>,
    /// What the box's own checks of WHIP and WHEP said.
    pub conformance: Arc<crate::conformance::Board>,
    /// How to reach the box from itself, for those checks.
    pub own: SelfCheck,
    /// Who may call.
    pub access: Access,
    /// Who may say for whom it calls.
    pub proxies: TrustedProxies,
    /// The seats with their links, in the order of the configuration.
    pub seats: Vec<SeatLink>,
    /// Tokens of viewers from outside.
    pub viewers: Arc<ViewerTokens>,
    /// Base address of the pages for those outside, with a slash at the end.
    pub base_url: String,
    /// Servers for guests' pages.
    pub ice: tokio::sync::watch::Receiver<r58_actors::turn::IceSnapshot>,
    /// Servers for the box's own peers.
    pub peer_ice: tokio::sync::watch::Receiver<r58_actors::turn::IceSnapshot>,
    /// The Governor's last word.
    pub metrics: tokio::sync::watch::Receiver<r58_actors::governor::Metrics>,
    /// When the process came up.
    pub since: Instant,
}

impl Face {
    /// Whom a request counts for.
    fn client(&self, request: &HttpRequest) -> String {
        self.proxies.client(request).map(client_of).unwrap_or_default()
    }
}

/// Serves the face on a port that was taken before. Two threads: these pages are for a crew, not for a crowd.
///
/// # Errors
/// What the system says about the port.
pub fn serve(listener: TcpListener, face: Arc<Face>) -> std::io::Result<ServerHandle> {
    let data = web::Data::from(face);
    let server =
        HttpServer::new(move || App::new().app_data(data.clone()).configure(problem::extractors).configure(routes))
            .workers(2)
            .shutdown_timeout(1)
            .disable_signals()
            .listen(listener)?
            .run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(handle)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(multiview))
        .route("/switcher", web::get().to(multiview))
        .route("/status", web::get().to(status))
        .route("/guest_join", web::get().to(guest_join))
        .route("/assets/{name}", web::get().to(asset))
        .route("/health", web::get().to(health))
        .route("/api/actors", web::get().to(actors))
        .configure(mixer::routes)
        .configure(webrtc::routes)
        .configure(guests::routes)
        .configure(hls::routes)
        .configure(viewers::routes)
        .configure(logs::routes)
        .configure(metrics::routes)
        .configure(calls::routes)
        .configure(events::routes)
        .configure(conformance::routes)
        .default_service(web::to(problem::no_such_path));
}

async fn multiview(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    Ok(pages::serve(PageSet::Device, "index.html", &request))
}

async fn status(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    Ok(pages::serve(PageSet::Device, "status.html", &request))
}

/// Open to all: what a guest may do is decided by the token that the page sends.
async fn guest_join(request: HttpRequest) -> HttpResponse {
    pages::serve(PageSet::Device, "guest_join.html", &request)
}

async fn asset(name: web::Path<String>, request: HttpRequest) -> HttpResponse {
    pages::serve(PageSet::Device, &format!("assets/{name}"), &request)
}

async fn health(face: web::Data<Face>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "status": "ok",
        "service": "r58-device",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": face.since.elapsed().as_secs(),
    }))
}

async fn actors(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    Ok(HttpResponse::Ok().json(json!({ "actors": face.house.reports() })))
}

/// Passes the crew, and whoever has a token for what they want to watch; without a name, for anything.
pub(super) fn may_watch(
    face: &Face,
    request: &HttpRequest,
    name: Option<&str>,
    token: Option<&str>,
) -> Result<(), Problem> {
    let Err(problem) = face.access.crew(request) else { return Ok(()) };
    let judged = match token {
        Some(token) => face.viewers.check(token, name, chrono::Utc::now()),
        None => Err(problem),
    };
    // Who guesses is soon told to wait.
    if judged.is_err() {
        face.signalling.count(&face.client(request))?;
    }
    judged
}

/// An actor's refusal in the words of HTTP.
pub(super) fn refused(error: &r58_actors::ActorsError) -> Problem {
    problem_of(error.status(), error.to_string())
}

/// A closed door in the words of HTTP.
pub(super) fn shut(error: &r58_actors::DoorError) -> Problem {
    problem_of(error.status(), error.to_string()).retry_after(std::time::Duration::from_secs(1))
}

pub(super) fn problem_of(status: u16, detail: String) -> Problem {
    Problem::with_status(status, detail)
}
