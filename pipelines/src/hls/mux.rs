//! Fragmented MP4 (ISO/IEC 14496-12) of one H.264 and one Opus track: an initialization segment, then fragments. Pure.
//!
//! The boxes are written by `mp4-atom`. GStreamer's own fragmenting muxers do not fit: the crate `gst-plugin-fmp4` ends with
//! gstreamer-rs 0.24, its successor `gst-plugin-isobmff` wants GStreamer 1.26, and the `mp4mux` of 1.22 cuts neither parts
//! nor at key frames.

use bytes::Bytes;
use mp4_atom::{
    Audio, Avc1, Avcc, AvccExt, Codec, Dinf, Dops, Dref, DrefEntry, Encode, FourCC, Ftyp, Hdlr, Mdhd, Mdia, Mfhd, Minf,
    Moof, Moov, Mvex, Mvhd, Opus, Smhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry, Url,
    Visual, Vmhd,
};

use crate::mode::AUDIO_RATE;

/// Ticks a second of the video track (RFC 6184's clock, so that nothing is rounded twice).
pub const VIDEO_SCALE: u32 = 90_000;
/// Ticks a second of the audio track.
pub const AUDIO_SCALE: u32 = AUDIO_RATE;

const VIDEO_TRACK: u32 = 1;
const AUDIO_TRACK: u32 = 2;
/// Samples at 48 kHz that an Opus decoder throws away at the beginning: libopus's look-ahead.
const OPUS_PRE_SKIP: u16 = 312;
/// Sample flags (ISO/IEC 14496-12, section 8.8.3.1): depends on no other.
const SYNC: u32 = 0x0200_0000;
/// Depends on others, and is no sync sample.
const NOT_SYNC: u32 = 0x0101_0000;

/// What a decoder must know of the pictures before the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSets {
    /// Sequence parameter set, a NAL unit.
    pub sps: Vec<u8>,
    /// Picture parameter set, a NAL unit.
    pub pps: Vec<u8>,
}

/// One picture or block of sound as it goes into a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When, in ticks of its track.
    pub at: u64,
    /// How long, in ticks of its track.
    pub duration: u32,
    /// Whether a decoder can begin here.
    pub sync: bool,
    /// The bytes: NAL units with their lengths, or an Opus packet.
    pub data: Vec<u8>,
}

/// Splits an access unit (Annex B, ITU-T H.264) into a sample with four-byte lengths. Parameter sets and delimiters are left
/// out of it: they stand in the initialization segment, and are answered.
pub fn sample_of(access_unit: &[u8]) -> (Vec<u8>, Option<ParameterSets>) {
    let mut sample = Vec::with_capacity(access_unit.len() + 16);
    let (mut sps, mut pps) = (None, None);
    for unit in nal_units(access_unit) {
        match unit[0] & 0x1f {
            7 => sps = Some(unit.to_vec()),
            8 => pps = Some(unit.to_vec()),
            9 => {}
            _ => {
                sample.extend_from_slice(&u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes());
                sample.extend_from_slice(unit);
            }
        }
    }
    (sample, sps.zip(pps).map(|(sps, pps)| ParameterSets { sps, pps }))
}

/// The NAL units between start codes; empty ones are left out.
fn nal_units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = Vec::new();
    let mut n = 0;
    while n + 3 <= bytes.len() {
        if bytes[n..n + 3] == [0, 0, 1] {
            starts.push(n + 3);
            n += 3;
        } else {
            n += 1;
        }
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|start| start - 3).chain([bytes.len()]).collect();
    starts.into_iter().zip(ends).filter_map(move |(start, end)| {
        let unit = &bytes[start..end];
        // A longer start code, and zeros after the unit, belong to neither.
        let length = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        (length > 0).then(|| &unit[..length])
    })
}

/// The initialization segment (`ftyp` and `moov`).
///
/// # Errors
/// When the parameter sets are none.
pub fn initialization(sets: &ParameterSets, width: u32, height: u32) -> mp4_atom::Result<Bytes> {
    let brand = |word: &[u8; 4]| FourCC::new(word);
    let ftyp = Ftyp {
        major_brand: brand(b"iso6"),
        minor_version: 0,
        compatible_brands: vec![brand(b"iso6"), brand(b"iso5"), brand(b"mp41")],
    };
    let moov = Moov {
        mvhd: Mvhd { rate: 1.into(), volume: 1.into(), next_track_id: AUDIO_TRACK + 1, ..Mvhd::default() },
        mvex: Some(Mvex { mehd: None, trex: vec![trex(VIDEO_TRACK), trex(AUDIO_TRACK)] }),
        trak: vec![video_track(sets, width, height)?, audio_track()],
        ..Moov::default()
    };
    let mut bytes = Vec::with_capacity(1024);
    ftyp.encode(&mut bytes)?;
    moov.encode(&mut bytes)?;
    Ok(bytes.into())
}

fn trex(track_id: u32) -> Trex {
    Trex { track_id, default_sample_description_index: 1, ..Trex::default() }
}

fn video_track(sets: &ParameterSets, width: u32, height: u32) -> mp4_atom::Result<Trak> {
    let mut avcc = Avcc::new(&sets.sps, &sets.pps)?;
    // High and its kin carry their sample format along; ours is always 4:2:0 with 8 bits.
    if matches!(avcc.avc_profile_indication, 100 | 110 | 122 | 144) {
        avcc.ext = Some(AvccExt::default());
    }
    let (width, height) = (small(width), small(height));
    let visual = Visual { data_reference_index: 1, width, height, ..Visual::default() };
    let entry = Codec::Avc1(Avc1 { visual, avcc, ..Avc1::default() });
    let mut track = track(VIDEO_TRACK, VIDEO_SCALE, b"vide", "pictures", entry);
    (track.tkhd.width, track.tkhd.height) = (width.into(), height.into());
    track.mdia.minf.vmhd = Some(Vmhd::default());
    Ok(track)
}

fn audio_track() -> Trak {
    let audio =
        Audio { data_reference_index: 1, channel_count: 2, sample_size: 16, sample_rate: small(AUDIO_RATE).into() };
    let dops = Dops {
        output_channel_count: 2,
        pre_skip: OPUS_PRE_SKIP,
        input_sample_rate: AUDIO_RATE,
        output_gain: 0,
        channel_mapping: None,
    };
    let mut track = track(AUDIO_TRACK, AUDIO_SCALE, b"soun", "sound", Codec::Opus(Opus { audio, dops, btrt: None }));
    track.tkhd.volume = 1.into();
    track.mdia.minf.smhd = Some(Smhd::default());
    track
}

fn track(track_id: u32, timescale: u32, handler: &[u8; 4], name: &str, entry: Codec) -> Trak {
    Trak {
        tkhd: Tkhd { track_id, enabled: true, in_movie: true, ..Tkhd::default() },
        mdia: Mdia {
            mdhd: Mdhd { timescale, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr { handler: FourCC::new(handler), name: name.into() },
            minf: Minf {
                dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
                stbl: Stbl { stsd: Stsd { codecs: vec![entry] }, stco: Some(Stco::default()), ..Stbl::default() },
                ..Minf::default()
            },
        },
        ..Trak::default()
    }
}

fn small(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// A fragment (`moof` and `mdat`) of both tracks; a track without samples is left out of it.
///
/// # Errors
/// When it grows beyond what a box can hold.
pub fn fragment(sequence: u32, video: &[Sample], audio: &[Sample]) -> mp4_atom::Result<Bytes> {
    let size = |samples: &[Sample]| samples.iter().map(|sample| sample.data.len()).sum::<usize>();
    let (video_size, audio_size) = (size(video), size(audio));
    let moof = |offset: usize| Moof {
        mfhd: Mfhd { sequence_number: sequence },
        traf: [
            (!video.is_empty()).then(|| run(VIDEO_TRACK, video, offset, false)),
            (!audio.is_empty()).then(|| run(AUDIO_TRACK, audio, offset + video_size, true)),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let mut bytes = Vec::with_capacity(1024 + video_size + audio_size);
    moof(0).encode(&mut bytes)?;
    // The offsets count from the beginning of the `moof`, and their size does not depend on their value.
    let offset = bytes.len() + 8;
    bytes.clear();
    moof(offset).encode(&mut bytes)?;
    let length = u32::try_from(8 + video_size + audio_size).map_err(|_| mp4_atom::Error::OutOfBounds)?;
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(b"mdat");
    for sample in video.iter().chain(audio) {
        bytes.extend_from_slice(&sample.data);
    }
    Ok(bytes.into())
}

fn run(track_id: u32, samples: &[Sample], offset: usize, all_sync: bool) -> Traf {
    let entries: Vec<TrunEntry> = samples
        .iter()
        .map(|sample| TrunEntry {
            duration: Some(sample.duration),
            size: u32::try_from(sample.data.len()).ok(),
            flags: (!all_sync).then_some(if sample.sync { SYNC } else { NOT_SYNC }),
            cts: None,
        })
        .collect();
    Traf {
        tfhd: Tfhd {
            track_id,
            default_sample_flags: all_sync.then_some(SYNC),
            default_base_is_moof: true,
            ..Tfhd::default()
        },
        tfdt: Some(Tfdt { base_media_decode_time: samples.first().map_or(0, |sample| sample.at) }),
        trun: vec![Trun { data_offset: i32::try_from(offset).ok(), samples: entries.into() }],
        ..Traf::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_unit_loses_its_start_codes_and_its_parameter_sets() {
        let unit = [
            &[0, 0, 0, 1, 0x09, 0xf0][..],
            &[0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1f],
            &[0, 0, 0, 1, 0x68, 0xce],
            &[0, 0, 1, 0x65, 1, 2, 3],
            &[0, 0, 1, 0x65, 4],
        ]
        .concat();
        let (sample, sets) = sample_of(&unit);
        assert_eq!(sample, [0, 0, 0, 4, 0x65, 1, 2, 3, 0, 0, 0, 2, 0x65, 4]);
        assert_eq!(sets, Some(ParameterSets { sps: vec![0x67, 0x42, 0xc0, 0x1f], pps: vec![0x68, 0xce] }));
    }

    #[test]
    fn what_is_no_access_unit_gives_an_empty_sample() {
        for nothing in [&b""[..], &[0, 0, 1], &[0, 0, 0, 1, 0, 0, 1], b"no start code"] {
            assert_eq!(sample_of(nothing), (Vec::new(), None), "{nothing:?}");
        }
    }

    #[test]
    fn offsets_of_a_fragment_point_at_its_samples() {
        use mp4_atom::{Decode, Header};
        let sample = |data: &[u8]| Sample { at: 7, duration: 3, sync: true, data: data.to_vec() };
        let bytes = fragment(5, &[sample(b"picture")], &[sample(b"so"), sample(b"und")]).unwrap();
        let mut rest = &bytes[..];
        let moof = Moof::decode(&mut rest).unwrap();
        assert_eq!(Header::decode(&mut rest).unwrap().kind, FourCC::new(b"mdat"));
        let offset = |n: usize| moof.traf[n].trun[0].data_offset.unwrap() as usize;
        assert_eq!(&bytes[offset(0)..offset(1)], b"picture");
        assert_eq!(&bytes[offset(1)..], b"sound");
        assert_eq!(moof.traf[1].tfdt.as_ref().unwrap().base_media_decode_time, 7);
    }
}
