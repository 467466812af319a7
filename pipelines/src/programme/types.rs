//! What a programme is told and what it tells.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::encoder::EncoderChoice;
use crate::feed::FeedStats;
use crate::mode::Mode;

/// One input's place on the programme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgrammeInput {
    /// Its id.
    pub id: String,
    /// What the crew calls it; it stands on the slate.
    pub label: String,
}

/// Everything a programme is built from. The list of inputs is fixed for its life: cameras first, then guest seats.
#[derive(Debug, Clone)]
pub struct ProgrammePlan {
    /// Picture size and rate.
    pub mode: Mode,
    /// At most 16.
    pub inputs: Vec<ProgrammeInput>,
    /// Which encoder, from [`crate::encoder::choose_encoder`]; `None` composes without encoding (benchmarks).
    pub encoder: Option<EncoderChoice>,
    /// Video bitrate in kbit/s, 100..=50,000.
    pub bitrate_kbps: u32,
}

/// What a programme reports by itself. Called on streaming threads: hand over and return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgrammeEvent {
    /// The first composed frame left the compositor.
    FirstFrame,
    /// A take landed: its ticket and how many frames it took (1 is the very next).
    TakeLanded {
        /// [`TakeTicket::id`].
        id: u64,
        /// Frames from the request to the first frame that shows it.
        frames: u64,
    },
    /// An input has a picture again.
    InputLive {
        /// The input's id.
        input: String,
    },
    /// An input's place shows the slate.
    InputSlated {
        /// The input's id.
        input: String,
        /// What the slate says.
        reason: String,
    },
    /// The pipeline itself broke; the programme has to be rebuilt.
    Failed {
        /// What GStreamer said.
        message: String,
    },
}

/// A take that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeTicket {
    /// Counts up from 1; [`ProgrammeEvent::TakeLanded`] carries it.
    pub id: u64,
    /// The output frame it is expected on, counted from the programme's first frame.
    pub frame: u64,
}

/// What the programme did, counted on the frames that left the compositor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProgrammeStats {
    /// Frames composed.
    pub frames: u64,
    /// Frame slots of the programme's clock without a frame.
    pub missed_slots: u64,
    /// Longest wall-clock time between two frames, in milliseconds, since the start or the last reset.
    pub longest_gap_ms: f64,
    /// Running time of the last frame, in seconds.
    pub running_time: f64,
    /// Frames per second over the last two seconds.
    pub fps: f64,
    /// Takes that landed.
    pub takes: u64,
    /// Frames from the last take's request to its first frame (1 is the very next frame).
    pub last_take_frames: u64,
    /// Wall-clock time of the same, in milliseconds.
    pub last_take_ms: f64,
    /// Frames that the encoder was too slow for.
    pub encoder_dropped: u64,
    /// RMS level of the mixed sound in dBFS, 0 loudest.
    pub level_db: f32,
    /// Preset level in force, 0 best.
    pub preset: u8,
    /// When the last frame left the compositor: a programme whose last frame is seconds old is stuck.
    #[serde(skip)]
    pub last_frame: Option<Instant>,
}

impl ProgrammeStats {
    /// How long ago the last frame was, or `None` before the first.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        self.last_frame.map(|last| now.saturating_duration_since(last))
    }
}

/// What the programme knows about one of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct InputOnProgramme {
    /// The input's id.
    pub id: String,
    /// Whether its own pictures are shown (else the slate is).
    pub live: bool,
    /// What the slate says, empty while live.
    pub reason: String,
    /// Pictures taken into frame slots.
    pub taken: u64,
    /// Pictures that came twice for one slot and were left out.
    pub surplus: u64,
    /// The attached feed's counters.
    pub feed: Option<FeedStats>,
}
