//! Guests of a box that nobody can connect to: `/join/{invitation}` is their page, `/whip/{invitation}`,
//! `/api/calls/whip/{invitation}` (by the SFU), `/whep/return-{invitation}` (what the guest hears and sees of the programme) and
//! `/guest/{invitation}` are carried to the box over the broker. The media flow
//! between browser and box, directly or by TURN, or by the SFU that both connect to.
//!
//! An invitation is named `{id}.{device}`; the server keeps nothing of it. The secret is in the link's fragment, which no
//! browser sends by itself, and the box alone judges it. A box that is not there, not connected, or not known answers the
//! same, and the [`Doorkeeper`](crate::fleet::doorkeeper::Doorkeeper) slows down whoever guesses.

use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, IF_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use r58_actors::caller::Ask;
use r58_mqtt::payload::Method;
use r58_mqtt::request::CallError;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};

use super::problem::store_problem;
use super::resource;
use super::whep::{away, passed_on, segment};
use crate::fleet::state::Fleet;
use crate::pages::{PageSet, serve};
use crate::problem::{Answer, Problem};

/// Largest body, in bytes, as at the box.
const BODY_LIMIT: usize = 64 * 1024;
/// Letters of an invitation's own id, and of its token.
const ID_LETTERS: usize = 16;
const TOKEN_LETTERS: usize = 32;
/// An invitation's name where a device's might stand, told apart by its shape.
const NAMED: &str = r"{invitation:[0-9a-f]{16}\.[^/]+}";

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/join/{invitation}", "GET").route(web::get().to(page)))
        .service(resource("/guest/{invitation}", "GET").route(web::get().to(state)))
        .service(resource("/api/calls/session/{invitation}", "GET").route(web::get().to(state)))
        .service(resource("/api/calls/whip/{invitation}", "POST").route(web::post().to(begin)))
        .service(resource("/api/calls/whip/{invitation}/{session}", "DELETE").route(web::delete().to(end)))
        .service(resource(&format!("/whep/return-{NAMED}"), "POST").route(web::post().to(begin)))
        .service(
            resource(&format!("/whep/return-{NAMED}/{{session}}"), "PATCH, DELETE")
                .route(web::patch().to(change))
                .route(web::delete().to(end)),
        )
        .service(resource("/whip/{invitation}", "POST").route(web::post().to(begin)))
        .service(
            resource("/whip/{invitation}/{session}", "PATCH, DELETE")
                .route(web::patch().to(change))
                .route(web::delete().to(end)),
        );
}

/// Open to all, and the same for every link.
async fn page(request: HttpRequest) -> HttpResponse {
    serve(PageSet::Fleet, "join.html", &request)
}

async fn state(fleet: web::Data<Fleet>, request: HttpRequest, name: web::Path<String>) -> Answer {
    let invitation = Invitation::named(&name)?;
    let path = format!("{}{}", base(&request), invitation.id);
    carry(&fleet, &request, &invitation, Method::Get, path, None).await
}

async fn begin(fleet: web::Data<Fleet>, request: HttpRequest, name: web::Path<String>, offer: web::Payload) -> Answer {
    let invitation = Invitation::named(&name)?;
    let path = format!("{}{}", base(&request), invitation.id);
    carry(&fleet, &request, &invitation, Method::Post, path, Some(offer)).await
}

async fn change(
    fleet: web::Data<Fleet>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    fragment: web::Payload,
) -> Answer {
    let invitation = Invitation::named(&path.0)?;
    let path = format!("{}{}/{}", base(&request), invitation.id, segment(&path.1)?);
    carry(&fleet, &request, &invitation, Method::Patch, path, Some(fragment)).await
}

async fn end(fleet: web::Data<Fleet>, request: HttpRequest, path: web::Path<(String, String)>) -> Answer {
    let invitation = Invitation::named(&path.0)?;
    let path = format!("{}{}/{}", base(&request), invitation.id, segment(&path.1)?);
    carry(&fleet, &request, &invitation, Method::Delete, path, None).await
}

/// What stands before the invitation in a path, here and at the box.
fn base(request: &HttpRequest) -> String {
    let pattern = request.match_pattern().unwrap_or_default();
    pattern.split('{').next().unwrap_or_default().to_owned()
}

/// An invitation's name in links of this server.
struct Invitation {
    id: String,
    device: DeviceId,
}

impl Invitation {
    fn named(name: &str) -> Result<Self, Problem> {
        let parts = name.split_once('.').filter(|(id, _)| is_hex(id, ID_LETTERS));
        let device = parts.and_then(|(id, device)| Some((id, DeviceId::new(device).ok()?)));
        let (id, device) = device.ok_or_else(|| Problem::not_found("no such invitation"))?;
        Ok(Self { id: id.to_owned(), device })
    }
}

fn is_hex(text: &str, letters: usize) -> bool {
    text.len() == letters && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

async fn carry(
    fleet: &Fleet,
    request: &HttpRequest,
    invitation: &Invitation,
    method: Method,
    path: String,
    body: Option<web::Payload>,
) -> Answer {
    let from = fleet.client(request)?;
    fleet.doorkeeper.knock(from, invitation.device.as_str(), &invitation.id)?;
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let authorization = text(AUTHORIZATION);
    let token = authorization.as_deref().and_then(|value| value.split_once(' '));
    if !token
        .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && is_hex(token.trim(), TOKEN_LETTERS))
    {
        // What cannot be a token does not trouble the box.
        fleet.doorkeeper.answered(from, &invitation.id, 401);
        return Err(Problem::unauthorized("the bearer token is not valid"));
    }
    let Some(device) = online(fleet, &invitation.device).await? else { return Err(away(CallError::Offline)) };
    let body = match body {
        Some(body) => read(body).await?,
        None => String::new(),
    };
    let ask = Ask { method, path, content_type: text(CONTENT_TYPE), authorization, if_match: text(IF_MATCH), body };
    let answer = fleet.broker.ask(device, ask).await.map_err(away)?;
    fleet.doorkeeper.answered(from, &invitation.id, answer.status);
    Ok(passed_on(answer, |location| {
        let base = base(request);
        let session = location.strip_prefix(&base)?.strip_prefix(&invitation.id)?;
        Some(format!("{base}{}.{}{session}", invitation.id, invitation.device.as_str()))
    }))
}

/// The address of a box that is in service and connected.
async fn online(fleet: &Fleet, device: &DeviceId) -> Result<Option<DeviceAddress>, Problem> {
    let Some((org, _)) = fleet.store.device_secret(device.as_str()).await.map_err(store_problem)? else {
        return Ok(None);
    };
    let row = fleet.store.device(&org, device.as_str()).await.map_err(store_problem)?;
    let connected = row.is_some_and(|row| row.presence == "online");
    let org = OrgId::new(&org).ok().filter(|_| connected);
    Ok(org.map(|org| DeviceAddress { org, device: device.clone() }))
}

async fn read(body: web::Payload) -> Result<String, Problem> {
    let too_large = || Problem::with_status(413, format!("a body has at most {BODY_LIMIT} bytes"));
    let bytes = body.to_bytes_limited(BODY_LIMIT).await.map_err(|_| too_large())?;
    let bytes = bytes.map_err(|_| Problem::bad_request("the body broke off"))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::bad_request("the body is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_id_and_a_device_and_nothing_else() {
        let good = Invitation::named("0123456789abcdef.stage.left").ok().unwrap();
        assert_eq!((good.id.as_str(), good.device.as_str()), ("0123456789abcdef", "stage.left"));
        for bad in
            ["", ".", "0123456789abcdef", "0123456789abcdef.", "0123456789ABCDEF.x", "x.y", "0123456789abcdef.a/b"]
        {
            assert!(Invitation::named(bad).is_err(), "{bad}");
        }
    }
}
