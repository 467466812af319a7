//! A bare MQTT 5 client, and a broker of ours that lets everybody in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use r58_mqtt::broker::{Authenticate, BrokerSettings, EmbeddedBroker, Role, Verdict};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::peers::PATIENCE;

/// User name that sees everything.
pub const FLEET: &str = "fleet";
/// Any password is right, but there must be one.
pub const PASSWORD: &str = "bench";

/// The embedded broker of the fleet server, by itself: the same code and settings.
pub struct Broker {
    broker: Option<EmbeddedBroker>,
    /// Where it listens.
    pub addr: SocketAddr,
    _state: TempDir,
}

struct Everybody;

#[async_trait]
impl Authenticate for Everybody {
    async fn authenticate(&self, username: &str, client_id: &str, _: &[u8]) -> Verdict {
        Verdict::Allowed(match username {
            FLEET => Role::Fleet,
            org => Role::Device { org: org.to_owned(), dev: client_id.to_owned() },
        })
    }
}

impl Broker {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// What it says.
    pub fn start() -> Result<Self> {
        let state = tempfile::tempdir()?;
        let mut settings = BrokerSettings::new(state.path());
        settings.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let broker = EmbeddedBroker::start(settings, Arc::new(Everybody))?;
        Ok(Self { addr: broker.addr(), broker: Some(broker), _state: state })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop();
        }
    }
}

/// User name and password.
pub type Login<'a> = (&'a str, &'a str);

/// At the broker of this program.
const OURS: Login<'static> = (FLEET, PASSWORD);

/// Connects and subscribes; answers when the broker has confirmed it.
async fn open(broker: SocketAddr, id: &str, login: Login<'_>, filters: &[&str]) -> Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
    options.set_credentials(login.0, login.1).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(Some(256 * 1024));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = AsyncClient::new(options, 4096);
    if !filters.is_empty() {
        let filters = filters.iter().map(|filter| Filter::new(*filter, QoS::AtLeastOnce));
        client.subscribe_many(filters).await?;
    }
    let subscribed = async {
        loop {
            match events.poll().await? {
                Event::Incoming(Packet::SubAck(_)) => return anyhow::Ok(()),
                Event::Incoming(Packet::ConnAck(_)) if filters.is_empty() => return anyhow::Ok(()),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, subscribed).await.context("the broker does not answer")??;
    Ok((client, events))
}

/// A client with a queue of what it received.
pub struct Client {
    client: AsyncClient,
    received: mpsc::UnboundedReceiver<(Instant, Publish)>,
    task: JoinHandle<()>,
}

impl Client {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn connect(broker: SocketAddr, id: &str, filters: &[&str]) -> Result<Self> {
        Self::connect_as(broker, id, OURS, filters).await
    }

    /// The same at a broker that asks who it is.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn connect_as(broker: SocketAddr, id: &str, login: Login<'_>, filters: &[&str]) -> Result<Self> {
        let (client, mut events) = open(broker, id, login, filters).await?;
        let (sender, received) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event
                    && sender.send((Instant::now(), publish)).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { client, received, task })
    }

    /// Publishes with QoS 1.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn publish(&self, topic: &str, retain: bool, payload: impl Into<Bytes>) -> Result<()> {
        Ok(self.client.publish(topic, QoS::AtLeastOnce, retain, payload.into()).await?)
    }

    /// The next message that is wanted, and when it came.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn next(&mut self, what: &str, wanted: impl Fn(&str, &[u8]) -> bool) -> Result<Instant> {
        let found = async {
            while let Some((at, publish)) = self.received.recv().await {
                if wanted(&String::from_utf8_lossy(&publish.topic), &publish.payload) {
                    return Some(at);
                }
            }
            None
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(Some(at)) => Ok(at),
            Ok(None) => bail!("the broker closed the connection before {what}"),
            Err(_) => bail!("no {what} within {PATIENCE:?}"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends everything that comes on one topic back on another, until dropped.
pub struct Echo(JoinHandle<()>);

impl Echo {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn start(broker: SocketAddr, from: &str, to: &str) -> Result<Self> {
        let (client, mut events) = open(broker, "bench-echo", OURS, &[from]).await?;
        let to = to.to_owned();
        Ok(Self(tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event
                    && client.publish(&to, QoS::AtLeastOnce, false, publish.payload).await.is_err()
                {
                    return;
                }
            }
        })))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Calls `each` for every message on a topic filter and throws the message away, until dropped.
pub struct Sink(JoinHandle<()>);

impl Sink {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn start(broker: SocketAddr, filter: &str, each: impl Fn() + Send + 'static) -> Result<Self> {
        let (_client, mut events) = open(broker, "bench-sink", OURS, &[filter]).await?;
        Ok(Self(tokio::spawn(async move {
            let _stays = _client;
            while let Ok(event) = events.poll().await {
                if matches!(event, Event::Incoming(Packet::Publish(_))) {
                    each();
                }
            }
        })))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.abort();
    }
}
