//! The seam between GuestIngest and what a guest consists of, one peer and one pipeline; and the real ones.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use r58_pipelines::guest::{self, GuestPipeline};
use r58_pipelines::ice::IceServer;
use r58_pipelines::peer::{PeerEvent, PeerEvents, PeerFactory, PublisherPeer};
use r58_pipelines::sdp::{CheckedOffer, Purpose};

use super::vitals::MediaSample;
use crate::error::GuestError;
use crate::offthread::off_thread;
use crate::patch::IceControl;
use crate::studio::InputRoom;

/// What a guest's peer or pipeline says, from whichever thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// A first picture was decoded: worth a look at the counters.
    Picture,
    /// The peer is connected, by this sort of path.
    Connected(String),
    /// The peer will not come up, or not come back.
    Lost,
    /// The peer was closed.
    Closed,
    /// The pipeline is of no use any more.
    Broke(String),
}

/// Takes a guest's news; must not block.
pub type GuestNews = Arc<dyn Fn(GuestEvent) + Send + Sync>;

/// A guest's peer and pipeline. Dropping it ends both, and may block.
pub trait GuestMedia: Send {
    /// Pictures decoded in this session, and when the last; sounds, when its offer holds no picture.
    fn decoded(&self) -> (u64, Option<Instant>);

    /// Everything that is known of it now; `None` where nothing is counted.
    fn sample(&self) -> Option<MediaSample> {
        None
    }
}

/// A guest that has its answer.
pub struct Joined {
    /// The SDP answer.
    pub answer: String,
    /// What may still change about its connection.
    pub ice: Arc<dyn IceControl>,
    /// What was made for it.
    pub media: Box<dyn GuestMedia>,
}

/// Makes what a guest needs.
pub trait GuestDoorway: Send + Sync {
    /// Answers an offer; the guest's pictures and sound fill the room's feed.
    fn join(
        &self,
        room: &InputRoom,
        offer: String,
        ice: Vec<IceServer>,
        news: GuestNews,
    ) -> BoxFuture<'static, Result<Joined, GuestError>>;
}

/// The real thing: webrtc-rs in, GStreamer out.
pub struct WebRtcDoorway {
    /// Makes the peers.
    pub peers: PeerFactory,
    /// How long packets are held back.
    pub latency: guest::GuestSettings,
}

impl GuestDoorway for WebRtcDoorway {
    fn join(
        &self,
        room: &InputRoom,
        offer: String,
        ice: Vec<IceServer>,
        news: GuestNews,
    ) -> BoxFuture<'static, Result<Joined, GuestError>> {
        let (peers, latency) = (self.peers.clone(), self.latency);
        let (seat, feed) = (room.name().id.clone(), room.feed().clone());
        Box::pin(async move {
            let heard = news.clone();
            let starting = off_thread("guest-start", move || {
                GuestPipeline::start(&seat, &feed, latency, Arc::new(move |event| pipeline_said(&heard, event)))
            });
            let broken = || GuestError::Unavailable("the guest's pipeline did not start".into());
            let pipeline = starting.await.ok_or_else(broken)??;
            let events: PeerEvents = Arc::new(move |event| peer_said(&news, event));
            let (peer, answer) = peers.publisher(&offer, &ice, pipeline.sink(), events).await?;
            pipeline.on_keyframe_request(peer.keyframe_requester());
            let is_voice = CheckedOffer::parse(&offer, Purpose::Publish).is_ok_and(|offer| offer.is_voice());
            let ice = Arc::new(peer.ice());
            Ok(Joined { answer, ice, media: Box::new(Media { pipeline, is_voice, peer }) })
        })
    }
}

fn pipeline_said(news: &GuestNews, event: guest::GuestEvent) {
    match event {
        guest::GuestEvent::FirstFrame { codec } => {
            tracing::debug!(codec = codec.name(), "first picture of a guest");
            news(GuestEvent::Picture);
        }
        guest::GuestEvent::Size { width, height } => tracing::debug!(width, height, "size of a guest's picture"),
        guest::GuestEvent::Error { message } => news(GuestEvent::Broke(message)),
    }
}

fn peer_said(news: &GuestNews, event: PeerEvent) {
    match event {
        PeerEvent::Connected { path } => news(GuestEvent::Connected(path.as_str().to_owned())),
        // It may recover; until then the decoded pictures tell.
        PeerEvent::Disconnected => tracing::debug!("a guest's peer is disconnected"),
        PeerEvent::Failed => news(GuestEvent::Lost),
        PeerEvent::Closed => news(GuestEvent::Closed),
    }
}

struct Media {
    pipeline: GuestPipeline,
    /// It is heard and never seen.
    is_voice: bool,
    peer: PublisherPeer,
}

impl GuestMedia for Media {
    fn decoded(&self) -> (u64, Option<Instant>) {
        let stats = self.pipeline.stats();
        if self.is_voice {
            (stats.decoded_sounds, stats.last_decoded_sound)
        } else {
            (stats.decoded_frames, stats.last_decoded_frame)
        }
    }

    fn sample(&self) -> Option<MediaSample> {
        let (connectivity, peer) = (self.peer.connectivity(), self.peer.stats());
        Some(MediaSample { connectivity, peer, pipeline: self.pipeline.stats(), is_voice: self.is_voice })
    }
}
