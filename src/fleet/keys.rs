//! The server's own secrets: made at the first start, kept in the state directory with mode 0600, never logged.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use r58_mqtt::sign::{CommandSigner, KeyError};
use rand::RngCore;

use super::FleetError;
use super::vault::Vault;

/// File of the key that access tokens are signed with.
const TOKEN_KEY: &str = "access-token.key";
/// File of the key that commands are signed with.
const COMMAND_KEY: &str = "command-key.pem";
/// Both, for back-ups.
pub const KEY_FILES: [&str; 2] = [TOKEN_KEY, COMMAND_KEY];
/// Bytes of the token key: as many as HMAC-SHA-256 puts out (RFC 7518, section 3.2).
const TOKEN_KEY_BYTES: usize = 32;

/// The server's keys.
pub struct Keys {
    /// Signs access tokens (HS256).
    pub(super) access: [u8; TOKEN_KEY_BYTES],
    /// Signs commands and requests (ed25519).
    pub(super) commands: Arc<CommandSigner>,
    /// Seals what has to be read again; of the same key.
    pub(super) vault: Vault,
}

impl Keys {
    /// Reads both keys, or makes those that are not there.
    ///
    /// # Errors
    /// When a file cannot be read or written, is not a key, or others than its owner may read it.
    pub fn load_or_create(state_dir: &Path) -> Result<Self, FleetError> {
        let commands = CommandSigner::load_or_create(&state_dir.join(COMMAND_KEY)).map_err(|error| match error {
            KeyError::Io { path, source } => FleetError::Path { path, reason: source.to_string() },
            other => FleetError::Misconfigured(other.to_string()),
        })?;
        let vault = Vault::of(&commands);
        Ok(Self { access: token_key(&state_dir.join(TOKEN_KEY))?, commands: Arc::new(commands), vault })
    }
}

fn token_key(path: &Path) -> Result<[u8; TOKEN_KEY_BYTES], FleetError> {
    let failed =
        |error: std::io::Error| FleetError::Path { path: path.display().to_string(), reason: error.to_string() };
    if path.exists() {
        if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(FleetError::Misconfigured(format!("{} is readable by others than its owner", path.display())));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        return hex::decode(text.trim())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| FleetError::Misconfigured(format!("{} is not a key", path.display())));
    }
    let mut key = [0; TOKEN_KEY_BYTES];
    rand::rngs::OsRng.fill_bytes(&mut key);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{}", hex::encode(key)).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(key)
}
