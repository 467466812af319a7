//! What every request passes: no foreign page may make a browser act here, and every answer says how it may be used.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError, web};

use crate::fleet::state::Fleet;
use crate::problem::Problem;

/// A year (RFC 6797 gives no figure; browsers' preload lists ask for this one).
const HSTS: &str = "max-age=31536000";

/// The one middleware of the server.
///
/// # Errors
/// None of its own; a refusal is an answer.
pub async fn gate<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody + use<B>>, Error> {
    let begun = Instant::now();
    let places = request.app_data::<web::Data<Fleet>>().map(|fleet| &fleet.places);
    let https = places.is_some_and(|places| places.https);
    let public_url = places.and_then(|places| places.public_url.clone()).unwrap_or_default();
    let mut response = if is_foreign(request.method(), request.headers(), &public_url) {
        let problem = Problem::forbidden("this request comes from a page of another origin");
        let response = problem.error_response();
        request.into_response(response).map_into_right_body()
    } else {
        match next.call(request).await {
            Ok(response) => response.map_into_left_body(),
            Err(error) => return Err(error),
        }
    };
    let asked = response.request();
    if let Some(fleet) = asked.app_data::<web::Data<Fleet>>() {
        let route = asked.match_pattern();
        fleet.meters.answered(asked.method(), route.as_deref(), response.status(), begun.elapsed());
    }
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    default(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    default(X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(X_FRAME_OPTIONS, "DENY");
    default(REFERRER_POLICY, "no-referrer");
    default(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    default(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    default(CACHE_CONTROL, "no-store");
    if https || public_url.starts_with("https:") {
        default(STRICT_TRANSPORT_SECURITY, HSTS);
    }
    Ok(response)
}

/// A request that changes something and names an origin other than ours.
fn is_foreign(method: &Method, headers: &HeaderMap, public_url: &str) -> bool {
    if method.is_safe() {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let Ok(origin) = origin.to_str() else { return true };
    if origin == public_url {
        return false;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match origin.split_once("://") {
        Some((_, authority)) => host != Some(authority),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            map.insert(ORIGIN, origin.parse().unwrap());
        }
        map
    }

    #[test]
    fn only_pages_of_our_own_origin_may_change_things() {
        let foreign = |method: &Method, host: &str, origin: Option<&str>| {
            is_foreign(method, &headers(host, origin), "https://fleet.example")
        };
        assert!(!foreign(&Method::POST, "127.0.0.1:8180", None), "a program sends no origin");
        assert!(!foreign(&Method::POST, "127.0.0.1:8180", Some("http://127.0.0.1:8180")));
        assert!(!foreign(&Method::POST, "inner:80", Some("https://fleet.example")), "behind a proxy");
        assert!(foreign(&Method::POST, "127.0.0.1:8180", Some("http://evil.example")));
        assert!(foreign(&Method::DELETE, "127.0.0.1:8180", Some("null")));
        assert!(!foreign(&Method::GET, "127.0.0.1:8180", Some("http://evil.example")));
    }
}
