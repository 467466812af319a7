//! The HTTP carrier of WHIP and WHEP, the crew's list of seats, and ICE servers for both ends.

use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, IF_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use r58_actors::GuestError;
use r58_actors::guest::GetSeats;
use r58_pipelines::ice::{self, IceServer};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::access::bearer;
use super::super::signalling::{BODY_LIMIT, SignalRequest, SignalResponse, refused};
use super::{Face, may_watch, shut};
use crate::problem::{Answer, Problem};

pub fn routes(config: &mut web::ServiceConfig) {
    for path in ["/whip/{seat}", "/whip/{seat}/{session}", "/whep/{name}", "/whep/{name}/{session}"] {
        config.service(web::resource(path).default_service(web::to(signal)));
    }
    config.route("/api/seats", web::get().to(seats)).route("/api/turn-credentials", web::get().to(turn_credentials));
}

async fn signal(face: web::Data<Face>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let answer = face.signalling.handle(order(&face, &request), whole(body)).await;
    sent(answer)
}

/// What the handlers without a transport are handed.
pub(super) fn order(face: &Face, request: &HttpRequest) -> SignalRequest {
    // More than one line of a header says the same as one with commas (RFC 9110, section 5.3).
    let text = |name: HeaderName| {
        let values: Vec<&str> = request.headers().get_all(name).filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    SignalRequest {
        method: request.method().as_str().to_owned(),
        path: request.path().to_owned(),
        content_type: text(CONTENT_TYPE),
        authorization: text(AUTHORIZATION),
        if_match: text(IF_MATCH),
        client: face.client(request),
        crew: face.access.crew(request),
        token: web::Query::<Token>::from_query(request.query_string()).ok().and_then(|query| query.token.clone()),
    }
}

/// A body, if it is not too large.
pub(super) async fn whole(body: web::Payload) -> Result<Vec<u8>, Problem> {
    let too_large = || Problem::with_status(413, format!("a body has at most {BODY_LIMIT} bytes"));
    let bytes = body.to_bytes_limited(BODY_LIMIT).await.map_err(|_| too_large())?;
    bytes.map(|bytes| bytes.to_vec()).map_err(|_| Problem::bad_request("the body broke off"))
}

/// An answer as HTTP.
pub(super) fn sent(answer: SignalResponse) -> HttpResponse {
    let mut response = HttpResponse::build(actix_web::http::StatusCode::from_u16(answer.status).unwrap_or_default());
    for (name, value) in answer.headers {
        response.append_header((name, value));
    }
    response.body(answer.body)
}

/// For clients that cannot set headers.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
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

/// For a guest with a seat's token, a viewer with one, and for the crew. Whoever asks is likely to join, so a peer is made ready.
async fn turn_credentials(face: web::Data<Face>, request: HttpRequest) -> Answer {
    match bearer(&request) {
        Some(token) if face.device.book.opens(&token).is_ok() => face.access.same_origin(&request)?,
        Some(token) if may_watch(&face, &request, None, Some(&token)).is_ok() => {}
        Some(_) => return Err(refused(&GuestError::BadToken)),
        None => face.access.crew(&request)?,
    }
    let snapshot = face.ice.borrow().clone();
    face.device.peers.warm(&face.peer_ice.borrow().servers);
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
