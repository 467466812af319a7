//! A command from the network: nothing that the key's holder did not sign passes.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use r58_mqtt::id::{CommandId, DeviceAddress};
use r58_mqtt::sign::{CommandSigner, KeyRing};

struct World {
    ring: KeyRing,
    at: DeviceAddress,
    id: CommandId,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let key = CommandSigner::generate().public_key();
        World {
            ring: KeyRing::new([&key]).expect("a ring of one key"),
            at: DeviceAddress::new("default", "box").expect("an address"),
            id: "01J00000000000000000000000".parse().expect("an id"),
        }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let world = world();
    assert!(world.ring.verify(&world.at, &world.id, bytes).is_err());
});
