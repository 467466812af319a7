//! The HTTP carrier of guests by way of the SFU.

use actix_web::{HttpRequest, HttpResponse, web};

use super::Face;
use super::webrtc::{order, sent, whole};

pub fn routes(config: &mut web::ServiceConfig) {
    for path in [
        "/api/calls/whip/{guest}",
        "/api/calls/whip/{guest}/{session}",
        "/api/calls/session/{guest}",
        "/api/calls/sessions",
    ] {
        config.service(web::resource(path).default_service(web::to(call)));
    }
}

async fn call(face: web::Data<Face>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    sent(face.calls.handle(order(&face, &request), whole(body)).await)
}
