//! The lease of whoever leads among several servers: asked for, renewed, and let go. The thinking is the store's `leader`.
//!
//! However this duty ends, the server does not lead any longer than it was granted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use r58_actors::rounds::Round;

use crate::fleet::store::Store;
use crate::fleet::store::leader::{Asked, Lease};

/// An answer about the lease that takes longer is none.
const ASK_WITHIN: Duration = Duration::from_secs(3);
/// The shortest pause.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks for the lease and renews it.
pub(super) struct LeaseKeeper {
    store: Store,
    holder: Arc<str>,
    lease: Lease,
    told: Option<i64>,
}

impl LeaseKeeper {
    pub fn new(store: Store, holder: Arc<str>) -> Self {
        Self { store, holder, lease: Lease::new(Instant::now()), told: None }
    }

    async fn ask(&mut self) {
        let asked = Instant::now();
        let answer = match tokio::time::timeout(ASK_WITHIN, self.store.ask_to_lead(&self.holder)).await {
            Ok(Ok(Some(term))) => Asked::Granted(term),
            Ok(Ok(None)) => Asked::Refused,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the lease cannot be asked for");
                Asked::Failed
            }
            Err(_) => Asked::Failed,
        };
        self.lease.handle(Instant::now(), asked, answer);
    }
}

#[async_trait]
impl Round for LeaseKeeper {
    async fn round(&mut self) -> Result<Duration, String> {
        if self.lease.must_ask(Instant::now()) {
            self.ask().await;
        }
        let held = self.lease.held(Instant::now());
        self.store.set_lease(held);
        let term = held.map(|(term, _)| term);
        match (self.told, term) {
            (None, Some(term)) => tracing::info!(term, "this server leads"),
            (Some(term), None) => tracing::info!(term, "this server does not lead any more"),
            _ => {}
        }
        self.told = term;
        Ok(self.lease.poll_timeout().saturating_duration_since(Instant::now()).max(PAUSE))
    }
}
