//! The heartbeat: `up/hb` live, and `up/tm/hb` in batches for what was not acknowledged.
//!
//! The first fields are the ones operators have always known; missing numbers read as absent, so that an older device
//! is still understood. Fields that this version does not know are passed over here: the server keeps each heartbeat's own
//! text, and keeping them twice would cost as much as all the rest of reading it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MAX_SMALL_BYTES, payload};

/// The body of `up/hb`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was measured, by the device's wall clock.
    pub ts: DateTime<Utc>,
    /// The device's software version.
    #[serde(default)]
    pub version: String,
    /// Seconds since the device's process started.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Measured by the Governor.
    #[serde(default)]
    pub metrics: Metrics,
    /// What the box is doing.
    #[serde(default)]
    pub status: StatusBrief,
    /// What is wrong now, in words.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Which start of the process.
    #[serde(default)]
    pub boot_seq: u64,
    /// The kernel's boot id.
    #[serde(default)]
    pub boot_id: String,
    /// Number within the outbox stream `hb`; with it the server stores each heartbeat once.
    #[serde(default)]
    pub seq: u64,
    /// The wall clock again when sent; null when the clock is not set.
    #[serde(default)]
    pub device_time: Option<DateTime<Utc>>,
    /// One entry per input.
    #[serde(default)]
    pub inputs: Vec<InputBrief>,
    /// One entry per actor.
    #[serde(default)]
    pub actors: Vec<ActorBrief>,
    /// What came out of the mixer.
    #[serde(default)]
    pub programme: ProgrammeBrief,
    /// Who serves TURN and until when.
    #[serde(default)]
    pub turn: TurnBrief,
    /// What waits on disk.
    #[serde(default)]
    pub outbox: OutboxBrief,
    /// Seconds until the next one.
    #[serde(default)]
    pub interval_s: u32,
}

payload!(Heartbeat, "heartbeat", MAX_SMALL_BYTES);

/// What the host measured. Absent means not measured, never zero.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// 0 to 100 over all cores.
    #[serde(default)]
    pub cpu_percent: Option<f64>,
    /// 0 to 100.
    #[serde(default)]
    pub mem_percent: Option<f64>,
    /// Free space of the state directory's file system, in GB (10^9 bytes).
    #[serde(default)]
    pub disk_free_gb: Option<f64>,
    /// Its size in GB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_total_gb: Option<f64>,
    /// Hottest sensor, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// Load averages over 1, 5 and 15 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_avg: Option<Vec<f64>>,
}

/// What the box is doing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StatusBrief {
    /// A recording is being written.
    #[serde(default)]
    pub recording_active: bool,
    /// Programme frames are coming out.
    #[serde(default)]
    pub mixer_active: bool,
    /// Ids of the inputs with a live picture.
    #[serde(default)]
    pub active_inputs: Vec<String>,
    /// 0 (none) to 3.
    #[serde(default)]
    pub degradation_level: u8,
}

/// One input in short, in the heartbeat and in the reported state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct InputBrief {
    /// Its id.
    pub id: String,
    /// Its label.
    #[serde(default)]
    pub label: String,
    /// `camera` or `guest`.
    #[serde(default)]
    pub kind: String,
    /// `live`, or why not.
    #[serde(default)]
    pub signal: String,
    /// The reason in words; only in the reported state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Frames per second that were decoded; only in the heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// `programme`, `preview` or `none`.
    #[serde(default)]
    pub tally: String,
}

/// One actor in short.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ActorBrief {
    /// Its name.
    pub name: String,
    /// `starting`, `running`, `backoff`, `degraded` or `stopped`.
    #[serde(default)]
    pub state: String,
    /// Restarts since the process started that nobody asked for.
    #[serde(default)]
    pub restarts: u64,
}

/// What came out of the mixer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ProgrammeBrief {
    /// Frames per second after the compositor.
    #[serde(default)]
    pub fps: f64,
    /// Frames since the start.
    #[serde(default)]
    pub frames: u64,
    /// Frame slots that stayed empty.
    #[serde(default)]
    pub missed_slots: u64,
    /// The scene on programme.
    #[serde(default)]
    pub scene: Option<String>,
}

/// Who serves TURN and until when.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TurnBrief {
    /// `fleet`, `cloudflare`, `shared-secret`, `stun`.
    #[serde(default)]
    pub provider: String,
    /// End of the credentials.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// What waits on disk for the fleet.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OutboxBrief {
    /// Entries not yet acknowledged.
    #[serde(default)]
    pub pending: u64,
    /// Entries dropped since the outbox was made, to stay within its size.
    #[serde(default)]
    pub dropped: u64,
}

impl Heartbeat {
    /// The heartbeat as JSON, for batches and storage.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;

    #[test]
    fn a_heartbeat_of_an_older_device_is_understood() {
        let old = br#"{"ts":"2026-01-02T03:04:05Z","version":"1.2","uptime_seconds":9,"metrics":{"cpu_percent":12.5,
            "mem_percent":40,"disk_free_gb":3.5},"status":{"recording_active":true,"mixer_active":true,
            "active_inputs":["cam1"],"degradation_level":1},"errors":[]}"#;
        let heartbeat = Heartbeat::parse(old).unwrap();
        assert_eq!(heartbeat.metrics.cpu_percent, Some(12.5));
        assert_eq!(heartbeat.metrics.temperature_c, None);
        assert_eq!(heartbeat.status.active_inputs, ["cam1"]);
        assert_eq!(Heartbeat::parse(&heartbeat.to_bytes().unwrap()).unwrap(), heartbeat);
    }
}
