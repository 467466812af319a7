//! Promise: whatever happens to an input, a guest, a viewer, the way to the fleet or the fleet itself, every frame slot of the
//! programme's clock is filled, and what was away comes back by itself.
//!
//! Judged by the programme's own figures, which count what left the compositor: how many frames, and up to which running time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::support::browser::{Browser, Capture};
use super::support::jpeg::Picture;
use super::support::mosquitto::Mosquitto;
use super::support::r58::{EPHEMERAL, Home, PATIENCE, R58};
use super::support::sdp::offer;
use super::support::site::{Api, ORG, Site};
use super::support::{free_port, stage_alone, until};

/// A small picture, so that the machine has time for the tests.
const SMALL: &str = "[device.programme]\nwidth = 640\nheight = 360\nfps = 30\nbitrate_kbps = 500\n";
/// Frames a second of [`SMALL`].
const RATE: f64 = 30.0;
/// Frames a second of the boxes of a [`Site`].
const BOX_RATE: f64 = 10.0;
/// A viewer or a guest who went without a word is forgotten within this.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(60);

const CAMERAS: [&str; 4] = ["cam1", "cam2", "cam3", "cam4"];

#[tokio::test]
async fn inputs_stall_lose_their_cable_panic_and_are_rebuilt_and_come_back() {
    // No frame slot may be missed.
    let _stage = stage_alone().await;
    let home = Home::new(&format!("{EPHEMERAL}{SMALL}"));
    let demo = R58::start(&home, "demo").await;
    all_live(&demo, CAMERAS.len()).await;
    demo.state_until("the fleet reached", |state| state["fleet"]["state"] == "online").await;
    let api = Api::sign_in(&demo.fleet, demo.password.as_deref().expect("the first start's password")).await;
    let begin = Programme::of(&demo, RATE).await;
    assert!(is_red(&thumbnail(&demo, "cam2").await), "colour bars on cam2");

    // Each camera meets each fault, and none is spared while another has one.
    for round in 0..Fault::ALL.len() {
        let faults: Vec<_> = CAMERAS.iter().zip(Fault::ALL.into_iter().cycle().skip(round)).collect();
        let before = restarts(&demo).await;
        for (camera, fault) in &faults {
            fault.rehearse(&demo, &api, camera).await;
        }
        // At the same time: what heals by itself does not wait to be looked at.
        join_all(faults.iter().map(|(camera, fault)| fault.until_seen(&demo, &before, camera))).await;
        begin.goes_on(&demo, 30.0).await;
        let (unplugged, _) = faults.iter().find(|(_, fault)| *fault == Fault::Unplug).expect("one of four");
        if **unplugged == "cam2" {
            until(PATIENCE, "the slate on the tile", || async {
                if is_red(&thumbnail(&demo, "cam2").await) { Err("still colour bars") } else { Ok(()) }
            })
            .await;
        }
        all_live(&demo, CAMERAS.len() - 1).await;
        assert_eq!(input(&demo.state().await, unplugged)["signal"], "no_cable", "a cable that is out stays out");
        let (status, answer) =
            demo.post(&format!("/api/cameras/{unplugged}/rehearse"), &json!({ "fault": "none" })).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
        all_live(&demo, CAMERAS.len()).await;
        begin.goes_on(&demo, 10.0).await;
    }
    assert!(demo.stop().await.success());
}

#[tokio::test]
async fn guests_viewers_the_way_to_the_fleet_its_broker_and_its_server_vanish() {
    // No frame slot may be missed.
    let _stage = stage_alone().await;
    let mut broker = Mosquitto::prepare();
    let mut site = Site::with(&broker).await;
    let mut cable = Cable::to(&broker.url());
    cable.lay().await;
    let more = format!(
        "mqtt_url = \"{}\"\n[device.webrtc]\nloopback = true\n[[device.seats]]\nid = \"guest1\"\n",
        cable.url()
    );
    let boxed = site.enrol("box1", &more).await;
    broker.let_in(ORG, boxed.identity().token.expose());
    broker.start().await;
    let device = boxed.start().await;
    all_live(&device, 2).await;
    let begin = Programme::of(&device, BOX_RATE).await;
    link_is(&device, "online").await;

    let watching = Browser::start(&Capture::Pattern, None).await;
    watching.open(&format!("{}/", device.device)).await;
    device.state_until("a viewer", |state| state["programme"]["viewers"] == 1).await;
    let gone = Instant::now();
    offer_and_vanish(&device).await;
    watching.kill();
    begin.goes_on(&device, 30.0).await;

    cable.cut();
    link_is(&device, "down").await;
    begin.goes_on(&device, 30.0).await;
    cable.lay().await;
    link_is(&device, "online").await;

    broker.kill();
    link_is(&device, "down").await;
    begin.goes_on(&device, 30.0).await;
    broker.start().await;
    link_is(&device, "online").await;

    site.kill_fleet();
    begin.goes_on(&device, 30.0).await;
    site.start_fleet().await;
    until(PATIENCE, "the box on the new server's list", || async {
        let card = site.api.get("/api/v1/devices/box1").await;
        if card["online"] == true { Ok(()) } else { Err(card) }
    })
    .await;
    link_is(&device, "online").await;

    let left = FORGOTTEN_WITHIN.saturating_sub(gone.elapsed());
    until(left, "nobody counted who is gone", || async {
        let state = device.state().await;
        let nobody = state["programme"]["viewers"] == 0 && input(&state, "guest1")["signal"] == "free";
        if nobody { Ok(()) } else { Err(state) }
    })
    .await;
    begin.goes_on(&device, 10.0).await;
    assert!(device.stop().await.success());
}

/// What the programme says of itself.
#[derive(Debug, Clone, Copy)]
struct Programme {
    frames: f64,
    missed: u64,
    seconds: f64,
    rate: f64,
}

impl Programme {
    async fn of(r58: &R58, rate: f64) -> Self {
        let status = r58.json("/api/mixer/status").await;
        let number = |key: &str| status["stats"][key].as_f64().unwrap_or_else(|| panic!("no {key} in {status}"));
        Self { frames: number("frames"), missed: number("missed_slots") as u64, seconds: number("running_time"), rate }
    }

    /// Waits for so many further frames, and fails if any slot since `self` was left empty.
    async fn goes_on(&self, r58: &R58, further: f64) {
        let goal = Self::of(r58, self.rate).await.frames + further;
        let now = until(PATIENCE, "further frames", || async {
            let now = Self::of(r58, self.rate).await;
            if now.frames >= goal { Ok(now) } else { Err(now) }
        })
        .await;
        assert_eq!(now.missed, self.missed, "frame slots were missed: {now:?}");
        let slots = (now.seconds - self.seconds) * self.rate;
        assert!((slots - (now.frames - self.frames)).abs() < 1.0, "frames and clock disagree: {self:?}, {now:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Stall,
    Unplug,
    Panic,
    Restart,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Stall, Self::Unplug, Self::Panic, Self::Restart];

    async fn rehearse(self, demo: &R58, api: &Api, camera: &str) {
        let word = match self {
            Self::Stall => "stall",
            Self::Unplug => "unplug",
            Self::Panic => "panic",
            Self::Restart => {
                api.command("r58-demo", "restart_service", json!({ "service": format!("camera {camera}") })).await;
                return;
            }
        };
        let (status, answer) = demo.post(&format!("/api/cameras/{camera}/rehearse"), &json!({ "fault": word })).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
    }

    /// Waits for what the crew is told, or for the new life of the actor.
    async fn until_seen(self, demo: &R58, before: &Value, camera: &str) {
        let (signal, reason) = match self {
            Self::Stall => ("stalled", "no frames"),
            Self::Unplug => ("no_cable", "unplugged"),
            Self::Panic | Self::Restart => {
                until(PATIENCE, &format!("a new life of {camera} after {self:?}"), || async {
                    let now = restarts(demo).await;
                    if now[camera].as_u64() > before[camera].as_u64() { Ok(()) } else { Err(now) }
                })
                .await;
                return;
            }
        };
        demo.state_until(&format!("{camera} {signal}"), |state| {
            let input = input(state, camera);
            input["signal"] == signal && input["reason"].as_str().is_some_and(|text| text.contains(reason))
        })
        .await;
    }
}

/// How often each camera's actor was restarted.
async fn restarts(r58: &R58) -> Value {
    let tree = r58.json("/api/actors").await;
    let mut counts = json!({});
    for actor in tree["actors"].as_array().into_iter().flatten() {
        if let Some(camera) = actor["name"].as_str().and_then(|name| name.strip_prefix("camera ")) {
            counts[camera] = actor["restarts"].clone();
        }
    }
    counts
}

async fn all_live(r58: &R58, count: usize) {
    r58.state_until(&format!("{count} live inputs"), |state| {
        let inputs = state["inputs"].as_array().into_iter().flatten();
        inputs.filter(|input| input["signal"] == "live").count() == count
    })
    .await;
}

fn input<'a>(state: &'a Value, id: &str) -> &'a Value {
    let mut inputs = state["inputs"].as_array().into_iter().flatten();
    inputs.find(|input| input["id"] == id).unwrap_or_else(|| panic!("no input {id}"))
}

async fn thumbnail(r58: &R58, name: &str) -> Picture {
    let answer = until(PATIENCE, "a thumbnail", || async {
        let answer = r58.get(&format!("/api/thumbnails/{name}")).await;
        if answer.status().is_success() { Ok(answer) } else { Err(answer.status()) }
    })
    .await;
    Picture::decode(&answer.bytes().await.expect("its bytes"))
}

/// Whether the sixth of the seven bars is red, as `smpte` has it and no slate.
fn is_red(picture: &Picture) -> bool {
    let [red, green, blue] = picture.mean(0.73, 0.3, 0.1, 0.2);
    red > green + 60.0 && red > blue + 60.0
}

/// Waits until the link is `online`, or anything else (`down`).
async fn link_is(device: &R58, word: &str) {
    device
        .state_until(&format!("the link {word}"), |state| (state["fleet"]["state"] == "online") == (word == "online"))
        .await;
}

/// A guest and a viewer who make an offer, are let in, and are never heard of again.
async fn offer_and_vanish(device: &R58) {
    let seats = device.json("/api/seats").await;
    let token = seats["items"][0]["token"].as_str().expect("a token");
    for (path, direction) in [("/whip/guest1", "sendonly"), ("/whep/programme", "recvonly")] {
        let request = device.http().post(format!("{}{path}", device.device)).header("Content-Type", "application/sdp");
        let answer = request.bearer_auth(token).body(offer(direction)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED, "{path}: {:?}", answer.text().await);
    }
    device.state_until("a guest on the way", |state| input(state, "guest1")["signal"] == "joining").await;
}

/// A TCP way to a server, that can be cut and laid again.
struct Cable {
    port: u16,
    to: String,
    laid: Option<JoinHandle<()>>,
}

impl Cable {
    fn to(url: &str) -> Self {
        let to = url.split_once("://").map_or(url, |(_, host)| host).to_owned();
        Self { port: free_port(), to, laid: None }
    }

    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    async fn lay(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the cable's port");
        let to = self.to.clone();
        self.laid = Some(tokio::spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                ways.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        }));
    }

    /// Every connection through it ends, and no new one comes up.
    fn cut(&mut self) {
        if let Some(laid) = self.laid.take() {
            laid.abort();
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
    }
}
