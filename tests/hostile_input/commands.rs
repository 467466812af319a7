//! Commands that nobody should obey, and a state directory that somebody has been at.

use bytes::Bytes;
use chrono::{Duration, Utc};
use r58_mqtt::payload::Command;
use r58_mqtt::sign::CommandSigner;
use r58_mqtt::{CommandId, DeviceAddress};
use serde_json::{Map, Value, json};

use crate::support::mosquitto::{Mosquitto, PASSWORD, TESTER};
use crate::support::r58::{PATIENCE, R58};
use crate::support::site::{Boxed, ORG, Site};
use crate::support::wire::Wire;
use crate::support::{stage, until};

/// Bad messages of the flood.
const FLOOD: usize = 2_000;
/// What the box may have grown by after the flood, in bytes: arenas of the allocator, not one KiB for each message.
const GROWTH: u64 = 16 * 1024 * 1024;

/// A box at a mosquitto, a client that may publish anything, and the server's own key.
struct Siege {
    site: Site,
    boxed: Boxed,
    wire: Wire,
    signer: CommandSigner,
    /// Numbers of signed commands, far above the server's own.
    seq: u64,
    _broker: Mosquitto,
}

impl Siege {
    async fn start() -> Self {
        let mut broker = Mosquitto::prepare();
        let site = Site::with(&broker).await;
        let boxed = site.enrol("box1", "").await;
        broker.let_in(ORG, boxed.identity().token.expose());
        broker.start().await;
        let wire = Wire::start(&broker.url(), "tester", TESTER, PASSWORD, &boxed.topic("up/cmd/#")).await;
        let signer = CommandSigner::load(&site.state_file("command-key.pem")).expect("the server's key");
        Self { site, boxed, wire, signer, seq: 1_000, _broker: broker }
    }

    /// A command that the box would obey.
    fn good(&mut self, op: &str, args: Value) -> Command {
        self.seq += 1;
        let to = DeviceAddress::new(ORG, &self.boxed.id).expect("an address");
        let args: Map<String, Value> = serde_json::from_value(args).expect("an object");
        let (now, id) = (Utc::now(), CommandId::generate());
        Command::new(&to, id, self.seq, op, args, now, now + Duration::hours(1))
    }

    fn signed(&self, mut command: Command) -> (CommandId, Bytes) {
        let bytes = self.signer.sign(&mut command).expect("a signature");
        (command.id, bytes.into())
    }

    fn topic(&self, id: &CommandId) -> String {
        self.boxed.topic(&format!("down/cmd/{id}"))
    }

    /// Publishes it retained and waits until the box has said `state` and `code` of it.
    async fn answered(&self, what: &str, id: &CommandId, bytes: Bytes, state: &str, code: &str) {
        self.wire.say(&self.topic(id), bytes, true).await;
        let topic = self.boxed.topic(&format!("up/cmd/{id}"));
        until(PATIENCE, &format!("{what}: {state}, {code}"), || async {
            let heard = self.wire.heard();
            let said: Vec<Value> = heard
                .iter()
                .filter(|message| message.topic == topic)
                .filter_map(|message| serde_json::from_slice(&message.payload).ok())
                .collect();
            let fits = |status: &&Value| status["state"] == state && status["code"] == code;
            match said.iter().find(fits) {
                Some(status) if status["reason"].is_string() => Ok(()),
                _ => Err(said),
            }
        })
        .await;
    }

    /// Waits until the box has done a good command, and so is through with all that came before it.
    async fn through(&self) {
        let last = self.site.api.draft(&self.boxed.id, "identify", json!({"seconds": 1})).await;
        self.wire.say(&last.topic, last.message.clone(), true).await;
        let command = self.site.api.ended(&last.id).await;
        assert_eq!(command["state"], "succeeded", "{command}");
    }

    /// A message that is wrong in the `n`-th way.
    fn bad(&mut self, n: usize) -> (String, Bytes) {
        let id = CommandId::generate();
        let command = self.good("reboot", json!({}));
        let bytes: Bytes = match n % 8 {
            0 => "{".into(),
            1 => vec![0xff; 300].into(),
            2 => format!("{{\"v\":1,\"id\":\"{id}\",\"deep\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000)).into(),
            3 => json!({"v": 1, "id": id, "seq": -1}).to_string().into(),
            4 => serde_json::to_vec(&command).expect("JSON").into(),
            // Good, but not for this topic.
            5 => self.signed(command).1,
            6 => "x".repeat(70_000).into(),
            _ => json!({"v": 1, "sig": "ed25519:00:AAAA", "hash": "sha256:00", "args": {"a": "b".repeat(2_000)}})
                .to_string()
                .into(),
        };
        (self.topic(&id), bytes)
    }

    async fn flood(&mut self, count: usize) {
        for begin in (0..count).step_by(100) {
            let messages = (begin..count.min(begin + 100)).map(|n| self.bad(n)).collect();
            self.wire.say_all(messages).await;
        }
        self.through().await;
    }
}

async fn on_air(box1: &R58) -> u64 {
    let state = box1.state_until("a programme on air", |state| state["programme"]["frames"].as_u64() > Some(10)).await;
    state["programme"]["frames"].as_u64().unwrap_or_default()
}

async fn goes_on(box1: &R58, frames: u64) {
    box1.state_until("more of the programme", |state| state["programme"]["frames"].as_u64() > Some(frames + 5)).await;
    let actors = box1.json("/api/actors").await;
    for actor in actors["actors"].as_array().expect("the tree") {
        assert_eq!((&actor["state"], &actor["restarts"]), (&json!("running"), &json!(0)), "{actor}");
    }
}

async fn online(box1: &R58) {
    box1.state_until("the fleet reached", |state| state["fleet"]["state"] == "online").await;
}

#[tokio::test]
async fn every_bad_command_gets_its_word_and_the_programme_goes_on() {
    let _stage = stage().await;
    let mut siege = Siege::start().await;
    let box1 = siege.boxed.start().await;
    online(&box1).await;
    let frames = on_air(&box1).await;
    siege.through().await;

    let id = CommandId::generate();
    siege.answered("no JSON", &id, "{".into(), "rejected", "malformed").await;
    let id = CommandId::generate();
    siege.answered("no command", &id, json!({"v": 1, "id": id}).to_string().into(), "rejected", "malformed").await;
    let id = CommandId::generate();
    siege.answered("too large", &id, "x".repeat(70_000).into(), "rejected", "oversized").await;

    let mut newer = serde_json::to_value(siege.good("reboot", json!({}))).expect("JSON");
    newer["v"] = json!(2);
    let id = CommandId::new(newer["id"].as_str().expect("an id")).expect("an id");
    siege.answered("of a later protocol", &id, newer.to_string().into(), "rejected", "version").await;

    let unsigned = siege.good("reboot", json!({}));
    let bytes = serde_json::to_vec(&unsigned).expect("JSON").into();
    siege.answered("unsigned", &unsigned.id, bytes, "rejected", "signature").await;

    let mut stranger = siege.good("reboot", json!({}));
    let bytes = CommandSigner::generate().sign(&mut stranger).expect("a signature").into();
    siege.answered("signed by a stranger", &stranger.id, bytes, "rejected", "signature").await;

    let original = siege.good("identify", json!({"seconds": 1}));
    let (id, bytes) = siege.signed(original);
    let tampered = String::from_utf8_lossy(&bytes).replace("identify", "reboot");
    siege.answered("altered after signing", &id, tampered.into(), "rejected", "signature").await;

    let mut foreign = siege.good("reboot", json!({}));
    foreign.org = "rivals".parse().expect("an organization");
    let (id, bytes) = siege.signed(foreign);
    siege.answered("for another organization", &id, bytes, "rejected", "foreign").await;
    let mut foreign = siege.good("reboot", json!({}));
    foreign.device = "box2".parse().expect("a device");
    let (id, bytes) = siege.signed(foreign);
    siege.answered("for another box", &id, bytes, "rejected", "foreign").await;

    let good = siege.good("scene", json!({"scene": "pip"}));
    let (id, bytes) = siege.signed(good.clone());
    siege.wire.say(&siege.topic(&id), bytes.clone(), true).await;
    assert_eq!(siege.site.api.ended(id.as_str()).await["state"], "succeeded");
    siege.answered("replayed under another id", &CommandId::generate(), bytes, "rejected", "foreign").await;
    let other = Command { op: "reboot".to_owned(), args: Map::new(), ..good };
    let (id, bytes) = siege.signed(other);
    siege.answered("another command under an old id", &id, bytes, "rejected", "conflict").await;

    let mut late = siege.good("reboot", json!({}));
    late.expires_at = Utc::now() - Duration::seconds(1);
    let (id, bytes) = siege.signed(late);
    siege.answered("expired", &id, bytes, "rejected", "expired").await;
    let unknown = siege.good("format_disk", json!({}));
    let (id, bytes) = siege.signed(unknown);
    siege.answered("unknown operation", &id, bytes, "rejected", "unsupported").await;
    let nonsense = siege.good("take", json!({"kind": "wipe"}));
    let (id, bytes) = siege.signed(nonsense);
    siege.answered("nonsense arguments", &id, bytes, "rejected", "arguments").await;
    let nowhere = siege.good("take", json!({"scene": "nowhere"}));
    let (id, bytes) = siege.signed(nowhere);
    siege.answered("an unknown scene", &id, bytes, "rejected", "unknown_scene").await;

    // Larger than the box takes at all: the broker leaves it out, and the connection stays.
    siege.wire.say(&siege.topic(&CommandId::generate()), vec![b'x'; 400_000], true).await;
    siege.through().await;
    assert!(siege.boxed.asked_of_host().is_empty(), "no reboot of all these: {:?}", siege.boxed.asked_of_host());
    goes_on(&box1, frames).await;
}

#[tokio::test]
async fn a_flood_of_bad_commands_leaves_the_box_as_large_as_it_was() {
    let _stage = stage().await;
    let begun = std::time::Instant::now();
    let mut siege = Siege::start().await;
    let mut box1 = siege.boxed.start().await;
    online(&box1).await;
    let frames = on_air(&box1).await;
    siege.flood(FLOOD / 5).await;
    let before = box1.process.resident();
    siege.flood(FLOOD).await;
    let after = box1.process.resident();
    assert!(after < before + GROWTH, "grew from {before} to {after} bytes");
    let said = box1.process.output().lines().filter(|line| line.contains("a command is refused")).count();
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).expect("a few minutes");
    assert!((1..=20 * (minutes + 1)).contains(&said), "{said} lines in {minutes} minutes fill the disk");
    assert!(box1.process.is_alive() && siege.boxed.asked_of_host().is_empty());
    goes_on(&box1, frames).await;
    drop(box1);

    // All of it is retained: the next life is given it again, and comes through.
    let box1 = siege.boxed.start().await;
    online(&box1).await;
    siege.through().await;
    goes_on(&box1, 0).await;
}

#[tokio::test]
async fn a_corrupt_store_is_set_aside_and_the_box_is_online_again() {
    let _stage = stage().await;
    let site = Site::start().await;
    let boxed = site.enrol("box1", "").await;
    let mut box1 = boxed.start().await;
    online(&box1).await;
    let id = site.api.command("box1", "reboot", json!({})).await;
    assert_eq!(site.api.ended(&id).await["state"], "succeeded");
    box1.process.kill();

    for entry in std::fs::read_dir(boxed.state_file("store")).expect("the store") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let garbage: Vec<u8> = (0..64 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            std::fs::write(path, garbage).expect("write garbage");
        }
    }
    let mut box1 = boxed.start().await;
    online(&box1).await;
    let id = site.api.command("box1", "scene", json!({"scene": "pip"})).await;
    assert_eq!(site.api.ended(&id).await["state"], "succeeded");
    assert_eq!(boxed.asked_of_host().len(), 1, "the old reboot is not done again");
    assert!(boxed.state_file("store.corrupt-1").exists(), "kept for whoever wants to know");
    let said = box1.process.last_words();
    assert!(said.contains("the box's store was corrupt and is set aside"), "{said}");
}

#[tokio::test]
async fn a_broken_identity_is_one_clear_sentence() {
    let site = Site::start().await;
    let boxed = site.enrol("box1", "").await;
    std::fs::write(boxed.state_file("identity.json"), b"{\"device_id\": \"box1\"").expect("write");
    let mut refused = boxed.process(None);
    let status = refused.ended(PATIENCE).await;
    let said = refused.last_words();
    assert!(!status.success(), "{said}");
    let sentence = said.lines().find(|line| line.starts_with("r58: ")).unwrap_or_default();
    assert!(sentence.contains("cannot read the box's identity") && sentence.contains("identity.json"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
