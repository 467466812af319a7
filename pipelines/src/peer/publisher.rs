//! A guest's connection: receives, measures, hands packets on, asks for key frames.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc::rtp_transceiver::rtp_receiver::RTCRtpReceiver;
use webrtc::track::track_remote::TrackRemote;
use webrtc::util::Marshal;

use super::connection::Connection;
use super::restart::{IceSession, LearntSsrc};
use super::{KEYFRAME_INTERVAL, Meter, MeterReading, PeerError, PeerEvents, PublisherSink};
use crate::sdp::{CheckedOffer, MediaKind, Purpose};

/// A publisher that is connected or on its way. Dropping it closes it.
pub struct PublisherPeer {
    connection: Arc<Connection>,
    runtime: tokio::runtime::Handle,
    streams: Arc<Streams>,
    asker: AbortHandle,
}

/// What a publisher sends, as received here.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PublisherStats {
    /// The video stream, once its first packet came.
    pub video: Option<MeterReading>,
    /// The audio stream, once its first packet came.
    pub audio: Option<MeterReading>,
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
    receive(connection.pc(), &streams, &sink);
    // From here on the drop of `peer` cleans up, also when the caller loses patience.
    let peer = PublisherPeer {
        connection: connection.clone(),
        runtime: tokio::runtime::Handle::current(),
        asker: tokio::spawn(ask_for_keyframes(connection.pc().clone(), streams.clone())).abort_handle(),
        streams,
    };
    connection.watch(events);
    let answer = connection.negotiate(offer, Purpose::Publish).await?;
    Ok((peer, answer))
}

fn receive(pc: &Arc<RTCPeerConnection>, streams: &Arc<Streams>, sink: &PublisherSink) {
    let (streams, sink) = (streams.clone(), sink.clone());
    pc.on_track(Box::new(move |track, receiver, _| {
        tokio::spawn(drain_rtcp(receiver));
        tokio::spawn(read_track(track, streams.clone(), sink.clone()));
        Box::pin(async {})
    }));
}

async fn read_track(track: Arc<TrackRemote>, streams: Arc<Streams>, sink: PublisherSink) {
    let codec = track.codec();
    let kind = match codec.capability.mime_type.starts_with("audio/") {
        true => MediaKind::Audio,
        false => MediaKind::Video,
    };
    let stream = Stream { ssrc: track.ssrc(), meter: Meter::new(codec.capability.clock_rate) };
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
            stream.meter.handle_packet(Instant::now(), sequence, timestamp, bytes.len());
        }
        sink.rtp(kind, payload_type, bytes);
    }
}

/// The stack's receiver reports take the sender's clock from what is read here.
async fn drain_rtcp(receiver: Arc<RTCRtpReceiver>) {
    while receiver.read_rtcp().await.is_ok() {}
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
        PublisherStats { video: self.streams.reading(MediaKind::Video), audio: self.streams.reading(MediaKind::Audio) }
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
        self.asker.abort();
        let connection = self.connection.clone();
        self.runtime.spawn(async move { connection.close().await });
    }
}
