//! A viewer's connection: sends what a fan-out hands out, under the numbers that this viewer negotiated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use webrtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use webrtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc::rtcp::receiver_report::ReceiverReport;
use webrtc::rtp::packet::Packet;
use webrtc::rtp_transceiver::RTCRtpTransceiverInit;
use webrtc::rtp_transceiver::rtp_sender::RTCRtpSender;
use webrtc::rtp_transceiver::rtp_transceiver_direction::RTCRtpTransceiverDirection;
use webrtc::stats::StatsReportType;
use webrtc::track::track_local::track_local_static_rtp::TrackLocalStaticRTP;
use webrtc::track::track_local::{TrackLocal, TrackLocalWriter};
use webrtc::util::Unmarshal;

use super::connection::Connection;
use super::engine::{h264_capability, opus_capability};
use super::keyframe::begins_keyframe;
use super::restart::IceSession;
use super::{KEYFRAME_INTERVAL, PeerError, PeerEvents};
use crate::fanout::RtpFanout;
use crate::sdp::{CheckedOffer, H264Profile, MediaKind, Purpose};

/// A viewer that waits for a key frame asks again after this long; the fan-out merges requests for half a second.
const ASK_AGAIN: Duration = Duration::from_millis(600);

/// A packet that is not gone after this long has a viewer behind it that takes nothing any more.
const STALL: Duration = Duration::from_secs(2);

/// A viewer that is connected or on its way. Dropping it closes it.
pub struct ViewerPeer {
    connection: Arc<Connection>,
    runtime: tokio::runtime::Handle,
    counters: Arc<Counters>,
}

/// What a viewer was sent, and what it says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ViewerStats {
    /// RTP packets sent, both kinds.
    pub packets: u64,
    /// Bytes of those packets, without encryption.
    pub bytes: u64,
    /// Packets that this viewer was too slow for, and never got.
    pub dropped: u64,
    /// Key frames it asked for.
    pub keyframe_requests: u64,
    /// The share of packets that its last report misses, 0 to 1; `None` before its first report.
    pub loss: Option<f64>,
    /// Round trip, when its reports allow to compute one.
    pub round_trip: Option<Duration>,
}

#[derive(Default)]
struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    keyframe_requests: AtomicU64,
    /// 256ths plus one, 0 when there was no report.
    loss: AtomicU64,
}

pub(super) async fn answer(
    connection: Connection,
    offer: &CheckedOffer,
    fanout: RtpFanout,
    events: PeerEvents,
) -> Result<(ViewerPeer, String), PeerError> {
    let connection = Arc::new(connection);
    let pc = connection.pc().clone();
    // From here on the drop of `peer` cleans up, also when the caller loses patience.
    let peer = ViewerPeer {
        connection: connection.clone(),
        runtime: tokio::runtime::Handle::current(),
        counters: Arc::new(Counters::default()),
    };
    let connected = connection.watch(events);
    for media in &offer.media {
        let capability = match media.kind {
            MediaKind::Audio => opus_capability(),
            MediaKind::Video => {
                let profile = media.codecs.first().and_then(|c| c.h264).map(|(profile, _)| profile);
                h264_capability(profile.unwrap_or(H264Profile::ConstrainedBaseline), 1)
            }
        };
        let track = Arc::new(TrackLocalStaticRTP::new(capability, media.kind.as_str().to_owned(), "r58".to_owned()));
        let init =
            RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Sendonly, send_encodings: Vec::new() };
        let local: Arc<dyn TrackLocal + Send + Sync> = track.clone();
        let transceiver = pc.add_transceiver_from_track(local, Some(init)).await?;
        tokio::spawn(listen(transceiver.sender().await, media.kind, fanout.clone(), peer.counters.clone()));
        let sending = send(track, media.kind, fanout.clone(), connected.clone(), peer.counters.clone());
        let weak = Arc::downgrade(&connection);
        tokio::spawn(async move {
            if sending.await == End::Stalled
                && let Some(connection) = weak.upgrade()
            {
                tracing::debug!("a viewer takes nothing any more");
                connection.close().await;
            }
        });
    }
    let answer = connection.negotiate(offer, Purpose::View).await?;
    Ok((peer, answer))
}

/// Why nothing is sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The viewer or the stream ended.
    Ended,
    /// The viewer takes nothing.
    Stalled,
}

/// Sends from the moment of connection to the end of it. What waits for a viewer that is slow is bounded by the fan-out; what
/// is older is dropped, and a viewer that takes nothing at all is given up.
async fn send(
    track: Arc<TrackLocalStaticRTP>,
    kind: MediaKind,
    fanout: RtpFanout,
    mut connected: watch::Receiver<bool>,
    counters: Arc<Counters>,
) -> End {
    if connected.wait_for(|up| *up).await.is_err() {
        return End::Ended;
    }
    let mut packets = match kind {
        MediaKind::Video => fanout.subscribe_video(),
        MediaKind::Audio => fanout.subscribe_audio(),
    };
    let mut entry = match kind {
        MediaKind::Video => Entry::wait(&fanout),
        MediaKind::Audio => Entry::Open,
    };
    loop {
        // The sender of `connected` lives in a handler of the connection, and goes when that is closed.
        let next = tokio::select! {
            next = packets.recv() => next,
            gone = ended(&mut connected) => { let () = gone; return End::Ended }
        };
        match next {
            Ok(bytes) => {
                let forwarded = forward(&track, bytes, &mut entry, &fanout, &counters);
                if tokio::time::timeout(STALL, forwarded).await.is_err() {
                    return End::Stalled;
                }
            }
            Err(RecvError::Lagged(missed)) => {
                counters.dropped.fetch_add(missed, Ordering::Relaxed);
                // On with what is fresh, and with a picture that can be decoded.
                packets = packets.resubscribe();
                if kind == MediaKind::Video {
                    entry = Entry::wait(&fanout);
                }
            }
            Err(RecvError::Closed) => return End::Ended,
        }
    }
}

async fn ended(connected: &mut watch::Receiver<bool>) {
    while connected.changed().await.is_ok() {}
}

/// Whether packets of use to the viewer's decoder come yet.
enum Entry {
    /// Not before a key frame, which was asked for then.
    Waiting { asked: Instant },
    /// They do.
    Open,
}

impl Entry {
    fn wait(fanout: &RtpFanout) -> Self {
        fanout.request_keyframe();
        Self::Waiting { asked: Instant::now() }
    }

    /// Whether this payload is to be sent. A fan-out merges requests: one that came right after somebody else's key frame is
    /// never fulfilled, so it is repeated.
    fn admits(&mut self, payload: &[u8], fanout: &RtpFanout) -> bool {
        match self {
            Self::Open => true,
            Self::Waiting { .. } if begins_keyframe(payload) => {
                *self = Self::Open;
                true
            }
            Self::Waiting { asked } => {
                if asked.elapsed() >= ASK_AGAIN {
                    *self = Self::wait(fanout);
                }
                false
            }
        }
    }
}

async fn forward(
    track: &TrackLocalStaticRTP,
    bytes: Bytes,
    entry: &mut Entry,
    fanout: &RtpFanout,
    counters: &Counters,
) {
    let size = bytes.len() as u64;
    let mut rest = bytes;
    let Ok(packet) = Packet::unmarshal(&mut rest) else { return };
    if !entry.admits(&packet.payload, fanout) {
        return;
    }
    // The track writes this viewer's SSRC and payload type into a copy of the header.
    if track.write_rtp(&packet).await.is_ok_and(|written| written > 0) {
        counters.packets.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(size, Ordering::Relaxed);
    }
}

/// Reads what the viewer reports until its connection ends.
async fn listen(sender: Arc<RTCRtpSender>, kind: MediaKind, fanout: RtpFanout, counters: Arc<Counters>) {
    let mut last: Option<Instant> = None;
    while let Ok((packets, _)) = sender.read_rtcp().await {
        for packet in packets {
            let packet = packet.as_any();
            if packet.is::<PictureLossIndication>() || packet.is::<FullIntraRequest>() {
                counters.keyframe_requests.fetch_add(1, Ordering::Relaxed);
                if kind == MediaKind::Video && last.is_none_or(|last| last.elapsed() >= KEYFRAME_INTERVAL) {
                    last = Some(Instant::now());
                    fanout.request_keyframe();
                }
            } else if let Some(report) = packet.downcast_ref::<ReceiverReport>()
                && let Some(worst) = report.reports.iter().map(|r| r.fraction_lost).max()
            {
                counters.loss.store(u64::from(worst) + 1, Ordering::Relaxed);
            }
        }
    }
}

impl ViewerPeer {
    /// What was sent so far.
    pub fn stats(&self) -> ViewerStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        ViewerStats {
            packets: get(&counters.packets),
            bytes: get(&counters.bytes),
            dropped: get(&counters.dropped),
            keyframe_requests: get(&counters.keyframe_requests),
            loss: get(&counters.loss).checked_sub(1).map(|parts| parts as f64 / 256.0),
            round_trip: None,
        }
    }

    /// The same with the round trip, which the stack computes from reports of both ends.
    pub async fn full_stats(&self) -> ViewerStats {
        let pc = self.connection.pc().clone();
        let reports = self.runtime.spawn(async move { pc.get_stats().await }).await;
        let round_trip = reports.ok().and_then(|reports| {
            reports.reports.values().find_map(|report| match report {
                StatsReportType::RemoteInboundRTP(remote) => remote.round_trip_time,
                _ => None,
            })
        });
        let round_trip = round_trip.and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok());
        ViewerStats { round_trip, ..self.stats() }
    }

    /// Its ICE session: what may still change on this connection.
    pub fn ice(&self) -> IceSession {
        IceSession::new(&self.connection, self.runtime.clone(), Arc::new(|_| None))
    }

    /// Ends the connection; returns when its sockets are closed. May be awaited from any executor.
    pub async fn close(self) {
        let connection = self.connection.clone();
        // A failure to join means that the factory is gone, and the connection with it.
        let _ = self.runtime.spawn(async move { connection.close().await }).await;
    }
}

impl Drop for ViewerPeer {
    fn drop(&mut self) {
        let connection = self.connection.clone();
        self.runtime.spawn(async move { connection.close().await });
    }
}
