//! A guest joins by WHIP: POST to the answer, and POST to the first decoded picture, against `whipserversrc`.
//!
//! Both servers run the whole time, the same client joins one and the other in turn, with a connection of its own each
//! time. Like the join page it asks the box for ICE servers before it makes its offer. Whether a picture is decoded is told
//! by the decoding process itself, in a line on its output.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Client as Http, StatusCode};

use crate::peers::{Home, PATIENCE, RunningBox, beside};
use crate::process::Process;
use crate::rtc::{Client, OPUS, VP8};
use crate::table::{Row, Target, Unit, median};

const ROUNDS: usize = 7;
const SEAT: &str = "guest1";
const TOKEN: &str = "bench-seat-token-0123456789abcdef";

/// Milliseconds of one join.
struct Join {
    answered: f64,
    decoded: f64,
}

/// The rows of this room.
///
/// # Errors
/// When the box does not let its guest in.
pub async fn rows() -> Result<Vec<Row>> {
    let home = Home::new(&format!(
        "[log]\nfilter = \"off,r58_actors=debug\"\nformat = \"text\"\n[device]\nid = \"bench\"\nlisten = \"127.0.0.1:0\"\n\
         [device.webrtc]\nloopback = true\n[[device.seats]]\nid = \"{SEAT}\"\ntoken = \"{TOKEN}\"\n"
    ))?;
    let mut device = RunningBox::start(&home).await?;
    device.mixer("programme", |stats| stats["frames"].as_u64() > Some(60)).await?;
    let mut other = Ok(Vec::new());
    let mut ours = Vec::new();
    for _ in 0..ROUNDS {
        ours.push(to_us(&mut device).await?);
        if let Ok(joins) = &mut other {
            match to_whipserversrc().await {
                Ok(join) => joins.push(join),
                Err(error) => other = Err(format!("{error:#}")),
            }
        }
    }
    device.process.stop().await;
    let figures = |joins: &[Join], pick: fn(&Join) -> f64| joins.iter().map(pick).collect::<Vec<_>>();
    let row = |what: &str, pick: fn(&Join) -> f64| {
        let theirs = match &other {
            Ok(joins) => median(&figures(joins, pick)).ok_or_else(|| "no figure".to_owned()),
            Err(reason) => Err(reason.clone()),
        };
        let mine = median(&figures(&ours, pick)).context("no figure")?;
        anyhow::Ok(Row::new(what, Unit::Ms, mine).against("whipserversrc", theirs))
    };
    Ok(vec![
        row("guest: WHIP POST to 201", |join| join.answered)?.target(Target::AtMost(10.0)),
        row("guest: WHIP POST to first decoded frame", |join| join.decoded)?.target(Target::RatioAtMost(0.2)),
    ])
}

async fn to_us(device: &mut RunningBox) -> Result<Join> {
    let (url, http) = (device.url.clone(), device.http.clone());
    http.get(format!("{url}/api/turn-credentials")).bearer_auth(TOKEN).send().await?.error_for_status()?;
    let client = publisher().await;
    let offer = client.offer().await;
    let request = http.post(format!("{url}/whip/{SEAT}")).bearer_auth(TOKEN);
    let (begin, answered, location) = join(&client, request, offer).await?;
    let seen = |line: &str| line.contains("first picture of a guest").then_some(());
    let (at, ()) = device.process.line(begin, PATIENCE, "decoded picture", seen).await?;
    http.delete(format!("{url}{location}")).bearer_auth(TOKEN).send().await?.error_for_status()?;
    client.close().await;
    let left = Instant::now();
    loop {
        let seats = device.get("/api/seats").await?;
        if seats["items"][0]["state"] == "free" {
            break;
        }
        ensure!(left.elapsed() < PATIENCE, "the seat does not become free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Join { answered, decoded: (at - begin).as_secs_f64() * 1000.0 })
}

/// A server takes one guest in its life, so each round has a new one; its start is not counted.
async fn to_whipserversrc() -> Result<Join> {
    let mut command = Command::new(beside("whipserversrc")?);
    let mut server = Process::start("whipserversrc", &mut command)?;
    let since = server.started();
    let (_, url) =
        server.line(since, PATIENCE, "address", |line| line.strip_prefix("listening on ").map(str::to_owned)).await?;
    let client = publisher().await;
    let offer = client.offer().await;
    let (begin, answered, _) = join(&client, Http::new().post(url), offer).await?;
    let seen = |line: &str| line.contains("first picture of a guest").then_some(());
    let (at, ()) = server.line(begin, PATIENCE, "decoded picture", seen).await?;
    client.close().await;
    Ok(Join { answered, decoded: (at - begin).as_secs_f64() * 1000.0 })
}

async fn publisher() -> Client {
    let client = Client::open(&[VP8, OPUS], &[], false).await;
    client.send(&[VP8, OPUS]).await;
    client
}

/// When the POST left, milliseconds to its answer, and the session.
async fn join(client: &Client, request: reqwest::RequestBuilder, offer: String) -> Result<(Instant, f64, String)> {
    let begin = Instant::now();
    let answer = request.header("Content-Type", "application/sdp").body(offer).send().await?;
    let answered = begin.elapsed().as_secs_f64() * 1000.0;
    ensure!(answer.status() == StatusCode::CREATED, "the POST was answered {}", answer.status());
    let location = answer.headers().get("Location").and_then(|at| at.to_str().ok()).unwrap_or_default().to_owned();
    client.accept(answer.text().await?).await;
    Ok((begin, answered, location))
}
