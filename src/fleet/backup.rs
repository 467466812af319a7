//! Back-up and restore of a fleet server, each by one command, the former while the server runs.
//!
//! A back-up is one tar file, mode 0600: it holds the database as it was at one moment after the command began, the server's
//! keys, the files of support bundles, and last a manifest with the checksum of each. A file that was cut has no manifest. The
//! embedded broker's state is not in it: retained copies are a cache, which boxes and server repair as they meet. Nor are the
//! configuration and what it names (certificates, the authority that boxes are believed by, passwords), which are whoever
//! installed the server's; the manifest lists them, so that a restore elsewhere can say which of them are missing there.
//!
//! Restoring looks at the whole file before it touches anything. Then everything is laid beside what is there, and put in its
//! place in one go, PostgreSQL's database in one transaction before. What a crash interrupts in the middle, the same command
//! brings to its end (`restore` says how); no server starts on half of it.

mod archive;
mod postgres;
mod restore;

pub use archive::Manifest;
pub use restore::{finish_restore, restore};

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chrono::Utc;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use self::archive::Writer;
use super::FleetPlan;
use super::keys::KEY_FILES;
use super::store::Location;

/// The database's part of a back-up.
const DATABASE: &str = "database";

/// Where a back-up is in the making, beside where it is to be.
const SCRATCH: &str = "r58-backup";
/// Nobody works at one for so long.
const LEFT_BEHIND: Duration = Duration::from_secs(7 * 86_400);

/// Writes a back-up of the server of `plan`, which may be running, to `file`, which must not exist yet. `elsewhere` is what its
/// manifest lists as not in it.
///
/// # Errors
/// Names what cannot be read or written. Nothing is left behind then.
pub async fn backup(plan: &FleetPlan, file: &Path, elsewhere: Vec<String>) -> Result<Manifest> {
    restore::check_no_restore(plan)?;
    if file.exists() {
        bail!("{} exists already", file.display());
    }
    let beside = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    sweep(&beside, SCRATCH, LEFT_BEHIND)?;
    let work = Scratch::beside(&beside, SCRATCH)?;
    let dump = work.path().join(DATABASE);
    let location = Location::of(plan.database_url.as_deref(), plan.database_password.as_ref(), &plan.state_dir)?;
    let schema = match &location {
        Location::File(database) => {
            copy_database(database, &dump).await.with_context(|| format!("database {}", database.display()))?
        }
        Location::Server { url, password } => postgres::dump(url, password.as_ref(), &dump).await?,
    };
    // After the database: no bundle that it knows is missing but one that was deleted since.
    let parts = parts(plan)?;
    let (part, at, engine) = (work.path().join("backup"), Utc::now(), location.engine());
    let manifest = tokio::task::spawn_blocking(move || -> Result<Manifest> {
        let mut writer = Writer::create(&part)?;
        writer.add(DATABASE, &dump)?;
        for (name, path) in parts {
            // A bundle may be deleted at any time; a key may not.
            match writer.add(&name, &path) {
                Err(error) if is_gone(&error) && name.starts_with("bundles/") => {}
                done => done?,
            }
        }
        writer.finish(engine, schema, at, elsewhere)
    })
    .await??;
    // A hard link, not a rename: it does not replace what came there meanwhile.
    fs::hard_link(work.path().join("backup"), file).with_context(|| format!("cannot write {}", file.display()))?;
    sync_directory(&beside)?;
    Ok(manifest)
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Names and places of everything but the database.
fn parts(plan: &FleetPlan) -> Result<Vec<(String, PathBuf)>> {
    let keys = keys_dir(plan);
    let mut parts: Vec<(String, PathBuf)> =
        KEY_FILES.iter().map(|name| (format!("keys/{name}"), keys.join(name))).collect();
    let bundles = bundles_dir(plan);
    let listed = match fs::read_dir(&bundles) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(parts),
        listed => listed.with_context(|| format!("cannot read {}", bundles.display()))?,
    };
    for entry in listed {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if archive::is_part(&format!("bundles/{name}")) {
            parts.push((format!("bundles/{name}"), bundles.join(name)));
        }
    }
    Ok(parts)
}

fn keys_dir(plan: &FleetPlan) -> PathBuf {
    plan.keys_dir.clone().unwrap_or_else(|| plan.state_dir.clone())
}

fn bundles_dir(plan: &FleetPlan) -> PathBuf {
    plan.bundles.directory.clone().unwrap_or_else(|| plan.state_dir.join("bundles"))
}

/// A copy of an SQLite file at one moment, while others write to it; answers with the version of its tables.
async fn copy_database(from: &Path, to: &Path) -> Result<i64> {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(from)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(30))
        .disable_statement_logging();
    let mut connection = options.connect().await?;
    sqlx::query("VACUUM INTO $1").bind(to.to_string_lossy().into_owned()).execute(&mut connection).await?;
    connection.close().await?;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(to).disable_statement_logging();
    let mut copy = options.connect().await?;
    let (schema,): (i64,) = sqlx::query_as(AssertSqlSafe(SCHEMA.to_owned())).fetch_one(&mut copy).await?;
    copy.close().await?;
    Ok(schema)
}

/// The newest migration that a database has.
const SCHEMA: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";

/// A directory of our own (mode 0700), gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(parent: &Path, what: &str) -> Result<Self> {
        let path = parent.join(format!(".{what}-{}", ulid::Ulid::new()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot write to {}", parent.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what commands that were killed left in a directory, as secret as a back-up: all that is as old as `age`.
fn sweep(parent: &Path, what: &str, age: Duration) -> Result<()> {
    let begins = format!(".{what}-");
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let old =
            || entry.metadata().and_then(|of| of.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|by| by >= age));
        if entry.file_name().to_string_lossy().starts_with(&begins) && (age.is_zero() || old()) {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A new file that only its owner reads.
fn create_private(path: &Path) -> Result<File> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_back_up_left_goes_after_a_while_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let made = [".r58-backup-OLD", ".r58-backup-NEW", "r58-backup-old"].map(|name| dir.path().join(name));
        for path in &made {
            fs::create_dir(path).unwrap();
            fs::write(path.join("database"), b"secret").unwrap();
        }
        for path in [&made[0], &made[2]] {
            File::open(path).unwrap().set_modified(std::time::SystemTime::now() - 2 * LEFT_BEHIND).unwrap();
        }
        sweep(dir.path(), SCRATCH, LEFT_BEHIND).unwrap();
        assert_eq!(made.each_ref().map(|path| path.exists()), [false, true, true]);
        sweep(dir.path(), SCRATCH, Duration::ZERO).unwrap();
        assert_eq!(made.each_ref().map(|path| path.exists()), [false, false, true]);
    }
}
