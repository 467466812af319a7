//! The ledger: rows, statuses and the one write of a turn.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{Core, Draft, MAX_RESULT_BYTES, TOMBSTONE_DAYS};
use crate::command::seam::{Output, Write};
use crate::id::CommandId;
use crate::payload::{Command, CommandStatus, DeviceState, Extra};

impl Core {
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

    pub(super) fn status_of(
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

    pub(super) fn flush(&mut self) {
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

fn keep_until(command: &Command, wall: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let end = wall.map_or(command.expires_at, |wall| wall.max(command.expires_at));
    end.checked_add_signed(chrono::Duration::days(TOMBSTONE_DAYS)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
