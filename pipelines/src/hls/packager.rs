//! Cuts encoded pictures and sound into segments and parts. Pure: units in, packed bytes out, time only in their stamps.
//!
//! A segment begins with a key frame and lasts at least a second; at two seconds a key frame is asked for, so that segments
//! are about that long whoever else asks the encoder for key frames. A part is cut when the picture that begins the next one
//! is here: durations are differences of stamps and never guessed, for the price of one frame.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::mux::{self, AUDIO_SCALE, ParameterSets, Sample, VIDEO_SCALE};
use crate::fanout::CodedUnit;
use crate::sdp::MediaKind;

/// Parts are at most this long. Shorter ones buy little latency and cost every viewer two requests each.
pub const PART: Duration = Duration::from_millis(500);
/// A segment is at least this long.
pub const SEGMENT_LEAST: Duration = Duration::from_secs(1);
/// From here on a key frame is asked for.
pub const SEGMENT_WISH: Duration = Duration::from_secs(2);
/// An encoder that gives no key frame for so long is given up, and waited for. Rounded it is the target duration of 3 s.
pub const SEGMENT_MOST: Duration = Duration::from_millis(3400);
/// A key frame that was asked for and does not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a part waits for sound that is later than its pictures.
const LATE_SOUND: Duration = Duration::from_millis(250);
/// Blocks of sound that may wait for pictures: ten seconds.
const MOST_SOUND: usize = 500;
/// Stamps of sound that are off by no more than this are put right, so that rounding leaves no gaps.
const SOUND_SNAP: u64 = 480;
/// Stamps of frame slots are rounded.
const ROUNDING: u64 = 1_000_000;

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed {
    /// A stream begins, or begins anew: its initialization segment.
    Began(Bytes),
    /// A part is complete.
    Part(PackedPart),
    /// The encoder should make a key frame.
    KeyframeWanted,
}

/// A part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPart {
    /// `moof` and `mdat`.
    pub data: Bytes,
    /// Length of its pictures.
    pub duration: Duration,
    /// Whether a decoder can begin in it.
    pub independent: bool,
    /// Whether it is the last one of its segment.
    pub closes: bool,
}

#[derive(Debug)]
struct Frame {
    at: u64,
    duration: u64,
    key: bool,
    data: Vec<u8>,
}

/// Where a part ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Part,
    Segment,
    /// No key frame came.
    Broken,
}

/// See the module.
#[derive(Debug)]
pub struct Packager {
    size: (u32, u32),
    sets: Option<ParameterSets>,
    /// Stamp of the first picture ever: zero of the media's time.
    origin: Option<u64>,
    /// Stamp of the first picture of the segment; `None` while a key frame is waited for.
    segment: Option<u64>,
    asked: Option<u64>,
    /// The pictures since the last cut.
    video: VecDeque<Frame>,
    audio: VecDeque<(u64, Vec<u8>)>,
    /// Up to where there is sound.
    heard: Option<u64>,
    /// The tick at which the next block of sound is expected.
    sound_goes_on: Option<u64>,
    sequence: u32,
    first_segment: bool,
    out: VecDeque<Packed>,
}

impl Packager {
    /// For pictures of this size in pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            size: (width, height),
            sets: None,
            origin: None,
            segment: None,
            asked: None,
            video: VecDeque::new(),
            audio: VecDeque::new(),
            heard: None,
            sound_goes_on: None,
            sequence: 0,
            first_segment: true,
            out: VecDeque::new(),
        }
    }

    /// Takes one unit.
    pub fn handle(&mut self, unit: &CodedUnit) {
        match unit.kind {
            MediaKind::Audio => self.sound(unit),
            MediaKind::Video => self.picture(unit),
        }
        while let Some((count, cut)) = self.next_cut() {
            self.pack(count, cut);
        }
    }

    /// Units were lost on the way: the stream begins anew with the next key frame.
    pub fn handle_loss(&mut self) {
        self.segment = None;
        self.sets = None;
        self.video.clear();
        self.audio.clear();
    }

    /// What came of it.
    pub fn poll_output(&mut self) -> Option<Packed> {
        self.out.pop_front()
    }

    fn sound(&mut self, unit: &CodedUnit) {
        let end = unit.at.saturating_add(unit.duration);
        if self.heard.is_some_and(|heard| end <= heard) {
            return;
        }
        self.heard = Some(end);
        if self.audio.len() == MOST_SOUND {
            self.audio.pop_front();
        }
        self.audio.push_back((unit.at, unit.data.to_vec()));
    }

    fn picture(&mut self, unit: &CodedUnit) {
        if self.video.back().is_some_and(|last| unit.at <= last.at) {
            return;
        }
        let (data, sets) = mux::sample_of(&unit.data);
        if data.is_empty() {
            return;
        }
        match self.segment {
            None if unit.keyframe => {
                if let Some(sets) = sets {
                    self.begin(unit.at, sets);
                }
            }
            // Another size or profile in the middle of it all.
            Some(_) if unit.keyframe && sets.is_some() && sets != self.sets => {
                if let Some(sets) = sets {
                    self.flush(unit.at);
                    self.begin(unit.at, sets);
                }
            }
            _ => {}
        }
        let begun = self.segment;
        if begun.is_some() {
            self.video.push_back(Frame { at: unit.at, duration: unit.duration, key: unit.keyframe, data });
        }
        let wish = if self.first_segment { SEGMENT_LEAST } else { SEGMENT_WISH };
        let wanted = begun.is_none_or(|begun| unit.at.saturating_sub(begun) >= nanos(wish));
        let patient = self.asked.is_some_and(|asked| unit.at.saturating_sub(asked) < nanos(ASK_AGAIN));
        if wanted && !patient && !(unit.keyframe && begun.is_some()) {
            self.asked = Some(unit.at);
            self.out.push_back(Packed::KeyframeWanted);
        }
    }

    fn begin(&mut self, at: u64, sets: ParameterSets) {
        if self.sets.as_ref() != Some(&sets) {
            // Parameter sets that make no initialization segment are as good as none.
            let Ok(init) = mux::initialization(&sets, self.size.0, self.size.1) else { return };
            self.out.push_back(Packed::Began(init));
            self.sets = Some(sets);
        }
        self.origin.get_or_insert(at);
        self.audio.retain(|(heard, _)| *heard >= at);
        self.segment = Some(at);
        self.asked = None;
    }

    /// Packs what is left, up to a picture that does not belong to it.
    fn flush(&mut self, until: u64) {
        if !self.video.is_empty() {
            self.pack_until(self.video.len(), until, true);
        }
    }

    /// How many pictures the next part has, when it is complete, and how it ends.
    fn next_cut(&self) -> Option<(usize, Cut)> {
        let (segment, first, last) = (self.segment?, self.video.front()?, self.video.back()?);
        let found = self.video.iter().enumerate().skip(1).find_map(|(n, frame)| {
            let age = frame.at - segment;
            let cut = if frame.key && age >= nanos(SEGMENT_LEAST) {
                Cut::Segment
            } else if age >= nanos(SEGMENT_MOST) {
                Cut::Broken
            } else if frame.at.saturating_add(frame.duration) - first.at > nanos(PART) + ROUNDING {
                Cut::Part
            } else {
                return None;
            };
            Some((n, cut, frame.at))
        });
        let (count, cut, end) = found?;
        let sound_is_here =
            self.heard.is_none_or(|heard| heard >= end) || last.at >= end.saturating_add(nanos(LATE_SOUND));
        sound_is_here.then_some((count, cut))
    }

    fn pack(&mut self, count: usize, cut: Cut) {
        let end = self.video.get(count).map_or(0, |next| next.at);
        self.pack_until(count, end, cut != Cut::Part);
        match cut {
            Cut::Part => {}
            Cut::Segment => {
                self.segment = Some(end);
                self.asked = None;
                self.first_segment = false;
            }
            Cut::Broken => self.handle_loss(),
        }
    }

    fn pack_until(&mut self, count: usize, end: u64, closes: bool) {
        let origin = self.origin.unwrap_or_default();
        let frames: Vec<Frame> = self.video.drain(..count).collect();
        let begin = frames.first().map_or(end, |frame| frame.at);
        let independent = frames.iter().any(|frame| frame.key);
        let ends: Vec<u64> = frames.iter().skip(1).map(|frame| frame.at).chain([end]).collect();
        let video: Vec<Sample> = frames
            .into_iter()
            .zip(ends)
            .map(|(frame, end)| {
                let at = ticks(frame.at - origin, VIDEO_SCALE);
                let duration = ticks(end - origin, VIDEO_SCALE) - at;
                Sample { at, duration: length(duration), sync: frame.key, data: frame.data }
            })
            .collect();
        let audio = self.sound_until(end, origin);
        self.sequence = self.sequence.wrapping_add(1);
        if let Ok(data) = mux::fragment(self.sequence, &video, &audio) {
            let duration = Duration::from_nanos(end - begin);
            self.out.push_back(Packed::Part(PackedPart { data, duration, independent, closes }));
        }
    }

    fn sound_until(&mut self, end: u64, origin: u64) -> Vec<Sample> {
        let count = self.audio.iter().take_while(|(at, _)| *at < end).count();
        let mut samples: Vec<Sample> = Vec::with_capacity(count);
        for (at, data) in self.audio.drain(..count) {
            let stamped = ticks(at.saturating_sub(origin), AUDIO_SCALE);
            let expected = self.sound_goes_on.filter(|expected| expected.abs_diff(stamped) <= SOUND_SNAP);
            let at = expected.unwrap_or(stamped);
            if let Some(before) = samples.last_mut() {
                before.duration = length(at.saturating_sub(before.at));
            }
            self.sound_goes_on = Some(at + u64::from(OPUS_TICKS));
            samples.push(Sample { at, duration: OPUS_TICKS, sync: true, data });
        }
        samples
    }
}

/// Length of our Opus packets, 20 ms, in ticks.
const OPUS_TICKS: u32 = AUDIO_SCALE / 50;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ticks(nanos: u64, scale: u32) -> u64 {
    u64::try_from(u128::from(nanos) * u128::from(scale) / 1_000_000_000).unwrap_or(u64::MAX)
}

fn length(ticks: u64) -> u32 {
    u32::try_from(ticks).unwrap_or(u32::MAX)
}
