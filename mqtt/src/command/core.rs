//! The state machine of a device's commands. See the module above for its contract with the shell.

mod effects;
mod floor;
mod ledger;
mod messages;
mod start;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::clock::WallClock;
use super::seam::{Input, Meta, Output, PacketRef, Row, WriteId};
use crate::id::CommandId;
use crate::payload::{CommandStatus, DeviceState};
use crate::sparing::Sparing;

/// Days a tombstone outlives the command's expiry (facts: the longest a retained copy may reappear).
const TOMBSTONE_DAYS: i64 = 30;
/// Tombstones kept at most; beyond, the oldest go and the floor stands in for them.
const MAX_TOMBSTONES: usize = 1024;
/// The largest result that is reported, in bytes: tombstones keep theirs, and all of them together stay under 16 MiB.
const MAX_RESULT_BYTES: usize = 16 * 1024;
/// Refusals of messages without a trace that are told per minute: a flood of forgeries must not fill the outbox.
const REFUSALS_PER_MINUTE: u32 = 20;
/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What the core must know about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpSpec {
    /// May run twice without harm, so that `on_interrupt: resume` is honoured.
    pub idempotent: bool,
    /// Its effect is that the host boots again.
    pub reboots: bool,
}

/// Settings of the core.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// The operations; all others are rejected as unsupported.
    pub ops: BTreeMap<String, OpSpec>,
    /// The kernel's boot id of this start.
    pub boot_id: String,
    /// Commands that may wait at the same time.
    pub max_pending: usize,
    /// Starts in a row with an interrupted command after which none is begun until the process has been stable.
    pub max_crashes: u32,
    /// How long a start must last to count as stable.
    pub stable_after: Duration,
}

impl CoreConfig {
    /// 64 waiting commands, 3 crashes, stable after 5 minutes.
    pub fn new(boot_id: &str, ops: impl IntoIterator<Item = (String, OpSpec)>) -> Self {
        Self {
            ops: ops.into_iter().collect(),
            boot_id: boot_id.to_owned(),
            max_pending: 64,
            max_crashes: 3,
            stable_after: Duration::from_secs(300),
        }
    }
}

/// The command whose effect has begun.
#[derive(Debug)]
struct Running {
    id: CommandId,
    attempt: u32,
    /// Set when the effect (or its verification) really begins.
    deadline: Option<Instant>,
    last_progress: Option<Instant>,
}

/// What waits for a write. An effect is released only if its attempt still runs by then.
#[derive(Debug)]
enum After {
    PubAck(PacketRef),
    Effect(CommandId, u32),
}

/// What this turn will write.
#[derive(Debug, Default)]
struct Draft {
    rows: BTreeSet<CommandId>,
    removed: Vec<CommandId>,
    meta: bool,
    statuses: Vec<CommandStatus>,
    after: Vec<After>,
}

/// What may be done with a waiting command now.
enum Turn {
    Begin,
    Wait(&'static str),
    Reject(&'static str, String),
}

/// Conditions last reported by the shell.
#[derive(Debug)]
struct Conditions {
    desired_ver: u64,
    activities: Vec<String>,
}

/// The pure core.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    rows: BTreeMap<CommandId, Row>,
    meta: Meta,
    running: Option<Running>,
    clock: WallClock,
    conditions: Option<Conditions>,
    started: Instant,
    draft: Draft,
    last_write: WriteId,
    written: WriteId,
    after: BTreeMap<WriteId, Vec<After>>,
    refusals: Sparing,
    outputs: VecDeque<Output>,
}

impl Core {
    /// A core from what the journal holds; interrupted commands are dealt with at once, so drain the outputs.
    pub fn new(now: Instant, config: CoreConfig, rows: Vec<Row>, meta: Meta) -> Self {
        let mut core = Self {
            config,
            rows: rows.into_iter().map(|row| (row.id().clone(), row)).collect(),
            meta,
            running: None,
            clock: WallClock::default(),
            conditions: None,
            started: now,
            draft: Draft::default(),
            last_write: 0,
            written: 0,
            after: BTreeMap::new(),
            refusals: Sparing::new(REFUSALS_PER_MINUTE),
            outputs: VecDeque::new(),
        };
        core.recover(now);
        core.advance(now);
        core
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Message { packet, id, verdict, objection } => self.on_message(now, packet, id, *verdict, objection),
            Input::Withdrawn { packet, id } => self.on_withdrawn(now, packet, &id),
            Input::Written { write } => self.on_written(now, write),
            Input::EffectProgress { id, attempt, progress } => self.on_progress(now, &id, attempt, progress),
            Input::EffectRebooting { id, attempt } => {
                if self.is_running(&id, attempt) && self.state(&id) == Some(DeviceState::Executing) {
                    self.tell(now, &id, DeviceState::Rebooting, None, None);
                    self.draft.after.push(After::Effect(id, attempt));
                }
            }
            Input::EffectFinished { id, attempt, outcome } => {
                if self.is_running(&id, attempt) && self.state(&id) != Some(DeviceState::Verifying) {
                    self.on_finished(now, &id, outcome);
                }
            }
            Input::Verified { id, attempt, verification } => {
                if self.is_running(&id, attempt) && self.state(&id) == Some(DeviceState::Verifying) {
                    self.on_verified(now, &id, verification);
                }
            }
            Input::Sync(sync) => self.on_sync(now, &sync),
            Input::Clock { wall } => self.clock.set_host(now, wall),
            Input::Conditions { desired_ver, activities } => {
                self.conditions = Some(Conditions { desired_ver, activities });
            }
        }
        self.advance(now);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.running.as_ref().filter(|running| running.deadline.is_some_and(|deadline| deadline <= now));
        if let Some((id, attempt)) = late.map(|running| (running.id.clone(), running.attempt)) {
            self.on_deadline(now, id, attempt);
        }
        if self.meta.crashes > 0 && self.stable_at().is_some_and(|at| at <= now) {
            self.meta.crashes = 0;
            self.draft.meta = true;
        }
        self.advance(now);
    }

    /// When [`Core::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let deadline = self.running.as_ref().and_then(|running| running.deadline);
        let stable = if self.meta.crashes > 0 { self.stable_at() } else { None };
        let waiting = self.rows.values().filter(|row| is_waiting(row.state()));
        let dates = waiting.flat_map(|row| [row.command.not_before, Some(row.command.expires_at)]).flatten();
        let wall = self.clock.wall(now);
        let next_date = dates.filter(|date| wall.is_some_and(|wall| *date > wall)).min();
        let due = next_date.and_then(|date| self.clock.instant_of(now, date));
        [deadline, stable, due].into_iter().flatten().min()
    }

    /// The next thing to do; call until none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Commands that have not ended, for `up/sync`.
    pub fn pending(&self) -> Vec<CommandId> {
        self.rows.values().filter(|row| !row.state().is_terminal()).map(|row| row.id().clone()).collect()
    }

    /// The floor, for `up/sync`.
    pub fn seq_floor(&self) -> u64 {
        self.meta.seq_floor
    }

    /// The last status of a command the journal knows.
    pub fn status(&self, id: &CommandId) -> Option<&CommandStatus> {
        self.rows.get(id).map(|row| &row.last)
    }

    fn state(&self, id: &CommandId) -> Option<DeviceState> {
        self.rows.get(id).map(Row::state)
    }

    fn is_running(&self, id: &CommandId, attempt: u32) -> bool {
        self.running.as_ref().is_some_and(|running| running.id == *id && running.attempt == attempt)
    }

    fn stable_at(&self) -> Option<Instant> {
        self.started.checked_add(self.config.stable_after)
    }

    fn breaker_open(&self) -> bool {
        self.meta.crashes >= self.config.max_crashes
    }

    fn op_spec(&self, op: &str) -> OpSpec {
        self.config.ops.get(op).copied().unwrap_or_default()
    }

    fn mark_meta(&mut self) {
        self.draft.meta = true;
    }
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.removed.is_empty()
            && !self.meta
            && self.statuses.is_empty()
            && self.after.is_empty()
    }
}

fn is_waiting(state: DeviceState) -> bool {
    matches!(state, DeviceState::Received | DeviceState::Accepted | DeviceState::Queued)
}
