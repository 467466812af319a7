//! What became of a command: `up/cmd/{id}`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::states::DeviceState;
use super::{Extra, MAX_COMMAND_BYTES, payload};
use crate::id::CommandId;

/// Whether the device's wall clock can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// It can.
    Set,
    /// Not yet synchronised since the start.
    #[default]
    Unset,
}

/// The body of `up/cmd/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandStatus {
    /// As in the topic.
    pub id: CommandId,
    /// Number within this command's statuses; belongs to the device and only grows. 0 marks a refused message that left no
    /// trace on the device (unreadable, unsigned, conflicting, stale): it never overrides a status with a higher rev.
    pub rev: u64,
    /// Where it stands.
    pub state: DeviceState,
    /// Which attempt, from 1; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// The kernel's boot id when this was said.
    #[serde(default)]
    pub boot_id: String,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// One word for a program: `expired`, `signature`, `unsupported`, `conflict`, `stale`, `precondition`, `clock`, or the
    /// operation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the operation answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// By the device's clock; null when it is not set.
    #[serde(default)]
    pub ts: Option<DateTime<Utc>>,
    /// Whether `ts` can be trusted.
    #[serde(default)]
    pub clock: ClockState,
    /// The hash of the command this speaks of; absent when it had none that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The command as it was received: in its first status, when it is received again, and when the server does not wait for
    /// it. A server that does not know it adopts it from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Value>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(CommandStatus, "command status", 2 * MAX_COMMAND_BYTES);

impl CommandStatus {
    /// Whether a consumer that holds a status with `held_rev` should take this one.
    pub fn is_news(&self, held_rev: Option<u64>) -> bool {
        held_rev.is_none_or(|held| self.rev > held)
    }
}
