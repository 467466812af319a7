//! Counts over all organizations, for monitoring.

use super::sql::query_as;
use super::{Store, StoreError};

/// How many of something there are: organization, state, count.
pub type Counted = (String, String, i64);

/// What is counted.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Devices in service by presence: `online`, `offline`, `unknown`.
    pub devices: Vec<Counted>,
    /// Commands that have not ended, by state.
    pub commands: Vec<Counted>,
}

impl Store {
    /// Counts devices and open commands of every organization. Every device is looked at: about a second for a million of
    /// them, so whoever asks often keeps the answer for a while.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn census(&self) -> Result<Census, StoreError> {
        let devices = query_as(
            "SELECT o.id, w.word, COUNT(s.device_no) FROM organizations o \
             CROSS JOIN (SELECT 'online' AS word UNION ALL SELECT 'offline' UNION ALL SELECT 'unknown') w \
             LEFT JOIN devices d ON d.org = o.id AND d.decommissioned_at IS NULL \
             LEFT JOIN device_state s ON s.device_no = d.no AND s.presence = w.word \
             GROUP BY o.id, w.word ORDER BY o.id, w.word",
        );
        let commands = query_as(
            "SELECT org, state, COUNT(*) FROM commands WHERE finished_at IS NULL GROUP BY org, state ORDER BY org, state",
        );
        Ok(Census {
            devices: devices.fetch_all(&self.reader).await?,
            commands: commands.fetch_all(&self.reader).await?,
        })
    }
}
