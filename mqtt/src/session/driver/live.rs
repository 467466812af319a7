//! One connection that is up: the loop that reads, writes and acknowledges, and the goodbye at its end.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use rumqttc::Outgoing as Written;
use rumqttc::v5::mqttbytes::v5 as mqtt;
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming as Packet};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{Control, Done, Driver, Publish};
use crate::session::cable::pulled;
use crate::session::{AckToken, DisconnectReason, Grant, Incoming, NotSent, Outgoing, Qos, SessionEvent, wire};

/// Packets read at a glance while the reader of events is stuck. Twice what a broker may send in the window of QoS 1 that
/// the settings allow would do; a flood of QoS 0 needs more.
const GLANCE_PACKETS: usize = 1024;

/// A goodbye in progress.
pub(super) struct Closing {
    pub(super) at: Instant,
    pub(super) done: Option<oneshot::Sender<bool>>,
    pub(super) last: Option<oneshot::Receiver<Result<(), NotSent>>>,
    pub(super) acked: bool,
    pub(super) written: bool,
}

/// State of one connection.
pub(super) struct Live {
    pub(super) client: AsyncClient,
    pub(super) conn_seq: u64,
    pub(super) window: usize,
    pub(super) limit: usize,
    /// Handed to rumqttc, no packet id yet; in the order of its channel.
    pub(super) unnumbered: VecDeque<(Qos, Done)>,
    pub(super) inflight: HashMap<u16, Done>,
    /// To be acknowledged; rumqttc takes one for each ten packets that it reads, so they can pile up.
    pub(super) acks: VecDeque<u16>,
    /// Acknowledgements in rumqttc's channel.
    pub(super) acks_handed: usize,
    pub(super) closing: Option<Closing>,
    pub(super) since: Instant,
}

impl Live {
    pub(super) fn new(client: AsyncClient, conn_seq: u64, window: usize, limit: usize) -> Self {
        Self {
            client,
            conn_seq,
            window,
            limit,
            unnumbered: VecDeque::new(),
            inflight: HashMap::new(),
            acks: VecDeque::new(),
            acks_handed: 0,
            closing: None,
            since: Instant::now(),
        }
    }
}

impl Driver {
    /// The life of a connection. `Ok` after a goodbye or when all handles are gone.
    pub(super) async fn live(&mut self, live: &mut Live, eventloop: &mut EventLoop) -> Result<(), DisconnectReason> {
        let events = self.events.clone();
        let high = self.settings.event_capacity.max(1);
        // A reader that is stuck must not cost the connection: look at the network at least this often.
        let glance = self.settings.keep_alive / 4;
        let mut next_glance = Instant::now() + glance;
        let mut cable = self.settings.cable.clone();
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
            if let Some(count) = self.poisoned.handle_timeout(std::time::Instant::now()) {
                warn!(client = %self.settings.client_id, count, "more poison messages were discarded");
            }
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
                    Some(publish) => self.send(live, *publish),
                    None => return Ok(()),
                },
                () = pulled(cable.as_mut()) => {
                    return Err(DisconnectReason::Network("the cable was pulled".into()));
                }
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
            if self.poisoned.admit(std::time::Instant::now()) {
                warn!(client = %self.settings.client_id, topic, size, "poison message acknowledged and discarded");
            }
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
