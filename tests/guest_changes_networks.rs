//! A guest that walks out of its Wi-Fi keeps the seat, the tracks and the place in the scene: its page restarts ICE by the
//! network that it has now, by TURN on both ends, whichever way the box reaches its TURN server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use super::guest_gets_in::{
    COLOUR, PASSWORD, PITCH, TURN_SECRET, far_away, join, reaches, seat, shows, start_in, take,
};
use super::support::browser::Browser;
use super::support::footage::Footage;
use super::support::namespace::is_root_or_ran_as_root;
use super::support::nat::{BOX_URL, Internet, TURN_URL, TURNS_URL};
use super::support::paper::Paper;
use super::support::r58::PATIENCE;
use super::support::{stage, until};

/// A guest is out of the picture for no longer than this; a crew would cut away by then.
const GONE_FOR: Duration = Duration::from_secs(10);

#[test]
fn a_guest_that_walks_out_of_its_wifi_stays_on_air_by_relay() {
    let here = concat!(module_path!(), "::a_guest_that_walks_out_of_its_wifi_stays_on_air_by_relay");
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::new();
        internet.guest.run(walks_out(&internet, false));
    }
}

#[test]
fn a_guest_that_walks_out_of_its_wifi_stays_on_air_while_the_box_has_no_udp() {
    let here = concat!(module_path!(), "::a_guest_that_walks_out_of_its_wifi_stays_on_air_while_the_box_has_no_udp");
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::new();
        internet.guest.run(walks_out(&internet, true));
    }
}

async fn walks_out(internet: &Internet, walled: bool) {
    let _stage = stage().await;
    let mobile = internet.mobile();
    let (paper, tls) = (Paper::of("203.0.113.1"), format!(", \"{TURNS_URL}\"]\nca_file = \"turn-ca.pem\""));
    let home = far_away(&format!("shared_urls = [\"{TURN_URL}\"{}", if walled { &tls } else { "]" }));
    let _turn = if walled {
        internet.block_udp_of_box();
        std::fs::write(home.path().join("turn-ca.pem"), &paper.authority).expect("write the authority");
        internet.turn_server_with_tls(TURN_SECRET, &home.path(), &paper).await
    } else {
        internet.turn_server(TURN_SECRET, &home.path()).await
    };
    let r58 = start_in(internet, &home).await;
    if walled {
        r58.state_until("the road by TLS", |state| state["turn"]["roads"][0]["road"] == "tls").await;
    }
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start_trusting(&footage.capture(), Some(BOX_URL), Some(&paper.pin)).await;
    join(&guest, &seat(&r58, "guest1").await).await;
    let before = reaches(&r58, "live", PATIENCE).await;
    assert_eq!(before["path"], "relay");
    take(&r58, "full-guest1").await;
    shows(&r58).await;

    let crew = Crew::watch(internet);
    internet.walk_out(&mobile);
    let walked = Instant::now();
    until(PATIENCE, "an ICE restart by the other network", || async {
        if r58.process.output().contains("ICE restarted") { Ok(()) } else { Err(r58.process.output()) }
    })
    .await;
    println!("ICE restarted {:?} after the Wi-Fi was gone", walked.elapsed());
    let frames = crew.frames();
    until(PATIENCE, "pictures by the other network", || async {
        if crew.frames() > frames + 15 { Ok(()) } else { Err(crew.frames()) }
    })
    .await;
    let gap = crew.end();
    println!("no new picture of the guest for {gap:?} (box by {})", if walled { "TLS" } else { "UDP" });
    assert!(gap < GONE_FOR, "{gap:?}");
    let after = reaches(&r58, "live", PATIENCE).await;
    assert_eq!(after["session"], before["session"], "the seat is the same session's");
    let state = r58.state().await;
    assert_eq!(state["programme"]["scene"], "full-guest1");
    shows(&r58).await;
    let state = guest.script("return document.body.dataset.state").await;
    assert_eq!(state, "live", "the page never joined anew");
    assert!(r58.stop().await.success());
}

/// Whoever looks at the box from within its own network, all the time.
struct Crew {
    over: Arc<AtomicBool>,
    frames: Arc<std::sync::atomic::AtomicU64>,
    thread: JoinHandle<Duration>,
}

impl Crew {
    fn watch(internet: &Internet) -> Self {
        let (over, frames) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = internet.device.spawn(looks(over.clone(), Arc::clone(&frames)));
        Self { over, frames, thread }
    }

    /// Pictures of the guest that were decoded so far.
    fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// The longest time without a new picture.
    fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the crew")
    }
}

async fn looks(over: Arc<AtomicBool>, frames: Arc<std::sync::atomic::AtomicU64>) -> Duration {
    let http = Client::new();
    let (mut longest, mut since) = (Duration::ZERO, Instant::now());
    while !over.load(Ordering::Relaxed) {
        let state = http.get("http://10.2.0.2:8000/api/state").basic_auth("crew", Some(PASSWORD)).send().await;
        let state: Value = state.expect("an answer").json().await.expect("JSON");
        let mut inputs = state["inputs"].as_array().into_iter().flatten();
        let seen = inputs.find(|input| input["id"] == "guest1").and_then(|input| input["frames"].as_u64());
        if frames.swap(seen.unwrap_or_default(), Ordering::Relaxed) != seen.unwrap_or_default() {
            since = Instant::now();
        }
        longest = longest.max(since.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    longest
}
