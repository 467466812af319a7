//! What time it is, as far as the device can know: the host's clock when it is set, else the server's time carried on
//! by the monotonic clock.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::payload::ClockState;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WallClock {
    host: Option<(Instant, DateTime<Utc>)>,
    server: Option<(Instant, DateTime<Utc>)>,
}

impl WallClock {
    pub(super) fn set_host(&mut self, now: Instant, wall: Option<DateTime<Utc>>) {
        self.host = wall.map(|wall| (now, wall));
    }

    pub(super) fn set_server(&mut self, now: Instant, wall: DateTime<Utc>) {
        self.server = Some((now, wall));
    }

    fn anchor(&self) -> Option<(Instant, DateTime<Utc>)> {
        self.host.or(self.server)
    }

    /// The wall time at `now`; none while nobody has told it.
    pub(super) fn wall(&self, now: Instant) -> Option<DateTime<Utc>> {
        let (at, wall) = self.anchor()?;
        let passed = chrono::Duration::from_std(now.saturating_duration_since(at)).ok()?;
        wall.checked_add_signed(passed)
    }

    /// When the wall clock will show `wall`; `now` when it already does.
    pub(super) fn instant_of(&self, now: Instant, wall: DateTime<Utc>) -> Option<Instant> {
        let wait = (wall - self.wall(now)?).to_std().unwrap_or(Duration::ZERO);
        // Looking again once a day at the latest keeps far dates within what an Instant can hold.
        now.checked_add(wait.min(Duration::from_secs(24 * 3600)))
    }

    pub(super) fn state(&self) -> ClockState {
        if self.host.is_some() { ClockState::Set } else { ClockState::Unset }
    }
}
