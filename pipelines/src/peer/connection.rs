//! One connection of the stack: gathering ahead, the answer, the route, the end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use webrtc::ice_transport::ice_candidate::RTCIceCandidate;
use webrtc::ice_transport::ice_candidate_type::RTCIceCandidateType;
use webrtc::ice_transport::ice_server::RTCIceServer;
use webrtc::peer_connection::RTCPeerConnection;
use webrtc::peer_connection::configuration::RTCConfiguration;
use webrtc::peer_connection::offer_answer_options::RTCOfferOptions;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;
use webrtc::peer_connection::policy::ice_transport_policy::RTCIceTransportPolicy;
use webrtc::peer_connection::sdp::session_description::RTCSessionDescription;

use super::engine::Engine;
use super::{CONNECT_DEADLINE, Path, PeerError, PeerEvent, PeerEvents, RELAY_ONLY_WAIT, RELAY_WAIT};
use crate::ice::{self, IceServer};
use crate::sdp::{AnswerFragment, CheckedOffer, Purpose, SdpError, finish_answer};

/// Host candidates are a matter of binding sockets; this only bounds a machine that is out of breath.
const HOST_WAIT: Duration = Duration::from_millis(200);

/// Such a machine gets as long for the first candidate. An answer without any leaves the client nothing to try, and the stack
/// gives a client's address up after seven checks of 200 ms: a client that comes later would never be heard. OBS waits 8 s.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// What has been gathered so far.
#[derive(Debug, Default, Clone, Copy)]
struct Gathered {
    hosts: usize,
    relays: usize,
    complete: bool,
}

pub(super) struct Connection {
    pub(super) pc: Arc<RTCPeerConnection>,
    pub(super) engine: Arc<Engine>,
    pub(super) servers: Vec<IceServer>,
    gathered: Arc<watch::Sender<Gathered>>,
    turn: bool,
    pub(super) born: Instant,
    /// What was agreed; held for as long as a change of it takes, so that there is one at a time.
    pub(super) agreed: tokio::sync::Mutex<Option<Agreed>>,
    /// Our user fragment of the ICE session of the moment.
    pub(super) ufrag: Mutex<String>,
    /// How many candidates the client has named in the ICE session of the moment.
    pub(super) candidates: AtomicUsize,
}

/// What a connection was negotiated from.
pub(super) struct Agreed {
    pub(super) offer: CheckedOffer,
    pub(super) purpose: Purpose,
}

impl Connection {
    /// Opens a connection and starts to gather; returns as soon as that is under way.
    pub(super) async fn open(engine: &Arc<Engine>, servers: &[IceServer]) -> Result<Self, PeerError> {
        let relay_only = engine.settings.relay_only;
        let turn = ice::has_turn(servers);
        if relay_only && !turn {
            return Err(PeerError::NoRelay("no TURN server over UDP is known"));
        }
        let configuration = RTCConfiguration {
            ice_servers: servers.iter().map(stack_server).collect(),
            ice_transport_policy: match relay_only {
                true => RTCIceTransportPolicy::Relay,
                false => RTCIceTransportPolicy::All,
            },
            ..Default::default()
        };
        let pc = Arc::new(engine.api.new_peer_connection(configuration).await?);
        let gathered = Arc::new(watch::channel(Gathered::default()).0);
        let heard = gathered.clone();
        pc.on_ice_candidate(Box::new(move |candidate| {
            heard.send_modify(|g| g.note(candidate.as_ref()));
            Box::pin(async {})
        }));
        let connection = Self {
            pc,
            engine: engine.clone(),
            servers: servers.to_vec(),
            gathered,
            turn,
            born: Instant::now(),
            agreed: tokio::sync::Mutex::new(None),
            ufrag: Mutex::default(),
            candidates: AtomicUsize::new(0),
        };
        if let Err(error) = connection.gather().await {
            connection.close().await;
            return Err(error);
        }
        Ok(connection)
    }

    /// Starts to gather before there is any description. The stack has no call for it; but an offer with an ICE restart
    /// gathers, needs nothing but an agent, and leaves no trace in the signalling state.
    async fn gather(&self) -> Result<(), PeerError> {
        self.pc.dtls_transport().ice_transport().set_remote_candidates(&[]).await?;
        self.pc.create_offer(Some(RTCOfferOptions { ice_restart: true, ..Default::default() })).await?;
        Ok(())
    }

    /// How many usable candidates the client has named in the ICE session of the moment.
    pub(super) fn known_candidates(&self) -> usize {
        self.candidates.load(Ordering::Relaxed)
    }

    pub(super) fn pc(&self) -> &Arc<RTCPeerConnection> {
        &self.pc
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_gathered(&self) -> bool {
        let gathered = self.gathered.borrow();
        gathered.complete || gathered.relays > 0
    }

    /// Waits until nothing is left to wait for, or the time is over.
    pub(super) async fn gathered(&self, within: Duration) {
        let mut gathered = self.gathered.subscribe();
        let _ = tokio::time::timeout(within, gathered.wait_for(|g| g.complete || g.relays > 0)).await;
    }

    /// Waits until gathering is over; false when it is not within that time.
    pub(super) async fn has_gathered_all(&self, within: Duration) -> bool {
        let mut gathered = self.gathered.subscribe();
        matches!(tokio::time::timeout(within, gathered.wait_for(|g| g.complete)).await, Ok(Ok(_)))
    }

    /// Whether a relay was given.
    pub(super) fn has_relay(&self) -> bool {
        self.gathered.borrow().relays > 0
    }

    /// Whether this offer is worth the wait for a relay.
    pub(super) fn wants_relay(&self, offer: &CheckedOffer) -> bool {
        self.turn && (self.engine.settings.relay_only || !self.engine.reaches(offer))
    }

    /// What was gathered for the ICE session so far is of no use to the next one.
    pub(super) fn gathers_anew(&self) {
        self.gathered.send_replace(Gathered::default());
    }

    /// Answers the offer, with every candidate that is worth its wait.
    pub(super) async fn negotiate(&self, offer: &CheckedOffer, purpose: Purpose) -> Result<String, PeerError> {
        let mut agreed = self.agreed.lock().await;
        let answer = self.exchange(offer, purpose).await?;
        *agreed = Some(Agreed { offer: offer.clone(), purpose });
        Ok(answer)
    }

    /// Offer in, answer out; also for an offer that begins a new ICE session.
    pub(super) async fn exchange(&self, offer: &CheckedOffer, purpose: Purpose) -> Result<String, PeerError> {
        let description = RTCSessionDescription::offer(offer.sdp().to_owned()).map_err(|_| SdpError::PartialAnswer)?;
        // What passed the checks and is refused all the same is the offer's fault, not ours.
        let refused = |error: webrtc::Error| {
            tracing::debug!(%error, "the stack refused a checked offer");
            PeerError::Sdp(SdpError::PartialAnswer)
        };
        self.pc.set_remote_description(description).await.map_err(refused)?;
        self.candidates.store(offer.candidates.len(), Ordering::Relaxed);
        self.await_candidates(offer).await?;
        let answer = self.pc.create_answer(None).await.map_err(refused)?;
        self.pc.set_local_description(answer).await?;
        let answer = self.pc.local_description().await.ok_or(SdpError::PartialAnswer)?;
        let answer = finish_answer(&answer.sdp, offer, purpose)?;
        *self.ufrag.lock().unwrap_or_else(PoisonError::into_inner) = AnswerFragment::of_answer(&answer)?.ufrag;
        Ok(answer)
    }

    async fn await_candidates(&self, offer: &CheckedOffer) -> Result<(), PeerError> {
        let hosts = self.engine.host_candidates();
        let mut gathered = self.gathered.subscribe();
        if self.engine.settings.relay_only {
            let relayed = gathered.wait_for(|g| g.relays > 0 || g.complete);
            let relayed = tokio::time::timeout(RELAY_ONLY_WAIT, relayed).await;
            return match relayed {
                Ok(Ok(g)) if g.relays > 0 => Ok(()),
                _ => Err(PeerError::NoRelay("no TURN server answered")),
            };
        }
        let wants_relay = self.wants_relay(offer);
        let wait = if wants_relay { RELAY_WAIT } else { HOST_WAIT };
        let ready = gathered.wait_for(|g| g.complete || (g.hosts >= hosts && (!wants_relay || g.relays > 0)));
        if tokio::time::timeout(wait, ready).await.is_err() && wants_relay {
            tracing::warn!(
                wait_ms = wait.as_millis() as u64,
                "no TURN server answered in time: answering without a relay"
            );
        }
        let any = gathered.wait_for(|g| hosts == 0 || g.complete || g.hosts + g.relays > 0);
        if tokio::time::timeout(FIRST_WAIT, any).await.is_err() {
            tracing::warn!("no address could be gathered in time: answering without any");
        }
        Ok(())
    }

    /// Reports changes to `events` until the connection is closed, and fails a connection that does not come up in time.
    /// `Connected` is also told to the returned receiver.
    pub(super) fn watch(&self, events: PeerEvents) -> watch::Receiver<bool> {
        let (connected, receiver) = watch::channel(false);
        let connected = Arc::new(connected);
        let (told, weak) = (connected.clone(), Arc::downgrade(&self.pc));
        let tell = events.clone();
        self.pc.on_peer_connection_state_change(Box::new(move |state| {
            let (tell, told, weak) = (tell.clone(), told.clone(), weak.clone());
            Box::pin(async move {
                let event = match state {
                    RTCPeerConnectionState::Connected => {
                        let Some(pc) = weak.upgrade() else { return };
                        told.send_replace(true);
                        PeerEvent::Connected { path: path(&pc).await }
                    }
                    RTCPeerConnectionState::Disconnected => PeerEvent::Disconnected,
                    RTCPeerConnectionState::Failed => PeerEvent::Failed,
                    RTCPeerConnectionState::Closed => PeerEvent::Closed,
                    _ => return,
                };
                tell(event);
            })
        }));
        let mut up = receiver.clone();
        let weak = Arc::downgrade(&self.pc);
        tokio::spawn(async move {
            // An error means that the connection is gone.
            let waited = tokio::time::timeout(CONNECT_DEADLINE, up.wait_for(|up| *up)).await.is_ok();
            if let (false, Some(pc)) = (waited, weak.upgrade())
                && pc.connection_state() != RTCPeerConnectionState::Closed
            {
                events(PeerEvent::Failed);
            }
        });
        receiver
    }

    /// Ends ICE and DTLS and gives back sockets and tasks. Calling it twice is harmless.
    pub(super) async fn close(&self) {
        close(&self.pc).await;
    }
}

/// Ends a connection; what the stack complains about while it closes is of no use to anybody.
pub(super) async fn close(pc: &RTCPeerConnection) {
    if let Err(error) = pc.close().await {
        tracing::debug!(%error, "while closing a peer");
    }
    // The handlers hold what the caller gave; the stack keeps them for as long as any of its tasks lives.
    pc.on_ice_candidate(Box::new(|_| Box::pin(async {})));
    pc.on_peer_connection_state_change(Box::new(|_| Box::pin(async {})));
    pc.on_track(Box::new(|_, _, _| Box::pin(async {})));
}

impl Gathered {
    fn note(&mut self, candidate: Option<&RTCIceCandidate>) {
        match candidate.map(|c| c.typ) {
            None => self.complete = true,
            Some(RTCIceCandidateType::Host) => self.hosts += 1,
            Some(RTCIceCandidateType::Relay) => self.relays += 1,
            Some(_) => {}
        }
    }
}

fn stack_server(server: &IceServer) -> RTCIceServer {
    RTCIceServer {
        urls: server.urls.clone(),
        username: server.username.clone().unwrap_or_default(),
        credential: server.credential.clone().unwrap_or_default(),
    }
}

/// The route of the selected pair.
async fn path(pc: &RTCPeerConnection) -> Path {
    let Some(pair) = pc.dtls_transport().ice_transport().get_selected_candidate_pair().await else {
        return Path::Srflx;
    };
    let offered = pc.remote_description().await.map(|description| description.sdp).unwrap_or_default();
    route((pair.local.typ, &pair.local.address), (pair.remote.typ, &pair.remote.address), &offered)
}

/// A peer-reflexive address is the other end's own one where it named that itself and only its check was faster than its list,
/// and where nothing translates: inside a private network. An offer whose addresses are hidden behind mDNS names always ends up
/// there.
fn route(local: (RTCIceCandidateType, &str), remote: (RTCIceCandidateType, &str), offered: &str) -> Path {
    let own = |(typ, address): (RTCIceCandidateType, &str)| match typ {
        RTCIceCandidateType::Host => true,
        RTCIceCandidateType::Prflx => names_as_host(offered, address) || address.parse().is_ok_and(is_private),
        _ => false,
    };
    if local.0 == RTCIceCandidateType::Relay || remote.0 == RTCIceCandidateType::Relay {
        Path::Relay
    } else if own(local) && own(remote) {
        Path::Host
    } else {
        Path::Srflx
    }
}

/// Whether a description has a host candidate of this address (RFC 8839, section 5.1: the fifth field is the address, the
/// eighth the type).
fn names_as_host(description: &str, address: &str) -> bool {
    description.lines().filter_map(|line| line.strip_prefix("a=candidate:")).any(|candidate| {
        let mut fields = candidate.split_whitespace().skip(4);
        fields.next() == Some(address) && fields.nth(2) == Some("host")
    })
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_is_told_from_both_ends_of_the_pair() {
        use RTCIceCandidateType::{Host, Prflx, Relay, Srflx};
        let lan = "192.168.1.2";
        let named = "v=0\r\na=candidate:1 1 udp 2130706431 203.0.113.9 50000 typ host generation 0\r\n\
                     a=candidate:2 1 udp 1694498815 203.0.113.5 50001 typ srflx raddr 0.0.0.0 rport 9\r\n";
        for (local, remote, address, expected) in [
            (Host, Host, lan, Path::Host),
            (Host, Prflx, lan, Path::Host),
            (Host, Prflx, "203.0.113.9", Path::Host),
            (Host, Prflx, "203.0.113.5", Path::Srflx),
            (Srflx, Srflx, "203.0.113.5", Path::Srflx),
            (Host, Relay, "203.0.113.5", Path::Relay),
            (Relay, Prflx, "203.0.113.9", Path::Relay),
        ] {
            assert_eq!(route((local, lan), (remote, address), named), expected);
        }
    }
}
