//! Viewers of one encode: what each costs the box's processor, by WHEP at 1, 10 and 50 of them, and by HLS.
//!
//! The clients are in this process, and only the box's time counts: what it uses beyond its use without viewers. The picture
//! is noise, so that the stream has its full bitrate.
//!
//! What is known of others, found in November 2026. It says no more than an order of magnitude beside these rows (here 0.8 %
//! of a core each, with ten), for machine, stream and bitrate differ:
//! - MediaMTX: no figure of its makers was found. A user of 1.14 reports 99 % of three cores with 150 viewers by WebRTC, which
//!   is 2.0 % of a core each, at a bitrate that is not told (<https://github.com/bluenviron/mediamtx/issues/4963>).
//! - OvenMediaEngine's developers give for a rented core and 2 Mbit/s 3 to 6 % without and 16 to 33 % with twenty viewers by
//!   WebRTC over TCP: 0.7 to 1.4 % each (<https://github.com/OvenMediaLabs/OvenMediaEngine/issues/468>).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Client as Http, StatusCode};
use tokio::task::JoinSet;

use crate::peers::{Home, PATIENCE, RunningBox};
use crate::rtc::{CONSTRAINED_BASELINE, Client, OPUS};
use crate::table::{Row, Target, Unit};

const STEPS: [usize; 3] = [1, 10, 50];
const PLAYERS: usize = 50;
const WINDOW: Duration = Duration::from_secs(5);
/// Nothing is counted before the last viewer has been there for this long.
const WARM: Duration = Duration::from_secs(2);
/// Kilobits a second of the programme's pictures.
const KBPS: u32 = 2500;

/// A viewer, and the packets that it got.
struct Viewer {
    client: Client,
    packets: Arc<AtomicU64>,
}

/// The rows of this room.
///
/// # Errors
/// When the box does not let a viewer in, or a player finds nothing.
pub async fn rows() -> Result<Vec<Row>> {
    let home = Home::new(&format!(
        "[device]\nid = \"bench\"\nlisten = \"127.0.0.1:0\"\n[device.webrtc]\nloopback = true\n\
         [device.programme]\nwidth = 640\nheight = 360\nfps = 30\nbitrate_kbps = {KBPS}\n\
         [[device.inputs]]\nid = \"cam1\"\nsource = {{ kind = \"test\", pattern = \"snow\", tone_hz = 330.0 }}\n"
    ))?;
    let device = RunningBox::start(&home).await?;
    device.mixer("programme", |stats| stats["frames"].as_u64() > Some(60)).await?;
    let alone = device.cores(WINDOW).await?;
    let mut rows = Vec::new();
    let mut viewers: Vec<Viewer> = Vec::new();
    let mut first = None;
    for step in STEPS {
        while viewers.len() < step {
            viewers.push(watch(&device).await?);
        }
        tokio::time::sleep(WARM).await;
        let before: Vec<u64> = viewers.iter().map(|viewer| viewer.packets.load(Ordering::Relaxed)).collect();
        let each = (device.cores(WINDOW).await? - alone) / step as f64 * 100.0;
        let got = viewers.iter().zip(before).map(|(viewer, before)| viewer.packets.load(Ordering::Relaxed) - before);
        let (least, most) = (got.clone().min().unwrap_or_default(), got.max().unwrap_or_default());
        let row = Row::new(format!("viewers: a core's share each, {step} by WHEP"), Unit::Percent, each);
        // Flat: the fiftieth costs no more than the first, rough as that is measured.
        rows.push(match first {
            Some(one) if step == 50 => row.target(Target::AtMost(f64::max(one, 0.1) * 1.5)),
            _ => row,
        });
        first.get_or_insert(each);
        if step > 1 {
            let share = least as f64 / most.max(1) as f64 * 100.0;
            let what = format!("viewers: packets of the worst of {step} by those of the best");
            rows.push(Row::new(what, Unit::Percent, share).target(Target::AtLeast(95.0)));
        }
    }
    for viewer in viewers {
        viewer.client.close().await;
    }
    tokio::time::sleep(WARM).await;
    let mut players = JoinSet::new();
    for _ in 0..PLAYERS {
        players.spawn(play(device.url.clone(), device.http.clone()));
    }
    tokio::time::sleep(WARM).await;
    let each = (device.cores(WINDOW).await? - alone) / PLAYERS as f64 * 100.0;
    while let Some(player) = players.try_join_next() {
        player.context("a player panicked")??;
    }
    players.abort_all();
    rows.push(Row::new(format!("viewers: a core's share each, {PLAYERS} by HLS"), Unit::Percent, each));
    device.process.stop().await;
    Ok(rows)
}

async fn watch(device: &RunningBox) -> Result<Viewer> {
    let streams = [CONSTRAINED_BASELINE, OPUS];
    let client = Client::open(&streams, &[], false).await;
    client.receive(&streams).await;
    let packets = Arc::new(AtomicU64::new(0));
    let count = packets.clone();
    client.pc.on_track(Box::new(move |track, _, _| {
        let count = count.clone();
        Box::pin(async move {
            tokio::spawn(async move {
                while track.read_rtp().await.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        })
    }));
    let request = device.http.post(format!("{}/whep/programme", device.url)).header("Content-Type", "application/sdp");
    let answer = request.body(client.offer().await).send().await?;
    ensure!(answer.status() == StatusCode::CREATED, "a viewer was answered {}", answer.status());
    client.accept(answer.text().await?).await;
    let begin = Instant::now();
    while packets.load(Ordering::Relaxed) == 0 {
        ensure!(begin.elapsed() < PATIENCE, "a viewer gets nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(Viewer { client, packets })
}

/// Follows the playlist as a player at its end does: the part that is hinted at, and then the next playlist.
async fn play(url: String, http: Http) -> Result<()> {
    let base = format!("{url}/hls/programme");
    let after = |text: &str, key: &str| {
        text.split(key).nth(1).and_then(|rest| rest.split(['"', ',', '\n']).next()).map(str::to_owned)
    };
    let mut text = http.get(format!("{base}/index.m3u8")).send().await?.error_for_status()?.text().await?;
    loop {
        let first: u64 = after(&text, "MEDIA-SEQUENCE:").context("no sequence")?.parse()?;
        let segment = first + text.matches("#EXTINF").count() as u64;
        let open = text.rsplit("#EXTINF").next().unwrap_or_default().split_once(".m4s");
        let part = open.map_or(0, |(_, open)| open.matches("#EXT-X-PART:").count());
        let hint = after(&text, "PRELOAD-HINT:TYPE=PART,URI=\"").context("no hint")?;
        let hinted = http.get(format!("{base}/{hint}")).send();
        let next = http.get(format!("{base}/index.m3u8?_HLS_msn={segment}&_HLS_part={part}")).send();
        let (hinted, next) = tokio::join!(hinted, next);
        hinted?.error_for_status()?.bytes().await?;
        text = next?.error_for_status()?.text().await?;
    }
}
