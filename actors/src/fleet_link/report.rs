//! What the box tells its fleet about itself: heartbeat and reported state, from what was seen. Pure.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use r58_mqtt::payload::heartbeat::ActorBrief;
use r58_mqtt::payload::{
    Extra, Heartbeat, InputBrief, Metrics as MetricsBrief, MixerBrief, OutboxBrief, ProgrammeBrief, Reported,
    SceneBrief, StatusBrief, TurnBrief,
};
use serde_json::Value;

use crate::governor::Metrics;
use crate::mixer::core::Tally;
use crate::state::{DeviceState, InputKind, InputState};
use crate::supervision::{ActorReport, ActorState};
use crate::turn::IceSnapshot;

/// Metrics older than this describe another moment: they are left out.
const METRICS_FRESH: Duration = Duration::from_secs(30);

/// Everything a heartbeat is made of.
pub struct Look<'a> {
    /// Now.
    pub now: Instant,
    /// The same by the host's clock.
    pub wall: DateTime<Utc>,
    /// Whether `wall` can be believed.
    pub clock_set: bool,
    /// The software's version.
    pub version: &'a str,
    /// Since the process started.
    pub uptime: Duration,
    /// Which start of the process this is.
    pub boot_seq: u64,
    /// The host's boot.
    pub boot_id: &'a str,
    /// Time between heartbeats.
    pub interval: Duration,
    /// Inputs, mixer, programme.
    pub state: &'a DeviceState,
    /// The machine.
    pub metrics: &'a Metrics,
    /// Where ICE servers come from.
    pub ice: &'a IceSnapshot,
    /// The tree.
    pub actors: &'a [ActorReport],
    /// Entries waiting and entries dropped.
    pub outbox: (u64, u64),
}

/// The heartbeat with this number.
pub fn heartbeat(look: &Look<'_>, seq: u64) -> Heartbeat {
    let state = look.state;
    let live = |input: &&InputState| input.signal == "live";
    Heartbeat {
        ts: look.wall,
        version: look.version.to_owned(),
        uptime_seconds: look.uptime.as_secs(),
        metrics: metrics(look),
        status: StatusBrief {
            recording_active: false,
            mixer_active: state.programme.fps > 0.0,
            active_inputs: state.inputs.iter().filter(live).map(|input| input.id.clone()).collect(),
            degradation_level: look.metrics.degradation.level,
        },
        errors: errors(look),
        boot_seq: look.boot_seq,
        boot_id: look.boot_id.to_owned(),
        seq,
        device_time: look.clock_set.then_some(look.wall),
        inputs: state.inputs.iter().map(measured).collect(),
        actors: look.actors.iter().map(actor_brief).collect(),
        programme: ProgrammeBrief {
            fps: state.programme.fps,
            frames: state.programme.frames,
            missed_slots: state.programme.missed_slots,
            scene: Some(state.programme.scene.clone()).filter(|scene| !scene.is_empty()),
        },
        turn: TurnBrief { provider: look.ice.provider.clone(), expires_at: look.ice.expires_at },
        outbox: OutboxBrief { pending: look.outbox.0, dropped: look.outbox.1 },
        interval_s: u32::try_from(look.interval.as_secs().max(1)).unwrap_or(u32::MAX),
    }
}

fn metrics(look: &Look<'_>) -> MetricsBrief {
    let fresh = look.metrics.age(look.now).is_some_and(|age| age < METRICS_FRESH);
    if !fresh {
        return MetricsBrief::default();
    }
    let sample = &look.metrics.sample;
    let percent = |value: Option<f32>| value.map(|value| round(f64::from(value), 1));
    let gb = |bytes: Option<u64>| bytes.map(|bytes| round(bytes as f64 / 1e9, 2));
    MetricsBrief {
        cpu_percent: percent(sample.cpu_percent),
        mem_percent: percent(sample.mem_percent),
        disk_free_gb: gb(sample.disk_free),
        disk_total_gb: gb(sample.disk_total),
        temperature_c: percent(sample.temperature_c),
        load_avg: sample.load_avg.map(|load| load.iter().map(|value| round(*value, 2)).collect()),
    }
}

/// What someone should look at, in words.
fn errors(look: &Look<'_>) -> Vec<String> {
    let fallen = look.actors.iter().filter(|actor| actor.state == ActorState::Degraded);
    let fallen = fallen.map(|actor| match &actor.last_cause {
        Some(cause) => format!("{} is out of order: {}", actor.name, cause.chars().take(200).collect::<String>()),
        None => format!("{} is out of order", actor.name),
    });
    let dark = look.state.inputs.iter().filter(|input| input.kind == InputKind::Camera && input.signal != "live");
    let dark = dark.map(|input| match input.reason.is_empty() {
        true => format!("{}: {}", input.label, input.signal),
        false => format!("{}: {}", input.label, input.reason),
    });
    let pressed = look.metrics.degradation.reasons.iter().map(|reason| format!("pressed: {reason}"));
    fallen.chain(dark).chain(pressed).collect()
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// An input with what the heartbeat measures of it.
fn measured(input: &InputState) -> InputBrief {
    InputBrief { fps: Some(round(input.fps, 1)), ..input_brief(input) }
}

fn input_brief(input: &InputState) -> InputBrief {
    InputBrief {
        id: input.id.clone(),
        label: input.label.clone(),
        kind: kind(input.kind).to_owned(),
        signal: input.signal.clone(),
        tally: tally(input.tally).to_owned(),
        ..InputBrief::default()
    }
}

fn actor_brief(report: &ActorReport) -> ActorBrief {
    let state = serde_json::to_value(report.state).ok();
    ActorBrief {
        name: report.name.clone(),
        state: state.and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default(),
        restarts: report.restarts.saturating_sub(report.asked_for),
    }
}

/// The reported state; without `ts`, so that two can be compared for news.
pub fn reported(
    state: &DeviceState,
    boot_seq: u64,
    ver: u64,
    config: Value,
    actors: &[ActorReport],
    services: &[String],
) -> Reported {
    let input = |input: &InputState| InputBrief { reason: input.reason.clone(), ..input_brief(input) };
    let scene = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Reported {
        ver,
        ts: None,
        boot_seq,
        config,
        inputs: state.inputs.iter().map(input).collect(),
        scenes: state
            .scenes
            .iter()
            .map(|scene| SceneBrief { id: scene.id.clone(), label: scene.label.clone() })
            .collect(),
        mixer: MixerBrief { pgm: scene(&state.programme.scene), pvw: scene(&state.pvw.scene), extra: Extra::new() },
        actors: actors.iter().map(steady).collect(),
        services: services.to_vec(),
        extra: Extra::new(),
    }
}

/// An actor's report without what moves by itself: a clock that ticks is no news.
fn steady(report: &ActorReport) -> Value {
    let still = ActorReport { uptime_seconds: 0, mailbox_depth: 0, ..report.clone() };
    let mut value = serde_json::to_value(still).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("uptime_seconds");
        fields.remove("mailbox_depth");
    }
    value
}

fn kind(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Camera => "camera",
        InputKind::Guest => "guest",
    }
}

fn tally(tally: Tally) -> &'static str {
    match tally {
        Tally::Programme => "programme",
        Tally::Preview => "preview",
        Tally::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::core::Sample;

    fn camera(signal: &str, reason: &str) -> InputState {
        InputState {
            id: "cam1".to_owned(),
            label: "CAM 1".to_owned(),
            signal: signal.to_owned(),
            reason: reason.to_owned(),
            ..InputState::default()
        }
    }

    fn beat(state: &DeviceState, metrics: &Metrics, now: Instant) -> Heartbeat {
        let ice = IceSnapshot { servers: Vec::new(), provider: "stun".to_owned(), expires_at: None, stale: false };
        let look = Look {
            now,
            wall: Utc::now(),
            clock_set: false,
            version: "1.0",
            uptime: Duration::from_secs(5),
            boot_seq: 3,
            boot_id: "b",
            interval: Duration::from_secs(60),
            state,
            metrics,
            ice: &ice,
            actors: &[],
            outbox: (1, 2),
        };
        heartbeat(&look, 9)
    }

    #[test]
    fn what_was_not_measured_is_absent_and_not_zero() {
        let beat = beat(&DeviceState::default(), &Metrics::default(), Instant::now());
        assert_eq!(beat.metrics, MetricsBrief::default());
        assert_eq!(beat.device_time, None);
        assert!(!beat.status.mixer_active);
        assert_eq!((beat.seq, beat.outbox.pending, beat.outbox.dropped), (9, 1, 2));
    }

    #[test]
    fn a_dark_input_is_an_error_in_words_and_a_live_one_is_active() {
        let state = DeviceState { inputs: vec![camera("no_cable", "no cable")], ..DeviceState::default() };
        let dark = beat(&state, &Metrics::default(), Instant::now());
        assert_eq!(dark.errors, ["CAM 1: no cable"]);
        let state = DeviceState { inputs: vec![camera("live", "")], ..DeviceState::default() };
        let live = beat(&state, &Metrics::default(), Instant::now());
        assert!(live.errors.is_empty());
        assert_eq!(live.status.active_inputs, ["cam1"]);
    }

    #[test]
    fn old_metrics_are_not_told_as_new() {
        let taken = Instant::now();
        let sample = Sample { cpu_percent: Some(12.34), ..Sample::default() };
        let metrics = Metrics { sample, taken: Some(taken), ..Metrics::default() };
        assert_eq!(beat(&DeviceState::default(), &metrics, taken).metrics.cpu_percent, Some(12.3));
        let later = taken + METRICS_FRESH;
        assert_eq!(beat(&DeviceState::default(), &metrics, later).metrics.cpu_percent, None);
    }

    #[test]
    fn an_actor_that_merely_grows_older_is_no_news() {
        let report = |uptime_seconds| ActorReport {
            name: "mixer".to_owned(),
            kind: "mixer".to_owned(),
            state: ActorState::Running,
            essential: true,
            restarts: 0,
            asked_for: 0,
            last_cause: None,
            uptime_seconds,
            mailbox_depth: uptime_seconds as usize,
            detail: None,
        };
        let told = |uptime| reported(&DeviceState::default(), 1, 0, Value::Null, &[report(uptime)], &[]);
        assert_eq!(told(1), told(2));
    }
}
