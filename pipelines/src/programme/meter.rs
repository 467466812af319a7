//! What the programme really did, counted on the frames that leave the compositor.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::types::ProgrammeStats;
use crate::feed::level::SILENCE_DB;
use crate::mode::Mode;

/// The rate is reported over this long.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// A take that is on its way.
#[derive(Debug)]
struct Underway {
    id: u64,
    requested: Instant,
    frames_before: u64,
}

/// Counts frames, gaps and takes. Pure: times are handed in.
#[derive(Debug)]
pub(super) struct Meter {
    mode: Mode,
    frames: u64,
    missed_slots: u64,
    last_slot: Option<u64>,
    last_frame: Option<Instant>,
    longest_gap: Duration,
    running_time: u64,
    recent: VecDeque<Instant>,
    underway: Vec<Underway>,
    takes: u64,
    last_take: (u64, Duration),
    pub(super) level_db: f32,
}

impl Meter {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            frames: 0,
            missed_slots: 0,
            last_slot: None,
            last_frame: None,
            longest_gap: Duration::ZERO,
            running_time: 0,
            recent: VecDeque::new(),
            underway: Vec::new(),
            takes: 0,
            last_take: (0, Duration::ZERO),
            level_db: SILENCE_DB,
        }
    }

    /// Frames so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    pub(super) fn requested(&mut self, now: Instant, id: u64) {
        self.underway.push(Underway { id, requested: now, frames_before: self.frames });
    }

    /// A frame left the compositor (start and length in nanoseconds), with the takes that landed on it. Answers each take's id
    /// and frames.
    pub(super) fn frame(&mut self, now: Instant, (pts, length): (u64, u64), landed: &[u64]) -> Vec<(u64, u64)> {
        let slot = self.mode.nearest_slot(pts);
        self.last_slot = Some(match self.last_slot {
            // The aggregator sets its time line back when its very first input arrives after its first frame; the frame
            // that follows is as long as what it replaces.
            Some(last) if slot <= last => slot + self.mode.nearest_slot(length).saturating_sub(1),
            Some(last) => {
                self.missed_slots += slot - last - 1;
                slot
            }
            None => slot,
        });
        if let Some(last) = self.last_frame {
            self.longest_gap = self.longest_gap.max(now.saturating_duration_since(last));
        }
        self.last_frame = Some(now);
        self.frames += 1;
        self.running_time = pts;
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|first| now.saturating_duration_since(*first) > RATE_WINDOW) {
            self.recent.pop_front();
        }
        landed.iter().filter_map(|id| self.landed(now, *id)).collect()
    }

    fn landed(&mut self, now: Instant, id: u64) -> Option<(u64, u64)> {
        let place = self.underway.iter().position(|take| take.id == id)?;
        let take = self.underway.remove(place);
        self.takes += 1;
        let frames = self.frames - take.frames_before;
        self.last_take = (frames, now.saturating_duration_since(take.requested));
        Some((id, frames))
    }

    pub(super) fn reset_gap(&mut self) {
        self.longest_gap = Duration::ZERO;
    }

    fn fps(&self, now: Instant) -> f64 {
        let (Some(first), Some(last)) = (self.recent.front(), self.recent.back()) else { return 0.0 };
        if now.saturating_duration_since(*last) > RATE_WINDOW {
            return 0.0;
        }
        let span = last.saturating_duration_since(*first).as_secs_f64();
        if span <= 0.0 { 0.0 } else { (self.recent.len() - 1) as f64 / span }
    }

    pub(super) fn stats(&self, now: Instant, encoder_dropped: u64, preset: u8) -> ProgrammeStats {
        let ms = |duration: Duration| (duration.as_secs_f64() * 100_000.0).round() / 100.0;
        ProgrammeStats {
            frames: self.frames,
            missed_slots: self.missed_slots,
            longest_gap_ms: ms(self.longest_gap),
            running_time: self.running_time as f64 / 1e9,
            fps: (self.fps(now) * 100.0).round() / 100.0,
            takes: self.takes,
            last_take_frames: self.last_take.0,
            last_take_ms: ms(self.last_take.1),
            encoder_dropped,
            level_db: self.level_db,
            preset,
            last_frame: self.last_frame,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_slot_is_missed_and_a_late_frame_is_only_a_gap() {
        let mode = Mode::default();
        let start = Instant::now();
        let mut meter = Meter::new(mode);
        let at = |ms| start + Duration::from_millis(ms);
        let length = mode.frame_nanos();
        meter.frame(at(0), (mode.slot_start(0), length), &[]);
        meter.frame(at(33), (mode.slot_start(1), length), &[]);
        meter.frame(at(150), (mode.slot_start(2), length), &[]);
        meter.frame(at(180), (mode.slot_start(4), length), &[]);
        let stats = meter.stats(at(180), 0, 0);
        assert_eq!((stats.frames, stats.missed_slots, stats.longest_gap_ms), (4, 1, 117.0));
    }

    #[test]
    fn a_time_line_that_is_set_back_at_the_start_misses_nothing() {
        let mode = Mode::default();
        let start = Instant::now();
        let mut meter = Meter::new(mode);
        for (slot, slots) in [(0, 1), (0, 2), (2, 1), (3, 1)] {
            meter.frame(start, (mode.slot_start(slot), mode.slot_start(slots)), &[]);
        }
        assert_eq!(meter.stats(start, 0, 0).missed_slots, 0);
    }

    #[test]
    fn a_take_on_the_next_frame_counts_as_one() {
        let start = Instant::now();
        let mut meter = Meter::new(Mode::default());
        meter.frame(start, (0, 33_333_333), &[]);
        meter.requested(start, 7);
        assert_eq!(meter.frame(start + Duration::from_millis(20), (33_333_333, 33_333_333), &[7]), [(7, 1)]);
        let stats = meter.stats(start, 0, 0);
        assert_eq!((stats.takes, stats.last_take_frames, stats.last_take_ms), (1, 1, 20.0));
    }
}
