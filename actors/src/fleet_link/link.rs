//! One link: the session, the command core and the outbox, joined. No actor and no timer in here: the actor
//! hands in events, notes and the passing of time, and asks when to come again.
//!
//! What must survive is handed to the store before anything that depends on it happens; the store answers by
//! a [`Note`]. Effects and publishing are tasks of their own that end with the link.

mod requests;
mod words;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use r58_mqtt::command::{Core, Input, Output, PacketRef, Step, Write, WriteId, failpoint};
use r58_mqtt::durable::KeyValue;
use r58_mqtt::outbox::Outbox;
use r58_mqtt::payload::{ClockState, Payload as _, Presence, SyncDown};
use r58_mqtt::session::{AckToken, Incoming, NotSent, Outgoing, Session, SessionEvent};
use r58_mqtt::sign::KeyRing;
use r58_mqtt::sparing::Sparing;
use r58_mqtt::{DeviceAddress, Down, MqttError, Name, Topic, Up, journal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::courier::{Parcel, deliver};
use super::effects::{EffectNote, Effects, Workshop};
use super::requests::Requests;
use super::state::LinkWord;

/// First wait for the answer to `up/sync`, and for what the answer names; doubled up to [`SYNC_AGAIN_MAX`]. A server that starts together
/// with the box may not listen yet.
const SYNC_AGAIN: Duration = Duration::from_secs(2);
/// Longest wait before `up/sync` is said again.
const SYNC_AGAIN_MAX: Duration = Duration::from_secs(60);

/// What the store or an effect has to say; carries the epoch of the link that it belongs to.
#[derive(Debug)]
pub struct Note {
    /// Of which link.
    pub epoch: u64,
    /// What.
    pub what: Noted,
}

/// What a [`Note`] says.
#[derive(Debug)]
pub enum Noted {
    /// A write of the command core.
    Written {
        /// Which.
        write: WriteId,
        /// For the outbox.
        order: Option<u64>,
        /// Whether a command ended with it.
        ended: bool,
        /// Whether it is durable.
        result: Result<(), MqttError>,
    },
    /// An entry of the outbox; `live` is published at once when there is a connection.
    Recorded {
        /// For the outbox.
        order: u64,
        /// The copy that does not wait.
        live: Option<Outgoing>,
        /// Whether it is durable.
        result: Result<(), MqttError>,
    },
    /// What an effect says.
    Effect(EffectNote),
    /// The host's clock.
    Clock {
        /// None while it is not set.
        wall: Option<DateTime<Utc>>,
    },
}

/// What the link wants of whoever drives it.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// The disk cannot be trusted: start over from it.
    StartOver(String),
    /// The host was rebooted for show: link up again as after a boot.
    BootAgain,
    /// The box has another token: link up again with it.
    SignInAgain,
}

/// What the link is made of once everything is open.
pub struct Parts {
    /// Tells this link's notes from those of an earlier one.
    pub epoch: u64,
    /// Whose link it is.
    pub address: DeviceAddress,
    /// Whose commands count.
    pub ring: KeyRing,
    /// The session; its events go to [`Link::handle_event`].
    pub session: Session,
    /// The command core.
    pub core: Core,
    /// The outbox; the store below it is the journal's too.
    pub outbox: Outbox,
    /// Who carries commands out.
    pub workshop: Arc<dyn Workshop>,
    /// Who answers what the fleet asks.
    pub requests: Option<Requests>,
    /// Where notes go; they come back by [`Link::handle_note`].
    pub notes: mpsc::UnboundedSender<Note>,
    /// Which start of the process this is.
    pub boot_seq: u64,
    /// The host's boot.
    pub boot_id: String,
    /// The software's version.
    pub version: String,
    /// What the host's clock is off by: zero on a box, which has no other to compare; simulated ones have wrong clocks.
    pub skew: TimeDelta,
}

/// Session, command core and outbox, joined.
pub struct Link {
    parts: Parts,
    effects: Effects,
    store: Arc<dyn KeyValue>,
    courier: mpsc::UnboundedSender<Parcel>,
    tasks: JoinSet<()>,
    packets: HashMap<PacketRef, AckToken>,
    next_packet: PacketRef,
    /// Tickets of statuses, for the failpoint after their acknowledgement.
    statuses: HashSet<u64>,
    /// Subscribed: messages can be said and will be heard.
    online: bool,
    session_word: LinkWord,
    clock: ClockState,
    sync_again: Option<(Instant, Duration)>,
    wish: Option<Wish>,
    /// Lines on messages that make no sense: whoever can publish at the broker causes them.
    strange: Sparing,
}

impl Link {
    /// A link of these parts; `clock` is the host's wall time, none while it is not set.
    pub fn new(parts: Parts, clock: Option<DateTime<Utc>>) -> Self {
        let (courier, parcels) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(deliver(parts.session.clone(), parcels));
        let store = parts.outbox.store().clone();
        let effects = Effects::new(parts.workshop.clone());
        let mut link = Self {
            parts,
            effects,
            store,
            courier,
            tasks,
            packets: HashMap::new(),
            next_packet: 1,
            statuses: HashSet::new(),
            online: false,
            session_word: LinkWord::Connecting,
            clock: ClockState::Unset,
            sync_again: None,
            wish: None,
            strange: Sparing::default(),
        };
        link.set_clock(clock);
        link
    }

    /// Which link this is.
    pub fn epoch(&self) -> u64 {
        self.parts.epoch
    }

    /// Whether messages can be said and will be heard.
    pub fn is_online(&self) -> bool {
        self.online
    }

    /// How it stands.
    pub(super) fn word(&self) -> &LinkWord {
        &self.session_word
    }

    /// What it wants of whoever drives it.
    pub fn take_wish(&mut self) -> Option<Wish> {
        self.wish.take()
    }

    /// Its session.
    pub fn session(&self) -> &Session {
        &self.parts.session
    }

    /// Whether wall-clock times can be believed.
    pub fn is_clock_set(&self) -> bool {
        self.clock == ClockState::Set
    }

    /// Entries waiting and entries dropped.
    pub fn outbox_counts(&self) -> (u64, u64) {
        (self.parts.outbox.pending(), self.parts.outbox.dropped())
    }

    /// What is said last, before an orderly end.
    pub fn farewell(&self, conn_seq: u64, reason: &str) -> Option<Outgoing> {
        let order = super::connection(self.parts.boot_seq, conn_seq);
        let body = Presence::offline(order, reason).to_bytes().ok()?;
        Some(Outgoing::json(self.topic(Up::Presence), body).retained(true))
    }

    // What comes in

    /// Takes in an event of the session.
    pub fn handle_event(&mut self, now: Instant, event: SessionEvent) {
        match event {
            SessionEvent::Connected { conn_seq, session_present } => {
                debug!(conn_seq, session_present, "connected to the fleet's broker");
                self.session_word = LinkWord::Connecting;
                self.packets.clear();
            }
            SessionEvent::Subscribed { grants } => match grants.into_iter().find(|grant| grant.granted.is_err()) {
                // Nothing would ever be heard: say so and keep what is measured.
                Some(grant) => {
                    warn!(filter = grant.filter, "the broker refuses this box its subscription");
                    self.session_word = LinkWord::Backoff("the broker refuses the subscription".to_owned());
                }
                None => {
                    self.online = true;
                    self.session_word = LinkWord::Online;
                }
            },
            SessionEvent::Message(message) => self.take_message(now, message),
            SessionEvent::Discarded { topic, size } => {
                if self.strange.admit(now) {
                    warn!(topic, size, "a message too large was discarded");
                }
            }
            SessionEvent::PublishAcked { token } => {
                if self.statuses.remove(&token) {
                    failpoint(Step::AfterStatus);
                }
                self.parts.outbox.acked(now, token);
            }
            SessionEvent::PublishFailed { token, reason } => self.publish_failed(now, token, &reason),
            SessionEvent::Disconnected { reason, .. } => {
                if self.online {
                    info!(%reason, "the fleet's broker is gone");
                }
                self.online = false;
                self.sync_again = None;
                self.packets.clear();
                self.statuses.clear();
                self.parts.outbox.disconnected(now);
                self.session_word = LinkWord::Backoff(reason.to_string());
            }
        }
        self.drain(now);
    }

    /// Takes in a note.
    pub fn handle_note(&mut self, now: Instant, noted: Noted) {
        match noted {
            Noted::Written { write, order, ended, result } => match result {
                Ok(()) => {
                    failpoint(if ended { Step::TerminalWritten } else { Step::Written });
                    if let Some(order) = order {
                        self.parts.outbox.committed(order);
                    }
                    self.parts.core.handle(now, Input::Written { write });
                }
                Err(error) => self.wish = Some(Wish::StartOver(error.to_string())),
            },
            Noted::Recorded { order, live, result } => match result {
                Ok(()) => {
                    self.parts.outbox.committed(order);
                    if let Some(live) = live.filter(|_| self.online) {
                        self.parts.session.try_publish(live);
                    }
                }
                Err(error) => self.wish = Some(Wish::StartOver(error.to_string())),
            },
            Noted::Effect(EffectNote::Input(input)) => {
                // What a command changed counts for the preconditions of the next.
                let desired_ver = self.effects.desired_ver();
                self.parts.core.handle(now, Input::Conditions { desired_ver, activities: Vec::new() });
                self.parts.core.handle(now, *input);
            }
            Noted::Effect(EffectNote::Rebooted) => self.wish = Some(Wish::BootAgain),
            Noted::Effect(EffectNote::Renewed) => self.wish = Some(Wish::SignInAgain),
            Noted::Clock { wall } => self.set_clock(wall),
        }
        self.drain(now);
    }

    /// To be called at the time that [`Link::poll_timeout`] gave.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.parts.core.handle_timeout(now);
        if let Some(count) = self.strange.handle_timeout(now) {
            warn!(count, "more messages were refused");
        }
        if let Some((_, pause)) = self.sync_again.filter(|(at, _)| *at <= now) {
            self.say_sync(now, (pause * 2).min(SYNC_AGAIN_MAX));
        }
        self.drain(now);
    }

    /// When to come again; ask after whatever was handed in.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let outbox = self.parts.outbox.poll_timeout().filter(|_| self.online);
        let sync = self.sync_again.map(|(at, _)| at);
        [self.parts.core.poll_timeout(now), outbox, sync, self.strange.poll_timeout()].into_iter().flatten().min()
    }

    /// The conditions that preconditions are judged by.
    pub fn set_conditions(&mut self, now: Instant, desired_ver: u64) {
        self.parts.core.handle(now, Input::Conditions { desired_ver, activities: Vec::new() });
        self.drain(now);
    }

    /// What the host's clock shows; none while it is not set.
    pub fn wall(&self) -> Option<DateTime<Utc>> {
        self.is_clock_set().then(|| Utc::now() + self.parts.skew)
    }

    fn set_clock(&mut self, wall: Option<DateTime<Utc>>) {
        self.clock = if wall.is_some() { ClockState::Set } else { ClockState::Unset };
        self.parts.core.handle(Instant::now(), Input::Clock { wall });
    }

    fn take_message(&mut self, now: Instant, message: Incoming) {
        failpoint(Step::Arrived);
        let down = match Topic::parse_bytes(message.topic.as_bytes()) {
            Ok(Topic::Down(address, down)) if address == self.parts.address => Some(down),
            _ => None,
        };
        match down {
            Some(Down::Command(id)) => {
                let packet = self.next_packet;
                self.next_packet += 1;
                if let Some(token) = message.ack {
                    self.packets.insert(packet, token);
                }
                let input = match message.payload.is_empty() {
                    true => Input::Withdrawn { packet, id },
                    false => {
                        let verdict = self.parts.ring.verify(&self.parts.address, &id, &message.payload);
                        let objection = match &verdict {
                            Ok(verified) => self.effects.objection(verified.command()),
                            Err(error) => {
                                if self.strange.admit(now) {
                                    warn!(%id, %error, "a command is refused");
                                }
                                None
                            }
                        };
                        Input::Message { packet, id, verdict: Box::new(verdict), objection }
                    }
                };
                self.parts.core.handle(now, input);
                return;
            }
            Some(Down::Sync) => self.take_sync(now, &message.payload),
            Some(Down::Request) => self.take_request(now, &message),
            Some(Down::Desired) | None => debug!(topic = message.topic, "not for this version"),
        }
        if let Some(token) = message.ack {
            self.parts.session.ack(token);
        }
    }

    fn take_sync(&mut self, now: Instant, body: &[u8]) {
        let sync = match SyncDown::parse(body) {
            Ok(sync) => sync,
            Err(error) => {
                if self.strange.admit(now) {
                    warn!(%error, "the server's sync cannot be read");
                }
                return;
            }
        };
        // Only streams that this outbox has: an acknowledgement must not found one.
        let known: HashSet<Name> = self.parts.outbox.last_seqs().into_iter().map(|(name, _)| name).collect();
        for (stream, seq) in sync.acked.iter().filter(|(stream, _)| known.contains(*stream)) {
            if let Err(error) = self.parts.outbox.acked_through(now, stream, *seq) {
                self.wish = Some(Wish::StartOver(error.to_string()));
            }
        }
        // What the server waits for and this box never heard of is on its way, or is lost: it asks again until it is here.
        let here = |id| self.parts.core.status(id).is_some();
        if sync.pending.as_ref().is_some_and(|pending| pending.iter().all(here)) {
            self.sync_again = None;
        }
        self.parts.core.handle(now, Input::Sync(Box::new(sync)));
    }

    fn publish_failed(&mut self, now: Instant, ticket: u64, reason: &NotSent) {
        self.statuses.remove(&ticket);
        if reason.is_retryable() {
            // The connection is going; all that is in flight goes again, in order.
            self.parts.outbox.disconnected(now);
        } else {
            warn!(%reason, "the broker will never take this message, it is given up");
            self.parts.outbox.give_up(ticket);
        }
    }

    // What goes out

    /// Everything that follows from what came in.
    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.parts.core.poll_output() {
            match output {
                Output::Write(write) => self.write(now, &write),
                Output::PubAck { packet } => {
                    if let Some(token) = self.packets.remove(&packet) {
                        failpoint(Step::BeforePuback);
                        self.parts.session.ack(token);
                        failpoint(Step::AfterPuback);
                    }
                }
                Output::Execute { id, op, args, attempt } => {
                    info!(%id, op, attempt, "a command begins");
                    let notes = self.note_sender();
                    self.effects.execute(&mut self.tasks, notes, id, &op, &args, attempt);
                }
                Output::Proceed { id, attempt } => {
                    let notes = self.note_sender();
                    self.effects.proceed(&mut self.tasks, notes, id, attempt);
                }
                Output::Verify { id, op, args, attempt, .. } => {
                    failpoint(Step::BeforeVerify);
                    let input = self.effects.verify(id, &op, &args, attempt);
                    self.parts.core.handle(now, input);
                }
                Output::Abandon { id, attempt } => {
                    warn!(%id, attempt, "a command did not end in its time");
                    self.effects.abandon(&id, attempt);
                }
            }
        }
        self.send_outbox(now);
    }

    fn write(&mut self, now: Instant, write: &Write) {
        let ended = write.rows.iter().any(|row| row.state().is_terminal());
        for row in write.rows.iter().filter(|row| row.state().is_terminal()) {
            info!(id = %row.id(), state = %row.state(), code = row.last.code, "a command ended");
            self.parts.workshop.ended(row.id(), row.state());
        }
        let staged = match journal::stage(&mut self.parts.outbox, now, write) {
            Ok(staged) => staged,
            Err(error) => {
                self.wish = Some(Wish::StartOver(error.to_string()));
                return;
            }
        };
        let (notes, epoch) = (self.parts.notes.clone(), self.parts.epoch);
        let (write, order) = (write.write, staged.order);
        // Without a receiver the link is gone, and the next one reads what was written.
        let done = move |result| drop(notes.send(Note { epoch, what: Noted::Written { write, order, ended, result } }));
        self.store.submit(staged.changes, Box::new(done));
        failpoint(if ended { Step::TerminalSubmitted } else { Step::Submitted });
    }

    fn send_outbox(&mut self, now: Instant) {
        while self.online {
            let next = match self.parts.outbox.next_batch(now) {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err(error) => {
                    self.wish = Some(Wish::StartOver(error.to_string()));
                    return;
                }
            };
            let is_status = matches!(next.up, Up::CommandStatus(_));
            if is_status {
                self.statuses.insert(next.ticket);
            }
            let message = Outgoing::json(self.topic(next.up), next.payload);
            self.post(Parcel { ticket: Some(next.ticket), message, is_status });
        }
    }

    fn post(&self, parcel: Parcel) {
        // Without a courier the session has ended, which is told as an event.
        let _ = self.courier.send(parcel);
    }

    fn topic(&self, up: Up) -> String {
        Topic::up(&self.parts.address, up).to_string()
    }

    fn note_sender(&self) -> super::effects::NoteSender {
        let (notes, epoch) = (self.parts.notes.clone(), self.parts.epoch);
        Arc::new(move |note| drop(notes.send(Note { epoch, what: Noted::Effect(note) })))
    }
}
