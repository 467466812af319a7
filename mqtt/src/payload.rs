//! What travels on each topic: one file per family, JSON, unknown fields preserved in `extra`.
//!
//! Every type implements [`Payload`]: a size limit and a checked [`Payload::parse`] that tells malformed, oversized and
//! wrong-version messages apart. A missing `v` means version 1, except in commands, which must say it.

pub mod caps;
pub mod command;
pub mod event;
pub mod heartbeat;
pub mod presence;
pub mod reported;
pub mod request;
pub mod states;
pub mod status;
pub mod sync;
pub mod telemetry;

pub use caps::{Caps, Limits};
pub use command::{Command, IssuedBy, OnInterrupt, Precond};
pub use event::{Event, Severity};
pub use heartbeat::{Heartbeat, InputBrief, Metrics, OutboxBrief, ProgrammeBrief, StatusBrief, TurnBrief};
pub use presence::{ConnectionOrder, Presence, PresenceState};
pub use reported::{Desired, MixerBrief, Reported, SceneBrief};
pub use request::{Method, Request, Response};
pub use states::{DeviceState, LegacyStatus, ServerState};
pub use status::{ClockState, CommandStatus};
pub use sync::{SyncDown, SyncUp, pending_hash};
pub use telemetry::{Batch, BatchItem};

use memchr::memmem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields that this version does not know, kept so that they can be passed on.
pub type Extra = Map<String, Value>;

/// The payload version this crate reads and writes.
pub const VERSION: u64 = 1;
/// The largest packet either side accepts, in bytes (facts: Maximum Packet Size of the protocol).
pub const MAX_PACKET_BYTES: usize = 256 * 1024;
/// The largest payload: a packet less its topic, properties and header.
pub const MAX_PAYLOAD_BYTES: usize = MAX_PACKET_BYTES - 4 * 1024;
/// The largest command or status, in bytes.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;
/// The largest presence, heartbeat, caps, event, in bytes.
pub const MAX_SMALL_BYTES: usize = 64 * 1024;
/// The largest JPEG on `up/thumb/{name}`, in bytes.
pub const MAX_THUMBNAIL_BYTES: usize = 16 * 1024;

/// Why a payload was refused. The payload is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More bytes than this kind may have.
    #[error("{what} has {len} bytes, at most {max} are allowed")]
    Oversized {
        /// Which payload.
        what: &'static str,
        /// Its size.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not JSON, or not the right fields.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// Which payload.
        what: &'static str,
        /// What the parser met, without the payload's text.
        reason: String,
    },
    /// A version this crate does not read.
    #[error("{what} has version {found}, this device reads version {VERSION}")]
    WrongVersion {
        /// Which payload.
        what: &'static str,
        /// The version in the message.
        found: String,
    },
}

impl PayloadError {
    /// One word for logs, statuses and metrics: `oversized`, `malformed` or `version`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Oversized { .. } => "oversized",
            Self::Malformed { .. } => "malformed",
            Self::WrongVersion { .. } => "version",
        }
    }
}

/// A message body.
pub trait Payload: Serialize + DeserializeOwned {
    /// Its name in errors.
    const WHAT: &'static str;
    /// The most bytes it may have.
    const MAX_BYTES: usize;

    /// Reads a message body; never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`PayloadError`] when it is too large, not JSON, lacks a field or has another version.
    fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        check_size(Self::WHAT, Self::MAX_BYTES, bytes.len())?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| PayloadError::Malformed { what: Self::WHAT, reason: "not UTF-8".to_owned() })?;
        // Two passes over the text cost a fraction of building a tree of it, and most messages need only one.
        if may_say_version(bytes) {
            let said: Versioned = serde_json::from_str(text).map_err(|error| malformed(Self::WHAT, &error))?;
            check_version(Self::WHAT, said.v.as_ref())?;
        }
        serde_json::from_str(text).map_err(|error| malformed(Self::WHAT, &error))
    }

    /// Reads a body that is already JSON.
    ///
    /// # Errors
    /// As [`Payload::parse`], without the size limit.
    fn from_value(value: Value) -> Result<Self, PayloadError> {
        check_version(Self::WHAT, value.get("v"))?;
        serde_json::from_value(value).map_err(|error| malformed(Self::WHAT, &error))
    }

    /// Writes the body.
    ///
    /// # Errors
    /// [`PayloadError::Oversized`] when it would be refused at the other end.
    fn to_bytes(&self) -> Result<Vec<u8>, PayloadError> {
        let bytes = serde_json::to_vec(self).map_err(|error| malformed(Self::WHAT, &error))?;
        check_size(Self::WHAT, Self::MAX_BYTES, bytes.len())?;
        Ok(bytes)
    }
}

pub(crate) fn parse_value(what: &'static str, max: usize, bytes: &[u8]) -> Result<Value, PayloadError> {
    check_size(what, max, bytes.len())?;
    serde_json::from_slice(bytes).map_err(|error| malformed(what, &error))
}

fn check_size(what: &'static str, max: usize, len: usize) -> Result<(), PayloadError> {
    if len > max {
        return Err(PayloadError::Oversized { what, len, max });
    }
    Ok(())
}

/// The one field that is read before all others.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    v: Option<Value>,
}

/// Whether the field `v` can be in there: its name is spelled out, or something is spelled with an escape.
fn may_say_version(bytes: &[u8]) -> bool {
    memmem::find(bytes, br#""v""#).is_some() || memchr::memchr(b'\\', bytes).is_some()
}

fn check_version(what: &'static str, version: Option<&Value>) -> Result<(), PayloadError> {
    match version {
        None => Ok(()),
        Some(Value::Number(number)) if number.as_u64() == Some(VERSION) => Ok(()),
        Some(Value::Number(number)) => Err(PayloadError::WrongVersion { what, found: number.to_string() }),
        Some(_) => Err(PayloadError::Malformed { what, reason: "v is not a number".to_owned() }),
    }
}

/// The parser's message, cut short: serde quotes unknown variants, so a hostile payload could otherwise fill a log.
fn malformed(what: &'static str, error: &serde_json::Error) -> PayloadError {
    let reason: String = error.to_string().chars().filter(|c| !c.is_control()).take(160).collect();
    PayloadError::Malformed { what, reason }
}

macro_rules! payload {
    ($type:ty, $what:literal, $max:expr) => {
        impl $crate::payload::Payload for $type {
            const WHAT: &'static str = $what;
            const MAX_BYTES: usize = $max;
        }
    };
}
pub(crate) use payload;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_oversized_and_other_versions_are_told_apart() {
        let max = Presence::MAX_BYTES;
        assert_eq!(Presence::parse(b"{").unwrap_err().code(), "malformed");
        assert_eq!(Presence::parse(&vec![b' '; max + 1]).unwrap_err().code(), "oversized");
        let other = br#"{"v":2,"state":"online","boot_seq":1,"conn_seq":1}"#;
        assert_eq!(Presence::parse(other).unwrap_err().code(), "version");
        let escaped = br#"{"\u0076":2,"state":"online","boot_seq":1,"conn_seq":1}"#;
        assert_eq!(Presence::parse(escaped).unwrap_err().code(), "version");
        assert_eq!(
            Presence::parse(b"{\"state\":\"\xff\",\"boot_seq\":1,\"conn_seq\":1}").unwrap_err().code(),
            "malformed"
        );
        let deep = "[".repeat(10_000);
        assert_eq!(Presence::parse(deep.as_bytes()).unwrap_err().code(), "malformed");
    }

    #[test]
    fn an_error_does_not_repeat_a_long_hostile_text() {
        let long = format!(r#"{{"state":"{}","boot_seq":1,"conn_seq":1}}"#, "x".repeat(50_000));
        assert!(Presence::parse(long.as_bytes()).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn unknown_fields_survive_a_round_trip() {
        let text = br#"{"state":"online","boot_seq":1,"conn_seq":2,"later":{"a":[1]}}"#;
        let presence = Presence::parse(text).unwrap();
        let again = Presence::parse(&presence.to_bytes().unwrap()).unwrap();
        assert_eq!(again.extra["later"], serde_json::json!({"a": [1]}));
        assert_eq!(again, presence);
    }
}
