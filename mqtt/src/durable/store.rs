//! The store on disk: sled 0.34 behind a writer's thread.
//!
//! Measured facts this file answers to: sled's `flush()` ends in `sync_file_range`, which does not survive a power cut
//! (sled #1452), and its blob files are not synced at all, so every group commit fsyncs both afterwards. Batching
//! matters more than the engine, so the writer takes whatever has queued up, applies it batch by batch and syncs once.
//! Corrupt data make sled return an error, panic or hang: opening runs on a thread of its own with a deadline, reads
//! every row once, and on any of the three the directory is set aside and a fresh one made.

use std::any::Any;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::quarantine::{OpeningMark, beside, set_aside};
use super::{Changes, Done, KeyValue, Row};
use crate::error::MqttError;

/// How large the store may grow and how long opening may take.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Bytes on disk above which [`KeyValue::is_full`] says so, and above which opening rewrites the data.
    pub max_disk_bytes: u64,
    /// sled's page cache in bytes.
    pub cache_bytes: u64,
    /// How long opening may take before the data count as corrupt.
    pub open_deadline: Duration,
}

impl Default for StoreOptions {
    /// 256 MiB on disk (four times the default outbox: sled's log holds garbage too), 4 MiB of cache, 30 s.
    fn default() -> Self {
        Self { max_disk_bytes: 256 << 20, cache_bytes: 4 << 20, open_deadline: Duration::from_secs(30) }
    }
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The store, ready.
    pub store: Store,
    /// Where corrupt data were set aside, and why.
    pub quarantined: Option<(PathBuf, String)>,
}

/// The store on disk. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

struct Inner {
    dir: PathBuf,
    db: Option<sled::Db>,
    max_disk_bytes: u64,
    disk_bytes: Arc<AtomicU64>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    _lock: File,
}

struct Job {
    changes: Changes,
    /// None when nobody waits.
    done: Option<Done>,
}

/// A group commit takes at most this many batches, so that the first of them does not wait long for its sync.
const GROUP_BATCHES: usize = 512;
/// And about this many bytes.
const GROUP_BYTES: usize = 4 << 20;
/// Changes that nobody waits for are synced with the next that somebody does, or after this long.
const LAZY: Duration = Duration::from_secs(1);
/// How long another opener of this process's own past (sled lets go of its file a moment after it is dropped) may hold
/// on.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

impl Store {
    /// Opens the store in `dir`, makes it when it is not there, and sets corrupt data aside.
    ///
    /// Blocks: seconds with tens of megabytes on slow storage. Not for an async thread.
    ///
    /// # Errors
    /// [`MqttError::StoreLocked`] when another process has it; [`MqttError::Io`] when the directory cannot be made or
    /// set aside; [`MqttError::Store`] when even a fresh one cannot be opened.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Opened, MqttError> {
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let what = || format!("make directory {}", parent.display());
            fs::create_dir_all(parent).map_err(|source| MqttError::Io { what: what(), source })?;
        }
        let lock = lock(dir)?;
        finish_compaction(dir);
        let (mark, spent) = OpeningMark::begin(dir);
        let opened = open_or_set_aside(dir, options, spent);
        mark.end();
        let (db, quarantined) = opened?;
        let db = compact(db, dir, options)?;
        Ok(Opened { store: Self::start(db, dir, options, lock)?, quarantined })
    }

    fn start(db: sled::Db, dir: &Path, options: &StoreOptions, lock: File) -> Result<Self, MqttError> {
        let mut syncer = Syncer::new(dir)?;
        syncer.sync(&db)?;
        let disk_bytes = Arc::new(AtomicU64::new(db.size_on_disk().unwrap_or(0)));
        let (jobs, queue) = mpsc::channel();
        let (writer_db, writer_bytes) = (db.clone(), Arc::clone(&disk_bytes));
        let writer = std::thread::Builder::new()
            .name("durable".to_owned())
            .spawn(move || write_groups(&queue, &writer_db, &mut syncer, &writer_bytes))
            .map_err(|source| MqttError::Io { what: "start the store's writer".to_owned(), source })?;
        let inner = Inner {
            dir: dir.to_owned(),
            db: Some(db),
            max_disk_bytes: options.max_disk_bytes,
            disk_bytes,
            jobs: Some(jobs),
            writer: Some(writer),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn db(&self) -> Result<&sled::Db, MqttError> {
        self.inner.db.as_ref().ok_or(MqttError::Stopped("durable store"))
    }
}

impl KeyValue for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MqttError> {
        let db = self.db()?;
        guarded(|| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<Row>, MqttError> {
        let db = self.db()?;
        guarded(|| db.scan_prefix(prefix).map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec()))).collect())
    }

    fn submit(&self, changes: Changes, done: Done) {
        let Some(jobs) = &self.inner.jobs else { return done(Err(MqttError::Stopped("durable store"))) };
        if let Err(mpsc::SendError(Job { done: Some(done), .. })) = jobs.send(Job { changes, done: Some(done) }) {
            done(Err(MqttError::Stopped("durable store")));
        }
    }

    fn submit_lazily(&self, changes: Changes) {
        if let Some(jobs) = &self.inner.jobs {
            // Without a writer the store is closing, and what is lost is what may be lost.
            let _ = jobs.send(Job { changes, done: None });
        }
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.disk_bytes() >= self.inner.max_disk_bytes
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        let writer = self.writer.take();
        // The last clone may be dropped by a `done` that runs on the writer's own thread.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != std::thread::current().id()) {
            let _ = writer.join();
        }
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(db)));
    }
}

/// The writer's loop: ends when the last sender is gone and the queue is empty.
///
/// All that has queued up becomes one batch of sled, since each batch costs it several small writes, and one sync. What
/// nobody waits for is held back until somebody does, or for [`LAZY`].
fn write_groups(queue: &mpsc::Receiver<Job>, db: &sled::Db, syncer: &mut Syncer, disk_bytes: &AtomicU64) {
    let mut group = Group::default();
    let mut is_open = true;
    while is_open {
        is_open = group.gather(queue);
        let Group { changes, waiting, .. } = std::mem::take(&mut group);
        if changes.is_empty() && waiting.is_empty() {
            continue;
        }
        let written = apply(db, changes).and_then(|()| syncer.sync(db));
        disk_bytes.store(db.size_on_disk().unwrap_or(0), Ordering::Relaxed);
        if let (Err(error), true) = (&written, waiting.is_empty()) {
            tracing::warn!(%error, "changes that nobody waits for could not be written");
        }
        for done in waiting {
            let result = written.as_ref().copied().map_err(again);
            if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                tracing::error!("a completion of the durable store panicked");
            }
        }
    }
}

/// The same error for the next of those who wait.
fn again(error: &MqttError) -> MqttError {
    match error {
        MqttError::StoreCorrupt(reason) => MqttError::StoreCorrupt(reason.clone()),
        other => MqttError::Store(other.to_string()),
    }
}

/// Changes on their way to one batch, and who waits for them.
#[derive(Default)]
struct Group {
    changes: Changes,
    waiting: Vec<Done>,
    batches: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl Group {
    /// Takes what has queued up, and waits until there is something to write; false when no more can come.
    fn gather(&mut self, queue: &mpsc::Receiver<Job>) -> bool {
        while !self.is_full() {
            let job = match self.since {
                None => queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(_) if !self.waiting.is_empty() => queue.try_recv().map_err(|_| mpsc::RecvTimeoutError::Timeout),
                Some(since) => queue.recv_timeout(LAZY.saturating_sub(since.elapsed())),
            };
            match job {
                Ok(Job { changes, done }) => {
                    self.batches += 1;
                    self.bytes += changes.bytes();
                    self.since.get_or_insert_with(Instant::now);
                    self.changes.extend(changes);
                    self.waiting.extend(done);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return true,
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    fn is_full(&self) -> bool {
        self.batches >= GROUP_BATCHES || self.bytes >= GROUP_BYTES
    }
}

fn apply(db: &sled::Db, changes: Changes) -> Result<(), MqttError> {
    let mut batch = sled::Batch::default();
    for (key, value) in changes.into_writes() {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    guarded(|| db.apply_batch(batch))
}

/// Makes what sled has written survive a power cut.
struct Syncer {
    file: File,
    blobs: PathBuf,
    synced_blobs: HashSet<OsString>,
}

impl Syncer {
    fn new(dir: &Path) -> Result<Self, MqttError> {
        let db = dir.join("db");
        let open = |path: &Path| {
            let what = format!("open {}", path.display());
            File::open(path).map_err(|source| MqttError::Io { what, source })
        };
        let file = open(&db)?;
        open(dir)?.sync_all().map_err(|source| MqttError::Io { what: format!("sync {}", dir.display()), source })?;
        Ok(Self { file, blobs: dir.join("blobs"), synced_blobs: HashSet::new() })
    }

    fn sync(&mut self, db: &sled::Db) -> Result<(), MqttError> {
        guarded(|| db.flush())?;
        self.sync_blobs().and_then(|()| self.file.sync_data()).map_err(|error| MqttError::Store(error.to_string()))
    }

    /// Large pages live in files of their own, written once and never changed.
    fn sync_blobs(&mut self) -> std::io::Result<()> {
        let mut present = HashSet::new();
        let mut fresh = false;
        for entry in fs::read_dir(&self.blobs)?.flatten() {
            let name = entry.file_name();
            if !self.synced_blobs.contains(&name) {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all()?,
                    Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                fresh = true;
            }
            present.insert(name);
        }
        if fresh {
            File::open(&self.blobs)?.sync_all()?;
        }
        self.synced_blobs = present;
        Ok(())
    }
}

/// Runs a sled call, with its panics and errors as ours.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, MqttError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(from_sled(&error)),
        Err(panic) => Err(MqttError::StoreCorrupt(panic_text(&*panic))),
    }
}

fn from_sled(error: &sled::Error) -> MqttError {
    match error {
        sled::Error::Io(error) if !is_bad_data(error) => MqttError::Store(error.to_string()),
        other => MqttError::StoreCorrupt(short(&other.to_string())),
    }
}

/// IO errors that speak of what is in the directory, not of the disk under it.
fn is_bad_data(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(
        error.kind(),
        K::InvalidData | K::InvalidInput | K::UnexpectedEof | K::NotADirectory | K::IsADirectory | K::PermissionDenied
    )
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    short(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the store panicked"))
}

fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// One opener at a time, by a lock on a file beside the directory (which itself may be renamed away).
fn lock(dir: &Path) -> Result<File, MqttError> {
    let path = beside(dir, ".lock");
    let io = |source| MqttError::Io { what: format!("open {}", path.display()), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A store that this process has just let go of is closed by its writer's thread a moment later.
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(25));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(MqttError::StoreLocked { path: dir.display().to_string() });
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(MqttError::Io { what: format!("lock {}", path.display()), source });
            }
        }
    }
}

type OpenedDb = (sled::Db, Option<(PathBuf, String)>);

fn open_or_set_aside(dir: &Path, options: &StoreOptions, spent: bool) -> Result<OpenedDb, MqttError> {
    let found = dir.symlink_metadata().is_ok();
    let reason = if spent && found {
        "several starts died while opening it".to_owned()
    } else {
        match open_checked(dir, options) {
            Ok(db) => return Ok((db, None)),
            Err(MqttError::StoreCorrupt(reason)) if found => reason,
            Err(other) => return Err(other),
        }
    };
    let aside = set_aside(dir)?;
    tracing::error!(from = %dir.display(), to = %aside.display(), %reason, "durable data are corrupt and were set aside");
    Ok((open_checked(dir, options)?, Some((aside, reason))))
}

/// Opens and reads everything once, on a thread of its own: corrupt data may hang the opener.
fn open_checked(dir: &Path, options: &StoreOptions) -> Result<sled::Db, MqttError> {
    let (tell, told) = mpsc::sync_channel(1);
    let (path, cache) = (dir.to_owned(), options.cache_bytes);
    std::thread::Builder::new()
        .name("durable-open".to_owned())
        .spawn(move || drop(tell.send(open_patiently(&path, cache))))
        .map_err(|source| MqttError::Io { what: "start the store's opener".to_owned(), source })?;
    let late = || MqttError::StoreCorrupt(format!("not open after {} s", options.open_deadline.as_secs()));
    told.recv_timeout(options.open_deadline).unwrap_or_else(|_| Err(late()))
}

fn open_patiently(dir: &Path, cache: u64) -> Result<sled::Db, MqttError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        let opened = guarded(|| {
            let db = sled::Config::new()
                .path(dir)
                .cache_capacity(cache)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None)
                .open()?;
            for row in db.iter() {
                row?;
            }
            Ok(db)
        });
        match opened {
            // Our own lock is held, so this can only be a past store of this process that sled has not let go of yet.
            Err(MqttError::Store(text)) if text.contains("could not acquire lock") => {
                if Instant::now() >= until {
                    return Err(MqttError::StoreLocked { path: dir.display().to_string() });
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            other => return other,
        }
    }
}

/// A power cut between the two renames of [`compact`] leaves the data under the old store's second name.
fn finish_compaction(dir: &Path) {
    let old_dir = beside(dir, ".compacted");
    if dir.symlink_metadata().is_err() && old_dir.is_dir() {
        let _ = fs::rename(&old_dir, dir);
    }
}

/// Rewrites a store whose log is over its limit while what lives in it is not: sled's log keeps garbage.
fn compact(db: sled::Db, dir: &Path, options: &StoreOptions) -> Result<sled::Db, MqttError> {
    let on_disk = db.size_on_disk().unwrap_or(0);
    if on_disk < options.max_disk_bytes {
        return Ok(db);
    }
    let live: u64 = db.iter().flatten().map(|(k, v)| (k.len() + v.len()) as u64).sum();
    if live > options.max_disk_bytes / 2 {
        return Ok(db);
    }
    let (fresh_dir, old_dir) = (beside(dir, ".compacting"), beside(dir, ".compacted"));
    let io = |what: &str, source| MqttError::Io { what: format!("{what} {}", dir.display()), source };
    let _ = fs::remove_dir_all(&fresh_dir);
    let _ = fs::remove_dir_all(&old_dir);
    {
        let fresh = open_patiently(&fresh_dir, options.cache_bytes)?;
        for row in db.iter() {
            let (key, value) = row.map_err(|error| from_sled(&error))?;
            guarded(|| fresh.insert(key, value))?;
        }
        Syncer::new(&fresh_dir)?.sync(&fresh)?;
    }
    drop(db);
    fs::rename(dir, &old_dir).map_err(|source| io("compact", source))?;
    fs::rename(&fresh_dir, dir).map_err(|source| io("compact", source))?;
    let _ = fs::remove_dir_all(&old_dir);
    tracing::info!(path = %dir.display(), before = on_disk, live, "the durable store was rewritten");
    open_checked(dir, options)
}
