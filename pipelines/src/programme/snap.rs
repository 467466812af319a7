//! From an input's moments to the programme's frame slots. Pure.
//!
//! A picture belongs to exactly one slot of the programme's clock. Inputs run at the same rate but in any phase, and arrive
//! with jitter; rounding alone would put two pictures into one slot and none into the next whenever the phase is near the
//! edge. So each input keeps a bias that puts its pictures into the middle of their slots, and the bias moves only when the
//! phase has really drifted. That leaves half a frame of jitter in both directions.

use crate::mode::Mode;

/// The phase may wander this far from the middle of the slot before the bias follows.
const TOLERANCE: f64 = 0.3;
/// Share of each new phase in the smoothed one: about one second at 30 frames a second.
const SMOOTHING: f64 = 0.03;

/// Assigns frame slots to one input's pictures.
#[derive(Debug)]
pub struct Snapper {
    mode: Mode,
    bias: f64,
    phase: f64,
    last: Option<u64>,
    fresh: bool,
}

impl Snapper {
    /// For a programme in this mode.
    pub fn new(mode: Mode) -> Self {
        Self { mode, bias: 0.0, phase: 0.5, last: None, fresh: true }
    }

    /// Forgets the phase: another source follows. Slots that were given out are never given out again.
    pub fn restart(&mut self) {
        self.fresh = true;
    }

    /// The slot for a picture due at `nanos` of running time, or `None` when its slot already has one.
    pub fn snap(&mut self, nanos: u64) -> Option<u64> {
        let position = nanos as f64 / 1e9 * self.mode.fps();
        if self.fresh {
            self.fresh = false;
            self.centre(position);
        }
        let phase = (position + self.bias).fract();
        self.phase += SMOOTHING * (phase - self.phase);
        if (self.phase - 0.5).abs() > TOLERANCE {
            self.centre(position);
        }
        self.give((position + self.bias).floor() as u64)
    }

    /// The next free slot at `nanos` of running time, for a picture that only has to be seen soon.
    pub fn next_free(&mut self, nanos: u64) -> u64 {
        let now = (nanos as f64 / 1e9 * self.mode.fps()).floor() as u64;
        let slot = self.last.map_or(now, |last| now.max(last + 1));
        self.last = Some(slot);
        slot
    }

    fn give(&mut self, slot: u64) -> Option<u64> {
        if self.last.is_some_and(|last| slot <= last) {
            return None;
        }
        self.last = Some(slot);
        Some(slot)
    }

    fn centre(&mut self, position: f64) {
        self.bias = (0.5 - position.fract()).rem_euclid(1.0);
        self.phase = 0.5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanos(frames: f64) -> u64 {
        (frames / 30.0 * 1e9) as u64
    }

    proptest! {
        #[test]
        fn a_steady_input_fills_every_slot_once_in_any_phase_and_with_jitter(
            phase in 0.0f64..1.0,
            jitter in proptest::collection::vec(-0.2f64..0.2, 200),
        ) {
            let mut snapper = Snapper::new(Mode::default());
            let mut slots = Vec::new();
            for (n, jitter) in jitter.iter().enumerate() {
                let jitter = if n == 0 { 0.0 } else { *jitter };
                slots.push(snapper.snap(nanos(100.0 + n as f64 + phase + jitter)));
            }
            let first = slots[0].unwrap();
            for (n, slot) in slots.iter().enumerate() {
                prop_assert_eq!(*slot, Some(first + n as u64));
            }
            // Never later than one frame after it was due, and never much earlier.
            prop_assert!((100..=101).contains(&first));
        }

        #[test]
        fn slots_only_ever_go_forward(times in proptest::collection::vec(0u64..10_000_000_000, 1..100)) {
            let mut snapper = Snapper::new(Mode::default());
            let mut last = None;
            for (n, time) in times.into_iter().enumerate() {
                let slot = if n % 7 == 6 { Some(snapper.next_free(time)) } else { snapper.snap(time) };
                if let Some(slot) = slot {
                    prop_assert!(last.is_none_or(|last| slot > last));
                    last = Some(slot);
                }
            }
        }
    }

    #[test]
    fn a_source_at_twice_the_rate_loses_every_second_picture() {
        let mut snapper = Snapper::new(Mode::default());
        let given = (0..200).filter(|n| snapper.snap(nanos(f64::from(*n) / 2.0)).is_some()).count();
        assert!((99..=101).contains(&given), "{given}");
    }

    #[test]
    fn slow_drift_costs_one_picture_per_whole_slot() {
        let mut snapper = Snapper::new(Mode::default());
        let mut slots = Vec::new();
        for n in 0..10_000 {
            slots.extend(snapper.snap(nanos(f64::from(n) * 0.9999)));
        }
        assert!(slots.len() >= 9_996, "{}", slots.len());
    }
}
