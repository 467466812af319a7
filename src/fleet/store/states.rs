//! How every device of an organization is, in one word each: for a map of all of them, and for counts.

use super::sql::query_as;
use super::{Store, StoreError};

/// One device in short.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StateRow {
    /// Identifier.
    pub id: String,
    /// Place.
    pub location: Option<String>,
    /// JSON array of strings.
    pub tags: String,
    /// `online`, `offline` or `unknown`.
    pub presence: String,
    /// Of its latest heartbeat.
    pub degradation_level: Option<i64>,
    /// Of its latest heartbeat, degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Of its latest heartbeat, GB.
    pub disk_free_gb: Option<f64>,
}

impl Store {
    /// The devices of an organization that are in service, by name, at most `limit`. Their heartbeats are not read, only what
    /// stands in columns of its own.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_states(&self, org: &str, limit: i64) -> Result<Vec<StateRow>, StoreError> {
        let rows = query_as(
            "SELECT d.id, d.location, d.tags, s.presence, h.degradation_level, h.temperature_c, h.disk_free_gb \
             FROM devices d JOIN device_state s ON s.device_no = d.no JOIN device_pulse p ON p.device_no = d.no \
             LEFT JOIN heartbeats h ON h.device_no = p.device_no AND h.ts = p.heartbeat_ts \
             AND h.boot_seq = p.heartbeat_boot AND h.seq = p.heartbeat_seq \
             WHERE d.org = $1 AND d.decommissioned_at IS NULL ORDER BY d.name, d.id LIMIT $2",
        );
        Ok(rows.bind(org).bind(limit).fetch_all(&self.reader).await?)
    }
}
