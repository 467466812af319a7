//! The task that owns the connection: one client from scratch for each, one loop that never waits for a reader.
//!
//! rumqttc's `poll` may be dropped at any await without loss: what it took it has put into its own state first, bytes
//! stay in its frame buffer, events in its queue. Requests go through its channel and not through `pending`, whose
//! throttle sleeps a millisecond for each packet even when it is set to zero.

mod live;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::FutureExt as _;
use rand::seq::SliceRandom as _;
use rumqttc::v5::mqttbytes::v5 as mqtt;
use rumqttc::v5::{Event, EventLoop, Incoming as Packet};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use self::live::{Closing, Live};
use super::{AckToken, Backoff, DisconnectReason, Ending, NotSent, Outgoing, SessionEvent, SessionSettings, wire};
use crate::sparing::Sparing;

/// Protocol errors in a row after which the session is started clean, because something in it cannot be read.
const POISON_CLEAN: u32 = 3;

/// A message and who wants to know.
#[derive(Debug)]
pub(super) struct Publish {
    pub message: Outgoing,
    pub done: Done,
}

/// Who wants to know the outcome.
#[derive(Debug)]
pub(super) enum Done {
    Receipt(oneshot::Sender<Result<(), NotSent>>),
    Event(u64),
    Nobody,
}

/// What does not wait behind publishes.
#[derive(Debug)]
pub(super) enum Control {
    Ack(AckToken),
    Close { last: Option<Outgoing>, deadline: Duration, done: oneshot::Sender<bool> },
}

/// How a connection ended.
enum End {
    Lost { reason: DisconnectReason, held: Option<Duration> },
    Closed,
}

pub(super) struct Driver {
    settings: SessionSettings,
    publishes: mpsc::Receiver<Box<Publish>>,
    control: mpsc::UnboundedReceiver<Control>,
    events: mpsc::Sender<SessionEvent>,
    buffer: VecDeque<SessionEvent>,
    dropped: Arc<AtomicU64>,
    backoff: Backoff,
    conn_seq: u64,
    poison: u32,
    /// Lines on messages that were discarded.
    poisoned: Sparing,
    /// Brokers that were not tried yet in this round, the next one last.
    round: Vec<String>,
}

impl Driver {
    pub(super) fn new(
        settings: SessionSettings,
        publishes: mpsc::Receiver<Box<Publish>>,
        control: mpsc::UnboundedReceiver<Control>,
        events: mpsc::Sender<SessionEvent>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let backoff = Backoff::new(settings.backoff);
        Self {
            settings,
            publishes,
            control,
            events,
            buffer: VecDeque::new(),
            dropped,
            backoff,
            conn_seq: 0,
            poison: 0,
            poisoned: Sparing::default(),
            round: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let end = match AssertUnwindSafe(self.connection()).catch_unwind().await {
                Ok(end) => end,
                // A packet that makes the parser panic is poison like any other.
                Err(_) => End::Lost { reason: DisconnectReason::Protocol("packet parser panicked".into()), held: None },
            };
            let (reason, held) = match end {
                End::Closed => break,
                End::Lost { reason, held } => (reason, held),
            };
            self.forget_redeliverable();
            match &reason {
                DisconnectReason::Protocol(_) => self.poison += 1,
                _ if held.is_some_and(|h| h >= self.settings.backoff.stable) => self.poison = 0,
                _ => {}
            }
            let ending =
                if matches!(reason, DisconnectReason::Refused(_)) { Ending::Refused } else { Ending::Lost { held } };
            let retry_in = self.backoff.pause_after(ending, rand::random::<f64>());
            match held {
                Some(_) => info!(client = %self.settings.client_id, %reason, ?retry_in, "broker link down"),
                None => debug!(client = %self.settings.client_id, %reason, ?retry_in, "broker not reached"),
            }
            self.buffer.push_back(SessionEvent::Disconnected { reason, retry_in });
            if !self.pause(retry_in).await {
                break;
            }
        }
    }

    /// Messages of a dead connection that nobody has read will be sent again, and their tokens are void.
    fn forget_redeliverable(&mut self) {
        self.buffer.retain(|event| !matches!(event, SessionEvent::Message(m) if m.ack.is_some()));
    }

    /// Waits, answers everything with "offline", and lets the reader catch up. `false` when it is time to end.
    async fn pause(&mut self, pause: Duration) -> bool {
        let events = self.events.clone();
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                _ = sleep_until(until), if Instant::now() < until || self.buffer.is_empty() => {
                    if self.buffer.is_empty() {
                        return true;
                    }
                }
                permit = events.reserve(), if !self.buffer.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.buffer.pop_front() { permit.send(event) },
                    // Nobody reads events any more: from now on they are thrown away.
                    Err(_) => self.buffer.clear(),
                },
                publish = self.publishes.recv() => match publish {
                    Some(publish) => self.settle(publish.done, Err(NotSent::Offline)),
                    None => return false,
                },
                control = self.control.recv() => match control {
                    Some(Control::Ack(_)) => {}
                    Some(Control::Close { done, .. }) => {
                        let _ = done.send(false);
                        return false;
                    }
                    None => return false,
                },
            }
        }
    }

    fn settle(&mut self, done: Done, outcome: Result<(), NotSent>) {
        match (done, outcome) {
            (Done::Receipt(tx), outcome) => {
                let _ = tx.send(outcome);
            }
            (Done::Event(token), Ok(())) => self.buffer.push_back(SessionEvent::PublishAcked { token }),
            (Done::Event(token), Err(reason)) => self.buffer.push_back(SessionEvent::PublishFailed { token, reason }),
            (Done::Nobody, _) => {}
        }
    }

    /// The broker for the next attempt: each once a round, in an order thrown anew, so that those who lose one node spread
    /// over the others.
    fn next_broker(&mut self) -> String {
        if self.round.is_empty() {
            self.round = wire::brokers(&self.settings.url).map(str::to_owned).collect();
            self.round.shuffle(&mut rand::thread_rng());
        }
        self.round.pop().unwrap_or_default()
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self) -> End {
        if self.settings.cable.as_ref().is_some_and(|cable| !cable.is_plugged()) {
            return End::Lost { reason: DisconnectReason::Network("the cable is pulled".into()), held: None };
        }
        self.conn_seq += 1;
        let broker = self.next_broker();
        let attempt =
            wire::Attempt { conn_seq: self.conn_seq, tolerant: self.poison > 0, clean: self.poison >= POISON_CLEAN };
        if attempt.clean {
            warn!(client = %self.settings.client_id, "broker session starts clean after repeated protocol errors");
        }
        let (client, mut eventloop) = match wire::client(&self.settings, &broker, &attempt) {
            Ok(made) => made,
            Err(e) => return End::Lost { reason: DisconnectReason::Network(e.to_string()), held: None },
        };
        let connack = match self.connect(&mut eventloop).await {
            Ok(connack) => connack,
            Err(end) => return end,
        };
        let properties = connack.properties.as_ref();
        let broker_window = properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX).saturating_sub(1).max(1);
        let broker_limit = properties.and_then(|p| p.max_packet_size).unwrap_or(u32::MAX);
        let window = usize::from(self.settings.inflight.min(broker_window));
        let limit = self.settings.max_packet.min(broker_limit) as usize;
        let mut live = Live::new(client, self.conn_seq, window, limit);
        info!(client = %self.settings.client_id, broker, session_present = connack.session_present, "broker link up");
        self.buffer
            .push_back(SessionEvent::Connected { conn_seq: self.conn_seq, session_present: connack.session_present });
        if self.settings.subscriptions.is_empty() {
            self.buffer.push_back(SessionEvent::Subscribed { grants: Vec::new() });
        } else if live.client.try_subscribe_many(self.settings.subscriptions.iter().map(wire::filter)).is_err() {
            return End::Lost { reason: DisconnectReason::Protocol("subscribe not taken".into()), held: None };
        }
        let ended = self.live(&mut live, &mut eventloop).await;
        drop(eventloop);
        let verdict = if matches!(ended, Ok(())) { NotSent::Closed } else { NotSent::Lost };
        let open: Vec<Done> =
            live.unnumbered.drain(..).map(|(_, d)| d).chain(live.inflight.drain().map(|(_, d)| d)).collect();
        for done in open {
            self.settle(done, Err(verdict.clone()));
        }
        match ended {
            Err(reason) if live.closing.is_none() => End::Lost { reason, held: Some(live.since.elapsed()) },
            _ => {
                self.finish(live.closing);
                End::Closed
            }
        }
    }

    /// Hands out what the reader has not seen yet, then answers whoever asked for the end.
    fn finish(&mut self, closing: Option<Closing>) {
        let Some(mut closing) = closing else { return };
        self.publishes.close();
        while let Ok(publish) = self.publishes.try_recv() {
            self.settle(publish.done, Err(NotSent::Closed));
        }
        while let Some(event) = self.buffer.pop_front() {
            if self.events.try_send(event).is_err() {
                break;
            }
        }
        if let Some(done) = closing.done.take() {
            let _ = done.send(closing.acked && closing.written);
        }
    }

    /// Polls until CONNACK; everything else is answered as in [`Self::pause`].
    async fn connect(&mut self, eventloop: &mut EventLoop) -> Result<mqtt::ConnAck, End> {
        let events = self.events.clone();
        // rumqttc bounds TCP and CONNACK by its own timeouts, but not name resolution before them.
        let limit = self.settings.connect_timeout * 2;
        let mut poll = pin!(timeout(limit, eventloop.poll()));
        let lost = |reason| End::Lost { reason, held: None };
        loop {
            tokio::select! {
                polled = &mut poll => {
                    return match polled {
                        Ok(Ok(Event::Incoming(Packet::ConnAck(connack)))) => Ok(connack),
                        Ok(Ok(_)) => Err(lost(DisconnectReason::Protocol("no CONNACK after CONNECT".into()))),
                        Ok(Err(e)) => Err(lost(wire::reason(e))),
                        Err(_) => Err(lost(DisconnectReason::Network("connect timed out".into()))),
                    };
                }
                permit = events.reserve(), if !self.buffer.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.buffer.pop_front() { permit.send(event) },
                    // Nobody reads events any more: from now on they are thrown away.
                    Err(_) => self.buffer.clear(),
                },
                publish = self.publishes.recv() => match publish {
                    Some(publish) => self.settle(publish.done, Err(NotSent::Offline)),
                    None => return Err(End::Closed),
                },
                control = self.control.recv() => match control {
                    Some(Control::Ack(_)) => {}
                    Some(Control::Close { done, .. }) => {
                        let _ = done.send(false);
                        return Err(End::Closed);
                    }
                    None => return Err(End::Closed),
                },
            }
        }
    }
}
