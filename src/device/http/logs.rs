//! The box's own log for its crew.

use actix_web::{HttpRequest, HttpResponse, web};
use r58_actors::logs::query::LogQuery;

use super::Face;
use crate::problem::Answer;

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/api/logs", web::get().to(page));
}

/// `?since&until&level&actor&limit&cursor`
async fn page(face: web::Data<Face>, request: HttpRequest, query: web::Query<LogQuery>) -> Answer {
    face.access.crew(&request)?;
    let page = face.logs.page(query.into_inner()).await?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(page))
}
