//! Entry points for fuzzing: any bytes in, nothing out, no panic.

use crate::id::{CommandId, DeviceAddress};
use crate::payload::{
    Batch, Caps, Command, CommandStatus, Desired, Event, Heartbeat, Payload, Presence, Reported, SyncDown, SyncUp,
};
use crate::sign::{KeyRing, PublicKey};
use crate::topic::Topic;

/// Topic names from the wire. A topic that is read is written back unchanged.
pub fn topic(bytes: &[u8]) {
    if let Ok(topic) = Topic::parse_bytes(bytes) {
        assert_eq!(topic.to_string().as_bytes(), bytes);
    }
}

fn round_trip<P: Payload>(bytes: &[u8]) {
    if let Ok(payload) = P::parse(bytes) {
        if let Ok(written) = payload.to_bytes() {
            assert!(P::parse(&written).is_ok(), "{} does not read back", P::WHAT);
        }
    }
}

/// Bodies of every family. A body that is read can be written and read again.
pub fn payload(bytes: &[u8]) {
    round_trip::<Presence>(bytes);
    round_trip::<Heartbeat>(bytes);
    round_trip::<Batch>(bytes);
    round_trip::<Event>(bytes);
    round_trip::<Caps>(bytes);
    round_trip::<Reported>(bytes);
    round_trip::<Desired>(bytes);
    round_trip::<Command>(bytes);
    round_trip::<CommandStatus>(bytes);
    round_trip::<SyncUp>(bytes);
    round_trip::<SyncDown>(bytes);
}

/// A message on `down/cmd/{id}` of a device that trusts one key (of which nobody knows the private half).
pub fn command(bytes: &[u8]) {
    /// The public key of RFC 8032, section 7.1, test 1.
    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let key = PublicKey { kid: "k".to_owned(), public_key: KEY.to_owned() };
    let (Ok(ring), Ok(at)) = (KeyRing::new([&key]), DeviceAddress::new("o", "d")) else { return };
    let Ok(id) = CommandId::new("c") else { return };
    assert!(ring.verify(&at, &id, bytes).is_err(), "a forgery was accepted");
}
