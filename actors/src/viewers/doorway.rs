//! The seam between Viewers and what a viewer consists of; and the real ones.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use r58_pipelines::RtpFanout;
use r58_pipelines::encoder::EncoderDesk;
use r58_pipelines::ice::IceServer;
use r58_pipelines::peer::{PeerEvent, PeerEvents, PeerFactory};
use r58_pipelines::preview::{PREVIEW_KBPS, PreviewEncoder, preview_mode};

use crate::error::GuestError;
use crate::patch::IceControl;
use crate::studio::{InputRoom, Studio};

/// What a viewer's peer says, from whichever thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewerEvent {
    /// It is connected, by this sort of path.
    Connected(String),
    /// It is closed, or will not come back.
    Gone,
}

/// Takes a viewer's news; must not block.
pub type ViewerNews = Arc<dyn Fn(ViewerEvent) + Send + Sync>;

/// A viewer that has its answer. Dropping its media ends it.
pub struct Watched {
    /// The SDP answer.
    pub answer: String,
    /// What may still change about its connection.
    pub ice: Arc<dyn IceControl>,
    /// Its peer.
    pub media: Box<dyn Send>,
}

/// An input that is being encoded for viewers. Dropping it stops that, and may block.
pub struct Preview {
    /// The encoded input.
    pub fanout: RtpFanout,
    /// Whoever encodes it.
    pub encoder: Box<dyn Any + Send>,
}

/// Makes what viewers need.
pub trait ViewerDoorway: Send + Sync {
    /// Answers an offer with the streams of a fan-out.
    fn watch(
        &self,
        fanout: RtpFanout,
        offer: String,
        ice: Vec<IceServer>,
        news: ViewerNews,
    ) -> BoxFuture<'static, Result<Watched, GuestError>>;

    /// Starts to encode an input. Blocks: called on a thread of its own.
    ///
    /// # Errors
    /// Whatever keeps the encoder from running.
    fn preview(&self, room: &InputRoom) -> Result<Preview, GuestError>;

    /// Starts the return feed of the guest in that room. Blocks likewise.
    ///
    /// # Errors
    /// Whatever keeps it from running.
    fn return_feed(&self, room: &InputRoom) -> Result<Preview, GuestError>;
}

/// The real thing.
pub struct WebRtcViewerDoorway {
    /// Makes the peers.
    pub peers: PeerFactory,
    /// Knows the encoder that works for the programme.
    pub studio: Studio,
    /// Has the encoders that are left.
    pub encoders: EncoderDesk,
}

impl ViewerDoorway for WebRtcViewerDoorway {
    fn watch(
        &self,
        fanout: RtpFanout,
        offer: String,
        ice: Vec<IceServer>,
        news: ViewerNews,
    ) -> BoxFuture<'static, Result<Watched, GuestError>> {
        let peers = self.peers.clone();
        Box::pin(async move {
            let events: PeerEvents = Arc::new(move |event| match event {
                PeerEvent::Connected { path } => news(ViewerEvent::Connected(path.as_str().to_owned())),
                PeerEvent::Disconnected => tracing::debug!("a viewer's peer is disconnected"),
                PeerEvent::Failed | PeerEvent::Closed => news(ViewerEvent::Gone),
            });
            let (peer, answer) = peers.viewer(&offer, &ice, fanout, events).await?;
            Ok(Watched { answer, ice: Arc::new(peer.ice()), media: Box::new(peer) })
        })
    }

    fn preview(&self, room: &InputRoom) -> Result<Preview, GuestError> {
        let chosen = self.studio.programme().encoder();
        if chosen.name.is_empty() {
            return Err(GuestError::Unavailable("the programme is starting".into()));
        }
        let mode = preview_mode(&self.studio.mode());
        let lease = self.encoders.for_preview(&chosen.name, &mode)?;
        tracing::debug!(input = room.name().id, encoder = lease.choice().name, sessions = ?lease.usage(), "preview");
        let encoder = PreviewEncoder::start_leased(room.feed(), &mode, lease, PREVIEW_KBPS)?;
        Ok(Preview { fanout: encoder.rtp(), encoder: Box::new(encoder) })
    }

    fn return_feed(&self, room: &InputRoom) -> Result<Preview, GuestError> {
        let mix = self.studio.programme().return_mix(&room.name().id)?;
        let mix = mix.ok_or_else(|| GuestError::Unavailable("the programme is starting".into()))?;
        Ok(Preview { fanout: mix.rtp(), encoder: Box::new(mix) })
    }
}
