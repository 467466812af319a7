//! A guest's connection: receives, measures, hands packets on, asks for key frames.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use webrtc::dtls_transport::dtls_transport_state::RTCDtlsTransportState;
use webrtc::ice_transport::ice_transport_state::RTCIceTransportState;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use webrtc::track::track_remote::TrackRemote;
use webrtc::util::Marshal;

use super::connection::Connection;
use super::nack::NackPlan;
use super::reports::{self, RoundTrip};
use super::restart::{IceSession, LearntSsrc};
use super::{KEYFRAME_INTERVAL, Meter, MeterReading, PeerError, PeerEvents, PublisherSink};
use crate::sdp::{CheckedOffer, MediaKind, Purpose};

/// How often it is looked which lost packets are to be asked for.
const NACK_INTERVAL: Duration = Duration::from_millis(10);

/// A publisher that is connected or on its way. Dropping it closes it.
pub struct PublisherPeer {
    connection: Arc<Connection>,
    runtime: tokio::runtime::Handle,
    streams: Arc<Streams>,
    trip: RoundTrip,
    /// What is at work beside the streams, for as long as it lives.
    tasks: [AbortHandle; 3],
}

/// What a publisher sends, as received here.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PublisherStats {
    /// The video stream, once its first packet came.
    pub video: Option<MeterReading>,
    /// The audio stream, once its first packet came.
    pub audio: Option<MeterReading>,
    /// The last round trip that was measured; `None` with clients that do not answer (RFC 3611: browsers do).
    pub round_trip: Option<Duration>,
}

/// How far a peer has come on its way to media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connectivity {
    /// Addresses that the client named and that can be used, up to now.
    pub candidates: usize,
    /// Finding a path.
    pub ice: Step,
    /// Agreeing on keys.
    pub dtls: Step,
}

/// Where one step of the way stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Not begun.
    Waiting,
    /// Under way.
    Trying,
    /// Done.
    Done,
    /// It was done, and does not hold at the moment; it may recover.
    Lost,
    /// Failed, or ended.
    Failed,
}

#[derive(Default)]
struct Streams {
    video: Mutex<Option<Stream>>,
    audio: Mutex<Option<Stream>>,
    keyframe: Notify,
}

struct Stream {
    ssrc: u32,
    meter: Meter,
    /// Only where the client sends again what is asked for.
    nacks: Option<NackPlan>,
}

impl Streams {
    fn of(&self, kind: MediaKind) -> &Mutex<Option<Stream>> {
        match kind {
            MediaKind::Video => &self.video,
            MediaKind::Audio => &self.audio,
        }
    }

    fn reading(&self, kind: MediaKind) -> Option<MeterReading> {
        let stream = self.of(kind).lock().unwrap_or_else(PoisonError::into_inner);
        stream.as_ref().map(|s| s.meter.reading(Instant::now()))
    }
}

pub(super) async fn answer(
    connection: Connection,
    offer: &CheckedOffer,
    sink: PublisherSink,
    events: PeerEvents,
) -> Result<(PublisherPeer, String), PeerError> {
    let streams = Arc::new(Streams::default());
    sink.negotiated(offer);
    let connection = Arc::new(connection);
    let trip = RoundTrip::new();
    receive(connection.pc(), &streams, &sink, &trip);
    // From here on the drop of `peer` cleans up, also when the caller loses patience.
    let peer = PublisherPeer {
        connection: connection.clone(),
        runtime: tokio::runtime::Handle::current(),
        tasks: [
            tokio::spawn(ask_for_keyframes(connection.pc().clone(), streams.clone())).abort_handle(),
            tokio::spawn(ask_for_packets(Arc::downgrade(connection.pc()), streams.clone())).abort_handle(),
            tokio::spawn(reports::tell_time(Arc::downgrade(connection.pc()), trip.clone())).abort_handle(),
        ],
        streams,
        trip,
    };
    connection.watch(events);
    let answer = connection.negotiate(offer, Purpose::Publish).await?;
    Ok((peer, answer))
}

fn receive(pc: &Arc<RTCPeerConnection>, streams: &Arc<Streams>, sink: &PublisherSink, trip: &RoundTrip) {
    let (streams, sink, trip) = (streams.clone(), sink.clone(), trip.clone());
    pc.on_track(Box::new(move |track, receiver, _| {
        tokio::spawn(reports::read(receiver, kind_of(&track), sink.clone(), trip.clone()));
        tokio::spawn(read_track(track, streams.clone(), sink.clone()));
        Box::pin(async {})
    }));
}

fn kind_of(track: &TrackRemote) -> MediaKind {
    match track.codec().capability.mime_type.starts_with("audio/") {
        true => MediaKind::Audio,
        false => MediaKind::Video,
    }
}

async fn read_track(track: Arc<TrackRemote>, streams: Arc<Streams>, sink: PublisherSink) {
    let (codec, kind) = (track.codec(), kind_of(&track));
    let sends_again = codec.capability.rtcp_feedback.iter().any(|f| f.typ == "nack" && f.parameter.is_empty());
    let nacks = (sends_again && kind == MediaKind::Video).then(NackPlan::default);
    let stream = Stream { ssrc: track.ssrc(), meter: Meter::new(codec.capability.clock_rate), nacks };
    *streams.of(kind).lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    tracing::debug!(kind = kind.as_str(), codec = codec.capability.mime_type, ssrc = track.ssrc(), "a guest's track");
    loop {
        // An error means that the connection is gone, or that one packet was none: both show in the next read.
        let packet = match track.read_rtp().await {
            Ok((packet, _)) => packet,
            Err(error) => {
                tracing::debug!(%error, kind = kind.as_str(), "a guest's track ended");
                return;
            }
        };
        let header = &packet.header;
        let (sequence, timestamp, payload_type) = (header.sequence_number, header.timestamp, header.payload_type);
        let bytes: Bytes = match packet.marshal() {
            Ok(bytes) => bytes,
            Err(_) => continue,
        };
        if let Some(stream) = streams.of(kind).lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let now = Instant::now();
            stream.meter.handle_packet(now, sequence, timestamp, bytes.len());
            if let Some(nacks) = &mut stream.nacks {
                nacks.handle_packet(now, sequence);
            }
        }
        sink.rtp(kind, payload_type, bytes);
    }
}

/// Asks for lost pictures' packets until the connection is gone.
async fn ask_for_packets(pc: Weak<RTCPeerConnection>, streams: Arc<Streams>) {
    let mut look = tokio::time::interval(NACK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let due = {
            let mut stream = streams.video.lock().unwrap_or_else(PoisonError::into_inner);
            stream.as_mut().and_then(|s| Some((s.ssrc, s.nacks.as_mut()?.due(Instant::now()))))
        };
        let Some((media_ssrc, missing)) = due.filter(|(_, missing)| !missing.is_empty()) else { continue };
        let Some(pc) = pc.upgrade() else { return };
        let nacks = nack_pairs_from_sequence_numbers(&missing);
        if let Err(error) = pc.write_rtcp(&[Box::new(TransportLayerNack { sender_ssrc: 0, media_ssrc, nacks })]).await {
            tracing::trace!(%error, "lost packets could not be asked for");
        }
    }
}

/// Requests that come in a burst are one; one that comes too early is kept until it is due.
async fn ask_for_keyframes(pc: Arc<RTCPeerConnection>, streams: Arc<Streams>) {
    loop {
        streams.keyframe.notified().await;
        let ssrc = streams.video.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|s| s.ssrc);
        let Some(media_ssrc) = ssrc else { continue };
        tracing::debug!(media_ssrc, "asking a guest for a key frame");
        let request = PictureLossIndication { sender_ssrc: 0, media_ssrc };
        if let Err(error) = pc.write_rtcp(&[Box::new(request)]).await {
            tracing::debug!(%error, "a key frame could not be asked for");
        }
        tokio::time::sleep(KEYFRAME_INTERVAL).await;
    }
}

impl PublisherPeer {
    /// Asks for a key frame: at most one request a second is sent, a later one of a burst when it is due.
    pub fn request_keyframe(&self) {
        self.streams.keyframe.notify_one();
    }

    /// The same as a callback, which does not keep the peer alive.
    pub fn keyframe_requester(&self) -> Arc<dyn Fn() + Send + Sync> {
        let streams = self.streams.clone();
        Arc::new(move || streams.keyframe.notify_one())
    }

    /// What came in so far.
    pub fn stats(&self) -> PublisherStats {
        PublisherStats {
            video: self.streams.reading(MediaKind::Video),
            audio: self.streams.reading(MediaKind::Audio),
            round_trip: self.trip.get(),
        }
    }

    /// How far it has come.
    pub fn connectivity(&self) -> Connectivity {
        let dtls = self.connection.pc().dtls_transport();
        Connectivity {
            candidates: self.connection.known_candidates(),
            ice: match dtls.ice_transport().state() {
                RTCIceTransportState::Connected | RTCIceTransportState::Completed => Step::Done,
                RTCIceTransportState::Checking => Step::Trying,
                RTCIceTransportState::Disconnected => Step::Lost,
                RTCIceTransportState::Failed | RTCIceTransportState::Closed => Step::Failed,
                _ => Step::Waiting,
            },
            dtls: match dtls.state() {
                RTCDtlsTransportState::Connected => Step::Done,
                RTCDtlsTransportState::Connecting => Step::Trying,
                RTCDtlsTransportState::Failed | RTCDtlsTransportState::Closed => Step::Failed,
                _ => Step::Waiting,
            },
        }
    }

    /// Its ICE session: what may still change on this connection.
    pub fn ice(&self) -> IceSession {
        let streams = self.streams.clone();
        let learnt: LearntSsrc = Arc::new(move |kind| {
            let stream = streams.of(kind).lock().unwrap_or_else(PoisonError::into_inner);
            stream.as_ref().map(|stream| stream.ssrc)
        });
        IceSession::new(&self.connection, self.runtime.clone(), learnt)
    }

    /// Ends the connection; returns when its sockets are closed. May be awaited from any executor.
    pub async fn close(self) {
        let connection = self.connection.clone();
        // A failure to join means that the factory is gone, and the connection with it.
        let _ = self.runtime.spawn(async move { connection.close().await }).await;
    }
}

impl Drop for PublisherPeer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let connection = self.connection.clone();
        self.runtime.spawn(async move { connection.close().await });
    }
}
