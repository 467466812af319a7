//! A viewer of the programme: what a fan-out hands out arrives, decodes, and one viewer's trouble is nobody else's.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use r58_pipelines::RtpFanout;
use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{PeerEvent, PeerFactory, PeerSettings, ViewerPeer};
use r58_pipelines::sdp::{CheckedOffer, MediaKind, Purpose};
use rtc_support::*;
use webrtc::util::Marshal;

/// An encoded programme: red, with a tone; a key frame only when it is asked for.
struct Programme {
    fanout: RtpFanout,
    keyframes: Arc<AtomicU64>,
    _encoders: [Encoder; 2],
}

fn programme() -> Programme {
    let fanout = RtpFanout::new();
    let (to, asked) = (fanout.clone(), Arc::new(AtomicU64::new(0)));
    let video = Encoder::start(&CONSTRAINED_BASELINE, move |packet| to.publish_video(packet));
    let (keyframe, count) = (video.keyframe(), asked.clone());
    fanout.on_keyframe_request(move || {
        count.fetch_add(1, Ordering::Relaxed);
        keyframe();
    });
    let to = fanout.clone();
    let audio = Encoder::start(&OPUS, move |packet| to.publish_audio(packet));
    Programme { fanout, keyframes: asked, _encoders: [video, audio] }
}

struct Viewer {
    client: Client,
    peer: ViewerPeer,
    decoder: GuestPipeline,
    feed: Feed,
}

async fn view(factory: &PeerFactory, fanout: &RtpFanout) -> Viewer {
    let feed = Feed::new("viewer", &Mode::new(640, 360, 30));
    let decoder = GuestPipeline::start("viewer", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let streams = [OPUS, CONSTRAINED_BASELINE];
    let client = Client::open(&streams, &[], false).await;
    client.receive(&streams).await;
    let offer = client.offer().await;
    let sink = decoder.sink();
    sink.negotiated(&CheckedOffer::parse(&offer, Purpose::View).unwrap());
    client.pc.on_track(Box::new(move |track, _, _| {
        let sink = sink.clone();
        Box::pin(async move {
            tokio::spawn(async move {
                let kind = if track.codec().capability.mime_type.starts_with("audio") {
                    MediaKind::Audio
                } else {
                    MediaKind::Video
                };
                while let Ok((packet, _)) = track.read_rtp().await {
                    sink.rtp(kind, packet.header.payload_type, packet.marshal().unwrap());
                }
            });
        })
    }));
    let (on_event, mut queue) = events();
    let (peer, answer) = factory.viewer(&offer, &[], fanout.clone(), on_event).await.unwrap();
    assert!(answer.contains("a=sendonly") && !answer.contains("a=recvonly") && answer.contains("a=setup:passive"));
    client.accept(answer).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    Viewer { client, peer, decoder, feed }
}

fn factory() -> PeerFactory {
    PeerFactory::new(PeerSettings { loopback: true, ..PeerSettings::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_comes_late_sees_and_hears_the_programme() {
    let (factory, programme) = (factory(), programme());
    let mut first = programme.fanout.subscribe_video();
    first.recv().await.unwrap();
    let viewer = view(&factory, &programme.fanout).await;
    let (mut seen, _link) = watch_feed(&viewer.feed);
    wait_seen(&mut seen, "red", |s| s.colour.is_some_and(is_red)).await;
    wait_seen(&mut seen, "tone", |s| s.hertz.is_some_and(is_tone)).await;
    assert!(programme.keyframes.load(Ordering::Relaxed) >= 1);
    let stats = viewer.peer.stats();
    assert!(stats.packets > 20 && stats.dropped == 0, "{stats:?}");
    viewer.client.close().await;
    viewer.peer.close().await;
    viewer.decoder.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_lags_loses_packets_and_then_sees_again_while_the_other_sees_on() {
    let (factory, programme) = (factory(), programme());
    let (slow, other) = (view(&factory, &programme.fanout).await, view(&factory, &programme.fanout).await);
    let (mut seen, _a) = watch_feed(&slow.feed);
    let (mut seen_by_other, _b) = watch_feed(&other.feed);
    wait_seen(&mut seen, "red", |s| s.pictures > 0).await;
    wait_seen(&mut seen_by_other, "red", |s| s.pictures > 0).await;
    // More at once than any viewer's share of the fan-out; not RTP, so that nothing of it is sent.
    for _ in 0..5000 {
        programme.fanout.publish_video(Bytes::from_static(&[0]));
    }
    let (before, before_other) = (seen.borrow().pictures, seen_by_other.borrow().pictures);
    wait_seen(&mut seen, "more pictures", |s| s.pictures > before + 10).await;
    wait_seen(&mut seen_by_other, "more pictures", |s| s.pictures > before_other + 10).await;
    assert!(slow.peer.stats().dropped > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_viewer_gives_its_share_of_the_fanout_back() {
    let (factory, programme) = (factory(), programme());
    let viewer = view(&factory, &programme.fanout).await;
    let (mut seen, _link) = watch_feed(&viewer.feed);
    wait_seen(&mut seen, "red", |s| s.pictures > 0).await;
    assert_eq!(programme.fanout.viewers(), 1);
    viewer.peer.close().await;
    let gone = async {
        let mut packets = programme.fanout.subscribe_video();
        while programme.fanout.viewers() > 1 {
            packets.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the viewer is still subscribed");
}
