//! Any payload from the network as any family: refused, or what was written of it reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| r58_mqtt::fuzz::payload(bytes));
