//! The kept session: `r58/session.json` in the user's configuration directory, mode 0600, one entry a server.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};

use super::client::CtlError;

/// Tokens of one server.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Access token.
    pub access_token: String,
    /// Refresh token, good for one use.
    pub refresh_token: String,
}

type Sessions = BTreeMap<String, Kept>;

fn file() -> Result<PathBuf, CtlError> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))
        .ok_or_else(|| CtlError::Usage("neither XDG_CONFIG_HOME nor HOME is set".into()))?;
    Ok(base.join("r58").join("session.json"))
}

fn read(path: &Path) -> Sessions {
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The session of a server, if one is kept.
///
/// # Errors
/// When others than its owner may read the file.
pub fn load(url: &str) -> Result<Option<Kept>, CtlError> {
    let path = file()?;
    if let Ok(metadata) = fs::metadata(&path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        return Err(CtlError::NotSignedIn(format!("{} is readable by others; sign in again", path.display())));
    }
    Ok(read(&path).remove(url))
}

/// Keeps or forgets the session of a server. The file is replaced whole.
///
/// # Errors
/// When it cannot be written.
pub fn store(url: &str, kept: Option<&Kept>) -> Result<(), CtlError> {
    let path = file()?;
    let failed = |error: std::io::Error| CtlError::Usage(format!("cannot write {}: {error}", path.display()));
    let dir = path.parent().unwrap_or(Path::new("."));
    if !dir.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    let mut sessions = read(&path);
    match kept {
        Some(kept) => sessions.insert(url.to_owned(), kept.clone()),
        None => sessions.remove(url),
    };
    let text = serde_json::to_vec_pretty(&sessions).map_err(|error| failed(error.into()))?;
    let fresh = dir.join(format!(".session.{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&fresh, &path));
    written.map_err(failed)
}

/// While it lives, the terminal shows nothing of what is typed.
pub struct Quiet {
    before: nix::sys::termios::Termios,
}

impl Quiet {
    /// `None` when the terminal cannot be told.
    pub fn new() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &quiet).ok()?;
        Some(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing can be done if the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &self.before);
    }
}
