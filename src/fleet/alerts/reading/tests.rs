//! One device, said in a few words, and what the rules make of it.

use chrono::DateTime;
use proptest::prelude::*;
use r58_mqtt::payload::{InputBrief, Metrics};

use super::*;
use crate::fleet::alerts::rule::Severity;

const NOW: i64 = 1_800_000_000_000;

fn rule(kind: Kind, threshold: Option<f64>, for_s: i64) -> Rule {
    let thresholds = kind.check(threshold, None).unwrap();
    let name = kind.as_str().to_owned();
    Rule { id: name.clone(), kind, name, thresholds, for_s, severity: Severity::Warning, tag: None, device: None }
}

fn reading(change: impl FnOnce(&mut Heartbeat)) -> Reading {
    let mut heartbeat = Heartbeat {
        ts: DateTime::from_timestamp_millis(NOW).unwrap(),
        device_time: DateTime::from_timestamp_millis(NOW),
        boot_seq: 1,
        ..Heartbeat::default()
    };
    change(&mut heartbeat);
    Reading {
        in_service: true,
        presence: "online".into(),
        presence_at: Some(NOW - 60_000),
        memory: Memory::default().with(&heartbeat, NOW),
        heartbeat: Some((heartbeat, NOW)),
        ..Reading::default()
    }
}

fn input(id: &str, kind: &str, signal: &str) -> InputBrief {
    InputBrief { id: id.into(), kind: kind.into(), signal: signal.into(), ..InputBrief::default() }
}

fn open(rule: &Rule, subject: &str) -> Held {
    let state = State::Open { clear_since: None };
    Held { id: "a".into(), rule_id: rule.id.clone(), subject: subject.into(), state }
}

fn steps(reading: &Reading, rule: &Rule, held: &[Held]) -> Vec<(String, Step)> {
    let changes = reading.changes(std::slice::from_ref(rule), held, NOW);
    changes.into_iter().map(|change| (change.subject, change.step)).collect()
}

#[test]
fn inputs_that_start_with_their_box_are_not_lost_until_a_minute_has_passed() {
    let lost = rule(Kind::InputLost, None, 0);
    let up = |seconds: u64| {
        let mut up = reading(|heartbeat| {
            heartbeat.uptime_seconds = seconds;
            heartbeat.inputs = vec![input("cam1", "camera", "starting")];
        });
        up.memory.live.insert("cam1".into());
        up
    };
    assert_eq!(steps(&up(1), &lost, &[]), []);
    assert_eq!(steps(&up(60), &lost, &[]), [("cam1".into(), Step::Raise { since: NOW })]);
    let open = Held { subject: "cam1".into(), ..open(&lost, "cam1") };
    assert_eq!(steps(&up(1), &lost, &[open]), [], "nor is one over that was lost before");
}

#[test]
fn a_box_is_offline_from_when_it_went_and_one_that_never_came_is_not() {
    let rule = rule(Kind::Offline, None, 60);
    let gone = |presence: &str, ago: i64| Reading {
        in_service: true,
        presence: presence.into(),
        presence_at: Some(NOW - ago),
        ..Reading::default()
    };
    assert_eq!(steps(&gone("offline", 60_000), &rule, &[]), [(String::new(), Step::Raise { since: NOW - 60_000 })]);
    assert_eq!(steps(&gone("offline", 59_000), &rule, &[]), [(String::new(), Step::Wait { since: NOW - 59_000 })]);
    assert_eq!(steps(&gone("unknown", 99_000), &rule, &[]), []);
    assert_eq!(steps(&reading(|_| {}), &rule, &[open(&rule, "")]), [(String::new(), Step::Clearing { since: NOW })]);
    let decommissioned = Reading { in_service: false, ..gone("offline", 99_000) };
    assert_eq!(steps(&decommissioned, &rule, &[open(&rule, "")]), [(String::new(), Step::Resolve)]);
}

#[test]
fn what_a_box_measures_is_held_against_both_thresholds() {
    let disk =
        |free: f64| reading(|heartbeat| heartbeat.metrics = Metrics { disk_free_gb: Some(free), ..Metrics::default() });
    let rule = rule(Kind::Disk, Some(5.0), 0);
    assert_eq!(steps(&disk(4.9), &rule, &[]), [(String::new(), Step::Raise { since: NOW })]);
    assert_eq!(steps(&disk(5.5), &rule, &[open(&rule, "")]), []);
    assert_eq!(steps(&disk(6.0), &rule, &[open(&rule, "")]), [(String::new(), Step::Resolve)]);
    assert_eq!(steps(&disk(f64::NAN), &rule, &[open(&rule, "")]), []);
    assert_eq!(steps(&reading(|_| {}), &rule, &[open(&rule, "")]), [], "not measured is not good");
    let stale = Reading { heartbeat: disk(4.0).heartbeat.map(|(beat, at)| (beat, at - STALE)), ..disk(4.0) };
    assert_eq!(steps(&stale, &rule, &[]), []);
}

#[test]
fn an_input_is_lost_when_it_was_live_and_a_guest_fails_when_it_is_in() {
    let lost = rule(Kind::InputLost, None, 0);
    let mut dark = reading(|heartbeat| {
        heartbeat.inputs = vec![input("cam1", "camera", "no_signal"), input("cam2", "camera", "no_signal")];
    });
    assert_eq!(steps(&dark, &lost, &[]), [], "nobody plugged anything in yet");
    dark.memory.live.insert("cam2".into());
    assert_eq!(steps(&dark, &lost, &[]), [("cam2".into(), Step::Raise { since: NOW })]);
    assert_eq!(steps(&reading(|_| {}), &lost, &[open(&lost, "cam2")]), [("cam2".into(), Step::Resolve)]);
    let guest = rule(Kind::GuestFailing, None, 0);
    let seats = |signal: &str| reading(|heartbeat| heartbeat.inputs = vec![input("guest1", "guest", signal)]);
    assert_eq!(steps(&seats("silent"), &guest, &[]), [("guest1".into(), Step::Raise { since: NOW })]);
    for fine in ["free", "waiting", "live"] {
        assert_eq!(steps(&seats(fine), &guest, &[]), []);
    }
}

#[test]
fn a_clock_is_wrong_when_it_is_far_off_or_not_set() {
    let rule = rule(Kind::Clock, Some(30.0), 0);
    let shows = |time: Option<i64>, boot: u64| {
        reading(|heartbeat| {
            heartbeat.device_time = time.and_then(DateTime::from_timestamp_millis);
            heartbeat.boot_seq = boot;
        })
    };
    assert_eq!(steps(&shows(Some(NOW + 31_000), 1), &rule, &[]).len(), 1);
    assert_eq!(steps(&shows(Some(NOW - 29_000), 1), &rule, &[]).len(), 0);
    assert_eq!(steps(&shows(None, 1), &rule, &[]).len(), 1);
    assert_eq!(steps(&shows(None, 0), &rule, &[]).len(), 0, "an older device does not say");
}

#[test]
fn a_rule_is_about_the_devices_that_it_selects_and_what_it_leaves_is_resolved() {
    let mut rule = rule(Kind::Offline, None, 0);
    rule.tag = Some("tour".into());
    let mut gone = Reading { in_service: true, presence: "offline".into(), ..Reading::default() };
    assert_eq!(steps(&gone, &rule, &[]), []);
    assert_eq!(steps(&gone, &rule, &[open(&rule, "")]), [(String::new(), Step::Resolve)]);
    gone.tags = vec!["tour".into()];
    assert_eq!(steps(&gone, &rule, &[]), [(String::new(), Step::Raise { since: NOW })]);
    rule.device = Some("box7".into());
    assert_eq!(steps(&gone, &rule, &[]), [], "with the tag, and another one");
    gone.device = "box7".into();
    assert_eq!(steps(&gone, &rule, &[]), [(String::new(), Step::Raise { since: NOW })]);
}

proptest! {
    #[test]
    fn whatever_a_device_says_each_subject_changes_once_at_most(
        inputs in prop::collection::vec(("[a-z]{0,3}", "(camera|guest|)", "(live|silent|no_signal|\\PC{0,60})"), 0..100),
        values in prop::collection::vec(prop::num::f64::ANY, 4), presence in "(online|offline|unknown|\\PC)"
    ) {
        let mut reading = reading(|heartbeat| {
            heartbeat.inputs = inputs.iter().map(|(id, kind, signal)| input(id, kind, signal)).collect();
            heartbeat.metrics.disk_free_gb = Some(values[0]);
            heartbeat.metrics.temperature_c = Some(values[1]);
        });
        reading.presence = presence;
        reading.memory.live.extend(inputs.iter().map(|(id, ..)| id.clone()));
        let rules: Vec<Rule> = Kind::ALL.into_iter().map(|kind| rule(kind, kind.limits().map(|limits| *limits.start()), 0)).collect();
        let changes = reading.changes(&rules, &[], NOW);
        for (n, change) in changes.iter().enumerate() {
            prop_assert!(change.detail.chars().count() <= 200 && change.subject.len() <= LONGEST_SUBJECT);
            prop_assert!(changes[..n].iter().all(|other| (other.rule, &other.subject) != (change.rule, &change.subject)));
        }
    }
}
