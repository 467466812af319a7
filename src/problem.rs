//! Errors as people and programs get them over HTTP: RFC 9457 `application/problem+json`, on both sides.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use serde::Serialize;

/// Largest JSON body that either side reads, in bytes.
pub const JSON_LIMIT: usize = 256 * 1024;

/// One problem; `detail` is for the caller and holds no secret.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(&'static str, HeaderValue)>,
}

/// The members of RFC 9457, section 3.1.
#[derive(Debug, Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// Its media type (RFC 9457, section 3).
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// A problem with its HTTP status and a sentence for the caller.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new() }
    }

    /// The same from a number; 500 when there is no such status.
    pub fn with_status(status: u16, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), detail)
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401, with the scheme that would be accepted.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).header("WWW-Authenticate", "Bearer")
    }

    /// 403: known, but not allowed.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: no such thing, or none that the caller may know of.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: the state of the thing stands against it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Adds a header; one that HTTP does not allow is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let (Ok(_), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.headers.push((name, value));
        }
        self
    }

    /// Adds `Retry-After` in whole seconds, at least 1.
    #[must_use]
    pub fn retry_after(self, wait: std::time::Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        self.header("Retry-After", &format!("{seconds:.0}"))
    }

    /// Its headers, without the content type.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().filter_map(|(name, value)| Some((*name, value.to_str().ok()?)))
    }

    /// Its body.
    pub fn to_json(&self) -> String {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        serde_json::to_string(&body).unwrap_or_else(|_| "{}".into())
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        for (name, value) in &self.headers {
            response.insert_header((*name, value.clone()));
        }
        response.content_type(Self::MEDIA_TYPE).body(self.to_json())
    }
}

/// Makes actix-web's own extractor failures problems too; every `App` of ours is configured with it.
pub fn extractors(config: &mut web::ServiceConfig) {
    let json = web::JsonConfig::default().limit(JSON_LIMIT).error_handler(|error, _: &HttpRequest| {
        let status = match &error {
            JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            JsonPayloadError::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, without_values(&error.to_string())).into()
    });
    let path = web::PathConfig::default()
        .error_handler(|error: PathError, _: &HttpRequest| Problem::not_found(error.to_string()).into());
    let query = web::QueryConfig::default().error_handler(|error: QueryPayloadError, _: &HttpRequest| {
        Problem::bad_request(without_values(&error.to_string())).into()
    });
    config.app_data(json).app_data(path).app_data(query);
}

/// What serde says of a body, without what stood in it: a password in the wrong place is still one, and errors are kept by others.
fn without_values(message: &str) -> String {
    let mut clean = message.to_owned();
    for (before, after) in [("unknown variant `", '`'), ("string \"", '"'), ("character `", '`')] {
        if let Some((head, rest)) = message.split_once(before) {
            // To the last one on purpose: the value may hold some itself. What is expected comes in other words.
            let expected = rest.find(", expected").unwrap_or(rest.len());
            let end = rest[..expected].rfind(after).unwrap_or(expected);
            clean = format!("{head}{before}...{}", &rest[end..]);
        }
    }
    clean
}

/// The answer to a path that nobody serves.
pub async fn no_such_path() -> Answer {
    Err(Problem::not_found("no such path"))
}

/// What a handler answers with.
pub type Answer = Result<HttpResponse, Problem>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_expected_and_not_what_came() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Role {
            Viewer,
        }
        let said = |text: &str| without_values(&serde_json::from_str::<Role>(text).unwrap_err().to_string());
        let role = said("\"sec`ret\"");
        assert!(role.starts_with("unknown variant `...`, expected `viewer`"), "{role}");
        let number = |text: &str| without_values(&serde_json::from_str::<u32>(text).unwrap_err().to_string());
        let number = number("\"sec\\\"ret\"");
        assert!(number.starts_with("invalid type: string \"...\", expected u32"), "{number}");
        assert!(matches!(serde_json::from_str("\"viewer\""), Ok(Role::Viewer)));
    }
}
