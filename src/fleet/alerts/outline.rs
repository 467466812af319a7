//! What rules can see of a heartbeat, in a number: while a device's stays the same, another look at it finds nothing new. Nearly
//! all heartbeats are like the one before, so a look costs what changed. No clock, no database.
//!
//! What only time changes has times of its own (an alert that is due) or is found in turn (whatever is not resolved).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use r58_mqtt::payload::Heartbeat;

use super::reading::{comes_up, judge, measure};
use super::rule::{Kind, Rule};

/// No heartbeat has this outline.
pub const NONE: i64 = 0;

/// An organization's rules: what divides the values that its devices measure.
#[derive(Debug, Clone)]
pub struct Outlook {
    rules: Vec<(Kind, (f64, f64))>,
    /// Another one when a rule came, went or changed: then every device is looked at again.
    version: u64,
}

/// Where there are no rules at all.
pub const NO_RULES: Outlook = Outlook { rules: Vec::new(), version: 0 };

impl Outlook {
    /// Of these rules, each with when it was last changed; their order matters.
    pub fn of(rules: &[(Rule, i64)]) -> Self {
        let mut version = DefaultHasher::new();
        rules.iter().for_each(|(rule, changed)| (&rule.id, changed).hash(&mut version));
        let divides = |(rule, _): &(Rule, i64)| Some((rule.kind, rule.thresholds?));
        Self { rules: rules.iter().filter_map(divides).collect(), version: version.finish() }
    }

    /// The outline of a heartbeat that came in at `received`, milliseconds since 1970. Two versions of this program may make
    /// another one of the same heartbeat; that costs a look.
    pub fn outline(&self, heartbeat: &Heartbeat, received: i64) -> i64 {
        let mut outline = DefaultHasher::new();
        (self.version, heartbeat.boot_seq, heartbeat.inputs.len(), comes_up(heartbeat)).hash(&mut outline);
        for input in &heartbeat.inputs {
            (&input.id, &input.kind, &input.signal).hash(&mut outline);
        }
        for actor in &heartbeat.actors {
            (&actor.name, actor.restarts).hash(&mut outline);
        }
        for (kind, thresholds) in &self.rules {
            judge(*kind, *thresholds, &measure(*kind, heartbeat, received)).hash(&mut outline);
        }
        match i64::from_ne_bytes(outline.finish().to_ne_bytes()) {
            NONE => NONE + 1,
            outline => outline,
        }
    }
}

/// Rules of all organizations.
pub type Outlooks = HashMap<String, Outlook>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use r58_mqtt::payload::InputBrief;
    use serde_json::json;

    use super::*;
    use crate::fleet::alerts::core::Step;
    use crate::fleet::alerts::memory::Memory;
    use crate::fleet::alerts::reading::Reading;
    use crate::fleet::alerts::rule::USUAL;

    fn rules() -> Vec<Rule> {
        let usual = USUAL.into_iter().map(|(kind, name, threshold, for_s, severity)| Rule {
            id: name.to_owned(),
            kind,
            name: name.to_owned(),
            thresholds: kind.check(threshold, None).unwrap(),
            for_s,
            severity,
            tag: None,
            device: None,
        });
        usual.collect()
    }

    fn outlook(rules: &[Rule]) -> Outlook {
        Outlook::of(&rules.iter().map(|rule| (rule.clone(), 1)).collect::<Vec<_>>())
    }

    prop_compose! {
        /// Around the usual thresholds.
        fn heartbeat()(
            disk in 0.0..40.0, degrees in 70.0..95.0, off in 0i64..60_000, signals in prop::collection::vec(0..4usize, 0..4),
            guest in any::<bool>(), restarts in 0u64..3, boot_seq in 1u64..3, clock in any::<bool>(),
        ) -> Heartbeat {
            let signal = |n: usize| ["live", "no_signal", "starting", "joining"][n].to_owned();
            let inputs = signals.into_iter().enumerate().map(|(n, word)| InputBrief {
                id: format!("in{n}"), signal: signal(word), kind: if guest && n == 0 { "guest" } else { "camera" }.into(),
                ..InputBrief::default()
            });
            let mut heartbeat = Heartbeat {
                boot_seq, inputs: inputs.collect(), actors: serde_json::from_value(json!([{"name": "mixer", "restarts": restarts}])).unwrap(),
                device_time: clock.then(|| chrono::DateTime::from_timestamp_millis(1_000_000_000 - off).unwrap()),
                ..Heartbeat::default()
            };
            heartbeat.metrics.disk_free_gb = Some(disk);
            heartbeat.metrics.temperature_c = Some(degrees);
            heartbeat
        }
    }

    proptest! {
        #[test]
        fn of_two_heartbeats_with_one_outline_the_second_changes_nothing(
            one in heartbeat(), disk in -0.5..0.5, degrees in -0.5..0.5, later in 0i64..500, up in 0u64..2,
        ) {
            const NOW: i64 = 1_000_000_000;
            let mut two = one.clone();
            two.uptime_seconds += 60 * up;
            two.metrics.disk_free_gb = one.metrics.disk_free_gb.map(|was| was + disk);
            two.metrics.temperature_c = one.metrics.temperature_c.map(|was| was + degrees);
            two.metrics.cpu_percent = Some(99.0);
            two.device_time = one.device_time.map(|was| was + chrono::TimeDelta::milliseconds(later));
            let rules = rules();
            let outlook = outlook(&rules);
            prop_assume!(outlook.outline(&one, NOW) == outlook.outline(&two, NOW));
            let memory = Memory::default().with(&one, NOW);
            prop_assert_eq!(&memory, &memory.with(&two, NOW));
            let reading = |heartbeat: Heartbeat| Reading {
                in_service: true, presence: "online".into(), presence_at: Some(0), heartbeat: Some((heartbeat, NOW)),
                memory: memory.clone(), ..Reading::default()
            };
            let raised = |heartbeat: Heartbeat| -> Vec<(Option<usize>, String, bool)> {
                let steps = reading(heartbeat).changes(&rules, &[], NOW).into_iter();
                steps.map(|change| (change.rule, change.subject, matches!(change.step, Step::Raise { .. }))).collect()
            };
            prop_assert_eq!(raised(one), raised(two));
        }
    }

    #[test]
    fn small_changes_within_the_thresholds_make_no_outline_and_a_changed_rule_makes_one() {
        let (rules, mut beat) = (rules(), Heartbeat { boot_seq: 1, ..Heartbeat::default() });
        beat.metrics.disk_free_gb = Some(118.4);
        let first = outlook(&rules).outline(&beat, 0);
        beat.metrics.disk_free_gb = Some(117.9);
        beat.metrics.cpu_percent = Some(99.0);
        assert_eq!(outlook(&rules).outline(&beat, 0), first);
        let mut fewer = rules;
        fewer.pop();
        assert_ne!(outlook(&fewer).outline(&beat, 0), first);
    }
}
