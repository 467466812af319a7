//! A guest on a bad road: lost, late and reordered packets, in both directions.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{PeerEvent, PeerFactory, PeerSettings, PublisherPeer};
use rtc_support::impaired::{Relay, Road};
use rtc_support::*;

/// Some six packets to a picture, and no key frame but the first and those that are asked for: every loss counts.
const BUSY_H264: Stream = Stream {
    launch: "videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! \
             x264enc name=enc tune=zerolatency speed-preset=ultrafast key-int-max=3000 bitrate=1500 ! \
             video/x-h264,profile=constrained-baseline ! rtph264pay mtu=1200 config-interval=-1 aggregate-mode=zero-latency",
    ..CONSTRAINED_BASELINE
};

const BUSY_VP8: Stream = Stream {
    launch: "videotestsrc is-live=true pattern=snow ! video/x-raw,width=320,height=180,framerate=30/1 ! \
             vp8enc name=enc deadline=1 cpu-used=8 keyframe-max-dist=3000 target-bitrate=1500000 ! \
             rtpvp8pay mtu=1200 picture-id-mode=2",
    ..VP8
};

struct Session {
    client: Client,
    peer: PublisherPeer,
    guest: GuestPipeline,
    relay: Relay,
    feed: Feed,
    _factory: PeerFactory,
}

async fn join(streams: &[Stream], road: Road) -> Session {
    let factory = PeerFactory::new(PeerSettings { loopback: true, ..PeerSettings::default() }).unwrap();
    let feed = Feed::new("guest1", &Mode::new(320, 180, 30));
    let guest = GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let relay = Relay::open(road, 58).await;
    let client = Client::open(streams, &[], false).await;
    client.send(streams).await;
    let offer = Relay::hide(&client.offer().await);
    let (on_event, mut queue) = events();
    let (peer, answer) = factory.publisher(&offer, &[], guest.sink(), on_event).await.unwrap();
    guest.on_keyframe_request(peer.keyframe_requester());
    client.accept(relay.bend(&answer)).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    Session { client, peer, guest, relay, feed, _factory: factory }
}

/// Decoded pictures as a share of the sent ones, over some seconds after the first picture was seen.
async fn decoded_share(session: &Session, over: Duration) -> f64 {
    let (mut seen, _link) = watch_feed(&session.feed);
    wait_seen(&mut seen, "a picture", |s| s.pictures > 10).await;
    let count = || (session.client.pictures.load(Ordering::Relaxed), session.guest.stats().decoded_frames);
    let ((sent, decoded), begun) = (count(), Instant::now());
    while begun.elapsed() < over {
        tokio::time::timeout(PATIENCE, seen.changed()).await.expect("the pictures ended").unwrap();
    }
    let (sent_after, decoded_after) = count();
    let share = (decoded_after - decoded) as f64 / (sent_after - sent) as f64;
    let traffic = &session.relay.traffic;
    println!(
        "sent {} decoded {} pictures: {share:.3}; RTP packets offered {} lost {}, at the box {:?}, {:?}, PLI {}",
        sent_after - sent,
        decoded_after - decoded,
        traffic.offered.load(Ordering::Relaxed),
        traffic.lost.load(Ordering::Relaxed),
        session.peer.stats(),
        session.guest.stats(),
        session.client.plis.load(Ordering::Relaxed),
    );
    share
}

async fn survives(streams: &[Stream]) {
    let road = Road { loss: 0.05, jitter: Duration::from_millis(60), ..Road::default() };
    let session = join(streams, road).await;
    let share = decoded_share(&session, Duration::from_secs(8)).await;
    let lost = session.relay.traffic.lost.load(Ordering::Relaxed) as f64;
    let offered = session.relay.traffic.offered.load(Ordering::Relaxed) as f64;
    assert!((0.03..0.07).contains(&(lost / offered)), "the road is not what it should be: {lost} of {offered}");
    assert!(share > 0.9, "only {share:.3} of the pictures were decoded");
    // A guest's line is thin: what was only overtaken must not be sent twice. Everything twice was the measure of old.
    let stats = session.peer.stats();
    let wanted = [stats.video, stats.audio].into_iter().flatten().map(|m| m.packets + m.lost).sum::<u64>() as f64;
    assert!(offered < wanted * 1.3, "{offered} packets were sent where {wanted} were to be had");
    session.client.close().await;
    session.peer.close().await;
    session.guest.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_percent_loss_and_sixty_milliseconds_of_jitter_leave_nine_of_ten_pictures_in_h264() {
    survives(&[BUSY_H264, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_percent_loss_and_sixty_milliseconds_of_jitter_leave_nine_of_ten_pictures_in_vp8() {
    survives(&[BUSY_VP8, OPUS]).await;
}
