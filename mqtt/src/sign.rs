//! Commands and requests are signed end to end: whoever holds the broker can withhold one, but not make or move it.
//!
//! The canonical bytes are the message's JSON without `hash` and `sig`, keys sorted at every depth, no white space. They
//! hold `org` and `device`, so a signature is worth nothing at another device. `hash` is their SHA-256; `sig` is
//! ed25519 (RFC 8032) over a domain prefix and those bytes. Verification works on the JSON as it came, so fields that
//! this version does not know are covered too.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::id::{CommandId, DeviceAddress};
use crate::payload::{Command, Payload, PayloadError, Request, parse_value};

/// Keeps signatures over commands apart from any other use of the same key.
const COMMANDS: &[u8] = b"r58-command-v1\0";
/// The same for requests.
const REQUESTS: &[u8] = b"r58-request-v1\0";
/// The same for heads of audit logs.
const AUDIT: &[u8] = b"r58-audit-head-v1\0";
/// The same for keys that are made of it.
const DERIVED: &[u8] = b"r58-derived-key-v1\0";
/// The name of the signature scheme in `sig`.
const SCHEME: &str = "ed25519";

/// Why a command is not to be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read at all.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The id in the body is not the one in the topic.
    #[error("the command's id is not the one of its topic")]
    WrongTopic,
    /// For another organization or device.
    #[error("it is for another device or organization")]
    Foreign,
    /// No hash or no signature.
    #[error("it is not signed")]
    Unsigned,
    /// A signature field that cannot be read.
    #[error("its signature cannot be read")]
    BadSignatureField,
    /// Signed with a key that this device does not trust.
    #[error("it is signed with a key this device does not know")]
    UnknownKey,
    /// The hash is not that of the content.
    #[error("its hash does not fit its content")]
    WrongHash,
    /// The signature is not that of the content.
    #[error("its signature does not fit its content")]
    WrongSignature,
    /// Too late.
    #[error("the command expired at {0}")]
    Expired(DateTime<Utc>),
    /// Too early.
    #[error("the command is not to be begun before {0}")]
    NotBefore(DateTime<Utc>),
}

impl VerifyError {
    /// The word for a status: `malformed`, `oversized`, `version`, `foreign`, `signature`, `expired` or `not_before`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Payload(error) => error.code(),
            Self::WrongTopic | Self::Foreign => "foreign",
            Self::Unsigned | Self::BadSignatureField | Self::UnknownKey => "signature",
            Self::WrongHash | Self::WrongSignature => "signature",
            Self::Expired(_) => "expired",
            Self::NotBefore(_) => "not_before",
        }
    }
}

/// Why a key could not be made, read or written. No key material in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// File access.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not a key.
    #[error("{0} is not an ed25519 key")]
    Malformed(String),
    /// Readable by others.
    #[error("key file {0} is readable by others than its owner")]
    Exposed(String),
    /// A command that cannot be signed, because it would not read back the same.
    #[error("it cannot be signed: {0}")]
    Unsignable(String),
}

/// A command whose signature, tenant and topic were checked. Only [`KeyRing::verify`] makes one; whether it is still
/// in time is for the holder of a clock to say.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedCommand {
    command: Command,
    raw: Value,
    hash: String,
    kid: String,
}

impl VerifiedCommand {
    /// The command.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The JSON as it came.
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// `sha256:` and the hash of the canonical bytes.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The key it was signed with.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A verified command without a signature, for tests of what comes after verification.
    #[cfg(test)]
    pub(crate) fn trusted(command: Command) -> Self {
        let raw = serde_json::to_value(&command).unwrap();
        let hash = hash_of(&canonical_bytes(&raw));
        Self { command, raw, hash, kid: "test".to_owned() }
    }
}

/// Judges the time window of a command by a wall clock.
///
/// # Errors
/// [`VerifyError::Expired`] from `expires_at` on, [`VerifyError::NotBefore`] until `not_before`.
pub fn check_window(command: &Command, now: DateTime<Utc>) -> Result<(), VerifyError> {
    if now >= command.expires_at {
        return Err(VerifyError::Expired(command.expires_at));
    }
    match command.not_before {
        Some(start) if now < start => Err(VerifyError::NotBefore(start)),
        _ => Ok(()),
    }
}

/// The bytes that are hashed and signed: without `hash` and `sig`, keys sorted at every depth.
///
/// ```
/// use r58_mqtt::sign::canonical_bytes;
/// let value = serde_json::json!({"sig": "x", "b": {"d": 1, "c": [true, null]}, "hash": "y", "a": "é"});
/// assert_eq!(canonical_bytes(&value), r#"{"a":"é","b":{"c":[true,null],"d":1}}"#.as_bytes());
/// ```
pub fn canonical_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_canonical(value, true, &mut out);
    out
}

fn write_canonical(value: &Value, top: bool, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&str, &Value> = map
                .iter()
                .filter(|(key, _)| !(top && matches!(key.as_str(), "hash" | "sig")))
                .map(|(key, value)| (key.as_str(), value))
                .collect();
            out.push(b'{');
            for (n, (key, value)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_scalar(&Value::String(key.to_owned()), out);
                out.push(b':');
                write_canonical(value, false, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_canonical(item, false, out);
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) {
    // Writing a scalar to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn hash_of(canonical: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(canonical)))
}

/// A public key as it is handed to a device when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// The key's id.
    pub kid: String,
    /// 32 bytes in base64.
    pub public_key: String,
}

/// The keys a device trusts, by id.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    keys: BTreeMap<String, VerifyingKey>,
}

impl KeyRing {
    /// A ring of these keys.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] for the first key that is not one.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> Result<Self, KeyError> {
        let mut ring = Self::default();
        for key in keys {
            ring.add(key)?;
        }
        Ok(ring)
    }

    /// Trusts one more key; a key with the same id is replaced.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when it is not an ed25519 public key, or a weak one.
    pub fn add(&mut self, key: &PublicKey) -> Result<(), KeyError> {
        let malformed = || KeyError::Malformed(format!("public key {}", key.kid));
        let bytes = BASE64.decode(&key.public_key).map_err(|_| malformed())?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| malformed())?;
        let verifying = VerifyingKey::from_bytes(&bytes).map_err(|_| malformed())?;
        if verifying.is_weak() || key.kid.is_empty() || key.kid.contains(':') {
            return Err(malformed());
        }
        self.keys.insert(key.kid.clone(), verifying);
        Ok(())
    }

    /// The ids of the trusted keys.
    pub fn kids(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    /// Checks a message that came on `down/cmd/{id}` of this device. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`VerifyError`]: unreadable, foreign, unsigned, an unknown key, a wrong hash or signature. The time window is not
    /// judged here: see [`check_window`].
    pub fn verify(&self, at: &DeviceAddress, id: &CommandId, bytes: &[u8]) -> Result<VerifiedCommand, VerifyError> {
        let raw = parse_value(Command::WHAT, Command::MAX_BYTES, bytes)?;
        if raw.get("v").is_none() {
            let reason = "missing field `v`".to_owned();
            return Err(PayloadError::Malformed { what: Command::WHAT, reason }.into());
        }
        let command = Command::from_value(raw.clone())?;
        if command.id != *id {
            return Err(VerifyError::WrongTopic);
        }
        if command.org != at.org || command.device != at.device {
            return Err(VerifyError::Foreign);
        }
        let (hash, kid) = self.check(COMMANDS, &raw, command.hash.as_deref(), command.sig.as_deref())?;
        Ok(VerifiedCommand { command, raw, hash, kid })
    }

    /// Checks a message that came on `down/request` of this device, as [`KeyRing::verify`] does for commands. Never panics,
    /// whatever the bytes.
    ///
    /// # Errors
    /// As [`KeyRing::verify`]. Whether it is still in time is for the holder of a clock to say.
    pub fn verify_request(&self, at: &DeviceAddress, bytes: &[u8]) -> Result<Request, VerifyError> {
        let raw = parse_value(Request::WHAT, Request::MAX_BYTES, bytes)?;
        let request = Request::from_value(raw.clone())?;
        if request.org != at.org || request.device != at.device {
            return Err(VerifyError::Foreign);
        }
        self.check(REQUESTS, &raw, request.hash.as_deref(), request.sig.as_deref())?;
        Ok(request)
    }

    /// Checks the signature over the head of an audit log, and answers with the id of its key.
    ///
    /// # Errors
    /// [`VerifyError`]: a signature that cannot be read, an unknown key, a wrong signature.
    pub fn verify_audit_head(&self, head: &[u8], sig: &str) -> Result<String, VerifyError> {
        let (kid, signature) = read_signature(sig).ok_or(VerifyError::BadSignatureField)?;
        let key = self.keys.get(kid).ok_or(VerifyError::UnknownKey)?;
        key.verify_strict(&[AUDIT, head].concat(), &signature).map_err(|_| VerifyError::WrongSignature)?;
        Ok(kid.to_owned())
    }

    /// The hash and the key's id of what is signed as it says.
    fn check(
        &self,
        domain: &[u8],
        raw: &Value,
        hash: Option<&str>,
        sig: Option<&str>,
    ) -> Result<(String, String), VerifyError> {
        let (Some(hash), Some(sig)) = (hash, sig) else { return Err(VerifyError::Unsigned) };
        let (kid, signature) = read_signature(sig).ok_or(VerifyError::BadSignatureField)?;
        let key = self.keys.get(kid).ok_or(VerifyError::UnknownKey)?;
        let canonical = canonical_bytes(raw);
        if hash_of(&canonical) != hash {
            return Err(VerifyError::WrongHash);
        }
        let message = [domain, &canonical].concat();
        key.verify_strict(&message, &signature).map_err(|_| VerifyError::WrongSignature)?;
        Ok((hash.to_owned(), kid.to_owned()))
    }
}

fn read_signature(text: &str) -> Option<(&str, Signature)> {
    let (kid, encoded) = text.strip_prefix(SCHEME)?.strip_prefix(':')?.split_once(':')?;
    let bytes = BASE64.decode(encoded).ok()?;
    Some((kid, Signature::from_slice(&bytes).ok()?))
}

/// A private key that signs commands. Its `Debug` shows the id only.
pub struct CommandSigner {
    kid: String,
    key: SigningKey,
}

impl std::fmt::Debug for CommandSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandSigner").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl CommandSigner {
    /// A fresh key from the system's randomness.
    pub fn generate() -> Self {
        Self::from_key(SigningKey::generate(&mut rand::rngs::OsRng))
    }

    fn from_key(key: SigningKey) -> Self {
        let digest = Sha256::digest(key.verifying_key().as_bytes());
        let kid = hex::encode(&digest[..8]);
        Self { kid, key }
    }

    /// The key's id: the first eight bytes of the public key's SHA-256, in hex.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What devices need in order to trust this key.
    pub fn public_key(&self) -> PublicKey {
        let public_key = BASE64.encode(self.key.verifying_key().as_bytes());
        PublicKey { kid: self.kid.clone(), public_key }
    }

    /// Reads a PKCS#8 PEM file.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be read, is not a key, or others than its owner may read it.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let shown = path.display().to_string();
        let io = |source| KeyError::Io { path: shown.clone(), source };
        let mode = fs::metadata(path).map_err(io)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed(shown));
        }
        let pem = fs::read_to_string(path).map_err(io)?;
        let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| KeyError::Malformed(shown.clone()))?;
        Ok(Self::from_key(key))
    }

    /// Writes a PKCS#8 PEM file with mode 0600 that must not exist yet, and syncs it.
    ///
    /// # Errors
    /// [`KeyError::Io`], also when the file exists.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let shown = path.display().to_string();
        let io = |source| KeyError::Io { path: shown.clone(), source };
        let pem = self.key.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::Malformed(shown.clone()))?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(io)
    }

    /// The key in `path`, made and written there when the file does not exist.
    ///
    /// # Errors
    /// As [`CommandSigner::load`] and [`CommandSigner::save`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        if path.exists() {
            return Self::load(path);
        }
        let signer = Self::generate();
        signer.save(path)?;
        Ok(signer)
    }

    /// Signs a command and writes the bytes to publish on `down/cmd/{id}`; `hash` and `sig` of the command are replaced.
    ///
    /// # Errors
    /// [`KeyError::Unsignable`] when it is too large, or holds a number that would not read back as it was written.
    pub fn sign(&self, command: &mut Command) -> Result<Vec<u8>, KeyError> {
        (command.hash, command.sig) = (None, None);
        let (hash, sig) = self.seal(COMMANDS, &*command)?;
        (command.hash, command.sig) = (Some(hash), Some(sig));
        command.to_bytes().map_err(unsignable)
    }

    /// Signs a request and writes the bytes to publish on `down/request`; `hash` and `sig` of the request are replaced.
    ///
    /// # Errors
    /// [`KeyError::Unsignable`] when it is too large.
    pub fn sign_request(&self, request: &mut Request) -> Result<Vec<u8>, KeyError> {
        (request.hash, request.sig) = (None, None);
        let (hash, sig) = self.seal(REQUESTS, &*request)?;
        (request.hash, request.sig) = (Some(hash), Some(sig));
        request.to_bytes().map_err(unsignable)
    }

    /// Signs the head of an audit log, whose bytes its own module defines.
    pub fn sign_audit_head(&self, head: &[u8]) -> String {
        self.write_signature(&[AUDIT, head].concat())
    }

    /// A key of its own for another `purpose`, which tells nothing of this one: the same wherever this key is. HMAC-SHA-256 of
    /// the purpose under the private key, which is as random as a key for it has to be (RFC 5869, section 3.3).
    pub fn derived_key(&self, purpose: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key.to_bytes()).expect("HMAC takes keys of any length");
        mac.update(DERIVED);
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// For tests of how domains are kept apart.
    #[cfg(test)]
    pub(crate) fn seal_as_command(&self, message: &impl Serialize) -> (String, String) {
        self.seal(COMMANDS, message).unwrap()
    }

    /// Hash and signature of a message that has none yet.
    fn seal(&self, domain: &[u8], message: &impl Serialize) -> Result<(String, String), KeyError> {
        let value = serde_json::to_value(message).map_err(unsignable)?;
        let canonical = canonical_bytes(&value);
        let again: Value = serde_json::from_slice(&canonical).map_err(unsignable)?;
        if canonical_bytes(&again) != canonical {
            return Err(KeyError::Unsignable("a number has too many digits".to_owned()));
        }
        Ok((hash_of(&canonical), self.write_signature(&[domain, &canonical].concat())))
    }

    fn write_signature(&self, message: &[u8]) -> String {
        format!("{SCHEME}:{}:{}", self.kid, BASE64.encode(self.key.sign(message).to_bytes()))
    }
}

fn unsignable(error: impl std::fmt::Display) -> KeyError {
    KeyError::Unsignable(error.to_string())
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
