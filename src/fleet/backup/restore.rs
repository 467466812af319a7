//! Putting a back-up in the place of what is there, or where nothing is.
//!
//! A crash at any moment leaves the server as it was, or with a directory in its state directory that says how far it came:
//!
//! | directory | what is certain | what a start of the server does |
//! |---|---|---|
//! | `.r58-restore-…` | nothing has changed, or all is over | removes it |
//! | `restore.begun` | all is laid out; PostgreSQL has the old database or the new one, whole | refuses |
//! | `restore.ready` | the database server has the new one; files are on their way | brings it to its end |
//!
//! Whatever it is, the same command once more brings it to its end.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::archive::{self, Manifest};
use super::{DATABASE, Scratch, bundles_dir, create_private, keys_dir, postgres, sweep, sync_directory};
use crate::fleet::FleetPlan;
use crate::fleet::keys::KEY_FILES;
use crate::fleet::store::{Location, newest_schema};

/// Everything is laid out, and the database server is being told.
const BEGUN: &str = "restore.begun";
/// What is to be put in its place, all of it: from here on there is no way back, only forward.
const READY: &str = "restore.ready";
/// What the back-up says of itself, in either.
const MANIFEST: &str = "manifest.json";
/// Where it is laid out.
const SCRATCH: &str = "r58-restore";
/// The bytes of an SQLite file that are locked by whoever has it open in WAL mode ("Locking" in sqlite.org/fileformat2.html and
/// the shared range behind the pending byte at 1 GiB).
const SHARED_LOCK: (i64, i64) = (0x4000_0002, 510);

/// Restores `file` to the server of `plan`, which must not be running: whoever calls holds its state directory. A restore that
/// was interrupted is brought to its end first; if it was of the same back-up, that is all.
///
/// # Errors
/// What is wrong with the file, that the target is not empty and `replace` was not said, that a server uses the database, or
/// what cannot be written. Nothing has changed then, unless the error says that it is to be run again.
pub async fn restore(plan: &FleetPlan, file: &Path, replace: bool) -> Result<Manifest> {
    let location = Location::of(plan.database_url.as_deref(), plan.database_password.as_ref(), &plan.state_dir)?;
    let looked_at = file.to_owned();
    let manifest = tokio::task::spawn_blocking(move || archive::read(&looked_at, |_, _| Ok(()))).await??;
    fits(&manifest, &location)?;
    if manifest.schema > newest_schema() {
        bail!(
            "the back-up was written by a newer version ({}, migration {}; this is {}, migration {})",
            manifest.version,
            manifest.schema,
            env!("CARGO_PKG_VERSION"),
            newest_schema()
        );
    }
    if let Some(interrupted) = finish_interrupted(plan, &location).await?
        && interrupted == manifest
    {
        return Ok(manifest);
    }
    sweep(&plan.state_dir, SCRATCH, Duration::ZERO)?;
    check_target(plan, &location, replace).await?;

    let work = Scratch::beside(&plan.state_dir, SCRATCH)?;
    let (stage, source) = (work.path().join("stage"), file.to_owned());
    let laid_out = stage.clone();
    let staged = tokio::task::spawn_blocking(move || unpack(&source, &laid_out)).await??;
    if staged != manifest {
        bail!("the back-up changed while it was read");
    }
    failpoint("laid_out");
    let next = if matches!(location, Location::Server { .. }) { BEGUN } else { READY };
    fs::rename(&stage, plan.state_dir.join(next))?;
    sync_directory(&plan.state_dir)?;
    failpoint("begun");
    if let Err(error) = finish_interrupted(plan, &location).await {
        return Err(error.context("not restored to its end; run it again"));
    }
    Ok(manifest)
}

/// Where a test cuts the power: `R58_FAILPOINT=restore_…` ends the process by SIGKILL there.
fn failpoint(step: &str) {
    if std::env::var("R58_FAILPOINT").is_ok_and(|armed| armed.strip_prefix("restore_") == Some(step)) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }
}

fn fits(manifest: &Manifest, location: &Location) -> Result<()> {
    let (theirs, ours) = (manifest.engine.as_str(), location.engine());
    if theirs != ours {
        bail!("the back-up is of a {theirs} database, the configuration names a {ours} one");
    }
    Ok(())
}

/// Brings a restore to its end that was begun, and answers with what was restored; with nothing where there is none.
async fn finish_interrupted(plan: &FleetPlan, location: &Location) -> Result<Option<Manifest>> {
    let (begun, ready) = (plan.state_dir.join(BEGUN), plan.state_dir.join(READY));
    if !begun.exists() && !ready.exists() {
        return Ok(None);
    }
    let held = manifest_in(if begun.exists() { &begun } else { &ready })?;
    fits(&held, location).context("a restore was interrupted")?;
    if begun.exists() {
        if let Location::Server { url, password } = location {
            postgres::check(url, password.as_ref(), true).await?;
            let work = Scratch::beside(&plan.state_dir, SCRATCH)?;
            postgres::restore(url, password.as_ref(), &begun.join(DATABASE), work.path()).await?;
        }
        failpoint("database");
        fs::rename(&begun, &ready)?;
        sync_directory(&plan.state_dir)?;
    }
    finish_restore(plan)?;
    Ok(Some(held))
}

fn manifest_in(directory: &Path) -> Result<Manifest> {
    let path = directory.join(MANIFEST);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// Refuses a target that holds something, unless it may be replaced; one that is in use; and one that cannot be written.
async fn check_target(plan: &FleetPlan, location: &Location, replace: bool) -> Result<()> {
    let (keys, bundles) = (keys_dir(plan), bundles_dir(plan));
    let mut held: Vec<PathBuf> = KEY_FILES.iter().map(|name| keys.join(name)).collect();
    let mut written = vec![keys, bundles.clone()];
    match location {
        Location::File(database) => {
            if in_use(database) {
                bail!("a fleet server runs on {}; stop it first", database.display());
            }
            held.push(database.clone());
            written.extend(database.parent().map(Path::to_owned));
        }
        Location::Server { url, password } => postgres::check(url, password.as_ref(), replace).await?,
    }
    let bundles = fs::read_dir(bundles).into_iter().flatten().flatten();
    held.extend(bundles.map(|entry| entry.path()));
    if let Some(path) = held.iter().find(|path| path.exists() && !replace) {
        bail!("{} is there already; --replace replaces all that is there", path.display());
    }
    // Found out now, and not when the database is another one already.
    for directory in written {
        let there = directory.ancestors().find(|path| path.as_os_str().is_empty() || path.is_dir());
        drop(Scratch::beside(
            there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            "r58-probe",
        )?);
    }
    Ok(())
}

/// Whether another process has an SQLite file open. A file that is not there, or cannot be asked, is not in use.
fn in_use(database: &Path) -> bool {
    let Ok(file) = File::open(database) else { return false };
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: SHARED_LOCK.0,
        l_len: SHARED_LOCK.1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).is_ok() && lock.l_type != libc::F_UNLCK as libc::c_short
}

/// Lays all parts out and makes them durable.
fn unpack(file: &Path, stage: &Path) -> Result<Manifest> {
    for directory in [stage.to_owned(), stage.join("keys"), stage.join("bundles")] {
        fs::create_dir(directory)?;
    }
    let manifest = archive::read(file, |name, content| {
        let mut written = create_private(&stage.join(name))?;
        io::copy(content, &mut written).with_context(|| format!("cannot lay out {name}"))?;
        Ok(written.sync_all()?)
    })?;
    let mut text = create_private(&stage.join(MANIFEST))?;
    io::copy(&mut serde_json::to_vec(&manifest)?.as_slice(), &mut text)?;
    text.sync_all()?;
    for directory in [stage.join("keys"), stage.join("bundles"), stage.to_owned()] {
        sync_directory(&directory)?;
    }
    Ok(manifest)
}

/// Refuses while a restore waits to be run again.
///
/// # Errors
/// That one was interrupted.
pub fn check_no_restore(plan: &FleetPlan) -> Result<()> {
    match [BEGUN, READY].iter().any(|name| plan.state_dir.join(name).exists()) {
        true => bail!("a restore was interrupted; run r58 fleet restore again, with the same back-up"),
        false => Ok(()),
    }
}

/// Brings a restore to its end that was interrupted after the database server had everything; does nothing where there is none.
///
/// # Errors
/// What cannot be moved or removed: it can be called again. That one was interrupted before.
pub fn finish_restore(plan: &FleetPlan) -> Result<()> {
    sweep(&plan.state_dir, SCRATCH, Duration::ZERO)?;
    let ready = plan.state_dir.join(READY);
    if !ready.exists() {
        return check_no_restore(plan);
    }
    let failed = |path: &Path| format!("cannot put {} in its place", path.display());
    let location = Location::of(plan.database_url.as_deref(), plan.database_password.as_ref(), &plan.state_dir)?;
    fits(&manifest_in(&ready)?, &location).context("a restore was interrupted")?;
    failpoint("ready");
    // What the broker kept is of another time, and is repaired from the database. Its sessions are of that time, too.
    let stale = plan.state_dir.join("broker");
    gone(fs::remove_dir_all(&stale)).with_context(|| failed(&stale))?;
    if let Location::File(database) = &location
        && ready.join(DATABASE).exists()
    {
        // They belong to the file that is replaced.
        for tail in ["-wal", "-shm"] {
            let mut name = database.as_os_str().to_owned();
            name.push(tail);
            gone(fs::remove_file(name)).with_context(|| failed(database))?;
        }
        place(&ready.join(DATABASE), database).with_context(|| failed(database))?;
    }
    failpoint("database_placed");
    let keys = keys_dir(plan);
    fs::create_dir_all(&keys).with_context(|| failed(&keys))?;
    for name in KEY_FILES {
        place(&ready.join("keys").join(name), &keys.join(name)).with_context(|| failed(&keys.join(name)))?;
        failpoint("key_placed");
    }
    let bundles = bundles_dir(plan);
    fs::create_dir_all(&bundles).with_context(|| failed(&bundles))?;
    // Files that no row knows are removed by the server's own sweep.
    for entry in fs::read_dir(ready.join("bundles"))? {
        let entry = entry?;
        place(&entry.path(), &bundles.join(entry.file_name())).with_context(|| failed(&bundles))?;
    }
    failpoint("placed");
    // Over in one step; what a crash leaves of it then is swept.
    let over = plan.state_dir.join(format!(".{SCRATCH}-over"));
    gone(fs::remove_dir_all(&over))?;
    fs::rename(&ready, &over)?;
    sync_directory(&plan.state_dir)?;
    Ok(fs::remove_dir_all(&over)?)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Moves a file in one step, also from another file system; what was moved before is in its place.
fn place(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut name = to.as_os_str().to_owned();
            name.push(".part");
            let part = PathBuf::from(name);
            gone(fs::remove_file(&part))?;
            let mut copy = create_private(&part)?;
            io::copy(&mut File::open(from)?, &mut copy)?;
            copy.sync_all()?;
            fs::rename(&part, to)?;
        }
        moved => moved?,
    }
    match to.parent() {
        Some(parent) => Ok(sync_directory(parent)?),
        None => Ok(()),
    }
}
