//! Where a decoder can begin: the first packet of an H.264 key frame. Pure.

const NAL_IDR: u8 = 5;
const NAL_SEQUENCE_PARAMETERS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Whether an RTP payload (RFC 6184, section 5) begins a key frame: parameter sets, or the picture itself.
pub(super) fn begins_keyframe(payload: &[u8]) -> bool {
    let entry = |nal: u8| matches!(nal & 0x1f, NAL_IDR | NAL_SEQUENCE_PARAMETERS);
    match payload {
        [head, indicator, ..] if head & 0x1f == FU_A => indicator & 0x80 != 0 && entry(*indicator),
        // Indicator, then each unit behind its length of two bytes.
        [head, _, _, first, ..] if head & 0x1f == STAP_A => entry(*first),
        [head, ..] => entry(*head),
        [] => false,
    }
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

    proptest! {
        #[test]
        fn any_payload_is_looked_at_without_a_panic(payload in prop::collection::vec(any::<u8>(), 0..8)) {
            begins_keyframe(&payload);
        }
    }
}
