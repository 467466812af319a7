//! Turns: which waiting command may begin, which must wait and why, which is too late.

use std::time::Instant;

use super::{Core, Turn, is_waiting};
use crate::id::CommandId;
use crate::payload::{Command, DeviceState};
use crate::sign::{VerifyError, check_window};

impl Core {
    /// Judges every waiting command and begins at most one; then writes all that was decided, as one transaction.
    pub(super) fn advance(&mut self, now: Instant) {
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

    pub(super) fn turn(&self, now: Instant, id: &CommandId) -> Turn {
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

    pub(super) fn precondition(&self, command: &Command) -> Turn {
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

    pub(super) fn wait(&mut self, now: Instant, id: &CommandId, why: &str) {
        let told = self
            .rows
            .get(id)
            .is_some_and(|row| row.state() == DeviceState::Queued && row.last.code.as_deref() == Some(why));
        if !told {
            self.tell(now, id, DeviceState::Queued, Some(why), None);
        }
    }
}
