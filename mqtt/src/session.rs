//! One MQTT 5 session of one client: it connects, stays connected, and says plainly what became of each message.
//!
//! A task owns the connection. It takes publishes and acknowledgements from [`Session`] (a cheap handle) and gives
//! [`SessionEvent`]s to whoever holds [`SessionEvents`].
//!
//! What it promises:
//! - A received QoS 1 message is acknowledged only by [`Session::ack`]; unacknowledged ones come again after a reconnect.
//! - A publish ends in exactly one outcome: acknowledged by the broker, or [`NotSent`]. **The session never sends a message
//!   twice by itself**: the outbox (or the caller) owns the retry, so a message may arrive twice but is never forgotten.
//! - Each connection is a new client from scratch (no packet ids, no pending packets carried over), so a collision or a
//!   poison packet cannot outlive its connection. After repeated protocol errors the session first accepts an oversized
//!   message in order to acknowledge and discard it, then starts clean.
//! - A slow reader of events slows down the reading of the network, never the keep-alive; QoS 0 messages beyond four times
//!   the event capacity are dropped and counted, QoS 1 is bounded by Receive Maximum.
//!
//! Failure policy: everything but a wrong setting is retried for ever, with full jitter (`backoff`).

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::MqttError;

mod backoff;
mod cable;
mod driver;
mod wire;

pub use backoff::{Backoff, BackoffSettings, Ending};
pub use cable::{Cable, Hand};

/// Quality of service. QoS 2 is not used: deduplication is end to end, by ids and sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qos {
    /// QoS 0: at most once.
    AtMostOnce,
    /// QoS 1: at least once.
    AtLeastOnce,
}

/// When a subscription is sent the retained messages (MQTT 5, 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// 0: at each subscribe, thus after each reconnect.
    AtSubscribe,
    /// 1: only if the subscription did not exist; no double delivery after a reconnect that finds its session.
    AtNewSubscribe,
    /// 2: never.
    Never,
}

/// One entry of the SUBSCRIBE that follows each connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Topic filter, `$share/{group}/..` included.
    pub filter: String,
    /// Highest quality of service wanted.
    pub qos: Qos,
    /// Whether retained messages come first.
    pub retain_handling: RetainHandling,
}

impl Subscription {
    /// QoS 1 with Retain Handling 1, which is what commands want.
    pub fn new(filter: impl Into<String>) -> Self {
        Self { filter: filter.into(), qos: Qos::AtLeastOnce, retain_handling: RetainHandling::AtNewSubscribe }
    }
}

/// The message that the broker publishes when this client goes without saying goodbye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: Qos,
    /// Whether it is retained.
    pub retain: bool,
    /// How long the broker waits for a reconnect before it publishes (whole seconds).
    pub delay: Duration,
}

/// Makes the will of each connection, because presence carries the connection's number.
#[derive(Clone)]
pub struct WillSource(Arc<dyn Fn(u64) -> Will + Send + Sync>);

impl WillSource {
    /// The same will each time.
    pub fn fixed(will: Will) -> Self {
        Self(Arc::new(move |_| will.clone()))
    }

    /// A will made from the number of the connection: 1 for the first attempt of this session.
    pub fn per_connection(make: impl Fn(u64) -> Will + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(crate) fn make(&self, conn_seq: u64) -> Will {
        (self.0)(conn_seq)
    }
}

impl fmt::Debug for WillSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WillSource")
    }
}

/// What a session needs to know. [`SessionSettings::new`] fills in the protocol's defaults (facts of the protocol paper).
#[derive(Clone)]
pub struct SessionSettings {
    /// `mqtt://host[:1883]` or `mqtts://host[:8883]`; several, the nodes of one cluster, are separated by commas and tried in
    /// random order.
    pub url: String,
    /// PEM certificates, one of which the broker's certificate must chain to, besides the system's roots. Only for `mqtts`.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key in PEM (PKCS #8) that are shown to the broker, read anew for each connection. Only for `mqtts`.
    pub shown: Option<(PathBuf, PathBuf)>,
    /// Client id; for a device its device id.
    pub client_id: String,
    /// User name; for a device its organization.
    pub username: String,
    /// Password; never logged.
    pub password: String,
    /// Will of each connection.
    pub will: Option<WillSource>,
    /// How long the broker keeps subscriptions and queued messages (whole seconds). Default 24 h. Zero starts clean.
    pub session_expiry: Duration,
    /// Receive Maximum: unacknowledged QoS 1 messages that the broker may send. 1 to 65535, default 16.
    pub receive_max: u16,
    /// Unacknowledged QoS 1 messages that this client sends at most. 1 to 1024, default 16; the broker may lower it.
    pub inflight: u16,
    /// Largest packet accepted and sent, in bytes. Default 256 KiB.
    pub max_packet: u32,
    /// Keep alive, at least 5 s. Default 30 s.
    pub keep_alive: Duration,
    /// TCP, TLS and CONNACK together. Default 10 s.
    pub connect_timeout: Duration,
    /// Sent after each connect.
    pub subscriptions: Vec<Subscription>,
    /// Pauses between attempts.
    pub backoff: BackoffSettings,
    /// Events that wait for their reader before the network is read more slowly. Default 256.
    pub event_capacity: usize,
    /// The cable that this session hangs on, for rehearsed outages. None: one that nobody pulls.
    pub cable: Option<Cable>,
}

impl SessionSettings {
    /// Settings with the defaults named at each field.
    pub fn new(
        url: impl Into<String>,
        client_id: impl Into<String>,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        Self {
            url: url.into(),
            ca: None,
            shown: None,
            client_id: client_id.into(),
            username: username.into(),
            password: password.into(),
            will: None,
            session_expiry: Duration::from_secs(24 * 3600),
            receive_max: 16,
            inflight: 16,
            max_packet: 256 * 1024,
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            subscriptions: Vec::new(),
            backoff: BackoffSettings::default(),
            event_capacity: 256,
            cable: None,
        }
    }
}

impl fmt::Debug for SessionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSettings")
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("subscriptions", &self.subscriptions.len())
            .finish_non_exhaustive()
    }
}

/// MQTT 5 properties of a message, as far as this protocol uses them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Content type, `application/json` or `image/jpeg` here.
    pub content_type: Option<String>,
    /// Message expiry (whole seconds; a fraction counts as one).
    pub expiry: Option<Duration>,
    /// User properties, in order: `schema`, `seq`, `traceparent`.
    pub user: Vec<(String, String)>,
    /// Response topic.
    pub response_topic: Option<String>,
    /// Correlation data.
    pub correlation: Option<Bytes>,
}

impl Properties {
    /// JSON content.
    pub fn json() -> Self {
        Self { content_type: Some("application/json".into()), ..Self::default() }
    }
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: Qos,
    /// Whether the broker keeps it; an empty retained payload clears the topic.
    pub retain: bool,
    /// Properties.
    pub properties: Properties,
}

impl Outgoing {
    /// A QoS 1 message of JSON, not retained.
    pub fn json(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: Properties::json(),
        }
    }

    /// The same, retained or not.
    pub fn retained(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// The same with another quality of service.
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }
}

/// A message received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: Qos,
    /// Whether it came out of the broker's retained store.
    pub retain: bool,
    /// Whether the broker says that it may have been sent before. No key for deduplication.
    pub dup: bool,
    /// Properties.
    pub properties: Properties,
    /// Give this to [`Session::ack`] when the message is safe. `None` for QoS 0.
    pub ack: Option<AckToken>,
}

/// The right to acknowledge one message on the connection that it came by; on another connection it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AckToken {
    pub(crate) conn_seq: u64,
    pub(crate) pkid: u16,
}

/// Why a publish was not acknowledged by the broker. The broker may have it nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// There is no connection now.
    #[error("not connected")]
    Offline,
    /// The connection went before the acknowledgement came.
    #[error("connection lost before the acknowledgement")]
    Lost,
    /// The broker refused it (no right to this topic, quota); sending it again will not help.
    #[error("refused by the broker: {0}")]
    Refused(String),
    /// Larger than this client or the broker allows; sending it again will not help.
    #[error("message of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Size of the packet in bytes.
        size: usize,
        /// The lower of both limits.
        limit: usize,
    },
    /// The topic cannot be published to (wildcards, empty, too long).
    #[error("invalid topic")]
    InvalidTopic,
    /// The session was closed.
    #[error("session closed")]
    Closed,
}

impl NotSent {
    /// Whether the same message may get through later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Offline | Self::Lost)
    }
}

/// Why a connection ended or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// Wrong user name, password or client id, or the client is banned. Retried slowly.
    #[error("credentials refused: {0}")]
    Refused(String),
    /// The broker cannot serve now.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
    /// The broker closed the connection with this reason.
    #[error("closed by the broker: {0}")]
    ByBroker(String),
    /// Another connection with this client id took over.
    #[error("another connection uses this client id")]
    TakenOver,
    /// Network or TLS.
    #[error("network: {0}")]
    Network(String),
    /// A packet that is malformed, too large or out of order.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// What one filter of the SUBSCRIBE was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The filter asked for.
    pub filter: String,
    /// Granted quality of service, or the broker's reason.
    pub granted: Result<Qos, String>,
}

/// What happened. In order for each connection: `Connected`, `Subscribed`, messages, `Disconnected`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// CONNACK came.
    Connected {
        /// Number of the connection, as given to the will.
        conn_seq: u64,
        /// Whether the broker still had this client's session.
        session_present: bool,
    },
    /// SUBACK came (at once, with no grants, if there is nothing to subscribe to).
    Subscribed {
        /// One for each subscription of the settings.
        grants: Vec<Grant>,
    },
    /// A message.
    Message(Incoming),
    /// A poison message was acknowledged and thrown away.
    Discarded {
        /// Its topic, as far as it is text.
        topic: String,
        /// Size of its payload in bytes.
        size: usize,
    },
    /// A message given to [`Session::publish_tracked`] was acknowledged (QoS 0: written).
    PublishAcked {
        /// The caller's token.
        token: u64,
    },
    /// A message given to [`Session::publish_tracked`] was not acknowledged.
    PublishFailed {
        /// The caller's token.
        token: u64,
        /// Why.
        reason: NotSent,
    },
    /// The connection ended or could not be made.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
        /// Pause before the next attempt.
        retry_in: Duration,
    },
}

/// The reader's end. `recv()` gives `None` after [`Session::close`] or when all handles are gone.
pub type SessionEvents = mpsc::Receiver<SessionEvent>;

/// Resolves when the broker has acknowledged the message (QoS 0: when it was written), or with why it has not.
#[derive(Debug)]
pub struct PublishReceipt(oneshot::Receiver<Result<(), NotSent>>);

impl Future for PublishReceipt {
    type Output = Result<(), NotSent>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| outcome.unwrap_or(Err(NotSent::Closed)))
    }
}

/// Handle of a session; clones share it. The session ends when the last handle is dropped (without DISCONNECT, so that
/// the will is published) or by [`Session::close`].
#[derive(Debug, Clone)]
pub struct Session {
    publishes: mpsc::Sender<Box<driver::Publish>>,
    control: mpsc::UnboundedSender<driver::Control>,
    dropped: Arc<AtomicU64>,
}

impl Session {
    /// Starts the session on the current tokio runtime. It connects in the background.
    ///
    /// # Errors
    /// [`MqttError::Misconfigured`] for a URL, certificate or limit that cannot work.
    pub fn start(settings: SessionSettings) -> Result<(Self, SessionEvents), MqttError> {
        wire::check(&settings)?;
        let (publishes, publish_rx) = mpsc::channel(64);
        let (control, control_rx) = mpsc::unbounded_channel();
        let (event_tx, events) = mpsc::channel(16);
        let dropped = Arc::new(AtomicU64::new(0));
        let driver = driver::Driver::new(settings, publish_rx, control_rx, event_tx, dropped.clone());
        tokio::spawn(driver.run());
        Ok((Self { publishes, control, dropped }, events))
    }

    /// Hands over a message; waits only while the send queue (64 messages) is full. The receipt tells the outcome.
    ///
    /// # Errors
    /// [`NotSent::Closed`] when the session has ended.
    pub async fn publish(&self, message: Outgoing) -> Result<PublishReceipt, NotSent> {
        let (done, receipt) = oneshot::channel();
        let publish = Box::new(driver::Publish { message, done: driver::Done::Receipt(done) });
        self.publishes.send(publish).await.map_err(|_| NotSent::Closed)?;
        Ok(PublishReceipt(receipt))
    }

    /// As [`Self::publish`], but the outcome comes as [`SessionEvent::PublishAcked`] or [`SessionEvent::PublishFailed`]
    /// with the caller's token.
    ///
    /// # Errors
    /// [`NotSent::Closed`] when the session has ended.
    pub async fn publish_tracked(&self, token: u64, message: Outgoing) -> Result<(), NotSent> {
        let publish = Box::new(driver::Publish { message, done: driver::Done::Event(token) });
        self.publishes.send(publish).await.map_err(|_| NotSent::Closed)
    }

    /// Publishes if there is room right now, without an outcome: for QoS 0 things that are worthless tomorrow.
    /// Returns whether it was taken.
    pub fn try_publish(&self, message: Outgoing) -> bool {
        self.publishes.try_send(Box::new(driver::Publish { message, done: driver::Done::Nobody })).is_ok()
    }

    /// Acknowledges a message. Does nothing if its connection is gone: the broker sends the message again.
    pub fn ack(&self, token: AckToken) {
        let _ = self.control.send(driver::Control::Ack(token));
    }

    /// Publishes a last message, waits for its acknowledgement, sends DISCONNECT (so the will is not published) and ends
    /// the session. Takes at most `deadline`. Returns whether the last message was acknowledged (`true` if there was none
    /// and DISCONNECT was written).
    pub async fn close(&self, last: Option<Outgoing>, deadline: Duration) -> bool {
        let (done, closed) = oneshot::channel();
        if self.control.send(driver::Control::Close { last, deadline, done }).is_err() {
            return false;
        }
        // The driver keeps the deadline; this is the belt to its braces.
        tokio::time::timeout(deadline + Duration::from_secs(1), closed).await.is_ok_and(|said| said.unwrap_or(false))
    }

    /// QoS 0 messages dropped because the reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
