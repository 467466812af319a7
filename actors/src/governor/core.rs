//! How hard the box is pressed, 0..3: pure, in virtual time.
//!
//! Each sample gets a level of its own from [`Thresholds`]. Load must press for [`RISE_AFTER`] before the
//! level rises (one busy second is no reason to touch a picture), and must have been lower for
//! [`FALL_AFTER`] before it falls. A disk does not fill by accident, so its level counts at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Load has to last this long before the level rises: three samples in a row.
pub const RISE_AFTER: Duration = Duration::from_secs(10);
/// Hysteresis on the way down (facts on the fleet as its operators know it: 30 s).
pub const FALL_AFTER: Duration = Duration::from_secs(30);

const GB: u64 = 1_000_000_000;

/// What makes a sample level 1, 2 or 3.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Whole machine, percent of all cores, at or above. Default 70, 85, 95.
    pub cpu_percent: [f32; 3],
    /// Memory that is not available, percent, at or above. Default 70, 85, 95.
    pub mem_percent: [f32; 3],
    /// Free bytes where the state directory is mounted, below. Default 10, 5 and 1 GB (10^9).
    pub disk_free: [u64; 3],
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { cpu_percent: [70.0, 85.0, 95.0], mem_percent: [70.0, 85.0, 95.0], disk_free: [10 * GB, 5 * GB, GB] }
    }
}

/// One look at the machine. A part that could not be read is `None` and presses nobody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Percent of all cores, 0..100.
    pub cpu_percent: Option<f32>,
    /// Percent not available, 0..100.
    pub mem_percent: Option<f32>,
    /// Bytes free for the box's user.
    pub disk_free: Option<u64>,
    /// Bytes of the whole mount.
    pub disk_total: Option<u64>,
    /// Hottest processor sensor, degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load_avg: Option<[f64; 3]>,
}

/// The level and what presses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Degradation {
    /// 0 (nothing given up) to 3.
    pub level: u8,
    /// One phrase each, empty at level 0.
    pub reasons: Vec<String>,
}

/// The thinking part of the Governor.
#[derive(Debug)]
pub struct GovernorCore {
    thresholds: Thresholds,
    window: VecDeque<(Instant, u8)>,
    started: Option<Instant>,
    current: Degradation,
}

impl GovernorCore {
    /// Starts at level 0.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, window: VecDeque::new(), started: None, current: Degradation::default() }
    }

    /// The level now in force.
    pub fn degradation(&self) -> &Degradation {
        &self.current
    }

    /// Takes a sample; gives the new state when the **level** changed.
    pub fn handle(&mut self, now: Instant, sample: &Sample) -> Option<Degradation> {
        let started = *self.started.get_or_insert(now);
        let (load, disk) = (self.load_level(sample), self.disk_level(sample));
        self.window.push_back((now, load.max(disk)));
        while self.window.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > FALL_AFTER) {
            self.window.pop_front();
        }
        let pressed = self.lowest_since(now, started, RISE_AFTER).max(disk);
        let relaxed = self.highest_since(now, started, FALL_AFTER);
        let level = match (pressed, relaxed) {
            (pressed, _) if pressed > self.current.level => pressed,
            (_, Some(relaxed)) if relaxed < self.current.level => relaxed,
            _ => self.current.level,
        };
        let changed = level != self.current.level;
        self.current.level = level;
        let reasons = match level {
            0 => Vec::new(),
            _ => self.reasons(sample),
        };
        // Once it eased, the reasons of the hold-down are still worth showing.
        if level == 0 || changed || !reasons.is_empty() {
            self.current.reasons = reasons;
        }
        changed.then(|| self.current.clone())
    }

    /// The level that held in every sample of the last `span`; 0 while fewer are known.
    fn lowest_since(&self, now: Instant, started: Instant, span: Duration) -> u8 {
        match now.saturating_duration_since(started) < span {
            true => 0,
            false => self.within(now, span).min().unwrap_or(0),
        }
    }

    /// The highest level of any sample of the last `span`; `None` while fewer are known.
    fn highest_since(&self, now: Instant, started: Instant, span: Duration) -> Option<u8> {
        match now.saturating_duration_since(started) < span {
            true => None,
            false => self.within(now, span).max(),
        }
    }

    fn within(&self, now: Instant, span: Duration) -> impl Iterator<Item = u8> + '_ {
        let recent = move |(at, _): &&(Instant, u8)| now.saturating_duration_since(*at) <= span;
        self.window.iter().filter(recent).map(|(_, level)| *level)
    }

    fn load_level(&self, sample: &Sample) -> u8 {
        let cpu = sample.cpu_percent.map_or(0, |value| reached(&self.thresholds.cpu_percent, value));
        let mem = sample.mem_percent.map_or(0, |value| reached(&self.thresholds.mem_percent, value));
        cpu.max(mem)
    }

    fn disk_level(&self, sample: &Sample) -> u8 {
        let below = |free: u64| self.thresholds.disk_free.iter().filter(|limit| free < **limit).count() as u8;
        sample.disk_free.map_or(0, below)
    }

    fn reasons(&self, sample: &Sample) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(cpu) = sample.cpu_percent.filter(|value| reached(&self.thresholds.cpu_percent, *value) > 0) {
            reasons.push(format!("processor {cpu:.0} %"));
        }
        if let Some(mem) = sample.mem_percent.filter(|value| reached(&self.thresholds.mem_percent, *value) > 0) {
            reasons.push(format!("memory {mem:.0} %"));
        }
        if let Some(free) = sample.disk_free.filter(|_| self.disk_level(sample) > 0) {
            reasons.push(format!("disk {:.1} GB free", free as f64 / GB as f64));
        }
        reasons
    }
}

fn reached(limits: &[f32; 3], value: f32) -> u8 {
    limits.iter().filter(|limit| value >= **limit).count() as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpu(percent: f32) -> Sample {
        Sample { cpu_percent: Some(percent), mem_percent: Some(10.0), disk_free: Some(100 * GB), ..Sample::default() }
    }

    struct Run {
        core: GovernorCore,
        now: Instant,
    }

    impl Run {
        fn new() -> Self {
            Self { core: GovernorCore::new(Thresholds::default()), now: Instant::now() }
        }

        fn samples(&mut self, sample: &Sample, count: usize) -> Vec<u8> {
            (0..count)
                .filter_map(|_| {
                    self.now += SAMPLE_EVERY;
                    self.core.handle(self.now, sample).map(|state| state.level)
                })
                .collect()
        }
    }

    #[test]
    fn one_busy_sample_changes_nothing() {
        let mut run = Run::new();
        run.samples(&cpu(20.0), 10);
        assert!(run.samples(&cpu(99.0), 1).is_empty());
        assert!(run.samples(&cpu(20.0), 10).is_empty());
    }

    #[test]
    fn load_that_lasts_raises_the_level_to_what_it_held_throughout() {
        let mut run = Run::new();
        run.samples(&cpu(20.0), 10);
        run.samples(&cpu(99.0), 1);
        assert_eq!(run.samples(&cpu(86.0), 2), [2]);
        assert_eq!(run.core.degradation().reasons, ["processor 86 %"]);
    }

    #[test]
    fn the_level_falls_after_thirty_quiet_seconds_and_not_before() {
        let mut run = Run::new();
        run.samples(&cpu(96.0), 10);
        assert_eq!(run.core.degradation().level, 3);
        assert!(run.samples(&cpu(10.0), 6).is_empty());
        assert_eq!(run.samples(&cpu(10.0), 1), [0]);
        assert!(run.core.degradation().reasons.is_empty());
    }

    #[test]
    fn a_filling_disk_counts_at_once() {
        let mut run = Run::new();
        let full = Sample { disk_free: Some(GB - 1), ..cpu(10.0) };
        assert_eq!(run.samples(&full, 1), [3]);
        assert_eq!(run.core.degradation().reasons, ["disk 1.0 GB free"]);
    }

    #[test]
    fn what_cannot_be_read_presses_nobody() {
        let mut run = Run::new();
        assert!(run.samples(&Sample::default(), 20).is_empty());
    }

    #[test]
    fn the_documented_thresholds_are_inclusive_for_load_and_exclusive_for_disk() {
        let limits = Thresholds::default();
        assert_eq!(reached(&limits.cpu_percent, 69.9), 0);
        assert_eq!(reached(&limits.cpu_percent, 70.0), 1);
        assert_eq!(reached(&limits.cpu_percent, 85.0), 2);
        assert_eq!(reached(&limits.cpu_percent, 95.0), 3);
        let core = GovernorCore::new(limits);
        let disk = |free| core.disk_level(&Sample { disk_free: Some(free), ..Sample::default() });
        assert_eq!([disk(10 * GB), disk(10 * GB - 1), disk(5 * GB - 1), disk(GB - 1)], [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn the_level_never_leaves_what_the_last_thirty_seconds_measured(
            loads in proptest::collection::vec(0.0f32..100.0, 8..200)
        ) {
            let mut run = Run::new();
            let mut levels = Vec::new();
            for load in loads {
                run.samples(&cpu(load), 1);
                levels.push(reached(&Thresholds::default().cpu_percent, load));
                let recent = &levels[levels.len().saturating_sub(7)..];
                let level = run.core.degradation().level;
                prop_assert!(level <= *recent.iter().max().unwrap());
                if levels.len() >= 7 {
                    prop_assert!(level >= *recent.iter().min().unwrap());
                }
            }
        }
    }
}
