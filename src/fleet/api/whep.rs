//! `/whep/{device}/{name}`: what a box shows, for people who are signed in. The exchange is carried over the broker, the
//! media flow between browser and box, directly or by TURN.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, IF_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use r58_actors::caller::Ask;
use r58_mqtt::payload::{Method, Response};
use r58_mqtt::request::CallError;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};

use super::devices::no_such_device;
use super::problem::store_problem;
use super::resource;
use crate::fleet::auth::Viewer;
use crate::fleet::state::Fleet;
use crate::problem::{Answer, Problem};

/// Headers of a box's answer that are passed on.
const PASSED: [&str; 9] = [
    "content-type",
    "etag",
    "link",
    "retry-after",
    "accept-post",
    "accept-patch",
    "allow",
    "cache-control",
    "www-authenticate",
];

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/whep/{device}/{name}", "POST").route(web::post().to(begin))).service(
        resource("/whep/{device}/{name}/{session}", "PATCH, DELETE")
            .route(web::patch().to(change))
            .route(web::delete().to(end)),
    );
}

async fn begin(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    offer: String,
) -> Answer {
    let (device, name) = path.into_inner();
    let path = format!("/whep/{}", segment(&name)?);
    carry(&fleet, &caller, &request, &device, Method::Post, path, offer).await
}

async fn change(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
    fragment: String,
) -> Answer {
    let (device, name, session) = path.into_inner();
    let path = format!("/whep/{}/{}", segment(&name)?, segment(&session)?);
    carry(&fleet, &caller, &request, &device, Method::Patch, path, fragment).await
}

async fn end(
    fleet: web::Data<Fleet>,
    caller: Viewer,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
) -> Answer {
    let (device, name, session) = path.into_inner();
    let path = format!("/whep/{}/{}", segment(&name)?, segment(&session)?);
    carry(&fleet, &caller, &request, &device, Method::Delete, path, String::new()).await
}

/// Names of inputs and of sessions, which a box writes without anything that needs an escape.
pub(super) fn segment(text: &str) -> Result<&str, Problem> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) && !text.starts_with('.');
    (plain && !text.is_empty() && text.len() <= 64).then_some(text).ok_or_else(|| Problem::not_found("no such stream"))
}

async fn carry(
    fleet: &Fleet,
    caller: &Viewer,
    request: &HttpRequest,
    device: &str,
    method: Method,
    path: String,
    body: String,
) -> Answer {
    let row = fleet.store.device(&caller.org, device).await.map_err(store_problem)?.ok_or_else(no_such_device)?;
    let known = OrgId::new(&row.org).ok().zip(DeviceId::new(&row.id).ok()).ok_or_else(no_such_device)?;
    let address = DeviceAddress { org: known.0, device: known.1 };
    if row.presence != "online" {
        return Err(away(CallError::Offline));
    }
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let ask = Ask {
        method,
        path,
        content_type: text(CONTENT_TYPE),
        // The caller's own pass opens this server, and is nobody else's business.
        authorization: None,
        if_match: text(IF_MATCH),
        body,
    };
    let answer = fleet.broker.ask(address, ask).await.map_err(away)?;
    Ok(passed_on(answer, |location| Some(format!("/whep/{device}/{}", location.strip_prefix("/whep/")?))))
}

/// Why a box did not answer, in the words of HTTP.
pub(super) fn away(error: CallError) -> Problem {
    let status = match error {
        CallError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        CallError::Unsendable => StatusCode::PAYLOAD_TOO_LARGE,
        CallError::Offline | CallError::Busy | CallError::BrokerAway => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, error.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        problem.retry_after(std::time::Duration::from_secs(5))
    } else {
        problem
    }
}

/// The box's answer; `located` says where this server has what the box has at a place, none for what it has not.
pub(super) fn passed_on(answer: Response, located: impl Fn(&str) -> Option<String>) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).ok().filter(|status| !status.is_informational());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::BAD_GATEWAY));
    for (name, value) in answer.headers {
        let name = name.to_ascii_lowercase();
        if name == "location" {
            if let Some(place) = located(&value) {
                response.insert_header(("Location", place));
            }
        } else if PASSED.contains(&name.as_str()) {
            response.append_header((name, value));
        }
    }
    response.body(answer.body)
}
