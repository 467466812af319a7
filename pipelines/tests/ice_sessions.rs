//! Candidates that come late, and ICE restarts: with a second real peer at the other end, media goes on over the same tracks.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::net::UdpSocket;
use std::time::Duration;

use r58_pipelines::RtpFanout;
use r58_pipelines::ice::IceServer;
use r58_pipelines::peer::{PeerError, PeerEvent, PeerFactory, PeerSettings, UdpPorts};
use r58_pipelines::sdp::{AnswerFragment, SdpFragment};
use rtc_support::session::{Counter, join, merged, restart_offer, settings};
use rtc_support::*;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;

async fn restart_keeps_the_tracks(ports: UdpPorts, streams: &[Stream]) {
    let factory = PeerFactory::new(PeerSettings { ports, ..settings() }).unwrap();
    let mut session = join(&factory, &[], streams).await;
    let before = session.peer.ice().id();
    for round in 0..3 {
        let (fragment, answer, gap) = session.restart().await;
        assert_eq!(session.peer.ice().id(), answer.ufrag);
        assert_eq!(session.peer.ice().remote_ufrag().await.unwrap(), fragment.ufrag);
        assert!(answer.to_string().contains("a=candidate:"), "the answer has all of our candidates");
        println!("restart {round}: longest gap {gap:?}");
    }
    assert_ne!(session.peer.ice().id(), before);
    let stats = session.peer.stats();
    assert!(stats.video.is_some());
    session.client.close().await;
    session.peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_goes_on_over_the_same_tracks_after_a_restart() {
    restart_keeps_the_tracks(UdpPorts::Any, &[CONSTRAINED_BASELINE, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_works_on_the_one_port_of_all_peers() {
    let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    restart_keeps_the_tracks(UdpPorts::Single(port), &[CONSTRAINED_BASELINE, OPUS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_goes_on_after_a_restart() {
    let factory = PeerFactory::new(settings()).unwrap();
    let fanout = RtpFanout::new();
    let to = fanout.clone();
    let video = Encoder::start(&CONSTRAINED_BASELINE, move |packet| to.publish_video(packet));
    fanout.on_keyframe_request(video.keyframe());
    let streams = [CONSTRAINED_BASELINE];
    let client = Client::open(&streams, &[], false).await;
    client.receive(&streams).await;
    let counter = Counter::new();
    let counts = counter.clone();
    client.pc.on_track(Box::new(move |track, _, _| {
        let counts = counts.clone();
        tokio::spawn(async move {
            while track.read_rtp().await.is_ok() {
                counts.note();
            }
        });
        Box::pin(async {})
    }));
    let (on_event, mut queue) = events();
    let offer = client.offer().await;
    let (peer, answer) = factory.viewer(&offer, &[], fanout.clone(), on_event).await.unwrap();
    client.accept(answer.clone()).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    counter.more(30, "at first").await;
    counter.longest_gap();
    let fragment = peer.ice().restart(restart_offer(&client).await).await.unwrap();
    client.accept(merged(&answer, &fragment)).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    counter.more(30, "after the restart").await;
    println!("viewer: longest gap {:?}", counter.longest_gap());
    client.close().await;
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_shows_its_candidates_late_is_found_by_them() {
    let factory = PeerFactory::new(settings()).unwrap();
    let client = Client::open(&[CONSTRAINED_BASELINE], &[], false).await;
    client.send(&[CONSTRAINED_BASELINE]).await;
    let offer = client.offer().await;
    let bare: String = offer
        .lines()
        .filter(|line| !line.starts_with("a=candidate:") && *line != "a=end-of-candidates")
        .map(|line| format!("{line}\r\n"))
        .collect();
    let (on_event, mut queue) = events();
    let counter = Counter::new();
    let (peer, answer) = factory.publisher(&bare, &[], counter.clone(), on_event).await.unwrap();
    // The client is told of none of ours: only checks towards its trickled ones can bring the two together.
    let mute: String =
        answer.lines().filter(|line| !line.starts_with("a=candidate:")).map(|line| format!("{line}\r\n")).collect();
    client.accept(mute).await;
    let fragment = SdpFragment::parse(&AnswerFragment::of_answer(&offer).unwrap().to_string()).unwrap();
    let stranger = SdpFragment { ufrag: "stranger".into(), ..fragment.clone() };
    assert!(matches!(peer.ice().trickle(stranger).await, Err(PeerError::OtherSession)));
    peer.ice().trickle(fragment.clone()).await.unwrap();
    peer.ice().trickle(fragment.clone()).await.unwrap();
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    counter.more(30, "after trickling").await;
    client.close().await;
    let ice = peer.ice();
    peer.close().await;
    assert!(matches!(ice.trickle(fragment).await, Err(PeerError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_cannot_be_satisfied_leaves_the_old_session_flowing() {
    let factory = PeerFactory::new(settings()).unwrap();
    // A STUN server that never answers keeps the connection gathering.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ice = [IceServer::stun(format!("stun:{}", deaf.local_addr().unwrap()))];
    let mut session = join(&factory, &ice, &[CONSTRAINED_BASELINE, OPUS]).await;
    let before = session.peer.ice().id();
    let ufrag = session.peer.ice().remote_ufrag().await.unwrap();
    session.counter.longest_gap();
    let new = |ufrag: &str| SdpFragment {
        ufrag: ufrag.into(),
        pwd: "0123456789012345678901".into(),
        candidates: Vec::new(),
        is_end: false,
    };
    let refused = session.peer.ice().restart(new("fresh")).await;
    assert!(matches!(refused, Err(PeerError::NotNow(_))), "{refused:?}");
    let refused = session.peer.ice().restart(new(&ufrag)).await;
    assert!(matches!(refused, Err(PeerError::OtherSession)), "{refused:?}");
    session.counter.more(60, "after the refusal").await;
    assert!(session.counter.longest_gap() < Duration::from_millis(500));
    assert_eq!(session.peer.ice().id(), before);
    assert_eq!(*session.client.state.borrow(), RTCPeerConnectionState::Connected);
    assert!(session.queue.try_recv().is_err(), "no event came of it");
    session.client.close().await;
    session.peer.close().await;
}
