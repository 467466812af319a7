//! Any payload from the network as any family: refused, or what was written of it reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r58_mqtt::payload::{
    Batch, Caps, Command, CommandStatus, Event, Heartbeat, Payload, Presence, Reported, SyncDown, SyncUp,
};

fn again<P: Payload>(bytes: &[u8]) {
    let Ok(payload) = P::parse(bytes) else { return };
    let Ok(written) = payload.to_bytes() else { return };
    let Ok(read) = P::parse(&written) else { panic!("{} does not read what it wrote", P::WHAT) };
    assert_eq!(read.to_bytes().ok().as_deref(), Some(written.as_slice()));
}

fuzz_target!(|bytes: &[u8]| {
    again::<Batch>(bytes);
    again::<Caps>(bytes);
    again::<Command>(bytes);
    again::<CommandStatus>(bytes);
    again::<Event>(bytes);
    again::<Heartbeat>(bytes);
    again::<Presence>(bytes);
    again::<Reported>(bytes);
    again::<SyncDown>(bytes);
    again::<SyncUp>(bytes);
});
