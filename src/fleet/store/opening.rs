//! Opening the database: which engine, its connections, and the tables brought up to date.
//!
//! **SQLite** knows one writer at a time. Giving it one connection turns the engine's "busy" into a queue, and lets a
//! transaction read before it writes without a deadlock.
//!
//! **PostgreSQL** is given a pool of writers and one of readers, so that ingest at full speed never keeps a dashboard
//! waiting for a connection. Transactions run at READ COMMITTED, the engine's default. What one writer gave for free is
//! asked for where it is needed: counters by `UPDATE … RETURNING`, which holds their row to the end of the transaction;
//! `for_update` where something is read to decide what is written; `alone` where there is no row to lock yet. Where a
//! transaction locks several devices or commands it does so in the order of their keys; what deadlocks or waits too long
//! nevertheless is ended by the engine and reported as busy, and every caller that must not lose anything tries again.
//! A connection that broke is found before it is used, and replaced.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use r58_actors::fleet_link::identity::Secret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::sql::Pool;
use super::{StoreError, migrations};

/// Name of the file where no URL is given.
const FILE: &str = "fleet.db";
/// Connections that read; more would only queue for the same disk.
const READERS: u32 = 4;
/// How long a statement waits for another process that holds the file.
const BUSY: Duration = Duration::from_secs(5);
/// Connections to PostgreSQL of each kind. Eight servers keep within its default of 100.
const SERVER_CONNECTIONS: u32 = 6;
/// How long a caller waits for a connection to PostgreSQL, a broken one being replaced included.
const SERVER_WAIT: Duration = Duration::from_secs(10);
/// What PostgreSQL ends by itself: a statement that runs, one that waits for a lock, and a transaction whose server went away
/// in the middle, in milliseconds.
const SERVER_LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "30000"), ("lock_timeout", "10000"), ("idle_in_transaction_session_timeout", "60000")];
/// From when on a statement is worth a line.
const SLOW: Duration = Duration::from_secs(1);

/// Readers and writers of the database.
pub(super) struct Pools {
    pub reader: Pool,
    pub writer: Pool,
}

/// Where the database is.
#[derive(Debug)]
pub enum Location {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL server.
    Server {
        /// Its URL.
        url: String,
        /// Wins over the one in the URL.
        password: Option<Secret>,
    },
}

impl Location {
    /// As [`super::Store::open`] understands it.
    ///
    /// # Errors
    /// When the URL is not understood.
    pub fn of(url: Option<&str>, password: Option<&Secret>, state_dir: &Path) -> Result<Self, StoreError> {
        match url {
            None => Ok(Self::File(state_dir.join(FILE))),
            Some(url) if url.starts_with("sqlite:") => {
                let options = SqliteConnectOptions::from_str(url)
                    .map_err(|error| StoreError::Url(format!("database_url: {error}")))?;
                Ok(Self::File(options.get_filename().to_owned()))
            }
            Some(url) => Ok(Self::Server { url: url.to_owned(), password: password.cloned() }),
        }
    }

    /// `sqlite` or `postgres`.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::File(_) => "sqlite",
            Self::Server { .. } => "postgres",
        }
    }
}

/// Opens `url`, or the file `fleet.db` in `state_dir`, and brings its tables up to date.
pub(super) async fn open(url: Option<&str>, password: Option<&str>, state_dir: &Path) -> Result<Pools, StoreError> {
    let not_understood = |error: sqlx::Error| StoreError::Url(format!("database_url: {error}"));
    match url {
        None => sqlite(SqliteConnectOptions::new().filename(state_dir.join(FILE))).await,
        Some(url) if url.starts_with("sqlite:") => {
            sqlite(SqliteConnectOptions::from_str(url).map_err(not_understood)?).await
        }
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            let options = PgConnectOptions::from_str(url).map_err(not_understood)?;
            postgres(match password {
                Some(password) => options.password(password),
                None => options,
            })
            .await
        }
        Some(_) => Err(StoreError::Url("database_url: only sqlite: and postgres:// URLs are supported".into())),
    }
}

async fn sqlite(options: SqliteConnectOptions) -> Result<Pools, StoreError> {
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged heartbeat is deleted on the box, so the commit has to survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("cache_size", "-32768")
        // 64 MB: pages that many batches change are copied into the file once.
        .pragma("wal_autocheckpoint", "16000")
        .disable_statement_logging()
        .log_slow_statements(tracing::log::LevelFilter::Debug, SLOW);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(30))
        // After a commit that failed (a full disk) sqlx may believe in a transaction that SQLite has ended, and open the next
        // ones inside it, where a commit makes nothing durable. Such a connection is closed; behind the ping, every rollback is done.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
        .connect_with(options.clone())
        .await
        .map_err(opening)?;
    migrations::run_sqlite(&writer).await?;
    let reader = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await.map_err(opening)?;
    Ok(Pools { reader: Pool::Sqlite(reader), writer: Pool::Sqlite(writer) })
}

async fn postgres(options: PgConnectOptions) -> Result<Pools, StoreError> {
    let options = options
        .application_name("r58 fleet")
        .disable_statement_logging()
        .log_slow_statements(tracing::log::LevelFilter::Debug, SLOW);
    // Changing tables may take as long as it takes, and so may waiting for another server that does it.
    let mut alone = options.connect().await.map_err(opening)?;
    migrations::run_postgres(&mut alone).await?;
    alone.close().await.map_err(opening)?;
    let options = options.options(SERVER_LIMITS);
    let pool = || PgPoolOptions::new().max_connections(SERVER_CONNECTIONS).acquire_timeout(SERVER_WAIT);
    let writer = pool().connect_with(options.clone()).await.map_err(opening)?;
    let reader = pool().connect_with(options).await.map_err(opening)?;
    Ok(Pools { reader: Pool::Postgres(reader), writer: Pool::Postgres(writer) })
}

/// From now on what is freed in an SQLite file is overwritten as well; or no more, and what its log still holds of before is
/// gone. Its writer's only connection has it so. A server's files are its own affair.
pub(super) async fn overwrite_freed(writer: &Pool, on: bool) -> Result<(), StoreError> {
    let Pool::Sqlite(writer) = writer else { return Ok(()) };
    let statements: &[&'static str] = match on {
        true => &["PRAGMA secure_delete = ON"],
        false => &["PRAGMA secure_delete = OFF", "PRAGMA wal_checkpoint(TRUNCATE)"],
    };
    for statement in statements {
        sqlx::query(*statement).execute(writer).await?;
    }
    Ok(())
}

fn opening(error: sqlx::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Bug(reason) => StoreError::Unavailable(reason),
        other => other,
    }
}
