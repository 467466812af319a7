//! The server itself: rmqtt with our seams in it, on threads of its own, up in order and down in order.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use rmqtt::codec::v5::{Disconnect as DisconnectPacket, DisconnectReasonCode};
use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::retain::DefaultRetainStorage;
use rmqtt::router::DefaultRouter;
use rmqtt::server::MqttServer;
use rmqtt::session::DefaultSessionManager;
use rmqtt::shared::{DefaultShared, Entry};
use rmqtt::subscribe::SharedSubscription;
use rmqtt::types::{
    ClientId, Disconnect, DisconnectInfo, Id, IsOnline, Message, NodeId, OfflineSession, QoS, Reason, SharedGroup,
    SubscriptionIdentifier, SubscriptionOptions, TopicName,
};
use rmqtt::utils::timestamp_millis;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{error, info, warn};

use super::front::{Front, Known};
use super::hooks::Doorman;
use super::retained::Retained;
use super::sessions::{self, StoredSessions};
use super::store::Store;
use super::{Authenticate, BrokerSettings};
use crate::MqttError;

/// rmqtt names listeners by number; stored sessions refer to theirs, so it must not be the port.
const LISTENER: u16 = 1;
/// Worker threads: enough for some ten thousand messages a second. More than cores, because rmqtt itself holds a shard of its
/// sessions over an await when it looks for a member of a group: the thread that then waits must not be the last one.
const WORKERS: usize = 4;
/// How long clients may take to be told that the broker goes.
const GOODBYE_LIMIT: Duration = Duration::from_secs(3);
/// How often expired retained messages are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Gives each message of a group to its next member that is connected.
#[derive(Default)]
struct InTurn(AtomicUsize);

#[async_trait]
impl SharedSubscription for InTurn {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        scx: &ServerContext,
        _: &SharedGroup,
        _: &Id,
        _: &TopicName,
        members: &[(NodeId, ClientId, SubscriptionOptions, Option<Vec<SubscriptionIdentifier>>, Option<IsOnline>)],
    ) -> Option<(usize, IsOnline)> {
        if members.is_empty() {
            return None;
        }
        let first = self.0.fetch_add(1, Ordering::Relaxed) % members.len();
        for step in 0..members.len() {
            let index = (first + step) % members.len();
            let (_, client, _, _, online) = &members[index];
            let online = match online {
                Some(online) => *online,
                None => is_connected(scx, client).await,
            };
            if online {
                return Some((index, true));
            }
        }
        Some((first, false))
    }
}

/// A server that is up.
pub(super) struct Node {
    pub addr: SocketAddr,
    pub inner: SocketAddr,
    pub scx: ServerContext,
    doorman: Arc<Doorman>,
    store: Arc<Store>,
    accept: JoinHandle<()>,
    front: Option<JoinHandle<()>>,
    sweep: JoinHandle<()>,
}

/// A runtime for one broker.
pub(super) fn runtime() -> Result<Runtime, MqttError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("broker")
        .enable_all()
        .build()
        .map_err(|source| MqttError::Io { what: "start the broker's threads".into(), source })
}

fn listener(settings: &BrokerSettings) -> Result<rmqtt::net::Listener, MqttError> {
    let limits = &settings.limits;
    let inflight = NonZeroU16::new(limits.max_inflight)
        .ok_or_else(|| MqttError::Misconfigured("broker max_inflight must be at least 1".into()))?;
    // With TLS, clients come by way of the front.
    let listen = match settings.tls {
        Some(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        None => settings.listen,
    };
    let builder = Builder::new()
        .name("r58")
        .laddr(listen)
        .reuseaddr(Some(true))
        .nodelay(true)
        .allow_anonymous(false)
        .max_connections(limits.max_connections)
        .max_packet_size(limits.max_packet)
        .max_mqueue_len(limits.max_queue)
        .max_inflight(inflight)
        .max_clientid_len(256)
        .handshake_timeout(Duration::from_secs(10))
        .max_session_expiry_interval(limits.max_session_expiry)
        // Zero: no message expires that did not ask for it, and none is sent twice on one connection (MQTT 5, 4.4).
        .message_expiry_interval(Duration::ZERO)
        .message_retry_interval(Duration::ZERO);
    let taken = |e: rmqtt::Error| match e.downcast_ref::<std::io::Error>() {
        Some(io) if io.kind() == std::io::ErrorKind::AddrInUse => {
            MqttError::Broker(format!("{} is already in use by another program", settings.listen))
        }
        _ => MqttError::Broker(format!("cannot listen on {}: {e}", settings.listen)),
    };
    let listener = builder.bind().map_err(taken)?;
    listener.tcp().map_err(|e| MqttError::Broker(e.to_string()))
}

impl Node {
    /// Binds, opens the store, restores, then lets clients in.
    pub(super) async fn up(settings: &BrokerSettings, authenticate: Arc<dyn Authenticate>) -> Result<Self, MqttError> {
        let begun = Instant::now();
        let listener = listener(settings)?;
        let inner = listener.local_addr().map_err(|e| MqttError::Broker(e.to_string()))?;
        let max = settings.limits.max_connections;
        let front = settings.tls.clone().map(|tls| Front::bind(settings.listen, tls, max)).transpose()?;
        let addr = front.as_ref().map_or(Ok(inner), Front::addr)?;
        let known = Arc::new(Known::default());
        let listen_cfg = listener.cfg.clone();
        let store = Arc::new(Store::open(&settings.state_dir, settings.flush_interval)?);
        // The busy check would refuse clients whenever the box's processor is above 90 %, which a mixer is.
        let scx = ServerContext::new().busy_check_enable(false).build().await;
        let retained = Retained::load(store.clone(), &settings.limits);
        let (kept, kept_bytes) = retained.held();
        *scx.extends.retain_mut().await = Box::new(retained.clone());
        *scx.extends.session_mgr_mut().await = Box::new(StoredSessions(store.clone()));
        *scx.extends.shared_subscription_mut().await = Box::new(InTurn::default());
        let doorman = Doorman::new(authenticate, known.clone(), store.clone(), retained.clone(), scx.clone());
        doorman.register(scx.extends.hook_mgr()).await;
        let server = MqttServer::new(scx.clone()).listener_by_id(listener, LISTENER).build();
        let restored = sessions::restore(&scx, &store, &listen_cfg).await;
        let accept = tokio::spawn(async move {
            if let Err(e) = server.run().await {
                error!(error = %e, "broker stopped accepting");
            }
        });
        let front = front.map(|front| tokio::spawn(front.run(inner, known)));
        let told = doorman.clone();
        let sweep = tokio::spawn(async move {
            let mut interval = tokio::time::interval(SWEEP_INTERVAL);
            interval.tick().await;
            let mut minute = tokio::time::interval(Duration::from_secs(60));
            loop {
                tokio::select! {
                    _ = interval.tick() => retained.sweep().await,
                    _ = minute.tick() => told.tell_held_back(),
                }
            }
        });
        info!(%addr, tls = settings.tls.is_some(), retained = kept, retained_bytes = kept_bytes, sessions = restored, took = ?begun.elapsed(), "broker up");
        Ok(Self { addr, inner, scx, doorman, store, accept, front, sweep })
    }

    /// For asking whether it still accepts.
    pub(super) fn accepting(&self) -> AbortHandle {
        self.accept.abort_handle()
    }

    /// No new clients, goodbye to the present ones, everything that waits written. The store is closed by the caller,
    /// when no task is left that could write.
    pub(super) async fn down(self) -> Arc<Store> {
        self.doorman.close();
        if let Some(front) = &self.front {
            front.abort();
        }
        self.accept.abort();
        self.sweep.abort();
        let entries: Vec<Box<dyn Entry>> = self.scx.extends.shared().await.iter().collect();
        for entry in &entries {
            close(entry.as_ref(), DisconnectReasonCode::ServerShuttingDown);
        }
        let until = tokio::time::Instant::now() + GOODBYE_LIMIT;
        while self.scx.connections.count() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let saved =
            tokio::time::timeout(GOODBYE_LIMIT, join_all(entries.into_iter().map(|e| save(&self.store, e)))).await;
        if saved.is_err() {
            warn!("broker stopped before all sessions were written");
        }
        // These hold the context that holds them: without this, nothing of it would ever be freed.
        *self.scx.extends.shared_mut().await = Box::new(DefaultShared::new(None));
        *self.scx.extends.router_mut().await = Box::new(DefaultRouter::new(None));
        *self.scx.extends.session_mgr_mut().await = Box::new(DefaultSessionManager);
        *self.scx.extends.retain_mut().await = Box::new(DefaultRetainStorage::new());
        self.store
    }
}

/// Tells a connected client why, and closes its connection; the session stays. Whether it was told.
fn close(entry: &dyn Entry, reason_code: DisconnectReasonCode) -> bool {
    let packet = DisconnectPacket { reason_code, ..DisconnectPacket::default() };
    let reason = Reason::ConnectDisconnect(Some(Disconnect::V5(packet)));
    entry.tx().is_some_and(|tx| tx.unbounded_send(Message::Closed(reason)).is_ok())
}

/// Takes a session out of memory as a new connection would, and writes it instead.
async fn save(store: &Store, mut entry: Box<dyn Entry>) {
    let connected = connected(entry.as_ref()).await;
    match entry.kick(false, false, false).await {
        Ok(OfflineSession::Exist(Some(session))) => {
            store.clear_messages(&session.id);
            // Turned round once more, see `subscriptions_drain` in `sessions`.
            let inflight: Vec<_> = session.inflight_messages.into_iter().rev().collect();
            store.put_inflight(&session.id, &inflight);
            for (from, publish) in session.offline_messages.iter().filter(|(_, p)| p.qos != QoS::AtMostOnce) {
                store.push_queue(&session.id, from, publish);
            }
            if connected {
                store.put_gone(&session.id, &DisconnectInfo::new(timestamp_millis()));
            }
        }
        Ok(_) => {}
        Err(e) => warn!(error = %e, "session not written"),
    }
}

/// rmqtt's entry of a client, connected or not.
pub(super) async fn entry(scx: &ServerContext, client_id: &str) -> Box<dyn Entry> {
    let id = Id::new(scx.node.id(), LISTENER, None, None, ClientId::from(client_id), None);
    scx.extends.shared().await.entry(id)
}

/// Whether a client is connected. rmqtt's own question holds a shard of its table of sessions while it waits, and in the
/// queue of handshakes, which is one task, the next handshake then waits for that shard for ever: no client gets in any
/// more (seen with 2,000 boxes that came at once). So the session is taken out first.
async fn connected(entry: &dyn Entry) -> bool {
    match entry.session() {
        Some(session) => session.connected().await.unwrap_or_default(),
        None => false,
    }
}

pub(super) async fn is_connected(scx: &ServerContext, client_id: &str) -> bool {
    connected(entry(scx, client_id).await.as_ref()).await
}

/// Closes one client's connection; its session stays. Whether it was connected.
pub(super) async fn disconnect(scx: &ServerContext, client_id: &str) -> bool {
    let entry = entry(scx, client_id).await;
    connected(entry.as_ref()).await && close(entry.as_ref(), DisconnectReasonCode::SessionTakenOver)
}
