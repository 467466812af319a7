//! What stands beside the API: health, TURN credentials, and the API's description.

use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use r58_pipelines::ice::IceServer;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::openapi::Description;
use super::problem::ProblemBody;
use super::resource;
use crate::fleet::auth::{DeviceCaller, session};
use crate::fleet::state::Fleet;
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/health", "GET").route(web::get().to(health)))
        .service(resource("/turn-credentials", "GET").route(web::get().to(turn_credentials)))
        .service(resource("/openapi.json", "GET").route(web::get().to(description)));
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    status: &'static str,
    /// `r58-fleet`.
    service: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    /// Units on the WebSocket bridge.
    units: usize,
    /// Their controllers.
    controllers: usize,
}

/// One entry of ICE servers, as browsers take it.
#[derive(Serialize, ToSchema)]
pub struct IceEntry {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

impl From<IceServer> for IceEntry {
    fn from(server: IceServer) -> Self {
        Self { urls: server.urls, username: server.username, credential: server.credential }
    }
}

/// An object where one credential covers all, else a list.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum IceAnswer {
    /// All URLs with their one credential.
    One(IceEntry),
    /// Several.
    Many(Vec<IceEntry>),
}

/// ICE servers and until when they are good.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnCredentials {
    ice_servers: IceAnswer,
    expires_at: DateTime<Utc>,
    /// `cloudflare`, `shared-secret` or `stun`.
    provider: String,
}

/// Whether the server works: it does when its database answers.
#[utoipa::path(get, path = "/health", tag = "public", responses((status = 200, body = Health),
    (status = 503, body = ProblemBody)))]
pub async fn health(fleet: web::Data<Fleet>) -> Answer {
    if let Err(error) = fleet.store.ping().await {
        tracing::error!(%error, "the database does not answer");
        return Err(Problem::unavailable("the database does not answer"));
    }
    let (units, controllers) = fleet.switchboard.counts();
    Ok(HttpResponse::Ok().json(Health {
        units,
        controllers,
        status: "ok",
        service: "r58-fleet",
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: fleet.started.elapsed().as_secs(),
    }))
}

/// ICE servers, for a device that is registered or a user who is signed in.
#[utoipa::path(get, path = "/turn-credentials", tag = "public",
    security(("user" = []), ("device_token" = [])), responses((status = 200, body = TurnCredentials),
    (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn turn_credentials(request: HttpRequest, fleet: web::Data<Fleet>) -> Answer {
    let name = if request.headers().contains_key("X-Device-Token") {
        DeviceCaller::extract(&request).await?.id
    } else {
        session(&request).await?.user_id
    };
    let given = fleet.turn.give(&name, Utc::now()).await;
    Ok(HttpResponse::Ok().json(TurnCredentials {
        ice_servers: shaped(given.servers),
        expires_at: given.expires_at,
        provider: given.provider,
    }))
}

/// The one form that older boxes read is the object. STUN needs no credential, so its URLs can stand in the entry of the
/// only TURN server.
fn shaped(servers: Vec<IceServer>) -> IceAnswer {
    let credentials: Vec<&IceServer> = servers.iter().filter(|server| server.username.is_some()).collect();
    let mut pairs: Vec<_> = credentials.iter().map(|server| (&server.username, &server.credential)).collect();
    pairs.dedup();
    if pairs.len() > 1 {
        return IceAnswer::Many(servers.into_iter().map(IceEntry::from).collect());
    }
    let (username, credential) = pairs.first().map(|pair| (pair.0.clone(), pair.1.clone())).unwrap_or_default();
    IceAnswer::One(IceEntry {
        urls: servers.into_iter().flat_map(|server| server.urls).collect(),
        username,
        credential,
    })
}

/// This description.
pub async fn description() -> HttpResponse {
    HttpResponse::Ok().json(Description::openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_credential_is_answered_as_an_object_and_several_as_a_list() {
        let stun = IceServer::stun("stun:s");
        let (a, b) = (IceServer::turn("turn:a", "u", "p"), IceServer::turn("turn:b", "v", "q"));
        let one = serde_json::to_value(shaped(vec![stun.clone(), a.clone()])).unwrap();
        assert_eq!(one, serde_json::json!({"urls": ["stun:s", "turn:a"], "username": "u", "credential": "p"}));
        assert!(serde_json::to_value(shaped(vec![a, b])).unwrap().is_array());
        assert_eq!(serde_json::to_value(shaped(vec![stun])).unwrap(), serde_json::json!({"urls": ["stun:s"]}));
        assert_eq!(serde_json::to_value(shaped(vec![])).unwrap(), serde_json::json!({"urls": []}));
    }
}
