//! Viewers from outside: their page, and the tokens that the crew gives them.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{Duration, Utc};
use r58_actors::viewers::PROGRAMME;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::seats::encoded;
use super::super::viewer_tokens::{ANY, LIFE, ViewerToken};
use super::Face;
use crate::pages::{self, PageSet};
use crate::problem::{Answer, Problem};

/// A token's life when nobody says otherwise: a day, in seconds.
const USUAL_LIFE: i64 = 86_400;
/// Longest label, in characters.
const LABEL: usize = 64;
/// Most names in a token: more than there can be streams.
const NAMES: usize = 32;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/watch/{name}", web::get().to(page))
        .route("/api/viewer-tokens", web::post().to(issue))
        .route("/api/viewer-tokens", web::get().to(list))
        .route("/api/viewer-tokens", web::delete().to(revoke_all))
        .route("/api/viewer-tokens/{id}", web::delete().to(revoke));
}

/// Open to all: what may be watched is decided by the token that the page sends, or the crew's password.
async fn page(request: HttpRequest) -> HttpResponse {
    pages::serve(PageSet::Device, "watch.html", &request)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Whom it is for.
    #[serde(default)]
    label: String,
    /// What it opens; the programme when absent.
    names: Option<Vec<String>>,
    /// How long it is good.
    expires_in_s: Option<i64>,
}

async fn issue(face: web::Data<Face>, request: HttpRequest, order: web::Json<Order>) -> Answer {
    face.access.crew(&request)?;
    let Order { label, names, expires_in_s } = order.into_inner();
    let names = names.unwrap_or_else(|| vec![PROGRAMME.to_owned()]);
    let life = expires_in_s.unwrap_or(USUAL_LIFE);
    let wrong = |sentence: String| Err(Problem::with_status(422, sentence));
    if label.chars().count() > LABEL || label.chars().any(char::is_control) {
        return wrong(format!("label has at most {LABEL} characters"));
    }
    if !LIFE.contains(&life) {
        return wrong(format!("expires_in_s is from {} to {}", LIFE.start(), LIFE.end()));
    }
    if names.is_empty() || names.len() > NAMES {
        return wrong(format!("names has 1 to {NAMES} entries"));
    }
    let known = |name: &String| name == ANY || name == PROGRAMME || face.device.studio.input(name).is_some();
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return wrong(format!("there is nothing named {unknown:?} to watch"));
    }
    if let Some(seat) = names.iter().find(|name| face.viewers.is_seat(name)) {
        return wrong(format!(
            "{seat} is a guest's own picture, for the crew alone: others see guests in the programme"
        ));
    }
    let first = if names[0] == ANY { PROGRAMME.to_owned() } else { names[0].clone() };
    let (token, word) = face.viewers.issue(label, names, Utc::now(), Duration::seconds(life)).await?;
    let mut answer = described(&token);
    answer["watch_url"] = json!(format!("{}watch/{}?token={word}", face.base_url, encoded(&first)));
    answer["hls_url"] = json!(format!("{}hls/{}/index.m3u8?token={word}", face.base_url, encoded(&first)));
    answer["token"] = json!(word);
    Ok(HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(answer))
}

async fn list(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    let items: Vec<Value> = face.viewers.list(Utc::now()).iter().map(described).collect();
    Ok(HttpResponse::Ok().json(json!({ "items": items })))
}

async fn revoke(face: web::Data<Face>, request: HttpRequest, id: web::Path<String>) -> Answer {
    face.access.crew(&request)?;
    face.viewers.revoke(&id).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn revoke_all(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    face.viewers.revoke_all().await?;
    Ok(HttpResponse::NoContent().finish())
}

fn described(token: &ViewerToken) -> Value {
    json!(token)
}
