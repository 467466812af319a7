//! Some hundred simulated boxes and the fleet server keep the promises together: networks, sites and power fail, the server
//! is killed with its broker in the middle of the load, and in the end every heartbeat and every result is stored once, every
//! command has ended in one state, and presence is true.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::process::Process;
use super::support::r58::{PATIENCE, binary};
use super::support::site::{Site, is_ended};
use super::support::{stage, until};

const DEVICES: usize = 120;
/// What a debug build on a busy machine may need to carry everything home.
const HOME_WITHIN: Duration = Duration::from_secs(120);

fn sim(site: &Site, dir: &Path, more: &[&str]) -> Process {
    let mut command = Command::new(binary());
    command
        .args(["sim", "--devices", &DEVICES.to_string(), "--fleet", &site.api.base, "--seed", "58", "--heartbeat", "3"])
        .args(["--keep", &dir.join("kept").display().to_string()])
        .args(["--report", &dir.join("report.json").display().to_string(), "--settle", "100"])
        .args(more)
        .env_remove("RUST_LOG");
    Process::start("r58 sim", &mut command)
}

/// Asks it to end, and answers with its report.
async fn report_of(mut sim: Process, dir: &Path) -> Value {
    if sim.is_alive() {
        sim.signal(Signal::SIGINT);
    }
    let status = sim.ended(HOME_WITHIN).await;
    assert!(status.success(), "{status}: {}", sim.output());
    let text = std::fs::read_to_string(dir.join("report.json")).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

async fn online(site: &Site) -> Result<u64, String> {
    let page = site.api.call(Method::GET, "/api/v1/devices?status=online&page_size=1", None).await?;
    page["total"].as_u64().ok_or_else(|| page.to_string())
}

async fn until_online(site: &Site, within: Duration, wanted: u64) {
    until(within, &format!("{wanted} boxes online"), || async {
        let online = online(site).await?;
        if online == wanted { Ok(()) } else { Err(format!("{online} online")) }
    })
    .await;
}

/// One command for each box, of all kinds; some are nonsense.
async fn command_all(site: &Site, round: usize) {
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
        async move { site.api.command(&format!("sim-{n:05}"), op, args).await }
    };
    futures_util::stream::iter(1..=DEVICES).map(order).buffer_unordered(4).collect::<Vec<_>>().await;
}

/// Every command of the fleet, once all have ended.
async fn ended_commands(site: &Site) -> Vec<Value> {
    let of = |n: usize| async move {
        let path = format!("/api/v1/devices/sim-{n:05}/commands?page_size=50");
        until(HOME_WITHIN, &format!("the end of every command of sim-{n:05}"), || async {
            let page = site.api.call(Method::GET, &path, None).await?;
            let commands = page["items"].as_array().cloned().unwrap_or_default();
            if commands.iter().all(is_ended) { Ok(commands) } else { Err(page.to_string()) }
        })
        .await
    };
    futures_util::stream::iter(1..=DEVICES).map(of).buffer_unordered(4).concat().await
}

#[tokio::test]
async fn outages_and_a_killed_server_cost_a_simulated_fleet_no_result_and_no_heartbeat() {
    let _stage = stage().await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut site = Site::start().await;
    let code = site.api.post("/api/v1/enrolment-codes", &json!({"uses": DEVICES})).await;
    let rough = [
        "--code",
        code["code"].as_str().expect("a code"),
        "--site",
        "30",
        "--outages",
        "60",
        "--site-outages",
        "40",
        "--outage",
        "2",
        "--power-cuts",
        "0.4",
        "--effect",
        "0.3",
        "--failures",
        "0.1",
        "--calm-after",
        "20",
    ];
    let mut sim = sim(&site, dir.path(), &rough);
    sim.line(PATIENCE, "an enrolled fleet", |line| {
        line.contains(&format!("enrolled {DEVICES} of {DEVICES}")).then_some(())
    })
    .await;
    command_all(&site, 0).await;
    site.kill_fleet();
    site.start_fleet().await;
    command_all(&site, 1).await;
    sim.line(HOME_WITHIN, "calm", |line| line.contains(" calm: ").then_some(())).await;

    let commands = ended_commands(&site).await;
    until_online(&site, HOME_WITHIN, DEVICES as u64).await;
    let report = report_of(sim, dir.path()).await;

    assert_eq!(report["settled"], true, "{report}");
    assert_eq!(report["online"], DEVICES, "presence said so too");
    assert_eq!((&report["pending"], &report["dropped"], &report["errors"]), (&json!(0), &json!(0), &json!(0)));
    let cuts = |what: &str| report[what].as_u64().unwrap_or_default();
    assert!(cuts("power_cuts") > 0 && cuts("outages") > 0 && cuts("connections") > DEVICES as u64, "it was rough");
    assert_eq!((&report["commands"]["effects_repeated"], &report["commands"]["ended_twice"]), (&json!(0), &json!(0)));
    assert_eq!(commands.len(), 2 * DEVICES);
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for command in &commands {
        *states.entry(command["state"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert_eq!(json!(states), report["commands"]["ended"], "both sides count the same ends");
    assert!(states["succeeded"] > DEVICES as u64 && states["rejected"] > 0, "{states:?}");

    for device in report["each"].as_array().expect("devices") {
        let id = device["device_id"].as_str().expect("an id");
        // From the beginning of time, where a box without a clock lives.
        let path = format!("/api/v1/devices/{id}/heartbeats?since=1970-01-01T00:00:00Z&page_size=200");
        let page = site.api.get(&path).await;
        let stored = page["items"].as_array().expect("heartbeats");
        let mut seqs: Vec<u64> = stored.iter().filter_map(|one| one["seq"].as_u64()).collect();
        seqs.sort_unstable();
        let (first, last) = (device["first_seq"].as_u64().unwrap(), device["last_seq"].as_u64().unwrap());
        assert_eq!(seqs, (first..=last).collect::<Vec<_>>(), "{id}: each heartbeat once");
        assert_eq!(device["heartbeats"], seqs.len(), "{id}");
    }
    until_online(&site, PATIENCE, 0).await;

    // The same fleet again, without a code.
    let again = self::sim(&site, dir.path(), &["--outages", "0", "--site-outages", "0"]);
    until_online(&site, PATIENCE, DEVICES as u64).await;
    let second = report_of(again, dir.path()).await;
    let ids = |report: &Value| -> Vec<Value> {
        report["each"].as_array().expect("devices").iter().map(|device| device["device_id"].clone()).collect()
    };
    assert_eq!(ids(&second), ids(&report));
    assert_eq!((&second["settled"], &second["commands"]["effects"]), (&json!(true), &json!(0)), "nothing done again");
}
