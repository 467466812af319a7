//! What a guest's pipeline has received and decoded, counted where it happens.

use std::time::Instant;

use crate::peer::keyframe;
use crate::sdp::Codec;

/// A guest's pipeline in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GuestStats {
    /// Video packets received.
    pub video_packets: u64,
    /// Audio packets received.
    pub audio_packets: u64,
    /// When the last packet of either kind came.
    pub last_packet: Option<Instant>,
    /// When the last video packet came.
    pub last_video_packet: Option<Instant>,
    /// Key frames of which the beginning was received.
    pub keyframes: u64,
    /// When the last key frame began to arrive.
    pub last_keyframe: Option<Instant>,
    /// Pictures decoded.
    pub decoded_frames: u64,
    /// Buffers of sound decoded.
    pub decoded_sounds: u64,
    /// When the first picture was decoded.
    pub first_decoded_frame: Option<Instant>,
    /// When the last picture was decoded.
    pub last_decoded_frame: Option<Instant>,
    /// When the last sound was decoded.
    pub last_decoded_sound: Option<Instant>,
    /// Size of the decoded pictures in pixels, before they are scaled.
    pub size: Option<(u32, u32)>,
    /// Whether the last picture that was looked at, two in a second, was black all over: a muted camera, or a covered one.
    pub dark: bool,
    /// Codec of the pictures that come.
    pub video_codec: Option<Codec>,
    /// How much longer pictures are under way than sound, in nanoseconds, by the guest's own clock; `None` while it has not
    /// said for both. Lip-sync makes up for it.
    pub pictures_later: Option<i64>,
    /// Key frames asked for; the peer sends at most one request a second.
    pub keyframe_requests: u64,
}

/// Brighter than black by this much is not black any more: of 255, where black is 0 or 16. Noise of a real camera in the dark
/// is above it here and there.
const BLACK: u8 = 22;

/// The time stamp of the key frame that a packet begins, if it does. More than one packet may: parameter sets, slices.
pub(super) fn keyframe_of(codec: Codec, packet: &[u8]) -> Option<u32> {
    let begins = match (codec, payload(packet)?) {
        (Codec::H264, payload) => keyframe::begins_keyframe(payload),
        (Codec::Vp8, payload) => keyframe::begins_vp8_keyframe(payload),
        (Codec::Opus, _) => false,
    };
    begins.then(|| timestamp(packet)).flatten()
}

/// The time stamp of an RTP packet.
pub(super) fn timestamp(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?))
}

/// What an RTP packet carries (RFC 3550, section 5.1); `None` when it is none.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let mut start = 12 + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        let length = packet.get(start + 2..start + 4)?;
        start += 4 + usize::from(u16::from_be_bytes([length[0], length[1]])) * 4;
    }
    packet.get(start..)
}

/// Whether a plane of luma is black wherever it is looked at: a grid of 16 by 9.
pub(super) fn is_black(luma: &[u8], stride: usize, width: usize, height: usize) -> bool {
    if width == 0 || height == 0 {
        return false;
    }
    let at = |x: usize, y: usize| luma.get((y * height / 9 + height / 18) * stride + x * width / 16 + width / 32);
    (0..9).all(|y| (0..16).all(|x| at(x, y).is_some_and(|value| *value <= BLACK)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_frame_is_found_behind_sources_and_extensions() {
        let mut packet = vec![0x90 | 1, 96, 0, 1, 0, 0, 1, 2, 0, 0, 0, 1];
        packet.extend([0, 0, 0, 2]);
        packet.extend([0xbe, 0xde, 0, 1, 0x10, 7, 0, 0]);
        packet.extend([0x67, 1, 2]);
        assert_eq!(keyframe_of(Codec::H264, &packet), Some(0x102));
        assert_eq!(keyframe_of(Codec::Opus, &packet), None);
        assert_eq!(keyframe_of(Codec::H264, &packet[..20]), None);
    }

    #[test]
    fn one_bright_spot_is_not_black() {
        let mut luma = vec![16u8; 64 * 36];
        assert!(is_black(&luma, 64, 64, 36));
        luma[20 * 64..23 * 64].fill(60);
        assert!(!is_black(&luma, 64, 64, 36));
        assert!(!is_black(&luma[..100], 64, 64, 36) && !is_black(&[], 0, 0, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            keyframe_of(Codec::H264, &packet);
            keyframe_of(Codec::Vp8, &packet);
            is_black(&packet, 8, 8, 9);
        }
    }
}
