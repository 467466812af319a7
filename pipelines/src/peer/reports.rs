//! What a publisher's RTCP says: its sender reports go to the sink, for lip-sync; its replies tell the round trip.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::rtcp::extended_report::{DLRRReportBlock, ExtendedReport, ReceiverReferenceTimeReportBlock};
use webrtc::rtcp::sender_report::SenderReport;
use webrtc::rtp_transceiver::rtp_receiver::RTCRtpReceiver;

use super::roundtrip::{ntp, round_trip};
use super::{PublisherSink, SenderClock};
use crate::sdp::MediaKind;

/// How often the client is told our time. It answers with its next report: once a second for video.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The last round trip that was measured. Cheap to clone.
#[derive(Clone)]
pub(super) struct RoundTrip {
    /// Who we are in what we send.
    ssrc: u32,
    /// Nanoseconds plus one; 0 while there is none.
    last: Arc<AtomicU64>,
}

impl RoundTrip {
    pub(super) fn new() -> Self {
        Self { ssrc: rand::random::<u32>().max(1), last: Arc::default() }
    }

    pub(super) fn get(&self) -> Option<Duration> {
        self.last.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_nanos)
    }

    fn note(&self, reply: &ExtendedReport) {
        let blocks = reply.reports.iter().filter_map(|block| block.as_any().downcast_ref::<DLRRReportBlock>());
        for heard in blocks.flat_map(|block| &block.reports).filter(|heard| heard.ssrc == self.ssrc) {
            if let Some(trip) = round_trip(ntp(since_epoch()), heard.last_rr, heard.dlrr) {
                self.last.store(trip.as_nanos() as u64 + 1, Ordering::Relaxed);
            }
        }
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Tells the client our time until the connection is gone.
pub(super) async fn tell_time(pc: Weak<RTCPeerConnection>, trip: RoundTrip) {
    let mut due = tokio::time::interval(TELL_EVERY);
    loop {
        due.tick().await;
        let Some(pc) = pc.upgrade() else { return };
        match pc.connection_state() {
            RTCPeerConnectionState::Connected => {}
            RTCPeerConnectionState::Closed | RTCPeerConnectionState::Failed => return,
            _ => continue,
        }
        let time = ReceiverReferenceTimeReportBlock { ntp_timestamp: ntp(since_epoch()) };
        let report = ExtendedReport { sender_ssrc: trip.ssrc, reports: vec![Box::new(time)] };
        if let Err(error) = pc.write_rtcp(&[Box::new(report)]).await {
            tracing::trace!(%error, "the time could not be told");
        }
    }
}

/// Reads until the stream ends. The stack's receiver reports take the sender's clock from what is read here, too.
pub(super) async fn read(receiver: Arc<RTCRtpReceiver>, kind: MediaKind, sink: PublisherSink, trip: RoundTrip) {
    while let Ok((packets, _)) = receiver.read_rtcp().await {
        for packet in packets {
            let packet = packet.as_any();
            if let Some(report) = packet.downcast_ref::<SenderReport>() {
                sink.sender_report(kind, SenderClock { ntp: report.ntp_time, rtp: report.rtp_time });
            } else if let Some(reply) = packet.downcast_ref::<ExtendedReport>() {
                trip.note(reply);
            }
        }
    }
}
