//! What stands where in which frame: the pure plan that the compositor carries out.
//!
//! Every input has two pads on the compositor, one per bus. One bus is on air; a take draws its scene on the other one and
//! swaps. A cut swaps at one frame; a mix shows both for its duration. [`Stage::frame`] is asked once per output frame and
//! answers the complete state of all pads for exactly that frame, so a take can never be torn.
//!
//! How a mix looks right without grouping layers: a scene that fills the picture with one opaque slot is faded over (or off)
//! the other scene, which is exact. Between two scenes of several slots the new one fades in over black, which dims the old
//! scene by at most a quarter half-way.

use std::time::Duration;

use crate::error::PipelineError;
use crate::mode::Mode;
use crate::scene::Scene;

/// Longest mix. Longer is a mistake of the caller.
pub const LONGEST_MIX: Duration = Duration::from_secs(10);
/// Sound never jumps: full scale takes this long, also at a cut (nanoseconds).
const AUDIO_RAMP: u64 = 100_000_000;

const Z_UNDER: u32 = 16;
const Z_BLACK: u32 = 48;
const Z_OVER: u32 = 64;

/// How a scene comes on air.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// At one frame.
    Cut,
    /// Crossfade, 1 ms to [`LONGEST_MIX`].
    Mix {
        /// From the first mixed frame to the first frame of only the new scene.
        duration: Duration,
    },
}

/// State of one compositor pad: place and size in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PadState {
    /// Left edge.
    pub x: i32,
    /// Top edge.
    pub y: i32,
    /// Width.
    pub w: i32,
    /// Height.
    pub h: i32,
    /// Opacity, 0..=1; 0 costs nothing.
    pub alpha: f64,
    /// Order from the back.
    pub z: u32,
}

/// One of the two sets of compositor pads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// The first.
    A,
    /// The second.
    B,
}

impl Bus {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// All pads for one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct FramePlan {
    /// Per bus (A, B), per input.
    pub pads: [Vec<PadState>; 2],
    /// Opacity of the black picture between the buses, and its order.
    pub black: (f64, u32),
    /// Volume per input, 0..=1.
    pub gains: Vec<f64>,
    /// Tickets of the takes whose first frame this is.
    pub landed: Vec<u64>,
}

#[derive(Debug, Clone, Default)]
struct Drawn {
    /// Per input: place, opacity and order within the scene; `None` is not in the scene.
    slots: Vec<Option<PadState>>,
    fills: bool,
}

#[derive(Debug, Clone, Copy)]
struct Mix {
    start: u64,
    length: u64,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    drawn: Drawn,
    transition: Transition,
}

/// The pure mixer: takes go in, the state of every pad at every frame comes out.
#[derive(Debug)]
pub struct Stage {
    mode: Mode,
    inputs: Vec<String>,
    buses: [Drawn; 2],
    on_air: Bus,
    mix: Option<Mix>,
    pending: Vec<Pending>,
    next_ticket: u64,
    gains: Vec<f64>,
    last_frame: Option<u64>,
}

impl Stage {
    /// A black picture with these inputs in this fixed order.
    pub fn new(mode: Mode, inputs: &[String]) -> Self {
        let empty = Drawn { slots: vec![None; inputs.len()], fills: false };
        Self {
            mode,
            inputs: inputs.to_vec(),
            buses: [empty.clone(), empty],
            on_air: Bus::A,
            mix: None,
            pending: Vec::new(),
            next_ticket: 1,
            gains: vec![0.0; inputs.len()],
            last_frame: None,
        }
    }

    /// Puts a scene on air with the next frame. Takes before the same frame are carried out in their order.
    ///
    /// # Errors
    /// `Rejected` when the scene cannot be shown with these inputs, or the mix has no sensible length.
    pub fn take(&mut self, scene: &Scene, transition: Transition) -> Result<u64, PipelineError> {
        scene.validate(&self.inputs)?;
        if let Transition::Mix { duration } = transition
            && (duration < Duration::from_millis(1) || duration > LONGEST_MIX)
        {
            let reason = format!("a mix takes from 1 to {} ms", LONGEST_MIX.as_millis());
            return Err(PipelineError::Rejected(reason));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.push(Pending { ticket, drawn: self.draw(scene), transition });
        Ok(ticket)
    }

    /// The bus that the last landed take is on.
    pub fn on_air(&self) -> Bus {
        self.on_air
    }

    /// Whether a mix is under way.
    pub fn is_mixing(&self) -> bool {
        self.mix.is_some()
    }

    /// The state of all pads for the frame that starts at `pts` nanoseconds of running time. Frames are asked for in order.
    pub fn frame(&mut self, pts: u64) -> FramePlan {
        let landed = self.land(pts);
        let share = self.mix_share(pts);
        self.move_gains(pts, share);
        let new = self.on_air;
        let mut pads = [self.hidden(Bus::A), self.hidden(Bus::B)];
        let mut black = (0.0, Z_BLACK);
        match share {
            None => self.show(&mut pads, new, 1.0, Z_UNDER),
            Some(share) => {
                let (from, to) = (&self.buses[new.other().index()], &self.buses[new.index()]);
                if from.fills && !to.fills {
                    self.show(&mut pads, new, 1.0, Z_UNDER);
                    self.show(&mut pads, new.other(), 1.0 - share, Z_OVER);
                } else {
                    black.0 = if to.fills { 0.0 } else { share };
                    self.show(&mut pads, new.other(), 1.0, Z_UNDER);
                    self.show(&mut pads, new, share, Z_OVER);
                }
            }
        }
        self.last_frame = Some(pts);
        FramePlan { pads, black, gains: self.gains.clone(), landed }
    }

    fn land(&mut self, pts: u64) -> Vec<u64> {
        let mut landed = Vec::new();
        for take in std::mem::take(&mut self.pending) {
            // A take in the middle of a mix finishes that mix first.
            self.on_air = self.on_air.other();
            self.buses[self.on_air.index()] = take.drawn;
            self.mix = match take.transition {
                Transition::Cut => None,
                Transition::Mix { duration } => Some(Mix { start: pts, length: duration.as_nanos() as u64 }),
            };
            landed.push(take.ticket);
        }
        landed
    }

    /// How much of the new scene is there, or `None` when no mix is under way. The first frame of a mix already shows some
    /// of the new scene: a take is seen on the frame it lands on.
    fn mix_share(&mut self, pts: u64) -> Option<f64> {
        let mix = self.mix?;
        let passed = pts.saturating_sub(mix.start) + self.mode.frame_nanos();
        if passed >= mix.length {
            self.mix = None;
            return None;
        }
        Some(passed as f64 / mix.length as f64)
    }

    fn move_gains(&mut self, pts: u64, share: Option<f64>) {
        let passed = self.last_frame.map_or(self.mode.frame_nanos(), |last| pts.saturating_sub(last));
        let step = passed as f64 / AUDIO_RAMP as f64;
        for n in 0..self.gains.len() {
            let wanted =
                |bus: Bus| f64::from(u8::from(self.buses[bus.index()].slots[n].is_some_and(|s| s.alpha > 0.0)));
            let target = match share {
                None => wanted(self.on_air),
                Some(share) => wanted(self.on_air) * share + wanted(self.on_air.other()) * (1.0 - share),
            };
            let distance = (target - self.gains[n]).clamp(-step, step);
            self.gains[n] = (self.gains[n] + distance).clamp(0.0, 1.0);
        }
    }

    fn hidden(&self, bus: Bus) -> Vec<PadState> {
        let nowhere = PadState { x: 0, y: 0, w: self.mode.width as i32, h: self.mode.height as i32, alpha: 0.0, z: 0 };
        let places = self.buses[bus.index()].slots.iter();
        places.map(|slot| PadState { alpha: 0.0, z: 0, ..slot.unwrap_or(nowhere) }).collect()
    }

    fn show(&self, pads: &mut [Vec<PadState>; 2], bus: Bus, opacity: f64, base: u32) {
        for (pad, slot) in pads[bus.index()].iter_mut().zip(&self.buses[bus.index()].slots) {
            if let Some(slot) = slot {
                *pad = PadState { alpha: slot.alpha * opacity, z: base + slot.z, ..*slot };
            }
        }
    }

    fn draw(&self, scene: &Scene) -> Drawn {
        let mut order: Vec<usize> = (0..scene.slots.len()).collect();
        order.sort_by_key(|n| scene.slots[*n].z);
        let mut slots = vec![None; self.inputs.len()];
        for (rank, n) in order.into_iter().enumerate() {
            let slot = &scene.slots[n];
            if let Some(input) = self.inputs.iter().position(|input| *input == slot.source) {
                slots[input] = Some(self.place(slot, rank as u32));
            }
        }
        let whole = (0, 0, self.mode.width as i32, self.mode.height as i32);
        let visible: Vec<_> = slots.iter().flatten().filter(|s: &&PadState| s.alpha > 0.0).collect();
        let fills = matches!(visible[..], [s] if (s.x, s.y, s.w, s.h) == whole && s.alpha == 1.0);
        Drawn { slots, fills }
    }

    /// Whole, even pixels: half-sampled chroma has no odd ones.
    fn place(&self, slot: &crate::scene::Slot, z: u32) -> PadState {
        let even = |share: f64, size: u32| ((share * f64::from(size) / 2.0).round() as i32) * 2;
        let (x, y) = (even(slot.x_rel, self.mode.width), even(slot.y_rel, self.mode.height));
        let right = even(slot.x_rel + slot.w_rel, self.mode.width).min(self.mode.width as i32);
        let bottom = even(slot.y_rel + slot.h_rel, self.mode.height).min(self.mode.height as i32);
        PadState { x, y, w: (right - x).max(2), h: (bottom - y).max(2), alpha: slot.alpha, z }
    }
}

#[cfg(test)]
mod tests;
