//! What a device can do: `up/caps`, retained.

use serde::{Deserialize, Serialize};

use super::{Extra, MAX_COMMAND_BYTES, MAX_PACKET_BYTES, MAX_SMALL_BYTES, VERSION, payload};

/// The body of `up/caps`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caps {
    /// Operations that are accepted; all others are rejected as unsupported.
    pub ops: Vec<String>,
    /// Payload versions that are read.
    pub versions: Vec<u64>,
    /// Sizes.
    pub limits: Limits,
    /// The device's software version.
    #[serde(default)]
    pub software: String,
    /// CPU architecture.
    #[serde(default)]
    pub arch: String,
    /// Ids of the command keys this device trusts.
    #[serde(default)]
    pub command_keys: Vec<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Caps, "caps", MAX_SMALL_BYTES);

/// Sizes, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest MQTT packet.
    pub packet_bytes: usize,
    /// The largest command.
    pub command_bytes: usize,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Caps {
    /// This crate's versions and limits, for a device with these operations.
    pub fn new(ops: Vec<String>, software: &str, command_keys: Vec<String>) -> Self {
        Self {
            ops,
            versions: vec![VERSION],
            limits: Limits { packet_bytes: MAX_PACKET_BYTES, command_bytes: MAX_COMMAND_BYTES, extra: Extra::new() },
            software: software.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            command_keys,
            extra: Extra::new(),
        }
    }
}
