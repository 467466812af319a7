//! Alerts: rules as data, what they find, and who is told.
//!
//! | room | what lives there |
//! |---|---|
//! | `rule` | kinds of rules, their limits and the usual ones |
//! | `core` | from one state of an alert to the next |
//! | `reading` | what a rule sees in what a device says |
//! | `memory` | what has to be remembered of a device from one heartbeat to the next |
//! | `outline` | which heartbeats are worth a look |
//! | `silence` | which alerts a silence covers |
//! | `watch` | the leader's duty: follows the store |
//! | `notify` | its second duty: tells people |
//! | `message`, `target`, `courier` | what is told, where it may go, and one attempt to bring it there |
//! | `plan` | settings |
//!
//! An alert is pending until its condition has held for as long as its rule says, then firing, until the condition is gone
//! for as long; in between somebody may acknowledge it. Silenced is not a state of an alert, it says that nobody is told.

pub mod core;
pub mod courier;
pub mod memory;
pub mod message;
pub mod notify;
pub mod outline;
pub mod plan;
pub mod reading;
pub mod rule;
pub mod silence;
pub mod target;
pub mod watch;
