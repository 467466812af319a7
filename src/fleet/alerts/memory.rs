//! What has to be remembered of a device from one heartbeat to the next: which inputs were live, and when it restarted.

use std::collections::{BTreeMap, BTreeSet};

use r58_mqtt::payload::{Heartbeat, InputBrief};
use serde::{Deserialize, Serialize};

/// How far back restarts count, in milliseconds: an hour.
pub const WINDOW: i64 = 3_600_000;
/// Restarts that are remembered; no rule asks for more.
const MOST: usize = 50;
/// Actors and inputs that are remembered of one device; a box has far fewer.
const NAMES: usize = 200;

/// Remembered of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Camera inputs that were live, and are still configured.
    pub live: BTreeSet<String>,
    boot: Option<u64>,
    actors: BTreeMap<String, u64>,
    /// When restarts were noticed, milliseconds since 1970.
    at: Vec<i64>,
}

/// Whether it is a camera rather than a guest's seat.
pub(super) fn is_camera(input: &InputBrief) -> bool {
    input.kind != "guest"
}

impl Memory {
    /// With what a heartbeat says that came in at `received`. The same one twice changes nothing the second time.
    #[must_use]
    pub fn with(&self, heartbeat: &Heartbeat, received: i64) -> Self {
        let mut next = self.clone();
        let cameras = || heartbeat.inputs.iter().filter(|input| is_camera(input)).take(NAMES);
        next.live.retain(|id| cameras().any(|input| input.id == *id));
        next.live.extend(cameras().filter(|input| input.signal == "live").map(|input| input.id.clone()));
        let mut restarts: u64 = 0;
        let same_boot = self.boot == Some(heartbeat.boot_seq);
        if self.boot.is_some_and(|boot| boot < heartbeat.boot_seq) {
            restarts += 1;
        }
        for actor in heartbeat.actors.iter().take(NAMES) {
            let before = match same_boot {
                true => self.actors.get(&actor.name).copied(),
                // It counts from the start of the process, which this is another one of.
                false => self.boot.map(|_| 0),
            };
            let more = before.map_or(0, |before| actor.restarts.saturating_sub(before));
            restarts = restarts.saturating_add(more);
        }
        next.boot = Some(heartbeat.boot_seq);
        next.actors = heartbeat.actors.iter().take(NAMES).map(|actor| (actor.name.clone(), actor.restarts)).collect();
        next.at.extend(std::iter::repeat_n(received, usize::try_from(restarts).unwrap_or(MOST).min(MOST)));
        if restarts > 0 {
            next.at.retain(|at| received - at < WINDOW);
            next.at.drain(..next.at.len().saturating_sub(MOST));
        }
        next
    }

    /// Restarts within the hour before `now`.
    pub fn restarts(&self, now: i64) -> usize {
        self.at.iter().filter(|at| now - **at < WINDOW).count()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn beat(boot_seq: u64, restarts: u64) -> Heartbeat {
        let actors = json!([{"name": "mixer", "restarts": restarts}]);
        Heartbeat { boot_seq, actors: serde_json::from_value(actors).unwrap(), ..Heartbeat::default() }
    }

    #[test]
    fn restarts_of_a_box_and_of_its_parts_count_once_each_and_for_an_hour() {
        let first = Memory::default().with(&beat(4, 7), 0);
        assert_eq!(first.restarts(0), 0, "what was before anybody looked is not news");
        let second = first.with(&beat(4, 9), 1_000);
        assert_eq!((second.restarts(1_000), second.with(&beat(4, 9), 2_000).restarts(2_000)), (2, 2));
        let third = second.with(&beat(5, 1), 3_000);
        assert_eq!(third.restarts(3_000), 4, "the box, and its mixer once since");
        assert_eq!(third.restarts(1_000 + WINDOW), 2);
        assert!(third.with(&beat(6, u64::MAX), 4_000).restarts(4_000) <= MOST);
    }

    #[test]
    fn an_input_is_remembered_from_when_it_was_live_until_it_is_not_configured_any_more() {
        let inputs = |signal: &str| Heartbeat {
            inputs: vec![InputBrief { id: "cam1".into(), signal: signal.into(), ..InputBrief::default() }],
            ..Heartbeat::default()
        };
        let never = Memory::default().with(&inputs("no_signal"), 0);
        assert!(never.live.is_empty());
        let live = never.with(&inputs("live"), 1);
        assert!(live.with(&inputs("no_signal"), 2).live.contains("cam1"));
        assert!(live.with(&Heartbeat::default(), 2).live.is_empty());
    }
}
