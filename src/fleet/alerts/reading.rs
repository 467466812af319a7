//! What a rule sees in what a device last said, and what becomes of its alerts by that. No clock, no database.

use std::collections::BTreeSet;

use r58_mqtt::payload::Heartbeat;

use super::core::{Seen, State, Step, step};
use super::memory::{Memory, is_camera};
use super::rule::{Kind, Rule};

/// A heartbeat older than this says nothing of now, in milliseconds; boxes send one a minute.
const STALE: i64 = 300_000;
/// Subjects that one rule looks at on one device; a box has far fewer inputs.
const SUBJECTS: usize = 64;
/// A box that has just started has this long until its inputs are there, in seconds: its first heartbeat says that they start.
const COMES_UP_S: u64 = 60;
/// Longest identifier of a subject, in bytes; what is longer is no input of a box of ours.
const LONGEST_SUBJECT: usize = 100;
/// Nothing that a box measures is beyond it.
const SENSIBLE: f64 = 1e9;

/// Whether a box has just started.
pub(super) fn comes_up(heartbeat: &Heartbeat) -> bool {
    heartbeat.uptime_seconds < COMES_UP_S
}

/// What is known of a device.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Identifier.
    pub device: String,
    /// Tags.
    pub tags: Vec<String>,
    /// In service.
    pub in_service: bool,
    /// `online`, `offline` or `unknown`.
    pub presence: String,
    /// Why it is offline.
    pub reason: Option<String>,
    /// Since when it is on- or offline, milliseconds since 1970.
    pub presence_at: Option<i64>,
    /// Its latest heartbeat, and when it came in.
    pub heartbeat: Option<(Heartbeat, i64)>,
    /// What is remembered of it, this heartbeat included.
    pub memory: Memory,
}

/// An alert that is not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Identifier.
    pub id: String,
    /// Its rule.
    pub rule_id: String,
    /// What of the device.
    pub subject: String,
    /// How it stands.
    pub state: State,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The alert, if there is one already.
    pub alert: Option<String>,
    /// The rule, by its place in the list; `None` when it is gone.
    pub rule: Option<usize>,
    /// What of the device.
    pub subject: String,
    /// The step.
    pub step: Step,
    /// What was measured.
    pub value: Option<f64>,
    /// What is the matter, or why it is over, in words.
    pub detail: String,
}

/// What a rule sees of one subject.
struct Finding {
    subject: String,
    seen: Seen,
    /// When it began.
    began: i64,
    value: Option<f64>,
    detail: String,
}

impl Reading {
    fn live_heartbeat(&self, now: i64) -> Option<(&Heartbeat, i64)> {
        let (heartbeat, received) = self.heartbeat.as_ref()?;
        (self.presence == "online" && now - received < STALE).then_some((heartbeat, *received))
    }

    /// Whether a rule is about this device.
    fn is_under(&self, rule: &Rule) -> bool {
        let named = rule.device.as_ref().is_none_or(|device| *device == self.device);
        self.in_service && named && rule.tag.as_ref().is_none_or(|tag| self.tags.contains(tag))
    }

    /// What becomes of this device's alerts.
    pub fn changes(&self, rules: &[Rule], held: &[Held], now: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        for (n, rule) in rules.iter().enumerate().filter(|(_, rule)| self.is_under(rule)) {
            let mut findings = self.findings(rule, now);
            let of_rule = || held.iter().filter(|held| held.rule_id == rule.id);
            for gone in
                of_rule().filter(|held| !findings.iter().any(|found| found.subject == held.subject)).collect::<Vec<_>>()
            {
                // The device speaks, and not of this: an input that was taken out, a guest who left.
                let seen = if self.live_heartbeat(now).is_some() { Seen::Good } else { Seen::Unknown };
                let (subject, detail) = (gone.subject.clone(), "it is not there any more".to_owned());
                findings.push(Finding { subject, seen, began: now, value: None, detail });
            }
            for found in findings {
                let alert = of_rule().find(|held| held.subject == found.subject);
                let step = step(rule.for_s * 1_000, alert.map(|held| held.state), found.seen, found.began, now);
                if step != Step::Keep {
                    changes.push(Change {
                        alert: alert.map(|held| held.id.clone()),
                        rule: Some(n),
                        subject: found.subject,
                        step,
                        value: found.value,
                        detail: found.detail,
                    });
                }
            }
        }
        let under = |held: &&Held| rules.iter().any(|rule| rule.id == held.rule_id && self.is_under(rule));
        for orphan in held.iter().filter(|held| !under(held)) {
            let step = match orphan.state {
                State::Pending { .. } => Step::Drop,
                State::Open { .. } => Step::Resolve,
            };
            let detail =
                if self.in_service { "its rule does not apply any more" } else { "the box was taken out of service" };
            changes.push(Change {
                alert: Some(orphan.id.clone()),
                rule: None,
                subject: orphan.subject.clone(),
                step,
                value: None,
                detail: detail.into(),
            });
        }
        changes
    }

    fn findings(&self, rule: &Rule, now: i64) -> Vec<Finding> {
        match rule.kind {
            Kind::Offline => self.presence(now).into_iter().collect(),
            Kind::InputLost => self.inputs(now, |input, memory| {
                let young = self.live_heartbeat(now).is_some_and(|(heartbeat, _)| comes_up(heartbeat));
                (is_camera(input) && memory.live.contains(&input.id)).then_some(match input.signal.as_str() {
                    "live" => Seen::Good,
                    "starting" if young => Seen::Unknown,
                    _ => Seen::Bad,
                })
            }),
            Kind::GuestFailing => self.inputs(now, |input, _| {
                (!is_camera(input)).then_some(match input.signal.as_str() {
                    "silent" | "stalled" | "joining" => Seen::Bad,
                    _ => Seen::Good,
                })
            }),
            Kind::Disk | Kind::Temperature | Kind::Restarts | Kind::Clock => vec![self.measured(rule, now)],
        }
    }

    fn presence(&self, now: i64) -> Option<Finding> {
        let (seen, detail) = match (self.presence.as_str(), self.reason.as_deref()) {
            ("online", _) => (Seen::Good, "it is back"),
            ("offline", Some("lwt")) => (Seen::Bad, "its connection broke"),
            ("offline", Some("silent")) => (Seen::Bad, "its heartbeats stopped"),
            ("offline", Some("stopped")) => (Seen::Bad, "it was stopped"),
            ("offline", Some("rebooting")) => (Seen::Bad, "it is rebooting"),
            ("offline", _) => (Seen::Bad, "it is not connected"),
            // Never seen: it has yet to come for the first time.
            _ => return None,
        };
        let began = self.presence_at.unwrap_or(now);
        Some(Finding { subject: String::new(), seen, began, value: None, detail: detail.into() })
    }

    fn inputs(
        &self,
        now: i64,
        judge: impl Fn(&r58_mqtt::payload::InputBrief, &Memory) -> Option<Seen>,
    ) -> Vec<Finding> {
        let Some((heartbeat, _)) = self.live_heartbeat(now) else { return Vec::new() };
        let mut named = BTreeSet::new();
        let known = heartbeat.inputs.iter().filter(|input| (1..=LONGEST_SUBJECT).contains(&input.id.len()));
        let known = known.filter(|input| named.insert(&input.id));
        let found = known.take(SUBJECTS).filter_map(|input| {
            let seen = judge(input, &self.memory)?;
            let name: String = if input.label.is_empty() { &input.id } else { &input.label }.chars().take(80).collect();
            let signal: String = input.signal.chars().take(40).collect();
            let detail = format!("{name}: {}", signal.replace('_', " "));
            Some(Finding { subject: input.id.clone(), seen, began: now, value: None, detail })
        });
        found.collect()
    }

    fn measured(&self, rule: &Rule, now: i64) -> Finding {
        let unknown =
            Finding { subject: String::new(), seen: Seen::Unknown, began: now, value: None, detail: String::new() };
        let (Some((heartbeat, received)), Some((threshold, clear))) = (self.live_heartbeat(now), rule.thresholds)
        else {
            return unknown;
        };
        let measured = match rule.kind {
            #[allow(clippy::cast_precision_loss, reason = "at most 50")]
            Kind::Restarts => Measured::Value(self.memory.restarts(now) as f64),
            kind => measure(kind, heartbeat, received),
        };
        let seen = judge(rule.kind, (threshold, clear), &measured);
        let (value, detail) = match measured {
            Measured::Value(value) => (Some(value), in_words(rule.kind, value)),
            Measured::NoClock => (None, "its clock is not set".to_owned()),
            Measured::Nothing => return unknown,
        };
        Finding { seen, value, detail, ..unknown }
    }
}

fn in_words(kind: Kind, value: f64) -> String {
    match kind {
        Kind::Disk => format!("{value:.1} GB free"),
        Kind::Temperature => format!("{value:.0} °C"),
        Kind::Restarts => format!("{value:.0} restarts within an hour"),
        _ => format!("{value:.0} s off"),
    }
}

/// What a heartbeat says of what a kind of rule looks at.
pub(super) enum Measured {
    /// So much of it: GB, degrees, seconds, times. No more than is sensible.
    Value(f64),
    /// The clock is not set.
    NoClock,
    /// Nothing that could be judged.
    Nothing,
}

/// What a heartbeat that came in at `received` says of its disk, its temperature or its clock.
pub(super) fn measure(kind: Kind, heartbeat: &Heartbeat, received: i64) -> Measured {
    let value = match kind {
        Kind::Disk => heartbeat.metrics.disk_free_gb,
        Kind::Temperature => heartbeat.metrics.temperature_c,
        Kind::Clock => match clock(heartbeat, received) {
            Some(off) => Some(off),
            None => return Measured::NoClock,
        },
        Kind::Offline | Kind::InputLost | Kind::GuestFailing | Kind::Restarts => None,
    };
    value.filter(|value| value.abs() < SENSIBLE).map_or(Measured::Nothing, Measured::Value)
}

/// On which side of a rule's thresholds that is.
pub(super) fn judge(kind: Kind, (threshold, clear): (f64, f64), measured: &Measured) -> Seen {
    let value = match measured {
        Measured::Value(value) => *value,
        Measured::NoClock => return Seen::Bad,
        Measured::Nothing => return Seen::Unknown,
    };
    let (bad, good) = match kind.is_bad_below() {
        true => (value < threshold, value >= clear),
        false => (value >= threshold, value <= clear),
    };
    match (bad, good) {
        (true, _) => Seen::Bad,
        (_, true) => Seen::Good,
        _ => Seen::Between,
    }
}

/// Seconds that the device's clock is off, either way; none when it is not set. A device of before this protocol (it counts no
/// starts) says only when it measured.
#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
fn clock(heartbeat: &Heartbeat, received: i64) -> Option<f64> {
    let shown = match heartbeat.device_time {
        Some(time) => time,
        None if heartbeat.boot_seq == 0 => heartbeat.ts,
        None => return None,
    };
    Some(received.saturating_sub(shown.timestamp_millis()).abs() as f64 / 1_000.0)
}

#[cfg(test)]
mod tests;
