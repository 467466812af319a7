//! Caller: the fleet server's voice. Asks a box something over the broker and waits for its answer.
//!
//! Job: carry an exchange of HTTP to a box that has no open port, by MQTT 5 request/response: signed by the fleet, with this
//! server's own response topic, correlation data and a deadline. In: [`CallDevice`], and who goes offline, from the broker.
//! Out: requests on `down/request`, the box's [`Response`]; log records that boxes say while somebody watches ([`LiveLog`]).
//!
//! Failure policy: every call ends, with an answer or one [`CallError`], after at most eight seconds. Nothing is sent twice:
//! whoever asked may ask again. While the broker is away calls wait for it for a moment, so that a link that blinks is
//! nobody's error, then they are refused. A panic ends the calls that wait. Supervised by the house.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, SpawnHandle, StreamHandler,
    Supervised, WrapFuture as _,
};
use chrono::Utc;
use futures_util::StreamExt as _;
use r58_mqtt::payload::{Batch, Method, Payload as _, Presence, PresenceState, Request, Response};
use r58_mqtt::request::{CallError, Calls, DEADLINE};
use r58_mqtt::session::{
    Incoming, Outgoing, Properties, RetainHandling, Session, SessionEvent, SessionSettings, Subscription,
};
use r58_mqtt::sign::CommandSigner;
use r58_mqtt::sparing::Sparing;
use r58_mqtt::topic::response_filter;
use r58_mqtt::{DeviceAddress, Down, Name, Topic, Up};
use tokio::sync::{broadcast, oneshot};
use tracing::{debug, warn};

use crate::guest::fresh_session;
use crate::supervision::{Life, Retire};

/// Who goes: calls to it end at once.
const PRESENCE: &str = "r58/1/+/+/up/presence";
/// Logs that somebody watches; nobody else sends any.
const LOGS: &str = "r58/1/+/+/up/tm/log";
const ONLINE: &str = "connected to the broker";
const AWAY: &str = "the broker is away";
/// A call waits this long for a broker that is away; with the answer's own deadline it is over before WHIP clients give up.
const GRACE: Duration = Duration::from_secs(2);
/// Calls that wait for the broker at most.
const MAX_HELD: usize = 64;

/// What a box is asked; the parts of an HTTP request that matter here.
#[derive(Clone)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// An absolute path.
    pub path: String,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// The body, at most 64 KiB.
    pub body: String,
}

impl std::fmt::Debug for Ask {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Asks a box. Whether the asker may is for the sender to know.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Response, CallError>")]
pub struct CallDevice {
    /// The box.
    pub device: DeviceAddress,
    /// What it is asked.
    pub ask: Ask,
}

/// What a [`Caller`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct CallerSettings {
    /// Its own session; the subscription is filled in here.
    pub session: SessionSettings,
    /// The fleet's key.
    pub signer: Arc<CommandSigner>,
    /// Where log records go that boxes say live.
    pub logs: broadcast::Sender<LiveLog>,
}

/// A batch of a box's log.
#[derive(Debug, Clone)]
pub struct LiveLog {
    /// The box.
    pub device: DeviceAddress,
    /// Its records, as [`crate::logs::Record`].
    pub batch: Arc<Batch>,
}

type Asker = oneshot::Sender<Result<Response, CallError>>;

/// The actor.
pub struct Caller {
    life: Life,
    settings: CallerSettings,
    /// Names this life among all servers: the last level of its response topics.
    name: Option<Name>,
    session: Option<Session>,
    online: bool,
    calls: Calls<Asker>,
    /// Calls that came while the broker was away, oldest first, and until when each waits.
    held: VecDeque<(Instant, CallDevice, Asker)>,
    timer: Option<SpawnHandle>,
    strange: Sparing,
}

impl Caller {
    /// For the house's factory.
    pub fn new(life: Life, settings: CallerSettings) -> Self {
        Self {
            life,
            settings,
            name: Name::new(fresh_session()).ok(),
            session: None,
            online: false,
            calls: Calls::default(),
            held: VecDeque::new(),
            timer: None,
            strange: Sparing::default(),
        }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        let Some(name) = &self.name else { return };
        let mut settings = self.settings.session.clone();
        let presence = Subscription { retain_handling: RetainHandling::Never, ..Subscription::new(PRESENCE) };
        let logs = Subscription { retain_handling: RetainHandling::Never, ..Subscription::new(LOGS) };
        settings.subscriptions = vec![Subscription::new(response_filter(name)), presence, logs];
        // An answer that comes after the connection finds nobody who waits for it.
        settings.session_expiry = Duration::ZERO;
        let (session, events) = match Session::start(settings) {
            Ok(started) => started,
            Err(error) => return self.fall(ctx, error.to_string()),
        };
        self.life.opened();
        self.session = Some(session);
        let events = futures_util::stream::unfold(events, |mut events| async move {
            events.recv().await.map(|event| (Heard(Some(event)), events))
        });
        ctx.add_stream(events.chain(futures_util::stream::once(async { Heard(None) })));
    }

    fn fall(&mut self, ctx: &mut Context<Self>, cause: String) {
        warn!(cause, "boxes cannot be asked");
        self.life.failed(cause);
        ctx.stop();
    }

    /// Sends a request; who waits is told when that fails.
    fn call(&mut self, call: CallDevice, asker: Asker, ctx: &mut Context<Self>) {
        if let Err((why, asker)) = self.send(call, asker, ctx) {
            let _ = asker.send(Err(why));
        }
    }

    /// Signs and publishes.
    fn send(&mut self, call: CallDevice, asker: Asker, ctx: &mut Context<Self>) -> Result<(), (CallError, Asker)> {
        let (Some(session), Some(server)) = (self.session.clone(), self.name.clone()) else {
            return Err((CallError::BrokerAway, asker));
        };
        let CallDevice { device, ask } = call;
        let Ok(id) = Name::new(fresh_session()) else { return Err((CallError::Unsendable, asker)) };
        let mut request = Request::new(id.clone(), &device, ask.method, &ask.path, Utc::now() + DEADLINE);
        (request.content_type, request.authorization) = (ask.content_type, ask.authorization);
        (request.if_match, request.body) = (ask.if_match, ask.body);
        let body = match self.settings.signer.sign_request(&mut request) {
            Ok(body) => body,
            Err(error) => {
                debug!(%error, "a request cannot be sent");
                return Err((CallError::Unsendable, asker));
            }
        };
        let properties = Properties {
            response_topic: Some(Topic::up(&device, Up::Response(server)).to_string()),
            correlation: Some(id.as_str().as_bytes().to_vec().into()),
            expiry: Some(DEADLINE),
            ..Properties::json()
        };
        let topic = Topic::down(&device, Down::Request).to_string();
        let message = Outgoing { properties, ..Outgoing::json(topic, body) };
        self.calls.handle_call(Instant::now(), id, device, asker)?;
        // What does not get through shows at the deadline.
        ctx.spawn(async move { drop(session.publish(message).await) }.into_actor(self));
        self.arm(ctx);
        Ok(())
    }

    /// Keeps a call until the broker is back, or has been away for too long.
    fn hold(&mut self, call: CallDevice, asker: Asker, ctx: &mut Context<Self>) {
        if self.held.len() >= MAX_HELD {
            return drop(asker.send(Err(CallError::BrokerAway)));
        }
        let until = Instant::now() + GRACE;
        self.held.push_back((until, call, asker));
        ctx.run_later(GRACE, move |me, _| {
            while let Some((_, _, asker)) = me.held.pop_front_if(|(held, ..)| *held <= until) {
                let _ = asker.send(Err(CallError::BrokerAway));
            }
        });
    }

    fn take(&mut self, message: &Incoming) {
        if let Some(token) = message.ack
            && let Some(session) = &self.session
        {
            session.ack(token);
        }
        let Ok(Topic::Up(device, what)) = Topic::parse(&message.topic) else { return };
        match what {
            Up::Response(_) => self.take_response(&device, message),
            Up::Telemetry(_) => match Batch::parse(&message.payload) {
                // Without a watcher it is for another server.
                Ok(batch) => drop(self.settings.logs.send(LiveLog { device, batch: Arc::new(batch) })),
                Err(error) => debug!(%device, %error, "a log cannot be read"),
            },
            Up::Presence => {
                let said = Presence::parse(&message.payload);
                if said.is_ok_and(|presence| presence.state == PresenceState::Offline) {
                    refuse(self.calls.handle_offline(&device), CallError::Offline);
                    self.tell();
                }
            }
            _ => {}
        }
    }

    fn take_response(&mut self, device: &DeviceAddress, message: &Incoming) {
        match Response::parse(&message.payload) {
            Ok(response) => match self.calls.handle_response(device, &response) {
                // An asker that has gone wants no answer.
                Some(asker) => drop(asker.send(Ok(response))),
                None => debug!(%device, id = %response.id, "an answer that nobody waits for"),
            },
            Err(error) if self.strange.admit(Instant::now()) => warn!(%device, %error, "an answer cannot be read"),
            Err(_) => {}
        }
        self.tell();
    }

    /// What the house tells of it: whether boxes can be asked, and how many askers wait.
    fn tell(&self) {
        match self.calls.waiting() {
            _ if !self.online => self.life.detail(AWAY),
            0 => self.life.detail(ONLINE),
            waiting => self.life.detail(format!("{ONLINE}, {waiting} wait for an answer")),
        }
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        self.tell();
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(at) = self.calls.poll_timeout() else { return };
        let wait = at.saturating_duration_since(Instant::now());
        self.timer = Some(ctx.run_later(wait, |me, ctx| {
            refuse(me.calls.handle_timeout(Instant::now()), CallError::TimedOut);
            me.arm(ctx);
        }));
    }
}

fn refuse(askers: Vec<Asker>, why: CallError) {
    for asker in askers {
        let _ = asker.send(Err(why));
    }
}

/// An event of the session; none after its last.
struct Heard(Option<SessionEvent>);

#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Actor for Caller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.life.opening() {
            ctx.notify_later(Open, pause);
        }
    }
}

impl Supervised for Caller {}

crate::supervised!(Caller, ping only);

impl Handler<Open> for Caller {
    type Result = ();

    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.open(ctx);
    }
}

impl Handler<CallDevice> for Caller {
    type Result = ResponseFuture<Result<Response, CallError>>;

    fn handle(&mut self, call: CallDevice, ctx: &mut Self::Context) -> Self::Result {
        let (asker, answer) = oneshot::channel();
        if self.online {
            self.call(call, asker, ctx)
        } else {
            self.hold(call, asker, ctx)
        }
        Box::pin(async move { answer.await.unwrap_or(Err(CallError::BrokerAway)) })
    }
}

impl Handler<Retire> for Caller {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Retire, _: &mut Self::Context) -> Self::Result {
        self.calls = Calls::default();
        self.held.clear();
        let session = self.session.take();
        Box::pin(async move {
            if let Some(session) = session {
                session.close(None, Duration::from_secs(2)).await;
            }
        })
    }
}

impl StreamHandler<Heard> for Caller {
    fn handle(&mut self, Heard(event): Heard, ctx: &mut Self::Context) {
        match event {
            Some(SessionEvent::Subscribed { .. }) => {
                self.online = true;
                self.tell();
                for (_, call, asker) in std::mem::take(&mut self.held) {
                    self.call(call, asker, ctx);
                }
            }
            Some(SessionEvent::Message(message)) => self.take(&message),
            Some(SessionEvent::Disconnected { .. }) => {
                self.online = false;
                // Their answers would come to a session that is no more.
                for asker in std::mem::take(&mut self.calls).into_askers() {
                    let _ = asker.send(Err(CallError::BrokerAway));
                }
                self.tell();
            }
            Some(_) => {}
            // Put down in order.
            None if self.session.is_none() => {}
            None => self.fall(ctx, "the session ended".to_owned()),
        }
    }

    /// The stream ends with the session; the actor does not.
    fn finished(&mut self, _: &mut Self::Context) {}
}
