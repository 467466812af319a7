//! Entry points for fuzzing: any bytes in, nothing out, no panic.

use serde_json::Value;

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
    let Ok(payload) = P::parse(bytes) else { return };
    let Ok(written) = payload.to_bytes() else { return };
    let Ok(read) = P::parse(&written) else { panic!("{} does not read what it wrote", P::WHAT) };
    let again = read.to_bytes().unwrap_or_default();
    let values: [Option<Value>; 2] = [&written, &again].map(|bytes| serde_json::from_slice(bytes).ok());
    assert!(matches!(&values, [Some(one), Some(other)] if same(one, other)), "{} changes by being written", P::WHAT);
}

/// Whether two values are the same but for the last digits of a number: serde_json does not read all digits of a long one
/// exactly. Signing refuses such numbers.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) if a != b => {
            a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| (a - b).abs() <= a.abs() * 1e-14)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => one == other,
    }
}

/// Bodies of every family. A body that is read can be written and reads the same again.
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

/// A message on `down/cmd/{id}` of a device that trusts one key. Random bytes do not find a signature, so whatever is
/// accepted is a fault.
pub fn command(bytes: &[u8]) {
    /// The public key of RFC 8032, section 7.1, test 1.
    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let key = PublicKey { kid: "k".to_owned(), public_key: KEY.to_owned() };
    let (Ok(ring), Ok(at)) = (KeyRing::new([&key]), DeviceAddress::new("default", "box")) else { return };
    let Ok(id) = CommandId::new("01J00000000000000000000000") else { return };
    assert!(ring.verify(&at, &id, bytes).is_err(), "a forgery was accepted");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::payload::Payload;

    const SAMPLES: [&str; 6] = [
        "r58/1/acme/box7/up/cmd/01J",
        r#"{"state":"online","boot_seq":1,"conn_seq":2,"reason":null}"#,
        r#"{"ts":"2026-01-02T03:04:05Z","metrics":{"cpu_percent":1.5},"inputs":[{"id":"a"}],"seq":7}"#,
        r#"{"stream":"hb","boot_seq":1,"first_available":1,"items":[{"seq":1,"ts":null,"data":{}}]}"#,
        r#"{"server_time":"2026-01-02T03:04:05Z","pending":["a"],"acked":{"hb":3},"seq_floor":1}"#,
        r#"{"v":1,"id":"c","org":"o","device":"d","seq":1,"op":"take","issued_at":"2026-01-02T03:04:05Z",
            "expires_at":"2026-01-02T03:04:05Z","hash":"sha256:00","sig":"ed25519:k:AAAA"}"#,
    ];

    proptest! {
        #[test]
        fn spoiled_messages_make_no_entry_point_panic(
            which in 0..SAMPLES.len(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = SAMPLES[which].as_bytes().to_vec();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            super::topic(&bytes);
            super::payload(&bytes);
            super::command(&bytes);
        }
    }

    #[test]
    fn a_number_with_too_many_digits_is_no_fault() {
        super::payload(br#"{"x":1660000000000000000000000000095933767578029479240}"#);
    }

    #[test]
    fn the_samples_reach_what_they_are_meant_to_reach() {
        for sample in SAMPLES {
            super::topic(sample.as_bytes());
            super::payload(sample.as_bytes());
            super::command(sample.as_bytes());
        }
        assert!(super::Command::parse(SAMPLES[5].as_bytes()).is_ok());
        assert!(super::SyncDown::parse(SAMPLES[4].as_bytes()).is_ok());
    }
}
