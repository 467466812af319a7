//! Ten thousand simulated devices on one server with its own broker and SQLite: what each costs, how soon a click takes effect
//! among them, and how soon all are back when all were cut off at once.
//!
//! Devices and server share the machine, so times are those of both together.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::fleet::{ADMIN, ORG, Server};
use crate::mqtt::Client;
use crate::peers::{Home, beside};
use crate::process::Process;
use crate::table::{Row, Unit, median, percentile};

const DEVICES: usize = 10_000;
const METRICS_TOKEN: &str = "only-the-benchmark-knows";
/// Commands that are timed, one after the other.
const COMMANDS: usize = 300;
/// Heartbeats come once in so many seconds.
const EVERY: u64 = 60;
/// Ten thousand enrolments are ten thousand transactions.
const ONLINE_WITHIN: Duration = Duration::from_secs(240);
/// A storm may take this long.
const OVER_WITHIN: Duration = Duration::from_secs(120);
/// What was said into a broken connection is said again after two heartbeats without an acknowledgement, in seconds.
const SETTLES_WITHIN: u64 = 3 * EVERY;

/// The rows of this room.
///
/// # Errors
/// When devices stay away, or a heartbeat is lost.
pub async fn rows() -> Result<Vec<Row>> {
    let home = Home::new(
        "[log]\nfilter = \"off\"\n[fleet]\nlisten = \"127.0.0.1:0\"\nmetrics_token_file = \"metrics-token\"\n[fleet.broker]\n\
         listen = \"127.0.0.1:0\"\n",
    )?;
    home.write("metrics-token", METRICS_TOKEN)?;
    let mut server = Server::start(&home, None).await?;
    let since = server.process.started();
    let found = |line: &str| line.split("mqtt://").nth(1).map(|addr| addr.trim().to_owned());
    let (_, broker) = server.process.line(since, OVER_WITHIN, "broker's address", found).await?;
    let empty = server.process.resident()?;
    let code = server.post("/enrolment-codes", json!({"uses": DEVICES})).await?;
    let code = code["code"].as_str().context("no code")?.to_owned();

    let report = home.state("report.json");
    let mut command = Command::new(beside("r58")?);
    command
        .args(["sim", "--devices", &DEVICES.to_string(), "--fleet", &server.url, "--code", &code, "--seed", "58"])
        .args(["--heartbeat", &EVERY.to_string(), "--outages", "0", "--site-outages", "0", "--effect", "0.001"])
        .args([
            "--failures",
            "0",
            "--wrong-clocks",
            "0",
            "--unset-clocks",
            "0",
            "--settle",
            &SETTLES_WITHIN.to_string(),
        ])
        .arg("--report")
        .arg(&report)
        .env_remove("RUST_LOG");
    let mut sim = Process::start("r58 sim", &mut command)?;
    until_online(&server, &mut sim).await?;
    // Each has said its first heartbeat by then.
    let before = Looks::until_now(&server).await?;
    tokio::time::sleep(Duration::from_secs(EVERY)).await;
    let after = Looks::until_now(&server).await?;
    let full = server.process.resident()?;

    let clicks = clicks(&server, broker.parse()?).await?;
    sim.signal(Signal::SIGUSR1)?;
    // Nothing but the report tells how long it lasted; the session is ended when nobody is away any more.
    let begin = Instant::now();
    loop {
        sim.is_alive()?;
        ensure!(begin.elapsed() < OVER_WITHIN, "not all devices came back");
        tokio::time::sleep(Duration::from_secs(1)).await;
        if begin.elapsed() > Duration::from_secs(EVERY / 2) && online(&server).await? == DEVICES as u64 {
            break;
        }
    }
    sim.signal(Signal::SIGINT)?;
    sim.ended(Duration::from_secs(SETTLES_WITHIN) + OVER_WITHIN).await?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report)?)?;
    ensure!(report["settled"] == true && report["pending"] == 0 && report["dropped"] == 0, "something was lost");
    let database = SqliteConnectOptions::new().filename(home.state("fleet").join("fleet.db")).read_only(true);
    let pool = SqlitePool::connect_with(database).await?;
    let stored: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM heartbeats").fetch_one(&pool).await?;
    pool.close().await;
    ensure!(report["heartbeats"] == stored, "{} heartbeats measured, {stored} stored", report["heartbeats"]);
    let storm = report["storm_seconds"][0].as_f64().context("the storm was not over")?;

    let among = format!("{DEVICES} devices");
    let figure = |value: Option<f64>| value.context("no figure");
    let looks = Looks {
        seconds: after.seconds - before.seconds,
        count: after.count - before.count,
        heartbeats: after.heartbeats - before.heartbeats,
    };
    ensure!(looks.count > 0.0 && looks.heartbeats > 0.0, "nobody looked for alerts");
    Ok(vec![
        Row::new(format!("{among}: memory of the server for each"), Unit::Kb, (full - empty) / DEVICES as f64 / 1e3),
        Row::new(format!("{among}: memory of the server"), Unit::Mb, full / 1e6),
        Row::new(format!("{among}: click to effect, p50"), Unit::Ms, figure(median(&clicks))?),
        Row::new(format!("{among}: click to effect, p99"), Unit::Ms, figure(percentile(&clicks, 99))?),
        Row::new(format!("{among}: a look for alerts, one a second"), Unit::Ms, looks.seconds * 1e3 / looks.count),
        Row::new(format!("{among}: alerts, for each heartbeat"), Unit::Ms, looks.seconds * 1e3 / looks.heartbeats),
        Row::new(format!("{among}: all cut off to all back, nothing lost"), Unit::Seconds, storm),
    ])
}

/// What looking for alerts has cost since the server started.
struct Looks {
    seconds: f64,
    count: f64,
    heartbeats: f64,
}

impl Looks {
    async fn until_now(server: &Server) -> Result<Self> {
        let told = server.metrics(METRICS_TOKEN).await?;
        let figure = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).with_context(|| format!("no {name}"))
        };
        Ok(Self {
            seconds: figure("r58_fleet_alert_look_duration_seconds_sum")?,
            count: figure("r58_fleet_alert_look_duration_seconds_count")?,
            heartbeats: figure("r58_fleet_heartbeats_stored_total")?,
        })
    }
}

async fn online(server: &Server) -> Result<u64> {
    let page = server.get("/devices?status=online&page_size=1").await?;
    page["total"].as_u64().context("no total")
}

async fn until_online(server: &Server, sim: &mut Process) -> Result<()> {
    let begin = Instant::now();
    loop {
        sim.is_alive()?;
        let online = online(server).await?;
        if online == DEVICES as u64 {
            return Ok(());
        }
        ensure!(begin.elapsed() < ONLINE_WITHIN, "{online} of {DEVICES} devices are online after {ONLINE_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Milliseconds from each POST of a command to its terminal status on the broker.
async fn clicks(server: &Server, broker: std::net::SocketAddr) -> Result<Vec<f64>> {
    let filter = format!("r58/1/{ORG}/+/up/cmd/#");
    let login = (ADMIN, server.password.as_str());
    let mut client = Client::connect_as(broker, "bench-watcher", login, &[&filter]).await?;
    let mut took = Vec::with_capacity(COMMANDS);
    for n in 0..COMMANDS {
        // All over the fleet, and never the same twice.
        let device = format!("sim-{:05}", n * (DEVICES / COMMANDS) + 1);
        let order = json!({"type": "take", "payload": {"scene": "quad"}});
        let begin = Instant::now();
        let made = server.post(&format!("/devices/{device}/commands"), order).await?;
        let id = made["id"].as_str().context("a command without an id")?;
        let ended = |topic: &str, payload: &[u8]| {
            let state = serde_json::from_slice::<Value>(payload).unwrap_or_default()["state"].clone();
            topic.ends_with(id) && state == "succeeded"
        };
        took.push((client.next("end of a command", ended).await? - begin).as_secs_f64() * 1000.0);
    }
    Ok(took)
}
