//! A guest's session between a real client and our peer, its packets counted, and what a client does for an ICE restart.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use r58_pipelines::ice::IceServer;
use r58_pipelines::peer::{PeerEvent, PeerFactory, PeerSettings, PublisherPeer, RtpSink};
use r58_pipelines::sdp::{AnswerFragment, CheckedOffer, MediaKind, SdpFragment};
use tokio::sync::{mpsc, watch};
use webrtc::peer_connection::offer_answer_options::RTCOfferOptions;

use super::{Client, PATIENCE, Stream, events, wait_event};

/// Counts packets, and keeps the longest time between two of them.
pub struct Counter {
    seen: watch::Sender<u64>,
    last: Mutex<(Option<Instant>, Duration)>,
}

impl Counter {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { seen: watch::channel(0).0, last: Mutex::default() })
    }

    pub fn note(&self) {
        let mut last = self.last.lock().unwrap();
        let now = Instant::now();
        let gap = last.0.map_or(Duration::ZERO, |before| now - before);
        *last = (Some(now), last.1.max(gap));
        self.seen.send_modify(|n| *n += 1);
    }

    pub async fn more(&self, count: u64, what: &str) {
        let mut seen = self.seen.subscribe();
        let wanted = *seen.borrow() + count;
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|n| *n >= wanted)).await;
        waited.unwrap_or_else(|_| panic!("{what}: no packets")).unwrap();
    }

    pub fn longest_gap(&self) -> Duration {
        std::mem::take(&mut self.last.lock().unwrap().1)
    }
}

impl RtpSink for Counter {
    fn negotiated(&self, _: &CheckedOffer) {}
    fn rtp(&self, _: MediaKind, _: u8, _: Bytes) {
        self.note();
    }
}

pub fn settings() -> PeerSettings {
    PeerSettings { loopback: true, ..PeerSettings::default() }
}

pub struct Session {
    pub client: Client,
    pub peer: PublisherPeer,
    pub counter: Arc<Counter>,
    pub queue: mpsc::UnboundedReceiver<PeerEvent>,
    pub answer: String,
}

pub async fn join(factory: &PeerFactory, ice: &[IceServer], streams: &[Stream]) -> Session {
    let client = Client::open(streams, &[], false).await;
    client.send(streams).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let counter = Counter::new();
    let (peer, answer) = factory.publisher(&offer, ice, counter.clone(), on_event).await.unwrap();
    client.accept(answer.clone()).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    counter.more(30, "after joining").await;
    Session { client, peer, counter, queue, answer }
}

/// The client's half of a restart: its fragment, and what is to be done with the box's.
pub async fn restart_offer(client: &Client) -> SdpFragment {
    let options = RTCOfferOptions { ice_restart: true, ..Default::default() };
    let offer = client.pc.create_offer(Some(options)).await.unwrap();
    let mut gathered = client.pc.gathering_complete_promise().await;
    client.pc.set_local_description(offer).await.unwrap();
    gathered.recv().await;
    let whole = client.pc.local_description().await.unwrap().sdp;
    SdpFragment::parse(&AnswerFragment::of_answer(&whole).unwrap().to_string()).unwrap()
}

/// The first answer with the ICE part of the fragment in place of its own: what a WHIP client makes of a restart's answer.
pub fn merged(answer: &str, fragment: &AnswerFragment) -> String {
    let text = fragment.to_string();
    let candidates: Vec<&str> = text.lines().filter(|line| line.starts_with("a=candidate:")).collect();
    let mut out = String::new();
    let mut first = true;
    for line in answer.lines() {
        if line.starts_with("a=candidate:") || line == "a=end-of-candidates" {
            continue;
        }
        match line.split_once(':').map_or(line, |(name, _)| name) {
            "a=ice-ufrag" => out.push_str(&format!("a=ice-ufrag:{}\r\n", fragment.ufrag)),
            "a=ice-pwd" => out.push_str(&format!("a=ice-pwd:{}\r\n", fragment.pwd)),
            "a=mid" if std::mem::take(&mut first) => {
                out.push_str(&format!("{line}\r\n{}\r\n", candidates.join("\r\n")));
            }
            _ => out.push_str(&format!("{line}\r\n")),
        }
    }
    out
}

impl Session {
    /// One ICE restart, until media flow again: the client's half, ours, and the longest time without a packet.
    pub async fn restart(&mut self) -> (SdpFragment, AnswerFragment, Duration) {
        self.counter.longest_gap();
        let fragment = restart_offer(&self.client).await;
        let answer = self.peer.ice().restart(fragment.clone()).await.unwrap();
        self.client.accept(merged(&self.answer, &answer)).await;
        wait_event(&mut self.queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
        self.counter.more(30, "after the restart").await;
        (fragment, answer, self.counter.longest_gap())
    }
}
