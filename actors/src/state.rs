//! The box's state as the pages and the API show it: seen, never intended.

pub mod board;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use r58_pipelines::encoder::budget::SessionUsage;
use r58_pipelines::scene::Slot;
use serde::{Deserialize, Serialize};

use crate::guest::core::SeatState;
use crate::guest::road::RoadTaken;
use crate::guest::vitals::GuestVitals;
use crate::mixer::core::{TakeKind, Tally};

/// Everything that a page shows, except levels, which change too often.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeviceState {
    /// Who it is.
    pub device: DeviceIdentity,
    /// What goes out.
    pub programme: ProgrammeState,
    /// What comes next.
    pub pvw: PreviewState,
    /// The transition that is running.
    pub transition: Option<TakeState>,
    /// Cameras, then guests' seats, in the order of the configuration.
    pub inputs: Vec<InputState>,
    /// The scenes that can be taken.
    pub scenes: Vec<SceneState>,
    /// What is given up, and why.
    pub degradation: DegradationState,
    /// The link to the fleet.
    pub fleet: FleetState,
    /// Where ICE servers come from.
    pub turn: TurnState,
    /// The name that is shown on the programme.
    pub identify: Option<String>,
    /// Whether single inputs can be watched by WHEP.
    pub whep_inputs: bool,
    /// Whether faults may be rehearsed.
    pub rehearsal: bool,
}

/// The box.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceIdentity {
    /// Its id in the fleet.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The organization it belongs to.
    pub org: String,
    /// The software's version.
    pub version: String,
}

/// The programme, by what left its compositor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ProgrammeState {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Frames per second over the last second.
    pub fps: f64,
    /// Frames since it started.
    pub frames: u64,
    /// Frame slots of its clock that were not filled.
    pub missed_slots: u64,
    /// The scene that is on air.
    pub scene: String,
    /// Viewers of the programme by WHEP.
    pub viewers: usize,
    /// Who encodes it.
    pub encoder: EncoderState,
}

/// The chosen encoder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EncoderState {
    /// The element.
    pub name: String,
    /// Why this one.
    pub reason: String,
    /// Those that were tried or not there, each with the reason.
    #[serde(default)]
    pub rejected: Vec<(String, String)>,
    /// Encoders that run at the same time, previews included, against what the hardware can do.
    #[serde(default)]
    pub sessions: SessionUsage,
}

/// The scene on preview.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PreviewState {
    /// Its id.
    pub scene: String,
}

/// A running transition in the words of the API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TakeState {
    /// `cut` or `mix`.
    pub kind: String,
    /// Its whole length.
    pub duration_ms: u64,
}

impl From<TakeKind> for TakeState {
    fn from(kind: TakeKind) -> Self {
        let word = if kind == TakeKind::Cut { "cut" } else { "mix" };
        Self { kind: word.to_owned(), duration_ms: kind.duration().as_millis() as u64 }
    }
}

/// What sort of input it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// A source of the box's own.
    #[default]
    Camera,
    /// A guest's seat.
    Guest,
}

/// One input, by what it decoded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct InputState {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub label: String,
    /// Camera or guest.
    pub kind: InputKind,
    /// The signal's state in one word, e.g. `live`, `no_cable`; a seat's is `free`, `joining`, `waiting`, `live` or
    /// `silent`.
    pub signal: String,
    /// Why, in words; empty while it is live.
    pub reason: String,
    /// Pictures decoded since the process started.
    pub frames: u64,
    /// Pictures per second over the last second.
    pub fps: f64,
    /// Where it is seen.
    pub tally: Tally,
    /// Sound level in dBFS, 0 loudest.
    pub level_db: f32,
    /// Why a capture device's sound is missing; empty when it is there, or none is configured.
    #[serde(default)]
    pub sound: String,
    /// Whether the crew has muted it in the programme.
    #[serde(default)]
    pub muted: bool,
    /// Its level in the programme, in dB; 0 as it comes.
    #[serde(default)]
    pub gain_db: f32,
    /// How the guest's line and decoding are doing, and why it is black if it is; absent while nobody sits there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestReport>,
}

/// A guest's media, measured once a second.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GuestReport {
    /// How it is connected: `host`, `srflx` or `relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why the guest is seen, or is not: one sentence, from evidence.
    pub why: String,
    /// Numbers over the last five seconds.
    #[serde(flatten)]
    pub vitals: GuestVitals,
}

/// A scene that can be taken.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SceneState {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub label: String,
    /// What is seen where.
    pub slots: Vec<Slot>,
}

/// What the Governor gave up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DegradationState {
    /// 0 nothing, 3 most.
    pub level: u8,
    /// Why.
    pub reasons: Vec<String>,
}

/// The link to the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetState {
    /// `off`, `connecting`, `online` or `backoff`.
    pub state: String,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// What was wrong last.
    pub last_error: Option<String>,
    /// Messages that wait on disk for the fleet.
    #[serde(default)]
    pub outbox_pending: u64,
    /// Messages that were given up since the outbox was opened, because it was full.
    #[serde(default)]
    pub outbox_dropped: u64,
}

impl Default for FleetState {
    fn default() -> Self {
        Self { state: "off".into(), since: None, last_error: None, outbox_pending: 0, outbox_dropped: 0 }
    }
}

/// Where ICE servers come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TurnState {
    /// `fleet`, `cloudflare`, `shared_secret` or `stun`.
    pub provider: String,
    /// Until when the credential holds.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it is served although its provider is down.
    pub stale: bool,
    /// How the box itself reaches each TURN server.
    #[serde(default)]
    pub roads: Vec<TurnRoad>,
}

/// How the box's own peers reach one TURN server, and what its forwarder has carried.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TurnRoad {
    /// The server's host.
    pub server: String,
    /// `udp`, `tcp` or `tls`; `both` while it is not sure whether UDP gets through, `none` when there is no way.
    pub road: String,
    /// What the last probe by UDP said: `answers`, `doubtful`, `silent`, `unknown` or `not_offered`.
    pub udp: String,
    /// The probe's round trip, when it answered.
    pub udp_rtt_ms: Option<u64>,
    /// The URL of TCP or TLS that the forwarder uses, or will try first.
    pub via: Option<String>,
    /// What it took to open the last of its connections.
    pub connected_in_ms: Option<u64>,
    /// Its connections that are open.
    pub connections: u64,
    /// How many were opened in place of one that broke.
    pub reconnects: u64,
    /// Bytes to the server.
    pub bytes_up: u64,
    /// Bytes from the server.
    pub bytes_down: u64,
    /// Messages that were dropped because the connection was down or stalled.
    pub dropped: u64,
    /// What was wrong last; none while it works.
    pub last_error: Option<String>,
}

/// One seat as the crew sees it; the token is added by whoever knows it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SeatReport {
    /// The seat's id, which is also its input's.
    pub id: String,
    /// Its name for people.
    pub label: String,
    /// Where it stands.
    pub state: SeatState,
    /// Whether its guest waits to be let in, also before its pictures come.
    #[serde(default)]
    pub waiting: bool,
    /// Whether the crew has muted it in the programme.
    #[serde(default)]
    pub muted: bool,
    /// Its level in the programme, in dB; 0 as it comes.
    #[serde(default)]
    pub level_db: f32,
    /// The invitation by which its guest came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<String>,
    /// How its guest is connected: `host`, `srflx` or `relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The road of its media: `direct`, `turn` or `sfu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub road: Option<RoadTaken>,
    /// The session that sits there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// Sound levels in dBFS by input id, and of the programme under `programme`.
pub type Levels = BTreeMap<String, f32>;
