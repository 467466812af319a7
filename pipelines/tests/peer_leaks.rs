//! Peers that end leave nothing behind: sockets, threads, tasks. A process of its own, because it counts them all.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use r58_pipelines::RtpFanout;
use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{PeerError, PeerEvent, PeerFactory, PeerSettings, RtpSink, UdpPorts};
use r58_pipelines::sdp::{CheckedOffer, MediaKind};
use rtc_support::*;

struct Nowhere;

impl RtpSink for Nowhere {
    fn negotiated(&self, _offer: &CheckedOffer) {}
    fn rtp(&self, _kind: MediaKind, _payload_type: u8, _packet: Bytes) {}
}

/// The factory's ports; the clients use the system's ephemeral ones.
const PORTS: (u16, u16) = (20_000, 24_999);

/// Open UDP sockets on the factory's ports, in the whole machine: nobody else takes these.
fn sockets() -> usize {
    let open = |file: &str| {
        let table = std::fs::read_to_string(file).unwrap_or_default();
        let ports = table.lines().skip(1).filter_map(|line| {
            let local = line.split_whitespace().nth(1)?;
            u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
        });
        ports.filter(|port| (PORTS.0..=PORTS.1).contains(port)).count()
    };
    open("/proc/self/net/udp") + open("/proc/self/net/udp6")
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

async fn settle(what: &str, limit: usize, now: impl Fn() -> usize) {
    let begun = Instant::now();
    while now() > limit {
        assert!(begun.elapsed() < PATIENCE, "{} {what}, at most {limit} expected", now());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn guest_comes_and_goes(factory: &PeerFactory) {
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest = GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let client = Client::open(&[OPUS], &[], false).await;
    client.send(&[OPUS]).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let (peer, answer) = factory.publisher(&offer, &[], guest.sink(), on_event).await.unwrap();
    client.accept(answer).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    client.close().await;
    peer.close().await;
    wait_event(&mut queue, |e| *e == PeerEvent::Closed).await;
    guest.stop();
}

async fn viewer_comes_and_goes(factory: &PeerFactory, fanout: &RtpFanout) {
    let client = Client::open(&[OPUS], &[], false).await;
    client.receive(&[OPUS]).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let (peer, answer) = factory.viewer(&offer, &[], fanout.clone(), on_event).await.unwrap();
    client.accept(answer).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    client.close().await;
    peer.close().await;
}

/// A client that posts and is never heard of again.
async fn stranger_posts(factory: &PeerFactory) {
    let client = Client::open(&[OPUS], &[], false).await;
    client.send(&[OPUS]).await;
    let offer = client.offer().await;
    client.close().await;
    let (on_event, _queue) = events();
    let (peer, _answer) = factory.publisher(&offer, &[], Arc::new(Nowhere), on_event).await.unwrap();
    drop(peer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_joins_leave_no_socket_no_thread_and_no_task() {
    let ports = UdpPorts::Range(PORTS.0, PORTS.1);
    let factory = PeerFactory::new(PeerSettings { loopback: true, ports, ..PeerSettings::default() }).unwrap();
    let fanout = RtpFanout::new();
    for _ in 0..3 {
        guest_comes_and_goes(&factory).await;
        viewer_comes_and_goes(&factory, &fanout).await;
        stranger_posts(&factory).await;
    }
    // What starts once in a process is there now; what is still ending gets the time to.
    let mut base = (sockets(), threads(), factory.tasks());
    let begun = Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(1) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        base = (base.0.min(sockets()), base.1.min(threads()), base.2.min(factory.tasks()));
    }
    let begun = Instant::now();
    for _ in 0..25 {
        guest_comes_and_goes(&factory).await;
        viewer_comes_and_goes(&factory, &fanout).await;
    }
    println!(
        "50 joins in {:?}; before: sockets, threads, tasks = {base:?}, now {:?}",
        begun.elapsed(),
        (sockets(), threads(), factory.tasks())
    );
    for _ in 0..10 {
        stranger_posts(&factory).await;
    }
    settle("sockets", base.0, sockets).await;
    // GLib keeps up to eight idle threads in its pool, tokio and the other test of this process have some too; what each
    // guest or each viewer left behind would be twenty-five.
    settle("threads", base.1 + 20, threads).await;
    settle("tasks", base.2, || factory.tasks()).await;
    println!("after: {:?}", (sockets(), threads(), factory.tasks()));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_offers_are_refused_at_once_and_the_next_guest_comes_in() {
    let factory = PeerFactory::new(PeerSettings { loopback: true, ..PeerSettings::default() }).unwrap();
    let client = Client::open(&[VP8, OPUS], &[], false).await;
    client.send(&[VP8, OPUS]).await;
    let good = client.offer().await;
    client.close().await;
    let hostile = [
        ("nothing", String::new(), 400),
        ("noise", "\u{1}\u{2}".repeat(100), 400),
        ("huge", good.clone() + &"a=x\r\n".repeat(20_000), 413),
        ("cut short", good[..good.len() / 2].to_owned(), 400),
        ("receiving", good.replace("sendonly", "recvonly"), 422),
        ("unknown codecs", good.replace("VP8", "VP7").replace("opus", "mp3"), 422),
        ("three sections", good.clone() + &good[good.find("m=video").unwrap()..], 422),
        ("thousands of lines", "v=0\r\n".to_owned() + &"m=audio 9 UDP/TLS/RTP/SAVPF 1\r\n".repeat(1000), 400),
    ];
    for (name, offer, status) in hostile {
        let begun = Instant::now();
        let (on_event, _queue) = events();
        let error = factory.publisher(&offer, &[], Arc::new(Nowhere), on_event).await.err().unwrap();
        assert!(matches!(error, PeerError::Sdp(_)), "{name}: {error}");
        assert_eq!(error.http_status(), status, "{name}: {error}");
        assert!(begun.elapsed().as_millis() < 500, "{name}");
    }
    guest_comes_and_goes(&factory).await;
}
