//! Codecs of a section: which of the offered payload types this box can take.

use super::{MediaKind, lines::Block};

/// A codec that the box takes or sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264 of one of the four profiles, packetization-mode 0 or 1 (RFC 6184).
    H264,
    /// VP8 (RFC 7741).
    Vp8,
    /// Opus, 48 kHz (RFC 7587).
    Opus,
}

impl Codec {
    /// Sound or picture.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Opus => MediaKind::Audio,
            Self::H264 | Self::Vp8 => MediaKind::Video,
        }
    }

    /// Encoding name of the rtpmap.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::Vp8 => "VP8",
            Self::Opus => "opus",
        }
    }

    /// RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::H264 | Self::Vp8 => 90_000,
        }
    }
}

/// The H.264 profiles that are taken; a profile that is not listed here never reaches the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum H264Profile {
    /// profile_idc 66.
    Baseline,
    /// profile_idc 66 with constraint_set1.
    ConstrainedBaseline,
    /// profile_idc 77.
    Main,
    /// profile_idc 100, Constrained High included.
    High,
}

impl H264Profile {
    /// Every profile, in the order of registration.
    pub const ALL: [Self; 4] = [Self::ConstrainedBaseline, Self::Baseline, Self::Main, Self::High];

    /// The one `profile-level-id` under which the stack knows this profile, at level 3.1 (720p30).
    pub fn canonical(self) -> &'static str {
        match self {
            Self::Baseline => "42001f",
            Self::ConstrainedBaseline => "42e01f",
            Self::Main => "4d001f",
            Self::High => "64001f",
        }
    }

    /// Reads a `profile-level-id` (RFC 6184, section 8.1).
    fn from_profile_level_id(text: &str) -> Option<Self> {
        if text.len() != 6 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let bits = u32::from_str_radix(text, 16).ok()?;
        let constraint_set1 = (bits >> 8) & 0x40 != 0;
        match bits >> 16 {
            0x42 if constraint_set1 => Some(Self::ConstrainedBaseline),
            0x42 => Some(Self::Baseline),
            0x4d => Some(Self::Main),
            0x64 => Some(Self::High),
            _ => None,
        }
    }
}

/// One payload type of an offer that both sides can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCodec {
    /// RTP payload type of the offer, which is also the one of the answer.
    pub payload_type: u8,
    /// What it carries.
    pub codec: Codec,
    /// Profile and packetization mode, for H.264.
    pub h264: Option<(H264Profile, u8)>,
    /// The offered format parameters, as they were.
    pub fmtp: String,
}

impl OfferedCodec {
    /// The format parameters in the one form that the stack matches exactly.
    pub(super) fn canonical_fmtp(&self) -> String {
        match self.h264 {
            Some((profile, mode)) => h264_fmtp(profile, mode),
            None => self.fmtp.clone(),
        }
    }
}

/// Canonical format parameters of an H.264 payload type.
pub fn h264_fmtp(profile: H264Profile, packetization_mode: u8) -> String {
    format!(
        "level-asymmetry-allowed=1;packetization-mode={packetization_mode};profile-level-id={}",
        profile.canonical()
    )
}

/// The supported codecs of one section, in the order of the offer.
pub(super) fn supported(kind: MediaKind, formats: &[&str], block: &Block<'_>) -> Vec<OfferedCodec> {
    let mut codecs: Vec<OfferedCodec> = Vec::new();
    for format in formats {
        let Some(payload_type) = payload_type(format) else { continue };
        if codecs.iter().any(|c| c.payload_type == payload_type) {
            continue;
        }
        let Some(rtpmap) = parameter(block, "rtpmap", format) else { continue };
        let fmtp = parameter(block, "fmtp", format).unwrap_or_default();
        let Some((codec, h264)) = recognise(rtpmap, fmtp) else { continue };
        if codec.kind() == kind {
            codecs.push(OfferedCodec { payload_type, codec, h264, fmtp: fmtp.to_owned() });
        }
    }
    codecs
}

/// Reduces a viewer's codecs to the one that its section will carry: Opus, or H.264 in packetization mode 1 under the profile
/// nearest to the constrained baseline that is sent (each of the others decodes it too).
pub(super) fn keep_what_is_sent(codecs: &mut Vec<OfferedCodec>) {
    let rank = |codec: &OfferedCodec| match codec.h264 {
        Some((profile, 1)) => H264Profile::ALL.iter().position(|p| *p == profile),
        Some(_) => None,
        None => (codec.codec == Codec::Opus).then_some(0),
    };
    let best = codecs.iter().filter_map(|c| Some((rank(c)?, c.clone()))).min_by_key(|(rank, _)| *rank);
    *codecs = best.map(|(_, codec)| codec).into_iter().collect();
}

/// Payload types that a muxed stream may use: 64 to 95 would be taken for RTCP (RFC 5761, section 4).
fn payload_type(format: &str) -> Option<u8> {
    let value: u8 = format.parse().ok()?;
    (value < 64 || (96..128).contains(&value)).then_some(value)
}

/// The value of `a={name}:{format} value`.
fn parameter<'a>(block: &Block<'a>, name: &str, format: &str) -> Option<&'a str> {
    block.values(name).find_map(|value| {
        let (pt, rest) = value.split_once(' ')?;
        (pt == format).then(|| rest.trim())
    })
}

fn recognise(rtpmap: &str, fmtp: &str) -> Option<(Codec, Option<(H264Profile, u8)>)> {
    let mut parts = rtpmap.split('/');
    let (name, rate, channels) = (parts.next()?, parts.next()?, parts.next());
    if name.eq_ignore_ascii_case("H264") && rate == "90000" {
        return h264(fmtp).map(|h264| (Codec::H264, Some(h264)));
    }
    if name.eq_ignore_ascii_case("VP8") && rate == "90000" {
        return Some((Codec::Vp8, None));
    }
    // RFC 7587, section 7: the rtpmap always says two channels.
    (name.eq_ignore_ascii_case("opus") && rate == "48000" && channels == Some("2")).then_some((Codec::Opus, None))
}

fn h264(fmtp: &str) -> Option<(H264Profile, u8)> {
    // Defaults of RFC 6184, section 8.1.
    let (mut profile, mut mode) = ("42000A", "0");
    for pair in fmtp.split(';') {
        let Some((key, value)) = pair.split_once('=') else { continue };
        match key.trim() {
            key if key.eq_ignore_ascii_case("profile-level-id") => profile = value.trim(),
            key if key.eq_ignore_ascii_case("packetization-mode") => mode = value.trim(),
            _ => {}
        }
    }
    let mode = match mode {
        "0" => 0,
        "1" => 1,
        // Interleaved mode: nobody sends it, nothing here depacketizes it.
        _ => return None,
    };
    Some((H264Profile::from_profile_level_id(profile)?, mode))
}
