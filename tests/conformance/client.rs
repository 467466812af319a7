//! Points that need a whole WebRTC client: one that sends sound, restarts, or is gone from one moment to the next.

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use r58::conformance::{Check, Probe, Session};
use r58_pipelines::sdp::AnswerFragment;
use tokio::sync::watch;
use webrtc::api::APIBuilder;
use webrtc::api::interceptor_registry::register_default_interceptors;
use webrtc::api::media_engine::{MIME_TYPE_OPUS, MediaEngine};
use webrtc::api::setting_engine::SettingEngine;
use webrtc::interceptor::registry::Registry;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::offer_answer_options::RTCOfferOptions;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc::rtcp::receiver_report::ReceiverReport;
use webrtc::rtp::header::Header;
use webrtc::rtp::packet::Packet;
use webrtc::rtp_transceiver::rtp_codec::RTCRtpCodecCapability;
use webrtc::track::track_local::TrackLocalWriter;
use webrtc::track::track_local::track_local_static_rtp::TrackLocalStaticRTP;

use super::place::Place;
use super::support::process::Process;
use super::support::until;

const PATIENCE: Duration = Duration::from_secs(20);
/// Consent lasts 30 s (RFC 7675, section 5.1); and some for the server to look.
const CONSENT: Duration = Duration::from_secs(40);
/// One packet of silence, 20 ms.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

/// A client that sends sound.
struct Speaker {
    pc: Arc<RTCPeerConnection>,
    state: watch::Receiver<RTCPeerConnectionState>,
    /// The last sequence number that the server reported to have.
    reported: watch::Receiver<Option<u32>>,
}

impl Speaker {
    async fn new() -> Result<Self, webrtc::Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut media = MediaEngine::default();
        media.register_default_codecs()?;
        let registry = register_default_interceptors(Registry::new(), &mut media)?;
        let mut settings = SettingEngine::default();
        settings.set_include_loopback_candidate(true);
        let api = APIBuilder::new()
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_setting_engine(settings)
            .build();
        let pc = Arc::new(api.new_peer_connection(RTCConfiguration::default()).await?);
        let (told, state) = watch::channel(RTCPeerConnectionState::New);
        pc.on_peer_connection_state_change(Box::new(move |state| {
            told.send_replace(state);
            Box::pin(async {})
        }));
        let opus = RTCRtpCodecCapability {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            clock_rate: 48_000,
            channels: 2,
            ..Default::default()
        };
        let track = Arc::new(TrackLocalStaticRTP::new(opus, "audio".into(), "test".into()));
        let sender = pc.add_track(track.clone()).await?;
        let (heard, reported) = watch::channel(None);
        tokio::spawn(async move {
            while let Ok((packets, _)) = sender.read_rtcp().await {
                let reports = packets.iter().filter_map(|packet| packet.as_any().downcast_ref::<ReceiverReport>());
                if let Some(last) = reports.flat_map(|report| &report.reports).map(|r| r.last_sequence_number).max() {
                    heard.send_replace(Some(last));
                }
            }
        });
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            let mut header = Header { version: 2, ..Header::default() };
            loop {
                tick.tick().await;
                header.sequence_number = header.sequence_number.wrapping_add(1);
                header.timestamp = header.timestamp.wrapping_add(960);
                let packet = Packet { header: header.clone(), payload: SILENCE.to_vec().into() };
                // Before the connection is up, and in the middle of a restart, nobody takes it.
                let _ = track.write_rtp(&packet).await;
            }
        });
        Ok(Self { pc, state, reported })
    }

    async fn offer(&self, ice_restart: bool) -> Result<String, String> {
        let work = async {
            let offer = self.pc.create_offer(Some(RTCOfferOptions { ice_restart, ..Default::default() })).await?;
            let mut gathered = self.pc.gathering_complete_promise().await;
            self.pc.set_local_description(offer).await?;
            gathered.recv().await;
            Ok::<_, webrtc::Error>(self.pc.local_description().await.map(|local| local.sdp).unwrap_or_default())
        };
        work.await.map_err(|error| error.to_string())
    }

    async fn accept(&self, answer: String) -> Check {
        let answer = RTCSessionDescription::answer(answer).map_err(|error| error.to_string())?;
        self.pc.set_remote_description(answer).await.map_err(|error| error.to_string())
    }

    async fn join(&mut self, probe: &Probe) -> Result<Session, String> {
        let session = probe.join(self.offer(false).await?).await?;
        self.accept(session.answer.clone()).await?;
        let up = self.state.wait_for(|state| *state == RTCPeerConnectionState::Connected);
        let up = tokio::time::timeout(PATIENCE, up).await.map(drop);
        up.map_err(|_| "the client did not get connected".to_owned())?;
        Ok(session)
    }

    /// Waits until the server reports to have got twenty packets more.
    async fn is_heard(&mut self) -> Check {
        let before = *self.reported.borrow();
        let later = self.reported.wait_for(|now| now.unwrap_or(0) >= before.unwrap_or(0) + 20);
        tokio::time::timeout(PATIENCE, later).await.map(drop).map_err(|_| "no media is reported as received".into())
    }
}

/// The first answer with the ICE part of a restart's in place of its own.
fn merged(answer: &str, fragment: &str) -> String {
    let of = |name: &str| fragment.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    let candidates: Vec<&str> = fragment.lines().filter(|line| line.starts_with("a=candidate:")).collect();
    let mut lines = Vec::new();
    for line in answer.lines().filter(|line| !line.starts_with("a=candidate:") && *line != "a=end-of-candidates") {
        match line.split_once(':').map_or(line, |(name, _)| name) {
            name @ ("a=ice-ufrag" | "a=ice-pwd") => lines.push(of(name)),
            "a=mid" => lines.extend([line].into_iter().chain(candidates.iter().copied()).map(str::to_owned)),
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\r\n") + "\r\n"
}

/// Point 23.
pub async fn goes_on(probe: &Probe) -> Check {
    let mut speaker = Speaker::new().await.map_err(|error| error.to_string())?;
    let session = speaker.join(probe).await?;
    let done = async {
        speaker.is_heard().await?;
        let offer = speaker.offer(true).await?;
        let fragment = AnswerFragment::of_answer(&offer).map_err(|error| error.to_string())?.to_string();
        let (_, answer) = probe.restart(&session, "*", fragment).await?;
        speaker.accept(merged(&session.answer, &answer)).await?;
        speaker.is_heard().await?;
        speaker.is_heard().await
    };
    let done = done.await;
    probe.leave(&session).await;
    let _ = speaker.pc.close().await;
    done
}

/// Point 8: a client of its own process, killed.
pub async fn vanishes(probe: &Probe, place: &Place) -> Check {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(own);
    let crew = place.crew.clone().unwrap_or_default();
    command.env("R58_VANISHING_CLIENT", [&place.base, &place.seat, &place.token, &crew].map(String::as_str).join("\n"));
    let mut client = Process::start("a client", &mut command);
    let said = |line: &str| line.strip_prefix("session ").map(str::to_owned);
    let url = client.line(PATIENCE, "its session", said).await;
    client.kill();
    until(CONSENT, "the end of a session whose client vanished", || async {
        match probe.is_known(&url).await {
            Ok(false) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    Ok(())
}

/// This process as the client that vanishes.
pub struct Vanishing(Vec<String>);

impl Vanishing {
    pub fn asked_for() -> Option<Self> {
        let words = std::env::var("R58_VANISHING_CLIENT").ok()?;
        Some(Self(words.split('\n').map(str::to_owned).collect()))
    }

    pub async fn run(self) -> ExitCode {
        let [base, seat, token, crew] = self.0.as_slice() else { return ExitCode::FAILURE };
        let probe = Probe::new(base, seat, token, (!crew.is_empty()).then_some(crew.as_str())).expect("an address");
        let mut speaker = Speaker::new().await.expect("a client");
        let session = speaker.join(&probe).await.expect("a session");
        speaker.is_heard().await.expect("media");
        println!("session {}", session.url);
        std::future::pending().await
    }
}
