//! Doors: what peers hold in place of an actor's address, which a rebuild would close.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, MailboxError, Message, Recipient};
use actix_rt::ArbiterHandle;
use tokio::sync::watch;

use super::life::Vitals;
use crate::error::ErrorKind;

/// Messages that may wait for one actor; a door refuses more. Actors handle control, not media: more than this means that
/// nobody is handling at all.
pub(super) const MAILBOX: usize = 256;

/// How long a door waits for an answer unless told otherwise: past a first rebuild (at most 1 s) with room to spare, and
/// within the patience of somebody who pressed a button.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the news of a panic takes to reach the warden, at most: two thread switches on a loaded machine.
const NEWS: Duration = Duration::from_millis(100);

/// Why a message got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Nobody is behind the door now; a new life is on its way.
    #[error("{0} is being restarted")]
    Restarting(String),
    /// The actor's restart budget is spent.
    #[error("{0} is out of order")]
    Degraded(String),
    /// The actor was put down in order.
    #[error("{0} has stopped")]
    Stopped(String),
    /// Too many messages wait already.
    #[error("{0} has too much to do")]
    Full(String),
    /// The message was delivered or waited, but no answer came in time.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// The actor died while it held the message.
    #[error("{0} failed while it was busy with this")]
    Interrupted(String),
}

impl DoorError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Restarting(_) | Self::Full(_) | Self::Timeout(_) | Self::Interrupted(_) => ErrorKind::Transient,
            Self::Degraded(_) | Self::Stopped(_) => ErrorKind::Unavailable,
        }
    }

    /// The HTTP status that says the same (RFC 9110, section 15).
    pub fn status(&self) -> u16 {
        match self {
            Self::Interrupted(_) => 500,
            Self::Timeout(_) => 504,
            _ => 503,
        }
    }
}

type Answer<R> = Pin<Box<dyn Future<Output = Result<R, DoorError>> + Send>>;

trait Knock<M: Message>: Send + Sync {
    fn send(&self, message: M, patience: Duration) -> Answer<M::Result>;
    fn try_send(&self, message: M) -> Result<(), DoorError>;
}

/// A place where messages of one type can be left for an actor, across all of its lives.
pub struct Door<M: Message>(Arc<dyn Knock<M>>);

impl<M: Message> Clone for Door<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Message> fmt::Debug for Door<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door<{}>", std::any::type_name::<M>())
    }
}

impl<M> Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send + 'static,
{
    /// A door that answers by itself, without an actor.
    pub fn from_fn<F>(answer: F) -> Self
    where
        F: Fn(M) -> M::Result + Send + Sync + 'static,
    {
        Self(Arc::new(Closure(answer)))
    }

    /// Sends and waits for the answer, for at most five seconds; a rebuild in between is waited for.
    pub async fn send(&self, message: M) -> Result<M::Result, DoorError> {
        self.0.send(message, PATIENCE).await
    }

    /// Sends and waits for the answer, for at most `patience`.
    pub async fn send_within(&self, message: M, patience: Duration) -> Result<M::Result, DoorError> {
        self.0.send(message, patience).await
    }

    /// Leaves the message without waiting, from any thread. Refused and counted when nobody is there or too many wait.
    pub fn try_send(&self, message: M) -> Result<(), DoorError> {
        self.0.try_send(message)
    }
}

/// For probes in tests, and for actors that nobody supervises.
impl<M> From<Recipient<M>> for Door<M>
where
    M: Message + Send + 'static,
    M::Result: Send + 'static,
{
    fn from(recipient: Recipient<M>) -> Self {
        Self(Arc::new(Plain(recipient)))
    }
}

struct Closure<F>(F);

impl<M, F> Knock<M> for Closure<F>
where
    M: Message + Send + 'static,
    M::Result: Send + 'static,
    F: Fn(M) -> M::Result + Send + Sync,
{
    fn send(&self, message: M, _: Duration) -> Answer<M::Result> {
        let answer = (self.0)(message);
        Box::pin(async move { Ok(answer) })
    }

    fn try_send(&self, message: M) -> Result<(), DoorError> {
        (self.0)(message);
        Ok(())
    }
}

struct Plain<M: Message + Send>(Recipient<M>)
where
    M::Result: Send;

impl<M> Knock<M> for Plain<M>
where
    M: Message + Send + 'static,
    M::Result: Send + 'static,
{
    fn send(&self, message: M, patience: Duration) -> Answer<M::Result> {
        let request = self.0.send(message);
        Box::pin(async move {
            match tokio::time::timeout(patience, request).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(MailboxError::Closed)) => Err(DoorError::Interrupted("the receiver".into())),
                Ok(Err(MailboxError::Timeout)) | Err(_) => Err(DoorError::Timeout("the receiver".into())),
            }
        })
    }

    fn try_send(&self, message: M) -> Result<(), DoorError> {
        self.0.try_send(message).map_err(|_| DoorError::Full("the receiver".into()))
    }
}

/// Who is behind the doors of one actor.
pub(super) enum Occupant<A: Actor> {
    Vacant,
    Present(Addr<A>, ArbiterHandle),
    Degraded,
    Stopped,
}

/// Where an actor lives, life after life. Makes its doors.
pub struct Slot<A: Actor> {
    pub(super) vitals: Arc<Vitals>,
    pub(super) occupant: Arc<watch::Sender<Occupant<A>>>,
}

impl<A: Actor> Clone for Slot<A> {
    fn clone(&self) -> Self {
        Self { vitals: self.vitals.clone(), occupant: self.occupant.clone() }
    }
}

/// Counts a message as waiting until it is dropped.
struct Waiting(Arc<Vitals>);

impl Waiting {
    fn enter(vitals: &Arc<Vitals>) -> Result<Self, DoorError> {
        let before = vitals.depth.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(vitals.clone());
        if before >= MAILBOX { Err(DoorError::Full(vitals.name.clone())) } else { Ok(waiting) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.depth.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<A: Actor<Context = Context<A>>> Slot<A> {
    /// A door for one kind of message.
    pub fn door<M>(&self) -> Door<M>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send + 'static,
    {
        Door(Arc::new(self.clone()))
    }

    /// The actor's name in the tree.
    pub fn name(&self) -> &str {
        &self.vitals.name
    }

    fn present(&self) -> Result<(Addr<A>, ArbiterHandle), DoorError> {
        let name = || self.vitals.name.clone();
        match &*self.occupant.borrow() {
            Occupant::Present(addr, arbiter) => Ok((addr.clone(), arbiter.clone())),
            Occupant::Vacant => Err(DoorError::Restarting(name())),
            Occupant::Degraded => Err(DoorError::Degraded(name())),
            Occupant::Stopped => Err(DoorError::Stopped(name())),
        }
    }
}

impl<A, M> Knock<M> for Slot<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send + 'static,
{
    fn send(&self, message: M, patience: Duration) -> Answer<M::Result> {
        let slot = self.clone();
        // Delivered before the first poll when somebody is there, so that messages keep their order.
        let sent = slot.present().and_then(|(addr, _)| Ok((Waiting::enter(&slot.vitals)?, addr)));
        let delivered = match sent {
            Ok((waiting, addr)) => Ok((waiting, addr.send(message), addr)),
            Err(DoorError::Restarting(_)) => Err(message),
            Err(refusal) => {
                slot.vitals.refused.fetch_add(1, Ordering::Relaxed);
                return Box::pin(async move { Err(refusal) });
            }
        };
        Box::pin(async move {
            let name = slot.vitals.name.clone();
            let knocking = async {
                let mut watch = slot.occupant.subscribe();
                let (_waiting, request, addr) = match delivered {
                    Ok(delivered) => delivered,
                    Err(message) => {
                        let settled = watch.wait_for(|occupant| !matches!(occupant, Occupant::Vacant)).await.is_ok();
                        if !settled {
                            return Err(DoorError::Stopped(name.clone()));
                        }
                        let (addr, _) = slot.present()?;
                        (Waiting::enter(&slot.vitals)?, addr.send(message), addr)
                    }
                };
                match request.await {
                    Ok(answer) => Ok(answer),
                    Err(_) => {
                        // Let the news of a panic reach the warden first, so that the caller's next message does not follow
                        // this one into the mailbox of the dead.
                        let replaced =
                            watch.wait_for(|occupant| !matches!(occupant, Occupant::Present(a, _) if *a == addr));
                        let _ = tokio::time::timeout(NEWS, replaced).await;
                        Err(DoorError::Interrupted(name.clone()))
                    }
                }
            };
            match tokio::time::timeout(patience, knocking).await {
                Ok(answer) => answer,
                Err(_) => match slot.present() {
                    Err(why) => Err(why),
                    Ok(_) => Err(DoorError::Timeout(slot.vitals.name.clone())),
                },
            }
        })
    }

    fn try_send(&self, message: M) -> Result<(), DoorError> {
        let left = self.present().and_then(|(addr, arbiter)| {
            let waiting = Waiting::enter(&self.vitals)?;
            let request = addr.send(message);
            // Somebody has to hold the request: actix skips a message whose sender no longer waits.
            arbiter.spawn(async move {
                let _ = request.await;
                drop(waiting);
            });
            Ok(())
        });
        if left.is_err() {
            self.vitals.refused.fetch_add(1, Ordering::Relaxed);
        }
        left
    }
}
