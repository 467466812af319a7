//! The shape of the configuration and its defaults.
//!
//! Every struct refuses unknown keys: a misspelt key is an error with a line, never a silent default.

use std::net::SocketAddr;
use std::path::PathBuf;

use r58_actors::fleet_link::identity::Secret;
use r58_actors::governor::core::Thresholds;
use r58_actors::sfu::client::SfuApp;
use r58_pipelines::input::SourceSpec;
use serde::{Deserialize, Serialize};

use super::alerts::{FleetAlertSettings, SmtpSettings};
pub use super::broker::{BrokerSettings, TlsSettings};

/// The whole configuration of one process; each side reads its own section.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where everything durable lives. `R58_STATE_DIR` wins over it. Default `./r58-state`.
    pub state_dir: PathBuf,
    /// What is logged, and how.
    pub log: LogSettings,
    /// The box.
    pub device: DeviceSettings,
    /// The fleet server.
    pub fleet: FleetSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("./r58-state"),
            log: LogSettings::default(),
            device: DeviceSettings::default(),
            fleet: FleetSettings::default(),
        }
    }
}

/// How log lines leave the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Journald when the process is a systemd service, text otherwise.
    #[default]
    Auto,
    /// Lines for people, on standard error.
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// The systemd journal, fields kept.
    Journald,
}

/// Our own changes that a user would see, and what is wrong elsewhere; libraries' routine stays out.
const DEFAULT_FILTER: &str = "warn,r58=info,r58_actors=info,r58_mqtt=info,r58_pipelines=info,webrtc=error,webrtc_ice=error,dtls=error,rustls=error";

/// Logging.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Where lines go.
    pub format: LogFormat,
    /// A `tracing` filter such as `info,r58_actors=debug`. `RUST_LOG` wins over it.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: DEFAULT_FILTER.into() }
    }
}

/// The box.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceSettings {
    /// Identity in the fleet: 1 to 64 of `a-z A-Z 0-9 - _`.
    pub id: String,
    /// Name that people see.
    pub name: String,
    /// Where the pages and the API listen. Loopback unless said otherwise; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Base address that others reach the pages by, for links to guests. Default: made from `listen`.
    pub public_url: Option<String>,
    /// Password of the user `crew`; needed as soon as `listen` is not loopback.
    pub crew_password: Option<String>,
    /// Addresses and networks of proxies whose `X-Forwarded-For` says who asks, such as `10.0.0.0/8`; at most 64. A proxy that
    /// is not named here is the one client of all who come by it.
    pub trusted_proxies: Vec<String>,
    /// Allows `POST /api/cameras/{id}/rehearse`: pulls, stalls and panics on request.
    pub rehearsal: bool,
    /// Hardware profile: `auto`, `r58-4x4`, or the path of a file. Its ports are the inputs when none are configured.
    pub profile: String,
    /// Picture and sound of the programme.
    pub programme: ProgrammeSettings,
    /// Camera inputs in the order of their keys; up to 8.
    pub inputs: Vec<InputSettings>,
    /// Seats for remote guests; up to 8.
    pub seats: Vec<SeatSettings>,
    /// Where ICE servers come from.
    pub turn: TurnSettings,
    /// Guests by way of an SFU, when no road leads from them to the box; there is none unless configured.
    pub sfu: SfuSettings,
    /// How WebRTC peers reach out.
    pub webrtc: WebrtcSettings,
    /// From when on the box gives up what it can do without.
    pub pressed_at: PressureSettings,
    /// The way to the fleet.
    pub link: LinkSettings,
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self {
            id: "r58".into(),
            name: "R58".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            public_url: None,
            crew_password: None,
            trusted_proxies: Vec::new(),
            rehearsal: false,
            profile: "auto".into(),
            programme: ProgrammeSettings::default(),
            inputs: Vec::new(),
            seats: Vec::new(),
            turn: TurnSettings::default(),
            sfu: SfuSettings::default(),
            webrtc: WebrtcSettings::default(),
            pressed_at: PressureSettings::default(),
            link: LinkSettings::default(),
        }
    }
}

/// Picture and sound of the programme.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgrammeSettings {
    /// Width in pixels, even, 160 to 3840.
    pub width: u32,
    /// Height in pixels, even, 90 to 2160.
    pub height: u32,
    /// Frames a second, 5 to 60.
    pub fps: u32,
    /// Video bit rate in kbit/s, 100 to 50,000.
    pub bitrate_kbps: u32,
    /// `auto` for the first of the profile's list that works, or the name of a GStreamer H.264 encoder element.
    pub encoder: String,
}

impl Default for ProgrammeSettings {
    fn default() -> Self {
        Self { width: 1280, height: 720, fps: 30, bitrate_kbps: 2500, encoder: "auto".into() }
    }
}

/// One camera input.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSettings {
    /// Name in addresses and topics: 1 to 32 of `a-z 0-9 - _`.
    pub id: String,
    /// Name that people see; default: the id in capitals.
    #[serde(default)]
    pub label: String,
    /// Where the picture comes from.
    pub source: SourceSpec,
}

/// One seat for a remote guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeatSettings {
    /// Name in addresses and topics: 1 to 32 of `a-z 0-9 - _`.
    pub id: String,
    /// Name that people see; default: the id in capitals.
    #[serde(default)]
    pub label: String,
    /// The secret in the guest's link; generated and kept in the state directory when absent.
    #[serde(default)]
    pub token: Option<String>,
}

/// Where ICE servers come from, in this order: fleet, Cloudflare, shared secret, STUN only.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnSettings {
    /// STUN addresses that are always offered, such as `stun:stun.example.org:3478`.
    pub stun: Vec<String>,
    /// Ask the fleet server's TURN API once enrolled.
    pub fleet: bool,
    /// Key id of Cloudflare's TURN service.
    pub cloudflare_key_id: Option<String>,
    /// File that holds the API token of that key.
    pub cloudflare_token_file: Option<PathBuf>,
    /// File that holds coturn's `static-auth-secret`.
    pub shared_secret_file: Option<PathBuf>,
    /// TURN addresses that the shared secret opens, such as `turn:turn.example.org:3478?transport=udp`.
    pub shared_urls: Vec<String>,
    /// How long generated or requested credentials live, in seconds, 600 to 172,800 (Cloudflare's limit).
    pub ttl_seconds: u64,
    /// File of certificates in PEM to trust beside the system's, when the box reaches a TURN server by TLS.
    pub ca_file: Option<PathBuf>,
}

impl Default for TurnSettings {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            fleet: true,
            cloudflare_key_id: None,
            cloudflare_token_file: None,
            shared_secret_file: None,
            shared_urls: Vec::new(),
            ttl_seconds: 86_400,
            ca_file: None,
        }
    }
}

/// An app of Cloudflare's SFU.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SfuSettings {
    /// Id of the app: letters, digits and hyphens.
    pub app_id: Option<String>,
    /// File that holds the app's secret; read at every request, so that it can be replaced under a running box.
    pub secret_file: Option<PathBuf>,
    /// The secret itself, for the environment (`R58__DEVICE__SFU__SECRET`); a configuration file is no place for it.
    #[serde(skip_serializing)]
    pub secret: Option<Secret>,
    /// Base address of the SFU's API.
    pub base_url: String,
}

impl Default for SfuSettings {
    fn default() -> Self {
        Self { app_id: None, secret_file: None, secret: None, base_url: SfuApp::BASE.into() }
    }
}

/// How WebRTC peers reach out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebrtcSettings {
    /// First and last UDP port for media; the system's choice when absent.
    pub udp_ports: Option<(u16, u16)>,
    /// Only these network interfaces offer candidates; all when empty.
    pub interfaces: Vec<String>,
    /// Media by TURN only, whatever else would connect.
    pub relay_only: bool,
    /// Also offer the loopback address, for a guest on the same machine.
    pub loopback: bool,
    /// Viewers by WHEP at the same time, up to 1,000. Those beyond are told to come back, and their pages play HLS; so do
    /// all with 0.
    pub most_viewers: usize,
}

impl Default for WebrtcSettings {
    fn default() -> Self {
        Self { udp_ports: None, interfaces: Vec::new(), relay_only: false, loopback: false, most_viewers: 100 }
    }
}

/// What makes the box pressed, at the levels 1 (thumbnails slower), 2 (no live inputs) and 3 (a simpler programme).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PressureSettings {
    /// Load of all processors in percent, rising; above 100 for never.
    pub cpu_percent: [f32; 3],
    /// Memory in use in percent, rising; above 100 for never.
    pub mem_percent: [f32; 3],
    /// Free disk in GB (10^9 bytes) below which it is pressed, falling; 0 for never.
    pub disk_free_gb: [f64; 3],
}

impl Default for PressureSettings {
    fn default() -> Self {
        let Thresholds { cpu_percent, mem_percent, disk_free } = Thresholds::default();
        Self { cpu_percent, mem_percent, disk_free_gb: disk_free.map(|bytes| bytes as f64 / 1e9) }
    }
}

/// The way to the fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkSettings {
    /// Base address of the fleet server; the box works alone when absent.
    pub fleet_url: Option<String>,
    /// One-time code for the first start.
    pub enrolment_code: Option<String>,
    /// `mqtt://` or `mqtts://` address of the broker, or of each node of a cluster, separated by commas and tried in random
    /// order; wins over the one that enrolment gave.
    pub mqtt_url: Option<String>,
    /// File of certificates to trust for the fleet server and the broker besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// File of the password for a broker that does not ask the fleet server who a box is, such as mosquitto; elsewhere a box
    /// shows the token of its enrolment.
    pub broker_password_file: Option<PathBuf>,
    /// File of the certificate in PEM with which the box proves itself to both; a renewed one is shown from the next
    /// connection on.
    pub cert_file: Option<PathBuf>,
    /// File of that certificate's key, in PEM (PKCS #8).
    pub key_file: Option<PathBuf>,
    /// Seconds between heartbeats, 1 to 3,600; each is moved by up to 10 % either way.
    pub heartbeat_seconds: u64,
    /// Bound of the durable outbox in MiB, 1 to 4,096; the oldest telemetry goes first.
    pub outbox_max_mb: u64,
    /// Bound of a support bundle in MiB, 1 to 1,024. One is refused when the disk has no room for it.
    pub bundle_max_mb: u64,
    /// Actors and systemd units that `restart_service` may name.
    pub services: Vec<String>,
    /// `real` asks logind and systemd; `record` only notes what was asked (the demo).
    pub host: HostKind,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            fleet_url: None,
            enrolment_code: None,
            mqtt_url: None,
            ca_file: None,
            broker_password_file: None,
            cert_file: None,
            key_file: None,
            heartbeat_seconds: 60,
            outbox_max_mb: 64,
            bundle_max_mb: 64,
            services: Vec::new(),
            host: HostKind::Real,
        }
    }
}

/// Who carries out reboots and unit restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// logind and systemd.
    #[default]
    Real,
    /// A note in the state directory and nothing else.
    Record,
}

/// The fleet server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetSettings {
    /// Where the API and the dashboard listen. Loopback unless said otherwise; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Base address that devices and people reach the server by. Default: made from `listen`.
    pub public_url: Option<String>,
    /// `sqlite://PATH`, or `postgres://user@host/database` with `?sslmode=verify-full` (and `&sslrootcert=FILE`) beyond this
    /// machine; default: `fleet.db` under the state directory.
    pub database_url: Option<String>,
    /// As `device.trusted_proxies`.
    pub trusted_proxies: Vec<String>,
    /// File with the password for PostgreSQL.
    pub database_password_file: Option<PathBuf>,
    /// The password itself, for the environment (`R58__FLEET__DATABASE_PASSWORD`); a configuration file is no place for it.
    #[serde(skip_serializing)]
    pub database_password: Option<Secret>,
    /// Directory of the keys that access tokens and commands are signed with; default: the state directory. Servers of one
    /// database need the same two files: start one, and give the others copies (mode 0600).
    pub keys_dir: Option<PathBuf>,
    /// File with what a monitoring system shows as `Authorization: Bearer` to read `/metrics` of the whole server.
    pub metrics_token_file: Option<PathBuf>,
    /// How long heartbeats are kept.
    pub retention: RetentionSettings,
    /// Certificates of the API and the dashboard, and whose clients are believed.
    pub tls: TlsSettings,
    /// The MQTT broker.
    pub broker: BrokerSettings,
    /// TURN credentials handed to signed-in devices.
    pub turn: FleetTurnSettings,
    /// Support bundles of boxes.
    pub bundles: FleetBundleSettings,
    /// How people are told of alerts.
    pub alerts: FleetAlertSettings,
    /// The mail server that alerts go by.
    pub smtp: SmtpSettings,
    /// Organizations whose boxes Home Assistant finds by itself (up to 1,000 of each), with `r58/1/{organization}/_ha` as its
    /// discovery prefix. What it was told is taken back when one is left out.
    pub home_assistant: Vec<String>,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8180)),
            public_url: None,
            database_url: None,
            trusted_proxies: Vec::new(),
            database_password_file: None,
            database_password: None,
            keys_dir: None,
            metrics_token_file: None,
            retention: RetentionSettings::default(),
            tls: TlsSettings::default(),
            broker: BrokerSettings::default(),
            turn: FleetTurnSettings::default(),
            bundles: FleetBundleSettings::default(),
            alerts: FleetAlertSettings::default(),
            smtp: SmtpSettings::default(),
            home_assistant: Vec::new(),
        }
    }
}

/// Support bundles that boxes send.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetBundleSettings {
    /// Where they are kept; `bundles` under the state directory by default. Servers on one database share one.
    pub directory: Option<PathBuf>,
    /// Bound of one in MiB, 1 to 65,536.
    pub max_mb: u64,
    /// Bound of all of an organization's in MiB, 1 to 16,777,216.
    pub quota_mb: u64,
    /// Days that they are kept, 1 to 3,650.
    pub keep_days: u64,
}

impl Default for FleetBundleSettings {
    fn default() -> Self {
        Self { directory: None, max_mb: 256, quota_mb: 4_096, keep_days: 30 }
    }
}

/// How long heartbeats are kept: as they came, and summed up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    /// Days for which every heartbeat is kept, 1 to 400.
    pub raw_days: u32,
    /// Days for which smallest, largest, mean and latest values of each minute are kept, `raw_days` to 3,650.
    pub minute_days: u32,
    /// The same of each hour, `minute_days` to 36,500.
    pub hour_days: u32,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { raw_days: 14, minute_days: 90, hour_days: 1_825 }
    }
}

/// TURN credentials that the fleet server hands out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetTurnSettings {
    /// STUN addresses that are always offered.
    pub stun: Vec<String>,
    /// File that holds coturn's `static-auth-secret`.
    pub shared_secret_file: Option<PathBuf>,
    /// TURN addresses that the secret opens.
    pub urls: Vec<String>,
    /// Key id of Cloudflare's TURN service.
    pub cloudflare_key_id: Option<String>,
    /// File that holds the API token of that key.
    pub cloudflare_token_file: Option<PathBuf>,
    /// How long credentials live, in seconds, 600 to 172,800.
    pub ttl_seconds: u64,
}

impl Default for FleetTurnSettings {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            shared_secret_file: None,
            urls: Vec::new(),
            cloudflare_key_id: None,
            cloudflare_token_file: None,
            ttl_seconds: 86_400,
        }
    }
}
