//! Lips and voice of a guest kept together by its sender reports. Pure: no clock in here.
//!
//! A report says which moment of the sender's clock a time stamp stands for, so it is known when a packet was captured; the
//! jitter buffer says for when it puts that packet. The difference is what the stream's way took, up to a constant that both
//! streams share. Whichever took less is held back by as much as it took less. Without reports of both streams nothing is held
//! back, and lip-sync goes by arrival.
//!
//! A sender's clock is a stranger's word. A difference beyond [`LONGEST`] is not believed; a sudden change is only followed when
//! reports of both streams agree on it: while a clock is being set, one stream's report is from before it and the other's not.

use crate::peer::SenderClock;
use crate::sdp::MediaKind;

/// Streams further apart than this are not believed to be (nanoseconds). The waiting rooms hold three seconds.
const LONGEST: i64 = 2_000_000_000;
/// A change of more than this is a step, which wants to be confirmed (nanoseconds).
const STEP: i64 = 80_000_000;
/// Confirmed is what is no further from it than this (nanoseconds).
const AGREES: i64 = 40_000_000;
/// Changes smaller than this are not passed on: every one costs a small seam in the sound (nanoseconds). Nobody notices 20 ms.
const DEAD_BAND: i64 = 15_000_000;
/// Share of a deviation that is followed with each report, as a shift: a quarter.
const FOLLOW: u32 = 2;

/// How long each kind is held back beyond its latency, in nanoseconds. One of them is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HoldBack {
    pub(super) video: i64,
    pub(super) audio: i64,
}

#[derive(Debug, Default)]
struct Way {
    clock_rate: u32,
    /// The last packet that left the jitter buffer: its time stamp, and for when (nanoseconds of the pipeline).
    put: Option<(u32, u64)>,
    /// What the way takes, up to the constant (nanoseconds).
    took: Option<i64>,
}

/// Follows the two streams of one guest.
#[derive(Debug, Default)]
pub(super) struct LipSync {
    video: Way,
    audio: Way,
    /// How much longer the pictures' way is than the sound's.
    offset: Option<i64>,
    /// A step that one kind has reported and the other has not confirmed.
    step: Option<(i64, MediaKind)>,
    told: HoldBack,
}

impl LipSync {
    /// A stream begins, or begins anew with another codec: what was known of its way is void.
    pub(super) fn handle_stream(&mut self, kind: MediaKind, clock_rate: u32) {
        *self.way(kind) = Way { clock_rate: clock_rate.max(1), ..Way::default() };
    }

    /// A packet left the jitter buffer, to be due at `at` nanoseconds of the pipeline.
    pub(super) fn handle_put(&mut self, kind: MediaKind, timestamp: u32, at: u64) {
        self.way(kind).put = Some((timestamp, at));
    }

    /// A sender report came. Answers when something has to be held back otherwise than before.
    pub(super) fn handle_report(&mut self, kind: MediaKind, report: SenderClock) -> Option<HoldBack> {
        let way = self.way(kind);
        let (timestamp, at) = way.put.filter(|_| report.ntp != 0)?;
        // The wrap of the time stamps, every 13 h at 90 kHz, is one of this difference's too.
        let ahead = i64::from(timestamp.wrapping_sub(report.rtp) as i32) * 1_000_000_000 / i64::from(way.clock_rate);
        let captured = ntp_nanos(report.ntp).wrapping_add(ahead);
        way.took = Some((at as i64).wrapping_sub(captured));
        let offset = self.video.took?.wrapping_sub(self.audio.took?);
        self.follow(kind, offset).then(|| self.hold_back()).flatten()
    }

    /// How much later pictures are under way than sound, in nanoseconds; `None` while it is not known.
    pub(super) fn offset(&self) -> Option<i64> {
        self.offset
    }

    fn way(&mut self, kind: MediaKind) -> &mut Way {
        match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        }
    }

    /// Whether the offset may have changed.
    fn follow(&mut self, kind: MediaKind, seen: i64) -> bool {
        if seen.saturating_abs() > LONGEST {
            self.step = None;
            return false;
        }
        let Some(offset) = self.offset else {
            self.offset = Some(seen);
            return true;
        };
        if (seen - offset).abs() <= STEP {
            self.step = None;
            self.offset = Some(offset + ((seen - offset) >> FOLLOW));
            return true;
        }
        match self.step {
            Some((step, by)) if (seen - step).abs() <= AGREES => {
                if by == kind {
                    return false;
                }
                (self.offset, self.step) = (Some(seen), None);
                true
            }
            _ => {
                self.step = Some((seen, kind));
                false
            }
        }
    }

    fn hold_back(&mut self) -> Option<HoldBack> {
        let offset = self.offset?;
        let wanted = HoldBack { video: (-offset).max(0), audio: offset.max(0) };
        let told = self.told.audio - self.told.video;
        if (offset - told).abs() < DEAD_BAND {
            return None;
        }
        self.told = wanted;
        Some(wanted)
    }
}

/// NTP's 64 bits in nanoseconds; only differences mean anything.
fn ntp_nanos(ntp: u64) -> i64 {
    let (seconds, fraction) = (ntp >> 32, ntp & 0xffff_ffff);
    (seconds as i64) * 1_000_000_000 + ((fraction * 1_000_000_000) >> 32) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: i64 = 1_000_000;

    /// A sender whose clock shows this many milliseconds since 1900 at the test's time 0.
    struct Sender {
        sync: LipSync,
        clock: u64,
        /// Time stamps at the test's time 0.
        stamps: (u32, u32),
        /// What the ways take, in ms.
        ways: (u64, u64),
    }

    impl Sender {
        fn new(ways: (u64, u64)) -> Self {
            let mut sync = LipSync::default();
            sync.handle_stream(MediaKind::Video, 90_000);
            sync.handle_stream(MediaKind::Audio, 48_000);
            Self { sync, clock: 3_900_000_000_000, stamps: (u32::MAX - 90_000, u32::MAX - 480), ways }
        }

        fn stamp(&self, kind: MediaKind, ms: u64) -> u32 {
            match kind {
                MediaKind::Video => self.stamps.0.wrapping_add((ms * 90) as u32),
                MediaKind::Audio => self.stamps.1.wrapping_add((ms * 48) as u32),
            }
        }

        /// A packet captured at `ms` is put out, and a report of that moment comes.
        fn report(&mut self, kind: MediaKind, ms: u64) -> Option<HoldBack> {
            let way = if kind == MediaKind::Video { self.ways.0 } else { self.ways.1 };
            let (stamp, early) = (self.stamp(kind, ms), self.stamp(kind, ms.saturating_sub(300)));
            self.sync.handle_put(kind, early, (ms.saturating_sub(300) + way) * MS as u64);
            let clock = self.clock + ms;
            let ntp = ((clock / 1000) << 32) | (((clock % 1000) << 32) / 1000);
            self.sync.handle_report(kind, SenderClock { ntp, rtp: stamp })
        }

        fn run(&mut self, seconds: std::ops::Range<u64>) -> Option<HoldBack> {
            let mut last = None;
            for second in seconds {
                last = self.report(MediaKind::Video, second * 1000 + 400).or(last);
                last = self.report(MediaKind::Audio, second * 1000 + 900).or(last);
            }
            last
        }
    }

    fn near(value: i64, ms: i64) -> bool {
        (value - ms * MS).abs() < MS
    }

    #[test]
    fn the_stream_with_the_shorter_way_is_held_back_across_wraps_of_the_time_stamps() {
        for (ways, expected) in [((200, 50), (0, 150)), ((50, 200), (150, 0))] {
            let held = Sender::new(ways).run(0..3).unwrap();
            assert!(near(held.video, expected.0) && near(held.audio, expected.1), "{ways:?}: {held:?}");
        }
    }

    #[test]
    fn nothing_is_held_back_without_reports_of_both_or_for_less_than_anybody_notices() {
        let mut sender = Sender::new((200, 50));
        assert_eq!(sender.report(MediaKind::Video, 0), None);
        assert_eq!(sender.report(MediaKind::Video, 1000), None);
        assert_eq!(Sender::new((60, 50)).run(0..10), None);
    }

    #[test]
    fn a_way_that_grows_is_followed_when_both_streams_say_so() {
        let mut sender = Sender::new((50, 50));
        assert_eq!(sender.run(0..5), None);
        sender.ways.0 = 250;
        assert_eq!(sender.report(MediaKind::Video, 5400), None);
        let held = sender.report(MediaKind::Audio, 5900).unwrap();
        assert!(near(held.audio, 200) && held.video == 0, "{held:?}");
    }

    #[test]
    fn a_sender_that_sets_its_clock_moves_nothing() {
        let mut sender = Sender::new((200, 50));
        let held = sender.run(0..5).unwrap();
        for step in [900, 90_000, 86_400_000] {
            sender.clock += step;
            let moved = sender.run(5..10);
            assert_eq!(moved, None, "after a step of {step} ms, with {held:?}");
        }
    }

    #[test]
    fn what_nobody_can_believe_is_ignored() {
        let mut sender = Sender::new((200, 50));
        let held = sender.run(0..5).unwrap();
        for ntp in [0, 1, u64::MAX, 1 << 63] {
            assert_eq!(sender.sync.handle_report(MediaKind::Audio, SenderClock { ntp, rtp: 7 }), None);
        }
        assert!(near(sender.sync.offset().unwrap(), 150), "{held:?}");
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_reports_nothing_is_held_back_beyond_the_bound(
            reports in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u32>(), any::<u32>(), 0u64..1 << 50), 0..60)
        ) {
            let mut sync = LipSync::default();
            sync.handle_stream(MediaKind::Video, 90_000);
            sync.handle_stream(MediaKind::Audio, 0);
            for (video, ntp, rtp, stamp, at) in reports {
                let kind = if video { MediaKind::Video } else { MediaKind::Audio };
                sync.handle_put(kind, stamp, at);
                if let Some(held) = sync.handle_report(kind, SenderClock { ntp, rtp }) {
                    prop_assert!((0..=LONGEST).contains(&held.video) && (0..=LONGEST).contains(&held.audio));
                    prop_assert!(held.video == 0 || held.audio == 0);
                }
            }
        }
    }
}
