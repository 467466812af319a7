//! Rounds: a duty that is done again and again, with pauses, such as most of what a fleet server does by itself.
//!
//! Job: one round at a time, then the pause that it asked for. In: nothing but supervision. Out: whatever the [`Round`] does; a
//! word in the tree while it cannot be done.
//!
//! Failure policy: a round that says why it could not be done is done again, 1 s later, then up to 10 s, and told of once. One
//! that panics, takes longer than it may, or is given up with its thread, begins anew with nothing of what it remembered: after
//! 1 s, then up to 60 s, for ever, because a server without one of its duties is worse than one that tries. What must not be
//! forgotten lies in the database. Supervised by the house.

pub mod core;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture,
    Supervised, WrapFuture as _,
};
use async_trait::async_trait;
use tokio::task::{AbortHandle, JoinError};
use tracing::{info, warn};

use self::core::{Pace, Say};
use crate::supervision::{Duty, House, Life, RestartPolicy, Retire};

/// A round ends by then unless its duty says otherwise: well beyond what a database may take for a statement (30 s).
pub const LONGEST: Duration = Duration::from_secs(300);
/// Pauses before a duty begins anew.
const ANEW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is done in rounds.
#[async_trait]
pub trait Round: Send + 'static {
    /// One round; answers with the pause until the next.
    ///
    /// # Errors
    /// Why it cannot be done now, in words without secrets.
    async fn round(&mut self) -> Result<Duration, String>;

    /// How long a round may take; `None` for one that waits for something to happen.
    fn longest(&self) -> Option<Duration> {
        Some(LONGEST)
    }
}

/// A duty that is one round without an end, made of a loop: it waits for what happens by itself.
pub struct Standing<F>(pub F);

#[async_trait]
impl<F, Loop> Round for Standing<F>
where
    F: Fn() -> Loop + Send + Sync + 'static,
    Loop: Future<Output = ()> + Send,
{
    async fn round(&mut self) -> Result<Duration, String> {
        (self.0)().await;
        Err("it ended by itself".to_owned())
    }

    fn longest(&self) -> Option<Duration> {
        None
    }
}

/// The actor.
pub struct Rounds<R: Round> {
    life: Life,
    make: Arc<dyn Fn() -> R + Send + Sync>,
    pace: Pace,
    under_way: Option<AbortHandle>,
}

/// What became of a round, and the duty to go on with.
type Done<R> = Result<(R, Option<Result<Duration, String>>), JoinError>;

impl<R: Round> Rounds<R> {
    /// Puts a duty under supervision. `make` makes it anew for each life.
    pub fn engage(house: &House, name: &str, make: impl Fn() -> R + Send + Sync + 'static) {
        let make: Arc<dyn Fn() -> R + Send + Sync> = Arc::new(make);
        let policy = RestartPolicy::patient(ANEW.0, ANEW.1);
        house.engage(Duty::new(name, name).hard(policy).soft(policy), move |life| Self::new(life, make.clone()));
    }

    fn new(life: Life, make: Arc<dyn Fn() -> R + Send + Sync>) -> Self {
        Self { life, make, pace: Pace::default(), under_way: None }
    }

    fn begin(&mut self, mut duty: R, ctx: &mut Context<Self>) {
        let longest = duty.longest();
        // A task, so that a panic in it is seen here.
        let round = tokio::spawn(async move {
            let done = match longest {
                Some(longest) => tokio::time::timeout(longest, duty.round()).await.ok(),
                None => Some(duty.round().await),
            };
            (duty, done)
        });
        self.under_way = Some(round.abort_handle());
        ctx.spawn(round.into_actor(self).map(|done, me, ctx| me.ended(done, ctx)));
    }

    fn ended(&mut self, done: Done<R>, ctx: &mut Context<Self>) {
        self.under_way = None;
        let (duty, done) = match done {
            Ok((duty, Some(done))) => (duty, done),
            Ok((_, None)) => return self.fall(ctx, "a round did not end in its time".to_owned()),
            // Put down in order.
            Err(error) if error.is_cancelled() => return,
            Err(error) => return self.fall(ctx, format!("a round failed: {error}")),
        };
        let (pause, say) = self.pace.handle_round(done);
        match say {
            Some(Say::Fails(reason)) => {
                warn!(duty = self.life.name(), reason, "a duty cannot be done now; tried again");
                self.life.detail(reason);
            }
            Some(Say::Works) => {
                info!(duty = self.life.name(), "a duty is done again");
                self.life.detail("");
            }
            None => {}
        }
        if pause.is_zero() {
            // Without a timer between, for what comes in one by one.
            return self.begin(duty, ctx);
        }
        ctx.spawn(tokio::time::sleep(pause).into_actor(self).map(|(), me, ctx| me.begin(duty, ctx)));
    }

    fn fall(&mut self, ctx: &mut Context<Self>, cause: String) {
        warn!(duty = self.life.name(), cause, "a duty begins anew");
        self.life.failed(cause);
        ctx.stop();
    }
}

impl<R: Round> Drop for Rounds<R> {
    fn drop(&mut self) {
        if let Some(round) = self.under_way.take() {
            round.abort();
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Begin;

impl<R: Round> Actor for Rounds<R> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.life.opening() {
            ctx.notify_later(Begin, pause);
        }
    }
}

impl<R: Round> Supervised for Rounds<R> {}

impl<R: Round> Handler<crate::supervision::Ping> for Rounds<R> {
    type Result = ();

    fn handle(&mut self, _: crate::supervision::Ping, _: &mut Self::Context) {}
}

impl<R: Round> Handler<Begin> for Rounds<R> {
    type Result = ();

    fn handle(&mut self, _: Begin, ctx: &mut Self::Context) {
        self.pace = Pace::default();
        let duty = (self.make)();
        self.life.opened();
        self.life.detail("");
        self.begin(duty, ctx);
    }
}

impl<R: Round> Handler<Retire> for Rounds<R> {
    type Result = ResponseFuture<()>;

    /// What is under way ends at its next wait; whatever it holds is let go before this is answered.
    fn handle(&mut self, _: Retire, _: &mut Self::Context) -> Self::Result {
        let round = self.under_way.take();
        Box::pin(async move {
            let Some(round) = round else { return };
            round.abort();
            while !round.is_finished() {
                tokio::task::yield_now().await;
            }
        })
    }
}
