//! Requests and answers in the API's own form.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde_json::{Value, json};

use super::session::{self, Session};
use super::{APP_ID, Call, Fault, SECRET, Shared};

/// A status and a body.
pub type Reply = (u16, Value);

/// An error at the top of a reply.
pub fn error(status: u16, code: &str) -> Reply {
    (status, json!({ "errorCode": code, "errorDescription": format!("{code}, said the stand-in") }))
}

pub fn routes(config: &mut web::ServiceConfig) {
    config.default_service(web::to(serve));
}

async fn serve(shared: web::Data<Shared>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let line = format!("{} {}", request.method(), request.path());
    let (status, answer) = handle(shared.clone().into_inner(), &request, body).await;
    shared.log.lock().expect("log").push(format!("{line} {status}"));
    match answer {
        Answer::Json(value) => HttpResponse::build(code(status)).json(value),
        Answer::Text(text) => HttpResponse::build(code(status)).body(text),
        Answer::Lost => {
            let broken = std::io::Error::other("the line breaks");
            HttpResponse::Ok().streaming(tokio_stream::once(Err::<Bytes, std::io::Error>(broken)))
        }
    }
}

enum Answer {
    Json(Value),
    Text(&'static str),
    Lost,
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}

async fn handle(shared: Arc<Shared>, request: &HttpRequest, body: Bytes) -> (u16, Answer) {
    let plain = |(status, value): Reply| (status, Answer::Json(value));
    let bearer = request.headers().get("Authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if bearer != format!("Bearer {SECRET}") {
        return plain(error(401, "unauthorized"));
    }
    let Some(path) = request.path().strip_prefix(&format!("/v1/apps/{APP_ID}/sessions/")) else {
        return plain(error(404, "app_not_found"));
    };
    let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    let asked = match (request.method().as_str(), parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        ("POST", ["new"]) => Call::New,
        ("POST", [_, "tracks", "new"]) if is_pull(&body) => Call::Pull,
        ("POST", [_, "tracks", "new"]) => Call::Push,
        ("PUT", [_, "renegotiate"]) => Call::Renegotiate,
        ("PUT", [_, "tracks", "close"]) => Call::Close,
        ("GET", [_]) => Call::Look,
        _ => return plain(error(404, "not_found")),
    };
    let fault = shared.faults.lock().expect("faults").get_mut(&asked).and_then(|queue| queue.pop_front());
    let bad_track = match fault {
        Some(Fault::Status(status, text)) => return (status, Answer::Text(text)),
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            None
        }
        Some(Fault::Track(name, code)) => Some((name, code)),
        Some(Fault::LostReply) | None => None,
    };
    let worker = shared.clone();
    // The peers' tasks live on the stand-in's own runtime, whatever becomes of this request.
    let work = shared.runtime.spawn(async move { carry_out(&worker, asked, &parts[0], &body, bad_track).await });
    let (status, value) = work.await.expect("the work");
    if matches!(fault, Some(Fault::LostReply)) {
        return (status, Answer::Lost);
    }
    (status, Answer::Json(value))
}

/// A batch is all local or all remote.
fn is_pull(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["tracks"][0]["location"] == "remote"
}

async fn carry_out(
    shared: &Arc<Shared>,
    asked: Call,
    id: &str,
    body: &[u8],
    bad_track: Option<(&'static str, &'static str)>,
) -> Reply {
    if asked == Call::New {
        if !body.is_empty() {
            return error(400, "invalid_request");
        }
        let mut sessions = shared.sessions.lock().expect("sessions");
        let id = format!("session{:04}", sessions.len() + 1);
        sessions.insert(id.clone(), Arc::new(Session::new(&id)));
        return (201, json!({ "sessionId": id }));
    }
    let session = shared.sessions.lock().expect("sessions").get(id).cloned();
    let Some(session) = session else { return error(404, "session_not_found") };
    if session.is_gone() {
        return error(410, "session_gone");
    }
    if asked == Call::Look {
        return (200, session.report().await);
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return error(400, "invalid_request") };
    let tracks = body["tracks"].as_array().cloned().unwrap_or_default();
    if matches!(asked, Call::Push | Call::Pull) {
        let location = if asked == Call::Pull { "remote" } else { "local" };
        let mixed = tracks.iter().any(|track| track["location"] != location);
        if tracks.is_empty() || tracks.len() > 64 || mixed {
            return error(400, "invalid_request");
        }
    }
    // One change at a time.
    let Ok(mut link) = session.link.clone().try_lock_owned() else { return error(406, "session_busy") };
    match asked {
        Call::Push if link.awaits_answer => error(406, "awaiting_answer"),
        Call::Push => session::push(shared, &session, &mut link, &body, &tracks, bad_track).await,
        Call::Pull if link.awaits_answer => error(406, "awaiting_answer"),
        Call::Pull if !body["sessionDescription"].is_null() => error(400, "invalid_request"),
        Call::Pull => session::pull(shared, &session, &mut link, &tracks, bad_track).await,
        Call::Renegotiate => session::renegotiate(&mut link, &body).await,
        Call::Close if link.awaits_answer => error(406, "awaiting_answer"),
        Call::Close if body["force"] != true => error(400, "offer_required"),
        Call::Close => session::close(&mut link, &tracks).await,
        Call::New | Call::Look => unreachable!("answered above"),
    }
}

/// The text of a description of this type, if it is one: the last line end belongs to it.
pub fn sdp<'a>(body: &'a Value, kind: &str) -> Option<&'a str> {
    let description = &body["sessionDescription"];
    description["sdp"].as_str().filter(|sdp| description["type"] == kind && sdp.ends_with("\r\n"))
}
