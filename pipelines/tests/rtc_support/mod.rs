//! The other end of a peer: a real WebRTC client fed by real encoders, and eyes and ears for what comes out.
#![allow(dead_code)]

pub mod clap;
pub mod impaired;
pub mod session;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;
use r58_pipelines::feed::{Feed, FeedConsumer, FeedLink};
use r58_pipelines::ice::IceServer;
use r58_pipelines::peer::{PeerEvent, PeerEvents};
use tokio::sync::{mpsc, watch};
use webrtc::api::interceptor_registry::{configure_nack, configure_twcc_receiver_only};
use webrtc::api::media_engine::MediaEngine;
use webrtc::api::setting_engine::SettingEngine;
use webrtc::api::{API, APIBuilder};
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::interceptor::registry::Registry;
use webrtc::interceptor::report::receiver::ReceiverReport;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::peer_connection::policy::ice_transport_policy::RTCIceTransportPolicy;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc::rtcp::sender_report::SenderReport;
use webrtc::rtp::packet::Packet;
use webrtc::rtp_transceiver::RTCRtpTransceiverInit;
use webrtc::rtp_transceiver::rtp_codec::{RTCRtpCodecCapability, RTCRtpCodecParameters, RTPCodecType};
use webrtc::rtp_transceiver::rtp_transceiver_direction::RTCRtpTransceiverDirection;
use webrtc::track::track_local::track_local_static_rtp::TrackLocalStaticRTP;
use webrtc::track::track_local::{TrackLocal, TrackLocalWriter};
use webrtc::util::Unmarshal;

/// Nothing in these tests takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a client sends or receives: the codec by its SDP name, and the encoder's end of a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub kind: RTPCodecType,
    pub mime: &'static str,
    pub clock: u32,
    pub fmtp: &'static str,
    pub launch: &'static str,
}

pub const OPUS: Stream = Stream {
    kind: RTPCodecType::Audio,
    mime: "audio/opus",
    clock: 48_000,
    fmtp: "minptime=10;useinbandfec=1",
    launch: "audiotestsrc is-live=true freq=440 volume=0.5 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay pt=111",
};

pub const VP8: Stream = Stream {
    kind: RTPCodecType::Video,
    mime: "video/VP8",
    clock: 90_000,
    fmtp: "",
    launch: "videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=180,framerate=30/1 ! vp8enc name=enc deadline=1 cpu-used=8 keyframe-max-dist=3000 ! rtpvp8pay mtu=1200 picture-id-mode=2",
};

macro_rules! h264 {
    ($profile:literal, $fmtp:literal) => {
        Stream {
            kind: RTPCodecType::Video,
            mime: "video/H264",
            clock: 90_000,
            fmtp: $fmtp,
            launch: concat!(
                "videotestsrc is-live=true pattern=red ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! ",
                "x264enc name=enc tune=zerolatency speed-preset=ultrafast key-int-max=3000 option-string=slice-max-size=1000 ! ",
                "video/x-h264,profile=",
                $profile,
                " ! rtph264pay mtu=1200 config-interval=-1 aggregate-mode=none"
            ),
        }
    };
}

pub const CONSTRAINED_BASELINE: Stream =
    h264!("constrained-baseline", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f");
pub const BASELINE: Stream =
    h264!("baseline", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f");
pub const MAIN: Stream = h264!("main", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f");
pub const HIGH: Stream = h264!("high", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f");
pub const SINGLE_NAL: Stream =
    h264!("constrained-baseline", "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f");

/// A running encoder whose RTP packets go to whoever listens.
pub struct Encoder {
    pipeline: gst::Pipeline,
}

impl Encoder {
    pub fn start(stream: &Stream, mut to: impl FnMut(Bytes) + Send + 'static) -> Self {
        Self::start_dated(stream, move |packet, _| to(packet))
    }

    /// The same; with each packet comes the time of capture, in nanoseconds of the shared clock.
    pub fn start_dated(stream: &Stream, mut to: impl FnMut(Bytes, u64) + Send + 'static) -> Self {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(&format!("{} ! appsink name=out sync=false", stream.launch)).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        clap::paint(&pipeline);
        let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer().unwrap();
            let captured = sink.base_time().unwrap() + buffer.pts().unwrap();
            to(Bytes::copy_from_slice(&buffer.map_readable().unwrap()), captured.nseconds());
            Ok(gst::FlowSuccess::Ok)
        });
        sink.set_callbacks(callbacks.build());
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline }
    }

    pub fn keyframe(&self) -> impl Fn() + Send + Sync + 'static {
        let encoder = self.pipeline.by_name("enc");
        move || {
            if let Some(encoder) = &encoder {
                encoder.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
            }
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// A WebRTC client: what a browser is to the box.
pub struct Client {
    pub pc: Arc<RTCPeerConnection>,
    pub state: watch::Receiver<RTCPeerConnectionState>,
    pub plis: Arc<AtomicU64>,
    /// Pictures sent: packets with the marker bit, of video.
    pub pictures: Arc<AtomicU64>,
    encoders: Arc<Mutex<Vec<Encoder>>>,
}

fn api(streams: &[Stream], loopback: bool) -> API {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut media = MediaEngine::default();
    for (n, stream) in streams.iter().enumerate() {
        let codec =
            RTCRtpCodecParameters { capability: capability(stream), payload_type: 100 + n as u8, ..Default::default() };
        media.register_codec(codec, stream.kind).unwrap();
    }
    // The stack's own sender reports say when a packet was written, which on a busy machine is long after it was captured.
    let mut registry = configure_nack(Registry::new(), &mut media);
    registry.add(Box::new(ReceiverReport::builder()));
    let registry = configure_twcc_receiver_only(registry, &mut media).unwrap();
    let mut settings = SettingEngine::default();
    settings.set_include_loopback_candidate(loopback);
    // This stack would wait two seconds for something better than a relay; browsers do not.
    settings.set_relay_acceptance_min_wait(Some(Duration::ZERO));
    APIBuilder::new().with_media_engine(media).with_interceptor_registry(registry).with_setting_engine(settings).build()
}

fn capability(stream: &Stream) -> RTCRtpCodecCapability {
    RTCRtpCodecCapability {
        mime_type: stream.mime.to_owned(),
        clock_rate: stream.clock,
        channels: if stream.kind == RTPCodecType::Audio { 2 } else { 0 },
        sdp_fmtp_line: stream.fmtp.to_owned(),
        rtcp_feedback: vec![],
    }
}

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// A stream's sender reports, one a second: which moment of capture a time stamp stands for, as browsers say it.
struct Reports {
    ssrc: u32,
    /// When the next one is due, in nanoseconds of the shared clock.
    due: u64,
    packets: u32,
    octets: u32,
}

impl Reports {
    fn note(&mut self, packet: &Packet, captured: u64) -> Option<SenderReport> {
        self.packets += 1;
        self.octets += packet.payload.len() as u32;
        if self.due == 0 {
            self.due = captured + SECOND;
        }
        if captured < self.due {
            return None;
        }
        self.due = captured + SECOND;
        let (seconds, rest) = (captured / SECOND, captured % SECOND);
        Some(SenderReport {
            ssrc: self.ssrc,
            ntp_time: (seconds << 32) | ((rest << 32) / SECOND),
            rtp_time: packet.header.timestamp,
            packet_count: self.packets,
            octet_count: self.octets,
            ..SenderReport::default()
        })
    }
}

impl Client {
    pub async fn open(streams: &[Stream], servers: &[IceServer], relay_only: bool) -> Self {
        let configuration = RTCConfiguration {
            ice_servers: servers
                .iter()
                .map(|s| RTCIceServer {
                    urls: s.urls.clone(),
                    username: s.username.clone().unwrap_or_default(),
                    credential: s.credential.clone().unwrap_or_default(),
                })
                .collect(),
            ice_transport_policy: if relay_only { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All },
            ..Default::default()
        };
        let pc = Arc::new(api(streams, !relay_only).new_peer_connection(configuration).await.unwrap());
        let (sender, state) = watch::channel(RTCPeerConnectionState::New);
        pc.on_peer_connection_state_change(Box::new(move |state| {
            sender.send_replace(state);
            Box::pin(async {})
        }));
        Self { pc, state, plis: Arc::default(), pictures: Arc::default(), encoders: Arc::default() }
    }

    /// Adds streams to send; their encoders start when the connection is up.
    pub async fn send(&self, streams: &[Stream]) {
        self.send_some(streams, |_| true).await;
    }

    /// The same, without the packets that are not wanted.
    pub async fn send_some(&self, streams: &[Stream], wanted: impl Fn(&Packet) -> bool + Clone + Send + 'static) {
        for stream in streams {
            let track =
                Arc::new(TrackLocalStaticRTP::new(capability(stream), stream.kind.to_string(), "test".to_owned()));
            let local: Arc<dyn TrackLocal + Send + Sync> = track.clone();
            let init =
                RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Sendonly, send_encodings: vec![] };
            let transceiver = self.pc.add_transceiver_from_track(local, Some(init)).await.unwrap();
            let (encoders, mut up, stream, plis) =
                (self.encoders.clone(), self.state.clone(), *stream, self.plis.clone());
            let (pictures, wanted, pc) = (self.pictures.clone(), wanted.clone(), Arc::downgrade(&self.pc));
            tokio::spawn(async move {
                if up.wait_for(|s| *s == RTCPeerConnectionState::Connected).await.is_err() {
                    return;
                }
                let (to, mut packets) = mpsc::unbounded_channel::<(Bytes, u64)>();
                let encoder = Encoder::start_dated(&stream, move |packet, at| drop(to.send((packet, at))));
                let keyframe = encoder.keyframe();
                encoders.lock().unwrap().push(encoder);
                let sender = transceiver.sender().await;
                let mut reports =
                    Reports { ssrc: sender.get_parameters().await.encodings[0].ssrc, due: 0, packets: 0, octets: 0 };
                tokio::spawn(async move {
                    while let Ok((reports, _)) = sender.read_rtcp().await {
                        if reports.iter().any(|r| r.as_any().is::<PictureLossIndication>()) {
                            plis.fetch_add(1, Ordering::Relaxed);
                            keyframe();
                        }
                    }
                });
                while let Some((mut packet, captured)) = packets.recv().await {
                    let packet = Packet::unmarshal(&mut packet).unwrap();
                    if !wanted(&packet) {
                        continue;
                    }
                    if track.write_rtp(&packet).await.is_err() {
                        return;
                    }
                    if let (Some(report), Some(pc)) = (reports.note(&packet, captured), pc.upgrade()) {
                        // A report that cannot be sent is lost, as others are.
                        let _ = pc.write_rtcp(&[Box::new(report)]).await;
                    }
                    let last = stream.kind == RTPCodecType::Video && packet.header.marker;
                    pictures.fetch_add(u64::from(last), Ordering::Relaxed);
                }
            });
        }
    }

    pub async fn receive(&self, streams: &[Stream]) {
        for stream in streams {
            let init =
                RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, send_encodings: vec![] };
            self.pc.add_transceiver_from_kind(stream.kind, Some(init)).await.unwrap();
        }
    }

    /// A whole offer, with every candidate in it.
    pub async fn offer(&self) -> String {
        let offer = self.pc.create_offer(None).await.unwrap();
        let mut gathered = self.pc.gathering_complete_promise().await;
        self.pc.set_local_description(offer).await.unwrap();
        gathered.recv().await;
        self.pc.local_description().await.unwrap().sdp
    }

    pub async fn accept(&self, answer: String) {
        self.pc.set_remote_description(RTCSessionDescription::answer(answer).unwrap()).await.unwrap();
    }

    /// Sends nothing more, and stays connected.
    pub fn mute(&self) {
        self.encoders.lock().unwrap().clear();
    }

    pub async fn close(&self) {
        self.encoders.lock().unwrap().clear();
        self.pc.close().await.unwrap();
    }
}

/// Peer events as a queue.
pub fn events() -> (PeerEvents, mpsc::UnboundedReceiver<PeerEvent>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let tell = move |event| {
        let _ = sender.send(event);
    };
    (Arc::new(tell), receiver)
}

/// The next event for which `wanted` is true.
pub async fn wait_event(
    queue: &mut mpsc::UnboundedReceiver<PeerEvent>,
    wanted: impl Fn(&PeerEvent) -> bool,
) -> PeerEvent {
    let found = async {
        loop {
            let event = queue.recv().await.expect("the peer went without a word");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the event did not come")
}

/// What was seen and heard on a feed.
#[derive(Default)]
pub struct Seen {
    /// Mean Y, U and V of the middle of the last picture.
    pub colour: Option<(u8, u8, u8)>,
    pub pictures: u64,
    pub first_picture: Option<Instant>,
    /// Frequency of the last sound by its zero crossings, when it is loud.
    pub hertz: Option<f64>,
}

pub struct Watcher {
    feed: Feed,
    seen: watch::Sender<Seen>,
}

impl FeedConsumer for Watcher {
    fn video(&self, _at: u64, picture: &gst::Buffer) {
        let mode = self.feed.mode();
        let (width, height) = (mode.width as usize, mode.height as usize);
        let map = picture.map_readable().unwrap();
        let middle = |offset: usize, stride: usize, rows: usize| map[offset + rows / 2 * stride + stride / 2];
        let luma = width * height;
        let colour = (
            middle(0, width, height),
            middle(luma, width / 2, height / 2),
            middle(luma + luma / 4, width / 2, height / 2),
        );
        self.seen.send_modify(|seen| {
            seen.colour = Some(colour);
            seen.pictures += 1;
            seen.first_picture.get_or_insert_with(Instant::now);
        });
    }

    fn audio(&self, _at: u64, sound: &gst::Buffer) {
        let map = sound.map_readable().unwrap();
        let left: Vec<i16> = map.chunks_exact(4).map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
        let loud = left.iter().any(|s| s.unsigned_abs() > 5000);
        let crossings = left.windows(2).filter(|w| (w[0] < 0) != (w[1] < 0)).count();
        let hertz = loud.then(|| crossings as f64 / 2.0 * 48_000.0 / left.len().max(1) as f64);
        self.seen.send_modify(|seen| seen.hertz = hertz);
    }
}

/// Watches a feed for as long as the link lives.
pub fn watch_feed(feed: &Feed) -> (watch::Receiver<Seen>, FeedLink) {
    let (sender, receiver) = watch::channel(Seen::default());
    let link = feed.subscribe(Arc::new(Watcher { feed: feed.clone(), seen: sender }));
    (receiver, link)
}

/// Waits until the feed shows what is wanted.
pub async fn wait_seen(seen: &mut watch::Receiver<Seen>, what: &str, wanted: impl FnMut(&Seen) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, seen.wait_for(wanted)).await;
    waited.unwrap_or_else(|_| panic!("{what}: not seen")).expect("the feed is gone");
}

/// Red, as videotestsrc paints it (BT.709 or BT.601, studio range).
pub fn is_red(colour: (u8, u8, u8)) -> bool {
    let (y, u, v) = colour;
    (50..100).contains(&y) && (80..120).contains(&u) && v > 220
}

/// The tone of `OPUS`; one block of 20 ms holds 8.8 periods of it.
pub fn is_tone(hertz: f64) -> bool {
    (390.0..490.0).contains(&hertz)
}
