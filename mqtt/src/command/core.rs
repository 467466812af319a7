//! The state machine of a device's commands. See the module above for its contract with the shell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::clock::WallClock;
use super::seam::{EffectOutcome, Input, Meta, Output, PacketRef, Row, Verification, Write, WriteId};
use crate::id::CommandId;
use crate::payload::command::MAX_EXEC_TIMEOUT_S;
use crate::payload::{Command, CommandStatus, DeviceState, Extra, SyncDown};
use crate::sign::{VerifiedCommand, VerifyError, check_window};

/// Days a tombstone outlives the command's expiry (facts: the longest a retained copy may reappear).
const TOMBSTONE_DAYS: i64 = 30;
/// Tombstones kept at most; beyond, the oldest go and the floor stands in for them.
const MAX_TOMBSTONES: usize = 4096;
/// The largest result that is reported, in bytes; half a command's size leaves room for the rest of the status.
const MAX_RESULT_BYTES: usize = 32 * 1024;
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
pub(super) struct Running {
    pub(super) id: CommandId,
    pub(super) attempt: u32,
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
    pub(super) config: CoreConfig,
    pub(super) rows: BTreeMap<CommandId, Row>,
    pub(super) meta: Meta,
    pub(super) running: Option<Running>,
    clock: WallClock,
    conditions: Option<Conditions>,
    started: Instant,
    draft: Draft,
    last_write: WriteId,
    written: WriteId,
    after: BTreeMap<WriteId, Vec<After>>,
    refusals: (Instant, u32),
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
            refusals: (now, 0),
            outputs: VecDeque::new(),
        };
        core.recover(now);
        core.advance(now);
        core
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Message { packet, id, verdict } => self.on_message(now, packet, id, *verdict),
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
        if let Some(running) = &self.running {
            if running.deadline.is_some_and(|deadline| deadline <= now) {
                let (id, attempt) = (running.id.clone(), running.attempt);
                self.on_deadline(now, id, attempt);
            }
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

    pub(super) fn breaker_open(&self) -> bool {
        self.meta.crashes >= self.config.max_crashes
    }

    pub(super) fn op_spec(&self, op: &str) -> OpSpec {
        self.config.ops.get(op).copied().unwrap_or_default()
    }

    pub(super) fn mark_meta(&mut self) {
        self.draft.meta = true;
    }

    // Messages

    fn on_message(
        &mut self,
        now: Instant,
        packet: PacketRef,
        id: CommandId,
        verdict: Result<VerifiedCommand, VerifyError>,
    ) {
        match verdict {
            // A forgery must not touch what the journal knows under this id.
            Err(_) if self.rows.contains_key(&id) => {}
            Err(error) => self.refuse(now, id, error.code(), error.to_string(), None),
            Ok(verified) if self.rows.contains_key(&id) => self.on_known(now, &id, &verified),
            Ok(verified) => self.on_unknown(now, id, &verified),
        }
        self.ack_when_durable(packet);
    }

    fn on_known(&mut self, now: Instant, id: &CommandId, verified: &VerifiedCommand) {
        let Some(row) = self.rows.get(id) else { return };
        if row.hash == verified.hash() {
            self.draft.statuses.push(row.last.clone());
            return;
        }
        let reason = "another command with this id was received before".to_owned();
        self.refuse(now, id.clone(), "conflict", reason, Some(verified.hash().to_owned()));
    }

    fn on_unknown(&mut self, now: Instant, id: CommandId, verified: &VerifiedCommand) {
        let command = verified.command();
        let hash = Some(verified.hash().to_owned());
        if command.seq <= self.meta.seq_floor {
            let reason = format!("its seq {} is at or below the floor {}", command.seq, self.meta.seq_floor);
            return self.refuse(now, id, "stale", reason, hash);
        }
        if self.rows.values().filter(|row| !row.state().is_terminal()).count() >= self.config.max_pending {
            return self.refuse(now, id, "busy", "too many commands are waiting".to_owned(), hash);
        }
        let row = Row {
            command: command.clone(),
            hash: verified.hash().to_owned(),
            last: self.status_of(now, id.clone(), 0, DeviceState::Received, hash),
            began_boot_id: None,
            keep_until: None,
        };
        self.rows.insert(id.clone(), row);
        match self.objection(command) {
            Some((code, reason)) => self.end(now, &id, DeviceState::Rejected, Some(code), Some(reason), None),
            None => self.tell(now, &id, DeviceState::Accepted, None, None),
        }
        // The first status carries the command, so that a server which does not know it can adopt it.
        if let Some(first) = self.draft.statuses.last_mut() {
            first.command = Some(verified.raw().clone());
        }
    }

    /// What is wrong with a command whatever the time.
    fn objection(&self, command: &Command) -> Option<(&'static str, String)> {
        if !self.config.ops.contains_key(&command.op) {
            return Some(("unsupported", "this device does not know the operation".to_owned()));
        }
        if command.max_attempts == 0 || !(1..=MAX_EXEC_TIMEOUT_S).contains(&command.exec_timeout_s) {
            return Some(("malformed", "max_attempts or exec_timeout_s is out of range".to_owned()));
        }
        if let Some(name) = command.precond.extra.keys().next() {
            let name: String = name.chars().take(40).collect();
            return Some(("precondition", format!("this device cannot judge the precondition {name:?}")));
        }
        None
    }

    fn on_withdrawn(&mut self, now: Instant, packet: PacketRef, id: &CommandId) {
        if self.state(id).is_some_and(is_waiting) {
            self.end(now, id, DeviceState::Cancelled, Some("withdrawn"), None, None);
        }
        self.ack_when_durable(packet);
    }

    /// Tells of a message that leaves no trace in the journal.
    fn refuse(&mut self, now: Instant, id: CommandId, code: &str, reason: String, hash: Option<String>) {
        let (since, told) = &mut self.refusals;
        if now.saturating_duration_since(*since) >= Duration::from_secs(60) {
            (*since, *told) = (now, 0);
        }
        *told += 1;
        if *told > REFUSALS_PER_MINUTE {
            return;
        }
        let mut status = self.status_of(now, id, 0, DeviceState::Rejected, hash);
        (status.code, status.reason) = (Some(code.to_owned()), Some(reason));
        self.draft.statuses.push(status);
    }

    /// Acknowledges a message once everything decided so far is durable.
    fn ack_when_durable(&mut self, packet: PacketRef) {
        if self.draft.is_empty() {
            match self.after.get_mut(&self.last_write) {
                Some(waiting) if self.last_write > self.written => waiting.push(After::PubAck(packet)),
                _ => self.outputs.push_back(Output::PubAck { packet }),
            }
        } else {
            self.draft.after.push(After::PubAck(packet));
        }
    }

    // Effects

    /// The executing row first; the effect when it is durable.
    pub(super) fn begin(&mut self, now: Instant, id: &CommandId) {
        let boot_id = self.config.boot_id.clone();
        let Some(row) = self.rows.get_mut(id) else { return };
        row.last.attempt += 1;
        row.last.progress = None;
        row.began_boot_id = Some(boot_id);
        let attempt = row.last.attempt;
        self.running = Some(Running { id: id.clone(), attempt, deadline: None, last_progress: None });
        self.tell(now, id, DeviceState::Executing, None, None);
        self.draft.after.push(After::Effect(id.clone(), attempt));
    }

    /// An interrupted effect whose shell must look whether it took place.
    pub(super) fn begin_verifying(&mut self, now: Instant, id: &CommandId) {
        let Some(row) = self.rows.get(id) else { return };
        let attempt = row.last.attempt;
        self.running = Some(Running { id: id.clone(), attempt, deadline: None, last_progress: None });
        self.tell(now, id, DeviceState::Verifying, None, None);
        self.draft.after.push(After::Effect(id.clone(), attempt));
    }

    fn on_progress(&mut self, now: Instant, id: &CommandId, attempt: u32, progress: f64) {
        if !self.is_running(id, attempt) || self.state(id) != Some(DeviceState::Executing) {
            return;
        }
        let Some(running) = &mut self.running else { return };
        let soon = running.last_progress.is_some_and(|last| now.saturating_duration_since(last) < PROGRESS_EVERY);
        if soon || !progress.is_finite() {
            return;
        }
        running.last_progress = Some(now);
        if let Some(row) = self.rows.get_mut(id) {
            row.last.progress = Some(progress.clamp(0.0, 1.0));
        }
        self.tell(now, id, DeviceState::Executing, None, None);
    }

    fn on_finished(&mut self, now: Instant, id: &CommandId, outcome: EffectOutcome) {
        let reboots = self.rows.get(id).is_some_and(|row| self.op_spec(&row.command.op).reboots);
        if self.meta.crashes > 0 && !reboots {
            self.meta.crashes = 0;
            self.draft.meta = true;
        }
        self.running = None;
        match outcome {
            EffectOutcome::Succeeded(result) => {
                // The host was asked to go down and the shell says that it has done its part (a rehearsal).
                if self.state(id) == Some(DeviceState::Rebooting) {
                    self.tell(now, id, DeviceState::Verifying, None, None);
                }
                self.end(now, id, DeviceState::Succeeded, None, None, result);
            }
            EffectOutcome::Failed { code, reason } => {
                self.end(now, id, DeviceState::Failed, Some(&code), Some(reason), None);
            }
        }
    }

    fn on_verified(&mut self, now: Instant, id: &CommandId, verification: Verification) {
        self.running = None;
        match verification {
            Verification::Done(result) => self.end(now, id, DeviceState::Succeeded, Some("verified"), None, result),
            Verification::NotDone => self.again_or_interrupted(now, id, "not_done"),
            Verification::Unknown => self.interrupted(now, id, "unverified"),
        }
    }

    fn on_deadline(&mut self, now: Instant, id: CommandId, attempt: u32) {
        self.running = None;
        if self.state(&id) == Some(DeviceState::Verifying) {
            self.interrupted(now, &id, "unverified");
        } else {
            let reason = "the effect did not end in its time".to_owned();
            self.end(now, &id, DeviceState::TimedOut, Some("timeout"), Some(reason), None);
        }
        self.outputs.push_back(Output::Abandon { id, attempt });
    }

    fn on_written(&mut self, now: Instant, write: WriteId) {
        self.written = self.written.max(write);
        let later = self.after.split_off(&(write + 1));
        for after in std::mem::replace(&mut self.after, later).into_values().flatten() {
            match after {
                After::PubAck(packet) => self.outputs.push_back(Output::PubAck { packet }),
                After::Effect(id, attempt) => self.release(now, id, attempt),
            }
        }
    }

    /// Lets the running command's effect go, now that its row is durable.
    fn release(&mut self, now: Instant, id: CommandId, attempt: u32) {
        let Some(running) = self.running.as_mut().filter(|running| running.id == id && running.attempt == attempt) else {
            return;
        };
        let Some(row) = self.rows.get(&id) else { return };
        let (op, args) = (row.command.op.clone(), row.command.args.clone());
        if running.deadline.is_none() {
            running.deadline = now.checked_add(Duration::from_secs(row.command.exec_timeout_s.into()));
        }
        let rebooted = row.began_boot_id.as_deref() != Some(self.config.boot_id.as_str());
        self.outputs.push_back(match row.state() {
            DeviceState::Rebooting => Output::Proceed { id, attempt },
            DeviceState::Verifying => Output::Verify { id, op, args, attempt, rebooted },
            _ => Output::Execute { id, op, args, attempt },
        });
    }

    // Turns

    /// Judges every waiting command and begins at most one; then writes all that was decided, as one transaction.
    fn advance(&mut self, now: Instant) {
        let mut waiting: Vec<(u64, CommandId)> = self
            .rows
            .values()
            .filter(|row| is_waiting(row.state()))
            .map(|row| (row.command.seq, row.id().clone()))
            .collect();
        waiting.sort();
        for (_, id) in waiting {
            match self.turn(now, &id) {
                Turn::Begin => self.begin(now, &id),
                Turn::Reject(code, reason) => {
                    self.end(now, &id, DeviceState::Rejected, Some(code), Some(reason), None);
                }
                Turn::Wait(why) => self.wait(now, &id, why),
            }
        }
        self.purge(now);
        self.flush();
    }

    fn turn(&self, now: Instant, id: &CommandId) -> Turn {
        let Some(row) = self.rows.get(id) else { return Turn::Wait("unknown") };
        let command = &row.command;
        if command.seq <= self.meta.seq_floor {
            return Turn::Reject("stale", "the server has already closed it".to_owned());
        }
        let Some(wall) = self.clock.wall(now) else { return Turn::Wait("clock") };
        match check_window(command, wall) {
            Err(error @ VerifyError::Expired(_)) => return Turn::Reject("expired", error.to_string()),
            Err(_) => return Turn::Wait("not_before"),
            Ok(()) => {}
        }
        if self.meta.fresh {
            return Turn::Wait("sync");
        }
        if self.running.is_some() {
            return Turn::Wait("turn");
        }
        if self.breaker_open() {
            return Turn::Wait("crash_loop");
        }
        self.precondition(command)
    }

    fn precondition(&self, command: &Command) -> Turn {
        let precond = &command.precond;
        if precond.desired_ver.is_none() && precond.not_while.is_empty() {
            return Turn::Begin;
        }
        let Some(conditions) = &self.conditions else { return Turn::Wait("conditions") };
        if precond.desired_ver.is_some_and(|wanted| wanted != conditions.desired_ver) {
            let reason = format!("configuration version {} is in force", conditions.desired_ver);
            return Turn::Reject("precondition", reason);
        }
        match precond.not_while.iter().find(|activity| conditions.activities.contains(activity)) {
            Some(activity) => Turn::Reject("precondition", format!("not while {activity}")),
            None => Turn::Begin,
        }
    }

    fn wait(&mut self, now: Instant, id: &CommandId, why: &str) {
        let told = self.rows.get(id).is_some_and(|row| {
            row.state() == DeviceState::Queued && row.last.code.as_deref() == Some(why)
        });
        if !told {
            self.tell(now, id, DeviceState::Queued, Some(why), None);
        }
    }

    // Sync, floor, tombstones

    fn on_sync(&mut self, now: Instant, sync: &SyncDown) {
        self.clock.set_server(now, sync.server_time);
        if let Some(floor) = sync.seq_floor {
            if self.meta.fresh || floor > self.meta.seq_floor {
                self.meta.fresh = false;
                self.meta.seq_floor = floor.max(self.meta.seq_floor);
                self.draft.meta = true;
            }
        }
        // What the server still waits for although it ended here: say it again.
        for id in sync.pending.iter().flatten() {
            if let Some(row) = self.rows.get(id).filter(|row| row.state().is_terminal()) {
                self.draft.statuses.push(row.last.clone());
            }
        }
    }

    /// Lets tombstones go whose time is over, or of which there are too many. The floor stands in for them, so only
    /// those below every command that has not ended.
    fn purge(&mut self, now: Instant) {
        let wall = self.clock.wall(now);
        let lowest_open = self.rows.values().filter(|row| !row.state().is_terminal()).map(|row| row.command.seq).min();
        let mut tombs: Vec<(u64, CommandId, bool)> = self
            .rows
            .values()
            .filter(|row| row.state().is_terminal() && lowest_open.is_none_or(|open| row.command.seq < open))
            .map(|row| {
                let over = row.keep_until.zip(wall).is_some_and(|(until, wall)| until < wall);
                (row.command.seq, row.id().clone(), over)
            })
            .collect();
        let surplus = tombs.len().saturating_sub(MAX_TOMBSTONES);
        if surplus == 0 && !tombs.iter().any(|tomb| tomb.2) {
            return;
        }
        tombs.sort();
        for (n, (seq, id, over)) in tombs.into_iter().enumerate() {
            if over || n < surplus {
                self.rows.remove(&id);
                self.draft.rows.remove(&id);
                self.draft.removed.push(id);
                self.meta.seq_floor = self.meta.seq_floor.max(seq);
                self.draft.meta = true;
            }
        }
    }

    // Rows and statuses

    pub(super) fn tell(
        &mut self,
        now: Instant,
        id: &CommandId,
        state: DeviceState,
        code: Option<&str>,
        reason: Option<String>,
    ) {
        let (ts, clock) = (self.clock.wall(now), self.clock.state());
        let Some(row) = self.rows.get_mut(id) else { return };
        debug_assert!(row.last.state.can_become(state), "{} may not become {state}", row.last.state);
        let last = &mut row.last;
        last.rev += 1;
        last.state = state;
        last.boot_id.clone_from(&self.config.boot_id);
        last.code = code.map(str::to_owned);
        last.reason = reason;
        (last.ts, last.clock) = (ts, clock);
        self.draft.statuses.push(last.clone());
        self.draft.rows.insert(id.clone());
    }

    /// The terminal state and its status, in one write; what is left is a tombstone.
    pub(super) fn end(
        &mut self,
        now: Instant,
        id: &CommandId,
        state: DeviceState,
        code: Option<&str>,
        reason: Option<String>,
        result: Option<serde_json::Value>,
    ) {
        let wall = self.clock.wall(now);
        let Some(row) = self.rows.get_mut(id) else { return };
        let fits = result.as_ref().is_none_or(|result| result.to_string().len() <= MAX_RESULT_BYTES);
        row.last.result = if fits { result } else { None };
        let reason = if fits { reason } else { Some("the result is too large to be reported".to_owned()) };
        row.command.args.clear();
        row.keep_until = Some(keep_until(&row.command, wall));
        self.tell(now, id, state, code, reason);
    }

    fn status_of(
        &self,
        now: Instant,
        id: CommandId,
        rev: u64,
        state: DeviceState,
        hash: Option<String>,
    ) -> CommandStatus {
        CommandStatus {
            id,
            rev,
            state,
            attempt: 0,
            boot_id: self.config.boot_id.clone(),
            progress: None,
            code: None,
            reason: None,
            result: None,
            ts: self.clock.wall(now),
            clock: self.clock.state(),
            hash,
            command: None,
            extra: Extra::new(),
        }
    }

    fn flush(&mut self) {
        if self.draft.is_empty() {
            return;
        }
        let draft = std::mem::take(&mut self.draft);
        self.last_write += 1;
        let write = self.last_write;
        let rows = draft.rows.iter().filter_map(|id| self.rows.get(id).cloned()).collect();
        let meta = draft.meta.then(|| self.meta.clone());
        self.after.insert(write, draft.after);
        let Draft { removed, statuses, .. } = draft;
        self.outputs.push_back(Output::Write(Write { write, rows, removed, meta, statuses }));
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

fn keep_until(command: &Command, wall: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let end = wall.map_or(command.expires_at, |wall| wall.max(command.expires_at));
    end.checked_add_signed(chrono::Duration::days(TOMBSTONE_DAYS)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
