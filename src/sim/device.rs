//! One simulated device: the link of a real box (session, command core, outbox, journal), driven by its script.
//!
//! A life is a start of the box's process: it ends by a power cut, by a reboot that a command asked for, or with the
//! simulation. What is durable outlives it.

mod words;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use r58_actors::fleet_link::effects::Workshop as _;
use r58_actors::fleet_link::identity::Identity;
use r58_actors::fleet_link::link::{Link, Note, Parts, Wish};
use r58_actors::fleet_link::open::{BrokerWay, MAX_CRASHES, key_ring, outbox_limits, session_settings};
use r58_actors::fleet_link::operations;
use r58_actors::supervision::ActorReport;
use r58_actors::turn::IceSnapshot;
use r58_mqtt::command::{Core, CoreConfig};
use r58_mqtt::durable::{Changes, KeyValue, commit_async};
use r58_mqtt::outbox::{Outbox, OutboxConfig, fresh_seq};
use r58_mqtt::payload::{Caps, Payload as _, Reported};
use r58_mqtt::session::{Cable, DisconnectReason, Hand, Session, SessionEvent, SessionEvents};
use r58_mqtt::sign::KeyRing;
use r58_mqtt::{DeviceAddress, MqttError, Up, journal};
use tokio::sync::{mpsc, watch};

use super::fleet::VERSION;
use super::look::{Machine, tree};
use super::script::{Clock, Loss, Script};
use super::tally::{DeviceReport, Tally};
use super::works::{Played, SERVICES};

/// Longest goodbye.
const FAREWELL: Duration = Duration::from_millis(1500);
/// A box takes this long to boot.
const BOOT: Duration = Duration::from_millis(1500);
/// How far back a clock that is not set lies: it shows the seventies.
const UNSET_BY: TimeDelta = TimeDelta::days(-55 * 365);
/// Bytes of each outbox.
const OUTBOX: u64 = 4 << 20;
/// How many starts it had, beside journal and outbox.
const BOOT_SEQ: &[u8] = b"s/boot";
/// How often a device that is to settle looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What the whole fleet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Outages come by the script.
    Rough,
    /// No outage begins any more; who is away comes back.
    Calm,
    /// Nothing new is measured; what was measured is carried to its end.
    Settle,
    /// Say goodbye.
    Close,
}

/// The phase, and how many reconnect storms were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders {
    /// Where the rehearsal stands.
    pub phase: Phase,
    /// Grows by one with each storm.
    pub storms: u64,
}

/// What all devices share.
pub struct Shared {
    /// When the simulation began.
    pub began: Instant,
    /// Time between heartbeats.
    pub heartbeat_every: Duration,
    /// Events of each device per hour.
    pub events: f64,
    /// Wins over what the enrolment said of the broker.
    pub broker: BrokerWay,
    /// Counters.
    pub tally: Arc<Tally>,
    /// Where ICE servers come from: nowhere.
    pub ice: IceSnapshot,
    /// The tree of actors that every box shows.
    pub tree: Vec<ActorReport>,
    /// Services that may be restarted.
    pub services: Vec<String>,
}

impl Shared {
    /// Of a simulation that begins now.
    pub fn new(heartbeat_every: Duration, events: f64, broker: BrokerWay) -> Self {
        Self {
            began: Instant::now(),
            heartbeat_every,
            events,
            broker,
            tally: Arc::default(),
            ice: r58_actors::turn::TurnSettings::first_snapshot(&[]),
            tree: tree(),
            services: SERVICES.map(str::to_owned).into(),
        }
    }
}

/// How a life ended.
enum End {
    Closed,
    Off(Duration),
    Fell,
}

/// One device.
pub struct Device {
    number: u32,
    identity: Identity,
    address: DeviceAddress,
    store: Arc<dyn KeyValue>,
    shared: Arc<Shared>,
    script: Arc<Mutex<Script>>,
    orders: watch::Receiver<Orders>,
    cable: (Hand, Cable),
    /// Which of its starts this is, over all runs.
    boot_seq: u64,
    machine: Machine,
    report: DeviceReport,
    settled: bool,
    storms: u64,
}

/// One life, as far as its loop needs it.
struct Life {
    link: Link,
    played: Arc<Played>,
    started: Instant,
    boot_id: String,
    conn_seq: u64,
    beat_at: Instant,
    event_at: Instant,
    plug_at: Option<Instant>,
    said: Option<Reported>,
}

impl Device {
    /// A device that has not started yet.
    ///
    /// # Errors
    /// When its identity names no address.
    pub fn new(
        number: u32,
        identity: Identity,
        store: Arc<dyn KeyValue>,
        shared: Arc<Shared>,
        mut script: Script,
        orders: watch::Receiver<Orders>,
    ) -> anyhow::Result<Self> {
        let address = DeviceAddress::new(&identity.org, &identity.device_id)?;
        let report = DeviceReport {
            device_id: identity.device_id.clone(),
            heartbeats: 0,
            first_seq: None,
            last_seq: None,
            events: 0,
            pending: 0,
            dropped: 0,
            lives: 0,
            online: false,
            clock_set: script.clock() != Clock::Unset,
        };
        let machine = Machine::new(Instant::now(), &mut script);
        let script = Arc::new(Mutex::new(script));
        let cable = Cable::plugged();
        let storms = orders.borrow().storms;
        Ok(Self {
            number,
            identity,
            address,
            store,
            shared,
            script,
            orders,
            cable,
            boot_seq: 0,
            machine,
            report,
            settled: false,
            storms,
        })
    }

    /// All of its lives.
    pub async fn run(mut self) -> DeviceReport {
        loop {
            self.report.lives += 1;
            let end = match self.open().await {
                Ok((life, events, notes)) => self.live(life, events, notes).await,
                Err(_) => End::Fell,
            };
            let online_at_the_end = self.report.online;
            self.set_online(false);
            let pause = match end {
                End::Closed => {
                    self.report.online = online_at_the_end;
                    return self.report;
                }
                End::Off(pause) => pause,
                End::Fell => {
                    self.shared.tally.errors.add();
                    BOOT
                }
            };
            self.set_settled(false);
            self.cable.0.plug();
            if !self.stay_off(pause).await {
                return self.report;
            }
        }
    }

    /// `false` when the simulation is over; calm ends the pause early.
    async fn stay_off(&mut self, pause: Duration) -> bool {
        let until = tokio::time::Instant::now() + pause;
        loop {
            match self.orders.borrow_and_update().phase {
                Phase::Rough => {}
                Phase::Calm | Phase::Settle => return true,
                Phase::Close => return false,
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                changed = self.orders.changed() => if changed.is_err() { return false },
            }
        }
    }

    fn script<T>(&self, with: impl FnOnce(&mut Script) -> T) -> T {
        with(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn skew(&self) -> TimeDelta {
        match self.script(|script| script.clock()) {
            Clock::Set(off) => off,
            Clock::Unset => UNSET_BY,
        }
    }

    /// Counts its starts durably, as a box does.
    async fn next_boot(&self) -> Result<u64, MqttError> {
        let last = self.store.get(BOOT_SEQ)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        let mut changes = Changes::new();
        changes.put(BOOT_SEQ, (last + 1).to_be_bytes());
        commit_async(&*self.store, changes).await?;
        Ok(last + 1)
    }

    async fn open(&mut self) -> Result<(Life, SessionEvents, mpsc::UnboundedReceiver<Note>), MqttError> {
        let now = Instant::now();
        self.storms = self.orders.borrow().storms;
        self.boot_seq = self.next_boot().await?;
        let boot_seq = self.boot_seq;
        let boot_id = self.script(Script::boot_id);
        let wall = self.report.clock_set.then(|| Utc::now() + self.skew());
        let config = OutboxConfig {
            limits: outbox_limits(OUTBOX, self.shared.heartbeat_every),
            boot_seq,
            first_seq: fresh_seq(wall),
        };
        let outbox = Outbox::open(now, self.store.clone(), config)?;
        let loaded = journal::load(&*self.store)?;
        let config = CoreConfig { max_crashes: MAX_CRASHES, ..CoreConfig::new(&boot_id, operations::specs()) };
        let core = Core::new(now, config, loaded.rows, loaded.meta);
        let mut settings = session_settings(&self.identity, &self.shared.broker, &self.address, boot_seq, 0);
        settings.cable = Some(self.cable.1.clone());
        let (session, events) = Session::start(settings)?;
        let tally = self.shared.tally.clone();
        let played = Arc::new(Played::open(self.number, self.script.clone(), self.store.clone(), tally));
        let (notes, noted) = mpsc::unbounded_channel();
        let parts = Parts {
            epoch: boot_seq,
            address: self.address.clone(),
            ring: self.ring(),
            session,
            core,
            outbox,
            workshop: played.clone(),
            requests: None,
            notes,
            boot_seq,
            boot_id: boot_id.clone(),
            version: VERSION.to_owned(),
            skew: self.skew(),
        };
        let mut link = Link::new(parts, wall);
        link.set_conditions(now, played.desired_ver());
        let mut life = Life {
            link,
            played,
            started: now,
            boot_id,
            conn_seq: 0,
            beat_at: now + self.shared.heartbeat_every.mul_f64(self.script(Script::roll)),
            event_at: now,
            plug_at: None,
            said: None,
        };
        self.plan_event(&mut life);
        self.record_event(&mut life, "started", "the box's software started");
        Ok((life, events, noted))
    }

    fn ring(&self) -> KeyRing {
        key_ring(&self.identity)
    }

    async fn live(
        &mut self,
        mut life: Life,
        mut events: SessionEvents,
        mut notes: mpsc::UnboundedReceiver<Note>,
    ) -> End {
        loop {
            let phase = self.orders.borrow().phase;
            let wake = tokio::time::Instant::from_std(self.next_wake(&life, phase));
            let mut orders = self.orders.clone();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take_event(&mut life, event),
                    None => return End::Fell,
                },
                Some(note) = notes.recv() => life.link.handle_note(Instant::now(), note.what),
                changed = orders.changed() => {
                    if changed.is_err() {
                        return End::Closed;
                    }
                    self.orders.mark_unchanged();
                    self.follow_orders(&mut life);
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            if let Some(end) = self.pass_time(&mut life) {
                return end;
            }
            match life.link.take_wish() {
                None => {}
                Some(Wish::StartOver(_)) => return End::Fell,
                Some(wish @ (Wish::BootAgain | Wish::SignInAgain)) => {
                    if wish == Wish::BootAgain {
                        self.shared.tally.reboots.add();
                    }
                    let farewell = life.link.farewell(life.conn_seq, "rebooting").filter(|_| life.link.is_online());
                    life.link.session().close(farewell, FAREWELL).await;
                    return End::Off(BOOT);
                }
            }
            self.look(&life);
            if self.orders.borrow().phase == Phase::Close {
                let farewell = life.link.farewell(life.conn_seq, "stopped").filter(|_| life.link.is_online());
                life.link.session().close(farewell, FAREWELL).await;
                return End::Closed;
            }
        }
    }

    fn next_wake(&self, life: &Life, phase: Phase) -> Instant {
        let now = Instant::now();
        let mut next = now + Duration::from_secs(3600);
        let mut consider = |at: Instant| next = next.min(at);
        life.link.poll_timeout(now).into_iter().for_each(&mut consider);
        life.plug_at.into_iter().for_each(&mut consider);
        if phase < Phase::Settle {
            consider(life.beat_at);
            consider(life.event_at);
        } else {
            consider(now + LOOK_AGAIN);
        }
        if phase == Phase::Rough {
            consider(self.shared.began + self.script(|script| script.next_outage()));
        }
        // A deadline that has passed waits for what has come meanwhile.
        next.max(now + Duration::from_millis(1))
    }

    fn take_event(&mut self, life: &mut Life, event: SessionEvent) {
        let tally = &self.shared.tally;
        match &event {
            SessionEvent::Connected { conn_seq, .. } => {
                life.conn_seq = *conn_seq;
                tally.connections.add();
            }
            SessionEvent::Disconnected { reason: DisconnectReason::Refused(_), .. } => tally.refused.add(),
            SessionEvent::Disconnected { .. } => tally.failed_connections.add(),
            _ => {}
        }
        let (now, was_online) = (Instant::now(), life.link.is_online());
        life.link.handle_event(now, event);
        if life.link.is_online() && !was_online {
            life.link.say_birth(now, life.conn_seq);
            let keys = self.identity.command_keys.iter().map(|key| key.kid.clone()).collect();
            let ops = operations::specs().into_keys().collect();
            life.link.say_retained(Up::Caps, Caps::new(ops, VERSION, keys).to_bytes());
            life.said = None;
            self.say_reported(life);
            if self.orders.borrow().phase < Phase::Settle {
                life.beat_at = now;
            }
        }
    }

    fn follow_orders(&mut self, life: &mut Life) {
        let Orders { phase, storms } = *self.orders.borrow();
        if phase >= Phase::Calm {
            life.plug_at = None;
            self.cable.0.plug();
        }
        if storms != self.storms {
            self.storms = storms;
            self.cable.0.pull();
            // The switch is back after a moment, the same for all: that is what makes it a storm.
            life.plug_at = Some(Instant::now() + Duration::from_millis(500));
        }
    }

    /// Everything whose time has come.
    fn pass_time(&mut self, life: &mut Life) -> Option<End> {
        let now = Instant::now();
        let phase = self.orders.borrow().phase;
        life.link.handle_timeout(now);
        if life.plug_at.is_some_and(|at| at <= now) {
            life.plug_at = None;
            self.cable.0.plug();
        }
        if phase == Phase::Rough {
            let outage = self.script(|script| script.outage(now - self.shared.began));
            if let Some(outage) = outage {
                let tally = &self.shared.tally;
                match outage.loss {
                    Loss::Network => tally.outages.add(),
                    Loss::Site => tally.site_outages.add(),
                    Loss::Power => {
                        tally.power_cuts.add();
                        return Some(End::Off(outage.lasts));
                    }
                }
                self.cable.0.pull();
                life.plug_at = Some(now + outage.lasts);
            }
        }
        if phase < Phase::Settle {
            if life.beat_at <= now {
                self.beat(life, now);
            }
            if life.event_at <= now {
                self.plan_event(life);
                self.record_event(life, "note", "something happened at the box");
            }
        }
        None
    }

    /// What the counters show of this device.
    fn look(&mut self, life: &Life) {
        let online = life.link.is_online();
        let (pending, dropped) = life.link.outbox_counts();
        (self.report.pending, self.report.dropped) = (pending, dropped);
        self.set_online(online);
        let settling = self.orders.borrow().phase >= Phase::Settle;
        self.set_settled(settling && online && pending == 0 && !life.played.is_busy());
    }

    fn set_online(&mut self, online: bool) {
        if online != self.report.online {
            self.report.online = online;
            self.shared.tally.online.step(online);
        }
    }

    fn set_settled(&mut self, settled: bool) {
        if settled != self.settled {
            self.settled = settled;
            self.shared.tally.settled.step(settled);
        }
    }
}
