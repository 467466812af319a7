//! At start: what to do with commands that were cut in the middle.

use std::time::Instant;

use super::Core;
use crate::id::CommandId;
use crate::payload::{DeviceState, OnInterrupt};

impl Core {
    /// Every row whose effect may have begun follows its `on_interrupt`. There is at most one by construction; of more,
    /// only the first may run again.
    pub(super) fn recover(&mut self, now: Instant) {
        let mut begun: Vec<(u64, CommandId)> = self
            .rows
            .values()
            .filter(|row| row.state().is_begun())
            .map(|row| (row.command.seq, row.id().clone()))
            .collect();
        if begun.is_empty() {
            return;
        }
        begun.sort();
        self.meta.crashes = self.meta.crashes.saturating_add(1);
        self.mark_meta();
        for (_, id) in begun {
            self.recover_one(now, &id);
        }
    }

    fn recover_one(&mut self, now: Instant, id: &CommandId) {
        let Some(row) = self.rows.get(id) else { return };
        let asked_to_reboot = row.state() == DeviceState::Rebooting;
        let reboots = asked_to_reboot || self.op_spec(&row.command.op).reboots;
        let rebooted = row.began_boot_id.as_deref() != Some(self.config.boot_id.as_str());
        match row.command.on_interrupt {
            _ if asked_to_reboot && rebooted => self.rebooted(now, id),
            OnInterrupt::Verify if reboots && rebooted => self.rebooted(now, id),
            OnInterrupt::Verify if reboots => self.again_or_interrupted(now, id, "not_rebooted"),
            OnInterrupt::Verify if self.running.is_none() => self.begin_verifying(now, id),
            OnInterrupt::Resume if !asked_to_reboot => self.again_or_interrupted(now, id, "no_attempt_left"),
            OnInterrupt::Verify | OnInterrupt::Resume | OnInterrupt::Fail => {
                let code = if asked_to_reboot { "not_rebooted" } else { "interrupted" };
                self.interrupted(now, id, code);
            }
        }
    }

    fn rebooted(&mut self, now: Instant, id: &CommandId) {
        if self.rows.get(id).is_some_and(|row| row.state() != DeviceState::Verifying) {
            self.tell(now, id, DeviceState::Verifying, None, None);
        }
        self.end(now, id, DeviceState::Succeeded, Some("rebooted"), None, None);
    }

    /// Another attempt, but only of an operation that may run twice, while attempts remain and the breaker is closed.
    pub(super) fn again_or_interrupted(&mut self, now: Instant, id: &CommandId, code: &str) {
        let Some(row) = self.rows.get(id) else { return };
        let left = row.last.attempt < row.command.max_attempts;
        if self.breaker_open() {
            return self.interrupted(now, id, "crash_loop");
        }
        if !(left && self.op_spec(&row.command.op).idempotent && self.running.is_none()) {
            return self.interrupted(now, id, code);
        }
        // Rebooting may only be followed by a look at what happened.
        if row.state() == DeviceState::Rebooting {
            self.tell(now, id, DeviceState::Verifying, None, None);
        }
        self.begin(now, id);
    }

    pub(super) fn interrupted(&mut self, now: Instant, id: &CommandId, code: &str) {
        let reason = "cut in the middle; the effect may or may not have happened".to_owned();
        self.end(now, id, DeviceState::Interrupted, Some(code), Some(reason), None);
    }
}
