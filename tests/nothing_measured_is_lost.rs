//! Nothing measured is lost: broker and server go and come back, the box is killed in between, and every heartbeat and every
//! result is there afterwards, in order.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::support::mosquitto::{Mosquitto, PASSWORD, TESTER};
use super::support::r58::PATIENCE;
use super::support::site::{Boxed, ORG, Site, assert_steps_in_order};
use super::support::wire::Wire;
use super::support::{stage, until};

/// How long each part is away: several heartbeats of one second.
const AWAY: Duration = Duration::from_secs(4);
/// Heartbeats that the box must have measured in that time, each up to 10 % late, one lost to its own restart.
const MEASURED_AWAY: usize = 2;

fn seq(heartbeat: &Value) -> u64 {
    heartbeat["seq"].as_u64().expect("a seq")
}

fn time(heartbeat: &Value) -> DateTime<Utc> {
    heartbeat["ts"].as_str().and_then(|text| text.parse().ok()).expect("a time")
}

/// The seqs, oldest heartbeat first, when there is none missing, none twice and none out of turn.
fn unbroken(heartbeats: &[Value]) -> Result<(), String> {
    for pair in heartbeats.windows(2) {
        if seq(&pair[1]) != seq(&pair[0]) + 1 {
            return Err(format!("{} is followed by {}", pair[0], pair[1]));
        }
    }
    Ok(())
}

/// Waits until the server holds a heartbeat from after `back`, and all before it.
async fn caught_up(site: &Site, boxed: &Boxed, away: DateTime<Utc>, back: DateTime<Utc>) -> Vec<Value> {
    let heartbeats = until(PATIENCE, "every heartbeat", || async {
        let heartbeats = site.api.heartbeats(&boxed.id).await?;
        if heartbeats.last().is_none_or(|last| time(last) <= back) {
            return Err("none since it is back".to_owned());
        }
        unbroken(&heartbeats).map(|()| heartbeats)
    })
    .await;
    let meanwhile = heartbeats.iter().filter(|one| time(one) > away && time(one) < back).count();
    assert!(meanwhile >= MEASURED_AWAY, "{meanwhile} heartbeats from the time away");
    heartbeats
}

/// Waits until the outage that began at `since` has lasted.
async fn lasted(since: DateTime<Utc>) {
    until(PATIENCE, "the time away", || async {
        let passed = (Utc::now() - since).to_std().unwrap_or_default();
        if passed >= AWAY { Ok(()) } else { Err(passed) }
    })
    .await;
}

#[tokio::test]
async fn every_heartbeat_and_every_result_arrives_in_order_when_broker_and_server_come_back() {
    let _stage = stage().await;
    let mut broker = Mosquitto::prepare();
    let mut site = Site::with(&broker).await;
    let boxed = site.enrol("box1", "services = [\"kiosk.service\"]").await;
    broker.let_in(ORG, boxed.identity().token.expose());
    broker.start().await;
    let wire = Wire::start(&broker.url(), "tester", TESTER, PASSWORD, &boxed.topic("up/cmd/#")).await;
    let mut box1 = boxed.start().await;
    let first = until(PATIENCE, "some heartbeats", || async {
        let heartbeats = site.api.heartbeats(&boxed.id).await?;
        if heartbeats.len() >= 3 { Ok(seq(&heartbeats[0])) } else { Err(format!("{} so far", heartbeats.len())) }
    })
    .await;
    let mut commands = vec![site.api.command(&boxed.id, "take", json!({"scene": "two-up"})).await];
    site.api.ended(&commands[0]).await;

    // The broker goes, and forgets all; the box is killed and comes back while it is away.
    let away = Utc::now();
    broker.kill();
    commands.push(site.api.command(&boxed.id, "restart_service", json!({"service": "kiosk.service"})).await);
    commands.push(site.api.command(&boxed.id, "config", json!({"changes": {"inputs": {"cam1": {}}}})).await);
    box1.state_until("the loss noticed", |state| state["fleet"]["state"] != "online").await;
    box1.process.kill();
    let box1 = boxed.start().await;
    lasted(away).await;
    broker.start().await;
    caught_up(&site, &boxed, away, Utc::now()).await;
    for id in &commands {
        site.api.ended(id).await;
    }

    // The server goes; meanwhile the box does what was published by hand, and has nobody to tell.
    let by_hand = site.api.draft(&boxed.id, "reboot", json!({})).await;
    let more = site.api.draft(&boxed.id, "scene", json!({"scene": "pip"})).await;
    let away = Utc::now();
    site.kill_fleet();
    for draft in [&by_hand, &more] {
        wire.subscribed().await;
        wire.say(&draft.topic, draft.message.clone(), true).await;
        commands.push(draft.id.clone());
    }
    until(PATIENCE, "the reboot while nobody watches", || async {
        let asked = boxed.asked_of_host();
        if asked.len() == 2 { Ok(()) } else { Err(asked) }
    })
    .await;
    lasted(away).await;
    site.start_fleet().await;
    let heartbeats = caught_up(&site, &boxed, away, Utc::now()).await;

    for id in &commands {
        let command = site.api.ended(id).await;
        assert_eq!(command["state"], "succeeded", "{command}");
        assert_steps_in_order(&command);
    }
    assert_eq!(boxed.asked_of_host().len(), 2, "one unit and one reboot: {:?}", boxed.asked_of_host());
    assert!(seq(&heartbeats[0]) <= first, "the first is still there");
    assert!(heartbeats.windows(2).all(|pair| time(&pair[0]) <= time(&pair[1])), "out of order");
    let lives: Vec<u64> = heartbeats.iter().filter_map(|one| one["boot_seq"].as_u64()).collect();
    assert!(lives.is_sorted() && lives.first() != lives.last(), "both lives of the box: {lives:?}");
    let dropped = heartbeats.iter().filter_map(|one| one["outbox"]["dropped"].as_u64()).max();
    assert_eq!(dropped, Some(0), "the outbox gave nothing up");
    drop(box1);
}
