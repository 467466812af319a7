//! The playlist and what it lists (RFC 8216bis, sections 4.4 and 6.2). Pure: parts in, text and bytes out.
//!
//! Everything lies in memory, bounded by time and bytes. What left the playlist stays available for as long as a playlist is
//! that may still name it. Parts have running numbers of their own, so that the part that is hinted at is always the next
//! one, whether or not a segment ends before it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;

use super::packager::{PART, PackedPart, SEGMENT_MOST};

/// No segment is longer, rounded to whole seconds (section 4.4.3.1).
pub const TARGET: Duration = Duration::from_secs(SEGMENT_MOST.as_secs());
/// No part is longer (section 4.4.3.7). A little more than [`PART`]: at some rates a part is short of it by most of a frame,
/// and no part but a segment's last may be shorter than 85 % of this.
pub const PART_TARGET: Duration = Duration::from_millis(PART.as_millis() as u64 + 40);
/// How close to the end players should stay: three part targets (section 4.4.3.8).
const PART_HOLD_BACK: Duration = Duration::from_millis(PART_TARGET.as_millis() as u64 * 3);
/// What a playlist lists, at least: four target durations, so that a player that stalls for some seconds finds its place.
pub const WINDOW: Duration = Duration::from_secs(12);
/// Parts are listed with the segments of the last three target durations (section 6.2.2), rounded up to whole segments.
const PARTS_LISTED: Duration = Duration::from_secs(TARGET.as_secs() * 3);
/// Bytes that one stream may hold, whatever its bitrate; the oldest segments go first.
pub const MOST_BYTES: usize = 96 * 1024 * 1024;
/// How many segments beyond the last one may be asked for (section 6.2.5.2).
const MOST_AHEAD: u64 = 2;
/// How many parts beyond the last one may be asked for: those of three seconds (section 6.2.5.2, Advance Part Limit).
const MOST_PARTS_AHEAD: u64 = 3_000u64.div_ceil(PART_TARGET.as_millis() as u64);

/// What a request for a playlist gets (section 6.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The playlist as it is.
    Now,
    /// The playlist when there is more.
    Later,
    /// Nothing: it asks for what is too far ahead, or for a part of nothing.
    Unreasonable,
}

/// What a request for a part gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The bytes.
    Here(Bytes),
    /// It is hinted at, and will come.
    Next,
    /// There is no such thing, or no more.
    Nothing,
}

#[derive(Debug)]
struct Part {
    number: u64,
    data: Bytes,
    duration: Duration,
    independent: bool,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    init: u64,
    discontinuity: bool,
    /// Wall clock of its beginning.
    began: String,
    parts: Vec<Part>,
}

impl Segment {
    fn duration(&self) -> Duration {
        self.parts.iter().map(|part| part.duration).sum()
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.data.len()).sum()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Playlist {
    /// Complete segments, oldest first.
    segments: VecDeque<Segment>,
    /// How many of them are no longer listed.
    left: usize,
    /// The segment that grows.
    open: Option<Segment>,
    next_segment: u64,
    next_part: u64,
    /// Discontinuities before the first listed segment.
    discontinuities: u64,
    inits: VecDeque<(u64, Bytes)>,
    most_bytes: usize,
}

impl Playlist {
    /// An empty one whose numbers begin at `first`. Who restarts a stream under its old name must begin beyond all numbers of
    /// before; the seconds of the wall clock do, since no segment is shorter than one.
    pub fn new(first: u64, most_bytes: usize) -> Self {
        Self {
            segments: VecDeque::new(),
            left: 0,
            open: None,
            next_segment: first,
            // Three parts a second are the most: one that is short at the end of each segment.
            next_part: first.saturating_mul(4),
            // Another number than that of a stream before it, so that players do not take both for one. A small one: hls.js walks
            // through all numbers below it, which takes 40 s for seconds since 1970.
            discontinuities: first % 65_536,
            inits: VecDeque::new(),
            most_bytes,
        }
    }

    /// The stream begins, or begins anew.
    pub fn begin(&mut self, init: Bytes) {
        self.close();
        let number = self.inits.back().map_or(self.next_segment, |(last, _)| (last + 1).max(self.next_segment));
        self.inits.push_back((number, init));
        self.clear_out();
    }

    /// A part is complete; `clock` is the wall clock in RFC 3339.
    pub fn push(&mut self, part: PackedPart, clock: &str) {
        let Some((init, _)) = self.inits.back() else { return };
        let open = self.open.get_or_insert_with(|| {
            self.next_segment += 1;
            Segment {
                number: self.next_segment - 1,
                init: *init,
                discontinuity: self.segments.back().is_some_and(|last| last.init != *init),
                began: clock.to_owned(),
                parts: Vec::new(),
            }
        });
        let PackedPart { data, duration, independent, closes } = part;
        open.parts.push(Part { number: self.next_part, data, duration, independent });
        self.next_part += 1;
        if closes {
            self.close();
        }
        self.clear_out();
    }

    fn close(&mut self) {
        self.segments.extend(self.open.take());
    }

    /// Lets go what nobody can ask for any more, and what is too much.
    fn clear_out(&mut self) {
        let length = |segments: &mut dyn Iterator<Item = &Segment>| segments.map(Segment::duration).sum::<Duration>();
        while self.left + 1 < self.segments.len() && length(&mut self.segments.iter().skip(self.left + 1)) >= WINDOW {
            self.leave();
        }
        // A playlist that was fetched just before a segment left it names that segment for its own length.
        while self.left > 0 && length(&mut self.segments.iter().take(self.left).skip(1)) >= WINDOW + TARGET {
            self.forget();
        }
        while self.bytes() > self.most_bytes && self.segments.len() > 1 {
            if self.left == 0 {
                self.leave();
            }
            self.forget();
        }
        let oldest = self.segments.iter().chain(&self.open).map(|segment| segment.init).min();
        let current = self.inits.back().map(|(number, _)| *number);
        self.inits.retain(|(number, _)| Some(*number) >= oldest.or(current));
    }

    fn leave(&mut self) {
        let Some(next) = self.segments.get(self.left + 1) else { return };
        // The tag before the segment that is now the first is no longer read, so it is counted.
        self.discontinuities += u64::from(next.discontinuity);
        self.left += 1;
    }

    fn forget(&mut self) {
        self.segments.pop_front();
        self.left = self.left.saturating_sub(1);
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.segments.iter().chain(&self.open).map(Segment::bytes).sum()
    }

    /// What a request for the playlist gets, with its `_HLS_msn` and `_HLS_part`.
    pub fn reload(&self, segment: Option<u64>, part: Option<u64>) -> Reload {
        let Some(wanted) = segment else {
            // A playlist without a segment plays nowhere.
            return match part {
                Some(_) => Reload::Unreasonable,
                None if self.segments.is_empty() => Reload::Later,
                None => Reload::Now,
            };
        };
        let growing = self.open.as_ref().map_or(self.next_segment, |open| open.number);
        let parts = self.open.as_ref().map_or(0, |open| open.parts.len() as u64);
        if wanted > growing.saturating_add(MOST_AHEAD - 1) {
            return Reload::Unreasonable;
        }
        match part {
            // A part beyond the last of a complete segment is the first of the next one.
            Some(part) if wanted + 1 == growing && self.ended_before(wanted, part) => {
                if parts > 0 {
                    Reload::Now
                } else {
                    Reload::Later
                }
            }
            _ if wanted < growing => Reload::Now,
            Some(part) if wanted == growing && part >= parts.saturating_add(MOST_PARTS_AHEAD) => Reload::Unreasonable,
            Some(part) if wanted == growing && part < parts => Reload::Now,
            _ => Reload::Later,
        }
    }

    fn ended_before(&self, number: u64, part: u64) -> bool {
        let segment = self.segments.iter().rev().find(|segment| segment.number == number);
        segment.is_some_and(|segment| part >= segment.parts.len() as u64)
    }

    /// A part by its number.
    pub fn part(&self, number: u64) -> Found {
        if number == self.next_part {
            return Found::Next;
        }
        let mut parts = self.segments.iter().chain(&self.open).flat_map(|segment| &segment.parts);
        parts.find(|part| part.number == number).map_or(Found::Nothing, |part| Found::Here(part.data.clone()))
    }

    /// A complete segment by its number, in pieces.
    pub fn segment(&self, number: u64) -> Option<Vec<Bytes>> {
        let segment = self.segments.iter().find(|segment| segment.number == number)?;
        Some(segment.parts.iter().map(|part| part.data.clone()).collect())
    }

    /// An initialization segment by its number.
    pub fn init(&self, number: u64) -> Option<Bytes> {
        self.inits.iter().find(|(known, _)| *known == number).map(|(_, bytes)| bytes.clone())
    }

    /// The text; `query` is put after every address in it (empty, or with its question mark).
    pub fn render(&self, query: &str) -> String {
        let mut text = String::with_capacity(4096);
        let listed = self.segments.iter().skip(self.left);
        let first = listed.clone().next().or(self.open.as_ref()).map_or(self.next_segment, |segment| segment.number);
        let _ = write!(
            text,
            "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{}\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={:.3}\n#EXT-X-PART-INF:PART-TARGET={:.3}\n\
             #EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:{}\n#EXT-X-INDEPENDENT-SEGMENTS\n",
            TARGET.as_secs(),
            PART_HOLD_BACK.as_secs_f64(),
            PART_TARGET.as_secs_f64(),
            self.discontinuities,
        );
        let length: Duration = listed.clone().map(Segment::duration).sum();
        let (mut passed, mut init, mut begins) = (Duration::ZERO, None, true);
        for segment in listed {
            self.head(&mut text, segment, &mut init, begins, query);
            begins = false;
            passed += segment.duration();
            if length - passed < PARTS_LISTED {
                parts(&mut text, segment, query);
            }
            let seconds = segment.duration().as_secs_f64();
            let _ = write!(text, "#EXTINF:{seconds:.5},\nsegment-{}.m4s{query}\n", segment.number);
        }
        if let Some(open) = &self.open {
            self.head(&mut text, open, &mut init, begins, query);
            parts(&mut text, open, query);
        }
        let _ = writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-{}.m4s{query}\"", self.next_part);
        text
    }

    fn head(&self, text: &mut String, segment: &Segment, init: &mut Option<u64>, begins: bool, query: &str) {
        if segment.discontinuity && !begins {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if *init != Some(segment.init) {
            *init = Some(segment.init);
            let _ = writeln!(text, "#EXT-X-MAP:URI=\"init-{}.mp4{query}\"", segment.init);
        }
        let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", segment.began);
    }
}

fn parts(text: &mut String, segment: &Segment, query: &str) {
    for part in &segment.parts {
        let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
        let (seconds, number) = (part.duration.as_secs_f64(), part.number);
        let _ = writeln!(text, "#EXT-X-PART:DURATION={seconds:.5},URI=\"part-{number}.m4s{query}\"{independent}");
    }
}
