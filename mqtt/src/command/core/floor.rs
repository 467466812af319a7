//! The floor and the tombstones: what must never run again, with and without its row.

use std::time::Instant;

use super::{Core, MAX_TOMBSTONES};
use crate::command::seam::Row;
use crate::id::CommandId;
use crate::payload::{CommandStatus, SyncDown};

impl Core {
    pub(super) fn on_sync(&mut self, now: Instant, sync: &SyncDown) {
        self.clock.set_server(now, sync.server_time);
        if let Some(floor) = sync.seq_floor.filter(|floor| self.meta.fresh || *floor > self.meta.seq_floor) {
            self.meta.fresh = false;
            self.meta.seq_floor = floor.max(self.meta.seq_floor);
            self.draft.meta = true;
        }
        // What the server still waits for although it ended here: say it again.
        for id in sync.pending.iter().flatten() {
            if let Some(row) = self.rows.get(id).filter(|row| row.state().is_terminal()) {
                self.draft.statuses.push(row.last.clone());
            }
        }
        if let Some(awaited) = &sync.pending {
            self.introduce(awaited);
        }
    }

    /// Commands that have not ended here and that the server does not wait for: it never heard of them, because they were
    /// published past it and their first status was lost. Say them again, with the command to adopt.
    fn introduce(&mut self, awaited: &[CommandId]) {
        let unheard = self.rows.values().filter(|row| !row.state().is_terminal() && !awaited.contains(row.id()));
        for row in unheard {
            // What cannot be written as JSON was never read from it.
            let command = serde_json::to_value(&row.command).ok();
            self.draft.statuses.push(CommandStatus { command, ..row.last.clone() });
        }
    }

    /// Lets tombstones go whose time is over, or of which there are too many. The floor stands in for them, so only
    /// those below every command that has not ended.
    pub(super) fn purge(&mut self, now: Instant) {
        let wall = self.clock.wall(now);
        let is_over = |row: &Row| row.keep_until.zip(wall).is_some_and(|(until, wall)| until < wall);
        let ended = || self.rows.values().filter(|row| row.state().is_terminal());
        // This runs at every turn, and almost always ends here.
        if ended().count() <= MAX_TOMBSTONES && !ended().any(is_over) {
            return;
        }
        let open = self.rows.values().filter(|row| !row.state().is_terminal());
        let lowest_open = open.map(|row| row.command.seq).min();
        let mut tombs: Vec<(u64, CommandId, bool)> = ended()
            .filter(|row| lowest_open.is_none_or(|open| row.command.seq < open))
            .map(|row| (row.command.seq, row.id().clone(), is_over(row)))
            .collect();
        let surplus = tombs.len().saturating_sub(MAX_TOMBSTONES);
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
}
