//! What the fleet link may do to the machine below it: reboot it, restart a unit, tell its boot.
//!
//! Not an actor: a seam. [`SystemHost`] asks logind and systemd through their own tools, each call with a
//! fixed argument list and a deadline, never through a shell. [`RecordingHost`] belongs to the demo and to
//! tests: it does nothing but write down what it was asked, and plays a reboot by giving itself a new boot
//! id, which a process that starts later sees too. Every call blocks: make it on a thread of its own.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::fleet_link::identity::write_private;

/// How long a tool of the system may take.
const TOOL_DEADLINE: Duration = Duration::from_secs(20);
/// Longest wait before a reboot that an operator may ask for.
pub const REBOOT_DELAY_MAX: Duration = Duration::from_secs(300);
/// The kernel's name of this boot.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// systemd-timesyncd touches it once the clock was set from the network (systemd-timesyncd.service(8)).
const TIMESYNC_FILE: &str = "/run/systemd/timesync/synchronized";

/// Why the machine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The name is no unit name, or not on the allow-list.
    #[error("{0} is not a unit that may be restarted")]
    NotAllowed(String),
    /// The tool is missing, failed, or did not end in time.
    #[error("{tool}: {reason}")]
    Failed {
        /// Which tool.
        tool: &'static str,
        /// Its own last words, or ours.
        reason: String,
    },
    /// A file of the seam cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What became of a reboot that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebooting {
    /// The machine goes down now: this process will be ended.
    Underway,
    /// It was played: [`Host::boot_id`] is a new one already, and this process lives on.
    Played,
}

/// The machine.
pub trait Host: Send + Sync {
    /// Reboots after `delay` (at most [`REBOOT_DELAY_MAX`]), which it waits for on the calling thread.
    ///
    /// # Errors
    /// [`HostError::Failed`] when the machine will not go down.
    fn reboot(&self, delay: Duration) -> Result<Rebooting, HostError>;

    /// Restarts one allow-listed systemd unit.
    ///
    /// # Errors
    /// [`HostError`].
    fn restart_unit(&self, unit: &str) -> Result<(), HostError>;

    /// The name of this boot: differs after a reboot, and only then.
    ///
    /// # Errors
    /// [`HostError::File`].
    fn boot_id(&self) -> Result<String, HostError>;

    /// Whether wall-clock times can be believed.
    fn clock_synchronized(&self) -> bool;
}

/// Counts the starts of the box's process, durably: orders presences and heartbeats of different starts.
///
/// # Errors
/// [`HostError::File`] when the state directory cannot be written. A number that cannot be read starts again
/// at the seconds since 1970, which is above any count so far.
pub fn next_boot_seq(state_dir: &Path) -> Result<u64, HostError> {
    let path = state_dir.join("boot_seq");
    let since_1970 = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |age| age.as_secs());
    let last = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or_else(|_| since_1970()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => since_1970(),
        Err(source) => return Err(HostError::File { path, source }),
    };
    let next = last.saturating_add(1);
    write_private(&path, next.to_string().as_bytes()).map_err(|source| HostError::File { path, source })?;
    Ok(next)
}

/// A name that systemd could have, of a kind that makes sense to restart.
pub fn is_unit_name(name: &str) -> bool {
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    !stem.is_empty()
        && !stem.starts_with('-')
        && name.len() <= 128
        && name.chars().all(sane)
        && matches!(kind, "service" | "socket" | "timer" | "target")
}

/// The real machine.
pub struct SystemHost {
    units: Vec<String>,
}

impl SystemHost {
    /// `units` is the allow-list of [`Host::restart_unit`].
    pub fn new(units: Vec<String>) -> Self {
        Self { units }
    }
}

impl Host for SystemHost {
    fn reboot(&self, delay: Duration) -> Result<Rebooting, HostError> {
        std::thread::sleep(delay.min(REBOOT_DELAY_MAX));
        // logind's own method, so that inhibitors and polkit are honoured.
        run(
            "busctl",
            &[
                "call",
                "--system",
                "org.freedesktop.login1",
                "/org/freedesktop/login1",
                "org.freedesktop.login1.Manager",
                "Reboot",
                "b",
                "false",
            ],
        )?;
        Ok(Rebooting::Underway)
    }

    fn restart_unit(&self, unit: &str) -> Result<(), HostError> {
        if !is_unit_name(unit) || !self.units.iter().any(|allowed| allowed == unit) {
            return Err(HostError::NotAllowed(unit.to_owned()));
        }
        run("systemctl", &["restart", "--no-ask-password", "--", unit]).map(|_| ())
    }

    fn boot_id(&self) -> Result<String, HostError> {
        let path = PathBuf::from(BOOT_ID_FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| HostError::File { path, source })?;
        Ok(text.trim().to_owned())
    }

    fn clock_synchronized(&self) -> bool {
        if Path::new(TIMESYNC_FILE).exists() {
            return true;
        }
        // Another time service, or none: systemd knows what the kernel was told (adjtimex, STA_UNSYNC).
        run("timedatectl", &["show", "--property=NTPSynchronized", "--value"])
            .is_ok_and(|answer| answer.trim() == "yes")
    }
}

/// Runs one tool to its end within [`TOOL_DEADLINE`]; gives its standard output.
fn run(tool: &'static str, args: &[&str]) -> Result<String, HostError> {
    let failed = |reason: String| HostError::Failed { tool, reason };
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let deadline = Instant::now() + TOOL_DEADLINE;
    let status = loop {
        match child.try_wait().map_err(|error| failed(error.to_string()))? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed("did not end in 20 s".to_owned()));
            }
            // The child cannot wake us without a signal handler; its tools end in milliseconds.
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut said = String::new();
    match status.success() {
        true => child.stdout.take().map(|mut out| out.read_to_string(&mut said)),
        false => child.stderr.take().map(|mut err| err.read_to_string(&mut said)),
    };
    match status.success() {
        true => Ok(said),
        false => Err(failed(said.lines().next().unwrap_or("failed").chars().take(200).collect())),
    }
}

/// What a [`RecordingHost`] was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Recorded {
    /// [`Host::reboot`].
    Reboot {
        /// Seconds of delay that were asked for.
        delay_seconds: f64,
    },
    /// [`Host::restart_unit`].
    RestartUnit {
        /// The unit.
        unit: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Book {
    boot_id: String,
    recorded: Vec<Recorded>,
}

/// A machine that only writes down what it was asked (`host.json` in the state directory).
pub struct RecordingHost {
    path: PathBuf,
    units: Vec<String>,
    book: Mutex<Book>,
}

/// The book keeps this many entries.
const RECORDED_MAX: usize = 1000;

impl RecordingHost {
    /// Opens the book in `state_dir`, or begins one with a first boot id.
    ///
    /// # Errors
    /// [`HostError::File`] when the directory cannot be written.
    pub fn open(state_dir: &Path, units: Vec<String>) -> Result<Self, HostError> {
        let path = state_dir.join("host.json");
        let book = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let host = match book {
            Some(book) => Self { path, units, book: Mutex::new(book) },
            None => {
                let book = Book { boot_id: new_boot_id(), recorded: Vec::new() };
                let host = Self { path, units, book: Mutex::new(book.clone()) };
                host.write(&book)?;
                host
            }
        };
        Ok(host)
    }

    /// Everything asked so far, oldest first; across restarts of the process.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).recorded.clone()
    }

    fn record(&self, entry: Recorded) -> Result<(), HostError> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = book.clone();
        if matches!(entry, Recorded::Reboot { .. }) {
            next.boot_id = new_boot_id();
        }
        next.recorded.push(entry);
        let surplus = next.recorded.len().saturating_sub(RECORDED_MAX);
        next.recorded.drain(..surplus);
        // One write: a kill leaves the reboot recorded with its new boot id, or neither.
        self.write(&next)?;
        *book = next;
        Ok(())
    }

    fn write(&self, book: &Book) -> Result<(), HostError> {
        let bytes = serde_json::to_vec_pretty(book).unwrap_or_default();
        write_private(&self.path, &bytes).map_err(|source| HostError::File { path: self.path.clone(), source })
    }
}

impl Host for RecordingHost {
    fn reboot(&self, delay: Duration) -> Result<Rebooting, HostError> {
        self.record(Recorded::Reboot { delay_seconds: delay.as_secs_f64() })?;
        Ok(Rebooting::Played)
    }

    fn restart_unit(&self, unit: &str) -> Result<(), HostError> {
        if !is_unit_name(unit) || !self.units.iter().any(|allowed| allowed == unit) {
            return Err(HostError::NotAllowed(unit.to_owned()));
        }
        self.record(Recorded::RestartUnit { unit: unit.to_owned() })
    }

    fn boot_id(&self) -> Result<String, HostError> {
        Ok(self.book.lock().unwrap_or_else(PoisonError::into_inner).boot_id.clone())
    }

    /// The demo runs on a machine whose clock is somebody else's duty.
    fn clock_synchronized(&self) -> bool {
        true
    }
}

fn new_boot_id() -> String {
    ulid::Ulid::new().to_string().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_played_reboot_gives_a_new_boot_id_that_the_next_start_sees() {
        let dir = tempfile::tempdir().unwrap();
        let host = RecordingHost::open(dir.path(), Vec::new()).unwrap();
        let before = host.boot_id().unwrap();
        assert_eq!(RecordingHost::open(dir.path(), Vec::new()).unwrap().boot_id().unwrap(), before);
        assert_eq!(host.reboot(Duration::from_secs(5)).unwrap(), Rebooting::Played);
        let after = host.boot_id().unwrap();
        assert_ne!(before, after);
        let next_start = RecordingHost::open(dir.path(), Vec::new()).unwrap();
        assert_eq!(next_start.boot_id().unwrap(), after);
        assert_eq!(next_start.recorded(), [Recorded::Reboot { delay_seconds: 5.0 }]);
    }

    #[test]
    fn only_an_allow_listed_unit_is_restarted() {
        let dir = tempfile::tempdir().unwrap();
        let host = RecordingHost::open(dir.path(), vec!["r58-kiosk.service".to_owned()]).unwrap();
        host.restart_unit("r58-kiosk.service").unwrap();
        for unit in ["ssh.service", "", "--help", "r58-kiosk.service; reboot", "../r58-kiosk.service"] {
            assert!(host.restart_unit(unit).is_err(), "{unit}");
            assert!(SystemHost::new(vec!["r58-kiosk.service".to_owned()]).restart_unit(unit).is_err(), "{unit}");
        }
        assert_eq!(host.recorded().len(), 1);
    }

    #[test]
    fn a_name_with_an_option_or_a_path_in_it_is_no_unit_even_when_allow_listed() {
        for unit in ["-H.service", "a b.service", "a/b.service", "plain", ".service"] {
            assert!(!is_unit_name(unit), "{unit}");
        }
        assert!(is_unit_name("getty@tty1.service"));
    }

    #[test]
    fn starts_are_counted_across_processes_and_over_a_broken_counter() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_boot_seq(dir.path()).unwrap(), 1);
        assert_eq!(next_boot_seq(dir.path()).unwrap(), 2);
        std::fs::write(dir.path().join("boot_seq"), b"\xff\xfe").unwrap();
        assert!(next_boot_seq(dir.path()).unwrap() > 1_000_000);
    }

    #[test]
    fn the_kernel_names_this_boot() {
        assert_eq!(SystemHost::new(Vec::new()).boot_id().unwrap().len(), 36);
    }

    #[test]
    fn a_missing_tool_and_a_failing_one_are_told_in_one_line() {
        assert!(matches!(run("r58-no-such-tool", &[]), Err(HostError::Failed { .. })));
        assert!(matches!(run("false", &[]), Err(HostError::Failed { .. })));
        assert_eq!(run("echo", &["yes"]).unwrap().trim(), "yes");
    }
}
