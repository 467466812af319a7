//! One thing that happened: `up/evt/{kind}`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Extra, MAX_SMALL_BYTES, payload};
use crate::id::Name;

/// How much an operator should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For the record.
    #[default]
    Info,
    /// Someone should look.
    Warning,
    /// A duty stopped.
    Error,
    /// The programme is in danger.
    Critical,
}

/// The body of `up/evt/{kind}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// As in the topic.
    pub kind: Name,
    /// Which start of the process.
    pub boot_seq: u64,
    /// Number within the device's events; only grows.
    pub seq: u64,
    /// When it happened; null when the clock was not set.
    #[serde(default)]
    pub ts: Option<DateTime<Utc>>,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// One sentence.
    #[serde(default)]
    pub text: String,
    /// Details by kind.
    #[serde(default)]
    pub data: Value,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Event, "event", MAX_SMALL_BYTES);
