//! The state that was seen (`up/reported`) and the one that should be (`down/desired`), both retained.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::heartbeat::InputBrief;
use super::{Extra, MAX_PAYLOAD_BYTES, payload};

/// The body of `up/reported`: on change, at most every two seconds, no secrets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reported {
    /// Version of the configuration that is in force.
    pub ver: u64,
    /// By the device's clock; null when it is not set.
    #[serde(default)]
    pub ts: Option<DateTime<Utc>>,
    /// Which start of the process.
    #[serde(default)]
    pub boot_seq: u64,
    /// The configuration, without secrets.
    #[serde(default)]
    pub config: Value,
    /// One entry per input.
    #[serde(default)]
    pub inputs: Vec<InputBrief>,
    /// The scenes that can be taken.
    #[serde(default)]
    pub scenes: Vec<SceneBrief>,
    /// What the mixer shows.
    #[serde(default)]
    pub mixer: MixerBrief,
    /// One report per actor, as `GET /api/actors` gives it.
    #[serde(default)]
    pub actors: Vec<Value>,
    /// Names that `restart_service` accepts.
    #[serde(default)]
    pub services: Vec<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Reported, "reported state", MAX_PAYLOAD_BYTES);

/// One scene in short.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SceneBrief {
    /// Its id.
    pub id: String,
    /// Its label.
    #[serde(default)]
    pub label: String,
}

/// What the mixer shows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MixerBrief {
    /// The scene on programme.
    #[serde(default)]
    pub pgm: Option<String>,
    /// The scene on preview.
    #[serde(default)]
    pub pvw: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The body of `down/desired`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Only grows.
    pub ver: u64,
    /// What should be in force.
    #[serde(default)]
    pub config: Value,
    /// By the server's clock.
    #[serde(default)]
    pub ts: Option<DateTime<Utc>>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Desired, "desired state", MAX_PAYLOAD_BYTES);
