//! A guest's join from the click to the first decoded picture, by each road that leads to a box; and an ICE restart.
//!
//! The client is the same each time, in this process; the click is the moment before it asks for ICE servers. Everything is on
//! loopback, so a figure is what machines take. What a network adds is the round trips, counted from what each protocol says
//! one after the other:
//!
//! | step | round trips |
//! |---|---|
//! | TCP, ICE servers, POST | 3, one more with TLS 1.3; the broker's way adds one of its own to each request |
//! | candidates of a relay, before the offer | 2 (Allocate is refused once for its nonce) |
//! | ICE check, DTLS 1.2 with its cookie | 1 + 3 |
//! | key frame, asked for when the first packet came | 1 |
//!
//! By the SFU the box's own session runs beside the guest's: two requests and its ICE and DTLS come after the guest's POST.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use r58_pipelines::ice::IceServer;
use r58_pipelines::peer::PeerFactory;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleet::Fleet;
use crate::peers::{Home, PATIENCE, RunningBox};
use crate::process::Process;
use crate::rtc::{Client, OPUS, VP8, session};
use crate::sfu::{APP_ID, SECRET, Sfu};
use crate::table::{Row, Unit, median};

const ROUNDS: usize = 5;
const TOKEN: &str = "bench-seat-token-0123456789abcdef";
const TURN_SECRET: &str = "north-sea-herring";
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// One way to a box.
struct Road {
    name: &'static str,
    trips: u32,
    /// Where ICE servers are asked for, and where the offer goes.
    servers: String,
    endpoint: String,
    /// Where sessions are found.
    origin: String,
    token: String,
    relay: bool,
}

/// The rows of this room.
///
/// # Errors
/// When the box cannot be started; a road that does not lead to it is a row that says so.
pub async fn rows() -> Result<Vec<Row>> {
    let turn = turn_server().await;
    let fleet = Fleet::start(0).await?;
    let sfu = Sfu::start();
    let code = fleet.post("/enrolment-codes", json!({})).await?;
    let code = code["code"].as_str().context("no enrolment code")?;
    let port = turn.as_ref().map_or(3478, |(port, ..)| *port);
    let home = Home::new(&format!(
        "[log]\nfilter = \"off,r58_actors=debug\"\nformat = \"text\"\n[device]\nid = \"bench\"\nlisten = \"127.0.0.1:0\"\n\
         [device.webrtc]\nloopback = true\n[[device.seats]]\nid = \"guest1\"\ntoken = \"{TOKEN}\"\n\
         [[device.inputs]]\nid = \"cam1\"\nsource = {{ kind = \"test\", pattern = \"ball\", tone_hz = 330.0 }}\n\
         [device.turn]\nshared_secret_file = \"turn-secret\"\nshared_urls = [\"turn:127.0.0.1:{port}?transport=udp\"]\n\
         [device.sfu]\napp_id = \"{APP_ID}\"\nsecret_file = \"sfu-secret\"\nbase_url = \"{}\"\n\
         [device.link]\nfleet_url = \"{}\"\nmqtt_url = \"mqtt://{}\"\nenrolment_code = \"{code}\"\nhost = \"record\"\n",
        sfu.url, fleet.server.url, fleet.broker.addr
    ))?;
    home.write("turn-secret", TURN_SECRET)?;
    home.write("sfu-secret", SECRET)?;
    let mut device = RunningBox::start(&home).await?;
    device.mixer("programme", |stats| stats["frames"].as_u64() > Some(60)).await?;

    let url = device.url.clone();
    let local = |name, trips, endpoint: &str, relay| Road {
        name,
        trips,
        servers: format!("{url}/api/turn-credentials"),
        endpoint: format!("{url}{endpoint}"),
        origin: url.clone(),
        token: TOKEN.to_owned(),
        relay,
    };
    let mut roads = vec![Ok(local("direct", 8, "/whip/guest1", false))];
    roads.push(match &turn {
        Ok(_) => Ok(local("by relay on both ends", 10, "/whip/guest1", true)),
        Err(error) => Err(("by relay on both ends", format!("{error:#}"))),
    });
    roads.push(over_mqtt(&fleet).await.map_err(|error| ("signalled over MQTT", format!("{error:#}"))));
    roads.push(Ok(local("by the SFU", 15, "/api/calls/whip/guest1", false)));
    let mut rows = Vec::new();
    for road in roads {
        let road = match road {
            Ok(road) => road,
            Err((name, error)) => {
                rows.push(Row::missing(format!("join {name}: click to first decoded frame"), error));
                continue;
            }
        };
        let what = format!("join {}: click to first decoded frame, {} round trips", road.name, road.trips);
        let mut times = Vec::new();
        let mut failed = None;
        for _ in 0..ROUNDS {
            match join(&mut device, &road).await {
                Ok(time) => times.push(time),
                Err(error) => {
                    failed = Some(format!("{error:#}"));
                    break;
                }
            }
        }
        rows.push(match (median(&times), failed) {
            (Some(time), None) => Row::new(what, Unit::Ms, time),
            (_, failed) => Row::missing(what, failed.unwrap_or_default()),
        });
    }
    device.process.stop().await;
    rows.push(Row::new("ICE restart: longest time without a packet", Unit::Ms, restart_gap().await?));
    Ok(rows)
}

/// The median gap of some restarts, between a client and the box's peer without the box around it, in milliseconds.
async fn restart_gap() -> Result<f64> {
    let factory = PeerFactory::new(session::settings())?;
    let mut session = session::join(&factory, &[], &[VP8, OPUS]).await;
    let mut gaps = Vec::new();
    for _ in 0..ROUNDS {
        gaps.push(session.restart().await.2.as_secs_f64() * 1000.0);
    }
    session.client.close().await;
    session.peer.close().await;
    median(&gaps).context("no restart")
}

/// From the click to the first decoded picture, in milliseconds; the guest has left again then.
async fn join(device: &mut RunningBox, road: &Road) -> Result<f64> {
    let http = reqwest::Client::builder().pool_max_idle_per_host(1).build()?;
    let begin = Instant::now();
    let told: Value = http.get(&road.servers).bearer_auth(&road.token).send().await?.error_for_status()?.json().await?;
    let servers = if road.relay { ice_servers(&told) } else { Vec::new() };
    ensure!(!road.relay || !servers.is_empty(), "the box gives no TURN servers: {told}");
    let client = Client::open(&[VP8, OPUS], &servers, road.relay).await;
    client.send(&[VP8, OPUS]).await;
    let offer = client.offer().await;
    let request = http.post(&road.endpoint).bearer_auth(&road.token).header("Content-Type", "application/sdp");
    let answer = request.body(offer).send().await?;
    ensure!(answer.status() == StatusCode::CREATED, "{}: {}", answer.status(), answer.text().await?);
    let session = answer.headers().get("Location").and_then(|at| at.to_str().ok()).unwrap_or_default().to_owned();
    client.accept(answer.text().await?).await;
    let seen = |line: &str| line.contains("first picture of a guest").then_some(());
    let (at, ()) = device.process.line(begin, PATIENCE, "decoded picture", seen).await?;
    http.delete(format!("{}{session}", road.origin)).bearer_auth(&road.token).send().await?;
    client.close().await;
    let left = Instant::now();
    while device.get("/api/seats").await?["items"][0]["state"] != "free" {
        ensure!(left.elapsed() < FREE_WITHIN, "the seat does not become free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((at - begin).as_secs_f64() * 1000.0)
}

/// As browsers take them, in an object or in a list.
fn ice_servers(told: &Value) -> Vec<IceServer> {
    let entries = match &told["iceServers"] {
        Value::Array(entries) => entries.clone(),
        one => vec![one.clone()],
    };
    let server = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        let urls = entry["urls"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        IceServer { urls: urls.collect(), username: text("username"), credential: text("credential") }
    };
    entries.iter().map(server).filter(|server| server.username.is_some()).collect()
}

/// An invitation of the fleet server to the box, without a waiting room.
async fn over_mqtt(fleet: &Fleet) -> Result<Road> {
    let order = json!({ "seat": "guest1", "name": "Bench", "uses": "repeated", "admit": false });
    let begin = Instant::now();
    let made = loop {
        match fleet.post("/devices/bench/invitations", order.clone()).await {
            Ok(made) => break made,
            Err(error) => ensure!(begin.elapsed() < PATIENCE, "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let text = |key: &str| made[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in the invitation"));
    let name = format!("{}.bench", text("id")?);
    Ok(Road {
        name: "signalled over MQTT",
        trips: 10,
        servers: format!("{}/guest/{name}", fleet.server.url),
        endpoint: format!("{}/whip/{name}", fleet.server.url),
        origin: fleet.server.url.clone(),
        token: text("token")?,
        relay: false,
    })
}

/// coturn on a port of its own.
async fn turn_server() -> Result<(u16, Process, TempDir)> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str| dir.path().join(name).display().to_string();
    let port = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("turnserver");
    command.args([
        "-n",
        "--no-tls",
        "--no-dtls",
        "--no-cli",
        "--no-multicast-peers",
        "--allow-loopback-peers",
        "--fingerprint",
    ]);
    command.args(["--use-auth-secret", &format!("--static-auth-secret={TURN_SECRET}"), "--realm=r58.bench"]);
    command.args(["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", &format!("--listening-port={port}")]);
    command.args([&format!("--userdb={}", file("db")), &format!("--pidfile={}", file("pid"))]);
    command.args(["--log-file=stdout", "--simple-log"]);
    let mut server = Process::start("turnserver", &mut command).context("coturn")?;
    let since = server.started();
    let ready = |line: &str| line.contains("Total General servers").then_some(());
    server.line(since, PATIENCE, "a listening TURN server", ready).await?;
    Ok((port, server, dir))
}
