//! The loop between the broker and the store: reads, gathers, applies, then acknowledges.
//!
//! A message is acknowledged to the broker only when it is stored (or can never be), so a server that dies or
//! a store that is away loses nothing that travels with QoS 1.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use r58_mqtt::DeviceAddress;
use r58_mqtt::payload::SyncUp;
use r58_mqtt::session::{AckToken, Incoming, Session, SessionEvent, SessionEvents};
use r58_mqtt::sparing::Sparing;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::applier::{self, APPLY_DEADLINE, Applier};
use super::core::{Gatherer, Outcome, Settled};
use super::read::{Taken, read};
use super::replies::Reply;
use super::store::{Applied, Record, Report, StoreError};
use super::{FleetEvent, IngestSettings, Stats};

/// How often devices that fell silent are looked for.
const SILENCE_EVERY: Duration = Duration::from_secs(5);

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The session was closed, in order.
    Closed,
    /// The store panicked; what it was given is not acknowledged.
    StoreFailed,
}

/// The right to acknowledge a record; none for a live one (QoS 0).
type From = Option<(Session, AckToken)>;

/// A record with the right to acknowledge it.
struct Held {
    record: Record,
    from: From,
}

/// A batch under way, without its rights.
struct Applying {
    from: Vec<From>,
    outcome: Pin<Box<dyn Future<Output = Option<applier::Outcome>> + Send>>,
}

/// What the loop owns.
pub(super) struct Pump {
    settings: IngestSettings,
    session: Session,
    events: SessionEvents,
    /// Retained messages that a second session fetches.
    retained: mpsc::Receiver<(Session, Incoming)>,
    retained_tx: mpsc::Sender<(Session, Incoming)>,
    replies: mpsc::Sender<Reply>,
    stats: Arc<Stats>,
    linked: watch::Sender<bool>,
    gatherer: Gatherer<Held>,
    applier: Applier,
    applying: Option<Applying>,
    connected_since: Option<Instant>,
    /// Lines that a device can cause.
    strange: Sparing,
}

impl Pump {
    pub fn new(
        settings: IngestSettings,
        (session, events): (Session, SessionEvents),
        applier: Applier,
        replies: mpsc::Sender<Reply>,
        stats: Arc<Stats>,
        linked: watch::Sender<bool>,
    ) -> Self {
        let (retained_tx, retained) = mpsc::channel(64);
        Self {
            settings,
            session,
            events,
            retained,
            retained_tx,
            replies,
            stats,
            linked,
            gatherer: Gatherer::default(),
            applier,
            applying: None,
            connected_since: None,
            strange: Sparing::default(),
        }
    }

    pub async fn run(mut self) -> Ending {
        let mut silence = tokio::time::interval(SILENCE_EVERY.min(self.settings.silence_grace));
        silence.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = Instant::now();
            if let Some(batch) = self.gatherer.poll_batch(now) {
                let (records, from) = batch.into_iter().map(|held| (held.record, held.from)).unzip();
                self.applying = Some(Applying { from, outcome: Box::pin(self.applier.apply(records)) });
            }
            self.stats.held.store(self.gatherer.held() as u64, Ordering::Relaxed);
            if let Some(count) = self.strange.handle_timeout(now) {
                warn!(count, "more such messages were discarded or given up");
            }
            let wake = self.gatherer.poll_timeout().filter(|_| self.applying.is_none());
            let room = self.gatherer.has_room();
            tokio::select! {
                outcome = finished(&mut self.applying) => {
                    let from = self.applying.take().map(|applying| applying.from).unwrap_or_default();
                    let Some((records, result)) = outcome else { return Ending::StoreFailed };
                    let batch = records.into_iter().zip(from).map(|(record, from)| Held { record, from });
                    self.settle(batch.collect(), result).await;
                }
                event = self.events.recv(), if room => {
                    let Some(event) = event else { return Ending::Closed };
                    self.take_event(event);
                    // Whatever is there already goes into the same batch.
                    while self.gatherer.has_room() {
                        let Ok(event) = self.events.try_recv() else { break };
                        self.take_event(event);
                    }
                }
                Some((session, message)) = self.retained.recv(), if room => self.take_message(&session, message),
                _ = silence.tick() => self.look_for_silence().await,
                () = until(wake) => {}
            }
        }
    }

    fn take_event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Message(message) => {
                let session = self.session.clone();
                self.take_message(&session, message);
            }
            SessionEvent::Connected { session_present, .. } => {
                info!(session_present, "connected to the broker");
                self.connected_since = Some(Instant::now());
                self.linked.send_replace(true);
                // A session that the broker kept has queued what was said meanwhile; any other starts from
                // what is retained, and a shared subscription is not given that.
                if !session_present {
                    let fetch = super::retained::fetch(self.settings.clone(), self.retained_tx.clone());
                    tokio::spawn(fetch);
                }
            }
            SessionEvent::Subscribed { grants } => {
                for grant in grants.into_iter().filter(|grant| grant.granted.is_err()) {
                    warn!(filter = grant.filter, "the broker refuses a subscription of the server");
                }
            }
            SessionEvent::Disconnected { reason, retry_in } => {
                if self.connected_since.take().is_some() {
                    warn!(%reason, ?retry_in, "the broker is gone");
                }
                self.linked.send_replace(false);
            }
            SessionEvent::Discarded { topic, size } => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                if self.strange.admit(Instant::now()) {
                    warn!(topic, size, "a message too large to be read was discarded");
                }
            }
            SessionEvent::PublishAcked { .. } | SessionEvent::PublishFailed { .. } => {}
        }
    }

    fn take_message(&mut self, session: &Session, message: Incoming) {
        self.stats.received.fetch_add(1, Ordering::Relaxed);
        let from = message.ack.map(|token| (session.clone(), token));
        match read(&message, Utc::now()) {
            Ok(Some(taken)) => {
                let urgent = taken.is_urgent();
                match taken {
                    Taken::Record(record) => {
                        self.gatherer.handle_arrived(Instant::now(), Held { record, from }, urgent);
                        return;
                    }
                    Taken::Thumbnail { device, name, jpeg } => {
                        let seq = self.settings.shelf.put(Instant::now(), device.clone(), name.clone(), jpeg);
                        self.emit(FleetEvent::Thumbnail { device, name, seq });
                    }
                }
            }
            Ok(None) => {}
            Err(refusal) => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                debug!(topic = message.topic, %refusal, "a message is refused");
            }
        }
        if let Some((session, token)) = from {
            session.ack(token);
        }
    }

    async fn settle(&mut self, batch: Vec<Held>, result: Result<Applied, StoreError>) {
        let was_failing = self.gatherer.is_failing();
        let (outcome, applied) = match result {
            Ok(applied) => (Outcome::Stored, applied),
            Err(StoreError::Unavailable(reason)) => {
                if !was_failing {
                    warn!(reason, "the store is away, messages stay with the broker");
                }
                (Outcome::Unavailable, Applied::default())
            }
            Err(StoreError::Refused(reason)) => {
                debug!(reason, records = batch.len(), "the store refuses a batch");
                (Outcome::Refused, Applied::default())
            }
        };
        match self.gatherer.handle_outcome(Instant::now(), batch, outcome, rand::random()) {
            Settled::Stored(records) => {
                if was_failing {
                    info!("the store is back");
                }
                self.stats.stored.fetch_add(records.len() as u64, Ordering::Relaxed);
                self.stats.unknown.fetch_add(applied.unknown, Ordering::Relaxed);
                self.answer(records, applied).await;
            }
            Settled::GivenUp(held) => {
                self.stats.given_up.fetch_add(1, Ordering::Relaxed);
                if self.strange.admit(Instant::now()) {
                    warn!(device = %held.record.device, "a message that cannot be stored is given up");
                }
                acknowledge(held.from);
            }
            Settled::Kept => {}
        }
    }

    async fn answer(&mut self, records: Vec<Held>, applied: Applied) {
        let mut syncs: Vec<(DeviceAddress, SyncUp)> = Vec::new();
        for held in records {
            if let Report::Sync(sync) = held.record.report {
                syncs.push((held.record.device, sync));
            }
            acknowledge(held.from);
        }
        for (device, acked) in applied.acked {
            self.reply(Reply::Acked { device, acked });
        }
        for (device, sync) in syncs {
            self.reply(Reply::Sync { device, sync });
        }
        let woken = !applied.commands.is_empty();
        for (device, id) in applied.commands {
            self.emit(FleetEvent::Command { device, id });
        }
        for device in applied.devices {
            self.emit(FleetEvent::Device(device));
        }
        if woken && let Some(desk) = &self.settings.desk {
            // Refused or not: the desk looks by itself every second.
            let _ = desk.try_send(super::desk::LookAtCommands);
        }
    }

    /// Dropped when the replies do not keep up: a device repeats what is not acknowledged.
    fn reply(&self, reply: Reply) {
        if self.replies.try_send(reply).is_err() {
            self.stats.replies_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn emit(&self, event: FleetEvent) {
        // Nobody watching is no error.
        let _ = self.settings.events.send(event);
    }

    /// Only after the broker was there long enough for every device to speak: a server that was away must not
    /// blame the devices.
    async fn look_for_silence(&mut self) {
        let heard_all = self.connected_since.is_some_and(|since| since.elapsed() >= self.settings.silence_grace);
        if !heard_all || self.gatherer.is_failing() {
            return;
        }
        let asked = tokio::time::timeout(APPLY_DEADLINE, self.settings.store.mark_silent(Utc::now())).await;
        match asked {
            Ok(Ok(silent)) => silent.into_iter().for_each(|device| {
                info!(%device, "a device fell silent");
                self.emit(FleetEvent::Device(device));
            }),
            Ok(Err(error)) => debug!(%error, "silence cannot be judged now"),
            Err(_) => debug!("silence cannot be judged now: the store does not answer"),
        }
    }
}

fn acknowledge(from: From) {
    if let Some((session, token)) = from {
        session.ack(token);
    }
}

/// Pending for ever while nothing is being applied.
async fn finished(applying: &mut Option<Applying>) -> Option<applier::Outcome> {
    match applying {
        Some(applying) => (&mut applying.outcome).await,
        None => std::future::pending().await,
    }
}

/// Pending for ever without an instant.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
