//! A guest's picture and voice, from a real encoder through a real connection to the feed.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{Path, PeerEvent, PeerFactory, PeerSettings, PublisherPeer, UdpPorts};
use rtc_support::*;
use tokio::sync::mpsc::UnboundedReceiver;

struct Session {
    client: Client,
    peer: PublisherPeer,
    guest: GuestPipeline,
    feed: Feed,
    queue: UnboundedReceiver<PeerEvent>,
    posted: Instant,
    answered: Duration,
}

fn factory() -> PeerFactory {
    PeerFactory::new(PeerSettings { loopback: true, ..PeerSettings::default() }).unwrap()
}

async fn join(factory: &PeerFactory, streams: &[Stream]) -> Session {
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest =
        GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|event| println!("guest: {event:?}")))
            .unwrap();
    let client = Client::open(streams, &[], false).await;
    client.send(streams).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let posted = Instant::now();
    let (peer, answer) = factory.publisher(&offer, &[], guest.sink(), on_event).await.unwrap();
    let answered = posted.elapsed();
    guest.on_keyframe_request(peer.keyframe_requester());
    client.accept(answer).await;
    let event = wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    assert_eq!(event, PeerEvent::Connected { path: Path::Host });
    Session { client, peer, guest, feed, queue, posted, answered }
}

async fn is_seen_and_heard(streams: &[Stream]) {
    let factory = factory();
    let session = join(&factory, streams).await;
    let (mut seen, _link) = watch_feed(&session.feed);
    if streams.iter().any(|s| s.mime.starts_with("video")) {
        wait_seen(&mut seen, "red", |s| s.colour.is_some_and(is_red)).await;
        let decoded = session.guest.stats().first_decoded_frame.unwrap() - session.posted;
        let shown = seen.borrow().first_picture.unwrap() - session.posted;
        println!(
            "{} {}: answer {:?}, decoded {decoded:?}, shown {shown:?}",
            streams[0].mime, streams[0].fmtp, session.answered
        );
        // And it goes on: nothing is dropped between the network and the feed, so no key frame is missed.
        wait_seen(&mut seen, "more", |s| s.pictures > 45).await;
        let stats = session.guest.stats();
        assert!(stats.decoded_frames > 30 && stats.keyframe_requests <= 3, "{stats:?}");
        let video = session.peer.stats().video.unwrap();
        assert!(video.packets > 0 && video.lost == 0, "{video:?}");
        assert_eq!(session.guest.stats().size, Some((320, 180)));
    }
    if streams.iter().any(|s| s.mime.starts_with("audio")) {
        wait_seen(&mut seen, "tone", |s| s.hertz.is_some_and(is_tone)).await;
        assert!(session.feed.stats().audio_level_db > -20.0);
        let stats = session.guest.stats();
        assert!(stats.decoded_sounds + 10 > stats.audio_packets, "sound is lost: {stats:?}");
    }
    let stats = session.guest.stats();
    assert_eq!(stats.video_packets > 0, streams.iter().any(|s| s.mime.starts_with("video")));
    assert_eq!(stats.audio_packets > 0, streams.iter().any(|s| s.mime.starts_with("audio")));
    session.client.close().await;
    session.peer.close().await;
    session.guest.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn constrained_baseline_and_opus_reach_the_feed() {
    is_seen_and_heard(&[CONSTRAINED_BASELINE, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baseline_reaches_the_feed() {
    is_seen_and_heard(&[BASELINE, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn main_reaches_the_feed() {
    is_seen_and_heard(&[MAIN, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn high_reaches_the_feed() {
    is_seen_and_heard(&[HIGH, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packetization_mode_zero_reaches_the_feed() {
    is_seen_and_heard(&[SINGLE_NAL, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vp8_and_opus_reach_the_feed() {
    is_seen_and_heard(&[VP8, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_a_voice_and_one_without_a_picture_work() {
    is_seen_and_heard(&[VP8]).await;
    is_seen_and_heard(&[OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_guests_share_one_udp_port() {
    let port = std::net::UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let settings = PeerSettings { loopback: true, ports: UdpPorts::Single(port), ..PeerSettings::default() };
    let factory = PeerFactory::new(settings).unwrap();
    let (one, two) = (join(&factory, &[VP8]).await, join(&factory, &[CONSTRAINED_BASELINE]).await);
    for session in [one, two] {
        let (mut seen, _link) = watch_feed(&session.feed);
        wait_seen(&mut seen, "red", |s| s.colour.is_some_and(is_red)).await;
        session.client.close().await;
        session.peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_hangs_up_is_noticed() {
    let factory = factory();
    let mut session = join(&factory, &[OPUS]).await;
    let begun = Instant::now();
    session.client.close().await;
    let event = wait_event(&mut session.queue, |_| true).await;
    println!("{event:?} after {:?}", begun.elapsed());
    assert!(matches!(event, PeerEvent::Closed | PeerEvent::Disconnected | PeerEvent::Failed));
    session.peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_keyframe_requests_is_at_most_one_indication_a_second() {
    let factory = factory();
    let session = join(&factory, &[CONSTRAINED_BASELINE]).await;
    let (mut seen, _link) = watch_feed(&session.feed);
    wait_seen(&mut seen, "a picture", |s| s.pictures > 0).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        session.peer.request_keyframe();
        seen.changed().await.unwrap();
    }
    // One when the branch began, one at once or when that one was a second old, and one a second later.
    let plis = session.client.plis.load(Ordering::Relaxed);
    assert!((2..=3).contains(&plis), "{plis} indications");
    session.peer.close().await;
}
