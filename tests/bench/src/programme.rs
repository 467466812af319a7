//! The programme while its inputs die one after another, and how soon a take is seen.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::peers::{Home, PATIENCE, RunningBox, cameras};
use crate::rtc::{CONSTRAINED_BASELINE, Client, OPUS};
use crate::table::{Row, Target, Unit, largest, median};

const TAKES: usize = 40;

/// The rows of this room.
///
/// # Errors
/// When the box does not come up.
pub async fn rows() -> Result<Vec<Row>> {
    let config = format!(
        "[log]\nfilter = \"off\"\n[device]\nid = \"bench\"\nlisten = \"127.0.0.1:0\"\nrehearsal = true\n[device.webrtc]\nloopback = true\n{}",
        cameras()
    );
    let home = Home::new(&config)?;
    let device = RunningBox::start(&home).await?;
    device.mixer("programme", |stats| number(stats, "frames") > 60.0).await?;
    let mut rows = deaths(&device).await?;
    rows.extend(takes(&device).await?);
    device.process.stop().await;
    Ok(rows)
}

fn number(stats: &Value, key: &str) -> f64 {
    stats[key].as_f64().unwrap_or_default()
}

/// Each input that is on the programme dies in its own way; the rate is counted by the mixer, the gap at a viewer.
async fn deaths(device: &RunningBox) -> Result<Vec<Row>> {
    let viewer = Viewer::open(device).await?;
    let begin = Instant::now();
    let before = device.mixer("figures", Value::is_object).await?;
    for (camera, fault) in [("cam1", "unplug"), ("cam2", "stall"), ("cam3", "panic")] {
        device.post("/api/mixer/take", json!({"scene": format!("full-{camera}"), "kind": "cut"})).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        device.post(&format!("/api/cameras/{camera}/rehearse"), json!({"fault": fault})).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        if fault != "panic" {
            device.post(&format!("/api/cameras/{camera}/rehearse"), json!({"fault": "none"})).await?;
        }
    }
    let after = device.mixer("figures", Value::is_object).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let longest = viewer.longest_gap(begin)?;
    viewer.close().await;
    let more = |key| number(&after, key) - number(&before, key);
    let what = |what: &str| format!("{what} while inputs die (unplugged, stalled, panicked)");
    Ok(vec![
        Row::new(what("programme rate"), Unit::Fps, more("frames") / seconds).target(Target::AtLeast(29.9)),
        Row::new(what("slots without a frame"), Unit::Frames, more("missed_slots")).target(Target::AtMost(0.0)),
        Row::new(what("longest gap at a WHEP viewer"), Unit::Ms, longest),
        Row::new("longest gap at the compositor since the start", Unit::Ms, number(&after, "longest_gap_ms")),
    ])
}

/// By the mixer's own stamps: from the order to the first composed frame that shows it.
async fn takes(device: &RunningBox) -> Result<Vec<Row>> {
    let (mut frames, mut times) = (Vec::new(), Vec::new());
    for n in 0..TAKES {
        let scene = if n % 2 == 0 { "full-cam1" } else { "full-cam2" };
        let before = number(&device.mixer("figures", Value::is_object).await?, "takes");
        device.post("/api/mixer/take", json!({"scene": scene, "kind": "cut"})).await?;
        let stats = device.mixer("take", |stats| number(stats, "takes") > before).await?;
        frames.push(number(&stats, "last_take_frames"));
        times.push(number(&stats, "last_take_ms"));
        // In every phase of a frame.
        tokio::time::sleep(Duration::from_millis(20 + n as u64)).await;
    }
    let figure = |value: Option<f64>| value.context("no take");
    Ok(vec![
        Row::new(
            format!("take, command to first programme frame: most frames of {TAKES}"),
            Unit::Frames,
            figure(largest(&frames))?,
        )
        .target(Target::AtMost(2.0)),
        Row::new("take, the same in time (median)", Unit::Ms, figure(median(&times))?),
        Row::new("take, the same in time (longest)", Unit::Ms, figure(largest(&times))?),
    ])
}

/// Somebody who watches the programme by WHEP and notes when each picture arrives.
struct Viewer<'a> {
    client: Client,
    device: &'a RunningBox,
    session: String,
    pictures: Arc<Mutex<(BTreeSet<u32>, Vec<Instant>)>>,
}

impl<'a> Viewer<'a> {
    async fn open(device: &'a RunningBox) -> Result<Self> {
        let client = Client::open(&[CONSTRAINED_BASELINE, OPUS], &[], false).await;
        let pictures: Arc<Mutex<(BTreeSet<u32>, Vec<Instant>)>> = Arc::default();
        let seen = pictures.clone();
        client.pc.on_track(Box::new(move |track, _, _| {
            let seen = seen.clone();
            Box::pin(async move {
                if track.codec().capability.mime_type.to_lowercase().starts_with("video/") {
                    tokio::spawn(async move {
                        while let Ok((packet, _)) = track.read_rtp().await {
                            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                            if seen.0.insert(packet.header.timestamp) {
                                seen.1.push(Instant::now());
                            }
                        }
                    });
                }
            })
        }));
        client.receive(&[CONSTRAINED_BASELINE, OPUS]).await;
        let offer = client.offer().await;
        let request =
            device.http.post(format!("{}/whep/programme", device.url)).header("Content-Type", "application/sdp");
        let answer = request.body(offer).send().await?.error_for_status()?;
        let session = answer.headers().get("Location").and_then(|at| at.to_str().ok()).unwrap_or_default().to_owned();
        client.accept(answer.text().await?).await;
        let viewer = Self { client, device, session, pictures };
        let begin = Instant::now();
        while viewer.pictures.lock().unwrap_or_else(PoisonError::into_inner).1.len() < 30 {
            ensure!(begin.elapsed() < PATIENCE, "the viewer sees nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(viewer)
    }

    /// Longest time between two pictures since `begin`, in milliseconds.
    fn longest_gap(&self, begin: Instant) -> Result<f64> {
        let pictures = self.pictures.lock().unwrap_or_else(PoisonError::into_inner);
        let since: Vec<&Instant> = pictures.1.iter().filter(|at| **at >= begin).collect();
        let gaps: Vec<f64> = since.windows(2).map(|pair| (*pair[1] - *pair[0]).as_secs_f64() * 1000.0).collect();
        largest(&gaps).context("the viewer saw nothing")
    }

    async fn close(self) {
        let _ = self.device.http.delete(format!("{}{}", self.device.url, self.session)).send().await;
        self.client.close().await;
    }
}
