//! Relays: a real TURN server on loopback, and peers that may use nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::ice::IceServer;
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{Path, PeerError, PeerEvent, PeerFactory, PeerSettings};
use rtc_support::*;

const USER: &str = "guest";
const PASSWORD: &str = "for-this-test-only";

/// A TURN server that ends with the test.
struct Turn {
    child: Child,
    port: u16,
    _state: tempfile::TempDir,
}

impl Turn {
    fn start() -> Self {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let state = tempfile::tempdir().unwrap();
        let child = Command::new("turnserver")
            .args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--no-tls", "--no-dtls", "--no-cli"])
            .args(["--allow-loopback-peers", "--lt-cred-mech", "--realm=r58.test", "--log-file=stdout", "--simple-log"])
            .args(["--no-tcp-relay", "--relay-threads=1", &format!("--listening-port={port}")])
            .arg(format!("--user={USER}:{PASSWORD}"))
            .arg(format!("--pidfile={}", state.path().join("pid").display()))
            .arg(format!("--userdb={}", state.path().join("db").display()))
            .current_dir(state.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("turnserver (Debian package coturn) is needed");
        await_answer(port);
        Self { child, port, _state: state }
    }

    fn servers(&self) -> Vec<IceServer> {
        vec![IceServer::turn(format!("turn:127.0.0.1:{}?transport=udp", self.port), USER, PASSWORD)]
    }
}

/// Asks for its address (a STUN binding request, RFC 8489, section 5) until somebody answers.
fn await_answer(port: u16) {
    let mut request = [0u8; 20];
    request[1] = 1;
    request[4..8].copy_from_slice(&0x2112_A442u32.to_be_bytes());
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begun = Instant::now();
    // An error here is a port that is not open yet.
    while socket.send_to(&request, ("127.0.0.1", port)).is_err() || socket.recv_from(&mut [0; 256]).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the TURN server does not answer");
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

async fn relayed_guest(factory: &PeerFactory, servers: &[IceServer]) -> Duration {
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest = GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let client = Client::open(&[VP8, OPUS], servers, true).await;
    client.send(&[VP8, OPUS]).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let posted = Instant::now();
    let (peer, answer) = factory.publisher(&offer, servers, guest.sink(), on_event).await.unwrap();
    let answered = posted.elapsed();
    assert!(answer.contains("typ relay"));
    guest.on_keyframe_request(peer.keyframe_requester());
    client.accept(answer).await;
    let event = wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    assert_eq!(event, PeerEvent::Connected { path: Path::Relay });
    let (mut seen, _link) = watch_feed(&feed);
    wait_seen(&mut seen, "red", |s| s.colour.is_some_and(is_red)).await;
    let decoded = guest.stats().first_decoded_frame.unwrap() - posted;
    println!("relayed: answer {answered:?}, decoded {decoded:?}");
    client.close().await;
    peer.close().await;
    answered
}

fn settings(relay_only: bool) -> PeerSettings {
    PeerSettings { loopback: true, relay_only, ..PeerSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_relays_only_at_both_ends_the_guest_comes_in() {
    let turn = Turn::start();
    let factory = PeerFactory::new(settings(true)).unwrap();
    relayed_guest(&factory, &turn.servers()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_shows_no_address_of_ours_gets_a_relay_in_the_answer_and_a_warm_one_at_once() {
    let turn = Turn::start();
    let factory = PeerFactory::new(settings(false)).unwrap();
    let cold = relayed_guest(&factory, &turn.servers()).await;
    let begun = Instant::now();
    factory.warm(&turn.servers());
    while !factory.is_warm(&turn.servers()) {
        assert!(begun.elapsed() < PATIENCE, "no spare");
        tokio::task::yield_now().await;
    }
    println!("warm after {:?}", begun.elapsed());
    let warm = relayed_guest(&factory, &turn.servers()).await;
    println!("cold {cold:?}, warm {warm:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_relays_only_and_no_turn_server_the_answer_is_a_clear_refusal() {
    let factory = PeerFactory::new(settings(true)).unwrap();
    let client = Client::open(&[OPUS], &[], false).await;
    client.send(&[OPUS]).await;
    let offer = client.offer().await;
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest = GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let (on_event, _queue) = events();
    let error = factory.publisher(&offer, &[], guest.sink(), on_event.clone()).await.err().unwrap();
    assert!(matches!(error, PeerError::NoRelay(_)), "{error}");
    // Nobody listens on the discard port of this machine.
    let dead = [IceServer::turn("turn:127.0.0.1:9?transport=udp", USER, PASSWORD)];
    let begun = Instant::now();
    let error = factory.publisher(&offer, &dead, guest.sink(), on_event).await.err().unwrap();
    assert!(matches!(error, PeerError::NoRelay(_)) && error.http_status() == 503, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_turn_server_delays_the_answer_by_half_a_second_at_most_and_a_neighbours_not_at_all() {
    let factory = PeerFactory::new(settings(false)).unwrap();
    let dead = [IceServer::turn("turn:127.0.0.1:9?transport=udp", USER, PASSWORD)];
    let client = Client::open(&[OPUS], &[], false).await;
    client.send(&[OPUS]).await;
    let near = client.offer().await;
    let far: String = near.lines().filter(|l| !l.starts_with("a=candidate")).map(|l| format!("{l}\r\n")).collect();
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest = GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    for (offer, limit) in [(near, Duration::from_millis(250)), (far, Duration::from_millis(900))] {
        let begun = Instant::now();
        let (on_event, _queue) = events();
        let (peer, answer) = factory.publisher(&offer, &dead, guest.sink(), on_event).await.unwrap();
        assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
        assert!(answer.contains("typ host"));
        peer.close().await;
    }
}
