//! The dashboard: one page for `/`, every `/devices/...` and the places beside them, and its assets.

use actix_web::{HttpRequest, HttpResponse, web};

use super::resource;
use crate::pages::{PageSet, serve};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(resource("/", "GET").route(web::get().to(index)))
        .service(resource("/alerts", "GET").route(web::get().to(index)))
        .service(resource("/devices", "GET").route(web::get().to(index)))
        .service(resource("/{page:map|releases|users|audit}", "GET").route(web::get().to(index)))
        .service(resource("/devices/{rest:.*}", "GET").route(web::get().to(index)))
        .service(resource("/assets/{name:.*}", "GET").route(web::get().to(asset)));
}

async fn index(request: HttpRequest) -> HttpResponse {
    serve(PageSet::Fleet, "index.html", &request)
}

async fn asset(name: web::Path<String>, request: HttpRequest) -> HttpResponse {
    serve(PageSet::Fleet, &format!("assets/{name}"), &request)
}
