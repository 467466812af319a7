//! How a guest's line and its decoding are doing: rates over the last seconds, from counters that only grow. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use r58_pipelines::guest::GuestStats;
use r58_pipelines::peer::{Connectivity, MeterReading, PublisherStats};
use serde::{Deserialize, Serialize};

/// How far back rates and shares look.
const WINDOW: Duration = Duration::from_secs(5);
/// Looks closer together than this are one.
const STEP: Duration = Duration::from_millis(900);

/// Everything that is known of a guest's media at one moment, as it was counted.
#[derive(Debug, Clone)]
pub struct MediaSample {
    /// How far the connection is.
    pub connectivity: Connectivity,
    /// What arrives.
    pub peer: PublisherStats,
    /// What comes of it.
    pub pipeline: GuestStats,
    /// It offered sound and no picture.
    pub is_voice: bool,
}

/// One stream of a guest, over the last five seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamVitals {
    /// Packets that never came, also not when they were asked for again, in percent.
    pub loss_percent: f32,
    /// Packets that came after later ones: overtaken, or lost and sent again, in percent.
    pub recovered_percent: f32,
    /// Interarrival jitter in ms (RFC 3550, section 6.4.1).
    pub jitter_ms: f32,
    /// Bits received per second, in kbit/s.
    pub bitrate_kbps: u32,
}

/// A guest's line and decoding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestVitals {
    /// The pictures' stream, once it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<StreamVitals>,
    /// The sound's stream, once it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<StreamVitals>,
    /// Round trip in ms; absent with clients that do not say (browsers do).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f32>,
    /// Pictures decoded per second.
    pub decoded_fps: f32,
    /// Pixels across, of what the guest sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// `H264` or `VP8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
}

/// Follows one guest. Feed it a sample now and then.
#[derive(Debug, Default)]
pub struct VitalsCore {
    looks: VecDeque<(Instant, MediaSample)>,
}

impl VitalsCore {
    /// Whether a sample is wanted: about one a second.
    pub fn wants(&self, now: Instant) -> bool {
        self.looks.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= STEP)
    }

    /// Takes a sample.
    pub fn handle_sample(&mut self, now: Instant, sample: MediaSample) {
        self.looks.push_back((now, sample));
        while self.looks.len() > 2
            && self.looks.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW)
        {
            self.looks.pop_front();
        }
    }

    /// The newest sample.
    pub fn latest(&self) -> Option<&MediaSample> {
        self.looks.back().map(|(_, sample)| sample)
    }

    /// The state by the samples so far; `None` before the first.
    pub fn vitals(&self) -> Option<GuestVitals> {
        let ((from, before), (to, now)) = (self.looks.front()?, self.looks.back()?);
        let span = to.saturating_duration_since(*from).as_secs_f32();
        let decoded = now.pipeline.decoded_frames.saturating_sub(before.pipeline.decoded_frames) as f32;
        let rounded = |value: f32| (value * 10.0).round() / 10.0;
        Some(GuestVitals {
            video: now.peer.video.map(|reading| stream(before.peer.video, reading)),
            audio: now.peer.audio.map(|reading| stream(before.peer.audio, reading)),
            round_trip_ms: now.peer.round_trip.map(|trip| rounded(trip.as_secs_f32() * 1000.0)),
            decoded_fps: if span > 0.0 { rounded(decoded / span) } else { 0.0 },
            width: now.pipeline.size.map(|(width, _)| width),
            height: now.pipeline.size.map(|(_, height)| height),
            codec: now.pipeline.video_codec.map(|codec| codec.name().to_owned()),
        })
    }
}

fn stream(before: Option<MeterReading>, now: MeterReading) -> StreamVitals {
    // A stream that began anew within the window counts from its beginning.
    let before = before.filter(|before| before.packets <= now.packets && before.lost <= now.lost + now.packets);
    let before = before.unwrap_or_default();
    let arrived = now.packets.saturating_sub(before.packets);
    // What was missing before and has come since makes this negative: nothing was lost then.
    let lost = now.lost.saturating_sub(before.lost);
    let recovered = now.recovered.saturating_sub(before.recovered).min(arrived);
    let percent = |part: u64, of: u64| if of == 0 { 0.0 } else { (part as f32 * 1000.0 / of as f32).round() / 10.0 };
    StreamVitals {
        loss_percent: percent(lost, arrived + lost),
        recovered_percent: percent(recovered, arrived),
        jitter_ms: (now.jitter.as_secs_f32() * 10_000.0).round() / 10.0,
        bitrate_kbps: u32::try_from(now.bitrate / 1000).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use r58_pipelines::peer::Step;

    /// A guest from which nothing was heard yet.
    pub(in crate::guest) fn nothing() -> MediaSample {
        MediaSample {
            connectivity: Connectivity { candidates: 0, ice: Step::Waiting, dtls: Step::Waiting },
            peer: PublisherStats::default(),
            pipeline: GuestStats::default(),
            is_voice: false,
        }
    }

    fn sample(packets: u64, lost: u64, recovered: u64, frames: u64) -> MediaSample {
        let video = MeterReading {
            packets,
            lost,
            recovered,
            jitter: Duration::from_micros(16_240),
            bitrate: 1_500_400,
            ..MeterReading::default()
        };
        let mut sample = nothing();
        sample.peer =
            PublisherStats { video: Some(video), audio: None, round_trip: Some(Duration::from_micros(61_260)) };
        sample.pipeline.decoded_frames = frames;
        sample
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn shares_and_rates_are_those_of_the_last_five_seconds() {
        let (start, mut core) = (Instant::now(), VitalsCore::default());
        assert_eq!(core.vitals(), None);
        // A bad minute, long ago.
        core.handle_sample(start, sample(1000, 500, 0, 100));
        for second in 1..=10 {
            core.handle_sample(
                after(start, second),
                sample(1000 + second * 190, 500 + second * 10, second * 19, 100 + second * 30),
            );
        }
        let vitals = core.vitals().unwrap();
        let video = vitals.video.unwrap();
        assert_eq!((video.loss_percent, video.recovered_percent), (5.0, 10.0));
        assert_eq!((video.jitter_ms, video.bitrate_kbps), (16.2, 1500));
        assert_eq!((vitals.decoded_fps, vitals.round_trip_ms, vitals.audio), (30.0, Some(61.3), None));
    }

    #[test]
    fn a_gap_that_is_filled_later_is_no_loss_and_a_new_stream_counts_anew() {
        let (start, mut core) = (Instant::now(), VitalsCore::default());
        core.handle_sample(start, sample(100, 8, 0, 0));
        core.handle_sample(after(start, 1), sample(200, 0, 8, 0));
        assert_eq!(core.vitals().unwrap().video.unwrap().loss_percent, 0.0);
        core.handle_sample(after(start, 2), sample(19, 1, 0, 0));
        assert_eq!(core.vitals().unwrap().video.unwrap().loss_percent, 5.0);
    }

    #[test]
    fn a_sample_is_wanted_about_once_a_second() {
        let (start, mut core) = (Instant::now(), VitalsCore::default());
        assert!(core.wants(start));
        core.handle_sample(start, nothing());
        assert!(!core.wants(start + Duration::from_millis(200)) && core.wants(after(start, 1)));
        for second in 1..100 {
            core.handle_sample(after(start, second), nothing());
        }
        assert!(core.looks.len() <= 7);
    }
}
