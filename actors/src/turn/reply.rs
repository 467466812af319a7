//! Reading a TURN API's reply: both shapes of `iceServers`, defensively.

use chrono::{DateTime, Utc};
use r58_pipelines::ice::{IceServer, IceServers, for_browser};
use serde::Deserialize;

/// More urls than this in one reply are cut off: each costs every guest a gathering attempt.
const MAX_URLS: usize = 32;

#[derive(Deserialize)]
struct Reply {
    #[serde(rename = "iceServers")]
    ice_servers: IceServers,
    #[serde(rename = "expiresAt", default)]
    expires_at: Option<DateTime<Utc>>,
}

/// What a reply says: usable servers, and its expiry when it names one.
pub(super) struct Parsed {
    pub servers: Vec<IceServer>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Said of a reply that is right and empty: whoever gave it has nothing to give.
pub(super) const NO_SERVER: &str = "the reply names no usable server";

/// Reads the body of a 2xx answer.
///
/// # Errors
/// A sentence without any part of the body (it may hold a credential).
pub(super) fn parse(body: &[u8]) -> Result<Parsed, &'static str> {
    let reply: Reply = serde_json::from_slice(body).map_err(|_| "the reply is not ICE servers in JSON")?;
    let servers = usable(&reply.ice_servers.0);
    match servers.is_empty() {
        true => Err(NO_SERVER),
        false => Ok(Parsed { servers, expires_at: reply.expires_at }),
    }
}

/// Without port 53, malformed urls and relays that lack a credential; at most [`MAX_URLS`] urls in all.
pub(super) fn usable(servers: &[IceServer]) -> Vec<IceServer> {
    let mut left = MAX_URLS;
    let mut kept = for_browser(servers);
    for server in &mut kept {
        server.urls.truncate(left);
        left -= server.urls.len();
    }
    kept.retain(|server| !server.urls.is_empty());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_relays_without_credentials_or_on_port_53_names_nothing_usable() {
        assert!(parse(br#"{"iceServers":[{"urls":["turn:a:3478"]}]}"#).is_err());
        assert!(parse(br#"{"iceServers":[{"urls":"turn:a:53","username":"u","credential":"c"}]}"#).is_err());
        assert!(parse(br#"{"iceServers":null}"#).is_err());
    }

    #[test]
    fn an_error_never_repeats_the_body() {
        let Err(error) = parse(br#"{"credential":"s3cret"}"#) else { panic!("accepted") };
        assert!(!error.contains("s3cret"));
    }

    #[test]
    fn the_number_of_urls_is_bounded() {
        let urls: Vec<String> = (0..1000).map(|n| format!("stun:h{n}:3478")).collect();
        let body = serde_json::json!({"iceServers": {"urls": urls}}).to_string();
        let parsed = parse(body.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.servers.iter().map(|server| server.urls.len()).sum::<usize>(), MAX_URLS);
    }
}
