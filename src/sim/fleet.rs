//! The fleet that is simulated: who belongs to it, kept in a directory, and how its devices enrol.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt as _;
use r58_actors::fleet_link::identity::{self, EnrolError, Identity, Registration, Secret, write_private};
use r58_actors::fleet_link::trust::Trust;
use r58_actors::turn::providers::http_builder;
use r58_mqtt::durable::{KeyValue, Memory, Prefixed, Store, StoreOptions};
use serde::{Deserialize, Serialize};

use crate::preflight::StateDir;

/// Devices that enrol at the same time.
const ENROL_AT_ONCE: usize = 8;
/// After so many the file is written, so that an interrupted enrolment goes on from there.
const SAVE_EVERY: usize = 250;
/// Disk for outboxes and journals of the whole fleet.
const DISK: u64 = 64 << 30;
/// The version that simulated boxes say they run.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the directory holds besides journals.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    devices: Vec<Identity>,
}

/// The devices, their store, and where both are kept.
pub struct Fleet {
    file: File,
    path: Option<PathBuf>,
    store: Option<Arc<dyn KeyValue>>,
    _dir: Option<StateDir>,
}

impl Fleet {
    /// The fleet of a directory, or without one a fleet that is gone afterwards. Blocks.
    ///
    /// # Errors
    /// When the directory is in use, or what it holds cannot be read.
    pub fn open(keep: Option<&std::path::Path>) -> Result<Self> {
        let Some(keep) = keep else {
            return Ok(Self { file: File::default(), path: None, store: None, _dir: None });
        };
        let dir = StateDir::claim(keep)?;
        let path = dir.path().join("fleet.json");
        let file: File = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} makes no sense", path.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let options = StoreOptions { max_disk_bytes: DISK, cache_bytes: 64 << 20, ..StoreOptions::default() };
        let opened = Store::open(&dir.path().join("journals"), &options)?;
        if let Some((place, why)) = opened.quarantined {
            bail!("the journals of the simulated fleet were corrupt ({why}) and lie in {} now", place.display());
        }
        let fleet = Self { file, path: Some(path), store: Some(Arc::new(opened.store)), _dir: Some(dir) };
        fleet.save()?;
        Ok(fleet)
    }

    fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let bytes = serde_json::to_vec(&self.file)?;
        write_private(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Its devices, in the order they enrolled.
    pub fn devices(&self) -> &[Identity] {
        &self.file.devices
    }

    /// Where the device with this number keeps its outbox and journal.
    pub fn store_of(&self, device: u32) -> Arc<dyn KeyValue> {
        match &self.store {
            Some(store) => Arc::new(Prefixed::new(store.clone(), format!("{device:08x}/"))),
            None => Arc::new(Memory::new()),
        }
    }

    /// Enrols devices until there are `wanted`.
    ///
    /// # Errors
    /// The fleet's own words when it refuses one; those that are in already stay in.
    pub async fn enrol(
        &mut self,
        url: &str,
        codes: &[String],
        name: &str,
        wanted: usize,
        trust: &Trust,
        mut progress: impl FnMut(usize),
    ) -> Result<()> {
        let first = self.file.devices.len();
        if first >= wanted {
            self.file.devices.truncate(wanted);
            return Ok(());
        }
        let Some(last_code) = codes.last() else {
            bail!("{} devices are not enrolled yet: give an enrolment code (--code) for them", wanted - first);
        };
        let http =
            trust.believe(http_builder()).map_err(anyhow::Error::msg)?.build().context("TLS cannot be set up")?;
        let enrol = |n: usize| {
            // One code for each, or one with many uses for all.
            let code = codes.get(n - first).unwrap_or(last_code).clone();
            let (http, id) = (http.clone(), format!("{name}-{:05}", n + 1));
            async move {
                let label = format!("Simulated {:05}", n + 1);
                let asked = Registration::of_this_machine(Secret::new(code), &id, &label, VERSION);
                identity::register(&http, url, &asked).await.map_err(|error| (id, error))
            }
        };
        let mut enrolled = futures_util::stream::iter(first..wanted).map(enrol).buffered(ENROL_AT_ONCE);
        let outcome = loop {
            match enrolled.next().await {
                Some(Ok(identity)) => {
                    self.file.devices.push(identity);
                    progress(self.file.devices.len());
                    if self.file.devices.len().is_multiple_of(SAVE_EVERY) {
                        self.save()?;
                    }
                }
                Some(Err((id, error))) => break Err(refused(&id, &error)),
                None => break Ok(()),
            }
        };
        self.save()?;
        outcome
    }
}

fn refused(id: &str, error: &EnrolError) -> anyhow::Error {
    let hint = match error {
        EnrolError::Refused(_) => {
            "; a code lets in as many as it was made for (r58 ctl enrol --uses N), and names must be new (--name)"
        }
        _ => "",
    };
    anyhow::anyhow!("{id}: {error}{hint}")
}
