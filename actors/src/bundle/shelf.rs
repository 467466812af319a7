//! Finished bundles on the box's disk, until the fleet has them. Names come from command ids alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use r58_mqtt::CommandId;
use serde::{Deserialize, Serialize};

use crate::fleet_link::identity::write_private;

/// A bundle that the fleet never took is removed after so many days.
const KEPT_DAYS: i64 = 7;
/// A bundle that was delivered is remembered for so many days: a command that comes again finds it done.
const REMEMBERED_DAYS: i64 = 40;

/// A finished bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// That of the command that asked for it.
    pub id: CommandId,
    /// Bytes of the archive.
    pub size_bytes: u64,
    /// Its checksum.
    pub sha256: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// How it ended: `waiting`, `delivered`, or why the fleet will not have it.
    pub state: String,
}

/// A bundle waits for the fleet.
pub const WAITING: &str = "waiting";
/// The fleet has it.
pub const DELIVERED: &str = "delivered";

/// The directory of bundles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shelf(PathBuf);

impl Shelf {
    /// In this directory, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The archive of a bundle.
    pub fn archive(&self, id: &CommandId) -> PathBuf {
        self.0.join(format!("{id}.tar.gz"))
    }

    /// Where it is written before it is whole; another place at each attempt, so that one that hangs is in nobody's way.
    pub fn part(&self, id: &CommandId) -> PathBuf {
        static ATTEMPT: AtomicU64 = AtomicU64::new(0);
        self.0.join(format!("{id}.{}.part", ATTEMPT.fetch_add(1, Ordering::Relaxed)))
    }

    fn note(&self, id: &CommandId) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// The bundle of a command, if it was finished.
    pub fn find(&self, id: &CommandId) -> Option<Bundle> {
        let bundle: Bundle = serde_json::from_slice(&fs::read(self.note(id)).ok()?).ok()?;
        (bundle.id == *id && (bundle.state != WAITING || self.archive(id).is_file())).then_some(bundle)
    }

    /// Puts a whole archive on the shelf: after this it is there or not, whatever the power does.
    ///
    /// # Errors
    /// What the disk says.
    pub fn put(&self, part: &Path, bundle: &Bundle) -> io::Result<()> {
        fs::rename(part, self.archive(&bundle.id))?;
        // Syncs the directory too.
        write_private(&self.note(&bundle.id), &serde_json::to_vec(bundle)?)
    }

    /// Notes how it ended and removes the archive.
    ///
    /// # Errors
    /// What the disk says.
    pub fn settle(&self, bundle: &Bundle, state: &str) -> io::Result<()> {
        let settled = Bundle { state: state.to_owned(), ..bundle.clone() };
        write_private(&self.note(&bundle.id), &serde_json::to_vec(&settled)?)?;
        match fs::remove_file(self.archive(&bundle.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Bundles that wait for the fleet, oldest first. Those too old are let go.
    ///
    /// # Errors
    /// What the disk says.
    pub fn waiting(&self, now: DateTime<Utc>) -> io::Result<Vec<Bundle>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut waiting = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| CommandId::new(stem).ok());
            let Some(bundle) = id.and_then(|id| self.find(&id)) else { continue };
            let age = now - bundle.created_at;
            if bundle.state == WAITING && age > TimeDelta::days(KEPT_DAYS) {
                self.settle(&bundle, "the fleet did not take it in time")?;
            } else if bundle.state == WAITING {
                waiting.push(bundle);
            } else if age > TimeDelta::days(REMEMBERED_DAYS) {
                fs::remove_file(path)?;
            }
        }
        waiting.sort_by(|a, b| (a.created_at, a.id.as_str()).cmp(&(b.created_at, b.id.as_str())));
        Ok(waiting)
    }
}
