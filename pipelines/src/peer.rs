//! WebRTC peers behind a narrow seam: publishers in (WHIP), viewers out (WHEP).
//!
//! The stack below is webrtc-rs 0.17; none of its types appears in this module's public face, so that another line of it can
//! take its place. A [`PeerFactory`] owns a small runtime of its own: media never competes with the callers' event loops,
//! and every call here may be awaited from any executor.
//!
//! **The answer never waits for STUN.** Gathering starts before the offer arrives where it can: [`PeerFactory::warm`] is
//! called when a join is likely (a guest's page asked for ICE servers) and keeps one gathered connection ready. Without
//! a warm one, host candidates are ready within a millisecond; only when TURN is configured and the offer shows no address
//! in a network of this box is the relay waited for, at most [`RELAY_WAIT`]: a relay's candidate must be in the answer,
//! because the client's own relay lets nothing through that it was not told of (RFC 8656, section 9).

mod connection;
mod engine;
pub(crate) mod keyframe;
mod meter;
mod nack;
mod publisher;
mod reports;
mod restart;
mod roundtrip;
mod spare;
mod viewer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::error::ErrorKind;
use crate::fanout::RtpFanout;
use crate::ice::{self, IceServer};
use crate::sdp::{CheckedOffer, MediaKind, Purpose, SdpError};

pub use meter::{Meter, MeterReading};
pub use publisher::{Connectivity, PublisherPeer, PublisherStats, Step};
pub use restart::IceSession;
pub use viewer::{ViewerPeer, ViewerStats};

/// Longest that an answer waits for a TURN server: about two round trips across an ocean. OBS gives up after 8 s.
pub const RELAY_WAIT: Duration = Duration::from_millis(500);

/// The same when only a relay may be used, and there is nothing else to answer with.
const RELAY_ONLY_WAIT: Duration = Duration::from_secs(3);

/// Shortest time between two picture loss indications to one publisher (facts of other receivers: never unconditionally).
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);

/// A peer that is not connected by then is failed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// What happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// ICE and DTLS are up. Told again after every recovery from `Disconnected`.
    Connected {
        /// How the two ends reach each other.
        path: Path,
    },
    /// No packet for five seconds; it may recover.
    Disconnected,
    /// It will not come up, or not come back: no route, or consent expired (RFC 7675).
    Failed,
    /// Closed by this side, or by the other one's DTLS alert. The last event.
    Closed,
}

/// The route of a connected peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Straight, within one network.
    Host,
    /// Straight, through address translation.
    Srflx,
    /// Through a TURN server, at either end.
    Relay,
}

impl Path {
    /// The word for logs and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Srflx => "srflx",
            Self::Relay => "relay",
        }
    }
}

/// Takes a peer's events; called on the factory's runtime, must not block.
pub type PeerEvents = Arc<dyn Fn(PeerEvent) + Send + Sync>;

/// A sender's clock and a stream's time stamp at the same moment (RFC 3550, section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderClock {
    /// The moment, as NTP's 64 bits: seconds since 1900 in the upper half. Of the sender's own clock.
    pub ntp: u64,
    /// The time stamp, in the stream's clock rate.
    pub rtp: u32,
}

/// Takes a publisher's packets; called on the factory's runtime, must not block.
pub trait RtpSink: Send + Sync {
    /// Called once, before any packet: what each payload type means.
    fn negotiated(&self, offer: &CheckedOffer);
    /// One RTP packet, as it came.
    fn rtp(&self, kind: MediaKind, payload_type: u8, packet: Bytes);
    /// The sender says which of its moments a time stamp of the stream stands for. Believed by nobody without a check.
    fn sender_report(&self, _kind: MediaKind, _clock: SenderClock) {}
}

/// Where a publisher's packets go.
pub type PublisherSink = Arc<dyn RtpSink>;

/// Why no peer came about.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The offer is refused.
    #[error(transparent)]
    Sdp(#[from] SdpError),
    /// Only relayed paths are allowed, and no TURN server gave a relay.
    #[error("no relay: {0}")]
    NoRelay(&'static str),
    /// The settings cannot work.
    #[error("webrtc settings: {0}")]
    Settings(String),
    /// A fragment names an ICE session that is not the one of the moment.
    #[error("the fragment is of another ICE session")]
    OtherSession,
    /// A restart cannot begin now; the session goes on as it was.
    #[error("no ICE restart now: {0}")]
    NotNow(&'static str),
    /// The stack refused; its words, without SDP.
    #[error("webrtc: {0}")]
    Stack(String),
    /// The factory is shutting down.
    #[error("the peer factory is closed")]
    Closed,
}

impl PeerError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sdp(_) => ErrorKind::Rejected,
            Self::NoRelay(_) | Self::Closed => ErrorKind::Unavailable,
            Self::OtherSession => ErrorKind::Rejected,
            Self::NotNow(_) => ErrorKind::Transient,
            Self::Settings(_) => ErrorKind::Misconfigured,
            Self::Stack(_) => ErrorKind::Transient,
        }
    }

    /// The HTTP status for a WHIP or WHEP client.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Sdp(error) => error.http_status(),
            Self::OtherSession => 422,
            Self::NoRelay(_) | Self::NotNow(_) | Self::Closed => 503,
            Self::Settings(_) | Self::Stack(_) => 500,
        }
    }
}

impl From<webrtc::Error> for PeerError {
    fn from(error: webrtc::Error) -> Self {
        Self::Stack(error.to_string())
    }
}

/// Which local UDP ports peers use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UdpPorts {
    /// Any that the system gives, several for each peer.
    #[default]
    Any,
    /// Several for each peer, from a range that a firewall leaves open (both ends included).
    Range(u16, u16),
    /// One IPv4 port for all peers. There are no server-reflexive candidates then: translated networks need TURN.
    Single(u16),
}

/// Settings of all peers of a factory.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// Local UDP ports.
    pub ports: UdpPorts,
    /// Use only relayed paths, never this box's own addresses.
    pub relay_only: bool,
    /// Offer 127.0.0.1 and ::1 too; for tests and for a box whose pages are only opened on itself.
    pub loopback: bool,
    /// Offer IPv6 addresses too.
    pub ipv6: bool,
    /// Interfaces to use; empty means all but those of container bridges (`docker*`, `br-*`, `veth*`, `virbr*`).
    pub interfaces: Vec<String>,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self { ports: UdpPorts::Any, relay_only: false, loopback: false, ipv6: true, interfaces: Vec::new() }
    }
}

/// Makes peers. Cheap to clone; the last clone ends the runtime, and with it every peer that is still open.
#[derive(Clone)]
pub struct PeerFactory {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<engine::Engine>,
    spares: Arc<spare::Spares>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Dropping a runtime waits for its blocking tasks, which is not allowed on another runtime's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl PeerFactory {
    /// Builds the media engine and binds the shared port, if there is one.
    ///
    /// # Errors
    /// `Settings` for a port range that is none or a port that is taken; `Stack` when threads cannot be started.
    pub fn new(settings: PeerSettings) -> Result<Self, PeerError> {
        // With two providers in the dependency graph rustls picks none and DTLS panics. An earlier choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("r58-peer")
            .enable_all()
            .build()
            .map_err(|error| PeerError::Stack(error.to_string()))?;
        let engine = {
            let _inside = runtime.enter();
            Arc::new(engine::Engine::new(settings)?)
        };
        let spares = Arc::new(spare::Spares::new(engine.clone(), runtime.handle().clone()));
        Ok(Self { shared: Arc::new(Shared { engine, spares, runtime: Some(runtime) }) })
    }

    /// Says that somebody is likely to join with these servers soon: keeps a gathered connection ready for two minutes
    /// from the last call. Returns at once. Without a STUN or TURN server there is nothing to gather, and nothing is done.
    pub fn warm(&self, ice: &[IceServer]) {
        self.shared.spares.want(ice::for_peer(ice));
    }

    /// Whether a gathered connection is ready for these servers.
    pub fn is_warm(&self, ice: &[IceServer]) -> bool {
        self.shared.spares.is_ready(&ice::for_peer(ice))
    }

    /// Tasks of all peers that are alive: what does not go back after they are closed is a leak.
    pub fn tasks(&self) -> usize {
        self.shared.runtime.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }

    /// Answers a WHIP offer. The packets of the client go to `sink`, unchanged.
    ///
    /// # Errors
    /// A refused offer, no relay where only relays are allowed, or a failure of the stack.
    pub async fn publisher(
        &self,
        offer: &str,
        ice: &[IceServer],
        sink: PublisherSink,
        events: PeerEvents,
    ) -> Result<(PublisherPeer, String), PeerError> {
        let offer = CheckedOffer::parse(offer, Purpose::Publish)?;
        let (shared, ice) = (self.shared.clone(), ice::for_peer(ice));
        self.run(async move {
            let connection = shared.connection(&ice).await?;
            publisher::answer(connection, &offer, sink, events).await
        })
        .await
    }

    /// Answers a WHEP offer with the streams of a fan-out.
    ///
    /// # Errors
    /// As [`Self::publisher`].
    pub async fn viewer(
        &self,
        offer: &str,
        ice: &[IceServer],
        fanout: RtpFanout,
        events: PeerEvents,
    ) -> Result<(ViewerPeer, String), PeerError> {
        let offer = CheckedOffer::parse(offer, Purpose::View)?;
        let (shared, ice) = (self.shared.clone(), ice::for_peer(ice));
        self.run(async move {
            let connection = shared.connection(&ice).await?;
            viewer::answer(connection, &offer, fanout, events).await
        })
        .await
    }

    /// Runs on the factory's own threads; if the caller gives up, the work ends as well and closes what it opened.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PeerError>> + Send + 'static,
    ) -> Result<T, PeerError> {
        let runtime = self.shared.runtime.as_ref().ok_or(PeerError::Closed)?;
        runtime.spawn(work).await.map_err(|_| PeerError::Closed)?
    }
}

impl Shared {
    async fn connection(&self, ice: &[IceServer]) -> Result<connection::Connection, PeerError> {
        match self.spares.take(ice) {
            Some(connection) => Ok(connection),
            None => connection::Connection::open(&self.engine, ice).await,
        }
    }
}
