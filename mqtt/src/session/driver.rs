//! The task that owns the connection: one client from scratch for each, one loop that never waits for a reader.
//!
//! rumqttc's `poll` may be dropped at any await without loss: what it took it has put into its own state first, bytes
//! stay in its frame buffer, events in its queue. Requests go through its channel and not through `pending`, whose
//! throttle sleeps a millisecond for each packet even when it is set to zero.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use rumqttc::Outgoing as Written;
use rumqttc::v5::mqttbytes::v5 as mqtt;
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming as Packet};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::{
    AckToken, Backoff, DisconnectReason, Ending, Grant, Incoming, NotSent, Outgoing, Qos, SessionEvent,
    SessionSettings, wire,
};

/// Protocol errors in a row after which the session is started clean, because something in it cannot be read.
const POISON_CLEAN: u32 = 3;

/// Packets read at a glance while the reader of events is stuck. Twice what a broker may send in the window of QoS 1 that
/// the settings allow would do; a flood of QoS 0 needs more.
const GLANCE_PACKETS: usize = 1024;

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

/// A goodbye in progress.
struct Closing {
    at: Instant,
    done: Option<oneshot::Sender<bool>>,
    last: Option<oneshot::Receiver<Result<(), NotSent>>>,
    acked: bool,
    written: bool,
}

/// State of one connection.
struct Live {
    client: AsyncClient,
    conn_seq: u64,
    window: usize,
    limit: usize,
    /// Handed to rumqttc, no packet id yet; in the order of its channel.
    unnumbered: VecDeque<(Qos, Done)>,
    inflight: HashMap<u16, Done>,
    /// To be acknowledged; rumqttc takes one for each ten packets that it reads, so they can pile up.
    acks: VecDeque<u16>,
    /// Acknowledgements in rumqttc's channel.
    acks_handed: usize,
    closing: Option<Closing>,
    since: Instant,
}

pub(super) struct Driver {
    settings: SessionSettings,
    publishes: mpsc::Receiver<Publish>,
    control: mpsc::UnboundedReceiver<Control>,
    events: mpsc::Sender<SessionEvent>,
    buffer: VecDeque<SessionEvent>,
    dropped: Arc<AtomicU64>,
    backoff: Backoff,
    conn_seq: u64,
    poison: u32,
}

impl Driver {
    pub(super) fn new(
        settings: SessionSettings,
        publishes: mpsc::Receiver<Publish>,
        control: mpsc::UnboundedReceiver<Control>,
        events: mpsc::Sender<SessionEvent>,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let backoff = Backoff::new(settings.backoff);
        Self { settings, publishes, control, events, buffer: VecDeque::new(), dropped, backoff, conn_seq: 0, poison: 0 }
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

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self) -> End {
        self.conn_seq += 1;
        let attempt =
            wire::Attempt { conn_seq: self.conn_seq, tolerant: self.poison > 0, clean: self.poison >= POISON_CLEAN };
        if attempt.clean {
            warn!(client = %self.settings.client_id, "broker session starts clean after repeated protocol errors");
        }
        let (client, mut eventloop) = match wire::client(&self.settings, &attempt) {
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
        let mut live = Live {
            client,
            conn_seq: self.conn_seq,
            window: usize::from(self.settings.inflight.min(broker_window)),
            limit: self.settings.max_packet.min(broker_limit) as usize,
            unnumbered: VecDeque::new(),
            inflight: HashMap::new(),
            acks: VecDeque::new(),
            acks_handed: 0,
            closing: None,
            since: Instant::now(),
        };
        info!(client = %self.settings.client_id, session_present = connack.session_present, "broker link up");
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

    /// The life of a connection. `Ok` after a goodbye or when all handles are gone.
    async fn live(&mut self, live: &mut Live, eventloop: &mut EventLoop) -> Result<(), DisconnectReason> {
        let events = self.events.clone();
        let high = self.settings.event_capacity.max(1);
        // A reader that is stuck must not cost the connection: look at the network at least this often.
        let glance = self.settings.keep_alive / 4;
        let mut next_glance = Instant::now() + glance;
        loop {
            if let Some(closing) = &mut live.closing
                && Self::goodbye(&live.client, closing)
            {
                return Ok(());
            }
            while live.acks_handed < usize::from(self.settings.receive_max)
                && let Some(pkid) = live.acks.pop_front()
            {
                let taken = live.client.try_ack(&wire::acknowledged(pkid));
                taken.map_err(|_| DisconnectReason::Protocol("acknowledgement not taken".into()))?;
                live.acks_handed += 1;
            }
            let outstanding = live.unnumbered.len() + live.inflight.len();
            // An outstanding acknowledgement must be read even if the reader of events is the one who waits for it.
            let reading = self.buffer.len() < high || outstanding > 0 || live.closing.is_some();
            let deadline = live.closing.as_ref().map_or(next_glance, |c| c.at.min(next_glance));
            let mut polled = None;
            let mut glanced = false;
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    Some(Control::Ack(token)) => {
                        if token.conn_seq == live.conn_seq {
                            live.acks.push_back(token.pkid);
                        }
                    }
                    Some(Control::Close { last, deadline, done }) => self.begin_close(live, last, deadline, done),
                    None => return Ok(()),
                },
                permit = events.reserve(), if !self.buffer.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.buffer.pop_front() { permit.send(event) },
                    // Nobody reads events any more: from now on they are thrown away.
                    Err(_) => self.buffer.clear(),
                },
                publish = self.publishes.recv(), if outstanding < live.window && live.closing.is_none() => match publish {
                    Some(publish) => self.send(live, publish),
                    None => return Ok(()),
                },
                event = eventloop.poll(), if reading => polled = Some(event),
                () = sleep_until(deadline) => {
                    next_glance = Instant::now() + glance;
                    glanced = !reading;
                }
            }
            // A glance reads what has come meanwhile, so that the answer to a ping is not behind a flood for ever.
            for _ in 0..if glanced { GLANCE_PACKETS } else { 0 } {
                match eventloop.poll().now_or_never() {
                    Some(Ok(event)) => self.handle(live, event)?,
                    Some(Err(e)) => return Err(wire::reason(e)),
                    None => break,
                }
            }
            match polled {
                Some(Ok(event)) => self.handle(live, event)?,
                Some(Err(e)) => return Err(wire::reason(e)),
                None => {}
            }
        }
    }

    /// Moves the goodbye on; `true` when it is over.
    fn goodbye(client: &AsyncClient, closing: &mut Closing) -> bool {
        if let Some(last) = &mut closing.last {
            match last.try_recv() {
                Ok(outcome) => closing.acked = outcome.is_ok(),
                Err(oneshot::error::TryRecvError::Closed) => closing.acked = false,
                Err(oneshot::error::TryRecvError::Empty) if Instant::now() >= closing.at => closing.acked = false,
                Err(oneshot::error::TryRecvError::Empty) => return false,
            }
            closing.last = None;
            let _ = client.try_disconnect();
        }
        closing.written || Instant::now() >= closing.at
    }

    fn begin_close(
        &mut self,
        live: &mut Live,
        last: Option<Outgoing>,
        deadline: Duration,
        done: oneshot::Sender<bool>,
    ) {
        if live.closing.is_some() {
            let _ = done.send(false);
            return;
        }
        let (tx, rx) = oneshot::channel();
        match last {
            Some(message) => self.send(live, Publish { message, done: Done::Receipt(tx) }),
            None => {
                let _ = tx.send(Ok(()));
            }
        }
        let at = Instant::now() + deadline;
        live.closing = Some(Closing { at, done: Some(done), last: Some(rx), acked: false, written: false });
    }

    fn send(&mut self, live: &mut Live, publish: Publish) {
        let Publish { message, done } = publish;
        let packet = match wire::publish(&message) {
            Ok(packet) => packet,
            Err(reason) => return self.settle(done, Err(reason)),
        };
        // Two bytes more for the packet id that is not there yet.
        let size = packet.size() + 2;
        if size > live.limit {
            return self.settle(done, Err(NotSent::TooLarge { size, limit: live.limit }));
        }
        let properties = packet.properties.clone().unwrap_or_default();
        let taken = live.client.try_publish_with_properties(
            message.topic,
            packet.qos,
            packet.retain,
            packet.payload,
            properties,
        );
        match taken {
            Ok(()) => live.unnumbered.push_back((message.qos, done)),
            Err(_) => self.settle(done, Err(NotSent::Lost)),
        }
    }

    fn handle(&mut self, live: &mut Live, event: Event) -> Result<(), DisconnectReason> {
        match event {
            Event::Outgoing(Written::Publish(pkid)) => match live.unnumbered.pop_front() {
                Some((Qos::AtMostOnce, done)) => self.settle(done, Ok(())),
                Some((Qos::AtLeastOnce, done)) => {
                    live.inflight.insert(pkid, done);
                }
                None => return Err(DisconnectReason::Protocol("packet id without a message".into())),
            },
            Event::Outgoing(Written::Disconnect) => {
                if let Some(closing) = &mut live.closing {
                    closing.written = true;
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(done) = live.inflight.remove(&ack.pkid) {
                    let outcome = match ack.reason {
                        mqtt::PubAckReason::Success | mqtt::PubAckReason::NoMatchingSubscribers => Ok(()),
                        reason => Err(NotSent::Refused(format!("{reason:?}"))),
                    };
                    self.settle(done, outcome);
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let grants = self
                    .settings
                    .subscriptions
                    .iter()
                    .zip(ack.return_codes)
                    .map(|(s, code)| Grant {
                        filter: s.filter.clone(),
                        granted: match code {
                            mqtt::SubscribeReasonCode::Success(qos) => Ok(wire::qos_in(qos)),
                            refused => Err(format!("{refused:?}")),
                        },
                    })
                    .collect();
                self.buffer.push_back(SessionEvent::Subscribed { grants });
            }
            Event::Outgoing(Written::PubAck(_)) => live.acks_handed = live.acks_handed.saturating_sub(1),
            Event::Incoming(Packet::Publish(publish)) => self.receive(live, publish),
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, live: &mut Live, publish: mqtt::Publish) {
        let qos = wire::qos_in(publish.qos);
        let size = publish.payload.len();
        let topic = wire::text(&publish.topic);
        let poison = publish.size() > self.settings.max_packet as usize || topic.is_err();
        if poison {
            let topic = topic.unwrap_or_else(|lossy| lossy);
            warn!(client = %self.settings.client_id, topic, size, "poison message acknowledged and discarded");
            if qos == Qos::AtLeastOnce {
                live.acks.push_back(publish.pkid);
            }
            self.buffer.push_back(SessionEvent::Discarded { topic, size });
            return;
        }
        if qos == Qos::AtMostOnce && self.buffer.len() >= self.settings.event_capacity.saturating_mul(4) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let ack = (qos == Qos::AtLeastOnce).then_some(AckToken { conn_seq: live.conn_seq, pkid: publish.pkid });
        self.buffer.push_back(SessionEvent::Message(Incoming {
            topic: topic.unwrap_or_default(),
            payload: publish.payload,
            qos,
            retain: publish.retain,
            dup: publish.dup,
            properties: wire::properties(publish.properties),
            ack,
        }));
    }
}
