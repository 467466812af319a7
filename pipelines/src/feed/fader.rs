//! What the crew does to an input on its way to the programme: its level, muted or not, and a curtain before it.
//!
//! It belongs to the feed, so that it outlives the programme, the actors and the guest in the seat.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Softest level that is not silence, in dB.
pub const LOWEST_DB: f32 = -60.0;
/// Loudest level, in dB: for a guest who whispers; more would only lift the noise.
pub const HIGHEST_DB: f32 = 12.0;

/// An input's fader and curtain; read by whoever takes its pictures and sound.
#[derive(Debug)]
pub struct Fader {
    level_db: AtomicU32,
    muted: AtomicBool,
    curtain: AtomicBool,
}

impl Default for Fader {
    /// 0 dB, heard and seen.
    fn default() -> Self {
        Self { level_db: AtomicU32::new(0f32.to_bits()), muted: false.into(), curtain: false.into() }
    }
}

impl Fader {
    /// The level in dB, muted or not.
    pub fn level_db(&self) -> f32 {
        f32::from_bits(self.level_db.load(Ordering::Relaxed))
    }

    /// Sets the level: [`LOWEST_DB`] to [`HIGHEST_DB`], whatever is beyond is brought there; what is no number is 0 dB.
    pub fn set_level_db(&self, level: f32) {
        let level = if level.is_nan() { 0.0 } else { level.clamp(LOWEST_DB, HIGHEST_DB) };
        self.level_db.store(level.to_bits(), Ordering::Relaxed);
    }

    /// Whether the crew has muted it.
    pub fn is_muted(&self) -> bool {
        self.muted.load(Ordering::Relaxed)
    }

    /// Mutes it, or not any more; the level stays.
    pub fn set_muted(&self, muted: bool) {
        self.muted.store(muted, Ordering::Relaxed);
    }

    /// Whether it is kept from the programme: only the crew sees it.
    pub fn is_curtained(&self) -> bool {
        self.curtain.load(Ordering::SeqCst)
    }

    /// Draws the curtain or opens it, from the next picture and sound on.
    pub fn set_curtain(&self, drawn: bool) {
        self.curtain.store(drawn, Ordering::SeqCst);
    }

    /// The factor for its samples: 1 at 0 dB, 0 while it is muted or behind the curtain.
    pub fn gain(&self) -> f32 {
        if self.is_muted() || self.is_curtained() { 0.0 } else { 10f32.powf(self.level_db() / 20.0) }
    }
}

/// Sound (S16LE stereo) multiplied by a factor that goes from one value to another within it, so that nothing clicks. Shares
/// its samples when there is nothing to do.
pub fn fade(sound: &gst::Buffer, from: f32, to: f32) -> gst::Buffer {
    let faded = |samples: &[u8]| -> Vec<u8> {
        let frames = (samples.len() / 4).max(1) as f32;
        let step = (to - from) / frames;
        let scaled = samples.chunks_exact(2).enumerate().flat_map(|(n, bytes)| {
            let factor = from + step * ((n / 2 + 1) as f32);
            let sample = f32::from(i16::from_le_bytes([bytes[0], bytes[1]])) * factor;
            // The cast saturates: too loud is clipped, never wrapped.
            (sample as i16).to_le_bytes()
        });
        scaled.collect()
    };
    if from == 1.0 && to == 1.0 {
        return sound.copy();
    }
    let Ok(map) = sound.map_readable() else { return sound.copy() };
    let mut buffer = gst::Buffer::from_mut_slice(faded(map.as_slice()));
    if let Some(stamped) = buffer.get_mut() {
        stamped.set_duration(sound.duration());
    }
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(value: i16) -> gst::Buffer {
        gst::init().unwrap();
        gst::Buffer::from_mut_slice([value.to_le_bytes(); 200].concat())
    }

    fn samples(buffer: &gst::Buffer) -> Vec<i16> {
        let map = buffer.map_readable().unwrap();
        map.chunks_exact(2).map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]])).collect()
    }

    #[test]
    fn a_fader_at_nought_leaves_sound_alone_and_a_muted_one_leaves_none() {
        let fader = Fader::default();
        assert_eq!(samples(&fade(&sound(1000), fader.gain(), fader.gain())), [1000; 200]);
        fader.set_level_db(-6.0206);
        assert!(samples(&fade(&sound(1000), fader.gain(), fader.gain())).iter().all(|one| (499..=501).contains(one)));
        fader.set_muted(true);
        assert_eq!(samples(&fade(&sound(1000), fader.gain(), fader.gain())), [0; 200]);
        assert!((fader.level_db() + 6.0206).abs() < 1e-3);
    }

    #[test]
    fn a_change_is_a_ramp_and_too_loud_is_clipped() {
        let ramp = samples(&fade(&sound(1000), 1.0, 0.0));
        assert!(ramp.windows(2).all(|pair| pair[0] >= pair[1]) && ramp[0] > 950 && ramp[199] < 20, "{ramp:?}");
        assert_eq!(samples(&fade(&sound(20_000), 4.0, 4.0)), [i16::MAX; 200]);
        let fader = Fader::default();
        fader.set_level_db(99.0);
        assert_eq!(fader.level_db(), HIGHEST_DB);
        fader.set_level_db(f32::NAN);
        assert_eq!(fader.level_db(), 0.0);
    }
}
