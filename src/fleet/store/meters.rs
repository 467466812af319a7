//! What the database's users measure over time: batches written, and how commands ended.

use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};
use r58_actors::ingest::store::Record;
use r58_mqtt::payload::DeviceState;

use super::sql::Pool;
use super::{CommandRow, Store};

/// From a statement on a quiet machine to the deadline of a batch (30 s).
const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// From a click on a box nearby to a command that waited a day for its box.
const EFFECT: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3_600.0, 86_400.0];
const RECORDS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 2_048.0, 4_096.0];
/// Devices end commands in one of these states.
const ENDS: [DeviceState; 6] = [
    DeviceState::Succeeded,
    DeviceState::Failed,
    DeviceState::Rejected,
    DeviceState::TimedOut,
    DeviceState::Cancelled,
    DeviceState::Interrupted,
];

/// Counters and histograms of one server since it started. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreMeters {
    /// Heartbeats written.
    pub heartbeats: IntCounter,
    /// Time that a batch took to write.
    pub batch_seconds: Histogram,
    /// Records of a batch.
    pub batch_records: Histogram,
    /// From when a record was received until it was stored; that of the oldest of each batch.
    pub lag_seconds: Histogram,
    /// Commands that devices ended, by how.
    pub ended: IntCounterVec,
    /// From when a command was made, or was allowed to begin, until its success was stored.
    pub effect_seconds: Histogram,
    /// Time of one look for alerts.
    pub look_seconds: Histogram,
    /// Devices that were looked at for alerts.
    pub looked: IntCounter,
}

impl Default for StoreMeters {
    fn default() -> Self {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect("a proper name")
        };
        let ended = Opts::new("r58_fleet_commands_ended_total", "Commands that boxes ended, by how.");
        let ended = IntCounterVec::new(ended, &["state"]).expect("a proper name");
        // Present from the start: what first appears with a 1 shows no rate.
        ENDS.iter().for_each(|end| drop(ended.with_label_values(&[end.as_str()])));
        Self {
            heartbeats: IntCounter::new("r58_fleet_heartbeats_stored_total", "Heartbeats written to the database.")
                .expect("a proper name"),
            batch_seconds: histogram(
                "r58_fleet_write_batch_duration_seconds",
                "Time that a batch of records took to write.",
                &SECONDS,
            ),
            batch_records: histogram("r58_fleet_write_batch_records", "Records of a batch.", &RECORDS),
            lag_seconds: histogram(
                "r58_fleet_ingest_lag_seconds",
                "From when a record was received until it was stored; that of the oldest of each batch.",
                &SECONDS,
            ),
            ended,
            effect_seconds: histogram(
                "r58_fleet_command_effect_seconds",
                "From when a command was made, or was allowed to begin, until its success was stored.",
                &EFFECT,
            ),
            look_seconds: histogram(
                "r58_fleet_alert_look_duration_seconds",
                "Time of one look for alerts, at the boxes of which something changed and at some in turn.",
                &SECONDS,
            ),
            looked: IntCounter::new("r58_fleet_alert_looked_boxes_total", "Boxes that were looked at for alerts.")
                .expect("a proper name"),
        }
    }
}

impl StoreMeters {
    /// Notes a batch that was written.
    pub(super) fn applied(&self, records: &[Record], took: Duration, now: DateTime<Utc>) {
        self.batch_seconds.observe(took.as_secs_f64());
        self.batch_records.observe(records.len() as f64);
        if let Some(oldest) = records.iter().map(|record| record.received_at).min() {
            self.lag_seconds.observe((now - oldest).to_std().unwrap_or_default().as_secs_f64());
        }
    }

    /// Notes a command that its device ended.
    pub(super) fn ended(&self, end: &CommandEnd) {
        self.ended.with_label_values(&[end.state.as_str()]).inc();
        if end.state == DeviceState::Succeeded {
            self.effect_seconds.observe(end.seconds);
        }
    }
}

/// How a command ended, to be noted once that is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommandEnd {
    state: DeviceState,
    seconds: f64,
}

impl CommandEnd {
    /// None while the command goes on.
    pub fn of(row: &CommandRow) -> Option<Self> {
        let finished = row.finished_at?;
        let state = ENDS.into_iter().find(|end| end.as_str() == row.state)?;
        let due = row.not_before.map_or(row.created_at, |begin| begin.max(row.created_at));
        Some(Self { state, seconds: (finished - due).max(0) as f64 / 1_000.0 })
    }
}

/// How many connections a pool has.
#[derive(Debug, Clone, Copy)]
pub struct PoolUse {
    /// `reader` or `writer`.
    pub pool: &'static str,
    /// In use.
    pub busy: usize,
    /// Waiting for use.
    pub idle: usize,
}

impl Store {
    /// What was counted and measured.
    pub fn meters(&self) -> &StoreMeters {
        &self.meters
    }

    /// How the pools of connections are used.
    pub fn pools(&self) -> [PoolUse; 2] {
        [("reader", &self.reader), ("writer", &self.writer)].map(|(name, pool)| {
            let (size, idle) = match pool {
                Pool::Sqlite(pool) => (pool.size(), pool.num_idle()),
                Pool::Postgres(pool) => (pool.size(), pool.num_idle()),
            };
            PoolUse { pool: name, busy: (size as usize).saturating_sub(idle), idle }
        })
    }
}
