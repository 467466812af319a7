//! What goes in and out of the command core, and what it keeps on disk.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::CommandId;
use crate::payload::{Command, CommandStatus, DeviceState, SyncDown};
use crate::sign::{VerifiedCommand, VerifyError};

/// The shell's name for a message that waits for its PUBACK.
pub type PacketRef = u64;
/// Number of a [`Write`]; grows by one.
pub type WriteId = u64;

/// A command in the journal. After its end it stays as a tombstone, without its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The command.
    pub command: Command,
    /// Its hash as verified.
    pub hash: String,
    /// The last status; state, rev and attempt of the command are those of it.
    pub last: CommandStatus,
    /// The boot in which the current attempt began.
    #[serde(default)]
    pub began_boot_id: Option<String>,
    /// When the tombstone may go.
    #[serde(default)]
    pub keep_until: Option<DateTime<Utc>>,
}

impl Row {
    /// Where the command stands.
    pub fn state(&self) -> DeviceState {
        self.last.state
    }

    /// The command's id.
    pub fn id(&self) -> &CommandId {
        &self.command.id
    }
}

/// What the journal keeps beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Unknown commands at or below are stale.
    pub seq_floor: u64,
    /// The journal is new and no `down/sync` has told the floor yet.
    pub fresh: bool,
    /// Starts in a row that found a command cut in the middle.
    #[serde(default)]
    pub crashes: u32,
}

impl Default for Meta {
    /// That of a journal which does not exist yet.
    fn default() -> Self {
        Self { seq_floor: 0, fresh: true, crashes: 0 }
    }
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectOutcome {
    /// Done; what it answered.
    Succeeded(Option<Value>),
    /// Not done.
    Failed {
        /// One word.
        code: String,
        /// One sentence.
        reason: String,
    },
}

/// Whether an interrupted effect took place.
#[derive(Debug, Clone, PartialEq)]
pub enum Verification {
    /// It did.
    Done(Option<Value>),
    /// It certainly did not.
    NotDone,
    /// Nobody can tell.
    Unknown,
}

/// What the shell has against a command, by its arguments alone: an unknown scene, a service that is not on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// One word.
    pub code: String,
    /// One sentence; the core keeps its first [`MAX_REASON_CHARS`] characters.
    pub reason: String,
}

/// The longest reason of an [`Objection`] that is told: it may quote the command.
pub const MAX_REASON_CHARS: usize = 300;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A message came on `down/cmd/{id}`.
    Message {
        /// For its PUBACK.
        packet: PacketRef,
        /// From the topic.
        id: CommandId,
        /// What verification said.
        verdict: Box<Result<VerifiedCommand, VerifyError>>,
        /// What speaks against beginning it at all; it is then rejected. What only the effect can find out makes it fail.
        objection: Option<Objection>,
    },
    /// An empty message came on `down/cmd/{id}`.
    Withdrawn {
        /// For its PUBACK.
        packet: PacketRef,
        /// From the topic.
        id: CommandId,
    },
    /// A write is durable, and with it all before it.
    Written {
        /// Which.
        write: WriteId,
    },
    /// An effect tells how far it is.
    EffectProgress {
        /// The command.
        id: CommandId,
        /// As in [`Output::Execute`].
        attempt: u32,
        /// 0 to 1.
        progress: f64,
    },
    /// An effect is about to take the host down and waits for [`Output::Proceed`].
    EffectRebooting {
        /// The command.
        id: CommandId,
        /// As in [`Output::Execute`].
        attempt: u32,
    },
    /// An effect ended.
    EffectFinished {
        /// The command.
        id: CommandId,
        /// As in [`Output::Execute`].
        attempt: u32,
        /// How.
        outcome: EffectOutcome,
    },
    /// The answer to [`Output::Verify`].
    Verified {
        /// The command.
        id: CommandId,
        /// As in [`Output::Verify`].
        attempt: u32,
        /// Whether it took place.
        verification: Verification,
    },
    /// A message came on `down/sync`.
    Sync(Box<SyncDown>),
    /// The host's wall clock: now set and reading this, or not set.
    Clock {
        /// None while it is not set.
        wall: Option<DateTime<Utc>>,
    },
    /// What preconditions are judged by; hand in at start and at every change.
    Conditions {
        /// The configuration version in force.
        desired_ver: u64,
        /// What is going on, such as `recording`.
        activities: Vec<String>,
    },
}

/// One transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// For [`Input::Written`].
    pub write: WriteId,
    /// Rows to set.
    pub rows: Vec<Row>,
    /// Rows to remove.
    pub removed: Vec<CommandId>,
    /// Meta data to set.
    pub meta: Option<Meta>,
    /// Statuses for the outbox, in order.
    pub statuses: Vec<CommandStatus>,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Make this durable and answer [`Input::Written`].
    Write(Write),
    /// Acknowledge a message.
    PubAck {
        /// Which.
        packet: PacketRef,
    },
    /// Begin an effect.
    Execute {
        /// The command.
        id: CommandId,
        /// The operation.
        op: String,
        /// Its arguments.
        args: Map<String, Value>,
        /// From 1.
        attempt: u32,
    },
    /// The rebooting row is durable: bring the host down.
    Proceed {
        /// The command.
        id: CommandId,
        /// As in [`Output::Execute`].
        attempt: u32,
    },
    /// An effect was cut in the middle: find out whether it took place, and answer [`Input::Verified`].
    Verify {
        /// The command.
        id: CommandId,
        /// The operation.
        op: String,
        /// Its arguments.
        args: Map<String, Value>,
        /// The attempt that was cut.
        attempt: u32,
        /// Whether the host has booted since it began.
        rebooted: bool,
    },
    /// The effect's time is over: stop caring for it. A late end of it is ignored.
    Abandon {
        /// The command.
        id: CommandId,
        /// As in [`Output::Execute`].
        attempt: u32,
    },
}
