//! What a fleet server is to be: addresses, database, broker, TURN and the rules of access.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use r58_actors::fleet_link::identity::Secret;
use r58_actors::fleet_link::trust::Trust;

use super::alerts::plan::AlertPlan;
use super::bundles::BundlePlan;
use super::store::retention::RetentionPlan;
use super::switchboard::BridgePlan;
use crate::certificates::TlsFiles;
use crate::proxies::TrustedProxies;

/// Everything [`super::start`] needs; the configuration file is translated to this.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    /// Address of API and dashboard. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// HTTPS, when API and dashboard shall speak it.
    pub tls: Option<TlsFiles>,
    /// Address under which browsers and boxes reach this server, without a slash at the end. By default `http://` (with
    /// `tls` `https://`) and the address listened on; where that is every address, the one by which a box found us.
    pub public_url: Option<String>,
    /// `sqlite:` or `postgres://` URL of the database; by default the file `fleet.db` in `state_dir`.
    pub database_url: Option<String>,
    /// Proxies that may say for whom they call.
    pub trusted_proxies: TrustedProxies,
    /// Password for PostgreSQL; wins over the one in the URL.
    pub database_password: Option<Secret>,
    /// How long heartbeats are kept.
    pub retention: RetentionPlan,
    /// Directory of the keys, the same for every server of one database; by default `state_dir`.
    pub keys_dir: Option<PathBuf>,
    /// Directory of the database, the keys (mode 0600) and the embedded broker's state.
    pub state_dir: PathBuf,
    /// The MQTT broker between this server and its boxes.
    pub broker: BrokerPlan,
    /// Where `GET /turn-credentials` takes its answers from.
    pub turn: TurnPlan,
    /// Life of tokens and limits on signing in.
    pub access: AccessPlan,
    /// Limits of the WebSocket bridge.
    pub bridge: BridgePlan,
    /// Support bundles of boxes.
    pub bundles: BundlePlan,
    /// How people are told of alerts.
    pub alerts: AlertPlan,
    /// Organizations whose boxes Home Assistant is told of.
    pub home_assistant: Vec<String>,
}

/// Which broker carries the fleet's messages.
#[derive(Debug, Clone)]
pub enum BrokerPlan {
    /// The broker inside this process; its state lives under `state_dir`.
    Embedded {
        /// Address to listen on. Port 0 takes any free one.
        listen: SocketAddr,
        /// TLS, when the broker shall speak it.
        tls: Option<TlsFiles>,
        /// `mqtt://` or `mqtts://` address that boxes are told; by default the address listened on, with the host of the
        /// server's own address where it listens on every address. With TLS the certificate must be good for its host.
        public_url: Option<String>,
        /// How much it may keep for those who come later.
        retained: RetainedPlan,
    },
    /// A broker that somebody else runs.
    Url {
        /// `mqtt://` or `mqtts://` address.
        url: String,
        /// Credentials of the server's own client.
        username: Option<String>,
        /// Password that belongs to `username`.
        password: Option<String>,
        /// Whom the server believes there, and the certificate that it shows.
        trust: Trust,
        /// Address that boxes are told, when it differs from `url`.
        public_url: Option<String>,
        /// What nodes of a cluster show when they ask who may connect; without it nobody may ask.
        auth_secret: Option<String>,
    },
}

/// Bounds on the retained messages of the embedded broker; what would go beyond is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedPlan {
    /// Messages. Default 1,000,000.
    pub messages: usize,
    /// Bytes of memory. Default 256 MB.
    pub bytes: usize,
}

impl Default for RetainedPlan {
    fn default() -> Self {
        Self { messages: 1_000_000, bytes: 256_000_000 }
    }
}

/// Sources of TURN credentials, tried in this order: Cloudflare, shared secret, STUN only.
#[derive(Debug, Clone)]
pub struct TurnPlan {
    /// STUN URLs that every answer holds.
    pub stun: Vec<String>,
    /// Identifier of a Cloudflare TURN key.
    pub cloudflare_key_id: Option<String>,
    /// File with the API token of that key.
    pub cloudflare_token_file: Option<PathBuf>,
    /// File with a coturn `static-auth-secret`.
    pub shared_secret_file: Option<PathBuf>,
    /// `turn:` and `turns:` URLs of that coturn.
    pub urls: Vec<String>,
    /// Life of a credential, at most 48 hours (Cloudflare's limit).
    pub ttl: Duration,
}

impl Default for TurnPlan {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            cloudflare_key_id: None,
            cloudflare_token_file: None,
            shared_secret_file: None,
            urls: Vec::new(),
            ttl: Duration::from_secs(86_400),
        }
    }
}

/// Rules of access.
#[derive(Debug, Clone)]
pub struct AccessPlan {
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token; each use makes a new one.
    pub refresh_ttl: Duration,
    /// Failed sign-ins of one account, or from one address, before it has to wait.
    pub max_failures: u32,
    /// How long it then has to wait.
    pub lockout: Duration,
    /// Address of the administrator made at the first start.
    pub admin_email: String,
    /// Password of that administrator; generated when absent.
    pub admin_password: Option<String>,
    /// What a monitoring system shows to read the figures of the whole server at `/metrics`.
    pub metrics_token: Option<Secret>,
}

impl Default for AccessPlan {
    fn default() -> Self {
        Self {
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(14 * 86_400),
            max_failures: 10,
            lockout: Duration::from_secs(60),
            admin_email: "admin@r58.local".into(),
            admin_password: None,
            metrics_token: None,
        }
    }
}
