//! The configuration desk against a seam in memory and actors of a real house.

use serde_json::json;

use super::*;
use crate::supervision::{Duty, House, HouseSettings, Life};

/// Knows `label` and `broken`; restarts `probe` when either changed; installs into a map that probes read.
#[derive(Default)]
struct Seam(Mutex<Map<String, Value>>);

impl ConfigSeam for Seam {
    fn check(&self, before: &Map<String, Value>, after: &Map<String, Value>) -> Result<Vec<String>, String> {
        match after.keys().find(|key| !["label", "broken"].contains(&key.as_str())) {
            Some(key) => Err(format!("unknown key {key}")),
            None if before == after => Ok(Vec::new()),
            None => Ok(vec!["probe".to_owned()]),
        }
    }

    fn install(&self, doc: &Map<String, Value>) {
        *lock(&self.0) = doc.clone();
    }

    fn public(&self) -> Value {
        Value::Object(lock(&self.0).clone())
    }
}

/// Panics in its factory while the configuration says so.
struct Probe {
    _life: Life,
}

impl actix::Actor for Probe {
    type Context = actix::Context<Self>;
}

impl actix::Supervised for Probe {}

crate::supervised!(Probe);

struct Rig {
    house: House,
    actors: ActorsView,
    seam: Arc<Seam>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let house = House::open(HouseSettings::default());
        let seam = Arc::new(Seam::default());
        let config = seam.clone();
        house.engage(Duty::new("probe", "probe"), move |life| {
            assert!(!lock(&config.0).contains_key("broken"), "told to be broken");
            Probe { _life: life }
        });
        let actors =
            ActorsView { actors: house.actors_door(), restart: house.restart_door(), changes: house.changes() };
        Self { house, actors, seam, dir: tempfile::tempdir().unwrap() }
    }

    fn desk(&self) -> ConfigDesk {
        ConfigDesk::open(self.dir.path(), self.seam.clone())
            .with_times(Duration::from_secs(2), Duration::from_millis(200))
    }
}

fn id(text: &str) -> CommandId {
    CommandId::new(text).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("not an object") };
    map
}

fn changes(value: Value) -> Change {
    Change::Merge(object(value))
}

#[actix_rt::test]
async fn a_whole_document_takes_the_place_of_all_that_was_changed_and_an_older_one_comes_too_late() {
    let rig = Rig::new();
    let desk = rig.desk();
    desk.change(&id("c1"), changes(json!({"label": "A"})), &rig.actors).await;
    let whole = |version| Change::Replace { document: object(json!({"label": "B"})), version };
    let stale = desk.change(&id("c2"), whole(1), &rig.actors).await;
    assert_eq!(stale, ConfigOutcome::Refused("stale: version 1 is in force".to_owned()));
    let restarted = vec!["probe".to_owned()];
    let applied = desk.change(&id("c3"), whole(7), &rig.actors).await;
    assert_eq!(applied, ConfigOutcome::Applied { ver: 7, restarted: restarted.clone() });
    assert_eq!(desk.public(), json!({"label": "B"}));
    let empty = Change::Replace { document: Map::new(), version: 8 };
    assert_eq!(desk.change(&id("c4"), empty, &rig.actors).await, ConfigOutcome::Applied { ver: 8, restarted });
    assert_eq!((desk.public(), desk.overlay().ver), (json!({}), 8));
    rig.house.stop(Duration::from_secs(5)).await;
}

#[actix_rt::test]
async fn a_change_restarts_whom_it_concerns_and_is_there_at_the_next_start() {
    let rig = Rig::new();
    let desk = rig.desk();
    let outcome = desk.change(&id("c1"), changes(json!({"label": "A"})), &rig.actors).await;
    assert_eq!(outcome, ConfigOutcome::Applied { ver: 1, restarted: vec!["probe".to_owned()] });
    assert!(desk.is_applied(&id("c1")) && !desk.is_applied(&id("c2")));
    let next_start = rig.desk();
    assert_eq!(next_start.overlay().ver, 1);
    assert_eq!(next_start.public(), json!({"label": "A"}));
    rig.house.stop(Duration::from_secs(5)).await;
}

#[actix_rt::test]
async fn what_is_not_valid_touches_nothing() {
    let rig = Rig::new();
    let desk = rig.desk();
    let colour = changes(json!({"colour": "red"}));
    assert_eq!(desk.check(&colour), Err("unknown key colour".to_owned()));
    assert_eq!(desk.check(&changes(json!({"label": "A"}))), Ok(()));
    let outcome = desk.change(&id("c1"), colour, &rig.actors).await;
    assert_eq!(outcome, ConfigOutcome::Refused("unknown key colour".to_owned()));
    assert_eq!(desk.overlay(), Overlay::default());
    assert!(!rig.dir.path().join("overlay.json").exists());
    rig.house.stop(Duration::from_secs(5)).await;
}

#[actix_rt::test]
async fn an_actor_that_does_not_come_up_brings_the_old_configuration_back() {
    let rig = Rig::new();
    let desk = rig.desk();
    desk.change(&id("c1"), changes(json!({"label": "A"})), &rig.actors).await;
    let outcome = desk.change(&id("c2"), changes(json!({"broken": true})), &rig.actors).await;
    assert!(matches!(outcome, ConfigOutcome::RolledBack(_)), "{outcome:?}");
    assert_eq!(desk.overlay().ver, 1);
    assert_eq!(desk.public(), json!({"label": "A"}));
    let probe = rig.actors.reports().await.into_iter().find(|report| report.name == "probe").unwrap();
    assert_eq!(probe.state, crate::supervision::ActorState::Running);
    assert_eq!(rig.desk().overlay().ver, 1);
    rig.house.stop(Duration::from_secs(5)).await;
}

#[test]
fn a_trial_that_was_cut_by_a_power_failure_is_undone_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let before = Overlay { ver: 4, doc: object(json!({"label": "A"})), by: None };
    let trial = Overlay { ver: 5, doc: object(json!({"label": "B"})), by: Some(id("c9")) };
    write(&dir.path().join("overlay.json"), &File { current: trial, trial_over: Some(before.clone()) });
    let seam = Arc::new(Seam::default());
    let desk = ConfigDesk::open(dir.path(), seam.clone());
    assert_eq!(desk.overlay(), before);
    assert!(!desk.is_applied(&id("c9")));
    assert_eq!(seam.public(), json!({"label": "A"}));
}

#[test]
fn an_overlay_that_cannot_be_read_is_set_aside_and_the_box_starts() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["{", r#"{"ver":3,"doc":{"colour":"red"}}"#] {
        std::fs::write(dir.path().join("overlay.json"), bad).unwrap();
        let seam = Arc::new(Seam::default());
        ConfigDesk::open(dir.path(), seam.clone());
        assert_eq!(seam.public(), json!({}));
        assert!(dir.path().join("overlay.json.bad").exists());
    }
}

#[test]
fn changes_are_merged_key_by_key_and_null_removes() {
    let held = object(json!({"a": {"b": 1, "c": 2}, "d": [1, 2]}));
    let merged = merge(held, object(json!({"a": {"b": null, "e": {"f": 3}}, "d": [4], "g": null})));
    assert_eq!(Value::Object(merged), json!({"a": {"c": 2, "e": {"f": 3}}, "d": [4]}));
}

#[test]
fn an_object_takes_the_place_of_what_was_none() {
    let held = object(json!({"a": {"b": 1, "c": 2}, "d": 3}));
    let merged = merge(held, object(json!({"a": {"b": null, "e": 4}, "d": {"f": 5}})));
    assert_eq!(Value::Object(merged), json!({"a": {"c": 2, "e": 4}, "d": {"f": 5}}));
}
