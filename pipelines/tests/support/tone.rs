//! How loud a tone is.

use std::collections::VecDeque;

/// Amplitude of a tone in samples at 48 kHz, in parts of full scale (Goertzel). Half a second of them tells two hertz apart.
pub fn amplitude(samples: &VecDeque<i16>, hz: f64) -> f64 {
    let turn = 2.0 * (std::f64::consts::TAU * hz / 48_000.0).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        (last, before) = (f64::from(*sample) + turn * last - before, last);
    }
    let power = last * last + before * before - turn * last * before;
    power.max(0.0).sqrt() * 2.0 / samples.len().max(1) as f64 / 32_768.0
}
