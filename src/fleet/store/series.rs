//! What devices measured, as figures and as lines of a chart: read from the coarsest level that says it, and from raw
//! heartbeats where hours are not summed up yet.

use chrono::{DateTime, Utc};

use super::downsample::{HOUR, METRICS, MINUTE, Point, Summaries, add, floor, sum_up};
use super::levels::{COLUMNS, HOURS, MINUTES, RAW};
use super::sql::QueryBuilder;
use super::{DeviceNo, Store, StoreError, millis};

impl Store {
    /// Every metric from `since` on; one without a value is `None`. Exact to the heartbeat where raw ones are read for the
    /// edges, to the minute where they are gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn metrics(&self, device: DeviceNo, since: DateTime<Utc>) -> Result<Summaries, StoreError> {
        let from = millis(since);
        let upto = self.summed_upto().await?.unwrap_or(i64::MIN);
        let mut sums: Summaries = [None; METRICS.len()];
        // Whole hours in the middle; what is before the first of them by minutes; what is not summed up yet as it came.
        let first = floor(from.saturating_add(HOUR - 1), HOUR).min(upto.max(from));
        for (level, from, to) in [(MINUTES, from, first), (HOURS, first, upto), ("", upto.max(from), i64::MAX)] {
            for point in self.points(device, level, from, to).await? {
                add(&mut sums, &point.metrics);
            }
        }
        Ok(sums)
    }

    /// Every metric in spans of `span` milliseconds (a multiple of a minute) from `from` to `to`; a span without a heartbeat
    /// is left out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn metric_series(
        &self,
        device: DeviceNo,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        span: i64,
    ) -> Result<Vec<Point>, StoreError> {
        let (from, to) = (floor(millis(from), span), millis(to));
        let upto = self.summed_upto().await?.unwrap_or(i64::MIN);
        let level = if span % HOUR == 0 { HOURS } else { MINUTES };
        let mut points = self.points(device, level, from, to.min(upto)).await?;
        points.extend(self.points(device, "", upto.max(from), to).await?);
        Ok(sum_up(points, span))
    }

    /// What a level holds of a device, in order; the level without a name is that of raw heartbeats.
    pub(super) async fn points(
        &self,
        device: DeviceNo,
        level: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<Point>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let mut query = QueryBuilder::new("SELECT ");
        match level {
            "" => query.push(RAW).push(" FROM heartbeats h WHERE h.device_no = "),
            level => query.push(COLUMNS).push(" FROM ").push(level).push(" h WHERE h.device_no = "),
        };
        query.push_bind(device.0).push(" AND h.ts >= ").push_bind(from).push(" AND h.ts < ").push_bind(to);
        query.push(if level.is_empty() { " ORDER BY h.ts, h.boot_seq, h.seq" } else { " ORDER BY h.ts" });
        let raw: Vec<Point> = query.build_query_as().fetch_all(&self.reader).await?;
        // Devices may say something every second: a chart of the last hours still wants minutes at most.
        Ok(if level.is_empty() { sum_up(raw, MINUTE) } else { raw })
    }
}
