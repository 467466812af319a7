//! What the process has to say of itself, kept: the last records in memory, more of them in rotating files.
//!
//! [`layer::LogLayer`] turns tracing events into records and takes secrets out of them before anything is kept
//! ([`crate::redact`]); a record never holds one. [`LogBook`] numbers and keeps them; [`query`] reads them back, oldest
//! first, with a cursor.

pub mod files;
pub mod layer;
pub mod query;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::files::{FileLimits, Files};
use crate::redact::Redactor;
use crate::supervision::lock;

/// Records kept in memory.
pub const RING_RECORDS: usize = 4_096;
/// Bytes of records kept in memory, as they are counted by [`Record::weight`].
pub const RING_BYTES: usize = 2 * 1024 * 1024;
/// Longest message or field that is kept, in bytes; cut after secrets were taken out.
pub const LONGEST_TEXT: usize = 4 * 1024;

/// How bad it is; an order by how much is told, `Error` the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A duty stopped.
    Error,
    /// Someone should look.
    Warn,
    /// A change that a user would see.
    Info,
    /// A branch taken.
    Debug,
    /// Per buffer.
    Trace,
}

impl Level {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for Level {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let all = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        all.into_iter().find(|level| level.as_str() == word).ok_or(())
    }
}

/// One record, without secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number on this box; grows over restarts.
    pub seq: u64,
    /// When, by the box's clock.
    pub ts: DateTime<Utc>,
    /// How bad.
    pub level: Level,
    /// The module that speaks.
    pub target: String,
    /// The actor's module, or what the event itself names as its actor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// The sentence.
    pub message: String,
    /// Values beside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
}

impl Record {
    /// Bytes it takes, roughly: what bounds answers and memory.
    pub fn weight(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.len() + value.as_str().map_or(16, str::len) + 8);
        160 + self.target.len() + self.message.len() + fields.sum::<usize>()
    }

    /// Whether it is of this actor: its module, a value among its fields (an input's or seat's name), in any case.
    pub fn is_of(&self, actor: &str) -> bool {
        let wanted = plain(actor);
        plain(&self.actor) == wanted
            || self.fields.values().any(|value| value.as_str().is_some_and(|text| plain(text) == wanted))
    }
}

fn plain(name: &str) -> String {
    name.trim().replace([' ', '-'], "_").to_ascii_lowercase()
}

#[derive(Default)]
struct Ring {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    last_seq: u64,
}

impl Ring {
    fn push(&mut self, record: Arc<Record>) {
        self.bytes += record.weight();
        self.records.push_back(record);
        while self.records.len() > RING_RECORDS || self.bytes > RING_BYTES {
            let Some(old) = self.records.pop_front() else { break };
            self.bytes -= old.weight();
        }
    }
}

#[derive(Default)]
struct Inner {
    redactor: Redactor,
    ring: Mutex<Ring>,
    files: Mutex<Option<Files>>,
    /// Records that the disk was too slow or too full for; they are in memory only.
    unwritten: AtomicU64,
}

/// The records of one process. Cheap to clone.
#[derive(Clone, Default)]
pub struct LogBook(Arc<Inner>);

impl LogBook {
    /// What takes secrets out; what it learns holds for every later record.
    pub fn redactor(&self) -> &Redactor {
        &self.0.redactor
    }

    /// Numbers a record and keeps it. Never waits for the disk.
    pub fn append(&self, mut record: Record) {
        let mut ring = lock(&self.0.ring);
        ring.last_seq += 1;
        record.seq = ring.last_seq;
        let record = Arc::new(record);
        ring.push(record.clone());
        // Under the ring's lock, so that files hold records in order.
        if let Some(files) = &*lock(&self.0.files)
            && !files.write(record)
        {
            self.0.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps records in files of this directory too from now on, those of this start before included, and goes on with the
    /// numbers of an earlier start.
    ///
    /// # Errors
    /// When the directory or its first file cannot be made.
    pub fn keep_in(&self, directory: &Path, limits: FileLimits) -> std::io::Result<()> {
        let (files, before) = Files::open(directory, limits)?;
        let mut ring = lock(&self.0.ring);
        for record in &mut ring.records {
            Arc::make_mut(record).seq += before;
            files.write(record.clone());
        }
        ring.last_seq += before;
        *lock(&self.0.files) = Some(files);
        Ok(())
    }

    /// The number of the last record.
    pub fn last_seq(&self) -> u64 {
        lock(&self.0.ring).last_seq
    }

    /// Records that never reached a file.
    pub fn unwritten(&self) -> u64 {
        self.0.unwritten.load(Ordering::Relaxed)
    }

    /// What memory holds after this number, oldest first.
    pub fn recent(&self, after: u64) -> Vec<Arc<Record>> {
        let ring = lock(&self.0.ring);
        let from = ring.records.partition_point(|record| record.seq <= after);
        ring.records.range(from..).cloned().collect()
    }

    fn directory(&self) -> Option<std::path::PathBuf> {
        lock(&self.0.files).as_ref().map(|files| files.directory().to_owned())
    }
}
