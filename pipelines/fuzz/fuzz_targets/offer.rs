//! An offer from the network: refused, or one that passes its own check again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r58_pipelines::sdp::{CheckedOffer, Purpose};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for purpose in [Purpose::Publish, Purpose::View] {
        if let Ok(offer) = CheckedOffer::parse(&text, purpose) {
            assert!(CheckedOffer::parse(offer.sdp(), purpose).is_ok());
        }
    }
});
