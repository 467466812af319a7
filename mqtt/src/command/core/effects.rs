//! Effects: the durable row first, then the effect, then its end.

use std::time::{Duration, Instant};

use super::{After, Core, PROGRESS_EVERY, Running};
use crate::command::seam::{EffectOutcome, Output, Verification, WriteId};
use crate::id::CommandId;
use crate::payload::DeviceState;

impl Core {
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

    pub(super) fn on_progress(&mut self, now: Instant, id: &CommandId, attempt: u32, progress: f64) {
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

    pub(super) fn on_finished(&mut self, now: Instant, id: &CommandId, outcome: EffectOutcome) {
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

    pub(super) fn on_verified(&mut self, now: Instant, id: &CommandId, verification: Verification) {
        self.running = None;
        match verification {
            Verification::Done(result) => self.end(now, id, DeviceState::Succeeded, Some("verified"), None, result),
            Verification::NotDone => self.again_or_interrupted(now, id, "not_done"),
            Verification::Unknown => self.interrupted(now, id, "unverified"),
        }
    }

    pub(super) fn on_deadline(&mut self, now: Instant, id: CommandId, attempt: u32) {
        self.running = None;
        if self.state(&id) == Some(DeviceState::Verifying) {
            self.interrupted(now, &id, "unverified");
        } else {
            let reason = "the effect did not end in its time".to_owned();
            self.end(now, &id, DeviceState::TimedOut, Some("timeout"), Some(reason), None);
        }
        self.outputs.push_back(Output::Abandon { id, attempt });
    }

    pub(super) fn on_written(&mut self, now: Instant, write: WriteId) {
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
    pub(super) fn release(&mut self, now: Instant, id: CommandId, attempt: u32) {
        let Some(running) = self.running.as_mut().filter(|running| running.id == id && running.attempt == attempt)
        else {
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
}
