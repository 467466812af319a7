//! The actors of a box and of its fleet server, one a file, and the supervision that keeps them up.
//!
//! | module | duty |
//! |---|---|
//! | [`supervision`] | restart budgets, wardens, doors that outlive the actor behind them, the tree's report |
//!
//! An actor's thinking lives in a pure core beside it (`camera.rs` and `camera/core.rs`); the actor itself only moves
//! messages, timers and pipelines. Peers hold a [`Door`] for a message, never an address.

pub mod error;
pub mod supervision;

pub use error::{ActorsError, ErrorKind};
pub use supervision::{ActorReport, ActorState, Door, DoorError, House, Life};
