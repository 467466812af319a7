//! The SFU over HTTPS: one exchange, with its limits. Never logs or passes on the secret, an SDP, or a body.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::RETRY_AFTER;

use super::wire::{Ask, Failure, Reply, Verb};
use crate::fleet_link::identity::Secret;
use crate::turn::providers::{CLOUDFLARE_BASE, http_builder, read_secret};

/// Largest reply that is read, in bytes. The SDP of two tracks is some 6 KiB.
const BODY_MAX: usize = 256 * 1024;

/// How long an idle connection is kept: one call's requests share it, the next call's have their own.
const IDLE_CONNECTION: Duration = Duration::from_secs(5);

/// Where the app's secret comes from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// A file, read at every request, so that it can be replaced under a running box.
    File(PathBuf),
    /// The environment.
    Given(Secret),
}

/// Which app of which SFU.
#[derive(Clone, Debug)]
pub struct SfuApp {
    /// Base of its API; [`SfuApp::BASE`] is Cloudflare's.
    pub base_url: String,
    /// The app's id; not secret, and not shown either.
    pub app_id: Secret,
    /// What opens it.
    pub secret: SecretSource,
}

impl SfuApp {
    /// Cloudflare's API.
    pub const BASE: &str = CLOUDFLARE_BASE;
}

/// One app of one SFU. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SfuClient {
    http: reqwest::Client,
    app: SfuApp,
}

impl SfuClient {
    /// With the limits of every client of the box: 15 s for an exchange, no redirects.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(app: SfuApp) -> Result<Self, reqwest::Error> {
        // A connection that the other side has closed meanwhile would lose a request that must not be said twice.
        let http = http_builder().pool_idle_timeout(IDLE_CONNECTION).build()?;
        Ok(Self { http, app })
    }

    /// Sends a request and reads what came of it, within 15 s.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn exchange(&self, ask: &Ask) -> Result<Reply, Failure> {
        let secret = match &self.app.secret {
            SecretSource::Given(secret) => secret.clone(),
            SecretSource::File(path) => match read_secret(path).await {
                Ok(secret) => Secret::new(secret),
                Err(error) => {
                    tracing::warn!(%error, "the secret of the SFU's app");
                    return Err(Failure::NoSecret);
                }
            },
        };
        let base = self.app.base_url.trim_end_matches('/');
        let url = format!("{base}/v1/apps/{}{}", self.app.app_id.expose(), ask.path());
        let request = match ask.verb() {
            Verb::Get => self.http.get(url),
            Verb::Post => self.http.post(url),
            Verb::Put => self.http.put(url),
        };
        let request = match ask.body() {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.bearer_auth(secret.expose()).send().await.map_err(|error| {
            let unsent = error.is_connect() || error.is_builder();
            if unsent { Failure::Unreachable } else { Failure::Lost }
        })?;
        let status = response.status().as_u16();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Failure::Lost)?;
            if body.len() + chunk.len() > BODY_MAX {
                return Err(Failure::Unreadable("it is longer than 256 KiB"));
            }
            body.extend_from_slice(&chunk);
        }
        ask.read(status, wait.map(Duration::from_secs), &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_secret_nor_app_id_is_ever_printed() {
        let app = SfuApp {
            base_url: SfuApp::BASE.into(),
            app_id: Secret::new("app-of-somebody"),
            secret: SecretSource::Given(Secret::new("hush")),
        };
        let client = SfuClient::new(app).unwrap();
        let text = format!("{client:?}");
        assert!(!text.contains("hush") && !text.contains("app-of"), "{text}");
    }
}
