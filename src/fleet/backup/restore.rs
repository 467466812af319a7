//! Putting a back-up in the place of what is there, or where nothing is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::archive::{self, Manifest};
use super::{DATABASE, Scratch, bundles_dir, create_private, keys_dir, postgres, sync_directory};
use crate::fleet::FleetPlan;
use crate::fleet::keys::KEY_FILES;
use crate::fleet::store::{Location, newest_schema};

/// What is to be put in its place, all of it: from here on there is no way back, only forward.
const READY: &str = "restore.ready";

/// Restores `file` to the server of `plan`, which must not be running: whoever calls holds its state directory.
///
/// # Errors
/// What is wrong with the file, that the target is not empty and `replace` was not said, that a server uses the database, or
/// what cannot be written. Nothing has changed then.
pub async fn restore(plan: &FleetPlan, file: &Path, replace: bool) -> Result<Manifest> {
    finish_restore(plan)?;
    let location = Location::of(plan.database_url.as_deref(), plan.database_password.as_ref(), &plan.state_dir)?;
    let looked_at = file.to_owned();
    let manifest = tokio::task::spawn_blocking(move || archive::read(&looked_at, |_, _| Ok(()))).await??;
    if manifest.engine != location.engine() {
        let (theirs, ours) = (&manifest.engine, location.engine());
        bail!("the back-up is of a {theirs} database, the configuration names a {ours} one");
    }
    if manifest.schema > newest_schema() {
        bail!("the back-up was written by a newer version ({}, migration {})", manifest.version, manifest.schema);
    }
    check_target(plan, &location, replace).await?;

    let work = Scratch::beside(&plan.state_dir, "r58-restore")?;
    let (stage, source) = (work.path().join("stage"), file.to_owned());
    let laid_out = stage.clone();
    let staged = tokio::task::spawn_blocking(move || unpack(&source, &laid_out)).await??;
    if staged != manifest {
        bail!("the back-up changed while it was read");
    }
    if let Location::Server { url, password } = &location {
        let dump = stage.join(DATABASE);
        postgres::restore(url, password.as_ref(), &dump, work.path()).await?;
        fs::remove_file(dump)?;
    }
    fs::rename(&stage, plan.state_dir.join(READY))?;
    sync_directory(&plan.state_dir)?;
    finish_restore(plan)?;
    Ok(manifest)
}

/// Refuses a target that holds something, unless it may be replaced.
async fn check_target(plan: &FleetPlan, location: &Location, replace: bool) -> Result<()> {
    let keys = keys_dir(plan);
    let mut held: Vec<PathBuf> = KEY_FILES.iter().map(|name| keys.join(name)).collect();
    match location {
        Location::File(database) => held.push(database.clone()),
        Location::Server { url, password } => postgres::check(url, password.as_ref(), replace).await?,
    }
    let bundles = fs::read_dir(bundles_dir(plan)).into_iter().flatten().flatten();
    held.extend(bundles.map(|entry| entry.path()));
    match held.iter().find(|path| path.exists()) {
        Some(path) if !replace => bail!("{} is there already; --replace replaces all that is there", path.display()),
        _ => Ok(()),
    }
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
    for directory in [stage.join("keys"), stage.join("bundles"), stage.to_owned()] {
        sync_directory(&directory)?;
    }
    Ok(manifest)
}

/// Brings a restore to its end that was interrupted after everything was laid out; does nothing where there is none.
///
/// # Errors
/// What cannot be moved or removed. It can be called again.
pub fn finish_restore(plan: &FleetPlan) -> Result<()> {
    let ready = plan.state_dir.join(READY);
    if !ready.exists() {
        return Ok(());
    }
    let failed = |path: &Path| format!("cannot put {} in its place", path.display());
    let location = Location::of(plan.database_url.as_deref(), plan.database_password.as_ref(), &plan.state_dir)?;
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
    let keys = keys_dir(plan);
    fs::create_dir_all(&keys).with_context(|| failed(&keys))?;
    for name in KEY_FILES {
        place(&ready.join("keys").join(name), &keys.join(name)).with_context(|| failed(&keys.join(name)))?;
    }
    let bundles = bundles_dir(plan);
    fs::create_dir_all(&bundles).with_context(|| failed(&bundles))?;
    // Files that no row knows are removed by the server's own sweep.
    for entry in fs::read_dir(ready.join("bundles"))? {
        let entry = entry?;
        place(&entry.path(), &bundles.join(entry.file_name())).with_context(|| failed(&bundles))?;
    }
    fs::remove_dir_all(&ready)?;
    Ok(sync_directory(&plan.state_dir)?)
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
            io::copy(&mut fs::File::open(from)?, &mut copy)?;
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
