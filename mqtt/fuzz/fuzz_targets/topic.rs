//! A topic from the network: refused, or the same again when it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| r58_mqtt::fuzz::topic(bytes));
