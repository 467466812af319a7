//! PostgreSQL's partitions of heartbeats and of their sums: one a day, a month or a year, made ahead and dropped whole.
//!
//! Each table also has a partition for everything else (`…_other`): what was measured by a clock that is years off, and what
//! came in before a server was there to make the partition. A partition that is made takes over what belongs to it from there, so
//! no order of events loses a row or needs a person. Before a partition of raw heartbeats is dropped, each device's latest
//! heartbeat moves to `…_other`: a box that has been silent for longer keeps its card.

use chrono::DateTime;
use sqlx::{AssertSqlSafe, PgConnection};

use super::downsample::{DAY, floor};
use super::levels::{HOURS, MINUTES};
use super::retention::CLOCK_SET;
use super::sql::Pool;
use super::{Store, StoreError, overdue};

/// A table that has partitions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partitioned {
    table: &'static str,
    /// Days of one partition.
    days: i64,
    /// Whether it holds devices' latest heartbeats.
    raw: bool,
}

/// Raw heartbeats.
pub(super) const RAW: Partitioned = Partitioned { table: "heartbeats", days: 1, raw: true };
/// Sums by minute.
pub(super) const BY_MINUTE: Partitioned = Partitioned { table: MINUTES, days: 30, raw: false };
/// Sums by hour.
pub(super) const BY_HOUR: Partitioned = Partitioned { table: HOURS, days: 365, raw: false };

/// Partitions that there are before they are needed.
const AHEAD: i64 = 3;
/// Rows that are deleted from `…_other` in one statement.
const AT_ONCE: i64 = 5_000;

impl Partitioned {
    fn span(&self) -> i64 {
        self.days * DAY
    }

    /// Name of the partition that begins at `from`.
    fn name(&self, from: i64) -> String {
        let day = DateTime::from_timestamp_millis(from).unwrap_or_default().format("%Y%m%d");
        format!("{}_{day}", self.table)
    }

    /// Beginnings of the partitions that have to be there, for rows kept from `kept_from` on.
    fn wanted(&self, kept_from: i64, now: i64) -> impl Iterator<Item = i64> {
        let (span, first) = (self.span(), floor(kept_from, self.span()));
        let last = floor(now, span) + AHEAD * span;
        (0..).map(move |n| first + n * span).take_while(move |from| *from <= last)
    }

    /// Makes the partition that begins at `from`, with what `…_other` holds of it.
    async fn make(&self, connection: &mut PgConnection, from: i64) -> Result<(), sqlx::Error> {
        let (table, name, to) = (self.table, self.name(from), from + self.span());
        let steps = [
            format!("CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"),
            format!(
                "WITH moved AS (DELETE FROM {table}_other WHERE ts >= {from} AND ts < {to} RETURNING *) \
                 INSERT INTO {name} SELECT * FROM moved"
            ),
            format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"),
        ];
        run(connection, steps).await
    }

    /// Drops a partition, and keeps devices' latest heartbeats.
    async fn drop(&self, connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
        let table = self.table;
        let detach = format!("ALTER TABLE {table} DETACH PARTITION {name}");
        let keep = format!(
            "INSERT INTO {table} SELECT h.* FROM {name} h JOIN device_pulse s ON s.device_no = h.device_no \
             AND s.heartbeat_ts = h.ts AND s.heartbeat_boot = h.boot_seq AND s.heartbeat_seq = h.seq"
        );
        let drop = format!("DROP TABLE {name}");
        match self.raw {
            true => run(connection, [detach, keep, drop]).await,
            false => run(connection, [detach, drop]).await,
        }
    }
}

/// Names here are made of our own words and numbers.
async fn run<const N: usize>(connection: &mut PgConnection, steps: [String; N]) -> Result<(), sqlx::Error> {
    for step in steps {
        sqlx::query(AssertSqlSafe(step)).persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

impl Store {
    /// Makes the partitions that will be needed and drops those that lie before `kept_from` as a whole. Nothing on SQLite.
    pub(super) async fn keep_partitions(&self, of: Partitioned, kept_from: i64, now: i64) -> Result<(), StoreError> {
        let Pool::Postgres(pool) = &self.writer else { return Ok(()) };
        let there: Vec<(String,)> = sqlx::query_as(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
             WHERE i.inhparent = to_regclass($1) ORDER BY 1",
        )
        .bind(of.table)
        .fetch_all(pool)
        .await?;
        let there: Vec<String> = there.into_iter().map(|(name,)| name).collect();
        for from in of.wanted(kept_from, now) {
            if !there.contains(&of.name(from)) {
                let mut tx = self.alone_with_partitions().await?;
                if let Some(connection) = tx.postgres() {
                    of.make(connection, from).await?;
                }
                tx.commit().await?;
                tracing::debug!(partition = of.name(from), "made");
            }
        }
        let first = of.name(floor(kept_from, of.span()));
        for name in there {
            // Names of one table sort as their days do; `…_other` is after all of them.
            if name < first {
                let mut tx = self.alone_with_partitions().await?;
                if of.raw {
                    let mut counted = overdue::above_gaps(&name, now);
                    counted.push(overdue::ONCE);
                    counted.build().execute(&mut *tx).await?;
                }
                if let Some(connection) = tx.postgres() {
                    of.drop(connection, &name).await?;
                }
                tx.commit().await?;
                tracing::info!(partition = name, "dropped: its time is over");
            }
        }
        self.empty_other(of, kept_from, now).await
    }

    /// Deletes what is too old from the partition of everything else: measured too long ago, or received too long ago with a
    /// time that lies ahead or is that of a clock that was not set.
    async fn empty_other(&self, of: Partitioned, kept_from: i64, now: i64) -> Result<(), StoreError> {
        let Pool::Postgres(pool) = &self.writer else { return Ok(()) };
        let old = match of.raw {
            true => {
                "((ts >= $4 AND ts < $1) OR ((ts > $2 OR ts < $4) AND received_at < $1)) AND NOT EXISTS (SELECT 1 FROM device_pulse s \
                 WHERE s.device_no = o.device_no AND s.heartbeat_ts = o.ts AND s.heartbeat_boot = o.boot_seq \
                 AND s.heartbeat_seq = o.seq)"
            }
            false => "ts < $1 AND $2 > 0 AND $4 > 0",
        };
        let sql = format!(
            "DELETE FROM {table}_other WHERE ctid = ANY(ARRAY(SELECT o.ctid FROM {table}_other o WHERE {old} LIMIT $3))",
            table = of.table
        );
        loop {
            let delete =
                sqlx::query(AssertSqlSafe(sql.clone())).bind(kept_from).bind(now).bind(AT_ONCE).bind(CLOCK_SET);
            if delete.execute(pool).await?.rows_affected() == 0 {
                return Ok(());
            }
        }
    }

    async fn alone_with_partitions(&self) -> Result<super::sql::Tx, StoreError> {
        let mut tx = self.begin().await?;
        self.fence(&mut tx).await?;
        tx.alone("partitions", "").await?;
        if let Some(connection) = tx.postgres() {
            // Moving rows may take as long as it takes; waiting for others may not.
            sqlx::query("SET LOCAL statement_timeout = 0").execute(connection).await?;
        }
        Ok(tx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_cover_what_is_kept_and_what_comes_whatever_the_clock_says() {
        for now in [0, 1_800_000_000_000, 4_102_444_800_000] {
            for of in [RAW, BY_MINUTE, BY_HOUR] {
                let kept_from = now - 40 * DAY;
                let wanted: Vec<i64> = of.wanted(kept_from, now).collect();
                assert!(wanted[0] <= kept_from && kept_from < wanted[0] + of.span());
                assert!(wanted.windows(2).all(|two| two[0] + of.span() == two[1] && of.name(two[0]) < of.name(two[1])));
                assert!(*wanted.last().unwrap() > now + (AHEAD - 1) * of.span());
            }
        }
        assert!(RAW.name(4_102_444_800_000).as_str() < "heartbeats_other");
    }
}
