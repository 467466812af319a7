//! TurnCache: the ICE servers that guests' pages and the box's own peers use.
//!
//! Job: keep a credential of the best provider that answers, in the order fleet, Cloudflare, coturn secret;
//! STUN alone while nobody does. In: [`GetIceServers`], [`GetIceProviders`], and the fleet identity by watch.
//! Out: the snapshot, by answer and by watch. An answer never waits for the network or the disk.
//!
//! Failure policy: a failing provider backs off on its own (5 s doubling to 5 min) and the next one is asked;
//! a cache that cannot be read or written costs a request after a restart and is said once. The actor itself
//! has nothing to lose but its backoffs: rebuilt, it reads the last grant back. Supervised by the house.

pub mod core;
pub mod forwarder;
mod grant;
pub mod providers;
mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult, SpawnHandle, Supervised,
    WrapFuture as _,
};
use chrono::Utc;
use r58_mqtt::durable::{Changes, KeyValue};
use r58_pipelines::ice::IceServer;
use tokio::sync::watch;
use tracing::{debug, info, warn};

pub use self::grant::{Grant, IceSnapshot, ProviderReport};

use self::core::{Input, Now, Output, TurnCore};
use self::providers::{IceProvider, ProviderError};
use crate::fleet_link::identity::Identity;
use crate::supervision::Life;

/// Longest wait for the cache on disk at start; after that the box asks its providers anew.
const CACHE_DEADLINE: Duration = Duration::from_secs(5);
/// The shell's own limit of one fetch, above the HTTP client's.
const FETCH_DEADLINE: Duration = Duration::from_secs(16);
/// Where the grant lies in the store.
const GRANT_KEY: &[u8] = b"t/grant";

/// Where the last grant survives a restart. Both calls block.
pub trait GrantCache: Send + Sync {
    /// The bytes of the last [`GrantCache::save`].
    ///
    /// # Errors
    /// A sentence for the log.
    fn load(&self) -> Result<Option<Vec<u8>>, String>;

    /// Keeps `bytes`, readable by the box only: they hold a credential.
    ///
    /// # Errors
    /// A sentence for the log.
    fn save(&self, bytes: &[u8]) -> Result<(), String>;
}

/// The cache in the box's durable store, in reach of the box's user only.
pub struct StoredGrant(Arc<dyn KeyValue>);

impl StoredGrant {
    /// Beside whatever else lives in `store`.
    pub fn new(store: Arc<dyn KeyValue>) -> Self {
        Self(store)
    }
}

impl GrantCache for StoredGrant {
    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        self.0.get(GRANT_KEY).map_err(|error| error.to_string())
    }

    fn save(&self, bytes: &[u8]) -> Result<(), String> {
        let mut changes = Changes::new();
        changes.put(GRANT_KEY, bytes);
        self.0.commit(changes).map_err(|error| error.to_string())
    }
}

/// Asks for ICE servers; answered at once.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "IceSnapshot")]
pub struct GetIceServers;

/// Asks how each provider is doing, by rank.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<ProviderReport>")]
pub struct GetIceProviders;

/// What a [`TurnCache`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct TurnSettings {
    /// By rank.
    pub providers: Vec<Arc<dyn IceProvider>>,
    /// Urls served while nobody has granted anything.
    pub stun: Vec<String>,
    /// Where the last grant is kept.
    pub cache: Option<Arc<dyn GrantCache>>,
    /// Providers are asked anew when it changes.
    pub identity: watch::Receiver<Option<Identity>>,
    /// Every snapshot is sent here too, for readers that must not wait for a mailbox.
    pub snapshots: watch::Sender<IceSnapshot>,
}

impl TurnSettings {
    /// The value for [`TurnSettings::snapshots`] of a box that starts.
    pub fn first_snapshot(stun: &[String]) -> IceSnapshot {
        let servers = match stun.is_empty() {
            true => Vec::new(),
            false => vec![IceServer { urls: stun.to_vec(), ..IceServer::default() }],
        };
        IceSnapshot { servers, provider: "stun".to_owned(), expires_at: None, stale: false }
    }
}

/// The actor.
pub struct TurnCache {
    life: Life,
    settings: TurnSettings,
    core: TurnCore,
    timer: Option<SpawnHandle>,
}

impl TurnCache {
    /// For the house's factory.
    pub fn new(life: Life, settings: TurnSettings) -> Self {
        let names = settings.providers.iter().map(|provider| provider.name());
        let core = TurnCore::new(names, settings.stun.clone());
        Self { life, settings, core, timer: None }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        self.life.opened();
        self.follow_identity(ctx);
        let cache = self.settings.cache.clone();
        let restored = async move {
            let read = tokio::task::spawn_blocking(move || cache.map_or(Ok(None), |cache| cache.load()));
            match tokio::time::timeout(CACHE_DEADLINE, read).await {
                Ok(Ok(Ok(bytes))) => bytes.and_then(|bytes| Grant::from_bytes(&bytes)),
                Ok(Ok(Err(error))) => {
                    warn!(error, "the cache of ICE servers cannot be read");
                    None
                }
                Ok(Err(_)) | Err(_) => {
                    warn!("the cache of ICE servers does not answer");
                    None
                }
            }
        };
        let begin = restored.into_actor(self).map(|grant, actor, ctx| {
            match grant {
                Some(grant) => actor.core.handle(now(), Input::Restored(grant)),
                None => actor.core.handle_timeout(now()),
            }
            actor.drain(ctx);
        });
        ctx.spawn(begin);
    }

    /// Enrolment, or another fleet, is a reason to ask at once.
    fn follow_identity(&self, ctx: &mut Context<Self>) {
        let mut identity = self.settings.identity.clone();
        let changed = async move { identity.changed().await.map(|()| identity) };
        ctx.spawn(changed.into_actor(self).map(|changed, actor, ctx| {
            // Without a sender no identity will ever come: nothing to follow.
            let Ok(identity) = changed else { return };
            actor.settings.identity = identity;
            actor.core.handle(now(), Input::Kicked);
            actor.drain(ctx);
            actor.follow_identity(ctx);
        }));
    }

    fn drain(&mut self, ctx: &mut Context<Self>) {
        let mut changed = false;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Fetch(rank) => self.fetch(rank, ctx),
                Output::Store(grant) => self.store(grant, ctx),
                Output::Changed => changed = true,
            }
        }
        if changed {
            self.publish();
        }
        self.arm(ctx);
    }

    fn fetch(&mut self, rank: usize, ctx: &mut Context<Self>) {
        let Some(provider) = self.settings.providers.get(rank).cloned() else { return };
        let wall = Utc::now();
        let asked = async move {
            let unanswered = || ProviderError::Unreachable("no answer in time".to_owned());
            tokio::time::timeout(FETCH_DEADLINE, provider.fetch(wall)).await.unwrap_or_else(|_| Err(unanswered()))
        };
        ctx.spawn(asked.into_actor(self).map(move |answer, actor, ctx| {
            let jitter = rand::random();
            let input = match answer {
                Ok(grant) => Input::Fetched { rank, grant, jitter },
                Err(error) => {
                    actor.complain(rank, &error);
                    Input::Failed { rank, error: error.to_string(), jitter }
                }
            };
            actor.core.handle(now(), input);
            actor.drain(ctx);
        }));
    }

    /// Once at WARN, until the provider has worked again. A box that is not enrolled yet is no news.
    fn complain(&self, rank: usize, error: &ProviderError) {
        let report = self.core.report(Instant::now());
        let Some(slot) = report.get(rank) else { return };
        match (slot.failures, error) {
            (0, ProviderError::Unreachable(_) | ProviderError::Refused(_) | ProviderError::Unreadable(_)) => {
                warn!(provider = slot.name, %error, "no ICE servers from this provider");
            }
            _ => debug!(provider = slot.name, %error, "no ICE servers from this provider"),
        }
    }

    fn store(&self, grant: Grant, ctx: &mut Context<Self>) {
        let Some(cache) = self.settings.cache.clone() else { return };
        let bytes = grant.to_bytes();
        let written = tokio::task::spawn_blocking(move || cache.save(&bytes));
        ctx.spawn(written.into_actor(self).map(|written, _, _| {
            if let Ok(Err(error)) = written {
                warn!(error, "the cache of ICE servers cannot be written");
            }
        }));
    }

    fn publish(&self) {
        let snapshot = self.core.snapshot(Instant::now());
        let until = snapshot.expires_at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        self.life.detail(match &until {
            Some(until) if snapshot.stale => format!("{} until {until}, cannot be refreshed", snapshot.provider),
            Some(until) => format!("{} until {until}", snapshot.provider),
            None => snapshot.provider.clone(),
        });
        let before = self.settings.snapshots.borrow().provider.clone();
        if before != snapshot.provider {
            info!(provider = snapshot.provider, until, "ICE servers come from another provider");
        }
        self.settings.snapshots.send_if_modified(|held| match *held == snapshot {
            true => false,
            false => {
                *held = snapshot;
                true
            }
        });
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(at) = self.core.poll_timeout() else { return };
        self.timer = Some(ctx.run_later(at.saturating_duration_since(Instant::now()), |actor, ctx| {
            actor.core.handle_timeout(now());
            actor.drain(ctx);
        }));
    }
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: Utc::now() }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Actor for TurnCache {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Open);
    }
}

impl Supervised for TurnCache {}

crate::supervised!(TurnCache);

impl Handler<Open> for TurnCache {
    type Result = ();

    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.open(ctx);
    }
}

impl Handler<GetIceServers> for TurnCache {
    type Result = MessageResult<GetIceServers>;

    fn handle(&mut self, _: GetIceServers, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.core.snapshot(Instant::now()))
    }
}

impl Handler<GetIceProviders> for TurnCache {
    type Result = MessageResult<GetIceProviders>;

    fn handle(&mut self, _: GetIceProviders, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.core.report(Instant::now()))
    }
}
