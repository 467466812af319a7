//! Two tiers that keep actors up.
//!
//! - **Soft**: something outside was lost (a link, an input). The actor says [`Life::failed`] and stops its context; actix's
//!   `Supervisor` restarts the same value, and [`Life::opening`] says after which pause it may open again.
//! - **Hard**: the actor panicked or no longer answers. Its warden builds a new one from the factory, on a new thread, behind
//!   the same [`Door`]s that its peers hold.
//!
//! Both spend a [`RestartBudget`]. When it is spent the actor is Degraded: its doors answer at once that it is unavailable. An
//! essential actor that is Degraded ends the process in order.
//!
//! [`House`] is the whole tree: it engages actors, reports on them and stops them, dependants first. The decisions are pure
//! ([`RestartBudget`], [`Ward`]); the rest carries them out.

mod budget;
mod door;
mod house;
mod life;
mod report;
#[cfg(test)]
pub(crate) mod testing;
mod ward;

pub use budget::{RestartBudget, RestartPolicy, Verdict};
pub use door::{Door, DoorError, Slot};
pub use house::{Duty, House, HouseSettings, Supervisable};
pub use life::Life;
pub use report::{ActorReport, ActorState, GetActors, RestartActor};
pub use ward::{Ward, WardInput, WardOutput, WardTimes};

/// The warden's question whether an actor still takes its mail.
#[derive(Debug, Clone, Copy, actix::Message)]
#[rtype(result = "()")]
pub struct Ping;

/// The order to put everything down: the actor is dropped after it has answered, or after its share of the deadline.
#[derive(Debug, Clone, Copy, actix::Message)]
#[rtype(result = "()")]
pub struct Retire;

/// Gives an actor the two handlers of supervision. With `ping only` the actor writes its own `Handler<Retire>`.
#[macro_export]
macro_rules! supervised {
    ($actor:ty) => {
        $crate::supervised!($actor, ping only);
        impl ::actix::Handler<$crate::supervision::Retire> for $actor {
            type Result = ();
            fn handle(&mut self, _: $crate::supervision::Retire, _: &mut Self::Context) {}
        }
    };
    ($actor:ty, ping only) => {
        impl ::actix::Handler<$crate::supervision::Ping> for $actor {
            type Result = ();
            fn handle(&mut self, _: $crate::supervision::Ping, _: &mut Self::Context) {}
        }
    };
}

/// Locks and goes on with the value that a panicking holder left: every value kept under these locks is whole between
/// statements.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
