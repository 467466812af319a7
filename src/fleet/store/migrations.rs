//! The tables' history: numbered files, each run once, in order, in a transaction of its own.
//!
//! Most files run unchanged on both engines. Where one cannot, it has a text for each. On PostgreSQL servers that start
//! together take turns (sqlx holds an advisory lock of the database while it migrates); a file of SQLite is locked as a whole.

use std::borrow::Cow;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Acquire, PgConnection, SqlSafeStr, Sqlite};

use super::StoreError;
use super::sql::Engine;

/// The text of a migration.
enum Text {
    /// The same on both engines.
    Both(&'static str),
    /// Another one on each: SQLite's, PostgreSQL's.
    Each(&'static str, &'static str),
}

/// Every migration, in order. A file that was released is never edited.
const MIGRATIONS: &[(i64, &str, Text)] = &[
    (1, "floor", Text::Both(include_str!("../migrations/0001_floor.sql"))),
    (2, "heartbeat once", Text::Both(include_str!("../migrations/0002_heartbeat_once.sql"))),
    (3, "withdraw again", Text::Both(include_str!("../migrations/0003_withdraw_again.sql"))),
    (4, "levels", Text::Both(include_str!("../migrations/0004_levels.sql"))),
    (
        5,
        "partitions",
        Text::Each(
            include_str!("../migrations/0005_partitions.sqlite.sql"),
            include_str!("../migrations/0005_partitions.postgres.sql"),
        ),
    ),
    (10, "organizations", Text::Both(include_str!("../migrations/0010_organizations.sql"))),
    (11, "tags and tokens", Text::Both(include_str!("../migrations/0011_tags_and_tokens.sql"))),
    (12, "commands", Text::Both(include_str!("../migrations/0012_commands.sql"))),
    (13, "config", Text::Both(include_str!("../migrations/0013_config.sql"))),
    (14, "releases", Text::Both(include_str!("../migrations/0014_releases.sql"))),
    (15, "support bundles", Text::Both(include_str!("../migrations/0015_support_bundles.sql"))),
    (30, "enrolment uses", Text::Both(include_str!("../migrations/0030_enrolment_uses.sql"))),
    (31, "alerts", Text::Both(include_str!("../migrations/0031_alerts.sql"))),
    (32, "alert deliveries", Text::Both(include_str!("../migrations/0032_alert_deliveries.sql"))),
    (39, "audit chain", Text::Both(include_str!("../migrations/0039_audit_chain.sql"))),
    (
        46,
        "search",
        Text::Each(
            include_str!("../migrations/0046_search.sqlite.sql"),
            include_str!("../migrations/0046_search.postgres.sql"),
        ),
    ),
    (
        47,
        "counts",
        Text::Each(
            include_str!("../migrations/0047_counts.sqlite.sql"),
            include_str!("../migrations/0047_counts.postgres.sql"),
        ),
    ),
    (48, "boot clocks", Text::Both(include_str!("../migrations/0048_boot_clocks.sql"))),
    (49, "overdue", Text::Both(include_str!("../migrations/0049_overdue.sql"))),
    (50, "alert rules name", Text::Both(include_str!("../migrations/0050_alert_rules_name.sql"))),
    (
        51,
        "gone",
        Text::Each(
            include_str!("../migrations/0051_gone.sqlite.sql"),
            include_str!("../migrations/0051_gone.postgres.sql"),
        ),
    ),
    (55, "devices by token", Text::Both(include_str!("../migrations/0055_devices_by_token.sql"))),
    (
        58,
        "pulse",
        Text::Each(
            include_str!("../migrations/0058_pulse.sqlite.sql"),
            include_str!("../migrations/0058_pulse.postgres.sql"),
        ),
    ),
    (59, "outline", Text::Both(include_str!("../migrations/0059_outline.sql"))),
];

/// The newest version that this program knows.
pub fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, ..)| *version)
}

/// The migrations up to and including `last`.
fn migrator(engine: Engine, last: i64) -> Migrator {
    let upto = MIGRATIONS.iter().filter(|(version, ..)| *version <= last);
    let migrations = upto.map(|(version, name, text)| {
        let sql = match (text, engine) {
            (Text::Both(sql), _) | (Text::Each(sql, _), Engine::Sqlite) | (Text::Each(_, sql), Engine::Postgres) => {
                *sql
            }
        };
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Brings a file up to date.
pub(super) async fn run_sqlite(writer: &sqlx::Pool<Sqlite>) -> Result<(), StoreError> {
    run(Engine::Sqlite, i64::MAX, writer).await
}

/// Brings a server's database up to date.
pub(super) async fn run_postgres(connection: &mut PgConnection) -> Result<(), StoreError> {
    run(Engine::Postgres, i64::MAX, connection).await
}

/// The versions before the newest.
#[cfg(test)]
pub(super) fn earlier() -> impl Iterator<Item = i64> {
    MIGRATIONS[..MIGRATIONS.len() - 1].iter().map(|(version, ..)| *version)
}

/// Brings an empty database up to an earlier version, as a program of that time would have.
#[cfg(test)]
pub(super) async fn run_to(last: i64, url: &str) {
    use sqlx::Connection as _;
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        run(Engine::Sqlite, last, &mut connection).await.unwrap();
    } else {
        let mut connection = PgConnection::connect(url).await.unwrap();
        run(Engine::Postgres, last, &mut connection).await.unwrap();
    }
}

async fn run<'a, A>(engine: Engine, last: i64, on: A) -> Result<(), StoreError>
where
    A: Acquire<'a>,
    <A::Connection as std::ops::Deref>::Target: Migrate,
{
    migrator(engine, last).run(on).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => {
            StoreError::Unavailable(format!("it was written by a newer version of this program (migration {version})"))
        }
        MigrateError::Execute(error) => StoreError::from(error),
        other => StoreError::Unavailable(other.to_string()),
    })
}
