//! A command from the network: nothing that the key's holder did not sign passes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| r58_mqtt::fuzz::command(bytes));
