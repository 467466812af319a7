//! ICE servers for boxes and dashboards: from Cloudflare, or made from coturn's shared secret, else STUN alone.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use r58_actors::turn::Grant;
use r58_actors::turn::providers::{CLOUDFLARE_BASE, Cloudflare, IceProvider, SharedSecret, http_client};
use r58_pipelines::ice::IceServer;
use tokio::sync::Mutex;

use super::{FleetError, TurnPlan};

/// How long an answer of STUN alone may be kept.
const STUN_LIFE: Duration = Duration::from_secs(3_600);
/// After a provider failed it is left alone for this long, and the next one serves.
const PAUSE: Duration = Duration::from_secs(10);

/// Credentials of Cloudflare are shared until half their life is over: their API is asked seldom, and whoever is
/// answered has at least the other half.
#[derive(Default)]
struct Shared {
    grant: Option<Grant>,
    failed_at: Option<DateTime<Utc>>,
}

/// Where ICE servers come from.
pub struct TurnDesk {
    stun: Vec<String>,
    cloudflare: Option<Cloudflare>,
    shared: Mutex<Shared>,
    secret: Option<(PathBuf, Vec<String>)>,
    ttl: Duration,
}

/// What a caller is given.
pub struct Given {
    /// Servers; STUN first.
    pub servers: Vec<IceServer>,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// `cloudflare`, `shared-secret` or `stun`.
    pub provider: String,
}

impl TurnDesk {
    /// From the plan.
    ///
    /// # Errors
    /// When half of a pair is missing.
    pub fn new(plan: &TurnPlan) -> Result<Self, FleetError> {
        let cloudflare = match (&plan.cloudflare_key_id, &plan.cloudflare_token_file) {
            (Some(key), Some(file)) => {
                let http = http_client().map_err(|error| FleetError::Bug(error.to_string()))?;
                Some(Cloudflare::new(http, CLOUDFLARE_BASE, key, file.clone(), plan.ttl))
            }
            (None, None) => None,
            _ => {
                let needed = "fleet.turn: Cloudflare needs both a key id and a file with its token";
                return Err(FleetError::Misconfigured(needed.into()));
            }
        };
        let secret = match (&plan.shared_secret_file, plan.urls.is_empty()) {
            (Some(file), false) => Some((file.clone(), plan.urls.clone())),
            (None, true) => None,
            _ => {
                let needed = "fleet.turn: a shared secret needs both its file and the server's urls";
                return Err(FleetError::Misconfigured(needed.into()));
            }
        };
        Ok(Self { stun: plan.stun.clone(), cloudflare, shared: Mutex::default(), secret, ttl: plan.ttl })
    }

    /// Servers for the caller called `name`, which shows in coturn's log.
    pub async fn give(&self, name: &str, now: DateTime<Utc>) -> Given {
        let grant = match self.by_cloudflare(now).await {
            Some(grant) => Some(grant),
            None => self.by_secret(name, now).await,
        };
        let mut servers: Vec<IceServer> = self.stun.iter().map(IceServer::stun).collect();
        match grant {
            Some(grant) => {
                servers.extend(grant.servers);
                Given { servers, expires_at: grant.expires_at, provider: grant.provider }
            }
            None => Given { servers, expires_at: now + STUN_LIFE, provider: "stun".into() },
        }
    }

    async fn by_cloudflare(&self, now: DateTime<Utc>) -> Option<Grant> {
        let cloudflare = self.cloudflare.as_ref()?;
        // Held while asking: one request at a time, whoever waits gets its answer.
        let mut shared = self.shared.lock().await;
        let fresh = |grant: &&Grant| now < grant.issued_at + grant.lifetime() / 2;
        if let Some(grant) = shared.grant.as_ref().filter(fresh) {
            return Some(grant.clone());
        }
        let alive = shared.grant.clone().filter(|grant| now < grant.expires_at);
        if shared.failed_at.is_some_and(|at| now < at + PAUSE) {
            return alive;
        }
        match cloudflare.fetch(now).await {
            Ok(grant) => {
                *shared = Shared { grant: Some(grant.clone()), failed_at: None };
                Some(grant)
            }
            Err(error) => {
                tracing::warn!(%error, "Cloudflare gave no TURN credentials");
                shared.failed_at = Some(now);
                alive
            }
        }
    }

    async fn by_secret(&self, name: &str, now: DateTime<Utc>) -> Option<Grant> {
        let (file, urls) = self.secret.as_ref()?;
        match SharedSecret::new(urls.clone(), file.clone(), name, self.ttl).fetch(now).await {
            Ok(grant) => Some(grant),
            Err(error) => {
                tracing::warn!(%error, "no TURN credentials could be made");
                None
            }
        }
    }
}
