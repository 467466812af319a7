//! A simulated fleet: `r58 sim` as a process, and what its report must say beside the server's own words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use super::process::Process;
use super::r58::binary;
use super::site::{Api, is_ended};
use super::until;

/// What a debug build on a busy machine may need to carry everything home.
pub const HOME_WITHIN: Duration = Duration::from_secs(150);

/// A running simulation.
pub struct Simulated {
    /// The process.
    pub process: Process,
    report: PathBuf,
}

impl Simulated {
    /// Starts `devices` boxes of the server at `fleet`, which say their heartbeats every 3 s; reports into `dir`.
    pub fn start(fleet: &str, devices: usize, dir: &Path, more: &[&str]) -> Self {
        let report = dir.join("report.json");
        let mut command = Command::new(binary());
        command
            .args(["sim", "--devices", &devices.to_string(), "--fleet", fleet, "--seed", "58", "--heartbeat", "3"])
            .args(["--report", &report.display().to_string(), "--settle", "140"])
            .args(more)
            .env_remove("RUST_LOG");
        Self { process: Process::start("r58 sim", &mut command), report }
    }

    /// Asks it to end, and answers with its report.
    pub async fn report(mut self) -> Value {
        if self.process.is_alive() {
            self.process.signal(Signal::SIGINT);
        }
        let status = self.process.ended(HOME_WITHIN).await;
        assert!(status.success(), "{status}: {}", self.process.output());
        let text = std::fs::read_to_string(self.report).expect("a report");
        serde_json::from_str(&text).expect("JSON")
    }
}

/// The id of a simulated box, counted from 1.
pub fn id(n: usize) -> String {
    format!("sim-{n:05}")
}

/// Waits until so many boxes are online.
pub async fn until_online(api: &Api, within: Duration, wanted: usize) {
    until(within, &format!("{wanted} boxes online"), || async {
        let page = api.call(Method::GET, "/api/v1/devices?status=online&page_size=1", None).await?;
        let online = page["total"].as_u64().ok_or_else(|| page.to_string())?;
        if online == wanted as u64 { Ok(()) } else { Err(format!("{online} online")) }
    })
    .await;
}

/// Every command of boxes 1 to `devices`, once all have ended.
pub async fn ended_commands(api: &Api, devices: usize) -> Vec<Value> {
    let of = |n: usize| async move {
        let path = format!("/api/v1/devices/{}/commands?page_size=200", id(n));
        until(HOME_WITHIN, &format!("the end of every command of {}", id(n)), || async {
            let page = api.call(Method::GET, &path, None).await?;
            let commands = page["items"].as_array().cloned().unwrap_or_default();
            if commands.iter().all(is_ended) { Ok(commands) } else { Err(page.to_string()) }
        })
        .await
    };
    futures_util::stream::iter(1..=devices).map(of).buffer_unordered(4).concat().await
}

/// How many of these commands ended in which state.
pub fn states_of(commands: &[Value]) -> BTreeMap<String, u64> {
    let mut states = BTreeMap::new();
    for command in commands {
        *states.entry(command["state"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    states
}

/// Fails unless the boxes got rid of all they had to say, and nothing was done or ended twice.
#[track_caller]
pub fn assert_carried_home(report: &Value) {
    assert_eq!(report["settled"], true, "{report}");
    assert_eq!((&report["pending"], &report["dropped"], &report["errors"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!((&report["commands"]["effects_repeated"], &report["commands"]["ended_twice"]), (&json!(0), &json!(0)));
}

/// Fails unless the server holds each heartbeat that was measured, once.
pub async fn assert_heartbeats_stored_once(api: &Api, report: &Value) {
    for device in report["each"].as_array().expect("devices") {
        let id = device["device_id"].as_str().expect("an id");
        let mut seqs: Vec<u64> = Vec::new();
        for page in 1.. {
            // From the beginning of time, where a box without a clock lives.
            let path = format!("/api/v1/devices/{id}/heartbeats?since=1970-01-01T00:00:00Z&page={page}&page_size=200");
            let stored = api.get(&path).await;
            let stored = stored["items"].as_array().expect("heartbeats");
            seqs.extend(stored.iter().filter_map(|one| one["seq"].as_u64()));
            if stored.len() < 200 {
                break;
            }
        }
        seqs.sort_unstable();
        let number = |key: &str| device[key].as_u64().expect("a number");
        let (first, last) = (number("first_seq"), number("last_seq"));
        assert_eq!(seqs, (first..=last).collect::<Vec<_>>(), "{id}: each heartbeat once");
        assert_eq!(device["heartbeats"], seqs.len(), "{id}");
    }
}
