//! When to ask a guest for a key frame by our own observation. Pure.

use std::time::{Duration, Instant};

/// Packets without a decoded frame for this long: the decoder lacks its key frame.
const BLIND_AFTER: Duration = Duration::from_millis(500);

/// Asked again only after this long; a key frame needs its time, and a thin line does not need two.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Watches one stream from its first packet on.
#[derive(Debug, Default)]
pub(super) struct DecodeWatch {
    begun: Option<Instant>,
    asked: Option<Instant>,
}

impl DecodeWatch {
    /// One packet came, and this is when a frame was last decoded. True: ask now.
    pub(super) fn handle_packet(&mut self, now: Instant, last_decoded: Option<Instant>) -> bool {
        let Some(begun) = self.begun else {
            (self.begun, self.asked) = (Some(now), Some(now));
            return true;
        };
        let seen = last_decoded.map_or(begun, |at| at.max(begun));
        let blind = now.saturating_duration_since(seen) >= BLIND_AFTER;
        let due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_AGAIN);
        if blind && due {
            self.asked = Some(now);
        }
        blind && due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(decoding: impl Fn(u32) -> bool) -> Vec<u32> {
        let (mut watch, start) = (DecodeWatch::default(), Instant::now());
        let mut decoded = None;
        let mut asked = Vec::new();
        for n in 0..500u32 {
            let now = start + Duration::from_millis(u64::from(n) * 10);
            if watch.handle_packet(now, decoded) {
                asked.push(n * 10);
            }
            if decoding(n) {
                decoded = Some(now);
            }
        }
        asked
    }

    #[test]
    fn a_stream_that_decodes_is_asked_once_when_it_begins() {
        assert_eq!(asks(|_| true), [0]);
    }

    #[test]
    fn a_stream_that_never_decodes_is_asked_once_a_second() {
        assert_eq!(asks(|_| false), [0, 1000, 2000, 3000, 4000]);
    }

    #[test]
    fn a_decoder_that_falls_silent_is_noticed_after_half_a_second() {
        assert_eq!(asks(|n| n < 200), [0, 2490, 3490, 4490]);
    }
}
