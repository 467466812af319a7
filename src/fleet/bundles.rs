//! The files of support bundles, in one directory that all replicas of a server share. Names are ids of our own, never what
//! somebody sent; how long a file is for certain is the database's to say.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::Utc;
use r58_actors::rounds::Round;
use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::store::Store;

/// How often what is over is removed.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// A file without a row may be one whose row is being written; one this old is none.
const ORPHAN_AGE: Duration = Duration::from_secs(3_600);

/// Limits of bundles.
#[derive(Debug, Clone)]
pub struct BundlePlan {
    /// Where files are; `bundles` in the state directory unless given. Replicas share one.
    pub directory: Option<PathBuf>,
    /// Most bytes of one bundle.
    pub max_bytes: u64,
    /// Most bytes of an organization's bundles together.
    pub quota_bytes: u64,
    /// How long they are kept.
    pub keep: Duration,
}

impl Default for BundlePlan {
    /// 256 MB each, 4 GB together, 30 days.
    fn default() -> Self {
        Self {
            directory: None,
            max_bytes: 256 * 1024 * 1024,
            quota_bytes: 4 * 1024 * 1024 * 1024,
            keep: Duration::from_secs(30 * 86_400),
        }
    }
}

/// The directory and its limits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BundleFiles {
    directory: PathBuf,
    /// Limits.
    pub plan: BundlePlan,
}

impl BundleFiles {
    /// Makes the directory (mode 0700) if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(plan: BundlePlan, state_dir: &Path) -> io::Result<Self> {
        let directory = plan.directory.clone().unwrap_or_else(|| state_dir.join("bundles"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory, plan })
    }

    /// The file of a bundle; none for what is no id of ours.
    pub fn path(&self, id: &str) -> Option<PathBuf> {
        let id: Ulid = id.parse().ok()?;
        Some(self.directory.join(format!("{id}.tar.gz")))
    }

    /// Writes a piece at `offset` and makes it durable. Whatever was behind it, from a request that was cut, is gone. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(path: &Path, offset: u64, piece: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.set_len(offset)?;
        file.write_all_at(piece, offset)?;
        file.sync_all()?;
        if offset == 0
            && let Some(directory) = path.parent()
        {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// The checksum of a file, in hex. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn checksum(path: &Path) -> io::Result<String> {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(path)?, &mut hash)?;
        Ok(hex::encode(hash.finalize()))
    }

    /// Removes a bundle's file, if there is one. Blocks.
    pub fn remove(&self, id: &str) {
        let Some(path) = self.path(id) else { return };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The sweep tries again.
                tracing::warn!(%error, id, "a bundle's file cannot be removed");
            }
            _ => {}
        }
    }

    /// Files that have been there for a while, by id.
    fn old(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_suffix(".tar.gz").filter(|id| id.parse::<Ulid>().is_ok()) else { continue };
            let written = entry.metadata()?.modified()?;
            if SystemTime::now().duration_since(written).is_ok_and(|age| age >= ORPHAN_AGE) {
                found.push(id.to_owned());
            }
        }
        Ok(found)
    }
}

/// Lets go of bundles whose time is over, and of files that belong to none. Every replica does so; none minds.
pub(super) struct Sweeper {
    store: Store,
    files: BundleFiles,
}

impl Sweeper {
    pub fn new(store: Store, files: BundleFiles) -> Self {
        Self { store, files }
    }
}

#[async_trait]
impl Round for Sweeper {
    async fn round(&mut self) -> Result<Duration, String> {
        sweep_once(&self.store, &self.files).await.map(|()| SWEEP_EVERY)
    }
}

async fn sweep_once(store: &Store, files: &BundleFiles) -> Result<(), String> {
    let mut gone = store.expire_bundles(Utc::now()).await.map_err(|error| error.to_string())?;
    let own = files.clone();
    let old = tokio::task::spawn_blocking(move || own.old()).await.map_err(|error| error.to_string())?;
    for id in old.map_err(|error| error.to_string())? {
        if !store.bundle_exists(&id).await.map_err(|error| error.to_string())? {
            gone.push(id);
        }
    }
    let own = files.clone();
    let removed = tokio::task::spawn_blocking(move || gone.iter().for_each(|id| own.remove(id))).await;
    removed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::store::{Actor, NewBundle};

    #[actix_web::test]
    async fn what_is_over_and_what_belongs_to_nobody_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(None, None, dir.path()).await.expect("a database");
        let files = BundleFiles::open(BundlePlan::default(), dir.path()).expect("opened");
        let now = Utc::now();
        store.ensure_organization("org", "Org", now).await.expect("an organization");
        let [over, kept, fresh, orphan] = [0; 4].map(|_| Ulid::new().to_string());
        for (id, expires_at) in [(&over, now), (&kept, now + chrono::TimeDelta::days(1))] {
            let new = NewBundle { id, device: "box1", expires_at };
            store.create_bundle(&Actor::server("org"), &new, now).await.expect("a bundle");
        }
        for id in [&over, &kept, &fresh, &orphan] {
            BundleFiles::write(&files.path(id).expect("a path"), 0, b"bytes").expect("written");
        }
        for id in [&kept, &orphan] {
            let file = File::options().write(true).open(files.path(id).expect("a path")).expect("open");
            file.set_modified(SystemTime::now() - 2 * ORPHAN_AGE).expect("older");
        }
        fs::write(files.directory.join("not-one-of-ours"), b"stays").expect("written");
        sweep_once(&store, &files).await.expect("swept");
        let there = |id: &str| files.path(id).expect("a path").exists();
        assert_eq!([&over, &kept, &fresh, &orphan].map(|id| there(id)), [false, true, true, false]);
        assert!(files.directory.join("not-one-of-ours").exists());
        store.close().await;
    }

    #[test]
    fn a_piece_replaces_whatever_an_interrupted_one_left_and_names_are_ids() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = BundleFiles::open(BundlePlan::default(), dir.path()).expect("opened");
        let id = Ulid::new().to_string();
        let path = files.path(&id).expect("a path");
        BundleFiles::write(&path, 0, b"hello").expect("written");
        BundleFiles::write(&path, 5, b" wor and a tail that was never acknowledged").expect("written");
        BundleFiles::write(&path, 5, b" world").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"hello world");
        assert_eq!(BundleFiles::checksum(&path).expect("read"), hex::encode(Sha256::digest(b"hello world")));
        for name in ["", "../../etc/passwd", "x", &format!("{id}/..")] {
            assert_eq!(files.path(name), None, "{name}");
        }
        files.remove(&id);
        files.remove(&id);
        assert!(!path.exists());
    }
}
