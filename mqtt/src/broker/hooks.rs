//! What rmqtt asks while it works: may this client in, may it publish and subscribe there, and what waits for whom.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::codec::v5::{PublishAckReason, SubscribeAckReason};
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookManager, HookResult, Parameter, Register, ReturnType, Type};
use rmqtt::types::{
    AuthResult, ClientId, ConnectInfo, From as Sender, Id, LastWill, Publish, PublishAclResult, PublishResult, QoS,
    Reason, SubscribeAclResult,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::front::{Known, Vouched};
use super::retained::Retained;
use super::store::Store;
use super::{Authenticate, Role, Verdict, acl, node, sessions};
use crate::sparing::Sparing;

/// An authenticator that takes longer says no.
const AUTHENTICATE_LIMIT: Duration = Duration::from_secs(5);

/// How long a client that is just being taken over may take to be there again.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(2);
/// Messages that may wait at a time for a takeover to end.
const WAITING_LIMIT: usize = 10_000;

/// Who is who, and what the hooks need to answer.
pub(super) struct Doorman {
    authenticate: Arc<dyn Authenticate>,
    /// Whose certificate was shown by whom.
    known: Arc<Known>,
    store: Arc<Store>,
    retained: Retained,
    /// Lines on clients that were not let in, and on messages that were not kept.
    turned_away: Mutex<Sparing>,
    no_room: Mutex<Sparing>,
    /// Role of each client id that was let in; a client id has one connection at a time.
    roles: RwLock<HashMap<String, Role>>,
    closing: AtomicBool,
    /// Taken out by [`Self::close`], because the context holds the hooks that hold it.
    scx: Mutex<Option<ServerContext>>,
    waiting: Semaphore,
}

impl Doorman {
    pub(super) fn new(
        authenticate: Arc<dyn Authenticate>,
        known: Arc<Known>,
        store: Arc<Store>,
        retained: Retained,
        scx: ServerContext,
    ) -> Arc<Self> {
        Arc::new(Self {
            authenticate,
            known,
            store,
            retained,
            turned_away: Mutex::default(),
            no_room: Mutex::default(),
            roles: RwLock::default(),
            closing: AtomicBool::new(false),
            scx: Mutex::new(Some(scx)),
            waiting: Semaphore::new(WAITING_LIMIT),
        })
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.scx.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn scx(&self) -> Option<ServerContext> {
        self.scx.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a client's present connection away before its next one takes over. rmqtt throws away what is on its way to a
    /// connected client when it is taken over, but hands on everything of one that is away.
    async fn make_way(&self, client_id: &str) {
        let Some(scx) = self.scx() else { return };
        let until = Instant::now() + TAKEOVER_LIMIT;
        if node::disconnect(&scx, client_id).await {
            while node::is_connected(&scx, client_id).await && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// In the moment between two connections of a client rmqtt finds nobody to give a message to, and drops it.
    fn give_later(self: &Arc<Self>, client_id: ClientId, from: Sender, publish: Publish) {
        let (doorman, until) = (self.clone(), Instant::now() + TAKEOVER_LIMIT);
        tokio::spawn(async move {
            let Ok(_turn) = doorman.waiting.try_acquire() else {
                warn!(client = &*client_id, "message dropped: too many wait for a takeover");
                return;
            };
            let mut message = (from, publish);
            while let Some(scx) = doorman.scx() {
                let entry = node::entry(&scx, &client_id).await;
                if entry.exist() {
                    match entry.publish(message.0, message.1).await {
                        Ok(()) => return,
                        Err((from, publish, _)) => message = (from, publish),
                    }
                }
                if Instant::now() >= until {
                    debug!(client = &*client_id, "message dropped: its client has no session");
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }

    /// Registers everything with rmqtt and switches it on.
    pub(super) async fn register(self: &Arc<Self>, hooks: &dyn HookManager) -> Box<dyn Register> {
        let register = hooks.register();
        for kind in [
            Type::ClientAuthenticate,
            Type::ClientSubscribeCheckAcl,
            Type::MessagePublishCheckAcl,
            Type::OfflineMessage,
            Type::OfflineInflightMessages,
            Type::SessionTerminated,
            Type::MessageDropped,
        ] {
            register.add(kind, Box::new(Answer(self.clone()))).await;
        }
        register.start().await;
        register
    }

    fn role(&self, client_id: &str) -> Option<Role> {
        self.roles.read().unwrap_or_else(PoisonError::into_inner).get(client_id).cloned()
    }

    /// Whether a client may publish this, and if it is to be kept, whether there is room.
    fn may_publish(&self, from: &Id, publish: &Publish) -> PublishAclResult {
        let client_id: &str = &from.client_id;
        if !self.role(client_id).is_some_and(|role| acl::may_publish(&role, &publish.topic)) {
            debug!(client = client_id, topic = &*publish.topic, "publish refused");
            return PublishAclResult::rejected(false, None);
        }
        if !self.retained.is_full_for(from, publish) {
            return PublishAclResult::allow();
        }
        if admits(&self.no_room) {
            let (messages, bytes) = self.retained.held();
            warn!(
                client = client_id,
                topic = &*publish.topic,
                messages,
                bytes,
                "no room for a retained message: refused"
            );
        }
        PublishAclResult(PublishResult::reason_code(PublishAckReason::QuotaExceeded, None, false))
    }

    /// Says how many lines of the last minute were held back.
    pub(super) fn tell_held_back(&self) {
        if let Some(count) = held_back(&self.turned_away) {
            warn!(count, "more clients were not let in");
        }
        if let Some(count) = held_back(&self.no_room) {
            warn!(count, "more retained messages were refused");
        }
    }

    /// Asks on a task of its own: a panic in rmqtt's handshake queue would end the queue, and with it every later CONNECT.
    async fn ask(&self, client_id: &str, question: impl Future<Output = Verdict> + Send + 'static) -> Option<Verdict> {
        let mut asked = tokio::spawn(question);
        match tokio::time::timeout(AUTHENTICATE_LIMIT, &mut asked).await {
            Ok(Ok(verdict)) => Some(verdict),
            Ok(Err(e)) => {
                error!(client = client_id, error = %e, "authentication failed by a fault");
                None
            }
            Err(_) => {
                asked.abort();
                if admits(&self.turned_away) {
                    warn!(client = client_id, "authentication timed out");
                }
                None
            }
        }
    }

    async fn admit(&self, connect: &ConnectInfo) -> AuthResult {
        if self.closing.load(Ordering::SeqCst) {
            // Any refusal that rmqtt can send from here would tell the client that its password is wrong.
            std::future::pending::<()>().await;
        }
        let client_id: &str = connect.client_id();
        let username: Option<&str> = connect.username().map(|name| &**name);
        let authenticate = self.authenticate.clone();
        let verdict = match (connect.ipaddress().and_then(|at| self.known.device(at)), username, connect.password()) {
            // Whoever shows a certificate comes as the device that it names, and as nobody else.
            (Some(Vouched { org, dev, .. }), user, _) if dev == client_id && user.is_none_or(|user| user == org) => {
                let question = async move {
                    let known = authenticate.vouches(&org, &dev).await;
                    if known { Verdict::Allowed(Role::Device { org, dev }) } else { Verdict::Denied }
                };
                self.ask(client_id, question).await
            }
            (Some(_), ..) => Some(Verdict::Denied),
            (None, Some(user), Some(password)) => {
                let (user, client, secret) = (user.to_owned(), client_id.to_owned(), password.to_vec());
                self.ask(client_id, async move { authenticate.authenticate(&user, &client, &secret).await }).await
            }
            (None, ..) => return AuthResult::BadUsernameOrPassword,
        };
        let role = match verdict {
            Some(Verdict::Allowed(role)) => role,
            Some(Verdict::Denied) => {
                if admits(&self.turned_away) {
                    info!(client = client_id, user = username.unwrap_or_default(), "broker refused a client");
                }
                return AuthResult::BadUsernameOrPassword;
            }
            None => return AuthResult::BadUsernameOrPassword,
        };
        if let Role::Device { org, dev } = &role
            && (dev != client_id || !acl::is_plain_level(org) || !acl::is_plain_level(dev))
        {
            if admits(&self.turned_away) {
                info!(client = client_id, "client id is not the device's");
            }
            return AuthResult::NotAuthorized;
        }
        // rmqtt publishes a will without asking the ACL.
        let will = connect.last_will().map(|will| match will {
            LastWill::V3(w) => w.topic.clone(),
            LastWill::V5(w) => w.topic.clone(),
        });
        if let Some(topic) = will
            && !acl::may_publish(&role, &topic)
        {
            if admits(&self.turned_away) {
                info!(client = client_id, "will outside of the client's topics");
            }
            return AuthResult::NotAuthorized;
        }
        self.make_way(client_id).await;
        self.roles.write().unwrap_or_else(PoisonError::into_inner).insert(client_id.to_owned(), role);
        AuthResult::Allow(false, None)
    }
}

fn admits(lines: &Mutex<Sparing>) -> bool {
    lines.lock().unwrap_or_else(PoisonError::into_inner).admit(std::time::Instant::now())
}

fn held_back(lines: &Mutex<Sparing>) -> Option<NonZeroU64> {
    lines.lock().unwrap_or_else(PoisonError::into_inner).handle_timeout(std::time::Instant::now())
}

/// One registration of the doorman.
struct Answer(Arc<Doorman>);

#[async_trait]
impl Handler for Answer {
    async fn hook(&self, param: &Parameter, acc: Option<HookResult>) -> ReturnType {
        let doorman = &self.0;
        match param {
            Parameter::ClientAuthenticate(connect) => {
                (false, Some(HookResult::AuthResult(doorman.admit(connect).await)))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                let answer = doorman.may_publish(&session.id, publish);
                (false, Some(HookResult::PublishAclResult(answer)))
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                let shared = subscribe.opts.has_shared_group();
                let role = doorman.role(&session.id.client_id);
                let allowed = role.is_some_and(|r| acl::may_subscribe(&r, &subscribe.topic_filter, shared));
                let answer = if allowed {
                    SubscribeAclResult::new_success(subscribe.opts.qos(), None)
                } else {
                    debug!(client = &*session.id.client_id, filter = &*subscribe.topic_filter, "subscribe refused");
                    SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
                };
                (false, Some(HookResult::SubscribeAclResult(answer)))
            }
            Parameter::OfflineMessage(session, from, publish) => {
                if publish.qos != QoS::AtMostOnce {
                    doorman.store.push_queue(&session.id, from, publish);
                }
                (true, acc)
            }
            Parameter::OfflineInflightMessages(session, inflight) => {
                sessions::save_waiting(&doorman.store, session, inflight);
                (true, acc)
            }
            Parameter::SessionTerminated(session, _) => {
                doorman.store.remove_session(&session.id);
                (true, acc)
            }
            Parameter::MessageDropped(Some(to), from, publish, reason) => {
                if publish.qos != QoS::AtMostOnce && found_nobody(reason) {
                    doorman.give_later(to.client_id.clone(), from.clone(), publish.clone());
                }
                (true, acc)
            }
            _ => (true, acc),
        }
    }
}

/// rmqtt's words for "no connection and no session of this client just now".
fn found_nobody(reason: &Reason) -> bool {
    let Reason::Error(text) = reason else { return false };
    matches!(&**text, "the client has disconnected" | "Connection Tx is closed" | "Tx is None" | "Tx is closed")
}
