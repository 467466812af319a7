//! How many there are: devices by state, kept up with every change by the tables' own triggers (migration 47), commands that
//! have not ended, and alerts that fire.
//!
//! A change writes down what moved, in its own transaction; the leader adds that up now and then ([`Store::add_up_moves`]). What
//! is read is both together in one statement, so it is exact at that moment, and costs the same for ten devices and a million.

use std::collections::BTreeMap;

use super::devices::{DeviceFilter, PresenceFilter};
use super::sql::{QueryBuilder, query, query_as};
use super::{Store, StoreError};

/// How many of something there are: organization, state, count.
pub type Counted = (String, String, i64);

/// How many alerts nobody took on: organization, severity, kind, count.
pub type Firing = (String, String, String, i64);

/// States of devices in service.
pub const IN_SERVICE: [&str; 3] = ["online", "offline", "unknown"];
/// State of those that are not.
pub const DECOMMISSIONED: &str = "decommissioned";
/// A page of a search counts so many and then no more.
pub const COUNTED_MOST: i64 = 10_000;
/// Moves added up in one transaction.
const AT_ONCE: i64 = 5_000;

/// What is counted.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Devices in service by presence: `online`, `offline`, `unknown`.
    pub devices: Vec<Counted>,
    /// Commands that have not ended, by state.
    pub commands: Vec<Counted>,
    /// Alerts that nobody took on, also none where a rule looks for some.
    pub alerts: Vec<Firing>,
}

/// An organization's devices by state; every state has an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCounts(pub BTreeMap<String, i64>);

impl DeviceCounts {
    /// Those in a state.
    pub fn of(&self, state: &str) -> i64 {
        self.0.get(state).copied().unwrap_or(0)
    }

    /// Those in service.
    pub fn in_service(&self) -> i64 {
        IN_SERVICE.iter().map(|state| self.of(state)).sum()
    }
}

/// How many devices a list has on all of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// So many.
    pub count: i64,
    /// Or more, which were not counted.
    pub or_more: bool,
}

impl Store {
    /// Counts devices, open commands and firing alerts of every organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn census(&self) -> Result<Census, StoreError> {
        let devices = query_as(
            "SELECT o.id, w.word, COALESCE(c.n, 0) FROM organizations o \
             CROSS JOIN (SELECT 'online' AS word UNION ALL SELECT 'offline' UNION ALL SELECT 'unknown') w \
             LEFT JOIN device_census c ON c.org = o.id AND c.state = w.word ORDER BY o.id, w.word",
        );
        let commands = query_as(
            "SELECT org, state, COUNT(*) FROM commands WHERE finished_at IS NULL GROUP BY org, state ORDER BY org, state",
        );
        let alerts = query_as(
            "SELECT org, severity, kind, COUNT(alert) FROM (\
             SELECT org, severity, kind, NULL AS alert FROM alert_rules WHERE enabled = $1 UNION ALL \
             SELECT org, severity, kind, id FROM alerts WHERE resolved_at IS NULL AND state = 'firing') found \
             GROUP BY org, severity, kind ORDER BY org, severity, kind",
        );
        Ok(Census {
            devices: devices.fetch_all(&self.reader).await?,
            commands: commands.fetch_all(&self.reader).await?,
            alerts: alerts.bind(true).fetch_all(&self.reader).await?,
        })
    }

    /// Counts the devices of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_counts(&self, org: &str) -> Result<DeviceCounts, StoreError> {
        let found: Vec<(String, i64)> =
            query_as("SELECT state, n FROM device_census WHERE org = $1").bind(org).fetch_all(&self.reader).await?;
        let states = IN_SERVICE.into_iter().chain([DECOMMISSIONED]);
        let mut counts: BTreeMap<String, i64> = states.map(|state| (state.to_owned(), 0)).collect();
        counts.extend(found);
        Ok(DeviceCounts(counts))
    }

    /// How many devices a filter finds: exactly where it goes by state alone, else up to [`COUNTED_MOST`] or `needed`, whichever
    /// is more.
    pub(super) async fn total(&self, org: &str, filter: &DeviceFilter, needed: i64) -> Result<Total, StoreError> {
        let searched = filter.search.as_deref().is_some_and(|search| !search.is_empty());
        if !searched && filter.ids.is_none() && filter.tag.is_none() {
            let counts = self.device_counts(org).await?;
            let count = match filter.presence {
                None => counts.in_service(),
                Some(PresenceFilter::Online) => counts.of("online"),
                Some(PresenceFilter::Offline) => counts.of("offline") + counts.of("unknown"),
                Some(PresenceFilter::Decommissioned) => counts.of(DECOMMISSIONED),
            };
            return Ok(Total { count, or_more: false });
        }
        let most = needed.max(COUNTED_MOST);
        let mut found = QueryBuilder::new(
            "SELECT COUNT(*) FROM (SELECT d.no FROM devices d JOIN device_state s ON s.device_no = d.no",
        );
        super::devices::where_filter(&mut found, org, filter);
        found.push(" LIMIT ").push_bind(most + 1).push(") AS found");
        let (count,): (i64,) = found.build_query_as().fetch_one(&self.reader).await?;
        Ok(Total { count: count.min(most), or_more: count > most })
    }

    /// Adds up some of what moved; `false` when nothing is left.
    ///
    /// # Errors
    /// Those of the database; [`StoreError::Busy`] when another server leads by now.
    pub async fn add_up_moves(&self) -> Result<bool, StoreError> {
        let waiting: Option<(i64,)> =
            query_as("SELECT no FROM device_moves LIMIT 1").fetch_optional(&self.reader).await?;
        if waiting.is_none() {
            return Ok(false);
        }
        let mut tx = self.begin().await?;
        self.fence(&mut tx).await?;
        let moves: Vec<Counted> = query_as(
            "DELETE FROM device_moves WHERE no IN (SELECT no FROM device_moves ORDER BY no LIMIT $1) RETURNING org, state, n",
        )
        .bind(AT_ONCE)
        .fetch_all(&mut *tx)
        .await?;
        let more = i64::try_from(moves.len()).unwrap_or(i64::MAX) >= AT_ONCE;
        let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
        for (org, state, n) in moves {
            *sums.entry((org, state)).or_default() += n;
        }
        for ((org, state), n) in sums.into_iter().filter(|(_, n)| *n != 0) {
            query(
                "INSERT INTO device_counts (org, state, n) VALUES ($1, $2, $3) \
                 ON CONFLICT (org, state) DO UPDATE SET n = device_counts.n + excluded.n",
            )
            .bind(org)
            .bind(state)
            .bind(n)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(more)
    }
}
