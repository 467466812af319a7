//! What a simulation counts: for the line that moves, and for the report that a test compares with the database.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use r58_mqtt::CommandId;
use r58_mqtt::payload::DeviceState;
use serde::Serialize;

/// Counters of all devices together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Devices that the fleet hears now.
    pub online: Gauge,
    /// Devices that have said all they had to say.
    pub settled: Gauge,
    /// Effects under way.
    pub running: Gauge,
    /// Connections made.
    pub connections: Count,
    /// Connections that were lost, or could not be made.
    pub failed_connections: Count,
    /// Connections whose credentials were refused.
    pub refused: Count,
    /// Heartbeats measured.
    pub heartbeats: Count,
    /// Events recorded.
    pub events: Count,
    /// Outages of single devices' networks.
    pub outages: Count,
    /// Devices that went with their sites.
    pub site_outages: Count,
    /// Power cuts.
    pub power_cuts: Count,
    /// Reboots by command.
    pub reboots: Count,
    /// Effects begun.
    pub effects: Count,
    /// Devices that had to start over because something failed that should not.
    pub errors: Count,
    /// How long each reconnect storm lasted, in seconds.
    pub storms: Mutex<Vec<f64>>,
    commands: Mutex<Commands>,
}

#[derive(Debug, Default)]
struct Commands {
    /// Device and command of each effect that must happen once.
    begun: HashSet<(u32, CommandId)>,
    ended: HashSet<(u32, CommandId)>,
    states: BTreeMap<String, u64>,
    repeated: u64,
    ended_twice: u64,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more, or one less.
    pub fn step(&self, up: bool) {
        self.0.fetch_add(if up { 1 } else { -1 }, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// What became of commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandCounts {
    /// Effects begun.
    pub effects: u64,
    /// Effects that began a second time although they must not: none, or a promise is broken.
    pub effects_repeated: u64,
    /// Commands that ended, by state.
    pub ended: BTreeMap<String, u64>,
    /// Commands that ended a second time: likewise.
    pub ended_twice: u64,
}

impl Tally {
    /// An effect begins: `once` unless its operation may run twice without harm.
    pub fn effect_begins(&self, device: u32, id: &CommandId, once: bool) {
        self.effects.add();
        let mut commands = self.commands();
        if once && !commands.begun.insert((device, id.clone())) {
            commands.repeated += 1;
        }
    }

    /// A command ended.
    pub fn command_ended(&self, device: u32, id: &CommandId, state: DeviceState) {
        let mut commands = self.commands();
        if commands.ended.insert((device, id.clone())) {
            *commands.states.entry(state.to_string()).or_default() += 1;
        } else {
            commands.ended_twice += 1;
        }
    }

    /// Commands that ended.
    pub fn ended(&self) -> u64 {
        self.commands().ended.len() as u64
    }

    /// What became of commands so far.
    pub fn command_counts(&self) -> CommandCounts {
        let commands = self.commands();
        CommandCounts {
            effects: self.effects.get(),
            effects_repeated: commands.repeated,
            ended: commands.states.clone(),
            ended_twice: commands.ended_twice,
        }
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// Its id.
    pub device_id: String,
    /// Heartbeats measured.
    pub heartbeats: u64,
    /// Number of the first of them.
    pub first_seq: Option<u64>,
    /// Number of the last of them.
    pub last_seq: Option<u64>,
    /// Events recorded.
    pub events: u64,
    /// Entries that the fleet has not acknowledged.
    pub pending: u64,
    /// Entries that were given up because the outbox was full.
    pub dropped: u64,
    /// Times that its process started.
    pub lives: u64,
    /// Whether the fleet heard it at the end.
    pub online: bool,
    /// Whether its clock is set.
    pub clock_set: bool,
}

/// How long reconnect storms last: from the cut until everybody is back. One that fewer than half have felt yet has only begun.
#[derive(Debug, Default)]
pub struct Storms {
    began: Option<Instant>,
    felt: bool,
    lasted: Vec<f64>,
}

impl Storms {
    /// Everybody is cut off now.
    pub fn begin(&mut self, now: Instant) {
        (self.began, self.felt) = (Some(now), false);
    }

    /// Whether somebody is still away.
    pub fn is_under_way(&self) -> bool {
        self.began.is_some()
    }

    /// So many of all are online now.
    pub fn look(&mut self, now: Instant, online: u64, all: u64) {
        let Some(began) = self.began else { return };
        self.felt |= online * 2 < all;
        if self.felt && online >= all {
            self.lasted.push((now - began).as_secs_f64());
            self.began = None;
        }
    }

    /// Seconds of each that is over.
    pub fn into_seconds(self) -> Vec<f64> {
        self.lasted
    }
}

/// The closing report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// For doing it again.
    pub seed: u64,
    /// Seconds from the first device to the last word.
    pub seconds: f64,
    /// How many devices.
    pub devices: usize,
    /// How many of them the fleet heard at the end.
    pub online: usize,
    /// Whether every device had said all it had to say.
    pub settled: bool,
    /// Heartbeats measured.
    pub heartbeats: u64,
    /// Events recorded.
    pub events: u64,
    /// Entries that the fleet has not acknowledged.
    pub pending: u64,
    /// Entries given up.
    pub dropped: u64,
    /// Commands.
    pub commands: CommandCounts,
    /// Connections made.
    pub connections: u64,
    /// Connections lost, or not made.
    pub failed_connections: u64,
    /// Connections whose credentials were refused.
    pub refused: u64,
    /// Outages of single devices' networks.
    pub outages: u64,
    /// Devices that went with their sites.
    pub site_outages: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Reboots by command.
    pub reboots: u64,
    /// Devices that had to start over because something failed that should not.
    pub errors: u64,
    /// How long each reconnect storm lasted, in seconds: from the cut until all were back.
    pub storm_seconds: Vec<f64>,
    /// Largest resident memory of this process, in bytes.
    pub peak_memory_bytes: u64,
    /// Each device.
    pub each: Vec<DeviceReport>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_storm_lasts_until_all_are_back_and_not_only_until_it_is_felt() {
        let (begin, mut storms) = (Instant::now(), Storms::default());
        let mut at = |seconds: u64, online: u64| storms.look(begin + Duration::from_secs(seconds), online, 10);
        at(0, 3);
        storms.begin(begin + Duration::from_secs(1));
        let mut at = |seconds: u64, online: u64| storms.look(begin + Duration::from_secs(seconds), online, 10);
        at(1, 10);
        at(2, 4);
        at(3, 9);
        at(5, 10);
        at(6, 10);
        assert!(!storms.is_under_way());
        assert_eq!(storms.into_seconds(), [4.0]);
    }

    #[test]
    fn an_effect_that_begins_twice_and_a_command_that_ends_twice_are_seen() {
        let (tally, id) = (Tally::default(), CommandId::new("01J00000000000000000000000").unwrap());
        tally.effect_begins(1, &id, true);
        tally.effect_begins(2, &id, true);
        tally.effect_begins(1, &id, false);
        tally.command_ended(1, &id, DeviceState::Succeeded);
        assert_eq!((tally.command_counts().effects_repeated, tally.command_counts().ended_twice), (0, 0));
        tally.effect_begins(1, &id, true);
        tally.command_ended(1, &id, DeviceState::Failed);
        let counts = tally.command_counts();
        assert_eq!((counts.effects, counts.effects_repeated, counts.ended_twice), (4, 1, 1));
        assert_eq!(counts.ended, BTreeMap::from([("succeeded".to_owned(), 1)]));
    }
}
