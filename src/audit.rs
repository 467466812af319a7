//! The audit log as a chain, and how anyone checks it: pure, the same for the server that writes it and for whoever verifies
//! an export on a machine without one.
//!
//! Each organization has a chain of its own, so that its export can be checked by itself. Changes count from 1 without gaps.
//! The hash of a change is SHA-256 over, in this order and without anything in between:
//!
//! | bytes | what |
//! |---|---|
//! | 17 | `r58-audit-row-v1` and a zero byte |
//! | 32 | hash of the change before it; 32 zero bytes before the first |
//! | text | organization |
//! | 8 | number of the change, unsigned, big-endian |
//! | 8 | when, milliseconds since 1970, signed, big-endian |
//! | text | who |
//! | text | what was done |
//! | text | to what |
//! | 1, text | 0 without a detail; 1 and then the detail |
//!
//! A text is its length in bytes (8 bytes, unsigned, big-endian) and its UTF-8. So no two changes have the same bytes.
//!
//! A hash alone does not stop whoever can write the whole database from making another chain. So the server signs the head now
//! and then, and in each export (a [`Checkpoint`]): organization as text, number, hash, when, written as above and signed as
//! [`r58_mqtt::sign`] says. Whoever keeps one elsewhere sees by it that an end was cut off or the past was rewritten.
//!
//! An export is lines of JSON ([`Line`]): a beginning with the server's public keys, the changes in order, among them the
//! checkpoints that were made meanwhile, and a checkpoint of the end.

pub mod verify;

use r58_mqtt::sign::PublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The version of the export's form.
pub const FORMAT: u32 = 1;
const ROW: &[u8] = b"r58-audit-row-v1\0";

/// SHA-256 of a change, in hex where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// From 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a hash has 64 hex digits"))
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// From 1, without gaps.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Who: `user:{email}`, `device:{id}` or `server`.
    pub actor: String,
    /// What was done, such as `device.change`.
    pub action: String,
    /// To what.
    pub target: String,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Over this and the change before it.
    pub hash: Hash,
}

impl Change {
    /// The hash that it should have, after the change with the hash `before`.
    pub fn hash_after(&self, org: &str, before: Hash) -> Hash {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(ROW);
        bytes.extend_from_slice(&before.0);
        text(&mut bytes, org);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.at_ms.to_be_bytes());
        for word in [&self.actor, &self.action, &self.target] {
            text(&mut bytes, word);
        }
        match &self.detail {
            None => bytes.push(0),
            Some(detail) => {
                bytes.push(1);
                text(&mut bytes, detail);
            }
        }
        Hash(Sha256::digest(&bytes).into())
    }
}

/// The head of a chain, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Organization.
    pub org: String,
    /// The last change so far; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// When it was signed, milliseconds since 1970.
    pub at_ms: i64,
    /// `ed25519:{key}:{signature}`.
    pub sig: String,
}

impl Checkpoint {
    /// The bytes that are signed.
    pub fn head(org: &str, seq: u64, hash: Hash, at_ms: i64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        text(&mut bytes, org);
        bytes.extend_from_slice(&seq.to_be_bytes());
        bytes.extend_from_slice(&hash.0);
        bytes.extend_from_slice(&at_ms.to_be_bytes());
        bytes
    }
}

/// How an export begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// [`FORMAT`].
    pub format: u32,
    /// Organization.
    pub org: String,
    /// Keys that the server signs or signed with.
    pub keys: Vec<PublicKey>,
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    Begin(Begin),
    /// A change.
    Change(Change),
    /// A head that was signed when it was one.
    Checkpoint(Checkpoint),
}

impl Line {
    /// As it is written, with its end.
    pub fn written(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}
