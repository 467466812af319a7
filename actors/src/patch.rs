//! PATCH of a session, for guests and viewers alike: one at a time for each session, in the order in which they came.
//!
//! What a request means is decided by the pure core; the peer behind [`IceControl`] does it. The actors only look a session up
//! and hand over its [`PatchDesk`]: nobody else's work waits for a restart.

pub mod core;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use r58_pipelines::peer::{IceSession, PeerError};
use r58_pipelines::sdp::{AnswerFragment, SdpFragment};
use tokio::sync::Mutex;
use tracing::{debug, info};

use self::core::{IceLedger, Precondition, Step};
use crate::error::GuestError;

/// The ICE side of a peer.
pub trait IceControl: Send + Sync {
    /// Names the ICE session of the moment; new with every restart.
    fn id(&self) -> String;
    /// Adds candidates.
    fn trickle(&self, fragment: SdpFragment) -> BoxFuture<'static, Result<(), PeerError>>;
    /// Begins a new ICE session.
    fn restart(&self, fragment: SdpFragment) -> BoxFuture<'static, Result<AnswerFragment, PeerError>>;
}

impl IceControl for IceSession {
    fn id(&self) -> String {
        Self::id(self)
    }

    fn trickle(&self, fragment: SdpFragment) -> BoxFuture<'static, Result<(), PeerError>> {
        let me = self.clone();
        async move { Self::trickle(&me, fragment).await }.boxed()
    }

    fn restart(&self, fragment: SdpFragment) -> BoxFuture<'static, Result<AnswerFragment, PeerError>> {
        let me = self.clone();
        async move { Self::restart(&me, fragment).await }.boxed()
    }
}

/// A change of a session's ICE.
#[derive(Debug, Clone)]
pub struct Patch {
    /// What it is based on.
    pub precondition: Precondition,
    /// What the client says.
    pub fragment: SdpFragment,
}

/// What came of a [`Patch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// The candidates were added: 204.
    Trickled,
    /// A new ICE session has begun: 200, with these.
    Restarted {
        /// Its entity tag, without quotes.
        tag: String,
        /// Our side of it.
        answer: AnswerFragment,
    },
}

/// Takes the patches of one session. Cheap to clone.
#[derive(Clone)]
pub struct PatchDesk {
    ice: Arc<dyn IceControl>,
    /// Held from judging to the end of the work.
    ledger: Arc<Mutex<IceLedger>>,
}

impl PatchDesk {
    /// For a peer that was answered; `fragment` is the user fragment of its offer.
    pub fn new(ice: Arc<dyn IceControl>, fragment: String) -> Self {
        let ledger = Arc::new(Mutex::new(IceLedger::new(ice.id(), fragment)));
        Self { ice, ledger }
    }

    /// The entity tag of the ICE session of the moment, without quotes.
    pub fn tag(&self) -> String {
        self.ice.id()
    }

    /// Does it, after all that came before.
    ///
    /// # Errors
    /// `Patch` for what the core refuses, `Peer` for what the peer cannot do; the session goes on as it was.
    pub async fn patch(self, patch: Patch) -> Result<Patched, GuestError> {
        let mut ledger = self.ledger.lock().await;
        let fragment = patch.fragment;
        match ledger.judge(&patch.precondition, &fragment.ufrag)? {
            Step::Trickle => {
                debug!(candidates = fragment.candidates.len(), end = fragment.is_end, "candidates");
                self.ice.trickle(fragment).await?;
                Ok(Patched::Trickled)
            }
            Step::Restart => {
                let ufrag = fragment.ufrag.clone();
                let answer = self.ice.restart(fragment).await?;
                let tag = self.ice.id();
                info!("ICE restarted");
                ledger.handle_restarted(tag.clone(), ufrag);
                Ok(Patched::Restarted { tag, answer })
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// A peer that names its ICE sessions by number, and says no when told so.
    #[derive(Default)]
    pub(crate) struct ScriptedIce {
        pub(crate) restarts: AtomicUsize,
        pub(crate) trickled: AtomicUsize,
        pub(crate) at_once: AtomicUsize,
        pub(crate) refuses: std::sync::atomic::AtomicBool,
    }

    pub(crate) struct Ice(pub(crate) Arc<ScriptedIce>);

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
        a=ice-ufrag:ours\r\na=ice-pwd:abcdefabcdefabcdefabcdef\r\n";

    impl IceControl for Ice {
        fn id(&self) -> String {
            format!("ice{}", self.0.restarts.load(SeqCst))
        }

        fn trickle(&self, _: SdpFragment) -> BoxFuture<'static, Result<(), PeerError>> {
            self.0.trickled.fetch_add(1, SeqCst);
            std::future::ready(Ok(())).boxed()
        }

        fn restart(&self, _: SdpFragment) -> BoxFuture<'static, Result<AnswerFragment, PeerError>> {
            let script = self.0.clone();
            async move {
                assert_eq!(script.at_once.fetch_add(1, SeqCst), 0, "one at a time");
                tokio::task::yield_now().await;
                script.at_once.fetch_sub(1, SeqCst);
                if script.refuses.load(SeqCst) {
                    return Err(PeerError::NotNow("the script says so"));
                }
                script.restarts.fetch_add(1, SeqCst);
                Ok(AnswerFragment::of_answer(ANSWER)?)
            }
            .boxed()
        }
    }

    /// A patch as a client with this user fragment sends it.
    pub(crate) fn patch(if_match: Option<&str>, ufrag: &str) -> Patch {
        let text = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789012345678901\r\n");
        Patch { precondition: Precondition::read(if_match), fragment: SdpFragment::parse(&text).unwrap() }
    }

    fn desk() -> (PatchDesk, Arc<ScriptedIce>) {
        let script = Arc::<ScriptedIce>::default();
        (PatchDesk::new(Arc::new(Ice(script.clone())), "abcd".into()), script)
    }

    #[tokio::test]
    async fn overlapping_restarts_are_done_one_after_the_other() {
        let (desk, script) = desk();
        let many = (0..8).map(|n| desk.clone().patch(patch(Some("*"), &format!("next{n}"))));
        let done = futures_util::future::join_all(many).await;
        assert!(done.iter().all(|one| matches!(one, Ok(Patched::Restarted { .. }))), "{done:?}");
        assert_eq!(script.restarts.load(SeqCst), 8);
        assert_eq!(desk.tag(), "ice8");
        let repeated = desk.clone().patch(patch(Some("*"), "next7")).await;
        assert_eq!(repeated.unwrap(), Patched::Trickled, "a repeated request changes nothing");
        let late = desk.patch(patch(Some("*"), "next3")).await;
        assert_eq!(late.unwrap_err().status(), 412);
    }

    #[tokio::test]
    async fn a_refused_restart_leaves_the_tag_and_the_fragment_in_force() {
        let (desk, script) = desk();
        script.refuses.store(true, SeqCst);
        let refused = desk.clone().patch(patch(Some("*"), "next")).await.unwrap_err();
        assert_eq!((refused.status(), refused.retry_after().is_some()), (503, true));
        assert_eq!(desk.tag(), "ice0");
        assert_eq!(desk.clone().patch(patch(Some("\"ice0\""), "abcd")).await.unwrap(), Patched::Trickled);
        script.refuses.store(false, SeqCst);
        assert!(matches!(desk.patch(patch(Some("*"), "next")).await, Ok(Patched::Restarted { .. })));
    }

    #[tokio::test]
    async fn a_patch_without_a_base_is_refused() {
        let (desk, _) = desk();
        assert_eq!(desk.patch(patch(None, "abcd")).await.unwrap_err().status(), 428);
    }
}
