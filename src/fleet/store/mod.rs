//! The database of the fleet: an SQLite file, written by one connection and read by several.
//!
//! Every statement keeps to what SQLite and PostgreSQL share: `$1` placeholders, `ON CONFLICT`, `RETURNING`, row
//! values, no engine's own functions. The engine is named in one place, [`Db`].
//!
//! SQLite knows one writer at a time. Giving it one connection turns the engine's "busy" into a queue, and lets a
//! transaction read before it writes without a deadlock.

mod api_keys;
mod apply;
mod audit;
mod bundles;
mod commands;
mod config;
mod devices;
mod ending;
mod enrolment;
mod error;
mod groups;
mod handed;
mod heartbeats;
mod ingest;
mod keys;
mod once;
mod organizations;
mod refresh;
mod releases;
mod rollouts;
mod selection;
mod status;
mod tokens;
mod users;

pub use api_keys::{ApiKeyRow, NewApiKey};
pub use audit::Actor;
pub use bundles::{Announced, Announcement, BundleRow, NewBundle};
pub use commands::{CommandRef, CommandRow, HistoryRow, NewCommand, Retained, Signed};
pub use config::{ConfigRow, NewConfig, Put};
pub use devices::{DeviceChange, DeviceFilter, DeviceRow, NewDevice, PresenceFilter};
pub use enrolment::{Enrolled, EnrolmentRow, NewEnrolmentCode};
pub use error::StoreError;
pub use groups::{GroupRow, NewGroup, StateCount};
pub use heartbeats::{MetricSummary, StoredHeartbeat};
pub use once::Once;
pub use organizations::OrganizationRow;
pub use refresh::Refreshed;
pub use releases::{ReleaseKeyRow, ReleaseRow};
pub use rollouts::RolloutRow;
pub use selection::{BulkChange, Selection, Summary};
pub use tokens::DeviceSecrets;
pub use users::{NewUser, UserChange, UserRow};

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Pool, SqlSafeStr, Transaction};

/// The engine.
pub(crate) type Db = sqlx::Sqlite;

/// How the engine writes a value's place in statements with very many of them.
const PLACEHOLDER: &str = "?";

/// Connections that read; more would only queue for the same disk.
const READERS: u32 = 4;
/// How long a statement waits for another process that holds the file.
const BUSY: Duration = Duration::from_secs(5);
/// Every migration, in order. A file that was released is never edited.
const MIGRATIONS: [(i64, &str, &str); 10] = [
    (1, "floor", include_str!("../migrations/0001_floor.sql")),
    (2, "heartbeat once", include_str!("../migrations/0002_heartbeat_once.sql")),
    (3, "withdraw again", include_str!("../migrations/0003_withdraw_again.sql")),
    (10, "organizations", include_str!("../migrations/0010_organizations.sql")),
    (11, "tags and tokens", include_str!("../migrations/0011_tags_and_tokens.sql")),
    (12, "commands", include_str!("../migrations/0012_commands.sql")),
    (13, "config", include_str!("../migrations/0013_config.sql")),
    (14, "releases", include_str!("../migrations/0014_releases.sql")),
    (15, "support bundles", include_str!("../migrations/0015_support_bundles.sql")),
    (30, "enrolment uses", include_str!("../migrations/0030_enrolment_uses.sql")),
];

/// What ingest needs to know of a device for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNo(pub i64);

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    reader: Pool<Db>,
    writer: Pool<Db>,
    /// Device to its organization and short key. Keys never change; a decommissioned device is taken out.
    numbers: Arc<RwLock<HashMap<String, (String, DeviceNo)>>>,
}

impl Store {
    /// Opens `url`, or the file `fleet.db` in `state_dir`, and brings its tables up to date.
    ///
    /// # Errors
    /// When the URL is not understood, or the file cannot be opened, is held by another process, is damaged, or was
    /// written by a newer version.
    pub async fn open(url: Option<&str>, state_dir: &Path) -> Result<Self, StoreError> {
        let options = match url {
            None => SqliteConnectOptions::new().filename(state_dir.join("fleet.db")),
            Some(url) if url.starts_with("sqlite:") => SqliteConnectOptions::from_str(url)
                .map_err(|error| StoreError::Url(format!("database_url: {error}")))?,
            Some(_) => return Err(StoreError::Url("database_url: only sqlite: URLs are supported".into())),
        };
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged heartbeat is deleted on the box, so the commit has to survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .pragma("cache_size", "-32768")
            .pragma("wal_autocheckpoint", "4000")
            .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(1));
        let options = options.disable_statement_logging();
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options.clone())
            .await
            .map_err(opening)?;
        migrate(&writer).await?;
        let reader = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(opening)?;
        Ok(Self { reader, writer, numbers: Arc::default() })
    }

    /// Waits for statements under way and closes the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Answers when the database answers.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.reader).await?;
        Ok(())
    }

    async fn begin(&self) -> Result<Transaction<'static, Db>, StoreError> {
        Ok(self.writer.begin().await?)
    }

    /// One page of an organization's rows and how many there are. `rows` takes organization, limit and offset, `count` the
    /// organization.
    async fn page<Row>(
        &self,
        (rows, count): (&'static str, &'static str),
        org: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<Row>, i64), StoreError>
    where
        Row: for<'r> sqlx::FromRow<'r, <Db as sqlx::Database>::Row> + Send + Unpin,
    {
        let found = sqlx::query_as(rows).bind(org).bind(limit).bind(offset).fetch_all(&self.reader).await?;
        let (total,): (i64,) = sqlx::query_as(count).bind(org).fetch_one(&self.reader).await?;
        Ok((found, total))
    }

    /// Deletes what `sql` finds with an id and the actor's organization, and notes it as `what`; `false` when there is none.
    async fn delete(
        &self,
        sql: &'static str,
        what: &'static str,
        actor: &Actor,
        id: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if sqlx::query(sql).bind(id).bind(&actor.org).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        audit::record(&mut tx, actor, what, id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The short key of a device that is in service, from memory where possible.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_no(&self, org: &str, device: &str) -> Result<Option<DeviceNo>, StoreError> {
        let known = self
            .numbers
            .read()
            .unwrap_or_else(|poison| poison.into_inner())
            .get(device)
            .filter(|(owner, _)| owner == org)
            .map(|(_, no)| *no);
        if known.is_some() {
            return Ok(known);
        }
        let row: Option<(i64,)> =
            sqlx::query_as("SELECT no FROM devices WHERE id = $1 AND org = $2 AND decommissioned_at IS NULL")
                .bind(device)
                .bind(org)
                .fetch_optional(&self.reader)
                .await?;
        let Some((no,)) = row else { return Ok(None) };
        let mut numbers = self.numbers.write().unwrap_or_else(|poison| poison.into_inner());
        numbers.insert(device.to_owned(), (org.to_owned(), DeviceNo(no)));
        Ok(Some(DeviceNo(no)))
    }

    fn forget_number(&self, device: &str) {
        self.numbers.write().unwrap_or_else(|poison| poison.into_inner()).remove(device);
    }
}

async fn migrate(writer: &Pool<Db>) -> Result<(), StoreError> {
    let migrations = MIGRATIONS
        .into_iter()
        .map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(writer).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(version) => {
            StoreError::Unavailable(format!("it was written by a newer version of this program (migration {version})"))
        }
        sqlx::migrate::MigrateError::Execute(error) => StoreError::from(error),
        other => StoreError::Unavailable(other.to_string()),
    })
}

fn opening(error: sqlx::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Bug(reason) => StoreError::Unavailable(reason),
        other => other,
    }
}

/// Milliseconds since 1970, as the tables hold them.
pub(crate) fn millis(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

/// The other way round; a value out of range becomes 1970.
pub(crate) fn instant(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}

#[cfg(test)]
mod tests;
