//! Who may call the box: the crew by password, guests by their seat's token, pages of our own origin only.
//!
//! Without a password the box listens on loopback alone (the configuration insists), and then the name in `Host`
//! must be a loopback name too, or a page of a stranger could reach it by rebinding its own name.

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HOST, ORIGIN};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// The rules, made once from the configuration.
#[derive(Debug, Clone)]
pub struct Access {
    /// Digest of `crew:password`, if the crew has a password.
    crew: Option<[u8; 32]>,
    /// Host and port of the configured public address.
    public_host: Option<String>,
}

impl Access {
    /// Rules from the configured password and public address.
    pub fn new(crew_password: Option<&str>, public_url: Option<&str>) -> Self {
        let public_host = public_url
            .and_then(|url| url.split_once("://"))
            .map(|(_, rest)| rest.split('/').next().unwrap_or(rest).to_ascii_lowercase());
        Self { crew: crew_password.map(|word| digest(format!("crew:{word}").as_bytes())), public_host }
    }

    /// Passes a request of the crew.
    ///
    /// # Errors
    /// 401 without the password, 403 from a foreign page or by a foreign name.
    pub fn crew(&self, request: &HttpRequest) -> Result<(), Problem> {
        self.same_origin(request)?;
        let Some(expected) = self.crew else { return Ok(()) };
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Basic "))
            .and_then(|word| STANDARD.decode(word.trim()).ok());
        // Digests are compared, so the time says nothing about the password.
        if given.is_some_and(|given| digest(&given) == expected) {
            return Ok(());
        }
        Err(Problem::new(actix_web::http::StatusCode::UNAUTHORIZED, "the crew's password is needed")
            .header("WWW-Authenticate", "Basic realm=\"R58 crew\", charset=\"UTF-8\""))
    }

    /// Passes a request of our own pages, or of a program that is no page at all.
    ///
    /// # Errors
    /// 403 from a foreign page, or by a foreign name while there is no password.
    pub fn same_origin(&self, request: &HttpRequest) -> Result<(), Problem> {
        let host =
            request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        if self.crew.is_none() && !self.is_known(&host) {
            return Err(Problem::forbidden("this box answers only to its own name"));
        }
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let Some(origin) = request.headers().get(ORIGIN).and_then(|origin| origin.to_str().ok()) else { return Ok(()) };
        let origin_host = origin.split_once("://").map_or("", |(_, host)| host).to_ascii_lowercase();
        if origin_host == host || self.public_host.as_deref() == Some(origin_host.as_str()) {
            return Ok(());
        }
        Err(Problem::forbidden("requests that change something must come from the box's own pages"))
    }

    fn is_known(&self, host: &str) -> bool {
        let name = host
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
            .unwrap_or_else(|| host.rsplit_once(':').map_or(host, |(name, _)| name));
        let loopback = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        loopback || self.public_host.as_deref() == Some(host)
    }
}

/// The word after `Bearer`, if any.
pub fn bearer(request: &HttpRequest) -> Option<String> {
    super::signalling::bearer(request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()))
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn status(access: &Access, request: TestRequest) -> u16 {
        access.crew(&request.to_http_request()).err().map_or(200, |problem| problem.status().as_u16())
    }

    #[test]
    fn without_a_password_only_loopback_names_are_answered() {
        let access = Access::new(None, None);
        for host in ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST"] {
            assert_eq!(status(&access, TestRequest::get().insert_header((HOST, host))), 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:8000", ""] {
            assert_eq!(status(&access, TestRequest::get().insert_header((HOST, host))), 403, "{host}");
        }
    }

    #[test]
    fn a_foreign_page_may_not_change_anything() {
        let access = Access::new(None, None);
        let post = || TestRequest::post().insert_header((HOST, "127.0.0.1:8000"));
        assert_eq!(status(&access, post()), 200);
        assert_eq!(status(&access, post().insert_header((ORIGIN, "http://127.0.0.1:8000"))), 200);
        assert_eq!(status(&access, post().insert_header((ORIGIN, "http://evil.example"))), 403);
        assert_eq!(status(&access, post().insert_header((ORIGIN, "null"))), 403);
    }

    #[test]
    fn the_crew_shows_its_password() {
        let access = Access::new(Some("long enough"), Some("https://box.example/"));
        let get = || TestRequest::get().insert_header((HOST, "box.example"));
        assert_eq!(status(&access, get()), 401);
        let word = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(status(&access, get().insert_header((AUTHORIZATION, word("crew:wrong")))), 401);
        assert_eq!(status(&access, get().insert_header((AUTHORIZATION, word("crew:long enough")))), 200);
    }

    #[test]
    fn a_bearer_word_is_found_whatever_its_case() {
        let request = TestRequest::get().insert_header((AUTHORIZATION, "bearer  abc")).to_http_request();
        assert_eq!(bearer(&request).as_deref(), Some("abc"));
    }
}
