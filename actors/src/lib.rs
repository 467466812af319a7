//! The actors of a box and of its fleet server, one a file, and the supervision that keeps them up.
//!
//! | module | duty |
//! |---|---|
//! | [`supervision`] | restart budgets, wardens, doors that outlive the actor behind them, the tree's report |
//! | [`device`] | a box put together: plan in, doors out |
//! | [`studio`] | feeds, thumbnails and the programme, which outlive the actors |
//! | [`camera`] | opens an input's source and keeps it open, names its signal |
//! | [`mixer`] | preview, programme, cuts, mixes, tally, slates |
//! | [`guest`] | seats, admission by WHIP, liveness by decoded pictures |
//! | [`patch`] | late candidates and ICE restarts of guests and viewers |
//! | [`viewers`] | WHEP of the programme and of each input |
//! | [`state`] | what pages show |
//! | [`governor`] | watches the machine, gives up what matters least |
//! | [`host`] | the seam to the machine: reboot, units, boot id |
//! | [`fleet_link`] | the box's end of its fleet: enrolment, session, commands |
//! | [`logs`] | what the process says of itself: records in memory and files, read back, told live |
//! | [`log_tail`] | the log, told to the fleet while somebody watches |
//! | [`redact`] | the one place where secrets are taken out |
//! | [`bundle`] | support bundles: what the box knows of itself, in one archive |
//! | [`bundle_courier`] | takes them to the fleet, piece by piece |
//! | [`ingest`] | the fleet server's end: consumes the broker, writes the store, publishes commands |
//! | [`caller`] | the fleet server's voice: asks a box something and waits for its answer |
//! | [`rounds`] | a duty that is done again and again, as most of what the fleet server does by itself |
//! | [`sfu`] | guests by way of Cloudflare's SFU, when no road leads from them to the box |
//! | [`turn`] | ICE servers from the best provider that answers; the road of the box's own peers to them |
//!
//! An actor's thinking lives in a pure core beside it (`camera.rs` and `camera/core.rs`); the actor itself only moves
//! messages, timers and pipelines. Peers hold a [`Door`] for a message, never an address.

pub mod bundle;
pub mod bundle_courier;
pub mod caller;
pub mod camera;
pub mod device;
pub mod error;
pub mod fleet_link;
pub mod governor;
pub mod guest;
pub mod host;
pub mod ingest;
pub mod log_tail;
pub mod logs;
pub mod mixer;
mod offthread;
pub mod patch;
pub mod redact;
pub mod rounds;
pub mod sfu;
pub mod state;
pub mod studio;
pub mod supervision;
#[cfg(test)]
mod testkit;
pub mod turn;
pub mod viewers;

pub use error::{ActorsError, ErrorKind, GuestError};
pub use supervision::{ActorReport, ActorState, Door, DoorError, House, Life};
