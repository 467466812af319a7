//! Stands in for shell, disk and host in the core's tests.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeZone, Utc};
use serde_json::json;

use super::*;
use crate::DeviceAddress;
use crate::id::CommandId;
use crate::payload::{Command, CommandStatus, DeviceState, Extra, SyncDown};
use crate::sign::{VerifiedCommand, VerifyError};

pub(super) fn wall(s: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000 + s, 0).unwrap()
}

pub(super) fn id(name: &str) -> CommandId {
    CommandId::new(name).unwrap()
}

pub(super) fn command(name: &str, seq: u64, op: &str) -> Command {
    let at = DeviceAddress::new("acme", "box7").unwrap();
    let args = json!({"scene": "quad"}).as_object().unwrap().clone();
    Command::new(&at, id(name), seq, op, args, wall(0), wall(3600))
}

pub(super) fn sync(s: i64, floor: Option<u64>) -> SyncDown {
    SyncDown {
        server_time: wall(s),
        pending: None,
        pending_hash: None,
        acked: BTreeMap::new(),
        seq_floor: floor,
        extra: Extra::new(),
    }
}

pub(super) fn config(boot: u32) -> CoreConfig {
    let ops = [
        ("take", OpSpec::default()),
        ("set", OpSpec { idempotent: true, reboots: false }),
        ("reboot", OpSpec { idempotent: false, reboots: true }),
    ];
    CoreConfig::new(&format!("boot-{boot}"), ops.map(|(op, spec)| (op.to_owned(), spec)))
}

/// Shell, disk and host in one.
pub(super) struct Rig {
    pub(super) core: Core,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) boot: u32,
    pub(super) rows: BTreeMap<CommandId, Row>,
    pub(super) meta: Meta,
    /// Handed to the disk, not durable yet.
    pub(super) writes: VecDeque<Write>,
    /// In the outbox, durable.
    pub(super) statuses: Vec<CommandStatus>,
    /// Everything but writes, in order, since the start of time.
    pub(super) done: Vec<Output>,
    packet: u64,
}

impl Rig {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let meta = Meta::default();
        let core = Core::new(now, config(1), Vec::new(), meta.clone());
        let mut rig = Self {
            core,
            now,
            start: now,
            boot: 1,
            rows: BTreeMap::new(),
            meta,
            writes: VecDeque::new(),
            statuses: Vec::new(),
            done: Vec::new(),
            packet: 0,
        };
        rig.drain();
        rig
    }

    /// A rig whose clock is set and whose journal is not new.
    pub(super) fn ready() -> Self {
        let mut rig = Self::new();
        rig.feed(Input::Clock { wall: Some(wall(0)) });
        rig.feed(Input::Sync(Box::new(sync(0, Some(0)))));
        rig.settle();
        rig
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Write(write) => self.writes.push_back(write),
                other => self.done.push(other),
            }
        }
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.drain();
    }

    /// The oldest write becomes durable; the core is not told.
    pub(super) fn commit_silently(&mut self) -> Option<u64> {
        let write = self.writes.pop_front()?;
        for row in write.rows {
            self.rows.insert(row.id().clone(), row);
        }
        for id in write.removed {
            self.rows.remove(&id);
        }
        if let Some(meta) = write.meta {
            self.meta = meta;
        }
        self.statuses.extend(write.statuses);
        Some(write.write)
    }

    pub(super) fn commit(&mut self) -> bool {
        let Some(write) = self.commit_silently() else { return false };
        self.feed(Input::Written { write });
        true
    }

    pub(super) fn settle(&mut self) {
        while self.commit() {}
    }

    pub(super) fn packet(&mut self) -> u64 {
        self.packet += 1;
        self.packet
    }

    pub(super) fn deliver(&mut self, command: &Command) -> u64 {
        let packet = self.packet();
        let verdict = Box::new(Ok(VerifiedCommand::trusted(command.clone())));
        self.feed(Input::Message { packet, id: command.id.clone(), verdict, objection: None });
        packet
    }

    /// As [`Self::deliver`], with something against it.
    pub(super) fn deliver_objected(&mut self, command: &Command, code: &str, reason: &str) -> u64 {
        let packet = self.packet();
        let verdict = Box::new(Ok(VerifiedCommand::trusted(command.clone())));
        let objection = Some(Objection { code: code.to_owned(), reason: reason.to_owned() });
        self.feed(Input::Message { packet, id: command.id.clone(), verdict, objection });
        packet
    }

    pub(super) fn forge(&mut self, name: &str, error: VerifyError) -> u64 {
        let packet = self.packet();
        self.feed(Input::Message { packet, id: id(name), verdict: Box::new(Err(error)), objection: None });
        packet
    }

    pub(super) fn withdraw(&mut self, name: &str) {
        let packet = self.packet();
        self.feed(Input::Withdrawn { packet, id: id(name) });
        self.settle();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.handle_timeout(self.now);
        self.drain();
    }

    pub(super) fn finish(&mut self, name: &str, attempt: u32) {
        let outcome = EffectOutcome::Succeeded(Some(json!({"ok": true})));
        self.feed(Input::EffectFinished { id: id(name), attempt, outcome });
    }

    /// The process ends here; writes that were not durable are gone.
    pub(super) fn crash(&mut self, host_too: bool) {
        self.writes.clear();
        if host_too {
            self.boot += 1;
        }
        let rows = self.rows.values().cloned().collect();
        self.core = Core::new(self.now, config(self.boot), rows, self.meta.clone());
        self.drain();
        let wall = wall(0) + (self.now - self.start);
        self.feed(Input::Clock { wall: Some(wall) });
    }

    pub(super) fn acked(&self, packet: u64) -> bool {
        self.done.contains(&Output::PubAck { packet })
    }

    pub(super) fn effects(&self, name: &str) -> usize {
        let of = id(name);
        self.done.iter().filter(|output| matches!(output, Output::Execute { id, .. } if *id == of)).count()
    }

    pub(super) fn state(&self, name: &str) -> Option<DeviceState> {
        self.rows.get(&id(name)).map(Row::state)
    }

    pub(super) fn code(&self, name: &str) -> Option<&str> {
        self.rows.get(&id(name))?.last.code.as_deref()
    }

    pub(super) fn told(&self, name: &str) -> Vec<DeviceState> {
        let of = id(name);
        self.statuses.iter().filter(|status| status.id == of).map(|status| status.state).collect()
    }
}
