//! FleetLink: the box's end of its fleet.
//!
//! Job: enrol once with a one-time code; keep an MQTT session; say presence (with a will), capabilities,
//! heartbeats, reported state and thumbnails; carry telemetry, events and results through the durable outbox;
//! take commands from journal to terminal state, each effect once; answer requests of the fleet. In: the broker, [`RecordEvent`], what the
//! box looks like ([`Sources`]). Out: the broker, operations ([`operations::Operations`]), the identity and
//! the link's state by watch.
//!
//! What is where: `link` joins session, command core and outbox without any actor; `effects` and `operations`
//! carry commands out, `requests` answers; `config` changes the
//! configuration; `adapters` put all that on the real parts of a box; `report` words the heartbeat; `identity` enrols.
//!
//! Failure policy: a broker or fleet that is away is tried again for ever, with jitter; meanwhile everything
//! measured goes to disk. A disk that fails, or a panic, restarts the link, which reads back what was durable:
//! nothing acknowledged is lost and no effect is repeated. Without a fleet in the configuration the link is
//! off. Supervised by the house; the programme does not need it.

pub mod actors;
pub mod adapters;
pub mod config;
mod courier;
pub mod effects;
pub mod identity;
pub mod link;
pub mod open;
pub mod operations;
#[cfg(test)]
mod power_cuts;
mod pulse;
mod renewal;
pub mod report;
pub mod requests;
mod state;
#[cfg(test)]
mod tests;
pub mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture,
    SpawnHandle, StreamHandler, Supervised, WrapFuture as _,
};
use bytes::Bytes;
use r58_mqtt::durable::KeyValue;
use r58_mqtt::payload::{ConnectionOrder, Event, Extra, Payload as _, Severity};
use r58_mqtt::session::SessionEvent;
use r58_mqtt::{Name, Up};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use self::identity::{Identity, Secret};
use self::link::{Link, Note, Wish};
use self::open::BrokerWay;
use self::operations::Operations;
use self::pulse::Pulse;
use self::requests::Requests;
use self::state::LinkWord;
use crate::governor::Metrics;
use crate::log_tail::SayLog;
use crate::state::{DeviceState, FleetState};
use crate::supervision::{Life, Retire};
use crate::turn::IceSnapshot;

/// The will waits this long for the box to come back before it speaks (facts on the protocol: 5 to 10 s).
pub const WILL_DELAY: Duration = Duration::from_secs(8);
/// Connections of one life of the actor count from here: a later life must not look older to the server.
const CONNECTIONS_PER_LIFE: u64 = 1 << 32;
/// An orderly end takes no longer.
const FAREWELL: Duration = Duration::from_millis(1500);

/// The pictures that go to the fleet's dashboard; read without waiting.
pub trait ThumbnailSource: Send + Sync {
    /// Every picture there is: name, JPEG of at most 16 KiB, and a number that moves with each new one.
    fn pictures(&self) -> Vec<(String, Bytes, u64)>;
}

/// What the link reads of the box, without any mailbox.
#[derive(Clone)]
pub struct Sources {
    /// The state as the pages show it.
    pub state: watch::Receiver<Arc<DeviceState>>,
    /// The Governor's last word.
    pub metrics: watch::Receiver<Metrics>,
    /// TurnCache's last word.
    pub ice: watch::Receiver<IceSnapshot>,
    /// Small pictures.
    pub thumbnails: Arc<dyn ThumbnailSource>,
}

/// What a [`FleetLink`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct FleetLinkSettings {
    /// The id the box asks for when it enrols.
    pub device_id: String,
    /// Its name for people.
    pub name: String,
    /// The software's version.
    pub version: String,
    /// Where the identity lives.
    pub state_dir: PathBuf,
    /// The fleet's HTTP address; none means no fleet. Wins over the one that enrolment gave.
    pub fleet_url: Option<String>,
    /// For the first start.
    pub enrolment_code: Option<Secret>,
    /// What the configuration says of the way to the broker.
    pub broker: BrokerWay,
    /// Time between heartbeats, each moved by up to 10 % either way.
    pub heartbeat_every: Duration,
    /// Time between looks at the reported state, and between pictures. 2 s by the protocol.
    pub report_every: Duration,
    /// Bytes of the outbox.
    pub outbox_max_bytes: u64,
    /// Which start of the process this is ([`crate::host::next_boot_seq`]).
    pub boot_seq: u64,
    /// Where outbox and journal live.
    pub store: Arc<dyn KeyValue>,
    /// What commands may do.
    pub operations: Operations,
    /// Who answers what the fleet asks; none when nobody does.
    pub requests: Option<Requests>,
    /// What the box looks like.
    pub sources: Sources,
    /// Told once enrolled; TurnCache follows it.
    pub identity: watch::Sender<Option<Identity>>,
    /// Told how the link stands.
    pub link: watch::Sender<FleetState>,
}

/// Something happened that the fleet should know; survives outages.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RecordEvent {
    /// One word, the last level of its topic.
    pub kind: Name,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence.
    pub text: String,
    /// Details.
    pub data: Value,
}

/// The actor.
pub struct FleetLink {
    life: Life,
    settings: Arc<FleetLinkSettings>,
    started: Instant,
    link: Option<Link>,
    /// Tells the streams of an earlier link from those of the present one.
    epoch: u64,
    /// The highest connection number said so far.
    conn_seq: u64,
    boot_id: String,
    pulse: Pulse,
    timer: Option<SpawnHandle>,
    notes: Option<mpsc::UnboundedSender<Note>>,
    /// Events that happened before the outbox was open.
    early: Vec<RecordEvent>,
    enrol_attempts: u32,
    retired: bool,
}

impl FleetLink {
    /// For the house's factory.
    pub fn new(life: Life, settings: FleetLinkSettings) -> Self {
        let conn_seq = life.generation().saturating_sub(1).saturating_mul(CONNECTIONS_PER_LIFE);
        Self {
            life,
            settings: Arc::new(settings),
            started: Instant::now(),
            link: None,
            epoch: 0,
            conn_seq,
            boot_id: String::new(),
            pulse: Pulse::default(),
            timer: None,
            notes: None,
            early: Vec::new(),
            enrol_attempts: 0,
            retired: false,
        }
    }

    /// After anything that touched the link: its word, its wishes, its next deadline.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let Some(link) = &mut self.link else { return };
        let (wish, word) = (link.take_wish(), link.word().clone());
        self.show(&word);
        match wish {
            Some(Wish::StartOver(reason)) => self.fall(ctx, &reason),
            Some(Wish::BootAgain) => self.open_again(ctx, Some("rebooting")),
            Some(Wish::SignInAgain) => self.open_again(ctx, None),
            None => self.arm(ctx),
        }
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = Instant::now();
        let Some(at) = self.link.as_ref().and_then(|link| link.poll_timeout(now)) else { return };
        // A deadline that has passed is dealt with after whatever waits in the mailbox.
        let wait = at.saturating_duration_since(now).max(Duration::from_millis(1));
        self.timer = Some(ctx.run_later(wait, |actor, ctx| {
            if let Some(link) = &mut actor.link {
                link.handle_timeout(Instant::now());
            }
            actor.settle(ctx);
        }));
    }

    fn show(&self, word: &LinkWord) {
        state::publish(&self.settings.link, word);
        self.life.detail(match word {
            LinkWord::Off => "no fleet configured".to_owned(),
            LinkWord::Connecting => "connecting".to_owned(),
            LinkWord::Online => "online".to_owned(),
            LinkWord::Backoff(reason) => reason.clone(),
        });
    }

    /// The disk or the session cannot be trusted any more: over from what is durable.
    fn fall(&mut self, ctx: &mut Context<Self>, reason: &str) {
        if self.retired {
            return;
        }
        warn!(reason, "the fleet link starts over");
        self.link = None;
        self.show(&LinkWord::Backoff(reason.to_owned()));
        self.life.failed(reason);
        ctx.stop();
    }

    /// The box closes its link and opens another from what is durable. With a reason it says goodbye first, as before a
    /// reboot; without one it is back before anybody has to know.
    fn open_again(&mut self, ctx: &mut Context<Self>, reason: Option<&str>) {
        let Some(link) = self.link.take() else { return };
        let farewell = reason.and_then(|reason| link.farewell(self.conn_seq, reason));
        let session = link.session().clone();
        self.epoch += 1;
        let closed = async move { session.close(farewell, FAREWELL).await };
        ctx.spawn(closed.into_actor(self).map(move |_, actor, ctx| {
            drop(link);
            actor.open(ctx);
        }));
    }

    fn record_event(&mut self, event: RecordEvent) {
        let Some(link) = &mut self.link else {
            self.early.push(event);
            self.early.truncate(64);
            return;
        };
        let RecordEvent { kind, severity, text, data } = event;
        let ts = link.is_clock_set().then(chrono::Utc::now);
        let boot_seq = self.settings.boot_seq;
        let up = Up::Event(kind.clone());
        link.record(Instant::now(), &up, Duration::ZERO, ts, None, |seq| {
            let event = Event { kind, boot_seq, seq, ts, severity, text, data, extra: Extra::new() };
            event.to_bytes().unwrap_or_default()
        });
    }
}

/// The order of a connection, for presence and will.
fn connection(boot_seq: u64, conn_seq: u64) -> ConnectionOrder {
    ConnectionOrder { boot_seq, conn_seq }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Open;

/// An event of the session of one epoch; none after its last.
struct LinkEvent {
    epoch: u64,
    event: Option<SessionEvent>,
}

impl Actor for FleetLink {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.life.opening() {
            ctx.notify_later(Open, pause);
        }
    }
}

impl Supervised for FleetLink {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.link = None;
        self.epoch += 1;
    }
}

crate::supervised!(FleetLink, ping only);

impl Handler<Open> for FleetLink {
    type Result = ();

    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.open(ctx);
    }
}

impl Handler<RecordEvent> for FleetLink {
    type Result = ();

    fn handle(&mut self, event: RecordEvent, ctx: &mut Self::Context) {
        self.record_event(event);
        self.settle(ctx);
    }
}

impl Handler<SayLog> for FleetLink {
    type Result = bool;

    fn handle(&mut self, SayLog { up, body }: SayLog, _: &mut Self::Context) -> bool {
        self.link.as_ref().is_some_and(|link| link.say_live(up, body))
    }
}

impl Handler<Retire> for FleetLink {
    type Result = ResponseFuture<()>;

    /// Says offline before the DISCONNECT, so that nobody has to wait for the will.
    fn handle(&mut self, _: Retire, _: &mut Self::Context) -> Self::Result {
        self.retired = true;
        let link = self.link.take();
        let conn_seq = self.conn_seq;
        Box::pin(async move {
            if let Some(link) = link {
                let farewell = link.farewell(conn_seq, "stopped").filter(|_| link.is_online());
                link.session().close(farewell, FAREWELL).await;
            }
        })
    }
}

impl StreamHandler<LinkEvent> for FleetLink {
    fn handle(&mut self, LinkEvent { epoch, event }: LinkEvent, ctx: &mut Self::Context) {
        let Some(link) = self.link.as_mut().filter(|link| link.epoch() == epoch) else { return };
        let Some(event) = event else {
            self.fall(ctx, "the session ended");
            return;
        };
        let now = Instant::now();
        if let SessionEvent::Connected { conn_seq, .. } = &event {
            self.conn_seq = self.pulse.conn_base + conn_seq;
        }
        let was_online = link.is_online();
        link.handle_event(now, event);
        if link.is_online() && !was_online {
            link.say_birth(now, self.conn_seq);
            self.born(ctx);
        }
        self.settle(ctx);
    }

    /// Streams end with every link; the actor does not.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Note> for FleetLink {
    fn handle(&mut self, Note { epoch, what }: Note, ctx: &mut Self::Context) {
        let Some(link) = self.link.as_mut().filter(|link| link.epoch() == epoch) else { return };
        link.handle_note(Instant::now(), what);
        self.settle(ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
