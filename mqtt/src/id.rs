//! Checked names: whatever stands in a topic passes through here first.
//!
//! All of them share one alphabet, letters, digits, `-`, `_` and `.`, begin with a letter or a digit and are 1 to
//! [`MAX_ID_BYTES`] bytes long. So none can hold a level separator, a wildcard, a NUL or a `$`, and none can be the
//! reserved level `_g`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name, in bytes. A full command topic then stays under 300 bytes.
pub const MAX_ID_BYTES: usize = 64;

/// Why a name was refused. The name itself is not repeated: it may be hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// Longer than [`MAX_ID_BYTES`].
    #[error("{what} is {len} bytes long, at most {MAX_ID_BYTES} are allowed")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A character outside of the alphabet, or a first character that is neither letter nor digit.
    #[error("{what} has a character that is not allowed at byte {at}")]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The byte offset.
        at: usize,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong { what, len: text.len() });
    }
    let wrong = text.bytes().enumerate().find(|(at, byte)| {
        let plain = byte.is_ascii_alphanumeric();
        !(plain || (*at > 0 && matches!(byte, b'-' | b'_' | b'.')))
    });
    match wrong {
        Some((at, _)) => Err(IdError::Character { what, at }),
        None => Ok(()),
    }
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`IdError`] when it is empty, too long or has a character outside of the alphabet.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                check($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_name!(
    /// An organization; also the MQTT user name of its devices.
    OrgId,
    "organization id"
);
checked_name!(
    /// A device; also its MQTT client id.
    DeviceId,
    "device id"
);
checked_name!(
    /// A command. The server makes ULIDs; any checked name that is unique per device is accepted.
    CommandId,
    "command id"
);
checked_name!(
    /// The last level of a topic: a telemetry stream, an event kind, a thumbnail, a group.
    Name,
    "name"
);

impl CommandId {
    /// A fresh ULID from the system's clock and randomness.
    pub fn generate() -> Self {
        Self(Arc::from(ulid::Ulid::new().to_string().as_str()))
    }
}

/// One device of one organization: the root of its part of the topic tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceAddress {
    /// The organization.
    pub org: OrgId,
    /// The device.
    pub device: DeviceId,
}

impl DeviceAddress {
    /// Checks both names.
    ///
    /// # Errors
    /// [`IdError`] for the first name that is refused.
    pub fn new(org: impl AsRef<str>, device: impl AsRef<str>) -> Result<Self, IdError> {
        Ok(Self { org: OrgId::new(org)?, device: DeviceId::new(device)? })
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_change_a_topic_are_refused() {
        for bad in ["", "a/b", "+", "#", "a#", "$sys", "_g", "-a", ".", "..", "a b", "a\0", "é", "a\n"] {
            assert!(DeviceId::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(DeviceId::new("x".repeat(MAX_ID_BYTES)).is_ok());
        assert_eq!(DeviceId::new("x".repeat(65)), Err(IdError::TooLong { what: "device id", len: 65 }));
    }

    #[test]
    fn names_survive_json_and_refuse_bad_json() {
        let id: CommandId = serde_json::from_str("\"01J-a_b.c\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"01J-a_b.c\"");
        assert!(serde_json::from_str::<CommandId>("\"a/b\"").is_err());
    }

    #[test]
    fn generated_command_ids_are_valid_and_distinct() {
        let (a, b) = (CommandId::generate(), CommandId::generate());
        assert_ne!(a, b);
        assert!(CommandId::new(a.as_str()).is_ok());
    }
}
