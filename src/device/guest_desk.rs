//! Guests as the crew and they themselves see them, without a transport: HTTP and the fleet's link are two thin carriers of it.
//!
//! | path | what | who |
//! |---|---|---|
//! | `/guest/{seat or invitation}` | GET: how it stands with the guest, and ICE servers | the guest, by its token |
//! | `/api/invitations` | GET, POST | the crew |
//! | `/api/invitations/{id}` | DELETE | the crew |
//! | `/api/guests` | GET | the crew |
//! | `/api/guests/{seat}/{order}` | POST: `admit`, `refuse`, `remove`, `mute`, `level`, `rename` | the crew |

use actix_web::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use r58_actors::DoorError;
use r58_actors::device::DeviceHandle;
use r58_actors::fleet_link::identity::Identity;
use r58_actors::guest::invitations::{Invitation, NewInvitation, Road, Uses};
use r58_actors::guest::{GetSeats, GuestOrder, ManageGuest};
use r58_actors::mixer::core::Tally;
use r58_actors::state::SeatReport;
use r58_actors::turn::IceSnapshot;
use r58_pipelines::feed::fader::{HIGHEST_DB, LOWEST_DB};
use r58_pipelines::ice;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::signalling::{SignalResponse, bearer, refused};
use crate::problem::Problem;

/// Largest body, in bytes.
pub const BODY_LIMIT: usize = 4 * 1024;
/// Life of an invitation unless asked otherwise: for a programme of today or tomorrow.
const USUAL_LIFE: TimeDelta = TimeDelta::days(1);

/// A request, whichever way it came.
#[derive(Debug)]
pub struct DeskRequest<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The `Authorization`, as sent.
    pub authorization: Option<&'a str>,
    /// The body; empty when there is none.
    pub body: &'a [u8],
    /// Whether the caller is of the crew, and who; what to answer when not.
    pub crew: Result<String, Problem>,
}

/// Where links lead.
#[derive(Clone)]
pub struct Links {
    /// Base address of the box's own pages, with a slash at the end.
    pub own: String,
    /// The box's fleet, once it is enrolled.
    pub identity: watch::Receiver<Option<Identity>>,
}

/// See the module.
pub struct GuestDesk {
    device: DeviceHandle,
    ice: watch::Receiver<IceSnapshot>,
    peer_ice: watch::Receiver<IceSnapshot>,
    links: Links,
    /// Whether guests may come by the SFU.
    has_sfu: bool,
}

/// What an invitation is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    seat: String,
    name: String,
    expires_at: Option<DateTime<Utc>>,
    expires_in_seconds: Option<u32>,
    #[serde(default)]
    uses: Uses,
    #[serde(default)]
    road: Road,
    admit: Option<bool>,
    /// Who makes it; only the fleet says so, for its people.
    created_by: Option<String>,
}

/// An invitation as the crew is told of it: without what opens it.
#[derive(Serialize)]
struct InvitationView {
    id: String,
    seat: String,
    name: String,
    state: &'static str,
    expires_at: DateTime<Utc>,
    uses: Uses,
    road: Road,
    admit: bool,
    created_at: DateTime<Utc>,
    created_by: String,
    used_at: Option<DateTime<Utc>>,
}

impl InvitationView {
    fn of(item: Invitation, now: DateTime<Utc>) -> Self {
        Self {
            state: item.state(now),
            id: item.id,
            seat: item.seat,
            name: item.name,
            expires_at: item.expires_at,
            uses: item.uses,
            road: item.road,
            admit: item.admit,
            created_at: item.created_at,
            created_by: item.created_by,
            used_at: item.used_at,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mute {
    muted: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level_db: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    name: String,
}

impl GuestDesk {
    /// For a box; `ice` are the servers that guests are told of, `peer_ice` those of the box's own peers.
    pub fn new(
        device: DeviceHandle,
        ice: watch::Receiver<IceSnapshot>,
        peer_ice: watch::Receiver<IceSnapshot>,
        links: Links,
        has_sfu: bool,
    ) -> Self {
        Self { device, ice, peer_ice, links, has_sfu }
    }

    /// Whether a path is answered here.
    pub fn serves(path: &str) -> bool {
        ["/guest/", "/api/invitations", "/api/guests"].iter().any(|prefix| path.starts_with(prefix))
    }

    /// Answers a request.
    pub async fn handle(&self, request: DeskRequest<'_>) -> SignalResponse {
        let answer = self.answer(&request).await.unwrap_or_else(SignalResponse::from);
        answer.header("Cache-Control", "no-store")
    }

    async fn answer(&self, request: &DeskRequest<'_>) -> Result<SignalResponse, Problem> {
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        if let ["guest", name] = parts[..] {
            only(request, &["GET"])?;
            return self.guest(name, bearer(request.authorization).as_deref()).await;
        }
        let who = request.crew.clone()?;
        match parts[..] {
            ["api", "invitations"] => {
                only(request, &["GET", "POST"])?;
                if request.method == "POST" { self.invite(request, who).await } else { Ok(self.invitations()) }
            }
            ["api", "invitations", id] => {
                only(request, &["DELETE"])?;
                self.device.book.revoke(id).map_err(|refusal| refused(&refusal.into()))?;
                Ok(SignalResponse::new(204))
            }
            ["api", "guests"] => {
                only(request, &["GET"])?;
                Ok(reply(200, &json!({ "items": self.seats().await? })))
            }
            ["api", "guests", seat, order] => {
                only(request, &["POST"])?;
                let order = ManageGuest { seat: seat.to_owned(), order: order_of(order, request.body)? };
                let report = self.device.guests.manage.send(order).await.map_err(|error| shut(&error))?;
                Ok(reply(200, &report.map_err(|refusal| refused(&refusal))?))
            }
            _ => Err(Problem::not_found("no such path")),
        }
    }

    async fn seats(&self) -> Result<Vec<SeatReport>, Problem> {
        self.device.guests.seats.send(GetSeats).await.map_err(|error| shut(&error))
    }

    /// What a guest may know: whether it waits, is in, or is on air. Whoever asks is likely to join, so a peer is made ready.
    async fn guest(&self, name: &str, bearer: Option<&str>) -> Result<SignalResponse, Problem> {
        let pass = self.device.book.known(name, bearer).map_err(|error| refused(&error))?;
        let seats = self.seats().await?;
        let seat = seats.into_iter().find(|seat| seat.id == pass.seat);
        let seat = seat.filter(|seat| seat.session.is_some() && seat.invitation == pass.invitation);
        if seat.is_none() {
            self.device.book.enter(name, bearer).map_err(|error| refused(&error))?;
            self.device.peers.warm(&self.peer_ice.borrow().servers);
        }
        let state = match &seat {
            None => "outside",
            Some(seat) if seat.waiting => "waiting",
            Some(_) => "in",
        };
        let room = self.device.studio.input(&pass.seat);
        let tally = seat.as_ref().filter(|seat| !seat.waiting).and_then(|seat| {
            let state = self.device.state.borrow();
            state.inputs.iter().find(|input| input.id == seat.id).map(|input| input.tally)
        });
        let snapshot = self.ice.borrow().clone();
        Ok(reply(
            200,
            &json!({
                "state": state,
                "name": pass.name.or_else(|| room.map(|room| room.name().label.clone())),
                "tally": tally.unwrap_or(Tally::None),
                "muted": seat.is_some_and(|seat| seat.muted),
                "road": pass.road,
                "sfu": self.has_sfu,
                "iceServers": ice::for_browser(&snapshot.servers),
            }),
        ))
    }

    fn invitations(&self) -> SignalResponse {
        let now = Utc::now();
        let items = self.device.book.invitations().into_iter().map(|item| InvitationView::of(item, now));
        reply(200, &json!({ "items": items.collect::<Vec<_>>() }))
    }

    async fn invite(&self, request: &DeskRequest<'_>, who: String) -> Result<SignalResponse, Problem> {
        let (invite, now): (Invite, _) = (read(request.body)?, Utc::now());
        if invite.road == Road::Sfu && !self.has_sfu {
            return Err(Problem::with_status(422, "this box has no SFU that a guest could come by"));
        }
        let life = invite.expires_in_seconds.map_or(USUAL_LIFE, |seconds| TimeDelta::seconds(i64::from(seconds)));
        let new = NewInvitation {
            seat: invite.seat,
            name: invite.name,
            expires_at: invite.expires_at.unwrap_or(now + life),
            uses: invite.uses,
            road: invite.road,
            admit: invite.admit.unwrap_or(true),
            created_by: invite.created_by.filter(|_| who == FLEET).unwrap_or(who),
        };
        let made = self.device.book.invite(new).await.map_err(|error| refused(&error))?;
        let made = made.map_err(|refusal| refused(&refusal.into()))?;
        let (id, token) = (&made.invitation.id, &made.token);
        tracing::info!(invitation = id, seat = made.invitation.seat, "invitation made");
        let fleet = self.links.identity.borrow().as_ref().map(|identity| {
            format!("{}/join/{id}.{}#{token}", identity.fleet_url.trim_end_matches('/'), identity.device_id)
        });
        let mut answer = json!(InvitationView::of(made.invitation.clone(), now));
        answer["token"] = json!(token);
        answer["join_url"] = json!(format!("{}join/{id}#{token}", self.links.own));
        answer["fleet_join_url"] = json!(fleet);
        Ok(reply(201, &answer).header("Location", format!("/api/invitations/{id}")))
    }
}

/// Who the fleet is, where it asks for its people.
pub const FLEET: &str = "fleet";

fn order_of(word: &str, body: &[u8]) -> Result<GuestOrder, Problem> {
    Ok(match word {
        "admit" => GuestOrder::Admit,
        "refuse" => GuestOrder::Refuse,
        "remove" => GuestOrder::Remove,
        "mute" => GuestOrder::Mute(read::<Mute>(body)?.muted),
        "level" => {
            let level = read::<Level>(body)?.level_db;
            if !(LOWEST_DB..=HIGHEST_DB).contains(&level) {
                return Err(Problem::bad_request(format!("level_db: {LOWEST_DB} to {HIGHEST_DB}")));
            }
            GuestOrder::Level(level)
        }
        "rename" => GuestOrder::Rename(read::<Rename>(body)?.name),
        _ => return Err(Problem::not_found("no such path")),
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string()))
}

fn only(request: &DeskRequest<'_>, methods: &[&str]) -> Result<(), Problem> {
    if methods.contains(&request.method) {
        return Ok(());
    }
    let allow = methods.join(", ");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path answers to {allow}"));
    Err(problem.header("Allow", &allow))
}

fn reply(status: u16, body: &impl Serialize) -> SignalResponse {
    let body = serde_json::to_string(body).unwrap_or_else(|_| "null".into());
    SignalResponse::new(status).body("application/json", body)
}

fn shut(error: &DoorError) -> Problem {
    Problem::with_status(error.status(), error.to_string()).retry_after(std::time::Duration::from_secs(1))
}
