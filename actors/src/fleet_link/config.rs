//! Configuration by command: checked, versioned, tried, and rolled back if the actor concerned does not come up.
//!
//! What operators change lies over the configuration file as one document, `overlay.json` in the state
//! directory (0600, replaced atomically). While a change is on trial the document before it is kept inside; a
//! process that dies during the trial finds it there at its next start and goes back. A change names its
//! command, so that a command that was cut can be verified.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use r58_mqtt::CommandId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::{info, warn};

use super::actors::{ActorsView, ComeBack};
use super::identity::write_private;
use crate::supervision::lock;

/// How long an actor may take to run with the new configuration.
const COME_UP: Duration = Duration::from_secs(20);
/// How long it then has to keep running before the change counts.
const STAY_UP: Duration = Duration::from_secs(3);
/// Size of the whole document, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What lies over the configuration file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Overlay {
    /// Version in force; grows with every change that was kept, and with nothing else.
    pub ver: u64,
    /// Nested like the file; null removes nothing here, it was removed when merged.
    #[serde(default)]
    pub doc: Map<String, Value>,
    /// The command that made it.
    #[serde(default)]
    pub by: Option<CommandId>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct File {
    #[serde(flatten)]
    current: Overlay,
    /// What to go back to: present while `current` is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial_over: Option<Overlay>,
}

/// How the box's assembly takes a configuration.
pub trait ConfigSeam: Send + Sync {
    /// Judges a whole overlay against the configuration file, without any effect. Gives the names of the
    /// actors that have to be restarted to take it over from what is in force.
    ///
    /// # Errors
    /// One sentence for the operator: an unknown key, a value out of its range, something that cannot be
    /// changed while the box runs.
    fn check(&self, before: &Map<String, Value>, after: &Map<String, Value>) -> Result<Vec<String>, String>;

    /// Puts the overlay where the factories of actors read it.
    fn install(&self, doc: &Map<String, Value>);

    /// The configuration in force without secrets, for `up/reported`.
    fn public(&self) -> Value;
}

/// What a command brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Merged over what is in force: objects key by key, null removes.
    Merge(Map<String, Value>),
    /// Takes the place of everything that commands changed before.
    Replace {
        /// The whole document.
        document: Map<String, Value>,
        /// Its version, which has to be above the one in force: an older one comes too late.
        version: u64,
    },
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigOutcome {
    /// In force.
    Applied {
        /// The new version.
        ver: u64,
        /// Who was restarted.
        restarted: Vec<String>,
    },
    /// It is not valid; nothing was touched.
    Refused(String),
    /// An actor did not come up with it; what was before is in force again.
    RolledBack(String),
    /// The disk does not take it; nothing was touched.
    Unwritable(String),
}

/// Holds the overlay and changes it. One change at a time: the command core runs one command at a time.
pub struct ConfigDesk {
    path: PathBuf,
    seam: Arc<dyn ConfigSeam>,
    file: Mutex<File>,
    come_up: Duration,
    stay_up: Duration,
}

impl ConfigDesk {
    /// Reads the overlay, goes back from a trial that was cut, and installs it. An overlay that cannot be
    /// read or is not valid any more is set aside (`overlay.json.bad`): the box starts with its file. Blocks.
    pub fn open(state_dir: &Path, seam: Arc<dyn ConfigSeam>) -> Self {
        let path = state_dir.join("overlay.json");
        let mut file = read(&path);
        if let Some(before) = file.trial_over.take() {
            warn!(ver = before.ver, "a change of configuration was cut during its trial, going back");
            file = File { current: before, trial_over: None };
            write(&path, &file);
        }
        if let Err(reason) = seam.check(&Map::new(), &file.current.doc) {
            warn!(reason, "what operators had changed is not valid any more, set aside");
            set_aside(&path);
            file.current.doc.clear();
        }
        seam.install(&file.current.doc);
        Self { path, seam, file: Mutex::new(file), come_up: COME_UP, stay_up: STAY_UP }
    }

    /// With other times than 20 s to come up and 3 s to stay up.
    pub fn with_times(mut self, come_up: Duration, stay_up: Duration) -> Self {
        (self.come_up, self.stay_up) = (come_up, stay_up);
        self
    }

    /// What is in force.
    pub fn overlay(&self) -> Overlay {
        lock(&self.file).current.clone()
    }

    /// The configuration in force without secrets.
    pub fn public(&self) -> Value {
        self.seam.public()
    }

    /// Whether `changes` would be valid over what is in force now; touches nothing.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn check(&self, change: &Change) -> Result<(), String> {
        self.applied(&self.overlay(), change.clone()).map(drop)
    }

    /// What a change makes of what is in force, and who has to be restarted for it.
    fn applied(&self, before: &Overlay, change: Change) -> Result<(Overlay, Vec<String>), String> {
        let (doc, ver) = match change {
            Change::Merge(changes) => (merge(before.doc.clone(), changes), before.ver.saturating_add(1)),
            Change::Replace { version, .. } if version <= before.ver => {
                return Err(format!("stale: version {} is in force", before.ver));
            }
            Change::Replace { document, version } => (merge(Map::new(), document), version),
        };
        let size = serde_json::to_vec(&doc).map_or(usize::MAX, |bytes| bytes.len());
        if size > MAX_BYTES {
            return Err("the changes are larger than 64 KiB in all".to_owned());
        }
        let concerned = self.seam.check(&before.doc, &doc)?;
        Ok((Overlay { ver, doc, by: None }, concerned))
    }

    /// Applies a change to what is in force, tries it, keeps it or goes back.
    pub async fn change(&self, id: &CommandId, change: Change, actors: &ActorsView) -> ConfigOutcome {
        let before = self.overlay();
        let (after, concerned) = match self.applied(&before, change) {
            Ok(merged) => merged,
            Err(reason) => return ConfigOutcome::Refused(reason),
        };
        let after = Overlay { by: Some(id.clone()), ..after };
        if let Err(reason) = self.put(File { current: after.clone(), trial_over: Some(before.clone()) }).await {
            return ConfigOutcome::Unwritable(reason);
        }
        self.seam.install(&after.doc);
        let kept = match self.try_out(&concerned, actors).await {
            Ok(()) => self.put(File { current: after.clone(), trial_over: None }).await,
            Err(reason) => Err(reason),
        };
        match kept {
            Ok(()) => {
                info!(ver = after.ver, restarted = ?concerned, "configuration changed");
                ConfigOutcome::Applied { ver: after.ver, restarted: concerned }
            }
            Err(reason) => self.roll_back(before, reason, &concerned, actors).await,
        }
    }

    /// Whether the change of this command is in force: for a command that was cut.
    pub fn is_applied(&self, id: &CommandId) -> bool {
        self.overlay().by.as_ref() == Some(id)
    }

    async fn try_out(&self, concerned: &[String], actors: &ActorsView) -> Result<(), String> {
        let mut lives = Vec::new();
        for name in concerned {
            match actors.restart(name, self.come_up).await {
                ComeBack::Running { restarts } => lives.push((name, restarts)),
                ComeBack::Unknown => return Err(format!("there is no {name}")),
                ComeBack::Failed(reason) => return Err(format!("{name}: {reason}")),
            }
        }
        for (name, restarts) in lives {
            if !actors.stays(name, restarts, self.stay_up).await {
                return Err(format!("{name} fell again"));
            }
        }
        Ok(())
    }

    async fn roll_back(
        &self,
        before: Overlay,
        reason: String,
        concerned: &[String],
        actors: &ActorsView,
    ) -> ConfigOutcome {
        warn!(reason, "the changed configuration does not work, going back");
        self.seam.install(&before.doc);
        // Should the disk refuse now, the trial mark on it says the same at the next start.
        let _ = self.put(File { current: before, trial_over: None }).await;
        for name in concerned {
            if let ComeBack::Failed(reason) = actors.restart(name, self.come_up).await {
                warn!(actor = name, reason, "does not come up with the old configuration either");
            }
        }
        ConfigOutcome::RolledBack(reason)
    }

    async fn put(&self, file: File) -> Result<(), String> {
        let (path, copy) = (self.path.clone(), file.clone());
        let written = tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec_pretty(&copy).unwrap_or_default();
            write_private(&path, &bytes).map_err(|error| error.to_string())
        });
        written.await.map_err(|error| error.to_string())??;
        *lock(&self.file) = file;
        Ok(())
    }
}

/// RFC 7396: objects are merged, null removes, everything else replaces. Both ends change configurations by it.
pub fn merge(mut into: Map<String, Value>, changes: Map<String, Value>) -> Map<String, Value> {
    for (key, change) in changes {
        match change {
            Value::Null => drop(into.remove(&key)),
            Value::Object(change) => {
                let held = match into.remove(&key) {
                    Some(Value::Object(held)) => held,
                    _ => Map::new(),
                };
                into.insert(key, Value::Object(merge(held, change)));
            }
            other => drop(into.insert(key, other)),
        }
    }
    into
}

fn read(path: &Path) -> File {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                warn!(%error, "what operators had changed cannot be read");
            }
            return File::default();
        }
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        warn!(%error, "what operators had changed cannot be read, set aside");
        set_aside(path);
        File::default()
    })
}

fn write(path: &Path, file: &File) {
    let bytes = serde_json::to_vec_pretty(file).unwrap_or_default();
    if let Err(error) = write_private(path, &bytes) {
        warn!(%error, "what operators had changed cannot be written");
    }
}

fn set_aside(path: &Path) {
    let mut bad = path.as_os_str().to_owned();
    bad.push(".bad");
    if let Err(error) = std::fs::rename(path, PathBuf::from(bad)) {
        warn!(%error, "cannot be set aside");
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
