//! Scenes, takes, cameras and small pictures.

use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use r58_actors::ActorsError;
use r58_actors::camera::{GetSignal, Rehearse, RehearsedFault};
use r58_actors::mixer::core::TakeKind;
use r58_actors::mixer::{GetMixer, MixerReport, SetPreview, TakeScene, Transition};
use serde::Deserialize;
use serde_json::json;

use super::{Face, refused, shut};
use crate::problem::{Answer, Problem};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/mixer/status", web::get().to(status))
        .route("/api/mixer/set_scene", web::post().to(set_scene))
        .route("/api/mixer/transition", web::post().to(transition))
        .route("/api/mixer/take", web::post().to(take))
        .route("/api/scenes", web::get().to(scenes))
        .route("/api/scenes/{id}", web::get().to(scene))
        .route("/api/cameras/{id}/signal", web::get().to(signal))
        .route("/api/cameras/{id}/rehearse", web::post().to(rehearse))
        .route("/api/thumbnails/{name}", web::get().to(thumbnail));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SceneChoice {
    scene: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    kind: String,
    duration_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeOrder {
    scene: String,
    kind: String,
    duration_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    fault: RehearsedFault,
}

async fn status(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    let report = face.device.mixer.status.send(GetMixer).await.map_err(|error| shut(&error))?;
    Ok(HttpResponse::Ok().json(report))
}

async fn set_scene(face: web::Data<Face>, request: HttpRequest, body: web::Json<SceneChoice>) -> Answer {
    face.access.crew(&request)?;
    let order = SetPreview { scene: body.into_inner().scene };
    reported(face.device.mixer.set_preview.send(order).await.map_err(|error| shut(&error))?)
}

async fn transition(face: web::Data<Face>, request: HttpRequest, body: web::Json<How>) -> Answer {
    face.access.crew(&request)?;
    let order = Transition { kind: kind(&body.kind, body.duration_ms)? };
    reported(face.device.mixer.transition.send(order).await.map_err(|error| shut(&error))?)
}

async fn take(face: web::Data<Face>, request: HttpRequest, body: web::Json<TakeOrder>) -> Answer {
    face.access.crew(&request)?;
    let kind = kind(&body.kind, body.duration_ms)?;
    let order = TakeScene { scene: body.into_inner().scene, kind };
    reported(face.device.mixer.take.send(order).await.map_err(|error| shut(&error))?)
}

fn kind(word: &str, duration_ms: Option<u64>) -> Result<TakeKind, Problem> {
    TakeKind::parse(word, duration_ms).map_err(|refusal| refused(&ActorsError::from(refusal)))
}

fn reported(report: Result<MixerReport, ActorsError>) -> Answer {
    let report = report.map_err(|error| refused(&error))?;
    Ok(HttpResponse::Ok().json(report))
}

async fn scenes(face: web::Data<Face>, request: HttpRequest) -> Answer {
    face.access.crew(&request)?;
    Ok(HttpResponse::Ok().json(json!({ "items": face.device.scenes.all() })))
}

async fn scene(face: web::Data<Face>, request: HttpRequest, id: web::Path<String>) -> Answer {
    face.access.crew(&request)?;
    let scene = face.device.scenes.all().iter().find(|scene| scene.id == *id);
    let scene = scene.ok_or_else(|| Problem::not_found(format!("no scene named {id:?}")))?;
    Ok(HttpResponse::Ok().json(scene))
}

async fn signal(face: web::Data<Face>, request: HttpRequest, id: web::Path<String>) -> Answer {
    face.access.crew(&request)?;
    let camera = face.device.cameras.get(id.as_str()).ok_or_else(|| no_camera(&id))?;
    let report = camera.signal.send(GetSignal).await.map_err(|error| shut(&error))?;
    Ok(HttpResponse::Ok().json(report))
}

async fn rehearse(
    face: web::Data<Face>,
    request: HttpRequest,
    id: web::Path<String>,
    body: web::Json<FaultOrder>,
) -> Answer {
    face.access.crew(&request)?;
    let camera = face.device.cameras.get(id.as_str()).ok_or_else(|| no_camera(&id))?;
    let order = Rehearse { fault: body.fault };
    match camera.rehearse.send(order).await {
        Ok(done) => done.map_err(|error| refused(&error))?,
        // The actor was asked to panic; that it died on the order is the order carried out.
        Err(r58_actors::DoorError::Interrupted(_)) if body.fault == RehearsedFault::Panic => {}
        Err(error) => return Err(shut(&error)),
    }
    Ok(HttpResponse::NoContent().finish())
}

fn no_camera(id: &str) -> Problem {
    Problem::not_found(format!("no camera named {id:?}"))
}

async fn thumbnail(face: web::Data<Face>, request: HttpRequest, name: web::Path<String>) -> Answer {
    face.access.crew(&request)?;
    let name = name.strip_suffix(".jpg").unwrap_or(&name);
    let picture =
        face.device.thumbnails.latest(name).ok_or_else(|| Problem::not_found(format!("no picture of {name:?}")))?;
    let etag = format!("\"{}\"", picture.seq);
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((ETAG, etag)).insert_header((CACHE_CONTROL, "no-cache"));
    if known {
        return Ok(response.finish());
    }
    Ok(response.content_type("image/jpeg").body(picture.jpeg))
}
