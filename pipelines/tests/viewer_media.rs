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
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
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
    /// Sequence numbers that are missing in what it received.
    lost: Arc<AtomicU64>,
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
    let lost = Arc::new(AtomicU64::new(0));
    let missing = lost.clone();
    client.pc.on_track(Box::new(move |track, _, _| {
        let (sink, missing) = (sink.clone(), missing.clone());
        Box::pin(async move {
            tokio::spawn(async move {
                let kind = if track.codec().capability.mime_type.starts_with("audio") {
                    MediaKind::Audio
                } else {
                    MediaKind::Video
                };
                let mut next: Option<u16> = None;
                while let Ok((packet, _)) = track.read_rtp().await {
                    let number = packet.header.sequence_number;
                    let gap = next.map_or(0, |next| number.wrapping_sub(next));
                    // More than half of the circle is a packet that came late.
                    if gap < u16::MAX / 2 {
                        missing.fetch_add(u64::from(gap), Ordering::Relaxed);
                        next = Some(number.wrapping_add(1));
                    }
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
    Viewer { client, lost, peer, decoder, feed }
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
async fn a_viewer_that_freezes_costs_the_other_no_packet_and_is_given_up() {
    let (factory, programme) = (factory(), programme());
    let healthy = view(&factory, &programme.fanout).await;
    let (mut seen, _link) = watch_feed(&healthy.feed);
    wait_seen(&mut seen, "red", |s| s.pictures > 0).await;
    let lost = healthy.lost.load(Ordering::Relaxed);
    // A client on a thread of its own, that stops dead once it is connected: its sockets are open and nobody reads them.
    let (to_box, offered) = tokio::sync::oneshot::channel();
    let (to_client, answered) = tokio::sync::oneshot::channel();
    let (thaw, frozen) = std::sync::mpsc::channel::<()>();
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::open(&[CONSTRAINED_BASELINE], &[], false).await;
            client.receive(&[CONSTRAINED_BASELINE]).await;
            to_box.send(client.offer().await).unwrap();
            client.accept(answered.await.unwrap()).await;
            client.state.wait_for(|state| *state == RTCPeerConnectionState::Connected).await.unwrap();
            let _ = frozen.recv();
        });
    });
    let (on_event, mut queue) = events();
    let offer = offered.await.unwrap();
    let (peer, answer) = factory.viewer(&offer, &[], programme.fanout.clone(), on_event).await.unwrap();
    to_client.send(answer).unwrap();
    wait_event(&mut queue, |event| matches!(event, PeerEvent::Connected { .. })).await;
    let before = (healthy.peer.stats().packets, seen.borrow().pictures, std::time::Instant::now());
    wait_event(&mut queue, |event| *event == PeerEvent::Disconnected).await;
    wait_event(&mut queue, |event| matches!(event, PeerEvent::Failed | PeerEvent::Closed)).await;
    let (packets, pictures) = (healthy.peer.stats().packets - before.0, seen.borrow().pictures - before.1);
    println!("given up after {:?}; meanwhile the other got {packets} packets, {pictures} pictures", before.2.elapsed());
    assert_eq!((healthy.lost.load(Ordering::Relaxed) - lost, healthy.peer.stats().dropped), (0, 0));
    let expected = 30.0 * before.2.elapsed().as_secs_f64();
    assert!(pictures as f64 > 0.9 * expected, "{pictures} pictures of {expected}");
    thaw.send(()).unwrap();
    client.join().unwrap();
    peer.close().await;
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
