//! Sound level of a block of samples.

/// What is reported for no sound at all, in dBFS (below the 96 dB of sixteen bits).
pub const SILENCE_DB: f32 = -100.0;

/// RMS level of interleaved S16LE samples in dBFS, 0 loudest, never below [`SILENCE_DB`].
pub fn rms_db(samples: &[u8]) -> f32 {
    let (count, sum) = samples.chunks_exact(2).fold((0u64, 0u64), |(count, sum), pair| {
        let value = i64::from(i16::from_le_bytes([pair[0], pair[1]]));
        (count + 1, sum + (value * value) as u64)
    });
    if count == 0 || sum == 0 {
        return SILENCE_DB;
    }
    let mean = sum as f64 / count as f64;
    let db = 10.0 * (mean / (32_768.0 * 32_768.0)).log10();
    (db as f32).max(SILENCE_DB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(value: i16) -> Vec<u8> {
        std::iter::repeat_n(value.to_le_bytes(), 960).flatten().collect()
    }

    #[test]
    fn full_scale_is_zero_half_is_minus_six_and_nothing_is_the_floor() {
        assert!(rms_db(&block(i16::MIN)).abs() < 0.001);
        assert!((rms_db(&block(16_384)) + 6.02).abs() < 0.01);
        assert_eq!(rms_db(&block(0)), SILENCE_DB);
        assert_eq!(rms_db(&[]), SILENCE_DB);
    }
}
