//! Commands by the link: each effect once, each refusal with an answer and few lines in the log.

use r58_mqtt::command::Step;

use super::*;
use crate::host::Recorded;

#[actix_rt::test]
async fn a_retained_command_delivered_three_times_takes_effect_once() {
    let mut rig = Rig::start().await;
    let (topic, body) = rig.signed("c1", "take", json!({"scene": "quad"}));
    rig.fleet.say(&topic, body.clone(), true).await;
    let first = rig.end_of("c1").await;
    assert_eq!((first.state, first.result.clone()), (CommandState::Succeeded, Some(json!({"pgm": "quad"}))));
    rig.fleet.say(&topic, body.clone(), true).await;
    let again = rig.end_of("c1").await;
    assert!(again.command.is_some(), "for a server that never heard of it");
    assert_eq!(CommandStatus { command: None, ..again }, first, "the last status again");
    // A rebuilt link subscribes anew, and its journal has only the disk.
    assert!(rig.house.restart("fleet_link").await);
    rig.greet().await;
    rig.fleet.say(&topic, body, true).await;
    assert_eq!(CommandStatus { command: None, ..rig.end_of("c1").await }, first);
    assert_eq!(rig.asked(), ["cut quad"]);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_command_that_the_server_waits_for_and_the_broker_lost_is_asked_for_until_it_is_here() {
    let mut rig = Rig::prepared().await;
    rig.engage();
    for _ in 0..2 {
        rig.fleet.until(|message| message.topic.ends_with("up/sync").then_some(())).await;
        rig.answer_sync_with(json!(["c1"]), json!({})).await;
    }
    rig.fleet.until(|message| message.topic.ends_with("up/sync").then_some(())).await;
    assert_eq!(rig.command("c1", "take", json!({"scene": "quad"})).await.state, CommandState::Succeeded);
    rig.stop().await;
}

#[actix_rt::test]
async fn commands_that_nobody_signed_or_that_ask_for_nonsense_have_no_effect_and_an_answer() {
    let mut rig = Rig::start().await;
    let end = |status: CommandStatus| (status.state, status.code.unwrap_or_default());
    let unsupported = rig.command("c1", "format_disk", json!({})).await;
    assert_eq!(end(unsupported), (CommandState::Rejected, "unsupported".to_owned()));
    for (n, op, args, code) in [
        (1, "scene", json!({"scene": 7}), "arguments"),
        (2, "take", json!({"scene": "nowhere"}), "unknown_scene"),
        (3, "scene", json!({"scene": "nowhere"}), "unknown_scene"),
        (4, "take", json!({"kind": "mix", "duration_ms": 60_000}), "arguments"),
        (5, "restart_service", json!({"service": "ssh.service"}), "not_listed"),
        (6, "config", json!({"changes": {"colour": "red"}}), "invalid"),
        (7, "reboot", json!({"delay_seconds": 301}), "arguments"),
    ] {
        let wrong = rig.command(&format!("w{n}"), op, args).await;
        assert_eq!((wrong.rev, wrong.attempt), (1, 0), "{op} was never begun");
        assert_eq!(end(wrong), (CommandState::Rejected, code.to_owned()), "{op}");
    }
    let (topic, body) = rig.signed("c5", "take", json!({"scene": "quad"}));
    let forged = String::from_utf8(body).unwrap().replace("quad", "full");
    rig.fleet.say(&topic, forged, true).await;
    assert_eq!(end(rig.end_of("c5").await), (CommandState::Rejected, "signature".to_owned()));
    rig.fleet.say("r58/1/org/box1/down/cmd/c6", "{", true).await;
    assert_eq!(end(rig.end_of("c6").await), (CommandState::Rejected, "malformed".to_owned()));
    let refused = rig.command("c8", "take", json!({"scene": "refused"})).await;
    assert_eq!(end(refused), (CommandState::Failed, "refused".to_owned()), "only the mixer could know");
    let panicking = rig.command("c7", "take", json!({"scene": "panic"})).await;
    assert_eq!(end(panicking), (CommandState::Failed, "panic".to_owned()));
    assert_eq!(rig.asked(), ["cut refused", "cut panic"]);
    assert_eq!(rig.link.borrow().state, "online");
    rig.stop().await;
}

#[actix_rt::test]
async fn each_operation_reaches_whom_it_concerns() {
    let mut rig = Rig::start().await;
    for (id, op, args) in [
        ("c1", "scene", json!({"scene": "quad"})),
        ("c2", "identify", json!({"seconds": 3})),
        ("c3", "restart_service", json!({"service": "kiosk.service"})),
        ("c4", "config", json!({"changes": {"label": "A"}})),
    ] {
        assert_eq!(rig.command(id, op, args).await.state, CommandState::Succeeded, "{op}");
    }
    assert_eq!(rig.asked(), ["preview quad", "identify 3"]);
    assert_eq!(rig.host.recorded(), [Recorded::RestartUnit { unit: "kiosk.service".to_owned() }]);
    assert_eq!(rig.settings.operations.config.overlay().ver, 1);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_played_reboot_happens_once_and_the_box_comes_back_with_another_boot_id() {
    let mut rig = Rig::start().await;
    let before = crate::host::Host::boot_id(&*rig.host).unwrap();
    let (topic, body) = rig.signed("c1", "reboot", json!({}));
    rig.fleet.say(&topic, body, true).await;
    let end = rig.end_of("c1").await;
    assert_eq!(end.state, CommandState::Succeeded);
    assert_ne!(end.boot_id, before);
    let states: Vec<CommandState> =
        rig.fleet.heard.iter().filter_map(|message| status(message, "c1")).map(|status| status.state).collect();
    assert!(states.contains(&CommandState::Rebooting), "{states:?}");
    assert_eq!(rig.host.recorded(), [Recorded::Reboot { delay_seconds: 0.0 }]);
    // The retained copy is still there; the next command runs as ever.
    rig.greet().await;
    assert_eq!(rig.command("c2", "scene", json!({"scene": "quad"})).await.state, CommandState::Succeeded);
    assert_eq!(rig.host.recorded().len(), 1);
    rig.stop().await;
}

#[test]
fn every_step_of_the_core_is_passed_by_this_shell() {
    let shell = [include_str!("../link.rs"), include_str!("../effects.rs"), include_str!("../courier.rs")].concat();
    for step in Step::ALL {
        assert!(shell.contains(&format!("Step::{step:?}")), "{step:?} is never passed");
    }
}

#[actix_rt::test]
async fn box_and_server_finish_their_business_over_a_broker_that_dies_and_comes_back() {
    use crate::ingest::desk::{CommandDesk, DeskSettings};
    use crate::ingest::{Ingest, IngestSettings};
    use crate::testkit::MemoryFleet;
    let mut rig = Rig::prepared().await;
    let rows = Arc::new(MemoryFleet::default());
    let (events, _) = tokio::sync::broadcast::channel(1024);
    let desk = DeskSettings { session: rig.broker.client("desk"), store: rows.clone(), events: events.clone() };
    let desk = rig.house.engage(Duty::new("desk", "desk"), move |life| CommandDesk::new(life, desk.clone()));
    let mut ingest = IngestSettings::new(rig.broker.client("ingest"), rows.clone(), events);
    ingest.desk = Some(desk.door());
    rig.house.engage(Duty::new("ingest", "ingest"), move |life| Ingest::new(life, ingest.clone()));
    rig.engage();
    let done = async |rig: &mut Rig, id: &str| {
        let (_, body) = rig.signed(id, "take", json!({"scene": id}));
        let id = CommandId::new(id).unwrap();
        rows.add_command(&rig.address, &id, body);
        id
    };
    let ended = async |id: &CommandId| {
        let withdrawn = || Some(rows.command(id)).filter(|row| row.withdrawn);
        let row = eventually("withdrawn after its end", withdrawn).await;
        assert_eq!(row.state, Some(CommandState::Succeeded), "{row:?}");
    };
    let first = done(&mut rig, "one").await;
    ended(&first).await;
    rig.broker.kill();
    let second = done(&mut rig, "two").await;
    let store = rig.settings.store.clone();
    let before = store.scan(b"o/e/tm/hb").unwrap().len();
    eventually("beats on disk", || (store.scan(b"o/e/tm/hb").unwrap().len() >= before + 2).then_some(())).await;
    rig.broker.again();
    ended(&second).await;
    assert_eq!(rig.asked(), ["cut one", "cut two"]);
    // Everything that was measured is stored, and the server's acknowledgements free the disk again.
    eventually("no gap", || {
        let rows = lock(&rows.0);
        let seqs: Vec<u64> = rows.heartbeats.keys().map(|(_, seq)| *seq).collect();
        let whole = seqs.windows(2).all(|pair| pair[1] == pair[0] + 1);
        (seqs.len() >= 4 && whole).then_some(())
    })
    .await;
    eventually("a free disk", || (store.scan(b"o/e/tm/hb").unwrap().len() <= 3).then_some(())).await;
    rig.stop().await;
}

#[actix_rt::test]
async fn a_server_that_lost_the_first_status_hears_of_a_command_published_past_it() {
    let mut rig = Rig::start().await;
    let later = chrono::Utc::now() + TimeDelta::minutes(10);
    let (topic, body) = rig.signed_with("hand", "take", json!({"scene": "quad"}), |command| {
        command.not_before = Some(later);
    });
    rig.fleet.say(&topic, body, true).await;
    rig.fleet.until(|m| status(m, "hand").filter(|status| status.state == CommandState::Queued)).await;
    // The server's database knows nothing of it: none of its commands is this one.
    rig.fleet.heard.clear();
    rig.answer_sync(json!({})).await;
    let told = rig.fleet.until(|m| status(m, "hand")).await;
    assert_eq!(told.state, CommandState::Queued);
    assert_eq!(told.command.map(|inside| inside["args"]["scene"].clone()), Some(json!("quad")));
    rig.stop().await;
}
