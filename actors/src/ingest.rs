//! Ingest: the fleet server's ear. What devices say becomes rows, and devices hear what is stored.
//!
//! Job: consume presence, heartbeats, telemetry, events, statuses, capabilities, reported states and syncs of all devices by
//! shared subscriptions, and thumbnails by one of its own (each server shows them, from memory); validate; apply to the [`store::FleetStore`] in guarded
//! batches; then acknowledge, to the broker (PUBACK) and to the device (`down/sync`, cumulative). Answer each
//! device's `up/sync`. Call devices offline that fell silent. In: the broker, [`GetIngestStats`]. Out: rows,
//! `down/sync`, [`FleetEvent`]s for the dashboard, a poke for the [`desk::CommandDesk`].
//!
//! Failure policy: a store that is away is tried again (0.2 s doubling to 10 s) while the bounded room fills
//! and then the broker keeps the rest; a message that cannot be read or stored is counted, logged and
//! acknowledged, so that it never loops; a broker that is away is the session's affair. A panic in the loop
//! restarts it with nothing lost that was not acknowledged. Supervised by the house.

mod applier;
pub mod core;
pub mod desk;
mod pump;
mod read;
mod replies;
mod retained;
pub mod shelf;
pub mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult,
    ResponseFuture, Supervised, WrapFuture as _,
};
use r58_mqtt::session::{RetainHandling, Session, SessionSettings, Subscription};
use r58_mqtt::topic::ServerFilter;
use r58_mqtt::{CommandId, DeviceAddress, Name};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::AbortHandle;
use tracing::warn;

pub use self::read::{FIRST, SEQ};
pub use self::shelf::ThumbnailShelf;

use self::applier::Applier;
use self::desk::LookAtCommands;
use self::pump::{Ending, Pump};
use self::store::FleetStore;
use crate::supervision::{Door, Life, Retire};

/// Unacknowledged messages that the broker may send ahead of the store.
const RECEIVE_MAX: u16 = 4096;
/// A device that says something at least this often is heard before it can be called silent: the default
/// heartbeat of 60 s with its jitter of 10 %, and some time to reconnect after the broker was away.
pub const SILENCE_GRACE: Duration = Duration::from_secs(90);

/// Something that a watcher of the dashboard would see.
#[derive(Debug, Clone, PartialEq)]
pub enum FleetEvent {
    /// A device's card is another one now.
    Device(DeviceAddress),
    /// A command's row is another one now.
    Command {
        /// Whose.
        device: DeviceAddress,
        /// Which.
        id: CommandId,
    },
    /// A new picture is on the shelf.
    Thumbnail {
        /// Whose.
        device: DeviceAddress,
        /// Input id or `programme`.
        name: Name,
        /// As in [`shelf::ShelvedThumbnail::seq`].
        seq: u64,
    },
}

/// What an [`Ingest`] is made of.
#[derive(Clone)]
pub struct IngestSettings {
    /// Credentials and address; the subscriptions are filled in here.
    pub session: SessionSettings,
    /// Name of the shared group: servers on one database have the same.
    pub group: String,
    /// Where rows go.
    pub store: Arc<dyn FleetStore>,
    /// Where thumbnails go.
    pub shelf: ThumbnailShelf,
    /// Who watches.
    pub events: broadcast::Sender<FleetEvent>,
    /// Poked when a command's row changed.
    pub desk: Option<Door<LookAtCommands>>,
    /// How long the broker must be there before a silent device is called offline.
    pub silence_grace: Duration,
}

impl IngestSettings {
    /// With the defaults of the protocol.
    pub fn new(session: SessionSettings, store: Arc<dyn FleetStore>, events: broadcast::Sender<FleetEvent>) -> Self {
        Self {
            session,
            group: "ingest".to_owned(),
            store,
            shelf: ThumbnailShelf::default(),
            events,
            desk: None,
            silence_grace: SILENCE_GRACE,
        }
    }
}

#[derive(Default)]
struct Stats {
    received: AtomicU64,
    stored: AtomicU64,
    refused: AtomicU64,
    given_up: AtomicU64,
    unknown: AtomicU64,
    replies_dropped: AtomicU64,
    held: AtomicU64,
}

/// Asks for the counters of this life.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "IngestStats")]
pub struct GetIngestStats;

/// Counters since the actor was built.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IngestStats {
    /// Whether the broker is there.
    pub linked: bool,
    /// Messages read.
    pub received: u64,
    /// Records stored, repetitions included.
    pub stored: u64,
    /// Messages that could not be read.
    pub refused: u64,
    /// Messages that the store refuses for ever.
    pub given_up: u64,
    /// Records of devices that are not registered.
    pub unknown: u64,
    /// Acknowledgements to devices that were left out; the device repeats itself.
    pub replies_dropped: u64,
    /// Messages waiting for the store.
    pub held: u64,
}

/// The actor.
pub struct Ingest {
    life: Life,
    settings: IngestSettings,
    stats: Arc<Stats>,
    linked: watch::Sender<bool>,
    session: Option<Session>,
    tasks: Vec<AbortHandle>,
}

impl Ingest {
    /// For the house's factory.
    pub fn new(life: Life, settings: IngestSettings) -> Self {
        Self {
            life,
            settings,
            stats: Arc::default(),
            linked: watch::Sender::new(false),
            session: None,
            tasks: Vec::new(),
        }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        let started = match Session::start(self.session_settings()) {
            Ok(started) => started,
            Err(error) => {
                warn!(%error, "the fleet's broker cannot be consumed");
                return self.fall(ctx, error.to_string());
            }
        };
        self.life.opened();
        let session = started.0.clone();
        self.session = Some(session.clone());
        let applier = match Applier::start(self.settings.store.clone()) {
            Ok(applier) => applier,
            Err(error) => return self.fall(ctx, error.to_string()),
        };
        let (replies, queue) = mpsc::channel(replies::QUEUE);
        let answering = tokio::spawn(replies::run(queue, session, self.settings.store.clone()));
        let (stats, linked) = (self.stats.clone(), self.linked.clone());
        let pump = Pump::new(self.settings.clone(), started, applier, replies, stats, linked);
        // A task, so that a panic in it is seen here and restarts the loop alone.
        let pumping = tokio::spawn(pump.run());
        self.tasks = vec![answering.abort_handle(), pumping.abort_handle()];
        ctx.spawn(pumping.into_actor(self).map(|ended, actor, ctx| {
            let cause = match ended {
                // Put down in order.
                Err(error) if error.is_cancelled() => return,
                Ok(Ending::Closed) => "the session ended".to_owned(),
                Ok(Ending::StoreFailed) => "the store failed in a way that nobody foresaw".to_owned(),
                Err(error) => format!("the loop failed: {error}"),
            };
            actor.end_tasks();
            actor.fall(ctx, cause);
        }));
    }

    fn fall(&mut self, ctx: &mut Context<Self>, cause: String) {
        self.life.failed(cause);
        ctx.stop();
    }

    fn session_settings(&self) -> SessionSettings {
        let mut session = self.settings.session.clone();
        let group = &self.settings.group;
        // A shared subscription must say "at subscribe" or nothing: it is given no retained messages anyway.
        let shared = |filter: ServerFilter| Subscription {
            retain_handling: RetainHandling::AtSubscribe,
            ..Subscription::new(filter.shared(group))
        };
        let subscription = |filter| match filter {
            ServerFilter::Thumbnail => {
                Subscription { retain_handling: RetainHandling::Never, ..Subscription::new(filter.plain()) }
            }
            filter => shared(filter),
        };
        session.subscriptions = ServerFilter::ALL.into_iter().map(subscription).collect();
        session.receive_max = RECEIVE_MAX;
        session.event_capacity = core::ROOM;
        session
    }

    fn end_tasks(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.session = None;
        self.linked.send_replace(false);
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Actor for Ingest {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.life.opening() {
            ctx.notify_later(Open, pause);
        }
    }
}

impl Supervised for Ingest {}

crate::supervised!(Ingest, ping only);

impl Handler<Open> for Ingest {
    type Result = ();

    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.open(ctx);
    }
}

impl Handler<GetIngestStats> for Ingest {
    type Result = MessageResult<GetIngestStats>;

    fn handle(&mut self, _: GetIngestStats, _: &mut Self::Context) -> Self::Result {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MessageResult(IngestStats {
            linked: *self.linked.borrow(),
            received: count(&self.stats.received),
            stored: count(&self.stats.stored),
            refused: count(&self.stats.refused),
            given_up: count(&self.stats.given_up),
            unknown: count(&self.stats.unknown),
            replies_dropped: count(&self.stats.replies_dropped),
            held: count(&self.stats.held),
        })
    }
}

impl Handler<Retire> for Ingest {
    type Result = ResponseFuture<()>;

    /// What is held and not stored stays unacknowledged: the broker brings it again.
    fn handle(&mut self, _: Retire, _: &mut Self::Context) -> Self::Result {
        let session = self.session.clone();
        self.tasks.drain(..).for_each(|task| task.abort());
        Box::pin(async move {
            if let Some(session) = session {
                session.close(None, Duration::from_secs(2)).await;
            }
        })
    }
}
