//! One gathered connection in reserve, for as long as somebody is likely to come.
//!
//! A spare is short-lived on purpose. Between the box and its TURN server stands somebody's router, and an idle mapping
//! there may die after 30 s (RFC 4787 asks for two minutes, many give half of one); its relay would then be deaf. So a spare
//! is replaced well before, and none is kept when nobody has shown interest for a while.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::connection::Connection;
use super::engine::Engine;
use crate::ice::IceServer;

/// A spare is not used beyond this age.
const LIFE: Duration = Duration::from_secs(20);
/// Interest lasts this long: the time to allow a camera, choose a microphone and press the button.
const INTEREST: Duration = Duration::from_secs(120);

pub(super) struct Spares {
    engine: Arc<Engine>,
    runtime: Handle,
    state: Mutex<State>,
    changed: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    servers: Vec<IceServer>,
    wanted_until: Option<Instant>,
    spare: Option<Connection>,
    keeper: bool,
}

impl Spares {
    pub(super) fn new(engine: Arc<Engine>, runtime: Handle) -> Self {
        Self { engine, runtime, state: Mutex::default(), changed: tokio::sync::Notify::new() }
    }

    /// Notes interest, and starts the keeper if it is not at work.
    pub(super) fn want(self: &Arc<Self>, servers: Vec<IceServer>) {
        if servers.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.wanted_until = Some(Instant::now() + INTEREST);
        let stale = if state.servers == servers { None } else { state.spare.take() };
        state.servers = servers;
        if !std::mem::replace(&mut state.keeper, true) {
            let weak = Arc::downgrade(self);
            self.runtime.spawn(async move {
                while let Some(spares) = weak.upgrade() {
                    if !spares.keep().await {
                        break;
                    }
                }
            });
        }
        drop(state);
        if let Some(stale) = stale {
            self.runtime.spawn(async move { stale.close().await });
        }
        self.changed.notify_one();
    }

    /// Takes the spare, if there is one for these servers that is young enough. It may still be gathering.
    pub(super) fn take(&self, servers: &[IceServer]) -> Option<Connection> {
        let mut state = self.lock();
        if state.servers != servers || state.spare.as_ref().is_none_or(|s| s.born.elapsed() > LIFE) {
            return None;
        }
        let spare = state.spare.take();
        self.changed.notify_one();
        spare
    }

    pub(super) fn is_ready(&self, servers: &[IceServer]) -> bool {
        let state = self.lock();
        state.servers == servers && state.spare.as_ref().is_some_and(|s| s.born.elapsed() <= LIFE && s.is_gathered())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One round of the keeper; false when its work is over.
    async fn keep(&self) -> bool {
        let (leftover, servers) = {
            let mut state = self.lock();
            state.keeper = state.wanted_until.is_some_and(|until| until > Instant::now());
            if state.keeper {
                let aged = state.spare.as_ref().is_none_or(|spare| spare.born.elapsed() >= LIFE / 2);
                (None, aged.then(|| state.servers.clone()))
            } else {
                (state.spare.take(), None)
            }
        };
        if let Some(leftover) = leftover {
            leftover.close().await;
            return false;
        }
        if let Some(servers) = servers {
            self.replace(servers).await;
        }
        // Half a life: a spare that is handed out is at most that old, and has as much again for the join.
        let _ = tokio::time::timeout(LIFE / 2, self.changed.notified()).await;
        true
    }

    async fn replace(&self, servers: Vec<IceServer>) {
        let fresh = match Connection::open(&self.engine, &servers).await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::debug!(%error, "no spare connection");
                return;
            }
        };
        // An aged spare is better than one that has not gathered; none at all is worse than either.
        if self.lock().spare.is_some() {
            fresh.gathered(LIFE / 4).await;
        }
        let unwanted = {
            let mut state = self.lock();
            if state.servers == servers { state.spare.replace(fresh) } else { Some(fresh) }
        };
        if let Some(unwanted) = unwanted {
            unwanted.close().await;
        }
    }
}
