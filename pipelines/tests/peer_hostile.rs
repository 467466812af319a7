//! Offers that are no offers: each is refused at once, and harms nobody who comes after.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "rtc_support/passing.rs"]
mod passing;
mod rtc_support;

use std::sync::Arc;
use std::time::Instant;

use passing::{Nowhere, guest_comes_and_goes};
use r58_pipelines::peer::{PeerError, PeerFactory, PeerSettings};
use rtc_support::*;

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
