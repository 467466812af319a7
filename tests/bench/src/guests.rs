//! How many guests a core decodes: they join one after the other until the worst one's rate falls.
//!
//! All send the same 1280x720 at 30 a second by H.264, encoded once in this process, and the box decodes each by itself. Only
//! the box's processor time counts, beyond its use without guests. The box tells its counters once a second, so a rate is
//! taken between two moments at which they were told anew: between two moments of one's own choice they may be a second old,
//! which over a window of six looks like a loss of five frames a second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::broadcast;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc::rtp::packet::Packet;
use webrtc::rtp_transceiver::rtp_codec::RTCRtpCodecCapability;
use webrtc::track::track_local::TrackLocalWriter;
use webrtc::track::track_local::track_local_static_rtp::TrackLocalStaticRTP;
use webrtc::util::Unmarshal;

use crate::peers::{Home, PATIENCE, RunningBox};
use crate::rtc::{CONSTRAINED_BASELINE, Client, Encoder, Stream};
use crate::table::{Row, Unit};

/// The seats that a box may have.
const MOST: usize = 8;
const WINDOW: Duration = Duration::from_secs(8);
/// Nine tenths of the rate that is sent.
const FULL_RATE: f64 = 27.0;
/// With the seat's number behind it, each has its own.
const TOKEN: &str = "bench-seat-token-0123456789abcdef";

const PICTURES: Stream = Stream {
    launch: "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1 ! \
             x264enc name=enc tune=zerolatency speed-preset=ultrafast bitrate=2500 key-int-max=300 ! \
             video/x-h264,profile=constrained-baseline ! rtph264pay mtu=1200 config-interval=-1 aggregate-mode=none",
    ..CONSTRAINED_BASELINE
};

/// The rows of this room.
///
/// # Errors
/// When the box cannot be started or lets the first guest not in.
pub async fn rows() -> Result<Vec<Row>> {
    let seats: String =
        (1..=MOST).map(|n| format!("[[device.seats]]\nid = \"guest{n}\"\ntoken = \"{TOKEN}{n}\"\n")).collect();
    let home = Home::new(&format!(
        "[device]\nid = \"bench\"\nlisten = \"127.0.0.1:0\"\n[device.webrtc]\nloopback = true\n\
         [[device.inputs]]\nid = \"cam1\"\nsource = {{ kind = \"test\", pattern = \"ball\", tone_hz = 330.0 }}\n{seats}"
    ))?;
    let device = RunningBox::start(&home).await?;
    device.mixer("programme", |stats| stats["frames"].as_u64() > Some(60)).await?;
    let (packets, _) = broadcast::channel::<Bytes>(4096);
    let to = packets.clone();
    let encoder = Encoder::start(&PICTURES, move |packet| drop(to.send(packet)));
    let alone = device.cores(WINDOW).await?;
    let (mut clients, mut full) = (Vec::new(), (0, alone, 0.0));
    for n in 1..=MOST {
        clients.push(join(&device, n, &packets, encoder.keyframe()).await?);
        let before = told(&device, n).await?;
        let used = device.cores(WINDOW).await?;
        let after = told(&device, n).await?;
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let rates = before.frames.iter().zip(&after.frames).map(|(a, b)| (b - a) / seconds);
        let worst = rates.fold(f64::INFINITY, f64::min);
        if worst < FULL_RATE {
            break;
        }
        full = (n, used, worst);
    }
    for client in clients {
        client.close().await;
    }
    drop(encoder);
    device.process.stop().await;
    let (guests, used, worst) = full;
    ensure!(guests > 0, "not even one guest is decoded at its rate");
    let each = (used - alone) / guests as f64;
    Ok(vec![
        Row::new("guests (720p30 H.264) at full rate, their sender beside them", Unit::Frames, guests as f64),
        Row::new("guests: pictures a second of the worst of them", Unit::Fps, worst),
        Row::new("guests: a core's share each", Unit::Percent, each * 100.0),
        Row::new("guests a core of the box decodes", Unit::Frames, (1.0 / each).floor()),
    ])
}

/// Pictures decoded so far, and when the box told it.
struct Told {
    at: Instant,
    frames: Vec<f64>,
}

/// Waits until the box tells its counters anew; those of the first `guests` seats.
async fn told(device: &RunningBox, guests: usize) -> Result<Told> {
    let known = device.get("/api/state").await?["programme"]["frames"].clone();
    let begin = Instant::now();
    loop {
        let state = device.get("/api/state").await?;
        if state["programme"]["frames"] != known {
            return Ok(Told { at: Instant::now(), frames: frames(&state, guests)? });
        }
        ensure!(begin.elapsed() < PATIENCE, "the box tells no new counters");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn frames(state: &Value, guests: usize) -> Result<Vec<f64>> {
    let inputs = state["inputs"].as_array().context("no inputs")?;
    let of = |n: usize| {
        let id = format!("guest{n}");
        let input = inputs.iter().find(|input| input["id"] == id.as_str()).with_context(|| format!("no {id}"))?;
        input["frames"].as_f64().with_context(|| format!("{id} counts no frames: {input}"))
    };
    (1..=guests).map(of).collect()
}

async fn join(
    device: &RunningBox,
    n: usize,
    packets: &broadcast::Sender<Bytes>,
    keyframe: impl Fn() + Send + Sync + 'static,
) -> Result<Client> {
    let client = Client::open(&[PICTURES], &[], false).await;
    let capability = RTCRtpCodecCapability {
        mime_type: PICTURES.mime.to_owned(),
        clock_rate: PICTURES.clock,
        sdp_fmtp_line: PICTURES.fmtp.to_owned(),
        ..Default::default()
    };
    let track = std::sync::Arc::new(TrackLocalStaticRTP::new(capability, "video".to_owned(), format!("guest{n}")));
    let sender = client.pc.add_track(track.clone()).await?;
    let endpoint = format!("{}/whip/guest{n}", device.url);
    let request =
        device.http.post(endpoint).bearer_auth(format!("{TOKEN}{n}")).header("Content-Type", "application/sdp");
    let answer = request.body(client.offer().await).send().await?;
    ensure!(answer.status() == StatusCode::CREATED, "guest {n} was answered {}", answer.status());
    client.accept(answer.text().await?).await;
    let mut up = client.state.clone();
    let connected = up.wait_for(|state| *state == RTCPeerConnectionState::Connected);
    tokio::time::timeout(PATIENCE, connected).await.context("a guest does not connect")??;
    tokio::spawn(async move {
        while let Ok((reports, _)) = sender.read_rtcp().await {
            if reports.iter().any(|report| report.as_any().is::<PictureLossIndication>()) {
                keyframe();
            }
        }
    });
    let mut packets = packets.subscribe();
    tokio::spawn(async move {
        loop {
            let mut packet = match packets.recv().await {
                Ok(packet) => packet,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let Ok(packet) = Packet::unmarshal(&mut packet) else { return };
            if track.write_rtp(&packet).await.is_err() {
                return;
            }
        }
    });
    let live = |state: &Value| {
        let inputs = state["inputs"].as_array().into_iter().flatten();
        inputs.clone().any(|input| input["id"] == format!("guest{n}").as_str() && input["signal"] == "live")
    };
    let begin = Instant::now();
    while !live(&device.get("/api/state").await?) {
        ensure!(begin.elapsed() < PATIENCE, "guest {n} does not come alive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(client)
}
