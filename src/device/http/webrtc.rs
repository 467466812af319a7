//! WHIP for guests (RFC 9725), WHEP for viewers, the crew's list of seats, and ICE servers for both ends.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, LOCATION};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use r58_actors::GuestError;
use r58_actors::guest::tokens::TokenVerdict;
use r58_actors::guest::{Admission, AdmitGuest, DropGuest, GetSeats};
use r58_actors::viewers::{AdmitViewer, DropViewer};
use r58_pipelines::ice::{self, IceServer};
use serde_json::{Value, json};

use super::super::access::bearer;
use super::{Face, problem_of, shut};
use crate::problem::{Answer, Problem};

/// Largest offer, in bytes; the largest that browsers make are some 8 KiB.
const OFFER_LIMIT: usize = 64 * 1024;
const SDP: &str = "application/sdp";

pub fn routes(config: &mut web::ServiceConfig) {
    let endpoint = |path: &str| {
        web::resource(path)
            .route(web::get().to(nothing))
            .route(web::method(actix_web::http::Method::OPTIONS).to(options))
    };
    config
        .service(endpoint("/whip/{seat}").route(web::post().to(publish)).default_service(web::to(wrong_method)))
        .service(
            endpoint("/whip/{seat}/{session}")
                .route(web::delete().to(unpublish))
                .default_service(web::to(wrong_method)),
        )
        .service(endpoint("/whep/{name}").route(web::post().to(view)).default_service(web::to(wrong_method)))
        .service(
            endpoint("/whep/{name}/{session}").route(web::delete().to(unview)).default_service(web::to(wrong_method)),
        )
        .route("/api/seats", web::get().to(seats))
        .route("/api/turn-credentials", web::get().to(turn_credentials));
}

async fn publish(face: web::Data<Face>, request: HttpRequest, seat: web::Path<String>, body: web::Payload) -> Answer {
    let bearer = bearer(&request);
    // Nobody without the right token gets to send a body.
    check_token(&face, &seat, bearer.as_deref())?;
    let offer = offer(&request, body).await?;
    let order = AdmitGuest { seat: seat.to_string(), bearer, offer };
    let admitted = face.device.guests.admit.send_within(order, std::time::Duration::from_secs(8)).await;
    created(&format!("/whip/{seat}"), admitted.map_err(|error| shut(&error))?)
}

async fn unpublish(face: web::Data<Face>, request: HttpRequest, path: web::Path<(String, String)>) -> Answer {
    let (seat, session) = path.into_inner();
    let order = DropGuest { seat, session, bearer: bearer(&request) };
    face.device.guests.end.send(order).await.map_err(|error| shut(&error))?.map_err(|error| refused(&error))?;
    Ok(HttpResponse::Ok().finish())
}

async fn view(face: web::Data<Face>, request: HttpRequest, name: web::Path<String>, body: web::Payload) -> Answer {
    face.access.crew(&request)?;
    let offer = offer(&request, body).await?;
    let order = AdmitViewer { name: name.to_string(), offer };
    let admitted = face.device.viewers.admit.send_within(order, std::time::Duration::from_secs(8)).await;
    created(&format!("/whep/{name}"), admitted.map_err(|error| shut(&error))?)
}

async fn unview(face: web::Data<Face>, request: HttpRequest, path: web::Path<(String, String)>) -> Answer {
    face.access.crew(&request)?;
    let (name, session) = path.into_inner();
    let order = DropViewer { name, session };
    face.device.viewers.end.send(order).await.map_err(|error| shut(&error))?.map_err(|error| refused(&error))?;
    Ok(HttpResponse::Ok().finish())
}

/// RFC 9725, section 4.1: a GET of endpoint or session succeeds with no content.
async fn nothing() -> HttpResponse {
    HttpResponse::NoContent().finish()
}

/// RFC 9725, section 4.2, and the preflight of browsers; no credentials and no TURN servers in it.
async fn options(request: HttpRequest) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .insert_header(("Accept-Post", SDP))
        .insert_header(("Access-Control-Allow-Methods", "POST, DELETE, OPTIONS"))
        .insert_header(("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match"))
        .insert_header(("Access-Control-Max-Age", "86400"));
    open_to_tokens(&request, &mut response);
    response.finish()
}

/// Publishing is guarded by a token that no browser sends by itself, so pages of any origin may try.
fn open_to_tokens(request: &HttpRequest, response: &mut HttpResponseBuilder) {
    if request.path().starts_with("/whip/") {
        response
            .insert_header(("Access-Control-Allow-Origin", "*"))
            .insert_header(("Access-Control-Expose-Headers", "Location, Link, ETag"));
    }
}

async fn wrong_method() -> Answer {
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this resource takes POST, DELETE and OPTIONS"))
}

async fn offer(request: &HttpRequest, body: web::Payload) -> Result<String, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(SDP) {
        return Err(
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an offer is application/sdp").header("Accept-Post", SDP)
        );
    }
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("an offer has at most {OFFER_LIMIT} bytes"));
    let bytes = body.to_bytes_limited(OFFER_LIMIT).await.map_err(|_| too_large())?;
    let bytes = bytes.map_err(|_| Problem::bad_request("the body broke off"))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::bad_request("an offer is UTF-8"))
}

fn created(resource: &str, admitted: Result<Admission, GuestError>) -> Answer {
    let Admission { session, answer } = admitted.map_err(|error| refused(&error))?;
    let mut response = HttpResponse::Created();
    response.content_type(SDP).insert_header((LOCATION, format!("{resource}/{session}")));
    if resource.starts_with("/whip/") {
        response
            .insert_header(("Access-Control-Allow-Origin", "*"))
            .insert_header(("Access-Control-Expose-Headers", "Location, Link, ETag"));
    }
    Ok(response.body(answer))
}

fn refused(error: &GuestError) -> Problem {
    let problem = problem_of(error.status(), error.to_string());
    let problem = match error.retry_after() {
        Some(wait) => problem.retry_after(wait),
        None => problem,
    };
    if error.status() == 401 { problem.header("WWW-Authenticate", "Bearer") } else { problem }
}

fn check_token(face: &Face, seat: &str, token: Option<&str>) -> Result<(), Problem> {
    let token = token.ok_or_else(|| refused(&GuestError::NoToken))?;
    match face.device.tokens.check(seat, token) {
        TokenVerdict::Granted => Ok(()),
        TokenVerdict::WrongSeat => Err(refused(&GuestError::WrongSeat)),
        TokenVerdict::Unknown => Err(refused(&GuestError::BadToken)),
    }
}

async fn seats(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    let reports = face.device.guests.seats.send(GetSeats).await.map_err(|error| shut(&error))?;
    let items: Vec<Value> = reports
        .iter()
        .map(|report| {
            let link = face.seats.iter().find(|seat| seat.id == report.id);
            let mut item = json!(report);
            item["token"] = json!(link.map(|link| &link.token));
            item["join_url"] = json!(link.map(|link| &link.join_url));
            item
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "items": items })))
}

/// For a guest with a seat's token, and for the crew. Whoever asks is likely to join, so a peer is made ready.
async fn turn_credentials(face: web::Data<Face>, request: HttpRequest) -> Answer {
    match bearer(&request) {
        Some(token) if face.device.tokens.seat_of(&token).is_some() => face.access.same_origin(&request)?,
        Some(_) => return Err(refused(&GuestError::BadToken)),
        None => face.access.crew(&request)?,
    }
    let snapshot = face.ice.borrow().clone();
    face.device.peers.warm(&snapshot.servers);
    let servers = ice::for_browser(&snapshot.servers);
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(json!({
        "iceServers": as_operators_know(&servers),
        "expiresAt": snapshot.expires_at,
        "provider": snapshot.provider,
        "stale": snapshot.stale,
    })))
}

/// The object form that older pages want, where one credential opens all servers; the array otherwise.
fn as_operators_know(servers: &[IceServer]) -> Value {
    let mut with_credential = servers.iter().filter(|server| server.username.is_some());
    let (first, second) = (with_credential.next(), with_credential.next());
    let Some(credential) = first.filter(|_| second.is_none()) else { return json!(servers) };
    let urls: Vec<&String> = servers.iter().flat_map(|server| &server.urls).collect();
    json!({ "urls": urls, "username": credential.username, "credential": credential.credential })
}
