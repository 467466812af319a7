//! A session: a peer connection that publishes to others or pulls from them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;
use webrtc::api::interceptor_registry::register_default_interceptors;
use webrtc::api::media_engine::MediaEngine;
use webrtc::api::setting_engine::SettingEngine;
use webrtc::api::{API, APIBuilder};
use webrtc::ice::mdns::MulticastDnsMode;
use webrtc::ice::network_type::NetworkType;
use webrtc::interceptor::registry::Registry;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;
use webrtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use webrtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc::rtp_transceiver::rtp_codec::RTCRtpCodecParameters;
use webrtc::rtp_transceiver::rtp_sender::RTCRtpSender;
use webrtc::rtp_transceiver::rtp_transceiver_direction::RTCRtpTransceiverDirection;
use webrtc::rtp_transceiver::{RTCRtpTransceiver, RTCRtpTransceiverInit};
use webrtc::track::track_local::TrackLocalWriter;
use webrtc::track::track_local::track_local_static_rtp::TrackLocalStaticRTP;
use webrtc::track::track_remote::TrackRemote;

use super::Shared;
use super::desk::{Reply, error, sdp};

/// How long tracks without media are kept; the service is said to take 30 s.
const COLLECTED_AFTER: Duration = Duration::from_secs(5);

/// Peers with lite ICE, on loopback too.
pub fn api() -> API {
    let mut media = MediaEngine::default();
    media.register_default_codecs().expect("codecs");
    let registry = register_default_interceptors(Registry::new(), &mut media).expect("interceptors");
    let mut settings = SettingEngine::default();
    settings.set_lite(true);
    settings.set_include_loopback_candidate(true);
    settings.set_network_types(vec![NetworkType::Udp4]);
    settings.set_ice_multicast_dns_mode(MulticastDnsMode::Disabled);
    APIBuilder::new().with_media_engine(media).with_interceptor_registry(registry).with_setting_engine(settings).build()
}

/// A session, its peer, and what others may pull of it.
pub struct Session {
    id: String,
    gone: AtomicBool,
    /// Held for as long as a change takes.
    pub link: Arc<AsyncMutex<Link>>,
    peer: Mutex<Option<Arc<RTCPeerConnection>>>,
    /// By track name; there once the first packet came.
    flowing: Arc<Mutex<BTreeMap<String, Flow>>>,
}

/// What changes.
#[derive(Default)]
pub struct Link {
    peer: Option<Arc<RTCPeerConnection>>,
    /// An offer of this side has no answer yet.
    pub awaits_answer: bool,
    tracks: Vec<Held>,
}

struct Held {
    mid: String,
    name: String,
    publisher: Option<String>,
    transceiver: Option<Arc<RTCRtpTransceiver>>,
}

/// A track that comes in.
#[derive(Clone)]
struct Flow {
    codec: RTCRtpCodecParameters,
    ssrc: u32,
    peer: Weak<RTCPeerConnection>,
    takers: Arc<Mutex<Vec<Weak<TrackLocalStaticRTP>>>>,
}

impl Session {
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            gone: AtomicBool::new(false),
            link: Arc::default(),
            peer: Mutex::default(),
            flowing: Arc::default(),
        }
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub fn expire(&self, runtime: &tokio::runtime::Handle) {
        self.gone.store(true, Ordering::SeqCst);
        if let Some(peer) = self.peer.lock().expect("peer").take() {
            runtime.spawn(async move { peer.close().await });
        }
    }

    fn is_connected(&self) -> bool {
        let peer = self.peer.lock().expect("peer").clone();
        peer.is_some_and(|peer| peer.connection_state() == RTCPeerConnectionState::Connected)
    }

    /// What is open of it, in words.
    pub fn is_open(&self) -> Option<String> {
        let peer = self.peer.lock().expect("peer").clone()?;
        let state = peer.connection_state();
        (state != RTCPeerConnectionState::Closed).then(|| format!("{} is {state}", self.id))
    }

    pub async fn report(&self) -> Value {
        let link = self.link.lock().await;
        let flowing = self.flowing.lock().expect("flows");
        let connected = self.is_connected();
        let tracks: Vec<Value> = link
            .tracks
            .iter()
            .map(|held| {
                let active = if held.publisher.is_some() { connected } else { flowing.contains_key(&held.name) };
                json!({
                    "location": if held.publisher.is_some() { "remote" } else { "local" },
                    "mid": held.mid,
                    "trackName": held.name,
                    "sessionId": held.publisher,
                    "status": if active { "active" } else { "initializing" },
                })
            })
            .collect();
        json!({ "tracks": tracks, "dataChannels": [] })
    }
}

async fn described(peer: &RTCPeerConnection, own: RTCSessionDescription) -> Value {
    let kind = own.sdp_type.to_string();
    let mut gathered = peer.gathering_complete_promise().await;
    peer.set_local_description(own).await.expect("our own description");
    let _ = gathered.recv().await;
    let own = peer.local_description().await.expect("a description");
    json!({ "type": kind, "sdp": own.sdp })
}

pub async fn push(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    link: &mut Link,
    body: &Value,
    tracks: &[Value],
    bad_track: Option<(&str, &str)>,
) -> Reply {
    let Some(offer) = sdp(body, "offer").and_then(|sdp| RTCSessionDescription::offer(sdp.to_owned()).ok()) else {
        return error(400, "invalid_session_description");
    };
    let peer = Arc::new(shared.api.new_peer_connection(Default::default()).await.expect("a peer"));
    let names: BTreeMap<String, String> =
        tracks.iter().map(|track| (text(track, "mid"), text(track, "trackName"))).collect();
    if names.keys().any(|mid| !offer.sdp.contains(&format!("a=mid:{mid}\r\n"))) {
        return error(400, "invalid_mid");
    }
    let (flowing, weak, by_mid) = (session.flowing.clone(), Arc::downgrade(&peer), names.clone());
    peer.on_track(Box::new(move |track, _, transceiver| {
        let name = transceiver.mid().and_then(|mid| by_mid.get(mid.as_str()).cloned());
        if let Some(name) = name {
            tokio::spawn(forward(track, name, flowing.clone(), weak.clone()));
        }
        Box::pin(async {})
    }));
    if peer.set_remote_description(offer).await.is_err() {
        return error(400, "invalid_session_description");
    }
    let answer = peer.create_answer(None).await.expect("an answer");
    let answer = described(&peer, answer).await;
    *session.peer.lock().expect("peer") = Some(peer.clone());
    link.peer = Some(peer);
    let mut replies = Vec::new();
    for (mid, name) in names {
        let mut reply = json!({ "mid": mid, "trackName": name });
        if let Some((_, code)) = bad_track.filter(|(bad, _)| *bad == name) {
            reply["errorCode"] = json!(code);
        }
        link.tracks.push(Held { mid, name, publisher: None, transceiver: None });
        replies.push(reply);
    }
    // The flag is left out on purpose: an answer is never one that has to be answered.
    (200, json!({ "sessionDescription": answer, "tracks": replies }))
}

/// Packets to whoever takes them, for as long as they come.
async fn forward(
    track: Arc<TrackRemote>,
    name: String,
    flowing: Arc<Mutex<BTreeMap<String, Flow>>>,
    peer: Weak<RTCPeerConnection>,
) {
    let takers = Arc::<Mutex<Vec<Weak<TrackLocalStaticRTP>>>>::default();
    let flow = Flow { codec: track.codec(), ssrc: track.ssrc(), peer, takers: takers.clone() };
    flowing.lock().expect("flows").insert(name.clone(), flow);
    while let Ok((packet, _)) = track.read_rtp().await {
        let takers: Vec<_> = takers.lock().expect("takers").iter().filter_map(Weak::upgrade).collect();
        for taker in takers {
            let _ = taker.write_rtp(&packet).await;
        }
    }
    flowing.lock().expect("flows").remove(&name);
}

pub async fn pull(
    shared: &Arc<Shared>,
    session: &Session,
    link: &mut Link,
    tracks: &[Value],
    bad_track: Option<(&str, &str)>,
) -> Reply {
    let mut replies = Vec::new();
    let mut wanted = Vec::new();
    for track in tracks {
        let (publisher, name) = (text(track, "sessionId"), text(track, "trackName"));
        let found = shared.sessions.lock().expect("sessions").get(&publisher).cloned();
        let known = found.filter(|found| !found.is_gone());
        if known.as_ref().is_some_and(|known| !known.is_connected()) {
            return error(425, "session_not_ready");
        }
        let flow = known.as_ref().and_then(|known| known.flowing.lock().expect("flows").get(&name).cloned());
        let fault = match (bad_track, &known, &flow) {
            (Some((bad, code)), ..) if bad == name => Some(code),
            (_, None, _) => Some("not_found_track_error"),
            (_, _, None) => Some("empty_track_error"),
            _ => None,
        };
        let mut reply = json!({ "sessionId": publisher, "trackName": name });
        match (fault, flow) {
            (None, Some(flow)) => wanted.push((replies.len(), publisher, name, flow)),
            (fault, _) => reply["errorCode"] = json!(fault),
        }
        replies.push(reply);
    }
    if wanted.is_empty() {
        return (200, json!({ "requiresImmediateRenegotiation": false, "tracks": replies }));
    }
    let peer = match &link.peer {
        Some(peer) => peer.clone(),
        None => Arc::new(shared.api.new_peer_connection(Default::default()).await.expect("a peer")),
    };
    let mut added = Vec::new();
    for (at, publisher, name, flow) in wanted {
        let local = Arc::new(TrackLocalStaticRTP::new(flow.codec.capability.clone(), name.clone(), publisher.clone()));
        let init =
            RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Sendonly, send_encodings: Vec::new() };
        let transceiver = peer.add_transceiver_from_track(local.clone(), Some(init)).await.expect("a transceiver");
        transceiver.set_codec_preferences(vec![flow.codec.clone()]).await.expect("the publisher's codec");
        flow.takers.lock().expect("takers").push(Arc::downgrade(&local));
        tokio::spawn(pass_on_requests(transceiver.sender().await, flow.peer.clone(), flow.ssrc));
        added.push((at, publisher, name, transceiver));
    }
    let offer = peer.create_offer(None).await.expect("an offer");
    let offer = described(&peer, offer).await;
    for (at, publisher, name, transceiver) in added {
        let mid = transceiver.mid().expect("a section").to_string();
        replies[at]["mid"] = json!(mid);
        link.tracks.push(Held { mid, name, publisher: Some(publisher), transceiver: Some(transceiver) });
    }
    *session.peer.lock().expect("peer") = Some(peer.clone());
    link.peer = Some(peer);
    link.awaits_answer = true;
    tokio::spawn(collect(session.link.clone()));
    (200, json!({ "requiresImmediateRenegotiation": true, "sessionDescription": offer, "tracks": replies }))
}

/// Takes back what nobody answered, and with it all that the session pulls.
async fn collect(link: Arc<AsyncMutex<Link>>) {
    tokio::time::sleep(COLLECTED_AFTER).await;
    let mut link = link.lock().await;
    if link.awaits_answer {
        link.tracks.clear();
        link.awaits_answer = false;
        if let Some(peer) = link.peer.take() {
            let _ = peer.close().await;
        }
    }
}

/// A request for a key frame goes to the publisher.
async fn pass_on_requests(sender: Arc<RTCRtpSender>, publisher: Weak<RTCPeerConnection>, media_ssrc: u32) {
    while let Ok((packets, _)) = sender.read_rtcp().await {
        let wants = packets
            .iter()
            .any(|packet| packet.as_any().is::<PictureLossIndication>() || packet.as_any().is::<FullIntraRequest>());
        let Some(publisher) = publisher.upgrade() else { return };
        if wants {
            let request = PictureLossIndication { sender_ssrc: 0, media_ssrc };
            let _ = publisher.write_rtcp(&[Box::new(request)]).await;
        }
    }
}

pub async fn renegotiate(link: &mut Link, body: &Value) -> Reply {
    let (Some(peer), true) = (&link.peer, link.awaits_answer) else { return error(400, "no_offer_to_answer") };
    let answer = sdp(body, "answer").and_then(|sdp| RTCSessionDescription::answer(sdp.to_owned()).ok());
    let Some(answer) = answer else { return error(400, "invalid_session_description") };
    if let Err(refusal) = peer.set_remote_description(answer).await {
        eprintln!("the stand-in SFU refuses an answer: {refusal}");
        return error(400, "invalid_session_description");
    }
    link.awaits_answer = false;
    (200, json!({}))
}

pub async fn close(link: &mut Link, tracks: &[Value]) -> Reply {
    let mut replies = Vec::new();
    for track in tracks {
        let mid = text(track, "mid");
        let mut reply = json!({ "mid": mid });
        match link.tracks.iter().position(|held| held.mid == mid) {
            Some(at) => {
                let held = link.tracks.swap_remove(at);
                if let Some(transceiver) = held.transceiver {
                    let _ = transceiver.stop().await;
                }
            }
            None => reply["errorCode"] = json!("close_track_error"),
        }
        replies.push(reply);
    }
    if let (true, Some(peer)) = (link.tracks.is_empty(), link.peer.take()) {
        let _ = peer.close().await;
    }
    (200, json!({ "requiresImmediateRenegotiation": false, "tracks": replies }))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
