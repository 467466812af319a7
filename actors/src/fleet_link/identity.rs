//! Who the box is to its fleet: enrolment with a one-time code or by certificate, and the identity file.
//!
//! `identity.json` in the state directory, mode 0600, replaced atomically. It holds the device's token, so
//! nothing here can print one: [`Secret`] has no readable `Debug` and no `Display`.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FILE: &str = "identity.json";
const BODY_MAX: usize = 64 * 1024;

/// A string that no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A key whose holder may command the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandKey {
    /// Names the key in a command's signature.
    pub kid: String,
    /// Ed25519, 32 bytes, base64.
    pub public_key: String,
}

/// What enrolment gave the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The MQTT client id and topic segment.
    pub device_id: String,
    /// 64 hex digits: the MQTT password and `X-Device-Token`.
    pub token: Secret,
    /// Base URL of the fleet's HTTP API.
    pub fleet_url: String,
    /// The MQTT user name and topic segment.
    pub org: String,
    /// `mqtt://host:port` or `mqtts://host:port`.
    pub mqtt_url: String,
    /// Keys whose commands the box obeys.
    #[serde(default)]
    pub command_keys: Vec<CommandKey>,
}

/// What the box says about itself when it registers.
#[derive(Clone, Debug, Serialize)]
pub struct Registration {
    /// One-time code of an administrator; without one, the certificate that the connection shows has to name the box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrolment_code: Option<Secret>,
    /// The id the box wants.
    pub device_id: String,
    /// Name for people.
    pub name: String,
    /// `linux`.
    pub platform: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Software version.
    pub current_version: String,
}

impl Registration {
    /// For the machine this runs on.
    pub fn of_this_machine(code: impl Into<Option<Secret>>, device_id: &str, name: &str, version: &str) -> Self {
        Self {
            enrolment_code: code.into(),
            device_id: device_id.to_owned(),
            name: name.to_owned(),
            platform: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            current_version: version.to_owned(),
        }
    }
}

/// Why the box has no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The fleet cannot be reached: try again later.
    #[error("the fleet cannot be reached: {0}")]
    Unreachable(&'static str),
    /// The fleet said no: the code is wrong or used, or the id is taken.
    #[error("the fleet refused to register this box: {0}")]
    Refused(String),
    /// The fleet's answer makes no sense.
    #[error("the fleet's answer cannot be read: {0}")]
    Unreadable(&'static str),
    /// The identity cannot be read or written.
    #[error("identity file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads the identity of an earlier enrolment; `None` before the first one. Blocks.
///
/// # Errors
/// [`EnrolError::File`] when the file exists and cannot be read or is no identity.
pub fn load(state_dir: &Path) -> Result<Option<Identity>, EnrolError> {
    let path = state_dir.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EnrolError::File { path, source }),
    };
    let bad = |error: serde_json::Error| EnrolError::File { path, source: error.into() };
    serde_json::from_slice(&bytes).map(Some).map_err(bad)
}

/// Writes the identity so that it is there, whole, or not at all. Blocks.
///
/// # Errors
/// [`EnrolError::File`].
pub fn save(state_dir: &Path, identity: &Identity) -> Result<(), EnrolError> {
    let path = state_dir.join(FILE);
    let bytes = serde_json::to_vec_pretty(identity).unwrap_or_default();
    write_private(&path, &bytes).map_err(|source| EnrolError::File { path, source })
}

/// Replaces a file atomically and durably, readable by its owner only. Blocks.
///
/// # Errors
/// Whatever the file system says; the old content is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // A leftover of a power cut may have other permissions.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(dir)?.sync_all()
}

/// `POST {fleet}/api/v1/devices/register`.
///
/// # Errors
/// [`EnrolError`]; `Refused` will not change by trying again with the same code.
pub async fn register(
    http: &reqwest::Client,
    fleet_url: &str,
    registration: &Registration,
) -> Result<Identity, EnrolError> {
    let base = fleet_url.trim_end_matches('/');
    let url = format!("{base}/api/v1/devices/register");
    let response = http.post(url).json(registration).send().await.map_err(unreachable)?;
    let status = response.status();
    let body = read(response).await?;
    if status.is_server_error() {
        return Err(EnrolError::Unreachable("it answered with a server error"));
    }
    if !status.is_success() {
        return Err(EnrolError::Refused(reason(status.as_u16(), &body)));
    }
    let mut identity: Identity =
        serde_json::from_slice(&body).map_err(|_| EnrolError::Unreadable("it is not an identity"))?;
    if identity.token.expose().is_empty() || identity.device_id != registration.device_id {
        return Err(EnrolError::Unreadable("it names another device or no token"));
    }
    // The address that reached the fleet is known to work; the one it gives may be behind a proxy.
    if identity.fleet_url.is_empty() {
        identity.fleet_url = base.to_owned();
    }
    Ok(identity)
}

async fn read(response: reqwest::Response) -> Result<Vec<u8>, EnrolError> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(unreachable)?;
        if body.len() + chunk.len() > BODY_MAX {
            return Err(EnrolError::Unreadable("it is longer than 64 KiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The problem's own words (RFC 9457), or the status.
fn reason(status: u16, body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = ["detail", "title"].iter().find_map(|key| problem[key].as_str());
    match words {
        Some(words) => format!("{} ({status})", words.chars().take(200).collect::<String>()),
        None => format!("status {status}"),
    }
}

fn unreachable(error: reqwest::Error) -> EnrolError {
    EnrolError::Unreachable(if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_builder() {
        "its address is not a url"
    } else {
        "the connection broke"
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn identity() -> Identity {
        Identity {
            device_id: "box-1".to_owned(),
            token: Secret::new("ab".repeat(32)),
            fleet_url: "http://127.0.0.1:8180".to_owned(),
            org: "default".to_owned(),
            mqtt_url: "mqtt://127.0.0.1:1883".to_owned(),
            command_keys: vec![CommandKey { kid: "k1".to_owned(), public_key: "AAAA".to_owned() }],
        }
    }

    #[test]
    fn an_identity_survives_a_restart_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        save(dir.path(), &identity()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(identity()));
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_leftover_of_a_power_cut_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("identity.json.new"), b"half").unwrap();
        save(dir.path(), &identity()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(identity()));
    }

    #[test]
    fn a_token_shows_in_no_log() {
        let text = format!("{:?}", identity());
        assert!(!text.contains("abab"), "{text}");
    }

    #[test]
    fn a_broken_identity_file_is_an_error_and_not_a_new_enrolment() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(matches!(load(dir.path()), Err(EnrolError::File { .. })));
    }
}
