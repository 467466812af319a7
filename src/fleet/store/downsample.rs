//! Heartbeats summed up over time: the thinking, without a database.
//!
//! A [`Summary`] of a span is made of the summaries of its parts in any grouping, so raw heartbeats become minutes, minutes
//! hours, and hours whatever a chart asks for. Parts are taken in the order of time; the last one that has a value says which
//! is the latest.

/// Metrics that are summed up, by their names in a heartbeat and in the tables.
pub const METRICS: [(&str, &str); 6] = [
    ("cpu_percent", "cpu"),
    ("mem_percent", "mem"),
    ("disk_free_gb", "disk"),
    ("temperature_c", "temp"),
    ("load_avg", "load"),
    ("degradation_level", "level"),
];

/// A minute in milliseconds.
pub const MINUTE: i64 = 60_000;
/// An hour in milliseconds.
pub const HOUR: i64 = 60 * MINUTE;
/// A day in milliseconds.
pub const DAY: i64 = 24 * HOUR;

/// One metric over a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Sum of the values.
    pub sum: f64,
    /// How many values.
    pub count: i64,
    /// Latest value.
    pub latest: f64,
}

impl Summary {
    /// Of one value.
    pub fn of(value: f64) -> Self {
        Self { min: value, max: value, sum: value, count: 1, latest: value }
    }

    /// Mean of the values.
    pub fn avg(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// This one and a later one.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        Self {
            min: self.min.min(later.min),
            max: self.max.max(later.max),
            sum: self.sum + later.sum,
            count: self.count + later.count,
            latest: later.latest,
        }
    }
}

/// Every metric of one device over a span; `None` for one without a value.
pub type Summaries = [Option<Summary>; METRICS.len()];

/// One device's metrics over the span that begins at `ts`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The device's short key.
    pub device: i64,
    /// Beginning of the span, milliseconds since 1970.
    pub ts: i64,
    /// Its metrics.
    pub metrics: Summaries,
}

/// Adds what is later.
pub fn add(to: &mut Summaries, later: &Summaries) {
    for (held, later) in to.iter_mut().zip(later) {
        *held = match (*held, *later) {
            (Some(held), Some(later)) => Some(held.then(later)),
            (held, later) => later.or(held),
        };
    }
}

/// Sums points up into spans of `span` milliseconds. They come ordered by device, then time, and so do the answers.
pub fn sum_up(points: impl IntoIterator<Item = Point>, span: i64) -> Vec<Point> {
    let mut sums: Vec<Point> = Vec::new();
    for point in points {
        let ts = floor(point.ts, span);
        match sums.last_mut() {
            Some(last) if (last.device, last.ts) == (point.device, ts) => add(&mut last.metrics, &point.metrics),
            _ => sums.push(Point { ts, ..point }),
        }
    }
    sums
}

/// Beginning of the span of `span` milliseconds that `ts` lies in.
pub fn floor(ts: i64, span: i64) -> i64 {
    ts.saturating_sub(ts.rem_euclid(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(device: i64, ts: i64, cpu: Option<f64>) -> Point {
        let mut metrics = [None; METRICS.len()];
        metrics[0] = cpu.map(Summary::of);
        Point { device, ts, metrics }
    }

    #[test]
    fn sums_of_sums_are_the_sums_of_everything() {
        // Values whose sums are exact, spread unevenly, with gaps, before 1970 too.
        let raw: Vec<Point> = (0..2_i64)
            .flat_map(|device| {
                (0..500_i64).map(move |n| {
                    let value = (n % 7 != 3).then_some(((n * 37 + device) % 64) as f64);
                    point(device, -HOUR + n * 17_000 + (n % 5) * 900, value)
                })
            })
            .collect();
        let minutes = sum_up(raw.clone(), MINUTE);
        let hours = sum_up(minutes.clone(), HOUR);
        assert_eq!(hours, sum_up(raw.clone(), HOUR));
        assert_eq!(sum_up(hours, DAY), sum_up(raw, DAY));
        assert!(minutes.windows(2).all(|two| (two[0].device, two[0].ts) < (two[1].device, two[1].ts)));
    }

    #[test]
    fn the_latest_value_is_the_last_one_there_was() {
        let sums = sum_up([point(1, 0, Some(5.0)), point(1, 10, Some(2.0)), point(1, 20, None)], MINUTE);
        assert_eq!(sums.len(), 1);
        let expected = Summary { min: 2.0, max: 5.0, sum: 7.0, count: 2, latest: 2.0 };
        assert_eq!(sums[0].metrics[0], Some(expected));
        assert_eq!((expected.avg(), sums[0].metrics[1]), (3.5, None));
    }
}
