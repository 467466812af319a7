//! CommandDesk: puts commands on the broker and takes them off again.
//!
//! Job: publish the signed, retained message of every command that is to be sent; withdraw it (an empty
//! retained message) once the command is terminal, cancelled or expired; expire what nobody took. In:
//! [`LookAtCommands`], and a look of its own every second. Out: retained messages, and [`FleetEvent::Command`].
//!
//! The database is the truth: a row is marked only after the broker's PUBACK, so whatever is cut in between is
//! done again, and doing it again changes nothing. Several desks on one database are no harm.
//!
//! Failure policy: broker or store away means waiting; nothing is held in memory that the database has not.
//! Supervised by the house.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture,
    SpawnHandle, Supervised, WrapFuture as _,
};
use chrono::Utc;
use r58_mqtt::session::{NotSent, Outgoing, Session, SessionEvent, SessionEvents, SessionSettings};
use r58_mqtt::sparing::Sparing;
use r58_mqtt::{CommandId, DeviceAddress, Down, Topic};
use tokio::sync::{Notify, broadcast};
use tracing::{debug, info, warn};

use super::FleetEvent;
use super::store::{FleetStore, StoreError};
use crate::supervision::{Life, Retire, lock};

/// The desk looks by itself this often: rows of other servers, expiries, and pokes that were refused.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows of one look.
const LOT: usize = 256;
/// One look ends by then, whatever the broker and the store do.
const LOOK_DEADLINE: Duration = Duration::from_secs(60);

/// Something may have to be published or withdrawn: look now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct LookAtCommands;

/// What a [`CommandDesk`] is made of.
#[derive(Clone)]
pub struct DeskSettings {
    /// Its own session; no subscriptions, no will.
    pub session: SessionSettings,
    /// Where commands live.
    pub store: Arc<dyn FleetStore>,
    /// Who watches.
    pub events: broadcast::Sender<FleetEvent>,
}

/// The actor.
pub struct CommandDesk {
    life: Life,
    settings: DeskSettings,
    poke: Arc<Notify>,
    session: Option<Session>,
    work: Option<SpawnHandle>,
}

impl CommandDesk {
    /// For the house's factory.
    pub fn new(life: Life, settings: DeskSettings) -> Self {
        Self { life, settings, poke: Arc::default(), session: None, work: None }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        let mut settings = self.settings.session.clone();
        // Nothing is ever queued for the desk, and a fresh session forgets nothing.
        settings.session_expiry = Duration::ZERO;
        settings.inflight = settings.inflight.max(64);
        let (session, events) = match Session::start(settings) {
            Ok(started) => started,
            Err(error) => {
                warn!(%error, "the command desk cannot reach the broker");
                self.life.failed(error.to_string());
                ctx.stop();
                return;
            }
        };
        self.life.opened();
        self.session = Some(session.clone());
        let work = Work {
            session,
            store: self.settings.store.clone(),
            events: self.settings.events.clone(),
            poke: self.poke.clone(),
            refused: Mutex::default(),
        };
        let ended = work.run(events).into_actor(self).map(|(), actor, ctx| {
            actor.life.failed("the session ended");
            ctx.stop();
        });
        self.work = Some(ctx.spawn(ended));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Actor for CommandDesk {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.life.opening() {
            ctx.notify_later(Open, pause);
        }
    }
}

impl Supervised for CommandDesk {}

crate::supervised!(CommandDesk, ping only);

impl Handler<Open> for CommandDesk {
    type Result = ();

    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.open(ctx);
    }
}

impl Handler<LookAtCommands> for CommandDesk {
    type Result = ();

    fn handle(&mut self, _: LookAtCommands, _: &mut Self::Context) {
        self.poke.notify_one();
    }
}

impl Handler<Retire> for CommandDesk {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) -> Self::Result {
        if let Some(work) = self.work.take() {
            ctx.cancel_future(work);
        }
        let session = self.session.take();
        Box::pin(async move {
            if let Some(session) = session {
                session.close(None, Duration::from_secs(2)).await;
            }
        })
    }
}

struct Work {
    session: Session,
    store: Arc<dyn FleetStore>,
    events: broadcast::Sender<FleetEvent>,
    poke: Arc<Notify>,
    /// Lines on commands that the broker refuses: a full one does so at every look.
    refused: Mutex<Sparing>,
}

impl Work {
    /// Ends when the session does.
    async fn run(self, mut events: SessionEvents) {
        let mut connected = false;
        let mut failing = false;
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(SessionEvent::Connected { .. }) => connected = true,
                    Some(SessionEvent::Disconnected { .. }) => connected = false,
                    Some(_) => continue,
                    None => return,
                },
                () = self.poke.notified() => {}
                _ = tick.tick() => {}
            }
            let looked = tokio::time::timeout(LOOK_DEADLINE, self.look(connected)).await;
            let failed = match looked {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no end in 60 s".to_owned()),
            };
            match (&failed, failing) {
                (Some(reason), false) => warn!(reason, "commands cannot be looked at"),
                (None, true) => info!("commands are looked at again"),
                _ => {}
            }
            failing = failed.is_some();
            if let Some(count) = lock(&self.refused).handle_timeout(Instant::now()) {
                warn!(count, "the broker refused more commands");
            }
        }
    }

    /// Expires, publishes and withdraws until nothing is left to do.
    async fn look(&self, connected: bool) -> Result<(), StoreError> {
        for (device, id) in self.store.expire_commands(Utc::now()).await? {
            self.tell(device, id);
        }
        if !connected {
            return Ok(());
        }
        loop {
            let published = self.publish_lot().await?;
            let withdrawn = self.withdraw_lot().await?;
            if published < LOT && withdrawn < LOT {
                return Ok(());
            }
        }
    }

    async fn publish_lot(&self) -> Result<usize, StoreError> {
        let lot = self.store.commands_to_publish(LOT).await?;
        let mut sent = Vec::new();
        for command in lot {
            let topic = Topic::down(&command.device, Down::Command(command.id.clone())).to_string();
            let message = Outgoing::json(topic, command.message).retained(true);
            if let Ok(receipt) = self.session.publish(message).await {
                sent.push((command.device, command.id, receipt));
            }
        }
        let mut there = Vec::new();
        for (device, id, receipt) in sent {
            if self.confirmed(&id, receipt.await) {
                there.push((device, id));
            }
        }
        let ids: Vec<CommandId> = there.iter().map(|(_, id)| id.clone()).collect();
        if !ids.is_empty() {
            self.store.mark_published(&ids, Utc::now()).await?;
        }
        for (device, id) in there {
            self.tell(device, id);
        }
        Ok(ids.len())
    }

    async fn withdraw_lot(&self) -> Result<usize, StoreError> {
        let lot = self.store.commands_to_withdraw(LOT).await?;
        let mut sent = Vec::new();
        for (device, id) in lot {
            let topic = Topic::down(&device, Down::Command(id.clone())).to_string();
            let message = Outgoing { payload: bytes::Bytes::new(), ..Outgoing::json(topic, "").retained(true) };
            if let Ok(receipt) = self.session.publish(message).await {
                sent.push((id, receipt));
            }
        }
        let mut gone = Vec::new();
        for (id, receipt) in sent {
            if self.confirmed(&id, receipt.await) {
                gone.push(id);
            }
        }
        if !gone.is_empty() {
            self.store.mark_withdrawn(&gone).await?;
        }
        Ok(gone.len())
    }

    fn tell(&self, device: DeviceAddress, id: CommandId) {
        let _ = self.events.send(FleetEvent::Command { device, id });
    }

    fn confirmed(&self, id: &CommandId, outcome: Result<(), NotSent>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(reason) if reason.is_retryable() => {
                debug!(%id, %reason, "looked at again when the broker is back");
                false
            }
            Err(reason) => {
                if lock(&self.refused).admit(Instant::now()) {
                    warn!(%id, %reason, "the broker does not take this command");
                }
                false
            }
        }
    }
}
