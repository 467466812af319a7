//! What a provider grants, and what the box answers: ICE servers with their expiry.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use r58_pipelines::ice::IceServer;
use serde::{Deserialize, Serialize};

/// ICE servers with the credentials of one provider.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// `fleet`, `cloudflare` or `shared-secret`.
    pub provider: String,
    /// Never empty.
    pub servers: Vec<IceServer>,
    /// When they were asked for, by the box's clock.
    pub issued_at: DateTime<Utc>,
    /// When the credential dies, by the box's clock.
    pub expires_at: DateTime<Utc>,
}

impl Grant {
    /// From issue to expiry; zero when the two are the wrong way round.
    pub fn lifetime(&self) -> Duration {
        (self.expires_at - self.issued_at).to_std().unwrap_or_default()
    }

    /// For the cache on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From the cache on disk; `None` when it cannot be read, which costs one request and nothing else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl fmt::Debug for Grant {
    /// Without the credential: grants end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&String> = self.servers.iter().flat_map(|server| &server.urls).collect();
        f.debug_struct("Grant")
            .field("provider", &self.provider)
            .field("urls", &urls)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What the box hands to a guest's page and to its own peer connections.
#[derive(Clone, PartialEq)]
pub struct IceSnapshot {
    /// Empty only when not even a STUN server is configured.
    pub servers: Vec<IceServer>,
    /// `fleet`, `cloudflare`, `shared-secret` or `stun`.
    pub provider: String,
    /// Absent with STUN alone.
    pub expires_at: Option<DateTime<Utc>>,
    /// A refresh is due and failing; what is served has not expired.
    pub stale: bool,
}

impl fmt::Debug for IceSnapshot {
    /// Without the credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceSnapshot")
            .field("provider", &self.provider)
            .field("expires_at", &self.expires_at)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}

/// How one provider is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderReport {
    /// Its name, as in [`Grant::provider`].
    pub name: String,
    /// A request is under way.
    pub asking: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Time until the next attempt, when it is backing off.
    pub next_attempt_in: Option<Duration>,
}
