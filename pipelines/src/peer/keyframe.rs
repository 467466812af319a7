//! Where a decoder can begin: the first packet of a key frame. Pure.

const NAL_IDR: u8 = 5;
const NAL_SEQUENCE_PARAMETERS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Whether an RTP payload of H.264 (RFC 6184, section 5) begins a key frame: parameter sets, or the picture itself.
pub(crate) fn begins_keyframe(payload: &[u8]) -> bool {
    let entry = |nal: u8| matches!(nal & 0x1f, NAL_IDR | NAL_SEQUENCE_PARAMETERS);
    match payload {
        [head, indicator, ..] if head & 0x1f == FU_A => indicator & 0x80 != 0 && entry(*indicator),
        // Indicator, then each unit behind its length of two bytes.
        [head, _, _, first, ..] if head & 0x1f == STAP_A => entry(*first),
        [head, ..] => entry(*head),
        [] => false,
    }
}

/// Whether an RTP payload of VP8 (RFC 7741, section 4) begins a key frame.
pub(crate) fn begins_vp8_keyframe(payload: &[u8]) -> bool {
    let Some(first) = payload.first() else { return false };
    // The start of the first partition, and no other: `S` is set, `PID` is 0.
    if first & 0x17 != 0x10 {
        return false;
    }
    let mut at = 1;
    if first & 0x80 != 0 {
        let Some(extensions) = payload.get(at) else { return false };
        at += 1;
        if extensions & 0x80 != 0 {
            at += if payload.get(at).is_some_and(|id| id & 0x80 != 0) { 2 } else { 1 };
        }
        at += usize::from(extensions & 0x40 != 0) + usize::from(extensions & 0x30 != 0);
    }
    // The frame's own header: bit 0 is set in frames that need another.
    payload.get(at).is_some_and(|header| header & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameter_sets_and_idr_pictures_begin_a_key_frame_in_every_packing() {
        for (payload, expected) in [
            (&[0x67, 1, 2][..], true),
            (&[0x65, 1, 2], true),
            (&[0x61, 1, 2], false),
            (&[0x78, 0, 20, 0x67, 1], true),
            (&[0x78, 0, 20, 0x61, 1], false),
            (&[0x7c, 0x85, 1], true),
            (&[0x7c, 0x05, 1], false),
            (&[0x7c, 0x81, 1], false),
            (&[], false),
        ] {
            assert_eq!(begins_keyframe(payload), expected, "{payload:x?}");
        }
    }

    #[test]
    fn a_vp8_key_frame_is_known_by_its_header_behind_any_descriptor() {
        for (payload, expected) in [
            (&[0x10, 0x10][..], true),
            (&[0x10, 0x11], false),
            (&[0x00, 0x10], false),
            (&[0x11, 0x10], false),
            (&[0x90, 0x80, 0x05, 0x10], true),
            (&[0x90, 0x80, 0x85, 0x01, 0x10], true),
            (&[0x90, 0xe0, 0x85, 0x01, 7, 9, 0x10], true),
            (&[0x90, 0xe0, 0x85, 0x01, 7, 9, 0x11], false),
            (&[0x90], false),
            (&[], false),
        ] {
            assert_eq!(begins_vp8_keyframe(payload), expected, "{payload:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_looked_at_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..8)) {
            begins_keyframe(&payload);
            begins_vp8_keyframe(&payload);
        }
    }
}
