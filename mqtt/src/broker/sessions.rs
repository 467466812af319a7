//! Sessions that outlive the broker: rmqtt's session seam, with each change written to the store.
//!
//! A session is stored if its client asked for one that outlives the connection. While a client is connected its
//! messages are in memory only; when it goes, what it had not acknowledged and what waited is written, and from then on
//! each message that comes for it. [`restore`] rebuilds all of it before the first client is let in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::session::{DefaultSession, Session, SessionLike, SessionManager, SessionState};
use rmqtt::types::{
    ConnectInfo, ConnectInfoType, Disconnect, DisconnectInfo, FitterType, Id, IsPing, ListenerConfig, MessageQueueType,
    OutInflightType, Password, QoS, Reason, SessionSubMap, SessionSubs, SubscriptionOptions, Subscriptions,
    TimestampMillis, TopicFilter, UserName,
};
use rmqtt::utils::timestamp_millis;
use tracing::{debug, warn};

use super::store::{Found, SessionRow, Store};

/// Makes rmqtt's sessions, stored ones where asked for.
pub(super) struct StoredSessions(pub Arc<Store>);

/// Whether the client wants its session to outlive the connection.
fn outlives(connect: &ConnectInfo) -> bool {
    match connect {
        ConnectInfo::V3(_, c) => !c.clean_session,
        ConnectInfo::V5(_, c) => c.session_expiry_interval_secs > 0,
    }
}

/// What is written of a CONNECT: everything but its secrets.
fn without_secrets(connect: &ConnectInfo) -> ConnectInfo {
    let mut connect = connect.clone();
    match &mut connect {
        ConnectInfo::V3(_, c) => c.password = None,
        ConnectInfo::V5(_, c) => {
            c.password = None;
            c.auth_data = None;
        }
    }
    connect
}

#[async_trait]
impl SessionManager for StoredSessions {
    fn enable(&self) -> bool {
        true
    }

    async fn create(
        &self,
        id: Id,
        scx: ServerContext,
        listen_cfg: ListenerConfig,
        _fitter: FitterType,
        subscriptions: SessionSubs,
        deliver_queue: MessageQueueType,
        out_inflight: OutInflightType,
        conn_info: ConnectInfoType,
        created_at: TimestampMillis,
        connected_at: TimestampMillis,
        session_present: bool,
        superuser: bool,
        connected: bool,
        disconnect_info: Option<DisconnectInfo>,
        _last_id: Option<Id>,
    ) -> rmqtt::Result<Arc<dyn SessionLike>> {
        let store = self.0.clone();
        store.adopt(&id);
        let stored = outlives(&conn_info);
        if connected {
            if !stored || !session_present {
                store.remove_session(&id);
            }
            if stored {
                store.adopt(&id);
                // Subscriptions stay; waiting messages are in this connection's memory from here on.
                store.clear_messages(&id);
                store.put_session(&SessionRow {
                    id: id.clone(),
                    conn: without_secrets(&conn_info),
                    created_at,
                    connected_at,
                });
            }
        }
        let inner = DefaultSession::new(
            id,
            scx,
            listen_cfg,
            subscriptions,
            deliver_queue,
            out_inflight,
            conn_info,
            created_at,
            connected_at,
            session_present,
            superuser,
            connected,
            disconnect_info,
        );
        if !stored {
            return Ok(Arc::new(inner));
        }
        let inherits = connected && session_present;
        let inherited = Mutex::new(inherits.then(|| store.subscriptions(inner.id()).into_iter().collect()));
        Ok(Arc::new(StoredSession { inner, store, inherited }))
    }
}

/// A session whose changes are written.
struct StoredSession {
    inner: DefaultSession,
    store: Arc<Store>,
    /// What it has subscribed to as its client knows, while rmqtt has not handed it over yet. That is a message in the
    /// session's own queue, and the client's SUBSCRIBE may be read before it: without this it would look like a new
    /// subscription, and all that is retained would be sent once more.
    inherited: Mutex<Option<HashMap<TopicFilter, SubscriptionOptions>>>,
}

impl StoredSession {
    fn inherited(&self) -> MutexGuard<'_, Option<HashMap<TopicFilter, SubscriptionOptions>>> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn save_subscriptions(&self) {
        let mut all = self.inherited().clone().unwrap_or_default();
        all.extend(self.inner.subscriptions.read().await.iter().map(|(f, o)| (f.clone(), o.clone())));
        self.store.put_subscriptions(self.inner.id(), &all.into_iter().collect::<Vec<_>>());
    }
}

#[async_trait]
impl SessionLike for StoredSession {
    fn id(&self) -> &Id {
        self.inner.id()
    }
    fn context(&self) -> &ServerContext {
        self.inner.context()
    }
    fn listen_cfg(&self) -> &ListenerConfig {
        self.inner.listen_cfg()
    }
    fn deliver_queue(&self) -> &MessageQueueType {
        self.inner.deliver_queue()
    }
    fn out_inflight(&self) -> &OutInflightType {
        self.inner.out_inflight()
    }
    async fn subscriptions(&self) -> rmqtt::Result<SessionSubs> {
        self.inner.subscriptions().await
    }
    async fn subscriptions_add(
        &self,
        filter: TopicFilter,
        options: SubscriptionOptions,
    ) -> rmqtt::Result<Option<SubscriptionOptions>> {
        let inherited = self.inherited().as_mut().and_then(|inherited| inherited.remove(&filter));
        let before = self.inner.subscriptions_add(filter, options).await?;
        self.save_subscriptions().await;
        Ok(before.or(inherited))
    }
    async fn subscriptions_remove(&self, filter: &str) -> rmqtt::Result<Option<(TopicFilter, SubscriptionOptions)>> {
        let before = self.inner.subscriptions_remove(filter).await?;
        self.save_subscriptions().await;
        Ok(before)
    }
    /// Called when another connection takes over: the rows are its from now on, and stay as they are. What it has not
    /// acknowledged is turned round, because rmqtt 0.24 is about to hand it to the new connection from the last to the
    /// first (`transfer_session_state` pops a vector).
    async fn subscriptions_drain(&self) -> rmqtt::Result<Subscriptions> {
        let mut window = self.inner.out_inflight().write().await;
        for message in window.to_inflight_messages().into_iter().rev() {
            window.push_back(message);
        }
        drop(window);
        self.inner.subscriptions_drain().await
    }
    /// The subscriptions of the connection before, handed over. What the client has subscribed to meanwhile is newer.
    async fn subscriptions_extend(&self, mut other: Subscriptions) -> rmqtt::Result<()> {
        {
            let newer = self.inner.subscriptions.read().await;
            other.retain(|(filter, _)| !newer.contains_key(filter));
        }
        self.inner.subscriptions_extend(other).await?;
        self.inherited().take();
        self.save_subscriptions().await;
        Ok(())
    }
    async fn created_at(&self) -> rmqtt::Result<TimestampMillis> {
        self.inner.created_at().await
    }
    async fn session_present(&self) -> rmqtt::Result<bool> {
        self.inner.session_present().await
    }
    async fn connect_info(&self) -> rmqtt::Result<Arc<ConnectInfo>> {
        self.inner.connect_info().await
    }
    fn username(&self) -> Option<&UserName> {
        self.inner.username()
    }
    fn password(&self) -> Option<&Password> {
        self.inner.password()
    }
    async fn protocol(&self) -> rmqtt::Result<u8> {
        self.inner.protocol().await
    }
    async fn superuser(&self) -> rmqtt::Result<bool> {
        self.inner.superuser().await
    }
    async fn connected(&self) -> rmqtt::Result<bool> {
        self.inner.connected().await
    }
    async fn connected_at(&self) -> rmqtt::Result<TimestampMillis> {
        self.inner.connected_at().await
    }
    async fn disconnected_at(&self) -> rmqtt::Result<TimestampMillis> {
        self.inner.disconnected_at().await
    }
    async fn disconnected_reasons(&self) -> rmqtt::Result<Vec<Reason>> {
        self.inner.disconnected_reasons().await
    }
    async fn disconnected_reason(&self) -> rmqtt::Result<Reason> {
        self.inner.disconnected_reason().await
    }
    async fn disconnected_reason_has(&self) -> bool {
        self.inner.disconnected_reason_has().await
    }
    async fn disconnected_reason_add(&self, reason: Reason) -> rmqtt::Result<()> {
        self.inner.disconnected_reason_add(reason).await
    }
    async fn disconnected_reason_take(&self) -> rmqtt::Result<Reason> {
        self.inner.disconnected_reason_take().await
    }
    async fn disconnect(&self) -> rmqtt::Result<Option<Disconnect>> {
        self.inner.disconnect().await
    }
    async fn disconnected_set(&self, packet: Option<Disconnect>, reason: Option<Reason>) -> rmqtt::Result<()> {
        self.inner.disconnected_set(packet, reason).await?;
        let gone = self.inner.disconnect_info.read().await.clone();
        self.store.put_gone(self.inner.id(), &gone);
        Ok(())
    }
    async fn on_drop(&self) -> rmqtt::Result<()> {
        self.inner.on_drop().await
    }
    async fn keepalive(&self, ping: IsPing) {
        self.inner.keepalive(ping).await;
    }
}

/// Writes what waits for a client that has just gone: called by its own task, which alone uses the queue then.
pub(super) fn save_waiting(store: &Store, session: &Session, inflight: &[rmqtt::inflight::OutInflightMessage]) {
    store.put_inflight(&session.id, inflight);
    let queue = session.deliver_queue();
    for _ in 0..queue.len() {
        let Some((from, publish)) = queue.pop() else { break };
        if publish.qos != QoS::AtMostOnce {
            store.push_queue(&session.id, &from, &publish);
        }
        if queue.push((from, publish)).is_err() {
            break;
        }
    }
}

/// Time that the session still has; `None` when it has expired.
fn time_left(fitter: &FitterType, gone: &DisconnectInfo, now: TimestampMillis) -> Option<Duration> {
    let granted = fitter.session_expiry_interval(gone.mqtt_disconnect.as_ref());
    let away = u64::try_from(now.saturating_sub(gone.disconnected_at)).unwrap_or(0);
    granted.checked_sub(Duration::from_millis(away)).filter(|left| !left.is_zero())
}

/// rmqtt publishes the will of every session that it restarts. One that said goodbye has none any more, and one that has
/// been away for longer than its delay has had it published.
fn drop_spent_will(connect: &mut ConnectInfo, gone: &DisconnectInfo, now: TimestampMillis) {
    let away = now.saturating_sub(gone.disconnected_at);
    match connect {
        ConnectInfo::V3(_, c) => c.last_will = None,
        ConnectInfo::V5(_, c) => {
            let delay = c.last_will.as_ref().and_then(|w| w.will_delay_interval_sec).unwrap_or(0);
            if gone.mqtt_disconnect.is_some() || away > i64::from(delay) * 1000 {
                c.last_will = None;
            }
        }
    }
}

/// Rebuilds all stored sessions as clients that are away. Returns how many.
pub(super) async fn restore(scx: &ServerContext, store: &Arc<Store>, listen_cfg: &ListenerConfig) -> usize {
    let now = timestamp_millis();
    let mut restored = 0;
    for found in store.all_sessions() {
        let id = found.row.id.clone();
        match restore_one(scx, listen_cfg, found, now).await {
            Ok(true) => restored += 1,
            Ok(false) => {
                debug!(client = %id.client_id, "stored session has expired");
                store.adopt(&id);
                store.remove_session(&id);
            }
            Err(e) => warn!(client = %id.client_id, error = %e, "stored session not restored"),
        }
    }
    restored
}

async fn restore_one(
    scx: &ServerContext,
    listen_cfg: &ListenerConfig,
    found: Found,
    now: TimestampMillis,
) -> rmqtt::Result<bool> {
    let Found { row: SessionRow { id, mut conn, created_at, connected_at }, subscriptions, gone, inflight, queue } =
        found;
    // A client that was connected when the broker died is away from now on.
    let gone = gone.filter(DisconnectInfo::is_disconnected).unwrap_or_else(|| DisconnectInfo::new(now));
    drop_spent_will(&mut conn, &gone, now);
    let conn = Arc::new(conn);
    let fitter = scx.extends.fitter_mgr().await.create(conn.clone(), id.clone(), listen_cfg.clone());
    let Some(left) = time_left(&fitter, &gone, now) else { return Ok(false) };
    let (max_queue, max_inflight) = (fitter.max_mqueue_len(), fitter.max_inflight());
    let mut map = SessionSubMap::default();
    map.extend(subscriptions.iter().cloned());
    let session = Session::new(
        id.clone(),
        scx.clone(),
        max_queue,
        listen_cfg.clone(),
        fitter,
        None,
        max_inflight,
        created_at,
        conn,
        false,
        false,
        false,
        connected_at,
        SessionSubs::from(map),
        Some(gone),
        None,
    )
    .await?;
    for message in queue {
        if session.deliver_queue().push(message).is_err() {
            break;
        }
    }
    {
        let window = session.out_inflight();
        let mut window = window.write().await;
        for message in inflight {
            window.push_back(message);
        }
    }
    let tx = SessionState::offline_restart(session.clone(), left).await?;
    scx.extends.shared().await.entry(id.clone()).set(session, tx).await?;
    for (filter, options) in subscriptions {
        scx.extends.router().await.add(&filter, id.clone(), options).await?;
    }
    Ok(true)
}
