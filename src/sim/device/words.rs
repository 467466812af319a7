//! What a simulated device says by itself: heartbeats, reported state, events.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use chrono::Utc;
use r58_actors::fleet_link::effects::Workshop as _;
use r58_actors::fleet_link::report::{Look, heartbeat, reported};
use r58_mqtt::payload::{Event, Extra, Payload as _, Reported, Severity};
use r58_mqtt::{Name, Up};
use serde_json::json;

use super::{Device, Life, Script, VERSION};

impl Device {
    pub(super) fn plan_event(&self, life: &mut Life) {
        let mean = if self.shared.events > 0.0 { 3600.0 / self.shared.events } else { 1e9 };
        let wait = mean * (0.5 + self.script(Script::roll));
        life.event_at = Instant::now() + Duration::from_secs_f64(wait);
    }

    pub(super) fn beat(&mut self, life: &mut Life, now: Instant) {
        let every = self.shared.heartbeat_every;
        life.beat_at = now + every.mul_f64(0.9 + 0.2 * self.script(Script::roll));
        let script = self.script.clone();
        self.machine.wander(now, &mut script.lock().unwrap_or_else(PoisonError::into_inner));
        self.say_reported(life);
        let Ok(stream) = Name::new("hb") else { return };
        let (state, metrics) = (self.machine.state(self.number), self.machine.metrics(now));
        let wall = Utc::now() + self.skew();
        let look = Look {
            now,
            wall,
            clock_set: self.report.clock_set,
            version: VERSION,
            uptime: now - life.started,
            boot_seq: self.boot_seq,
            boot_id: &life.boot_id,
            interval: every,
            state: &state,
            metrics: &metrics,
            ice: &self.shared.ice,
            actors: &self.shared.tree,
            outbox: life.link.outbox_counts(),
        };
        let hold = every.saturating_mul(2);
        let mut number = None;
        life.link.record(
            now,
            &Up::Telemetry(stream),
            hold,
            look.clock_set.then_some(wall),
            Some((Up::Heartbeat, hold)),
            |seq| {
                number = Some(seq);
                heartbeat(&look, seq).to_bytes().unwrap_or_default()
            },
        );
        if number.is_some() {
            self.report.first_seq = self.report.first_seq.or(number);
            self.report.last_seq = number;
            self.report.heartbeats += 1;
            self.shared.tally.heartbeats.add();
        }
    }

    pub(super) fn say_reported(&mut self, life: &mut Life) {
        if !life.link.is_online() {
            return;
        }
        let ver = life.played.desired_ver();
        let state = self.machine.state(self.number);
        let boot_seq = self.boot_seq;
        let seen = reported(&state, boot_seq, ver, life.played.document(), &self.shared.tree, &self.shared.services);
        if life.said.as_ref() != Some(&seen) {
            life.link.set_conditions(Instant::now(), ver);
            let ts = life.link.wall();
            life.link.say_retained(Up::Reported, Reported { ts, ..seen.clone() }.to_bytes());
            life.said = Some(seen);
        }
    }

    pub(super) fn record_event(&mut self, life: &mut Life, kind: &str, text: &str) {
        let Ok(kind) = Name::new(kind) else { return };
        let (ts, boot_seq) = (life.link.wall(), self.boot_seq);
        let (up, text) = (Up::Event(kind.clone()), text.to_owned());
        life.link.record(Instant::now(), &up, Duration::ZERO, ts, None, |seq| {
            let data = json!({"version": VERSION, "simulated": true});
            let event = Event { kind, boot_seq, seq, ts, severity: Severity::Info, text, data, extra: Extra::new() };
            event.to_bytes().unwrap_or_default()
        });
        self.report.events += 1;
        self.shared.tally.events.add();
    }
}
