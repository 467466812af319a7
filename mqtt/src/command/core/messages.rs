//! Messages on `down/cmd/{id}`: known, unknown, withdrawn, forged.

use std::time::Instant;

use super::{After, Core, is_waiting};
use crate::command::seam::{MAX_REASON_CHARS, Objection, Output, PacketRef, Row};
use crate::id::CommandId;
use crate::payload::command::MAX_EXEC_TIMEOUT_S;
use crate::payload::{Command, CommandStatus, DeviceState};
use crate::sign::{VerifiedCommand, VerifyError};

impl Core {
    pub(super) fn on_message(
        &mut self,
        now: Instant,
        packet: PacketRef,
        id: CommandId,
        verdict: Result<VerifiedCommand, VerifyError>,
        objection: Option<Objection>,
    ) {
        match verdict {
            // A forgery must not touch what the journal knows under this id.
            Err(_) if self.rows.contains_key(&id) => {}
            Err(error) => self.refuse(now, id, error.code(), error.to_string(), None),
            Ok(verified) if self.rows.contains_key(&id) => self.on_known(now, &id, &verified),
            Ok(verified) => self.on_unknown(now, id, &verified, objection),
        }
        self.ack_when_durable(packet);
    }

    pub(super) fn on_known(&mut self, now: Instant, id: &CommandId, verified: &VerifiedCommand) {
        let Some(row) = self.rows.get(id) else { return };
        if row.hash == verified.hash() {
            // With the command: a server that never heard of it can adopt it from here.
            let last = CommandStatus { command: Some(verified.raw().clone()), ..row.last.clone() };
            self.draft.statuses.push(last);
            return;
        }
        let reason = "another command with this id was received before".to_owned();
        self.refuse(now, id.clone(), "conflict", reason, Some(verified.hash().to_owned()));
    }

    pub(super) fn on_unknown(
        &mut self,
        now: Instant,
        id: CommandId,
        verified: &VerifiedCommand,
        objection: Option<Objection>,
    ) {
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
        match self.objection(command).or(objection) {
            Some(Objection { code, reason }) => {
                let reason = reason.chars().take(MAX_REASON_CHARS).collect();
                self.end(now, &id, DeviceState::Rejected, Some(&code), Some(reason), None);
            }
            None => self.tell(now, &id, DeviceState::Accepted, None, None),
        }
        // The first status carries the command, so that a server which does not know it can adopt it.
        if let Some(first) = self.draft.statuses.last_mut() {
            first.command = Some(verified.raw().clone());
        }
    }

    /// What is wrong with a command whatever the time.
    pub(super) fn objection(&self, command: &Command) -> Option<Objection> {
        let object = |code: &str, reason: &str| Some(Objection { code: code.to_owned(), reason: reason.to_owned() });
        if !self.config.ops.contains_key(&command.op) {
            return object("unsupported", "this device does not know the operation");
        }
        if command.max_attempts == 0 || !(1..=MAX_EXEC_TIMEOUT_S).contains(&command.exec_timeout_s) {
            return object("malformed", "max_attempts or exec_timeout_s is out of range");
        }
        if let Some(name) = command.precond.extra.keys().next() {
            let name: String = name.chars().take(40).collect();
            return object("precondition", &format!("this device cannot judge the precondition {name:?}"));
        }
        None
    }

    pub(super) fn on_withdrawn(&mut self, now: Instant, packet: PacketRef, id: &CommandId) {
        if self.state(id).is_some_and(is_waiting) {
            self.end(now, id, DeviceState::Cancelled, Some("withdrawn"), None, None);
        }
        self.ack_when_durable(packet);
    }

    /// Tells of a message that leaves no trace in the journal.
    pub(super) fn refuse(&mut self, now: Instant, id: CommandId, code: &str, reason: String, hash: Option<String>) {
        if !self.refusals.admit(now) {
            return;
        }
        let mut status = self.status_of(now, id, 0, DeviceState::Rejected, hash);
        (status.code, status.reason) = (Some(code.to_owned()), Some(reason));
        self.draft.statuses.push(status);
    }

    /// Acknowledges a message once everything decided so far is durable.
    pub(super) fn ack_when_durable(&mut self, packet: PacketRef) {
        if self.draft.is_empty() {
            match self.after.get_mut(&self.last_write) {
                Some(waiting) if self.last_write > self.written => waiting.push(After::PubAck(packet)),
                _ => self.outputs.push_back(Output::PubAck { packet }),
            }
        } else {
            self.draft.after.push(After::PubAck(packet));
        }
    }
}
