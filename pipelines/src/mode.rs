//! The programme's mode: the one picture size and rate that everything inside the box is made in.

use serde::{Deserialize, Serialize};

use crate::error::PipelineError;

/// Picture size in pixels and rate in frames per second, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    /// Pixels across, even, 64..=4096.
    pub width: u32,
    /// Pixels down, even, 64..=2304.
    pub height: u32,
    /// Frames per `fps_d` seconds.
    pub fps_n: u32,
    /// Seconds in which `fps_n` frames pass (1, or 1001 for NTSC rates).
    pub fps_d: u32,
}

impl Default for Mode {
    fn default() -> Self {
        Self { width: 1280, height: 720, fps_n: 30, fps_d: 1 }
    }
}

impl Mode {
    /// A mode with a whole number of frames per second.
    pub const fn new(width: u32, height: u32, fps: u32) -> Self {
        Self { width, height, fps_n: fps, fps_d: 1 }
    }

    /// Refuses sizes that 4:2:0 pictures cannot have and rates outside 1..=120.
    ///
    /// # Errors
    /// `Misconfigured`, naming the setting.
    pub fn validate(&self) -> Result<(), PipelineError> {
        let bad = |what: &str, reason: String| Err(PipelineError::misconfigured(what, reason));
        if !(64..=4096).contains(&self.width) || !self.width.is_multiple_of(2) {
            return bad("programme.width", format!("{} is not an even number from 64 to 4096", self.width));
        }
        if !(64..=2304).contains(&self.height) || !self.height.is_multiple_of(2) {
            return bad("programme.height", format!("{} is not an even number from 64 to 2304", self.height));
        }
        if self.fps_d == 0 || self.fps_n < self.fps_d || self.fps_n / self.fps_d > 120 {
            return bad("programme.fps", format!("{}/{} is not from 1 to 120", self.fps_n, self.fps_d));
        }
        Ok(())
    }

    /// Length of one frame slot in nanoseconds, rounded down.
    pub fn frame_nanos(&self) -> u64 {
        1_000_000_000 * u64::from(self.fps_d) / u64::from(self.fps_n)
    }

    /// Start of frame slot `n` in nanoseconds of running time.
    pub fn slot_start(&self, n: u64) -> u64 {
        let wide = u128::from(n) * 1_000_000_000 * u128::from(self.fps_d) / u128::from(self.fps_n);
        u64::try_from(wide).unwrap_or(u64::MAX)
    }

    /// The frame slot whose start is nearest to `nanos` of running time.
    pub fn nearest_slot(&self, nanos: u64) -> u64 {
        let period = 1_000_000_000 * u128::from(self.fps_d);
        let wide = (u128::from(nanos) * u128::from(self.fps_n) + period / 2) / period;
        u64::try_from(wide).unwrap_or(u64::MAX)
    }

    /// Frames per second as a number.
    pub fn fps(&self) -> f64 {
        f64::from(self.fps_n) / f64::from(self.fps_d)
    }

    /// Raw I420 caps in this mode. Colorimetry and siting are fixed, so that nothing downstream converts.
    pub fn video_caps(&self) -> gst::Caps {
        gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", self.width as i32)
            .field("height", self.height as i32)
            .field("framerate", gst::Fraction::new(self.fps_n as i32, self.fps_d as i32))
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .field("interlace-mode", "progressive")
            .field("colorimetry", "bt709")
            .field("chroma-site", "mpeg2")
            .build()
    }
}

/// Sample rate of every sound inside the box, in hertz (Opus's own rate, RFC 7587 section 4.1).
pub const AUDIO_RATE: u32 = 48_000;

/// Raw audio caps inside the box: S16LE, 48 kHz, stereo, which is what the Opus encoder takes unconverted.
pub fn audio_caps() -> gst::Caps {
    gst::Caps::builder("audio/x-raw")
        .field("format", "S16LE")
        .field("layout", "interleaved")
        .field("rate", AUDIO_RATE as i32)
        .field("channels", 2i32)
        .field("channel-mask", gst::Bitmask::new(0x3))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_ntsc_rates_do_not_drift() {
        let mode = Mode { width: 1280, height: 720, fps_n: 30_000, fps_d: 1001 };
        assert_eq!(mode.slot_start(30_000), 1001 * 1_000_000_000);
        for n in [0, 1, 2, 1_000, 1_000_000, 107_892] {
            assert_eq!(mode.nearest_slot(mode.slot_start(n)), n);
        }
    }

    #[test]
    fn odd_sizes_and_impossible_rates_are_refused_by_name() {
        let odd = Mode::new(1281, 720, 30).validate().unwrap_err();
        assert_eq!(odd.to_string(), "programme.width: 1281 is not an even number from 64 to 4096");
        assert!(Mode { fps_d: 0, ..Mode::default() }.validate().is_err());
        assert!(Mode::new(1280, 720, 0).validate().is_err());
        assert!(Mode::default().validate().is_ok());
    }
}
