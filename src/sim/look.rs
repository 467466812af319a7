//! What a simulated box looks like: plausible numbers that wander, said in the real box's words.

use std::time::Instant;

use r58_actors::governor::Metrics;
use r58_actors::governor::core::Sample;
use r58_actors::state::{DeviceState, InputState, ProgrammeState, SceneState};
use r58_actors::supervision::{ActorReport, ActorState};

use super::script::Script;
use super::works::SCENES;

/// The machine's numbers, each wandering between bounds.
#[derive(Debug)]
pub struct Machine {
    cpu: f64,
    mem: f64,
    temperature: f64,
    disk_free: f64,
    frames: u64,
    looked: Instant,
}

const DISK_TOTAL: u64 = 256_000_000_000;
const FPS: f64 = 30.0;

impl Machine {
    /// A box somewhere in the usual range.
    pub fn new(now: Instant, script: &mut Script) -> Self {
        Self {
            cpu: 20.0 + 40.0 * script.roll(),
            mem: 30.0 + 30.0 * script.roll(),
            temperature: 40.0 + 20.0 * script.roll(),
            disk_free: 1e11 + 1e11 * script.roll(),
            frames: 0,
            looked: now,
        }
    }

    /// A moment later.
    pub fn wander(&mut self, now: Instant, script: &mut Script) {
        let mut step = |value: &mut f64, by: f64, low: f64, high: f64| {
            *value = (*value + by * (script.roll() - 0.5)).clamp(low, high);
        };
        step(&mut self.cpu, 8.0, 5.0, 98.0);
        step(&mut self.mem, 2.0, 20.0, 95.0);
        step(&mut self.temperature, 1.0, 35.0, 88.0);
        step(&mut self.disk_free, 2e8, 5e8, DISK_TOTAL as f64);
        let passed = now.saturating_duration_since(self.looked).as_secs_f64();
        self.frames += (passed * FPS) as u64;
        self.looked = now;
    }

    /// As the Governor would measure it.
    pub fn metrics(&self, now: Instant) -> Metrics {
        let load = self.cpu / 100.0 * 4.0;
        let sample = Sample {
            cpu_percent: Some(self.cpu as f32),
            mem_percent: Some(self.mem as f32),
            disk_free: Some(self.disk_free as u64),
            disk_total: Some(DISK_TOTAL),
            temperature_c: Some(self.temperature as f32),
            load_avg: Some([load, load * 0.9, load * 0.8]),
        };
        Metrics { sample, taken: Some(now), ..Metrics::default() }
    }

    /// Four cameras, of which the last has a cable only on every second box, and a programme that runs.
    pub fn state(&self, device: u32) -> DeviceState {
        let input = |n: u32| {
            let live = n < 4 || device.is_multiple_of(2);
            InputState {
                id: format!("cam{n}"),
                label: format!("CAM {n}"),
                signal: if live { "live" } else { "no_cable" }.to_owned(),
                reason: if live { "" } else { "no cable" }.to_owned(),
                fps: if live { FPS } else { 0.0 },
                ..InputState::default()
            }
        };
        let scene = |(id, label): &(&str, &str)| SceneState {
            id: (*id).to_owned(),
            label: (*label).to_owned(),
            ..SceneState::default()
        };
        DeviceState {
            inputs: (1..=4).map(input).collect(),
            scenes: SCENES.iter().map(scene).collect(),
            programme: ProgrammeState {
                fps: FPS,
                frames: self.frames,
                scene: "quad".to_owned(),
                ..ProgrammeState::default()
            },
            ..DeviceState::default()
        }
    }
}

/// The actors of every simulated box, all well.
pub fn tree() -> Vec<ActorReport> {
    ["mixer", "camera cam1", "camera cam2", "camera cam3", "camera cam4", "governor", "fleet link"]
        .map(|name| ActorReport {
            name: name.to_owned(),
            kind: name.split(' ').next().unwrap_or(name).to_owned(),
            state: ActorState::Running,
            essential: name == "mixer",
            restarts: 0,
            asked_for: 0,
            last_cause: None,
            uptime_seconds: 0,
            mailbox_depth: 0,
            detail: None,
        })
        .into()
}
