//! The embedded broker: rmqtt as a library, for one box or a small fleet without further installation.
//!
//! | room | what lives there |
//! |---|---|
//! | `acl` | who may publish and subscribe where (pure) |
//! | `front` | TLS, and whose certificate was shown |
//! | `hooks` | rmqtt asks, `Authenticate` and `acl` answer |
//! | `store` | sled under the state directory: retained messages, sessions, offline queues |
//! | `retained`, `sessions` | rmqtt's storage seams on that store |
//! | `node` | the server on a runtime of its own |
//!
//! Its threads are its own: a panic or a flood in it cannot stall media or the HTTP face of the process. It opens exactly
//! one port, and with TLS one more on loopback behind it. Several brokers can run, stop and start again in one process.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::MqttError;

mod acl;
mod front;
mod hooks;
mod node;
mod retained;
mod sessions;
mod store;

/// What [`EmbeddedBroker::stop`] waits at most: goodbyes (3 s), sessions (3 s), tasks (2 s), and the flush.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What an authenticated client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A device: writes `r58/1/{org}/{dev}/up/#`, reads `r58/1/{org}/{dev}/down/#` and `r58/1/{org}/_g/+/down/#`.
    Device {
        /// Organization.
        org: String,
        /// Device id; the client id must equal it.
        dev: String,
    },
    /// A person of an organization, such as an MQTT dashboard or an operator's `mosquitto_pub`: reads what its devices say and
    /// what is asked of them (`r58/1/{org}/#`), and with `commands` publishes `r58/1/{org}/{dev}/down/cmd/{id}`.
    Person {
        /// Organization.
        org: String,
        /// Whether commands may be published. They must be signed all the same, or no device takes them.
        commands: bool,
    },
    /// The fleet server: everything under `r58/1/#`, shared subscriptions included.
    Fleet,
}

/// Answer of an [`Authenticate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let in, in this role.
    Allowed(Role),
    /// Refused; the client hears "bad user name or password".
    Denied,
}

/// Decides who may connect. Called on the broker's runtime for each CONNECT; must answer within a few seconds.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// Checks one client's credentials.
    async fn authenticate(&self, username: &str, client_id: &str, password: &[u8]) -> Verdict;

    /// Whether a device that a good certificate names may come in without a password. Nobody may by default.
    async fn vouches(&self, _org: &str, _dev: &str) -> bool {
        false
    }
}

pub use front::{Certificates, Vouched};

/// Bounds on what clients may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Connections at a time. Default 100,000.
    pub max_connections: usize,
    /// Largest packet in bytes. Default 256 KiB (protocol paper).
    pub max_packet: u32,
    /// Messages that wait for one client, online or not; beyond it the oldest go. rmqtt's default of 1,000 would cut a
    /// wildcard subscription of some thousand retained topics. Default 100,000.
    pub max_queue: usize,
    /// Unacknowledged QoS 1 messages for each client. Default 64.
    pub max_inflight: u16,
    /// Retained messages in total, those included that expired in the last five minutes. A message that would be one more
    /// is refused: QoS 1 of MQTT 5 with "quota exceeded", everything else without a word. Default 1,000,000.
    pub max_retained: usize,
    /// Bytes of memory for retained messages: each counts with payload, properties, twice its topic, and some 200 bytes.
    /// One that goes beyond is refused in the same way, unless it replaces one that is as large. The store under it needs
    /// about as much again on disk, and up to 16 MiB of memory. Default 256 MB.
    pub max_retained_bytes: usize,
    /// Longest session expiry granted. Default 7 days.
    pub max_session_expiry: Duration,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            max_connections: 100_000,
            max_packet: 256 * 1024,
            max_queue: 100_000,
            max_inflight: 64,
            max_retained: 1_000_000,
            max_retained_bytes: 256_000_000,
            max_session_expiry: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// How to start an [`EmbeddedBroker`].
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// Address to listen on; port 0 takes a free one. Loopback unless somebody decides otherwise.
    pub listen: SocketAddr,
    /// TLS instead of plain TCP.
    pub tls: Option<Arc<dyn Certificates>>,
    /// Directory of the store; made if missing. One broker at a time.
    pub state_dir: PathBuf,
    /// Bounds.
    pub limits: BrokerLimits,
    /// A change is on disk (in the system's cache: it survives `kill -9`, not a power cut) after this time. Default 50 ms.
    pub flush_interval: Duration,
}

impl BrokerSettings {
    /// Loopback port 1883, no TLS, default limits.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            tls: None,
            state_dir: state_dir.into(),
            limits: BrokerLimits::default(),
            flush_interval: Duration::from_millis(50),
        }
    }
}

/// A running broker. Dropping it stops it too, without waiting for the end.
pub struct EmbeddedBroker {
    addr: SocketAddr,
    inner: SocketAddr,
    scx: rmqtt::context::ServerContext,
    runtime: tokio::runtime::Handle,
    accepting: tokio::task::AbortHandle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Behind a lock only so that a broker can be shared between threads.
    ended: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl EmbeddedBroker {
    /// Binds the port, opens the store and restores the sessions, in this order; returns when clients can connect.
    /// Blocks for as long as that takes (milliseconds, and about ten for each thousand stored sessions).
    ///
    /// # Errors
    /// [`MqttError::Broker`] if the address is taken, [`MqttError::StoreLocked`] if
    /// another broker holds the state directory, [`MqttError::Io`] if it cannot be made. Nothing is left half up.
    pub fn start(settings: BrokerSettings, authenticate: Arc<dyn Authenticate>) -> Result<Self, MqttError> {
        let runtime = node::runtime()?;
        let handle = runtime.handle().clone();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let (running, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("broker-main".into())
            .spawn(move || {
                let _running = running;
                run(runtime, &settings, authenticate, &ready, stopped);
            })
            .map_err(|source| MqttError::Io { what: "start the broker's thread".into(), source })?;
        match started.recv() {
            Ok(Ok(Started { addr, inner, scx, accepting })) => Ok(Self {
                addr,
                inner,
                scx,
                runtime: handle,
                accepting,
                stop: Some(stop),
                thread: Some(thread),
                ended: Mutex::new(ended),
            }),
            Ok(Err(e)) => {
                let _ = thread.join();
                Err(e)
            }
            Err(_) => Err(MqttError::Bug("the broker's thread ended while starting".into())),
        }
    }

    /// The address that it listens on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens without TLS, on loopback: for clients in this process.
    pub fn inner_addr(&self) -> SocketAddr {
        self.inner
    }

    /// Whether it still accepts clients; `false` only after a fault in it.
    pub fn is_running(&self) -> bool {
        !self.accepting.is_finished()
    }

    /// Clients connected now.
    pub fn connections(&self) -> usize {
        usize::try_from(self.scx.connections.count()).unwrap_or(0)
    }

    /// Closes a client's connection at once; its session and queue stay. For a rotated token. (rmqtt 0.24 closes the
    /// socket before it would send the reason, so the client sees a lost connection.)
    /// Returns whether it was connected.
    pub async fn disconnect(&self, client_id: &str) -> bool {
        let (scx, client_id) = (self.scx.clone(), client_id.to_owned());
        self.runtime.spawn(async move { node::disconnect(&scx, &client_id).await }).await.unwrap_or(false)
    }

    /// Stops: no new clients, connections closed with "server shutting down", sessions and queues written, store closed.
    /// Blocks, at most ten seconds. The state directory and the port are free afterwards.
    pub fn stop(mut self) {
        self.ask_to_stop();
        let Some(thread) = self.thread.take() else { return };
        // The thread holds the other end for as long as it runs.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(STOP_LIMIT) {
            Err(RecvTimeoutError::Timeout) => tracing::error!("the broker does not stop; left behind"),
            _ => {
                if thread.join().is_err() {
                    tracing::error!("the broker's thread panicked");
                }
            }
        }
    }

    fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

/// What is known once clients can connect.
struct Started {
    addr: SocketAddr,
    inner: SocketAddr,
    scx: rmqtt::context::ServerContext,
    accepting: tokio::task::AbortHandle,
}

/// The broker's thread: up, wait, down, and the store last.
fn run(
    runtime: tokio::runtime::Runtime,
    settings: &BrokerSettings,
    authenticate: Arc<dyn Authenticate>,
    ready: &std::sync::mpsc::SyncSender<Result<Started, MqttError>>,
    stopped: oneshot::Receiver<()>,
) {
    let node = match runtime.block_on(node::Node::up(settings, authenticate)) {
        Ok(node) => node,
        Err(e) => {
            runtime.shutdown_timeout(Duration::from_secs(1));
            let _ = ready.send(Err(e));
            return;
        }
    };
    let (addr, inner, scx) = (node.addr, node.inner, node.scx.clone());
    let _ = ready.send(Ok(Started { addr, inner, scx, accepting: node.accepting() }));
    let store = runtime.block_on(async {
        // An error means that the handle was dropped, which is a stop too.
        let _ = stopped.await;
        node.down().await
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    store.close();
    tracing::info!("broker down");
}
