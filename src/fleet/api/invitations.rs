//! Invitations to a box and its guests, for operators: signed requests to the box, which keeps them. A link is told once.

use actix_web::http::StatusCode;
use actix_web::http::header::HOST;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::Utc;
use r58_actors::caller::Ask;
use r58_mqtt::payload::{Method, Response};
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::devices::no_such_device;
use super::problem::{ProblemBody, store_problem};
use super::resource;
use super::whep::{away, passed_on, segment};
use crate::fleet::auth::{Operator, Session};
use crate::fleet::state::Fleet;
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/devices/{id}/invitations", "GET, POST").route(web::get().to(list)).route(web::post().to(create)),
        )
        .service(resource("/devices/{id}/invitations/{invitation}", "DELETE").route(web::delete().to(revoke)))
        .service(resource("/devices/{id}/guests", "GET").route(web::get().to(guests)))
        .service(resource("/devices/{id}/guests/{seat}/{order}", "POST").route(web::post().to(order)));
}

/// Whom to invite.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The box's seat.
    seat: String,
    /// What the guest is called on the programme.
    #[schema(max_length = 60)]
    name: String,
    /// Life in seconds; a day unless given, 90 days at most.
    #[schema(minimum = 1, maximum = 7_776_000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_seconds: Option<u32>,
    /// `single` or `repeated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<String>,
    /// `auto`, `direct`, `turn` or `sfu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    road: Option<String>,
    /// Whether the guest waits until the crew lets it in; it does unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    admit: Option<bool>,
}

/// Makes an invitation; the answer holds its link, which nobody is told again.
#[utoipa::path(post, path = "/api/v1/devices/{id}/invitations", tag = "invitations", security(("user" = [])),
    params(("id" = String, Path)), request_body = Invite, responses((status = 201, body = Object),
    (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody), (status = 504, body = ProblemBody)))]
pub async fn create(
    fleet: web::Data<Fleet>,
    caller: Operator,
    request: HttpRequest,
    device: web::Path<String>,
    body: web::Json<Invite>,
) -> Answer {
    let mut body = json!(body.into_inner());
    body["created_by"] = json!(caller.email);
    let whom =
        format!("{} for {}", body["name"].as_str().unwrap_or_default(), body["seat"].as_str().unwrap_or_default());
    note(&fleet, &caller, &device, "guest.invite", whom).await?;
    let answer = ask(&fleet, &caller, &device, Method::Post, "/api/invitations".into(), body.to_string()).await?;
    if answer.status != StatusCode::CREATED.as_u16() {
        return Ok(passed_on(answer, |_| None));
    }
    let foreign = || Problem::new(StatusCode::BAD_GATEWAY, "the box's answer cannot be read");
    let mut made: Value = serde_json::from_str(&answer.body).map_err(|_| foreign())?;
    let (id, token) = (made["id"].as_str(), made["token"].as_str());
    let (id, token) = id.zip(token).ok_or_else(foreign)?;
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let link = format!("{}/join/{id}.{device}#{token}", fleet.places.public_url(host));
    let place = format!("/api/v1/devices/{device}/invitations/{id}");
    tracing::info!(device = %device, invitation = id, by = caller.email, "invitation made");
    made["box_url"] = made["join_url"].take();
    made["join_url"] = json!(link);
    if let Some(fields) = made.as_object_mut() {
        fields.remove("fleet_join_url");
    }
    Ok(HttpResponse::Created().insert_header(("Location", place)).json(made))
}

/// A box's invitations, newest first, without what opens them.
#[utoipa::path(get, path = "/api/v1/devices/{id}/invitations", tag = "invitations", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Object), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody),
    (status = 504, body = ProblemBody)))]
pub async fn list(fleet: web::Data<Fleet>, caller: Operator, device: web::Path<String>) -> Answer {
    pass(&fleet, &caller, &device, Method::Get, "/api/invitations".into(), String::new()).await
}

/// Takes an invitation back; its guest, if in, stays.
#[utoipa::path(delete, path = "/api/v1/devices/{id}/invitations/{invitation}", tag = "invitations",
    security(("user" = [])), params(("id" = String, Path), ("invitation" = String, Path)), responses((status = 204),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
    (status = 503, body = ProblemBody), (status = 504, body = ProblemBody)))]
pub async fn revoke(fleet: web::Data<Fleet>, caller: Operator, path: web::Path<(String, String)>) -> Answer {
    let (device, invitation) = path.into_inner();
    let path = format!("/api/invitations/{}", segment(&invitation)?);
    note(&fleet, &caller, &device, "guest.revoke", invitation).await?;
    pass(&fleet, &caller, &device, Method::Delete, path, String::new()).await
}

/// A box's seats and who sits there.
#[utoipa::path(get, path = "/api/v1/devices/{id}/guests", tag = "invitations", security(("user" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Object), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 503, body = ProblemBody),
    (status = 504, body = ProblemBody)))]
pub async fn guests(fleet: web::Data<Fleet>, caller: Operator, device: web::Path<String>) -> Answer {
    pass(&fleet, &caller, &device, Method::Get, "/api/guests".into(), String::new()).await
}

/// Lets a guest in (`admit`), or not (`refuse`), puts it out (`remove`), or changes `mute`, `level` or name (`rename`).
#[utoipa::path(post, path = "/api/v1/devices/{id}/guests/{seat}/{order}", tag = "invitations", security(("user" = [])),
    params(("id" = String, Path), ("seat" = String, Path), ("order" = String, Path)), request_body = Object,
    responses((status = 200, body = Object), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
    (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 503, body = ProblemBody),
    (status = 504, body = ProblemBody)))]
pub async fn order(
    fleet: web::Data<Fleet>,
    caller: Operator,
    path: web::Path<(String, String, String)>,
    body: web::Json<Value>,
) -> Answer {
    let (device, seat, order) = path.into_inner();
    let path = format!("/api/guests/{}/{}", segment(&seat)?, segment(&order)?);
    note(&fleet, &caller, &device, "guest.order", format!("{order} {seat}")).await?;
    pass(&fleet, &caller, &device, Method::Post, path, body.to_string()).await
}

/// Notes what a box of the caller's organization is about to be asked: it keeps guests and invitations, not this database.
async fn note(
    fleet: &Fleet,
    caller: &Session,
    device: &str,
    action: &'static str,
    detail: String,
) -> Result<(), Problem> {
    known(fleet, caller, device).await?;
    fleet.store.note_act(&caller.actor(), action, device, Some(detail), Utc::now()).await.map_err(store_problem)
}

/// A box of the caller's organization that is connected.
async fn known(fleet: &Fleet, caller: &Session, device: &str) -> Result<DeviceAddress, Problem> {
    let row = fleet.store.device(&caller.org, device).await.map_err(store_problem)?.ok_or_else(no_such_device)?;
    let (org, device) = OrgId::new(&row.org).ok().zip(DeviceId::new(&row.id).ok()).ok_or_else(no_such_device)?;
    match row.presence == "online" {
        true => Ok(DeviceAddress { org, device }),
        false => Err(away(r58_mqtt::request::CallError::Offline)),
    }
}

async fn pass(fleet: &Fleet, caller: &Session, device: &str, method: Method, path: String, body: String) -> Answer {
    Ok(passed_on(ask(fleet, caller, device, method, path, body).await?, |_| None))
}

/// Asks a box of the caller's organization.
pub(super) async fn ask(
    fleet: &Fleet,
    caller: &Session,
    device: &str,
    method: Method,
    path: String,
    body: String,
) -> Result<Response, Problem> {
    let address = known(fleet, caller, device).await?;
    let content_type = (!body.is_empty()).then(|| "application/json".to_owned());
    let ask = Ask { method, path, content_type, authorization: None, if_match: None, body };
    fleet.broker.ask(address, ask).await.map_err(away)
}
