//! The benchmarks: `make bench`, or `r58-bench [room ..]` beside a release build of `r58`.
//!
//! Each room measures one promise against what a user would run instead, in turn within one run, so that the ratio holds
//! on any machine; absolute figures are those of the machine. Everything is on loopback; everything started is ended.
//!
//! | room | what | against |
//! |---|---|---|
//! | `programme` | rate and gaps while inputs die, take latency | - |
//! | `mixer` | processor time a frame | gst-launch's compositor, voctocore |
//! | `guest` | WHIP answer and first decoded picture | whipserversrc |
//! | `join` | click to first decoded picture: direct, relayed, over MQTT, by the SFU; gap of an ICE restart | - |
//! | `guests` | guests that are decoded at full rate, and what each costs | - |
//! | `viewers` | processor time a viewer by WHEP at 1, 10 and 50, and of players of HLS | - |
//! | `command` | signed command to its terminal status | an MQTT echo |
//! | `start` | memory, exec to first heartbeat and frame | - |
//! | `heartbeats` | stored a second, in SQLite and PostgreSQL | a subscriber that throws them away, COPY, Node-RED |
//! | `storm` | with 10,000 devices: click to effect, memory of each, all back after all were cut off | - |
//! | `scale` | lists, searches and figures of 1,000,000 devices | - |

mod command;
mod fleet;
mod guest;
mod guests;
mod heartbeats;
mod join;
mod mixer;
mod mqtt;
mod nodered;
mod peers;
/// The PostgreSQL of the tests.
#[allow(dead_code, missing_docs)]
#[path = "../../support/postgres.rs"]
mod postgres;
mod process;
mod programme;
/// The guest of the media tests, who is the same client for both servers.
#[allow(missing_docs, clippy::unwrap_used)]
#[path = "../../../pipelines/tests/rtc_support/mod.rs"]
mod rtc;
mod scale;
/// The SFU of the tests.
#[allow(dead_code, missing_docs, clippy::unwrap_used)]
#[path = "../../support/sfu/mod.rs"]
mod sfu;
mod start;
mod storm;
mod table;
mod viewers;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::FutureExt;

use crate::table::Row;

/// That of `r58`, whose broker runs in this process too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A room that takes longer is broken.
const ROOM_LIMIT: Duration = Duration::from_secs(600);
const ROOMS: [&str; 11] =
    ["programme", "mixer", "guest", "guests", "join", "viewers", "command", "start", "heartbeats", "storm", "scale"];

#[tokio::main]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|room| !ROOMS.contains(&room.as_str())) {
        eprintln!("r58-bench: no room {unknown:?}; there are {}", ROOMS.join(", "));
        return ExitCode::FAILURE;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::select! {
        rows = measure(&wanted) => print!("\n{}", table::table(&rows)),
        // What runs is ended by being dropped.
        _ = tokio::signal::ctrl_c() => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

async fn measure(wanted: &[String]) -> Vec<Row> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("{cores} cores, load {load:.1} before the start");
    if load > 0.5 * cores as f64 {
        println!("this machine is busy with other things: the figures are rough");
    }
    let is_wanted = |room: &str| wanted.is_empty() || wanted.iter().any(|wish| wish == room);
    let mut rows = Vec::new();
    if is_wanted("programme") {
        rows.extend(room("programme", programme::rows()).await);
    }
    if is_wanted("mixer") {
        rows.extend(room("mixer", async { Ok(mixer::rows().await) }).await);
    }
    if is_wanted("guest") {
        rows.extend(room("guest", guest::rows()).await);
    }
    if is_wanted("guests") {
        rows.extend(room("guests", guests::rows()).await);
    }
    if is_wanted("viewers") {
        rows.extend(room("viewers", viewers::rows()).await);
    }
    if is_wanted("join") {
        rows.extend(room("join", join::rows()).await);
    }
    if is_wanted("command") {
        rows.extend(room("command", async { command::rows(&fleet::Fleet::start(0).await?).await }).await);
    }
    if is_wanted("start") {
        rows.extend(room("start", async { start::rows(&fleet::Fleet::start(0).await?).await }).await);
    }
    if is_wanted("heartbeats") {
        rows.extend(room("heartbeats", heartbeats::rows()).await);
    }
    if is_wanted("storm") {
        rows.extend(room("storm", storm::rows()).await);
    }
    if is_wanted("scale") {
        rows.extend(room("scale", scale::rows()).await);
    }
    rows
}

/// What a room cannot measure is said, not made up, and does not keep the others from theirs.
async fn room(name: &str, rows: impl Future<Output = Result<Vec<Row>>>) -> Vec<Row> {
    let begin = Instant::now();
    println!("{name} ..");
    let outcome = tokio::time::timeout(ROOM_LIMIT, AssertUnwindSafe(rows).catch_unwind()).await;
    println!("{name} took {:.0} s", begin.elapsed().as_secs_f64());
    match outcome {
        Ok(Ok(Ok(rows))) => rows,
        Ok(Ok(Err(error))) => vec![Row::missing(name, format!("{error:#}"))],
        Ok(Err(_)) => vec![Row::missing(name, "the client panicked, see above")],
        Err(_) => vec![Row::missing(name, format!("not done after {ROOM_LIMIT:?}"))],
    }
}
