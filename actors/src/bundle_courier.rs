//! BundleCourier: takes finished bundles to the fleet.
//!
//! Job: for each bundle that waits on the [`Shelf`], say what it is, ask how much of it is there, and send the rest piece by piece,
//! each with its checksum, by HTTPS with the device's token. In: news of the shelf and the box's identity, by watch. Out: the
//! fleet's `/api/v1/bundles/{id}/upload`.
//!
//! Failure policy: a fleet that is away is tried again for ever, with jitter, from where it stopped: what is there is always the
//! server's to say, so it matters to neither side who was killed when. A bundle that the fleet will not have is let go, with its
//! reason in the log. Nothing here touches the programme. Supervised by the house.

#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, Supervised, WrapFuture as _};
use chrono::Utc;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::bundle::shelf::{Bundle, DELIVERED, Shelf};
use crate::fleet_link::identity::Identity;
use crate::fleet_link::trust::Trust;
use crate::supervision::Life;

/// Bytes of one piece: what the fleet takes in one request.
pub const PIECE: u64 = 1024 * 1024;
/// One request, on a poor uplink: a piece at 20 kB/s.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// First pause after a failure; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The shelf is looked at this often without any news of it.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How often a bundle whose whole does not have its checksum is sent from the start.
const TRIES: u32 = 3;
/// How often the same place is answered before it is left for later.
const STUCK: u32 = 3;
/// How far the upload is, in bytes (the name that tus has for it).
pub const OFFSET: &str = "upload-offset";
/// SHA-256 of a piece, in hex.
pub const CHECKSUM: &str = "upload-checksum";

/// What a [`BundleCourier`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct CourierSettings {
    /// Where bundles wait.
    pub shelf: Shelf,
    /// Who the box is to its fleet.
    pub identity: watch::Receiver<Option<Identity>>,
    /// Wins over the fleet's address that enrolment gave.
    pub fleet_url: Option<String>,
    /// Whom the box believes.
    pub trust: Trust,
    /// Moves when there is a new bundle.
    pub made: watch::Receiver<u64>,
}

/// The actor.
pub struct BundleCourier {
    life: Life,
    settings: CourierSettings,
}

impl BundleCourier {
    /// For the house's factory.
    pub fn new(life: Life, settings: CourierSettings) -> Self {
        Self { life, settings }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Begin;

impl Actor for BundleCourier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.life.opening() {
            ctx.notify_later(Begin, pause);
        }
    }
}

impl Supervised for BundleCourier {}

crate::supervised!(BundleCourier);

impl Handler<Begin> for BundleCourier {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        let http = Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(REQUEST_DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("r58/", env!("CARGO_PKG_VERSION")));
        let http = self.settings.trust.believe(http).and_then(|http| http.build().map_err(|e| e.to_string()));
        let http = match http {
            Ok(http) => http,
            Err(error) => {
                self.life.failed(error);
                return actix::ActorContext::stop(ctx);
            }
        };
        self.life.opened();
        self.life.detail("waits for bundles");
        let rounds = rounds(http, self.settings.clone());
        // It ends when the box does, or has lost its shelf.
        ctx.spawn(rounds.into_actor(self).map(|(), actor, ctx| {
            actor.life.failed("the shelf is out of reach");
            actix::ActorContext::stop(ctx);
        }));
    }
}

/// Round after round, until nobody can make bundles any more.
async fn rounds(http: Client, mut settings: CourierSettings) {
    let mut pause = PAUSE;
    loop {
        settings.made.mark_unchanged();
        let identity = settings.identity.borrow_and_update().clone();
        let went = match &identity {
            Some(identity) => round(&http, &settings, identity).await,
            None => Ok(()),
        };
        let wait = match went {
            Ok(()) => {
                pause = PAUSE;
                LOOK_EVERY
            }
            Err(reason) => {
                tracing::debug!(reason, "a bundle waits");
                pause = (pause * 2).min(PAUSE_MAX);
                pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = settings.made.changed() => if changed.is_err() { return },
            changed = settings.identity.changed() => if changed.is_err() { return },
        }
    }
}

/// Everything that waits, oldest first.
async fn round(http: &Client, settings: &CourierSettings, identity: &Identity) -> Result<(), String> {
    let shelf = settings.shelf.clone();
    let waiting = tokio::task::spawn_blocking(move || shelf.waiting(Utc::now())).await;
    let waiting = waiting.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    for bundle in waiting {
        let url = settings.fleet_url.as_deref().unwrap_or(&identity.fleet_url).trim_end_matches('/');
        let upload = Upload {
            http,
            url: format!("{url}/api/v1/bundles/{}/upload", bundle.id),
            identity,
            bundle: &bundle,
            shelf: &settings.shelf,
        };
        let state = match upload.run().await? {
            Ended::Delivered => {
                info!(id = %bundle.id, bytes = bundle.size_bytes, "a support bundle is with the fleet");
                DELIVERED.to_owned()
            }
            Ended::Refused(reason) => {
                warn!(id = %bundle.id, reason, "the fleet will not have a support bundle");
                reason
            }
        };
        let shelf = settings.shelf.clone();
        let settled = tokio::task::spawn_blocking(move || shelf.settle(&bundle, &state)).await;
        settled.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    }
    Ok(())
}

enum Ended {
    Delivered,
    Refused(String),
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// So much is there, and all is well.
    Have(u64),
    /// The whole is there and is what it should be.
    Whole,
    /// All of it is there and is not what it should be: from the start.
    Spoilt,
    /// It never will.
    No(String),
    /// Not now.
    Later(String),
}

struct Upload<'a> {
    http: &'a Client,
    url: String,
    identity: &'a Identity,
    bundle: &'a Bundle,
    shelf: &'a Shelf,
}

impl Upload<'_> {
    async fn run(&self) -> Result<Ended, String> {
        let about = json!({"size_bytes": self.bundle.size_bytes, "sha256": self.bundle.sha256});
        let (mut tries, mut last, mut stuck) = (1, None, 0);
        let mut said = self.ask(self.request(Method::POST).json(&about)).await?;
        loop {
            match said {
                Said::Have(offset) => {
                    stuck = if last == Some(offset) { stuck + 1 } else { 0 };
                    if stuck > STUCK {
                        return Err("the fleet does not get on".to_owned());
                    }
                    last = Some(offset);
                    // At the end and not whole: the server has not looked at it yet, and an empty piece makes it look.
                    said = self.send(offset).await?;
                }
                Said::Whole => return Ok(Ended::Delivered),
                Said::No(reason) => return Ok(Ended::Refused(reason)),
                Said::Later(reason) => return Err(reason),
                Said::Spoilt if tries < TRIES => {
                    tries += 1;
                    said = Said::Have(0);
                }
                Said::Spoilt => return Ok(Ended::Refused("it arrived spoilt again and again".to_owned())),
            }
        }
    }

    async fn send(&self, offset: u64) -> Result<Said, String> {
        let length = PIECE.min(self.bundle.size_bytes - offset);
        let path = self.shelf.archive(&self.bundle.id);
        let read = tokio::task::spawn_blocking(move || read_piece(&path, offset, length)).await;
        let piece = match read.map_err(|error| error.to_string())? {
            Ok(piece) => piece,
            Err(error) => return Ok(Said::No(format!("the archive cannot be read: {error}"))),
        };
        let checksum = hex::encode(Sha256::digest(&piece));
        let request = self
            .request(Method::PATCH)
            .header(OFFSET, offset)
            .header(CHECKSUM, checksum)
            .header("content-type", "application/octet-stream")
            .body(piece);
        self.ask(request).await
    }

    fn request(&self, method: Method) -> RequestBuilder {
        let request = self.http.request(method, &self.url);
        request.header("X-Device-Id", &self.identity.device_id).header("X-Device-Token", self.identity.token.expose())
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Said, String> {
        // Without the address, which is not for the log twice a minute.
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(meaning(status, &headers, &detail(answer).await, self.bundle.size_bytes))
    }
}

fn read_piece(path: &std::path::Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
    std::fs::File::open(path)?.read_exact_at(&mut piece, offset)?;
    Ok(piece)
}

async fn detail(answer: Response) -> String {
    let body = answer.json::<serde_json::Value>().await.unwrap_or_default();
    let detail = body["detail"].as_str().unwrap_or("no reason was given");
    detail.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// An answer in the words of the upload. Pure.
fn meaning(status: StatusCode, headers: &HeaderMap, detail: &str, size: u64) -> Said {
    let offset = headers.get(OFFSET).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    let whole = headers.get("upload-complete").is_some_and(|value| value == "?1");
    match (status.as_u16(), offset) {
        (200..=299, _) if whole => Said::Whole,
        // Where it stands; of another start, perhaps, or of an answer that was lost.
        (200..=299 | 409, Some(offset)) if offset <= size => Said::Have(offset),
        (422, _) => Said::Spoilt,
        (400 | 404 | 409 | 410 | 413, _) => Said::No(detail.to_owned()),
        _ => Said::Later(format!("the fleet answers {}", status.as_u16())),
    }
}
