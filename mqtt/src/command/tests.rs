//! The core in scenes: one rule of the protocol each.

use std::time::Duration;

use serde_json::{Map, json};

use super::rig::{Rig, command, id, sync, wall};
use super::*;
use crate::payload::{ClockState, DeviceState, OnInterrupt, SyncDown};
use crate::sign::VerifyError;

#[test]
fn a_command_is_journalled_then_acknowledged_then_executed_once() {
    let mut rig = Rig::ready();
    let packet = rig.deliver(&command("a", 1, "take"));
    assert!(!rig.acked(packet) && rig.effects("a") == 0, "nothing happens before the write is durable");
    rig.settle();
    assert!(rig.acked(packet));
    assert_eq!(rig.effects("a"), 1);
    assert_eq!(rig.state("a"), Some(DeviceState::Executing));
    rig.finish("a", 1);
    rig.settle();
    assert_eq!(rig.told("a"), [DeviceState::Accepted, DeviceState::Executing, DeviceState::Succeeded]);
    let revs: Vec<u64> = rig.statuses.iter().map(|status| status.rev).collect();
    assert_eq!(revs, [1, 2, 3]);
    assert!(rig.statuses[0].command.is_some(), "the first status carries the command");
    assert_eq!(rig.statuses[2].result, Some(json!({"ok": true})));
    assert_eq!(rig.rows[&id("a")].command.args, Map::new(), "a tombstone keeps no arguments");
}

#[test]
fn a_command_delivered_three_times_has_one_effect_and_its_last_status_is_told_again() {
    let mut rig = Rig::ready();
    let command = command("a", 1, "take");
    let packets = [rig.deliver(&command), rig.deliver(&command), rig.deliver(&command)];
    rig.settle();
    rig.finish("a", 1);
    rig.settle();
    let told = rig.told("a").len();
    let late = rig.deliver(&command);
    rig.settle();
    assert!(packets.iter().all(|packet| rig.acked(*packet)) && rig.acked(late));
    assert_eq!(rig.effects("a"), 1);
    assert_eq!(rig.told("a").len(), told + 1);
    assert_eq!(rig.statuses.last().unwrap().rev, 3);
    assert_eq!(rig.statuses.last().unwrap().state, DeviceState::Succeeded);
}

#[test]
fn another_command_with_a_known_id_is_a_conflict_and_changes_nothing() {
    let mut rig = Rig::ready();
    rig.deliver(&command("a", 1, "take"));
    rig.settle();
    let packet = rig.deliver(&command("a", 1, "set"));
    rig.settle();
    assert!(rig.acked(packet));
    let last = rig.statuses.last().unwrap();
    assert_eq!((last.rev, last.state, last.code.as_deref()), (0, DeviceState::Rejected, Some("conflict")));
    assert_eq!(rig.state("a"), Some(DeviceState::Executing));
}

#[test]
fn a_forgery_is_told_once_leaves_no_trace_and_does_not_block_the_real_command() {
    let mut rig = Rig::ready();
    let packet = rig.forge("a", VerifyError::Unsigned);
    rig.settle();
    assert!(rig.acked(packet) && rig.rows.is_empty());
    assert_eq!(rig.statuses.last().unwrap().code.as_deref(), Some("signature"));
    rig.deliver(&command("a", 1, "take"));
    rig.settle();
    let told = rig.statuses.len();
    let second = rig.forge("a", VerifyError::WrongSignature);
    rig.settle();
    assert!(rig.acked(second));
    assert_eq!(rig.statuses.len(), told, "a forgery of a known command is not reported as that command");
    assert_eq!(rig.effects("a"), 1);
}

#[test]
fn a_flood_of_forgeries_is_acknowledged_but_not_all_told() {
    let mut rig = Rig::ready();
    let packets: Vec<u64> = (0..1000).map(|n| rig.forge(&format!("f{n}"), VerifyError::WrongHash)).collect();
    rig.settle();
    assert!(packets.iter().all(|packet| rig.acked(*packet)));
    assert!(rig.statuses.len() <= 20, "{} statuses", rig.statuses.len());
    rig.pass(Duration::from_secs(61));
    rig.forge("later", VerifyError::WrongHash);
    rig.settle();
    assert_eq!(rig.statuses.last().unwrap().id, id("later"));
}

#[test]
fn a_command_that_the_shell_objects_to_is_rejected_without_a_beginning() {
    let mut rig = Rig::ready();
    let nowhere = command("a", 1, "take");
    let packet = rig.deliver_objected(&nowhere, "unknown_scene", &"x".repeat(10_000));
    rig.settle();
    assert!(rig.acked(packet));
    assert_eq!((rig.told("a"), rig.effects("a")), (vec![DeviceState::Rejected], 0));
    let last = rig.statuses.last().unwrap();
    assert_eq!((last.code.as_deref(), last.rev), (Some("unknown_scene"), 1));
    assert_eq!(last.reason.as_ref().map(String::len), Some(MAX_REASON_CHARS), "a tombstone keeps no essay");
    // What was decided stays decided, also when the scene has come to be.
    rig.deliver(&nowhere);
    rig.settle();
    assert_eq!((rig.told("a"), rig.effects("a")), (vec![DeviceState::Rejected; 2], 0));
}

#[test]
fn a_server_that_does_not_wait_for_a_command_is_told_of_it_with_the_command() {
    let mut rig = Rig::ready();
    let mut by_hand = command("hand", 2, "take");
    by_hand.not_before = Some(wall(600));
    rig.deliver(&command("known", 1, "take"));
    rig.deliver(&by_hand);
    rig.settle();
    // Every status so far is lost on its way.
    rig.statuses.clear();
    let waiting = |names: &[&str]| Some(names.iter().map(|name| id(name)).collect());
    rig.feed(Input::Sync(Box::new(SyncDown { pending: waiting(&["known"]), ..sync(1, Some(0)) })));
    rig.settle();
    let [told] = &rig.statuses[..] else { panic!("{:?}", rig.statuses) };
    assert_eq!((&told.id, told.state), (&id("hand"), DeviceState::Queued));
    let inside = told.command.as_ref().expect("the command");
    assert_eq!((inside["op"].as_str(), inside["args"]["scene"].as_str()), (Some("take"), Some("quad")));
    assert_eq!(told.hash.as_ref(), Some(&rig.rows[&id("hand")].hash));
    // Known now, or a mere acknowledgement: nothing is said again.
    rig.feed(Input::Sync(Box::new(SyncDown { pending: waiting(&["known", "hand"]), ..sync(2, Some(0)) })));
    rig.feed(Input::Sync(Box::new(sync(3, None))));
    rig.settle();
    assert_eq!(rig.statuses.len(), 1);
}

#[test]
fn a_command_that_is_delivered_again_is_told_with_the_command_even_after_its_end() {
    let mut rig = Rig::ready();
    let by_hand = command("hand", 1, "take");
    rig.deliver(&by_hand);
    rig.settle();
    rig.finish("hand", 1);
    rig.settle();
    rig.statuses.clear();
    rig.deliver(&by_hand);
    rig.settle();
    let told = rig.statuses.last().unwrap();
    assert_eq!((told.state, told.rev), (DeviceState::Succeeded, 3));
    assert_eq!(told.command.as_ref().map(|inside| &inside["args"]["scene"]), Some(&json!("quad")));
}

#[test]
fn commands_run_one_at_a_time_in_order_of_seq() {
    let mut rig = Rig::ready();
    for (name, seq) in [("a", 1), ("c", 3), ("b", 2)] {
        rig.deliver(&command(name, seq, "take"));
    }
    rig.settle();
    assert_eq!((rig.effects("a"), rig.effects("b"), rig.effects("c")), (1, 0, 0));
    assert_eq!(rig.code("b"), Some("turn"));
    rig.finish("a", 1);
    rig.settle();
    assert_eq!((rig.effects("b"), rig.effects("c")), (1, 0));
    rig.finish("b", 1);
    rig.settle();
    assert_eq!(rig.effects("c"), 1);
}

#[test]
fn what_cannot_be_done_is_rejected_with_its_code() {
    let mut rig = Rig::ready();
    rig.feed(Input::Conditions { desired_ver: 4, activities: vec!["recording".into()] });
    let mut late = command("late", 1, "take");
    late.expires_at = wall(0);
    let unknown = command("unknown", 2, "format");
    let mut attempts = command("attempts", 3, "take");
    attempts.max_attempts = 0;
    let mut version = command("version", 4, "take");
    version.precond.desired_ver = Some(5);
    let mut busy = command("recording", 5, "take");
    busy.precond.not_while = vec!["recording".into()];
    let mut moon = command("moon", 6, "take");
    moon.precond.extra.insert("moon_phase".into(), json!("full"));
    for command in [&late, &unknown, &attempts, &version, &busy, &moon] {
        rig.deliver(command);
    }
    rig.settle();
    for (name, code) in [
        ("late", "expired"),
        ("unknown", "unsupported"),
        ("attempts", "malformed"),
        ("version", "precondition"),
        ("recording", "precondition"),
        ("moon", "precondition"),
    ] {
        assert_eq!((rig.state(name), rig.code(name)), (Some(DeviceState::Rejected), Some(code)), "{name}");
        assert_eq!(rig.effects(name), 0);
    }
}

#[test]
fn a_command_waits_for_its_time_and_expires_while_waiting() {
    let mut rig = Rig::ready();
    let mut later = command("later", 1, "take");
    later.not_before = Some(wall(100));
    let mut never = command("never", 2, "take");
    (never.not_before, never.expires_at) = (Some(wall(500)), wall(50));
    rig.deliver(&later);
    rig.deliver(&never);
    rig.settle();
    assert_eq!(rig.code("later"), Some("not_before"));
    let due = rig.core.poll_timeout(rig.now).unwrap();
    assert_eq!(due, rig.now + Duration::from_secs(50));
    rig.pass(Duration::from_secs(50));
    rig.settle();
    assert_eq!(rig.code("never"), Some("expired"));
    rig.pass(Duration::from_secs(50));
    rig.settle();
    assert_eq!(rig.effects("later"), 1);
}

#[test]
fn without_a_clock_commands_are_held_until_the_server_tells_the_time() {
    let mut rig = Rig::new();
    rig.deliver(&command("a", 5, "take"));
    rig.settle();
    assert_eq!((rig.state("a"), rig.code("a")), (Some(DeviceState::Queued), Some("clock")));
    assert_eq!(rig.statuses[0].clock, ClockState::Unset);
    rig.feed(Input::Sync(Box::new(sync(10, Some(0)))));
    rig.settle();
    assert_eq!(rig.effects("a"), 1);
}

#[test]
fn a_wiped_journal_holds_commands_until_the_floor_is_told_and_replays_none_below_it() {
    let mut rig = Rig::new();
    rig.feed(Input::Clock { wall: Some(wall(0)) });
    rig.deliver(&command("old", 5, "reboot"));
    rig.deliver(&command("new", 6, "take"));
    rig.settle();
    assert_eq!((rig.code("old"), rig.code("new")), (Some("sync"), Some("sync")));
    rig.feed(Input::Sync(Box::new(sync(0, None))));
    rig.settle();
    assert_eq!(rig.effects("old") + rig.effects("new"), 0, "a mere acknowledgement tells no floor");
    rig.feed(Input::Sync(Box::new(sync(0, Some(5)))));
    rig.settle();
    assert_eq!((rig.state("old"), rig.code("old")), (Some(DeviceState::Rejected), Some("stale")));
    assert_eq!(rig.effects("new"), 1);
    let older = rig.deliver(&command("older", 3, "take"));
    rig.settle();
    assert!(rig.acked(older) && !rig.rows.contains_key(&id("older")));
    assert_eq!(rig.statuses.last().unwrap().code.as_deref(), Some("stale"));
}

#[test]
fn a_withdrawn_command_is_cancelled_only_before_it_has_begun() {
    let mut rig = Rig::ready();
    rig.deliver(&command("a", 1, "take"));
    rig.deliver(&command("b", 2, "take"));
    rig.settle();
    rig.withdraw("a");
    rig.withdraw("b");
    rig.withdraw("stranger");
    assert_eq!(rig.state("a"), Some(DeviceState::Executing));
    assert_eq!((rig.state("b"), rig.code("b")), (Some(DeviceState::Cancelled), Some("withdrawn")));
    rig.finish("a", 1);
    rig.settle();
    assert_eq!((rig.state("a"), rig.effects("b")), (Some(DeviceState::Succeeded), 0));
}

#[test]
fn an_effect_that_does_not_end_is_abandoned_and_its_late_end_ignored() {
    let mut rig = Rig::ready();
    rig.deliver(&command("a", 1, "take"));
    rig.deliver(&command("b", 2, "take"));
    rig.settle();
    rig.pass(Duration::from_secs(300));
    rig.settle();
    assert_eq!(rig.state("a"), Some(DeviceState::TimedOut));
    assert!(rig.done.contains(&Output::Abandon { id: id("a"), attempt: 1 }));
    assert_eq!(rig.effects("b"), 1);
    rig.finish("a", 1);
    rig.settle();
    assert_eq!((rig.state("a"), rig.state("b")), (Some(DeviceState::TimedOut), Some(DeviceState::Executing)));
}

#[test]
fn a_command_cut_in_the_middle_is_interrupted_and_never_run_again() {
    let mut rig = Rig::ready();
    rig.deliver(&command("a", 1, "take"));
    rig.settle();
    rig.crash(false);
    rig.settle();
    assert_eq!((rig.state("a"), rig.effects("a")), (Some(DeviceState::Interrupted), 1));
    rig.deliver(&command("a", 1, "take"));
    rig.settle();
    assert_eq!(rig.effects("a"), 1);
}

#[test]
fn a_command_whose_row_was_not_durable_is_simply_received_again() {
    let mut rig = Rig::ready();
    rig.deliver(&command("a", 1, "take"));
    rig.crash(true);
    assert!(rig.rows.is_empty());
    rig.deliver(&command("a", 1, "take"));
    rig.settle();
    assert_eq!(rig.effects("a"), 1);
}

#[test]
fn resume_runs_an_idempotent_operation_again_while_attempts_remain() {
    let mut rig = Rig::ready();
    let mut resumable = command("a", 1, "set");
    (resumable.on_interrupt, resumable.max_attempts) = (OnInterrupt::Resume, 2);
    let mut harmful = command("b", 2, "take");
    (harmful.on_interrupt, harmful.max_attempts) = (OnInterrupt::Resume, 2);
    rig.deliver(&resumable);
    rig.settle();
    rig.crash(false);
    rig.settle();
    assert_eq!((rig.effects("a"), rig.rows[&id("a")].last.attempt), (2, 2));
    rig.finish("a", 1);
    rig.settle();
    assert_eq!(rig.state("a"), Some(DeviceState::Executing), "the end of an earlier attempt is not this one's");
    rig.crash(false);
    rig.settle();
    assert_eq!((rig.state("a"), rig.code("a")), (Some(DeviceState::Interrupted), Some("no_attempt_left")));
    rig.deliver(&harmful);
    rig.settle();
    rig.crash(false);
    rig.settle();
    assert_eq!((rig.state("b"), rig.effects("b")), (Some(DeviceState::Interrupted), 1));
}

#[test]
fn verify_asks_whether_the_effect_took_place() {
    for (answer, state, code) in [
        (Verification::Done(None), DeviceState::Succeeded, "verified"),
        (Verification::NotDone, DeviceState::Interrupted, "not_done"),
        (Verification::Unknown, DeviceState::Interrupted, "unverified"),
    ] {
        let mut rig = Rig::ready();
        let mut command = command("a", 1, "take");
        command.on_interrupt = OnInterrupt::Verify;
        rig.deliver(&command);
        rig.settle();
        rig.crash(false);
        assert_eq!(rig.state("a"), Some(DeviceState::Executing));
        rig.settle();
        let asked = rig.done.iter().filter(|output| matches!(output, Output::Verify { rebooted: false, .. })).count();
        assert_eq!((asked, rig.state("a")), (1, Some(DeviceState::Verifying)));
        rig.feed(Input::Verified { id: id("a"), attempt: 1, verification: answer });
        rig.settle();
        assert_eq!((rig.state("a"), rig.code("a"), rig.effects("a")), (Some(state), Some(code), 1));
    }
}

#[test]
fn a_verification_that_does_not_answer_ends_as_interrupted() {
    let mut rig = Rig::ready();
    let mut command = command("a", 1, "take");
    command.on_interrupt = OnInterrupt::Verify;
    rig.deliver(&command);
    rig.settle();
    rig.crash(false);
    rig.settle();
    rig.pass(Duration::from_secs(300));
    rig.settle();
    assert_eq!((rig.state("a"), rig.code("a")), (Some(DeviceState::Interrupted), Some("unverified")));
}

#[test]
fn a_reboot_is_durable_before_the_host_goes_down_and_succeeds_when_the_boot_id_changed() {
    let mut rig = Rig::ready();
    let reboot = command("r", 1, "reboot");
    rig.deliver(&reboot);
    rig.settle();
    rig.feed(Input::EffectRebooting { id: id("r"), attempt: 1 });
    let proceed = Output::Proceed { id: id("r"), attempt: 1 };
    assert!(!rig.done.contains(&proceed));
    rig.settle();
    assert!(rig.done.contains(&proceed));
    assert_eq!(rig.state("r"), Some(DeviceState::Rebooting));
    rig.crash(true);
    rig.deliver(&reboot);
    rig.settle();
    assert_eq!((rig.state("r"), rig.effects("r")), (Some(DeviceState::Succeeded), 1));
    let told = rig.told("r");
    assert!(told.windows(2).any(|pair| pair == [DeviceState::Rebooting, DeviceState::Verifying]));
}

#[test]
fn a_reboot_that_did_not_come_is_interrupted_and_a_rehearsed_one_succeeds() {
    let mut rig = Rig::ready();
    rig.deliver(&command("r", 1, "reboot"));
    rig.settle();
    rig.feed(Input::EffectRebooting { id: id("r"), attempt: 1 });
    rig.settle();
    rig.crash(false);
    rig.settle();
    assert_eq!((rig.state("r"), rig.code("r")), (Some(DeviceState::Interrupted), Some("not_rebooted")));
    rig.deliver(&command("s", 2, "reboot"));
    rig.settle();
    rig.feed(Input::EffectRebooting { id: id("s"), attempt: 1 });
    rig.settle();
    rig.finish("s", 1);
    rig.settle();
    assert_eq!(rig.state("s"), Some(DeviceState::Succeeded));
}

#[test]
fn the_breaker_stops_a_crash_loop_until_the_process_has_been_stable() {
    let mut rig = Rig::ready();
    let mut killer = command("k", 1, "set");
    (killer.on_interrupt, killer.max_attempts) = (OnInterrupt::Resume, 100);
    rig.deliver(&killer);
    rig.settle();
    for _ in 0..10 {
        rig.crash(false);
        rig.settle();
    }
    assert_eq!((rig.state("k"), rig.code("k")), (Some(DeviceState::Interrupted), Some("crash_loop")));
    assert_eq!(rig.effects("k"), 3);
    rig.deliver(&command("next", 2, "take"));
    rig.settle();
    assert_eq!(rig.code("next"), Some("crash_loop"));
    assert_eq!(rig.core.poll_timeout(rig.now), Some(rig.now + Duration::from_secs(300)));
    rig.pass(Duration::from_secs(300));
    rig.settle();
    assert_eq!(rig.effects("next"), 1);
}

#[test]
fn the_server_hears_again_how_a_command_ended_that_it_still_waits_for() {
    let mut rig = Rig::ready();
    rig.deliver(&command("a", 1, "take"));
    rig.settle();
    rig.finish("a", 1);
    rig.settle();
    let told = rig.statuses.len();
    let mut asks = sync(1, Some(0));
    asks.pending = Some(vec![id("a"), id("never-seen")]);
    rig.feed(Input::Sync(Box::new(asks)));
    rig.settle();
    assert_eq!(rig.statuses.len(), told + 1);
    assert_eq!(rig.statuses.last().unwrap().state, DeviceState::Succeeded);
}

#[test]
fn tombstones_outlive_the_expiry_by_thirty_days_and_then_the_floor_stands_in() {
    let mut rig = Rig::ready();
    let done = command("a", 7, "take");
    rig.deliver(&done);
    rig.settle();
    rig.finish("a", 1);
    rig.settle();
    let expiry = Duration::from_secs(3600 + 30 * 24 * 3600);
    rig.pass(expiry - Duration::from_secs(1));
    assert!(rig.rows.contains_key(&id("a")));
    rig.pass(Duration::from_secs(2));
    rig.settle();
    assert!(!rig.rows.contains_key(&id("a")));
    assert_eq!(rig.meta.seq_floor, 7);
    let mut replay = done;
    replay.expires_at = wall(i64::from(u32::MAX));
    rig.deliver(&replay);
    rig.settle();
    assert_eq!((rig.effects("a"), rig.statuses.last().unwrap().code.as_deref()), (1, Some("stale")));
}

#[test]
fn too_many_waiting_commands_are_refused_with_a_word() {
    let mut rig = Rig::new();
    for n in 0..70 {
        rig.deliver(&command(&format!("c{n}"), n + 1, "take"));
    }
    rig.settle();
    assert_eq!(rig.rows.len(), 64);
    assert_eq!(rig.statuses.iter().filter(|status| status.code.as_deref() == Some("busy")).count(), 6);
}

#[test]
fn progress_is_told_at_most_once_a_second() {
    let mut rig = Rig::ready();
    rig.deliver(&command("a", 1, "take"));
    rig.settle();
    for n in 0..100 {
        rig.feed(Input::EffectProgress { id: id("a"), attempt: 1, progress: f64::from(n) / 100.0 });
        rig.pass(Duration::from_millis(100));
    }
    rig.settle();
    let told = rig.statuses.iter().filter(|status| status.progress.is_some()).count();
    assert!((9..=11).contains(&told), "{told}");
}
