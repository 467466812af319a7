//! What listeners want to hear of: every device of their organization, or those that they show.
//!
//! What nobody wants is not read from the database and not sent. Who shows a part of a large fleet is told now and then that
//! something else moved (`moved`), so that it counts again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `moved` is told no more often, for each organization.
const MOVED_EVERY: Duration = Duration::from_secs(5);

/// The devices that a listener wants; `None` for all of its organization.
pub type Wanted = Option<BTreeSet<String>>;

#[derive(Debug, Default)]
struct Counts {
    /// Listeners to all devices of an organization.
    all: HashMap<String, usize>,
    /// Listeners to some devices of an organization, and to which.
    some: HashMap<String, usize>,
    devices: HashMap<(String, String), usize>,
    /// Organizations in which something moved that nobody was told of.
    waiting: BTreeSet<String>,
    /// When they were last told.
    told: HashMap<String, Instant>,
}

/// What is wanted of all listeners. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Interests(Arc<Mutex<Counts>>);

fn add<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    *counts.entry(key).or_insert(0) += 1;
}

fn remove<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Interests {
    /// A listener's interest, until it is dropped.
    pub fn enter(&self, org: &str, wanted: Wanted) -> Interest {
        self.change(|counts| match &wanted {
            None => add(&mut counts.all, org.to_owned()),
            Some(devices) => {
                add(&mut counts.some, org.to_owned());
                devices.iter().for_each(|id| add(&mut counts.devices, (org.to_owned(), id.clone())));
            }
        });
        Interest { interests: self.clone(), org: org.to_owned(), wanted }
    }

    /// Those of these devices that somebody wants.
    pub fn sift(&self, mut devices: BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
        self.change(|counts| {
            devices.retain(|key| counts.all.contains_key(&key.0) || counts.devices.contains_key(key));
        });
        devices
    }

    /// Notes that these devices changed, for those who show others.
    pub fn moved(&self, devices: &BTreeSet<(String, String)>) {
        self.change(|counts| {
            for (org, _) in devices {
                if counts.some.contains_key(org) && !counts.waiting.contains(org) {
                    counts.waiting.insert(org.clone());
                }
            }
        });
    }

    /// Those organizations whose listeners are to be told at this moment that something moved.
    pub fn due(&self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        self.change(|counts| {
            let lately = |told: &Instant| now.duration_since(*told) < MOVED_EVERY;
            counts.told.retain(|_, told| lately(told));
            due.extend(counts.waiting.iter().filter(|org| !counts.told.contains_key(*org)).cloned());
            for org in &due {
                counts.waiting.remove(org);
                counts.told.insert(org.clone(), now);
            }
        });
        due
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One listener's interest.
#[derive(Debug)]
pub struct Interest {
    interests: Interests,
    org: String,
    wanted: Wanted,
}

impl Interest {
    /// Whether an update is wanted that speaks of this device, or of none.
    pub fn wants(&self, device: Option<&str>, event: &str) -> bool {
        match (&self.wanted, device) {
            (None, _) => event != super::MOVED,
            (Some(devices), Some(device)) => devices.contains(device),
            (Some(_), None) => true,
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let Self { interests, org, wanted } = self;
        interests.change(|counts| match wanted {
            None => remove(&mut counts.all, org.clone()),
            Some(devices) => {
                remove(&mut counts.some, org.clone());
                devices.iter().for_each(|id| remove(&mut counts.devices, (org.clone(), id.clone())));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[(&str, &str)]) -> BTreeSet<(String, String)> {
        keys.iter().map(|(org, id)| ((*org).to_owned(), (*id).to_owned())).collect()
    }

    #[test]
    fn what_nobody_shows_is_not_read_and_what_a_listener_showed_goes_with_it() {
        let interests = Interests::default();
        let moved = keys(&[("acme", "a"), ("acme", "b"), ("north", "a")]);
        assert!(interests.sift(moved.clone()).is_empty());
        let page = interests.enter("acme", Some(["a".to_owned()].into()));
        let again = interests.enter("acme", Some(["a".to_owned()].into()));
        assert_eq!(interests.sift(moved.clone()), keys(&[("acme", "a")]));
        drop(page);
        assert_eq!(interests.sift(moved.clone()), keys(&[("acme", "a")]));
        let all = interests.enter("north", None);
        assert_eq!(interests.sift(moved.clone()), keys(&[("acme", "a"), ("north", "a")]));
        drop((again, all));
        assert!(interests.sift(moved).is_empty());
        assert!(interests.0.lock().unwrap().devices.is_empty());
    }

    #[test]
    fn who_shows_a_part_is_told_now_and_then_that_something_moved() {
        let interests = Interests::default();
        let (now, moved) = (Instant::now(), keys(&[("acme", "b"), ("north", "a")]));
        let _page = interests.enter("acme", Some(BTreeSet::new()));
        let _all = interests.enter("north", None);
        interests.moved(&moved);
        assert_eq!(interests.due(now), ["acme"]);
        assert!(interests.due(now + MOVED_EVERY).is_empty(), "nothing moved since");
        interests.moved(&moved);
        assert_eq!(interests.due(now + MOVED_EVERY), ["acme"]);
        interests.moved(&moved);
        assert!(interests.due(now + MOVED_EVERY + Duration::from_secs(4)).is_empty());
        assert_eq!(interests.due(now + MOVED_EVERY * 2), ["acme"]);
    }
}
