//! What must be true before anything starts: a writable directory of our own, free ports, GStreamer's elements.
//!
//! Each check ends in one clear sentence, so that a start either happens whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A state directory that is ours until this value is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateDir {
    /// Creates the directory (mode 0700) if need be, proves that it can be written, and locks it against a second process.
    ///
    /// # Errors
    /// Names the directory and what stands in the way.
    pub fn claim(path: &Path) -> Result<Self> {
        create_private(path).with_context(|| format!("cannot create the state directory {}", path.display()))?;
        let path =
            path.canonicalize().with_context(|| format!("cannot resolve the state directory {}", path.display()))?;
        let probe = path.join(".write-probe");
        let written = File::create(&probe).and_then(|mut file| file.write_all(b"r58").and_then(|()| file.sync_all()));
        written.with_context(|| format!("cannot write to the state directory {}", path.display()))?;
        std::fs::remove_file(&probe)
            .with_context(|| format!("cannot write to the state directory {}", path.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write to the state directory {}", path.display()))?;
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("the state directory {} is in use by another r58", path.display())
            }
            Err((_, errno)) => bail!("cannot lock the state directory {}: {errno}", path.display()),
        }
    }

    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Refuses to write as root into the state of a service that runs as somebody else, who could not read it then.
///
/// # Errors
/// Says as whom to run.
pub fn is_ours(state_dir: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(owner) = std::fs::metadata(state_dir).map(|of| of.uid()) else { return Ok(()) };
    if nix::unistd::geteuid().is_root() && owner != 0 {
        bail!("{} belongs to user {owner}; run this as that user (sudo -u '#{owner}' ...)", state_dir.display());
    }
    Ok(())
}

/// Raises the number of files and connections that this process may have open to the most that the system lets it, and answers
/// with it: a server has a connection for each of its devices.
///
/// # Errors
/// What the system says.
pub fn raise_open_files() -> Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("the limit of open files cannot be raised")?;
    }
    Ok(hard)
}

fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes a TCP port now, to be served later.
///
/// # Errors
/// Names the duty that wanted the address, the address, and what stands in the way.
pub fn take_port(duty: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| match address.port() {
        0 => format!("cannot listen on {address} for {duty}"),
        port => format!("cannot listen on {address} for {duty} (is something else on port {port}?)"),
    })?;
    listener.set_nonblocking(true).with_context(|| format!("cannot listen on {address} for {duty}"))?;
    Ok(listener)
}

/// Proves that a port is free that somebody else will open, by opening and closing it.
///
/// # Errors
/// As [`take_port`].
pub fn port_is_free(duty: &str, address: SocketAddr) -> Result<()> {
    take_port(duty, address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("state");
        let first = StateDir::claim(&path).expect("first owner");
        let refused = StateDir::claim(&path).expect_err("second owner").to_string();
        assert!(refused.contains("in use by another r58"), "{refused}");
        drop(first);
        StateDir::claim(&path).expect("free again");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("state");
        std::fs::write(&path, b"not a directory").expect("write");
        let refused = StateDir::claim(&path).expect_err("refused").to_string();
        assert!(refused.contains(&path.display().to_string()), "{refused}");
    }

    #[test]
    fn a_taken_port_is_named_with_its_duty() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("address");
        let refused = take_port("the pages", address).expect_err("taken").to_string();
        assert!(refused.contains("the pages") && refused.contains(&address.port().to_string()), "{refused}");
    }
}
