//! Where ICE servers come from: the fleet's TURN API, Cloudflare, or a coturn shared secret.
//!
//! All speak with a 15 s timeout, follow no redirect (a redirect would carry a token elsewhere), read at
//! most 64 KiB and describe a failure without any secret, url query or body.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt as _;
use hmac::{Hmac, Mac as _};
use r58_pipelines::ice::IceServer;
use sha1::Sha1;
use tokio::sync::watch;

use super::grant::Grant;
use super::reply;
use crate::fleet_link::identity::Identity;

/// Source: facts on Cloudflare's API; the fleet's API is held to the same.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(15);
/// Cloudflare's longest life of a credential: 48 h.
pub const CLOUDFLARE_TTL_MAX: Duration = Duration::from_secs(172_800);
/// Default life asked for: a day.
pub const TTL_DEFAULT: Duration = Duration::from_secs(86_400);
/// Shortest life that is worth handing to a guest.
pub const TTL_MIN: Duration = Duration::from_secs(60);
/// What a fleet's reply without `expiresAt` is taken for.
const TTL_UNSAID: Duration = Duration::from_secs(3_600);
/// Cloudflare's API.
pub const CLOUDFLARE_BASE: &str = "https://rtc.live.cloudflare.com";

const BODY_MAX: usize = 64 * 1024;

/// Why a provider granted nothing. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The box has no identity yet, a secret's file cannot be read, or the provider has no server to name.
    #[error("{0}")]
    NotReady(String),
    /// No usable connection or answer within 15 s.
    #[error("{0}")]
    Unreachable(String),
    /// Any status but 2xx: opaque, by Cloudflare's documentation.
    #[error("answered status {0}")]
    Refused(u16),
    /// A 2xx that holds no ICE servers.
    #[error("{0}")]
    Unreadable(&'static str),
}

/// One source of ICE servers.
#[async_trait]
pub trait IceProvider: Send + Sync {
    /// `fleet`, `cloudflare` or `shared-secret`; goes into [`Grant::provider`].
    fn name(&self) -> &'static str;

    /// Asks for ICE servers; `wall` is the box's clock.
    ///
    /// # Errors
    /// [`ProviderError`], after [`HTTP_TIMEOUT`] at the latest.
    async fn fetch(&self, wall: DateTime<Utc>) -> Result<Grant, ProviderError>;
}

/// A provider without a server of its own is not ready, which is nothing to worry about; anything else is unreadable.
fn unread(sentence: &'static str) -> ProviderError {
    match sentence {
        reply::NO_SERVER => ProviderError::NotReady(sentence.to_owned()),
        other => ProviderError::Unreadable(other),
    }
}

/// The HTTP client of every provider.
///
/// # Errors
/// When TLS cannot be set up.
pub fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    http_builder().build()
}

/// The limits of every client.
pub fn http_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .timeout(HTTP_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // Cloudflare's edge was seen to block a library's default name.
        .user_agent(concat!("r58/", env!("CARGO_PKG_VERSION")))
}

/// `GET {fleet}/turn-credentials`, signed in as the device.
pub struct FleetApi {
    http: reqwest::Client,
    identity: watch::Receiver<Option<Identity>>,
}

impl FleetApi {
    /// Follows `identity`: before enrolment there is nobody to ask.
    pub fn new(http: reqwest::Client, identity: watch::Receiver<Option<Identity>>) -> Self {
        Self { http, identity }
    }
}

#[async_trait]
impl IceProvider for FleetApi {
    fn name(&self) -> &'static str {
        "fleet"
    }

    async fn fetch(&self, wall: DateTime<Utc>) -> Result<Grant, ProviderError> {
        let identity = self.identity.borrow().clone();
        let identity = identity.ok_or_else(|| ProviderError::NotReady("the box is not enrolled".to_owned()))?;
        let url = format!("{}/turn-credentials", identity.fleet_url.trim_end_matches('/'));
        let request = self
            .http
            .get(url)
            .header("X-Device-Id", &identity.device_id)
            .header("X-Device-Token", identity.token.expose());
        let (body, server_time) = exchange(request).await?;
        let parsed = reply::parse(&body).map_err(unread)?;
        // A box's clock may be years off: the life of the credential is the fleet's expiry by the fleet's clock.
        let life = match parsed.expires_at {
            Some(at) => at - server_time.unwrap_or(wall),
            None => delta(TTL_UNSAID),
        };
        if life <= TimeDelta::zero() {
            return Err(ProviderError::Unreadable("the credential has expired already"));
        }
        // A lease of years is somebody's broken clock.
        let life = life.min(delta(CLOUDFLARE_TTL_MAX));
        Ok(Grant {
            provider: self.name().to_owned(),
            servers: parsed.servers,
            issued_at: wall,
            expires_at: wall + life,
        })
    }
}

/// Cloudflare's TURN keys API, spoken to directly.
pub struct Cloudflare {
    http: reqwest::Client,
    base: String,
    key_id: String,
    token_file: PathBuf,
    ttl: Duration,
}

impl Cloudflare {
    /// `base` is [`CLOUDFLARE_BASE`] outside of tests; `ttl` is clamped to 1 min..48 h. The token's file is
    /// read at every request, so that it can be replaced under a running box.
    pub fn new(http: reqwest::Client, base: &str, key_id: &str, token_file: PathBuf, ttl: Duration) -> Self {
        Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            key_id: key_id.to_owned(),
            token_file,
            ttl: ttl.clamp(TTL_MIN, CLOUDFLARE_TTL_MAX),
        }
    }
}

#[async_trait]
impl IceProvider for Cloudflare {
    fn name(&self) -> &'static str {
        "cloudflare"
    }

    async fn fetch(&self, wall: DateTime<Utc>) -> Result<Grant, ProviderError> {
        if self.key_id.is_empty() || !self.key_id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(ProviderError::NotReady("the key id has characters that no key id has".to_owned()));
        }
        let token = read_secret(&self.token_file).await?;
        let url = format!("{}/v1/turn/keys/{}/credentials/generate-ice-servers", self.base, self.key_id);
        let request = self.http.post(url).bearer_auth(token).json(&serde_json::json!({ "ttl": self.ttl.as_secs() }));
        let (body, _) = exchange(request).await?;
        let parsed = reply::parse(&body).map_err(unread)?;
        // The reply has no expiry: it is counted from before the request.
        let expires_at = wall + delta(self.ttl);
        Ok(Grant { provider: self.name().to_owned(), servers: parsed.servers, issued_at: wall, expires_at })
    }
}

/// Credentials for a coturn with `use-auth-secret`, made here (draft-uberti-behave-turn-rest-00).
pub struct SharedSecret {
    urls: Vec<String>,
    secret_file: PathBuf,
    name: String,
    ttl: Duration,
}

impl SharedSecret {
    /// `name` is the box's id; it shows in coturn's log. `ttl` is clamped to 1 min..48 h.
    pub fn new(urls: Vec<String>, secret_file: PathBuf, name: &str, ttl: Duration) -> Self {
        Self { urls, secret_file, name: name.to_owned(), ttl: ttl.clamp(TTL_MIN, CLOUDFLARE_TTL_MAX) }
    }
}

#[async_trait]
impl IceProvider for SharedSecret {
    fn name(&self) -> &'static str {
        "shared-secret"
    }

    async fn fetch(&self, wall: DateTime<Utc>) -> Result<Grant, ProviderError> {
        let secret = read_secret(&self.secret_file).await?;
        let expires_at = wall + delta(self.ttl);
        let (username, credential) = rest_credential(secret.as_bytes(), &self.name, expires_at);
        let server = IceServer { urls: self.urls.clone(), username: Some(username), credential: Some(credential) };
        let servers = reply::usable(&[server]);
        if servers.is_empty() {
            return Err(ProviderError::NotReady("no usable url is configured".to_owned()));
        }
        Ok(Grant { provider: self.name().to_owned(), servers, issued_at: wall, expires_at })
    }
}

/// The REST pair of coturn: `"{unix expiry}:{name}"` and `base64(HMAC-SHA1(secret, username))`.
pub fn rest_credential(secret: &[u8], name: &str, expires_at: DateTime<Utc>) -> (String, String) {
    let username = format!("{}:{name}", expires_at.timestamp());
    let credential = match Hmac::<Sha1>::new_from_slice(secret) {
        Ok(mut mac) => {
            mac.update(username.as_bytes());
            BASE64.encode(mac.finalize().into_bytes())
        }
        // HMAC takes a key of any length (RFC 2104): there is no such case.
        Err(_) => String::new(),
    };
    (username, credential)
}

/// The text of a file without its edges.
pub(crate) async fn read_secret(path: &std::path::Path) -> Result<String, ProviderError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| ProviderError::NotReady(format!("cannot read {}: {}", path.display(), error.kind())))?;
    match text.trim() {
        "" => Err(ProviderError::NotReady(format!("{} is empty", path.display()))),
        secret => Ok(secret.to_owned()),
    }
}

/// Sends, checks the status, reads the body within its limit. Also gives the server's `Date`.
async fn exchange(request: reqwest::RequestBuilder) -> Result<(Vec<u8>, Option<DateTime<Utc>>), ProviderError> {
    let response = request.send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(ProviderError::Refused(response.status().as_u16()));
    }
    let date = response
        .headers()
        .get(reqwest::header::DATE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| DateTime::parse_from_rfc2822(value).ok())
        .map(|date| date.with_timezone(&Utc));
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(unreachable)?;
        if body.len() + chunk.len() > BODY_MAX {
            return Err(ProviderError::Unreadable("the reply is longer than 64 KiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, date))
}

fn unreachable(error: reqwest::Error) -> ProviderError {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_builder() {
        "the address is not a url"
    } else {
        "the connection broke"
    };
    ProviderError::Unreachable(what.to_owned())
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_credential_matches_a_vector_computed_elsewhere() {
        // printf '1800000000:cam' | openssl dgst -sha1 -hmac north -binary | base64
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default();
        let (username, credential) = rest_credential(b"north", "cam", at);
        assert_eq!(username, "1800000000:cam");
        assert_eq!(credential, "ijTVVjIe8G+1De5FINRnJyB+cR8=");
    }
}
