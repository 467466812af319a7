//! A guest in passing: joins, leaves, and is gone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{PeerEvent, PeerFactory, RtpSink};
use r58_pipelines::sdp::{CheckedOffer, MediaKind};

use crate::rtc_support::*;

/// Takes packets and keeps none.
pub struct Nowhere;

impl RtpSink for Nowhere {
    fn negotiated(&self, _offer: &CheckedOffer) {}
    fn rtp(&self, _kind: MediaKind, _payload_type: u8, _packet: Bytes) {}
}

/// Joins with sound, is connected, and leaves.
pub async fn guest_comes_and_goes(factory: &PeerFactory) {
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest = GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let client = Client::open(&[OPUS], &[], false).await;
    client.send(&[OPUS]).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let (peer, answer) = factory.publisher(&offer, &[], guest.sink(), on_event).await.unwrap();
    client.accept(answer).await;
    let connected = wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. }));
    tokio::select! {
        _ = connected => {}
        // A little less than what it waits: who does not come says how far it came.
        () = tokio::time::sleep(PATIENCE - Duration::from_secs(1)) => {
            panic!("not connected: the box {:?}, the client {:?}", peer.connectivity(), *client.state.borrow())
        }
    }
    client.close().await;
    peer.close().await;
    wait_event(&mut queue, |e| *e == PeerEvent::Closed).await;
    guest.stop();
}
