//! Some hundred simulated boxes and the fleet server keep the promises together: networks, sites and power fail, the server
//! is killed with its broker in the middle of the load, and in the end every heartbeat and every result is stored once, every
//! command has ended in one state, and presence is true. The same with a mosquitto that dies alone.

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::support::backstage;
use super::support::mosquitto::{Mosquitto, PASSWORD};
use super::support::r58::PATIENCE;
use super::support::sim::{
    HOME_WITHIN, Simulated, assert_carried_home, assert_heartbeats_stored_once, ended_commands, id, states_of,
    until_online,
};
use super::support::site::{ORG, Site};

const DEVICES: usize = 120;
/// Of the fleet whose broker dies.
const FEW: usize = 30;

/// One command for each box, of all kinds; some are nonsense.
async fn command_all(site: &Site, devices: usize, round: usize) {
    let ops = [
        ("take", json!({"scene": "quad"})),
        ("identify", json!({"seconds": 1})),
        ("restart_service", json!({"service": "kiosk.service"})),
        ("config", json!({"changes": {"label": "new"}})),
        ("take", json!({"scene": "nowhere"})),
        ("scene", json!({"scene": "pip"})),
        ("reboot", json!({})),
    ];
    let order = |n: usize| {
        let (op, args) = ops[(n + round) % ops.len()].clone();
        async move { site.api.command(&id(n), op, args).await }
    };
    futures_util::stream::iter(1..=devices).map(order).buffer_unordered(4).collect::<Vec<_>>().await;
}

async fn code_for(site: &Site, devices: usize) -> String {
    let code = site.api.post("/api/v1/enrolment-codes", &json!({"uses": devices})).await;
    code["code"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn outages_and_a_killed_server_cost_a_simulated_fleet_no_result_and_no_heartbeat() {
    let _backstage = backstage().await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut site = Site::start().await;
    let code = code_for(&site, DEVICES).await;
    let kept = dir.path().join("kept").display().to_string();
    let rough = ["--keep", &kept, "--code", &code, "--site", "30", "--outages", "60", "--site-outages", "40"];
    let dice = ["--outage", "2", "--power-cuts", "0.4", "--effect", "0.3", "--failures", "0.1", "--calm-after", "20"];
    let mut sim = Simulated::start(&site.api.base, DEVICES, dir.path(), &[&rough[..], &dice[..]].concat());
    sim.process
        .line(PATIENCE, "an enrolled fleet", |line| {
            line.contains(&format!("enrolled {DEVICES} of {DEVICES}")).then_some(())
        })
        .await;
    command_all(&site, DEVICES, 0).await;
    site.kill_fleet();
    site.start_fleet().await;
    command_all(&site, DEVICES, 1).await;
    sim.process.line(HOME_WITHIN, "calm", |line| line.contains(" calm: ").then_some(())).await;

    let commands = ended_commands(&site.api, DEVICES).await;
    until_online(&site.api, HOME_WITHIN, DEVICES).await;
    let report = sim.report().await;

    assert_carried_home(&report);
    assert_eq!(report["online"], DEVICES, "presence said so too");
    let cuts = |what: &str| report[what].as_u64().unwrap_or_default();
    assert!(cuts("power_cuts") > 0 && cuts("outages") > 0 && cuts("connections") > DEVICES as u64, "it was rough");
    assert_eq!(commands.len(), 2 * DEVICES);
    let states = states_of(&commands);
    assert_eq!(json!(states), report["commands"]["ended"], "both sides count the same ends");
    assert!(states["succeeded"] > DEVICES as u64 && states["rejected"] > 0, "{states:?}");
    assert_heartbeats_stored_once(&site.api, &report).await;
    until_online(&site.api, PATIENCE, 0).await;

    // The same fleet again, without a code.
    let calm = ["--keep", &kept, "--outages", "0", "--site-outages", "0"];
    let again = Simulated::start(&site.api.base, DEVICES, dir.path(), &calm);
    until_online(&site.api, PATIENCE, DEVICES).await;
    let second = again.report().await;
    let ids = |report: &Value| -> Vec<Value> {
        report["each"].as_array().expect("devices").iter().map(|device| device["device_id"].clone()).collect()
    };
    assert_eq!(ids(&second), ids(&report));
    assert_eq!((&second["settled"], &second["commands"]["effects"]), (&json!(true), &json!(0)), "nothing done again");
}

#[tokio::test]
async fn a_mosquitto_that_forgets_everything_twice_costs_a_simulated_fleet_no_result_and_no_heartbeat() {
    let _backstage = backstage().await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut broker = Mosquitto::prepare();
    // All boxes of an organization are one user there.
    broker.let_in(ORG, PASSWORD);
    broker.start().await;
    let site = Site::with(&broker).await;
    let (url, password) = (broker.url(), dir.path().join("password"));
    std::fs::write(&password, PASSWORD).expect("write");
    let password = password.display().to_string();
    let code = code_for(&site, FEW).await;
    let way = ["--code", &code, "--broker", &url, "--broker-password-file", &password];
    let dice = ["--outages", "20", "--site-outages", "0", "--outage", "1", "--effect", "0.3", "--failures", "0.1"];
    let sim = Simulated::start(&site.api.base, FEW, dir.path(), &[&way[..], &dice[..]].concat());
    until_online(&site.api, HOME_WITHIN, FEW).await;
    for round in [0, 2] {
        command_all(&site, FEW, round).await;
        broker.kill();
        command_all(&site, FEW, round + 1).await;
        broker.start().await;
    }
    let commands = ended_commands(&site.api, FEW).await;
    let report = sim.report().await;
    assert_carried_home(&report);
    assert_eq!(commands.len(), 4 * FEW);
    assert_eq!(json!(states_of(&commands)), report["commands"]["ended"], "both sides count the same ends");
    assert_heartbeats_stored_once(&site.api, &report).await;
}
