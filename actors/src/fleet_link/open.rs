//! From nothing to a link: identity (by enrolment, once), then disk, then session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt as _;
use r58_mqtt::command::{Core, CoreConfig};
use r58_mqtt::durable::{Changes, KeyValue};
use r58_mqtt::journal::{self, Loaded};
use r58_mqtt::outbox::{Limits, Outbox, OutboxConfig, fresh_seq};
use r58_mqtt::payload::{Payload as _, Presence, Severity};
use r58_mqtt::session::{Qos, Session, SessionEvents, SessionSettings, Subscription, Will, WillSource};
use r58_mqtt::sign::{KeyRing, PublicKey};
use r58_mqtt::topic::device_filters;
use r58_mqtt::{DeviceAddress, Name, Topic, Up};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::effects::Hands;
use super::identity::{self, EnrolError, Identity, Registration, Secret};
use super::link::{Link, Note, Noted, Parts};
use super::renewal::Renewal;
use super::state::LinkWord;
use super::trust::Trust;
use super::{FleetLink, FleetLinkSettings, LinkEvent, RecordEvent, WILL_DELAY, operations};
use crate::turn::providers::http_builder;

/// Reading outbox and journal back takes no longer, or the disk hangs.
const DISK_DEADLINE: Duration = Duration::from_secs(60);
/// First pause after a failed enrolment, doubled up to [`ENROL_AGAIN_MAX`].
const ENROL_AGAIN: Duration = Duration::from_secs(1);
/// Longest pause while the fleet cannot be reached; also the pause after a refusal, which time does not heal.
const ENROL_AGAIN_MAX: Duration = Duration::from_secs(60);
/// Starts in a row that found a command cut, a reboot included, after which commands wait until one was stable.
pub const MAX_CRASHES: u32 = 5;
/// How often the host is asked whether its clock is set.
const CLOCK_EVERY: Duration = Duration::from_secs(30);

/// What the disk held.
pub(super) struct Disk {
    outbox: Outbox,
    loaded: Loaded,
    boot_id: String,
    clock: Option<DateTime<Utc>>,
}

impl FleetLink {
    pub(super) fn open(&mut self, ctx: &mut Context<Self>) {
        if self.settings.fleet_url.is_none() && self.settings.broker.url.is_none() {
            self.life.opened();
            self.show(&LinkWord::Off);
            return;
        }
        self.show(&LinkWord::Connecting);
        let settings = self.settings.clone();
        let identified = async move { identify(&settings).await };
        ctx.spawn(identified.into_actor(self).map(|identified, actor, ctx| match identified {
            Ok(identity) => actor.identified(identity, ctx),
            Err(error) => actor.not_enrolled(&error, ctx),
        }));
    }

    fn not_enrolled(&mut self, error: &EnrolError, ctx: &mut Context<Self>) {
        // Once for each kind of trouble; the state shows the rest.
        if self.enrol_attempts == 0 || matches!(error, EnrolError::Refused(_)) {
            warn!(%error, "the box is not enrolled");
        }
        let pause = match error {
            EnrolError::Unreachable(_) | EnrolError::Unreadable(_) => {
                ENROL_AGAIN.saturating_mul(1 << self.enrol_attempts.min(6)).min(ENROL_AGAIN_MAX)
            }
            EnrolError::Refused(_) | EnrolError::File { .. } => ENROL_AGAIN_MAX,
        };
        self.enrol_attempts = self.enrol_attempts.saturating_add(1);
        self.show(&LinkWord::Backoff(error.to_string()));
        // Full jitter, but not at once.
        let pause = pause.mul_f64(0.1 + 0.9 * rand::random::<f64>());
        ctx.run_later(pause, |actor, ctx| actor.open(ctx));
    }

    fn identified(&mut self, identity: Identity, ctx: &mut Context<Self>) {
        self.enrol_attempts = 0;
        self.settings.identity.send_if_modified(|held| {
            let news = held.as_ref() != Some(&identity);
            *held = Some(identity.clone());
            news
        });
        let settings = self.settings.clone();
        let read = tokio::task::spawn_blocking(move || read_disk(&settings));
        let read = async move {
            match tokio::time::timeout(DISK_DEADLINE, read).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("reading the journal failed".to_owned()),
                Err(_) => Err("the disk does not answer".to_owned()),
            }
        };
        ctx.spawn(read.into_actor(self).map(move |disk, actor, ctx| {
            let linked = disk.and_then(|disk| actor.link_up(&identity, disk, ctx));
            if let Err(reason) = linked {
                actor.fall(ctx, &reason);
            }
        }));
    }

    fn link_up(&mut self, identity: &Identity, disk: Disk, ctx: &mut Context<Self>) -> Result<(), String> {
        let address = DeviceAddress::new(&identity.org, &identity.device_id).map_err(|error| error.to_string())?;
        let ring = key_ring(identity);
        self.epoch += 1;
        self.boot_id.clone_from(&disk.boot_id);
        self.pulse.conn_base = self.conn_seq;
        let (session, events) = self.start_session(identity, &address)?;
        let config = CoreConfig { max_crashes: MAX_CRASHES, ..CoreConfig::new(&disk.boot_id, operations::specs()) };
        if disk.loaded.unreadable > 0 {
            warn!(rows = disk.loaded.unreadable, "commands in the journal cannot be read");
        }
        let renewal = Renewal {
            state_dir: self.settings.state_dir.clone(),
            identity: identity.clone(),
            trust: self.settings.broker.trust.clone(),
        };
        let now = Instant::now();
        let core = Core::new(now, config, disk.loaded.rows, disk.loaded.meta);
        let (notes, noted) = mpsc::unbounded_channel();
        let mut link = Link::new(
            Parts {
                epoch: self.epoch,
                address,
                ring,
                session,
                core,
                outbox: disk.outbox,
                workshop: Arc::new(Hands { operations: self.settings.operations.clone(), renewal }),
                requests: self.settings.requests.clone(),
                notes: notes.clone(),
                boot_seq: self.settings.boot_seq,
                boot_id: disk.boot_id,
                version: self.settings.version.clone(),
                skew: TimeDelta::zero(),
            },
            disk.clock,
        );
        link.set_conditions(now, self.settings.operations.config.overlay().ver);
        self.notes = Some(notes);
        let epoch = self.epoch;
        let events = futures_util::stream::unfold(events, |mut events: SessionEvents| async move {
            events.recv().await.map(|event| (event, events))
        });
        let events = events.map(Some).chain(futures_util::stream::once(async { None }));
        ctx.add_stream(events.map(move |event| LinkEvent { epoch, event }));
        ctx.add_stream(futures_util::stream::unfold(noted, |mut noted| async move {
            noted.recv().await.map(|note: Note| (note, noted))
        }));
        self.link = Some(link);
        self.life.opened();
        self.begin_pulse(ctx);
        self.watch_clock(ctx);
        self.record_start();
        self.settle(ctx);
        Ok(())
    }

    fn start_session(&self, identity: &Identity, address: &DeviceAddress) -> Result<(Session, SessionEvents), String> {
        let way = &self.settings.broker;
        let settings = session_settings(identity, way, address, self.settings.boot_seq, self.pulse.conn_base);
        Session::start(settings).map_err(|error| error.to_string())
    }

    /// Once in the process's life, so that the fleet's log shows each start.
    fn record_start(&mut self) {
        let early = std::mem::take(&mut self.early);
        if self.epoch == 1 && self.life.generation() == 1 {
            let kind = Name::new("started").ok();
            let data = json!({"version": self.settings.version, "boot_id": self.boot_id});
            if let Some(kind) = kind {
                let text = "the box's software started".to_owned();
                self.record_event(RecordEvent { kind, severity: Severity::Info, text, data });
            }
        }
        early.into_iter().for_each(|event| self.record_event(event));
    }

    /// Asks the host for as long as this link lives.
    fn watch_clock(&self, ctx: &mut Context<Self>) {
        let epoch = self.epoch;
        ctx.run_later(CLOCK_EVERY, move |actor, ctx| {
            if actor.epoch != epoch {
                return;
            }
            let (host, notes) = (actor.settings.operations.host.clone(), actor.notes.clone());
            tokio::task::spawn_blocking(move || {
                let wall = host.clock_synchronized().then(Utc::now);
                if let Some(notes) = notes {
                    let _ = notes.send(Note { epoch, what: Noted::Clock { wall } });
                }
            });
            actor.watch_clock(ctx);
        });
    }
}

/// The identity on disk, or a new one by enrolment; with the addresses that the configuration insists on.
async fn identify(settings: &Arc<FleetLinkSettings>) -> Result<Identity, EnrolError> {
    let dir = settings.state_dir.clone();
    let failed = |_| EnrolError::Unreadable("a thread failed");
    let held = tokio::task::spawn_blocking(move || identity::load(&dir)).await.map_err(failed)??;
    let mut identity = match held {
        Some(identity) => identity,
        None => enrol(settings).await?,
    };
    if let Some(url) = &settings.fleet_url {
        identity.fleet_url.clone_from(url);
    }
    Ok(identity)
}

async fn enrol(settings: &Arc<FleetLinkSettings>) -> Result<Identity, EnrolError> {
    let refused = |what: &str| EnrolError::Refused(what.to_owned());
    let url = settings.fleet_url.clone().ok_or_else(|| refused("no fleet address is configured"))?;
    let code = settings.enrolment_code.clone();
    if code.is_none() && settings.broker.trust.shown.is_none() {
        return Err(refused("neither an enrolment code nor a certificate is configured"));
    }
    let http = settings.broker.trust.believe_and_show(http_builder()).map_err(|error| refused(&error))?;
    let http = http.build().map_err(|_| EnrolError::Unreachable("TLS cannot be set up"))?;
    let registration = Registration::of_this_machine(code, &settings.device_id, &settings.name, &settings.version);
    let identity = identity::register(&http, &url, &registration).await?;
    info!(device = identity.device_id, org = identity.org, "enrolled");
    let (dir, copy) = (settings.state_dir.clone(), identity.clone());
    let failed = |_| EnrolError::Unreadable("a thread failed");
    tokio::task::spawn_blocking(move || identity::save(&dir, &copy)).await.map_err(failed)??;
    Ok(identity)
}

/// Blocks: outbox, journal, boot id, clock.
fn read_disk(settings: &FleetLinkSettings) -> Result<Disk, String> {
    let store: &Arc<dyn KeyValue> = &settings.store;
    // Behind everything that an earlier link has handed over.
    store.commit(Changes::new()).map_err(|error| error.to_string())?;
    let host = &settings.operations.host;
    let boot_id = host.boot_id().map_err(|error| error.to_string())?;
    let clock = host.clock_synchronized().then(Utc::now);
    let limits = outbox_limits(settings.outbox_max_bytes, settings.heartbeat_every);
    let config = OutboxConfig { limits, boot_seq: settings.boot_seq, first_seq: fresh_seq(clock) };
    let outbox = Outbox::open(Instant::now(), store.clone(), config).map_err(|error| error.to_string())?;
    let loaded = journal::load(&**store).map_err(|error| error.to_string())?;
    Ok(Disk { outbox, loaded, boot_id, clock })
}

/// Limits of a box's outbox.
pub fn outbox_limits(max_bytes: u64, heartbeat_every: Duration) -> Limits {
    Limits { max_bytes, resend_after: heartbeat_every.saturating_mul(2), ..Limits::default() }
}

/// What a configuration says of the way to the broker; each of it wins over what enrolment gave.
#[derive(Clone, Default)]
pub struct BrokerWay {
    /// Address, as in [`SessionSettings::url`].
    pub url: Option<String>,
    /// The password at brokers that do not ask the fleet server who a box is.
    pub password: Option<Secret>,
    /// Whom the box believes, and what it shows; to the fleet server too.
    pub trust: Trust,
}

/// The session of a box: its subscriptions, and a will for each connection, the first of which is `conn_base` + 1.
pub fn session_settings(
    identity: &Identity,
    way: &BrokerWay,
    address: &DeviceAddress,
    boot_seq: u64,
    conn_base: u64,
) -> SessionSettings {
    let mut settings = SessionSettings::new(
        way.url.as_ref().unwrap_or(&identity.mqtt_url),
        identity.device_id.as_str(),
        identity.org.as_str(),
        way.password.as_ref().unwrap_or(&identity.token).expose(),
    );
    settings.ca.clone_from(&way.trust.ca);
    settings.shown.clone_from(&way.trust.shown);
    settings.subscriptions = device_filters(address, &[]).into_iter().map(Subscription::new).collect();
    let topic = Topic::up(address, Up::Presence).to_string();
    settings.will = Some(WillSource::per_connection(move |conn_seq| Will {
        topic: topic.clone(),
        payload: Presence::will(super::connection(boot_seq, conn_base + conn_seq))
            .to_bytes()
            .unwrap_or_default()
            .into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay: WILL_DELAY,
    }));
    settings
}

/// A key that makes no sense is left out: commands signed with it are refused, all others work.
pub fn key_ring(identity: &Identity) -> KeyRing {
    let mut ring = KeyRing::default();
    for key in &identity.command_keys {
        let public = PublicKey { kid: key.kid.clone(), public_key: key.public_key.clone() };
        if let Err(error) = ring.add(&public) {
            warn!(%error, "a command key of the identity is not one");
        }
    }
    ring
}
