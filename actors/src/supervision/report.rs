//! What the tree says about itself.

use serde::{Deserialize, Serialize};

use crate::error::ActorsError;

/// Where an actor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorState {
    /// Built, has not answered yet.
    Starting,
    /// Does its duty.
    Running,
    /// Waits for its next try.
    Backoff,
    /// Its restart budget is spent; its doors answer that it is unavailable.
    Degraded,
    /// Put down in order.
    Stopped,
}

/// One line of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    /// The actor's own name, e.g. `camera cam1`.
    pub name: String,
    /// Its duty, e.g. `camera`.
    pub kind: String,
    /// Where it stands.
    pub state: ActorState,
    /// Whether the process ends when it cannot be kept up.
    pub essential: bool,
    /// Hard and soft restarts since the process started.
    pub restarts: u64,
    /// How many of them somebody asked for: an operator, or a configuration that changed.
    #[serde(default)]
    pub asked_for: u64,
    /// Why it was last restarted.
    pub last_cause: Option<String>,
    /// Seconds since it last came up; 0 while it is down.
    pub uptime_seconds: u64,
    /// Messages sent to it and not yet handled.
    pub mailbox_depth: usize,
    /// A word of its own on what it is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Asks for the tree, in the order in which the actors were engaged.
#[derive(Debug, Clone, Copy, actix::Message)]
#[rtype(result = "Vec<ActorReport>")]
pub struct GetActors;

/// Restarts an actor by name with a full budget, also one that was given up.
#[derive(Debug, Clone, actix::Message)]
#[rtype(result = "Result<(), ActorsError>")]
pub struct RestartActor {
    /// The name in its [`ActorReport`].
    pub name: String,
}
