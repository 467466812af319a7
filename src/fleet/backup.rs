//! Back-up and restore of a fleet server, each by one command, the former while the server runs.
//!
//! A back-up is one tar file, mode 0600: it holds the database as it was at one moment after the command began, the server's
//! keys, the files of support bundles, and last a manifest with the checksum of each. A file that was cut has no manifest. The
//! embedded broker's state is not in it: retained copies are a cache, which boxes and server repair as they meet.
//!
//! Restoring looks at the whole file before it touches anything. Then everything is laid beside what is there, and put in its
//! place in one go: what a crash interrupts in the middle, the next start of the server or of the restore brings to its end
//! ([`finish_restore`]). A PostgreSQL database is replaced in one transaction before that.

mod archive;
mod postgres;
mod restore;

pub use archive::Manifest;
pub use restore::{finish_restore, restore};

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use chrono::Utc;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use self::archive::Writer;
use super::FleetPlan;
use super::keys::KEY_FILES;
use super::store::Location;

/// The database's part of a back-up.
const DATABASE: &str = "database";

/// Writes a back-up of the server of `plan`, which may be running, to `file`, which must not exist yet.
///
/// # Errors
/// Names what cannot be read or written. Nothing is left behind then.
pub async fn backup(plan: &FleetPlan, file: &Path) -> Result<Manifest> {
    if file.exists() {
        bail!("{} exists already", file.display());
    }
    let beside = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let work = Scratch::beside(&beside, "r58-backup")?;
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
        writer.finish(engine, schema, at)
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
        .busy_timeout(std::time::Duration::from_secs(30))
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

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A new file that only its owner reads.
fn create_private(path: &Path) -> Result<File> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.with_context(|| format!("cannot write {}", path.display()))
}
