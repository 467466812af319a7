//! Somebody who watches by WebRTC what the box encodes, and decodes it.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use r58_actors::GuestError;
use r58_actors::viewers::AdmitViewer;
use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::sdp::{CheckedOffer, MediaKind, Purpose};
use webrtc::util::Marshal;

use super::rtc_support::{CONSTRAINED_BASELINE, Client, OPUS};
use super::support::Studio58;

pub struct Viewer {
    pub client: Client,
    /// What it sees and hears.
    pub feed: Feed,
    pub session: String,
    _decoder: GuestPipeline,
}

impl Viewer {
    /// Watches the programme, an input or a return feed.
    pub async fn watch(subject: &Studio58, name: &str) -> Result<Self, GuestError> {
        let feed = Feed::new("viewer", &r58_pipelines::Mode::new(320, 180, 15));
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
                    let audio = track.codec().capability.mime_type.starts_with("audio");
                    let kind = if audio { MediaKind::Audio } else { MediaKind::Video };
                    while let Ok((packet, _)) = track.read_rtp().await {
                        sink.rtp(kind, packet.header.payload_type, packet.marshal().unwrap());
                    }
                });
            })
        }));
        let request = AdmitViewer { name: name.into(), offer };
        let admit = &subject.handle.viewers.admit;
        let admission = admit.send_within(request, Duration::from_secs(10)).await.unwrap()?;
        client.accept(admission.answer).await;
        Ok(Self { client, feed, session: admission.session, _decoder: decoder })
    }
}
