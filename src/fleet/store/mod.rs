//! The database of the fleet: an SQLite file by default, or a PostgreSQL server that any number of fleet servers share.
//!
//! Statements are written once, in what both engines understand: `$1` placeholders, `ON CONFLICT`, `RETURNING`, row values,
//! no engine's own functions; `sql` runs them on either. `opening` has the engines' connections and what differs between one
//! writer and many, `migrations` the tables' history. Whoever writes a transaction that reads before it writes says so, by
//! `for_update` or `alone` (see `sql`): on SQLite nobody else writes meanwhile, on PostgreSQL somebody does.

mod alert_receivers;
mod alert_rules;
mod alerts;
mod api_keys;
mod apply;
mod audit;
mod bulk;
mod bundles;
mod census;
mod clocks;
mod commands;
mod config;
mod deliveries;
mod devices;
pub mod downsample;
mod ending;
mod enrolment;
mod error;
mod groups;
mod handed;
mod heartbeats;
mod ingest;
mod keys;
pub mod leader;
mod levels;
mod many;
mod meters;
mod migrations;
pub mod news;
mod numbers;
mod once;
mod opening;
mod organizations;
mod overdue;
mod partitions;
mod pulse;
mod refresh;
mod releases;
pub mod retention;
mod rollouts;
mod selection;
mod series;
mod silences;
mod sql;
mod states;
mod status;
mod tokens;
mod users;

pub use alert_receivers::{AlertReceiverRow, Removed};
pub use alert_rules::{AlertRuleRow, Ruled};
pub use alerts::{Acknowledged, AlertFilter, AlertRow, Looked, Since};
pub use api_keys::{ApiKeyRow, NewApiKey};
pub use audit::{Actor, AuditFilter};
pub use bundles::{Announced, Announcement, BundleRow, NewBundle};
pub use census::{Census, Counted, DECOMMISSIONED, DeviceCounts, Total};
pub use commands::{CommandRef, CommandRow, HistoryRow, NewCommand, Retained, Signed};
pub use config::{ConfigRow, NewConfig, Put};
pub use deliveries::{DeliveryRow, DueDelivery, Outcome};
pub use devices::{DeviceChange, DeviceFilter, DeviceRow, NewDevice, PresenceFilter};
pub use enrolment::{Certified, Enrolled, EnrolmentRow, NewEnrolmentCode};
pub use error::StoreError;
pub use groups::{GroupRow, NewGroup, StateCount};
pub use heartbeats::StoredHeartbeat;
pub use meters::{PoolUse, StoreMeters};
pub use migrations::newest as newest_schema;
pub use once::Once;
pub use opening::Location;
pub use organizations::OrganizationRow;
pub use refresh::Refreshed;
pub use releases::{ReleaseKeyRow, ReleaseRow};
pub use rollouts::RolloutRow;
pub use selection::{BulkChange, Selection, TagCount};
pub use silences::{MOST_SILENCES, SilenceRow};
pub use states::StateRow;
pub use tokens::DeviceSecrets;
pub use users::{NewUser, UserChange, UserRow};

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use self::sql::{Changes, Pool, Told, Tx, query, query_as};

/// What ingest needs to know of a device for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNo(pub i64);

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    reader: Pool,
    writer: Pool,
    numbers: Arc<numbers::Numbers>,
    leadership: Arc<leader::Leadership>,
    meters: meters::StoreMeters,
    outlooks: Arc<alerts::worth::LastOutlooks>,
    told: Told,
}

impl Store {
    /// Opens `url`, or the file `fleet.db` in `state_dir`, and brings its tables up to date. A server's `password` wins
    /// over the one in the URL.
    ///
    /// # Errors
    /// When the URL is not understood, when the server cannot be reached or refuses, or the file cannot be opened, is held
    /// by another process or is damaged; when either was written by a newer version.
    pub async fn open(url: Option<&str>, password: Option<&str>, state_dir: &Path) -> Result<Self, StoreError> {
        let opening::Pools { reader, writer } = opening::open(url, password, state_dir).await?;
        let store = Self {
            reader,
            writer,
            numbers: Arc::default(),
            leadership: Arc::default(),
            meters: Default::default(),
            outlooks: Arc::default(),
            told: Told::default(),
        };
        store.chain_older_changes().await?;
        Ok(store)
    }

    /// From now on `tell` hears of each change in the audit log that was made here, once it lasts: organization and kind of thing.
    pub(crate) fn tell_of_changes(&self, tell: impl Fn(Changes) + Send + Sync + 'static) {
        self.told.listen(tell);
    }

    /// Whether other servers may use the same database.
    pub fn is_shared(&self) -> bool {
        self.writer.engine() == sql::Engine::Postgres
    }

    /// Waits for statements under way and closes every connection.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Answers when the database answers.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub async fn ping(&self) -> Result<(), StoreError> {
        query("SELECT 1").execute(&self.reader).await?;
        Ok(())
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(self.writer.begin().await?.telling(&self.told))
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
        Row: sql::Row,
    {
        let found = query_as(rows).bind(org).bind(limit).bind(offset).fetch_all(&self.reader).await?;
        let (total,): (i64,) = query_as(count).bind(org).fetch_one(&self.reader).await?;
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
        if query(sql).bind(id).bind(&actor.org).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        audit::record(&mut tx, actor, what, id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(true)
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
