//! A guest on a bad road: lost, late and reordered packets, in both directions.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;
mod support;

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

/// These tests measure rates: they do not share the machine with one another.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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
    let _alone = ALONE.lock().await;
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

/// Where a clap begins on the programme, in nanoseconds of it: flashes, and tones to the sample.
struct Claps {
    stage: support::Stage,
    tones: Arc<support::Cell<Vec<u64>>>,
}

impl Claps {
    fn on(feed: &Feed) -> Self {
        let stage = support::Stage::new(1);
        stage.programme.attach("cam1", feed).unwrap();
        stage.cut("full-cam1");
        let tones = support::Cell::new(Vec::new());
        let (sink, quiet) = (tones.clone(), std::sync::Mutex::new(usize::MAX));
        stage.programme.watch_sound(move |block| {
            let (map, mut quiet) = (block.map_readable().unwrap(), quiet.lock().unwrap());
            for (n, frame) in map.chunks_exact(4).enumerate() {
                let loud = i16::from_le_bytes([frame[0], frame[1]]).unsigned_abs() > 3000;
                // A tenth of a second of silence is before a clap, none is within it.
                if loud && *quiet > 4800 {
                    let at = block.pts().unwrap().nseconds() + n as u64 * 1_000_000_000 / 48_000;
                    sink.update(|tones| tones.push(at));
                }
                *quiet = if loud { 0 } else { quiet.saturating_add(1) };
            }
        });
        Self { stage, tones }
    }

    fn flashes(&self) -> Vec<u64> {
        self.stage.frames.peek(|frames| {
            let begins = |pair: &&[support::Seen]| pair[0].middle.0 < 120 && pair[1].middle.0 >= 120;
            frames.windows(2).filter(begins).map(|pair| pair[1].pts).collect()
        })
    }

    /// How much later than its flash each tone comes, in milliseconds, as far as both were noticed.
    fn apart(&self) -> Vec<i64> {
        let tones = self.tones.peek(Vec::clone);
        let nearest =
            |flash: &u64| tones.iter().map(|tone| *tone as i64 - *flash as i64).min_by_key(|apart| apart.abs());
        let flashes = self.flashes();
        let apart = flashes.iter().filter_map(nearest).map(|apart| apart / 1_000_000);
        apart.filter(|apart| apart.abs() < 500).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lips_and_voice_stay_together_when_pictures_take_a_longer_way() {
    let _alone = ALONE.lock().await;
    let road = Road {
        loss: 0.05,
        jitter: Duration::from_millis(40),
        // The client's first stream.
        later: Some((100, Duration::from_millis(150))),
    };
    let session = join(&[rtc_support::clap::CLAP_VP8, rtc_support::clap::CLAP_OPUS], road).await;
    let claps = Claps::on(&session.feed);
    let known = || session.guest.stats().pictures_later;
    let begun = Instant::now();
    while known().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the sender's reports did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What is on its way then is still as it came.
    let before = claps.apart().len() + 2;
    while claps.apart().len() < before + 5 {
        assert!(begun.elapsed() < PATIENCE, "no claps: {:?}", claps.apart());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut apart = claps.apart()[before..].to_vec();
    println!("pictures later by {:?} ns; tones after flashes by {apart:?} ms, all {:?}", known(), claps.apart());
    apart.sort_unstable();
    assert!(apart[apart.len() / 2].abs() <= 45, "{apart:?} ms");
    session.client.close().await;
    session.peer.close().await;
    session.guest.stop();
}
