//! A command: `down/cmd/{id}`, retained, signed. An empty payload withdraws it and is not a `Command`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Extra, MAX_COMMAND_BYTES, payload};
use crate::id::{CommandId, DeviceId, OrgId};

/// Seconds an effect may take when the command does not say.
pub const DEFAULT_EXEC_TIMEOUT_S: u32 = 300;
/// The longest an effect may take, in seconds.
pub const MAX_EXEC_TIMEOUT_S: u32 = 24 * 3600;

/// What to do at start with a command whose effect had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInterrupt {
    /// Look whether the effect took place (a changed boot id, a slot).
    Verify,
    /// Run it again; only for operations that may run twice, and only while attempts remain.
    Resume,
    /// Report it as interrupted.
    #[default]
    Fail,
}

/// What must hold before the effect begins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Precond {
    /// The configuration version that must be in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_ver: Option<u64>,
    /// Activities that must not be going on, such as `recording`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_while: Vec<String>,
    /// Unknown fields: a condition this device does not know cannot be judged, so the command is rejected.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct IssuedBy {
    /// The user.
    #[serde(default)]
    pub user: String,
    /// The user's role then.
    #[serde(default)]
    pub role: String,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The body of `down/cmd/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Always 1.
    pub v: u64,
    /// As in the topic.
    pub id: CommandId,
    /// The organization it is for: signed, so that it cannot be moved to another.
    pub org: OrgId,
    /// The device it is for: signed as well.
    pub device: DeviceId,
    /// Number within the device's commands; only grows. Commands run in this order.
    pub seq: u64,
    /// The operation.
    pub op: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Map<String, Value>,
    /// By the server's clock.
    pub issued_at: DateTime<Utc>,
    /// Not to be begun before.
    #[serde(default)]
    pub not_before: Option<DateTime<Utc>>,
    /// Not to be begun after.
    pub expires_at: DateTime<Utc>,
    /// Seconds the effect may take, 1 to [`MAX_EXEC_TIMEOUT_S`].
    #[serde(default = "default_timeout")]
    pub exec_timeout_s: u32,
    /// What to do when it was cut in the middle.
    #[serde(default)]
    pub on_interrupt: OnInterrupt,
    /// How often the effect may be begun, at least 1.
    #[serde(default = "one")]
    pub max_attempts: u32,
    /// What must hold before it begins.
    #[serde(default)]
    pub precond: Precond,
    /// Who asked.
    #[serde(default)]
    pub by: IssuedBy,
    /// `sha256:` and the hash of the canonical bytes; also what tells two commands with the same id apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// `ed25519:{kid}:{base64}` over the canonical bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sig: Option<String>,
    /// Unknown fields; they are signed like all others.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Command, "command", MAX_COMMAND_BYTES);

fn default_timeout() -> u32 {
    DEFAULT_EXEC_TIMEOUT_S
}

fn one() -> u32 {
    1
}

impl Command {
    /// A command with the defaults of the protocol: one attempt, 300 s, reported as interrupted when cut.
    pub fn new(
        to: &crate::DeviceAddress,
        id: CommandId,
        seq: u64,
        op: &str,
        args: Map<String, Value>,
        issued_at: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Self {
        Self {
            v: super::VERSION,
            id,
            org: to.org.clone(),
            device: to.device.clone(),
            seq,
            op: op.to_owned(),
            args,
            issued_at,
            not_before: None,
            expires_at,
            exec_timeout_s: DEFAULT_EXEC_TIMEOUT_S,
            on_interrupt: OnInterrupt::Fail,
            max_attempts: 1,
            precond: Precond::default(),
            by: IssuedBy::default(),
            hash: None,
            sig: None,
            extra: Extra::new(),
        }
    }
}
