//! A topic from the network: refused, or the same again when it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r58_mqtt::topic::Topic;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(topic) = Topic::parse_bytes(bytes) {
        assert_eq!(topic.to_string().as_bytes(), bytes);
    }
});
