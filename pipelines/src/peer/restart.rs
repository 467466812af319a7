//! What may change on a connection that is up: candidates that come late (trickle ICE, RFC 8838), and a new ICE session under
//! the same DTLS and the same tracks (ICE restart, RFC 8839, section 4.4.1.1.1).
//!
//! The stack restarts by itself when an offer comes with other credentials: it drops its candidates, closes their sockets,
//! takes new credentials and gathers anew. From there the old session is gone. **So everything that can stand against a
//! restart is looked at before the stack hears of it**: gathering that is not over (which it refuses half-way), a connection
//! that is closing, a TURN server that no longer gives a relay where there is no way without one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use webrtc::ice_transport::ice_candidate::RTCIceCandidateInit;
use webrtc::ice_transport::ice_candidate_type::RTCIceCandidateType;
use webrtc::ice_transport::ice_connection_state::RTCIceConnectionState;
use webrtc::peer_connection::peer_connection_state::RTCPeerConnectionState;

use super::connection::{Agreed, Connection};
use super::{PeerError, RELAY_ONLY_WAIT};
use crate::sdp::{AnswerFragment, MediaKind, SdpFragment};

/// A TURN server that does not answer keeps a connection gathering for some seconds; a client asks again before that.
const GATHER_WAIT: Duration = Duration::from_millis(500);

/// The stream of a kind that was received, if any.
pub(super) type LearntSsrc = Arc<dyn Fn(MediaKind) -> Option<u32> + Send + Sync>;

/// The ICE session of a peer. Cheap to clone; does not keep the peer alive. May be awaited from any executor; calls that
/// overlap are done one after the other.
#[derive(Clone)]
pub struct IceSession {
    connection: Weak<Connection>,
    runtime: Handle,
    learnt: LearntSsrc,
}

impl IceSession {
    pub(super) fn new(connection: &Arc<Connection>, runtime: Handle, learnt: LearntSsrc) -> Self {
        Self { connection: Arc::downgrade(connection), runtime, learnt }
    }

    /// The name of the ICE session of the moment: our user fragment, random and new with every restart. Empty once the peer
    /// is gone.
    pub fn id(&self) -> String {
        let ufrag = |connection: Arc<Connection>| {
            let ufrag = connection.ufrag.lock().unwrap_or_else(PoisonError::into_inner);
            ufrag.clone()
        };
        self.connection.upgrade().map(ufrag).unwrap_or_default()
    }

    /// The client's user fragment of the ICE session of the moment; `None` once the peer is gone.
    pub async fn remote_ufrag(&self) -> Option<String> {
        let connection = self.connection.upgrade()?;
        let agreed = connection.agreed.lock().await;
        agreed.as_ref().map(|agreed| agreed.offer.ufrag().to_owned())
    }

    /// Adds candidates. Those that are known already, and those beyond [`crate::sdp::MAX_CANDIDATES`], are passed over.
    ///
    /// # Errors
    /// `OtherSession` for a fragment of an ICE session that is over or not begun, `Closed` when the peer is gone.
    pub async fn trickle(&self, fragment: SdpFragment) -> Result<(), PeerError> {
        self.run(move |connection, _| async move { connection.trickle(&fragment).await }).await
    }

    /// Begins a new ICE session; its media goes on over the same tracks as soon as a path is found.
    ///
    /// # Errors
    /// `NotNow` and `NoRelay` when it cannot be satisfied, `OtherSession` when the credentials are not new: the old session
    /// goes on then. `Closed` when the peer is gone; `Stack` and `Sdp` when the stack failed half-way, which ends the peer.
    pub async fn restart(&self, fragment: SdpFragment) -> Result<AnswerFragment, PeerError> {
        self.run(move |connection, learnt| async move { connection.restart(&fragment, &learnt).await }).await
    }

    /// Runs on the factory's threads, to its end: a caller that loses patience leaves no change half done.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Connection>, LearntSsrc) -> F) -> Result<T, PeerError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, PeerError>> + Send + 'static,
    {
        let connection = self.connection.upgrade().ok_or(PeerError::Closed)?;
        self.runtime.spawn(work(connection, self.learnt.clone())).await.map_err(|_| PeerError::Closed)?
    }
}

impl Connection {
    async fn trickle(&self, fragment: &SdpFragment) -> Result<(), PeerError> {
        let mut agreed = self.agreed.lock().await;
        let agreed = agreed.as_mut().ok_or(PeerError::Closed)?;
        self.alive()?;
        if agreed.offer.ufrag() != fragment.ufrag {
            return Err(PeerError::OtherSession);
        }
        for candidate in agreed.offer.add_candidates(fragment) {
            let init = RTCIceCandidateInit { candidate: candidate.line().to_owned(), ..Default::default() };
            // One that the stack cannot use is no reason to refuse the others (RFC 9725, section 4.3).
            if let Err(error) = self.pc.add_ice_candidate(init).await {
                tracing::debug!(%error, "a candidate was passed over");
            }
        }
        self.candidates.store(agreed.offer.candidates.len(), Ordering::Relaxed);
        Ok(())
    }

    async fn restart(&self, fragment: &SdpFragment, learnt: &LearntSsrc) -> Result<AnswerFragment, PeerError> {
        let mut agreed = self.agreed.lock().await;
        let Agreed { offer, purpose } = agreed.as_mut().ok_or(PeerError::Closed)?;
        self.alive()?;
        if offer.ufrag() == fragment.ufrag {
            return Err(PeerError::OtherSession);
        }
        // The first ICE session is handed to its agent in the background; a restart before that would be undone by it.
        if self.pc.ice_connection_state() == RTCIceConnectionState::New {
            return Err(PeerError::NotNow("the connection is just being set up"));
        }
        if !self.has_gathered_all(GATHER_WAIT).await {
            return Err(PeerError::NotNow("candidates are still being gathered"));
        }
        let mut next = offer.restarted(fragment);
        for kind in [MediaKind::Audio, MediaKind::Video] {
            if let Some(ssrc) = learnt(kind) {
                next.name_ssrc(kind, ssrc);
            }
        }
        if self.engine.settings.relay_only || (self.wants_relay(&next) && self.is_relayed().await) {
            self.prove_relay().await?;
        } else if self.engine.host_candidates() == 0 {
            return Err(PeerError::NotNow("this box has no network"));
        }
        self.alive()?;
        self.gathers_anew();
        let answer = self.exchange(&next, *purpose).await?;
        *offer = next;
        Ok(AnswerFragment::of_answer(&answer)?)
    }

    fn alive(&self) -> Result<(), PeerError> {
        match self.pc.connection_state() {
            RTCPeerConnectionState::Closed | RTCPeerConnectionState::Failed => Err(PeerError::Closed),
            _ => Ok(()),
        }
    }

    /// Whether media goes by our relay now.
    async fn is_relayed(&self) -> bool {
        let pair = self.pc.dtls_transport().ice_transport().get_selected_candidate_pair().await;
        pair.is_some_and(|pair| pair.local.typ == RTCIceCandidateType::Relay)
    }

    /// Asks the TURN server for a relay beside the one in use: its credential may have run out since the guest joined.
    async fn prove_relay(&self) -> Result<(), PeerError> {
        let proof = Self::open(&self.engine, &self.servers).await?;
        proof.gathered(RELAY_ONLY_WAIT).await;
        let proven = proof.has_relay();
        proof.close().await;
        if proven { Ok(()) } else { Err(PeerError::NoRelay("no TURN server answered")) }
    }
}
