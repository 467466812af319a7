//! The HTTP carrier of the guest desk: invitations and guests for the crew, and how it stands for a guest's own page.

use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};

use super::super::guest_desk::{BODY_LIMIT, DeskRequest};
use super::super::signalling::SignalResponse;
use super::{Face, webrtc};
use crate::pages::{self, PageSet};
use crate::problem::Problem;

/// Who makes an invitation at the box itself.
const CREW: &str = "crew";

pub fn routes(config: &mut web::ServiceConfig) {
    for path in
        ["/guest/{name}", "/api/invitations", "/api/invitations/{id}", "/api/guests", "/api/guests/{seat}/{order}"]
    {
        config.service(web::resource(path).default_service(web::to(desk)));
    }
    config.route("/join/{invitation}", web::get().to(join));
}

/// Open to all, as the page of a seat's own link: what a guest may do is decided by the token that the page sends.
async fn join(request: HttpRequest) -> HttpResponse {
    pages::serve(PageSet::Device, "guest_join.html", &request)
}

async fn desk(face: web::Data<Face>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let answer = match read(&face, &request, body).await {
        Ok(body) => {
            let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            let order = DeskRequest {
                method: request.method().as_str(),
                path: request.path(),
                authorization,
                body: &body,
                crew: face.access.crew(&request).map(|()| CREW.to_owned()),
            };
            face.desk.handle(order).await
        }
        Err(problem) => SignalResponse::from(problem),
    };
    webrtc::sent(answer)
}

/// The body, from whom it may come: a guest within its rate, or the crew.
async fn read(face: &Face, request: &HttpRequest, body: web::Payload) -> Result<Vec<u8>, Problem> {
    if request.path().starts_with("/guest/") {
        face.signalling.count(&face.client(request))?;
        return Ok(Vec::new());
    }
    face.access.crew(request)?;
    let too_large = || Problem::with_status(413, format!("a body has at most {BODY_LIMIT} bytes"));
    let bytes = body.to_bytes_limited(BODY_LIMIT).await.map_err(|_| too_large())?;
    let bytes = bytes.map_err(|_| Problem::bad_request("the body broke off"))?;
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let json = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if request.method() == Method::POST && !bytes.is_empty() && !json {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is application/json"));
    }
    Ok(bytes.to_vec())
}
