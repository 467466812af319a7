//! Packager and playlist with an encoder that is some lines of a test.

use std::time::Duration;

use bytes::Bytes;
use mp4_atom::{Decode, Moof};
use proptest::prelude::*;

use super::packager::{PART, Packager, Packed, PackedPart, SEGMENT_LEAST, SEGMENT_MOST};
use super::playlist::{Found, PART_TARGET, Playlist, Reload, WINDOW};
use crate::fanout::CodedUnit;
use crate::sdp::MediaKind;

const KEY: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0, 1, 0x65, 0x88];
const DELTA: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a];

fn unit(kind: MediaKind, at: Duration, duration: Duration, keyframe: bool) -> CodedUnit {
    let data = match kind {
        MediaKind::Audio => Bytes::from_static(b"opus"),
        MediaKind::Video => Bytes::from_static(if keyframe { KEY } else { DELTA }),
    };
    CodedUnit { kind, at: at.as_nanos() as u64, duration: duration.as_nanos() as u64, keyframe, data }
}

/// An encoder at some rate, that makes a key frame every two seconds and when it is asked to.
struct Rig {
    packager: Packager,
    fps: u64,
    frame: u64,
    since_key: u64,
    sound: u64,
    /// Pictures that the sound is late by.
    late: u64,
    wanted: bool,
    obeys: bool,
    out: Vec<Packed>,
}

impl Rig {
    fn new(fps: u64) -> Self {
        let packager = Packager::new(640, 360);
        // An hour after the start, as a viewer would come.
        let frame = 3600 * fps;
        let sound = 3600 * 50;
        Self { packager, fps, frame, since_key: 7, sound, late: 0, wanted: false, obeys: true, out: Vec::new() }
    }

    fn at(&self, frame: u64) -> Duration {
        Duration::from_nanos(frame * 1_000_000_000 / self.fps)
    }

    fn frame(&mut self, ask: bool) {
        let key = self.obeys && (self.wanted || ask || self.since_key >= 2 * self.fps);
        self.wanted = false;
        self.since_key = if key { 1 } else { self.since_key + 1 };
        let (at, length) = (self.at(self.frame), self.at(1));
        self.packager.handle(&unit(MediaKind::Video, at, length, key));
        self.frame += 1;
        while Duration::from_millis(self.sound * 20) < self.at(self.frame - self.late) {
            let (at, length) = (Duration::from_millis(self.sound * 20), Duration::from_millis(20));
            self.packager.handle(&unit(MediaKind::Audio, at, length, true));
            self.sound += 1;
        }
        while let Some(packed) = self.packager.poll_output() {
            self.wanted |= packed == Packed::KeyframeWanted;
            self.out.push(packed);
        }
    }

    fn run(&mut self, frames: u64) {
        for _ in 0..frames {
            self.frame(false);
        }
    }

    fn parts(&self) -> Vec<&PackedPart> {
        self.out.iter().filter_map(|packed| if let Packed::Part(part) = packed { Some(part) } else { None }).collect()
    }

    fn begins(&self) -> usize {
        self.out.iter().filter(|packed| matches!(packed, Packed::Began(_))).count()
    }
}

/// Begin and end of a track's run in a fragment, in its ticks.
fn span(part: &PackedPart, track: u32) -> Option<(u64, u64)> {
    let moof = Moof::decode(&mut &part.data[..]).expect("a moof");
    let traf = moof.traf.iter().find(|traf| traf.tfhd.track_id == track)?;
    let begin = traf.tfdt.as_ref().expect("a time").base_media_decode_time;
    let length: u64 = traf.trun[0].samples.iter().map(|sample| u64::from(sample.duration.expect("a duration"))).sum();
    Some((begin, begin + length))
}

fn follows_the_rules(parts: &[&PackedPart]) {
    let (mut segment, mut video, mut audio) = (Duration::ZERO, 0, None);
    for (n, part) in parts.iter().enumerate() {
        assert!(part.duration <= PART_TARGET, "part {n}: {:?}", part.duration);
        assert!(part.closes || part.duration.as_secs_f64() >= PART_TARGET.as_secs_f64() * 0.85, "{:?}", part.duration);
        assert!(part.independent || segment > Duration::ZERO, "a segment begins with a key frame");
        segment += part.duration;
        if part.closes {
            assert!(segment >= SEGMENT_LEAST && segment < SEGMENT_MOST, "{segment:?}");
            segment = Duration::ZERO;
        }
        let (begin, end) = span(part, 1).expect("pictures");
        assert_eq!(begin, video, "pictures without gap or overlap");
        video = end;
        if let Some((begin, end)) = span(part, 2) {
            assert!(audio.is_none_or(|audio| audio == begin), "sound without gap or overlap: {audio:?} {begin}");
            audio = Some(end);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whoever_asks_for_key_frames_parts_and_segments_keep_their_lengths(
        fps in prop::sample::select(vec![10u64, 15, 24, 25, 30, 50, 60]),
        asks in prop::collection::vec(0u64..1200, 0..20),
        late in 0u64..4,
    ) {
        let mut rig = Rig::new(fps);
        rig.late = late;
        for n in 0..20 * fps {
            rig.frame(asks.contains(&n));
        }
        prop_assert_eq!(rig.begins(), 1);
        prop_assert!(rig.parts().len() >= 34, "{}", rig.parts().len());
        follows_the_rules(&rig.parts());
    }
}

#[test]
fn the_first_segment_is_there_after_a_second_and_the_next_are_two_seconds_long() {
    let mut rig = Rig::new(30);
    rig.run(30 * 9);
    let mut lengths = Vec::new();
    let mut length = Duration::ZERO;
    for part in rig.parts() {
        length += part.duration;
        if part.closes {
            lengths.push(length.as_millis() / 100);
            length = Duration::ZERO;
        }
    }
    assert_eq!(lengths[0], 10);
    assert!(lengths[1..].iter().all(|length| (20..=21).contains(length)), "{lengths:?}");
}

#[test]
fn an_encoder_without_key_frames_ends_the_segment_and_is_asked_until_it_makes_one() {
    let mut rig = Rig::new(30);
    rig.run(30);
    rig.obeys = false;
    rig.run(30 * 6);
    let parts = rig.parts();
    assert!(parts.last().is_some_and(|part| part.closes));
    let asked = rig.out.iter().rev().take_while(|packed| **packed == Packed::KeyframeWanted).count();
    assert!((2..=4).contains(&asked), "{asked}");
    rig.obeys = true;
    rig.run(60);
    assert_eq!(rig.begins(), 2, "it begins anew, behind a discontinuity");
}

#[test]
fn a_part_waits_for_late_sound_and_not_for_sound_that_does_not_come() {
    let mut rig = Rig::new(30);
    rig.late = 5;
    rig.run(300);
    follows_the_rules(&rig.parts());
    let lag =
        |part: &PackedPart| span(part, 1).unwrap().1 as f64 / 90_000.0 - span(part, 2).unwrap().1 as f64 / 48_000.0;
    assert!(rig.parts().iter().skip(1).all(|part| lag(part).abs() < 0.03), "sound and pictures end together");
    let before = rig.parts().len();
    rig.late = rig.frame;
    rig.run(300);
    assert!(rig.parts().len() >= before + 17, "pictures go on alone");
}

#[test]
fn units_that_were_lost_begin_the_stream_anew() {
    let mut rig = Rig::new(30);
    rig.run(100);
    rig.packager.handle_loss();
    rig.run(100);
    assert_eq!(rig.begins(), 2);
    let after = rig.out.iter().rposition(|packed| matches!(packed, Packed::Began(_))).unwrap();
    assert!(matches!(&rig.out[after + 1..], [.., Packed::Part(_)]), "and goes on");
}

#[test]
fn no_bytes_of_an_encoder_make_the_packager_panic() {
    let mut packager = Packager::new(640, 360);
    for data in [
        &b""[..],
        &[0, 0, 1],
        &[0, 0, 1, 0x67, 0, 0, 1, 0x68, 0, 0, 1, 0x65],
        &[0, 0, 1, 0x67, 1, 1, 1, 1, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 1],
    ] {
        for at in [0, 5, u64::MAX, 3] {
            for kind in [MediaKind::Video, MediaKind::Audio] {
                let data = Bytes::copy_from_slice(data);
                packager.handle(&CodedUnit { kind, at, duration: u64::MAX, keyframe: true, data });
            }
        }
    }
}

fn part(millis: u64, closes: bool) -> PackedPart {
    let data = Bytes::from(vec![0; 1000]);
    PackedPart { data, duration: Duration::from_millis(millis), independent: true, closes }
}

/// A playlist with so many segments of two seconds, four parts each.
fn filled(segments: u64) -> Playlist {
    let mut playlist = Playlist::new(100, usize::MAX);
    playlist.begin(Bytes::from_static(b"init"));
    for n in 0..segments * 4 {
        playlist.push(part(PART.as_millis() as u64, n % 4 == 3), "2026-01-01T00:00:00.000Z");
    }
    playlist
}

fn names(text: &str) -> Vec<String> {
    let quoted =
        text.lines().filter(|line| !line.contains("PRELOAD-HINT")).filter_map(|line| line.split("URI=\"").nth(1));
    let quoted = quoted.filter_map(|rest| rest.split('"').next());
    quoted.chain(text.lines().filter(|line| !line.starts_with('#'))).map(str::to_owned).collect()
}

fn has(playlist: &Playlist, name: &str) -> bool {
    let number = |head: &str| name.strip_prefix(head).and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
    number("part-").is_some_and(|n| matches!(playlist.part(n), Found::Here(_)))
        || number("segment-").is_some_and(|n| playlist.segment(n).is_some())
        || number("init-").is_some_and(|n| playlist.init(n).is_some())
}

#[test]
fn what_was_listed_stays_for_a_playlists_length_and_memory_is_bounded() {
    let mut playlist = filled(1);
    let mut listed: Vec<(u64, Vec<String>)> = Vec::new();
    let mut most = 0;
    for n in 0..400 {
        playlist.push(part(500, n % 4 == 3), "2026-01-01T00:00:00.000Z");
        listed.push((n, names(&playlist.render(""))));
        let length = Duration::from_millis(500) * 4 * playlist.render("").matches("#EXTINF").count() as u32;
        assert!(n < 40 || (length >= WINDOW && length <= WINDOW + Duration::from_secs(4)), "{length:?}");
        // Fetched up to a playlist's length ago.
        let recent = listed.iter().filter(|(then, _)| (n - then) * 500 <= length.as_millis() as u64);
        for name in recent.flat_map(|(_, names)| names) {
            assert!(has(&playlist, name), "{name} is gone");
        }
        most = most.max(playlist.bytes());
    }
    assert!(most < 1000 * 2 * 40, "{most} bytes for forty seconds at two parts a second");
}

#[test]
fn a_stream_of_any_bitrate_holds_no_more_than_its_share() {
    let mut playlist = Playlist::new(0, 10_000);
    playlist.begin(Bytes::from_static(b"init"));
    for n in 0..100 {
        playlist.push(part(500, n % 4 == 3), "");
        assert!(playlist.bytes() <= 10_000 + 4_000);
    }
}

#[test]
fn a_reload_waits_for_what_it_asks_for_and_for_nothing_unreasonable() {
    let mut playlist = Playlist::new(100, usize::MAX);
    assert_eq!(playlist.reload(None, None), Reload::Later, "nothing to play yet");
    playlist.begin(Bytes::from_static(b"init"));
    for closes in [false, true, false] {
        playlist.push(part(500, closes), "");
    }
    // Segment 100 has two parts and is complete, 101 has one and grows.
    let cases = [
        (None, None, Reload::Now),
        (None, Some(0), Reload::Unreasonable),
        (Some(100), None, Reload::Now),
        (Some(100), Some(1), Reload::Now),
        (Some(100), Some(2), Reload::Now),
        (Some(101), Some(0), Reload::Now),
        (Some(101), None, Reload::Later),
        (Some(101), Some(1), Reload::Later),
        (Some(101), Some(40), Reload::Unreasonable),
        (Some(102), None, Reload::Later),
        (Some(102), Some(0), Reload::Later),
        (Some(103), None, Reload::Unreasonable),
        (Some(u64::MAX), Some(u64::MAX), Reload::Unreasonable),
        (Some(0), Some(u64::MAX), Reload::Now),
    ];
    for (segment, part, expected) in cases {
        assert_eq!(playlist.reload(segment, part), expected, "{segment:?} {part:?}");
    }
    playlist.push(part(500, true), "");
    assert_eq!(playlist.reload(Some(101), Some(2)), Reload::Later, "the first part of the segment after it");
    playlist.push(part(500, false), "");
    assert_eq!(playlist.reload(Some(101), Some(2)), Reload::Now);
}

#[test]
fn the_hinted_part_is_the_next_one_even_when_a_segment_ends_before_it() {
    let mut playlist = filled(2);
    for closes in [false, true, false] {
        let text = playlist.render("");
        let hint = text.split("PRELOAD-HINT:TYPE=PART,URI=\"part-").nth(1).unwrap();
        let number: u64 = hint.split('.').next().unwrap().parse().unwrap();
        assert_eq!(playlist.part(number), Found::Next);
        playlist.push(part(500, closes), "");
        assert!(matches!(playlist.part(number), Found::Here(_)));
        assert_eq!(playlist.part(number + 2), Found::Nothing);
    }
}

#[test]
fn a_stream_that_begins_anew_has_a_discontinuity_that_is_counted_when_it_left() {
    let mut playlist = filled(3);
    let sequence = |text: &str| -> u64 {
        let rest = text.split("DISCONTINUITY-SEQUENCE:").nth(1).unwrap();
        rest.lines().next().unwrap().parse().unwrap()
    };
    let before = sequence(&playlist.render(""));
    playlist.begin(Bytes::from_static(b"another"));
    let mut seen = 0;
    for n in 0..80 {
        playlist.push(part(500, n % 4 == 3), "");
        let text = playlist.render("");
        let tags = text.matches("#EXT-X-DISCONTINUITY\n").count() as u64;
        assert_eq!(sequence(&text) + tags, before + 1, "{text}");
        assert_eq!(text.matches("#EXT-X-MAP").count() as u64, 1 + tags);
        seen += tags;
    }
    assert!(seen > 10 && playlist.render("").matches("DISCONTINUITY\n").count() == 0);
}

#[test]
fn a_token_stands_in_every_address() {
    let text = filled(8).render("?token=abc");
    let names = names(&text);
    assert!(names.len() > 15 && names.iter().all(|name| name.ends_with("?token=abc")), "{names:?}");
    assert!(text.lines().last().is_some_and(|hint| hint.contains("PRELOAD-HINT") && hint.ends_with("?token=abc\"")));
}
