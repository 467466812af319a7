//! FleetLink against a real broker, with probes in place of mixer and host, and a server played by the test.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::TimeDelta;
use r58_mqtt::command::Step;
use r58_mqtt::durable::Memory;
use r58_mqtt::payload::{Batch, Caps, Presence, SyncUp};
use r58_mqtt::payload::{Command, CommandStatus, DeviceState as CommandState, Heartbeat, PresenceState, Reported};
use r58_mqtt::session::Incoming;
use r58_mqtt::sign::CommandSigner;
use r58_mqtt::{CommandId, DeviceAddress};
use serde_json::{Map, json};

use super::actors::ActorsView;
use super::config::{ConfigDesk, ConfigSeam};
use super::identity::{CommandKey, load, save};
use super::operations::{MixerDesk, Refusal};
use super::*;
use crate::host::{Recorded, RecordingHost};
use crate::supervision::{Duty, House, HouseSettings, lock};
use crate::testkit::{Listener, Mosquitto, eventually};

/// A mixer that counts what it was asked, and fails as told.
#[derive(Default)]
struct ProbeMixer {
    asked: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl MixerDesk for ProbeMixer {
    async fn take(&self, scene: Option<String>, kind: String, _: Option<u64>) -> Result<Value, Refusal> {
        let scene = scene.unwrap_or_default();
        lock(&self.asked).push(format!("{kind} {scene}"));
        match scene.as_str() {
            "nowhere" => Err(Refusal::rejected("unknown_scene", "no such scene")),
            "panic" => panic!("told to"),
            _ => Ok(json!({"pgm": scene})),
        }
    }

    async fn preview(&self, scene: String) -> Result<Value, Refusal> {
        lock(&self.asked).push(format!("preview {scene}"));
        Ok(Value::Null)
    }

    async fn identify(&self, length: Duration) -> Result<Value, Refusal> {
        lock(&self.asked).push(format!("identify {}", length.as_secs()));
        Ok(Value::Null)
    }
}

struct NoConfig;

impl ConfigSeam for NoConfig {
    fn check(&self, _: &Map<String, Value>, after: &Map<String, Value>) -> Result<Vec<String>, String> {
        if after.keys().any(|key| key != "label") { Err("unknown key".to_owned()) } else { Ok(Vec::new()) }
    }

    fn install(&self, _: &Map<String, Value>) {}

    fn public(&self) -> Value {
        json!({})
    }
}

struct OnePicture(AtomicU64);

impl ThumbnailSource for OnePicture {
    fn pictures(&self) -> Vec<(String, Bytes, u64)> {
        vec![("cam1".to_owned(), Bytes::from_static(&[0xff, 0xd8, 1]), self.0.load(Ordering::Relaxed))]
    }
}

struct Rig {
    broker: Mosquitto,
    house: House,
    mixer: Arc<ProbeMixer>,
    host: Arc<RecordingHost>,
    signer: CommandSigner,
    address: DeviceAddress,
    link: watch::Receiver<FleetState>,
    dir: tempfile::TempDir,
    settings: FleetLinkSettings,
    fleet: Listener,
    next: u64,
}

impl Rig {
    async fn start() -> Self {
        let mut rig = Self::prepared().await;
        rig.engage();
        rig.greet().await;
        rig
    }

    /// Everything but the link itself.
    async fn prepared() -> Self {
        let broker = Mosquitto::start();
        let dir = tempfile::tempdir().unwrap();
        let signer = CommandSigner::generate();
        let public = signer.public_key();
        let identity = Identity {
            device_id: "box1".to_owned(),
            token: Secret::new("ab".repeat(32)),
            fleet_url: "http://127.0.0.1:1".to_owned(),
            org: "org".to_owned(),
            mqtt_url: broker.url(),
            command_keys: vec![CommandKey { kid: public.kid, public_key: public.public_key }],
        };
        save(dir.path(), &identity).unwrap();
        let house = House::open(HouseSettings::default());
        let mixer = Arc::new(ProbeMixer::default());
        let host = Arc::new(RecordingHost::open(dir.path(), vec!["kiosk.service".to_owned()]).unwrap());
        let actors =
            ActorsView { actors: house.actors_door(), restart: house.restart_door(), changes: house.changes() };
        let (link, seen) = watch::channel(FleetState::default());
        let ice = crate::turn::TurnSettings::first_snapshot(&[]);
        let settings = FleetLinkSettings {
            device_id: "box1".to_owned(),
            name: "Box 1".to_owned(),
            version: "1.0".to_owned(),
            state_dir: dir.path().to_owned(),
            fleet_url: Some("http://127.0.0.1:1".to_owned()),
            enrolment_code: None,
            mqtt_url: None,
            ca: None,
            heartbeat_every: Duration::from_secs(1),
            report_every: Duration::from_millis(100),
            outbox_max_bytes: 1 << 20,
            boot_seq: 1,
            store: Arc::new(Memory::new()),
            operations: Operations {
                mixer: mixer.clone(),
                actors,
                host: host.clone(),
                services: vec!["kiosk.service".to_owned(), "probe".to_owned()],
                config: Arc::new(ConfigDesk::open(dir.path(), Arc::new(NoConfig))),
            },
            sources: Sources {
                state: watch::channel(Arc::default()).1,
                metrics: watch::channel(Metrics::default()).1,
                ice: watch::channel(ice).1,
                thumbnails: Arc::new(OnePicture(AtomicU64::new(1))),
            },
            identity: watch::channel(None).0,
            link,
        };
        let address = DeviceAddress::new("org", "box1").unwrap();
        let fleet = Listener::start(&broker, "fleet", "r58/1/+/+/up/#").await;
        Self { broker, house, mixer, host, signer, address, link: seen, dir, settings, fleet, next: 1 }
    }

    fn engage(&self) {
        let settings = self.settings.clone();
        self.house.engage(Duty::new("fleet_link", "fleet_link"), move |life| FleetLink::new(life, settings.clone()));
    }

    /// Waits for the box's sync and answers it: a new journal runs nothing before.
    async fn greet(&mut self) {
        self.fleet.until(|message| message.topic.ends_with("up/sync").then_some(())).await;
        self.answer_sync(json!({})).await;
    }

    async fn answer_sync(&self, acked: Value) {
        let body = json!({"server_time": chrono::Utc::now(), "pending": [], "acked": acked, "seq_floor": 0});
        self.fleet.say("r58/1/org/box1/down/sync", body.to_string(), false).await;
    }

    fn signed(&mut self, id: &str, op: &str, args: Value) -> (String, Vec<u8>) {
        let Value::Object(args) = args else { panic!("not an object") };
        let now = chrono::Utc::now();
        let id = CommandId::new(id).unwrap();
        let topic = format!("r58/1/{}/down/cmd/{id}", self.address);
        let end = now + TimeDelta::hours(1);
        let mut command = Command::new(&self.address, id, self.next, op, args, now, end);
        self.next += 1;
        (topic, self.signer.sign(&mut command).unwrap())
    }

    async fn command(&mut self, id: &str, op: &str, args: Value) -> CommandStatus {
        let (topic, body) = self.signed(id, op, args);
        self.fleet.say(&topic, body, true).await;
        self.end_of(id).await
    }

    /// The terminal status of a command.
    async fn end_of(&mut self, id: &str) -> CommandStatus {
        self.fleet.until(|message| status(message, id).filter(|status| status.state.is_terminal())).await
    }

    fn asked(&self) -> Vec<String> {
        lock(&self.mixer.asked).clone()
    }

    async fn stop(self) {
        assert!(self.house.stop(Duration::from_secs(10)).await.is_empty());
    }
}

fn status(message: &Incoming, id: &str) -> Option<CommandStatus> {
    message.topic.ends_with(&format!("up/cmd/{id}")).then(|| CommandStatus::parse(&message.payload).unwrap())
}

fn beats(message: &Incoming) -> Vec<u64> {
    if message.topic.ends_with("/up/hb") {
        return vec![Heartbeat::parse(&message.payload).unwrap().seq];
    }
    if message.topic.ends_with("/up/tm/hb") {
        return Batch::parse(&message.payload).unwrap().items.iter().map(|item| item.seq).collect();
    }
    Vec::new()
}

#[actix_rt::test]
async fn a_box_that_comes_online_says_who_it_is_and_how_it_is() {
    let mut rig = Rig::prepared().await;
    rig.engage();
    let presence = rig.fleet.until(|m| m.topic.ends_with("/presence").then(|| m.payload.clone())).await;
    let presence = Presence::parse(&presence).unwrap();
    assert_eq!((presence.state, presence.order.boot_seq), (PresenceState::Online, 1));
    let sync = rig.fleet.until(|m| m.topic.ends_with("/sync").then(|| m.payload.clone())).await;
    assert_eq!(SyncUp::parse(&sync).unwrap().pending, []);
    let caps = rig.fleet.until(|m| m.topic.ends_with("/caps").then(|| m.payload.clone())).await;
    assert!(Caps::parse(&caps).unwrap().ops.contains(&"take".to_owned()));
    let wanted = ["/reported", "/hb", "/thumb/cam1", "/evt/started"];
    let mut missing: Vec<&str> = wanted.to_vec();
    for message in &rig.fleet.heard {
        missing.retain(|tail| !message.topic.ends_with(tail));
    }
    while !missing.is_empty() {
        let topic = rig.fleet.until(|message| Some(message.topic.clone())).await;
        missing.retain(|tail| !topic.ends_with(tail));
    }
    let reported = rig.fleet.heard.iter().find(|message| message.topic.ends_with("/reported")).unwrap();
    assert_eq!(Reported::parse(&reported.payload).unwrap().services, ["kiosk.service", "probe"]);
    assert_eq!(rig.link.borrow().state, "online");
    rig.stop().await;
}

#[actix_rt::test]
async fn a_stop_in_order_says_offline_before_the_will_could() {
    let mut rig = Rig::start().await;
    let house = rig.house.clone();
    let (left, said) = futures_util::future::join(
        house.stop(Duration::from_secs(10)),
        rig.fleet.until(|message| {
            let presence = message.topic.ends_with("/presence").then(|| Presence::parse(&message.payload).unwrap());
            presence.filter(|presence| presence.state == PresenceState::Offline)
        }),
    )
    .await;
    assert!(left.is_empty());
    assert_eq!(said.reason.as_deref(), Some("stopped"));
}

#[actix_rt::test]
async fn a_retained_command_delivered_three_times_takes_effect_once() {
    let mut rig = Rig::start().await;
    let (topic, body) = rig.signed("c1", "take", json!({"scene": "quad"}));
    rig.fleet.say(&topic, body.clone(), true).await;
    let first = rig.end_of("c1").await;
    assert_eq!((first.state, first.result.clone()), (CommandState::Succeeded, Some(json!({"pgm": "quad"}))));
    rig.fleet.say(&topic, body.clone(), true).await;
    assert_eq!(rig.end_of("c1").await, first, "the last status again, word for word");
    // A rebuilt link subscribes anew, and its journal has only the disk.
    assert!(rig.house.restart("fleet_link").await);
    rig.greet().await;
    rig.fleet.say(&topic, body, true).await;
    assert_eq!(rig.end_of("c1").await, first);
    assert_eq!(rig.asked(), ["cut quad"]);
    rig.stop().await;
}

#[actix_rt::test]
async fn commands_that_nobody_signed_or_that_ask_for_nonsense_have_no_effect_and_an_answer() {
    let mut rig = Rig::start().await;
    let end = |status: CommandStatus| (status.state, status.code.unwrap_or_default());
    let unsupported = rig.command("c1", "format_disk", json!({})).await;
    assert_eq!(end(unsupported), (CommandState::Rejected, "unsupported".to_owned()));
    let arguments = rig.command("c2", "scene", json!({"scene": 7})).await;
    assert_eq!(end(arguments), (CommandState::Failed, "arguments".to_owned()));
    let unknown = rig.command("c3", "take", json!({"scene": "nowhere"})).await;
    assert_eq!(end(unknown), (CommandState::Failed, "unknown_scene".to_owned()));
    let unlisted = rig.command("c4", "restart_service", json!({"service": "ssh.service"})).await;
    assert_eq!(end(unlisted), (CommandState::Failed, "not_listed".to_owned()));
    let (topic, body) = rig.signed("c5", "take", json!({"scene": "quad"}));
    let forged = String::from_utf8(body).unwrap().replace("quad", "full");
    rig.fleet.say(&topic, forged, true).await;
    assert_eq!(end(rig.end_of("c5").await), (CommandState::Rejected, "signature".to_owned()));
    rig.fleet.say("r58/1/org/box1/down/cmd/c6", "{", true).await;
    assert_eq!(end(rig.end_of("c6").await), (CommandState::Rejected, "malformed".to_owned()));
    let panicking = rig.command("c7", "take", json!({"scene": "panic"})).await;
    assert_eq!(end(panicking), (CommandState::Failed, "panic".to_owned()));
    assert_eq!(rig.asked(), ["cut nowhere", "cut panic"]);
    assert_eq!(rig.link.borrow().state, "online");
    rig.stop().await;
}

#[actix_rt::test]
async fn each_operation_reaches_whom_it_concerns() {
    let mut rig = Rig::start().await;
    for (id, op, args) in [
        ("c1", "scene", json!({"scene": "quad"})),
        ("c2", "identify", json!({"seconds": 3})),
        ("c3", "restart_service", json!({"service": "kiosk.service"})),
        ("c4", "config", json!({"changes": {"label": "A"}})),
    ] {
        assert_eq!(rig.command(id, op, args).await.state, CommandState::Succeeded, "{op}");
    }
    let refused = rig.command("c5", "config", json!({"changes": {"colour": "red"}})).await;
    assert_eq!(refused.code.as_deref(), Some("invalid"));
    assert_eq!(rig.asked(), ["preview quad", "identify 3"]);
    assert_eq!(rig.host.recorded(), [Recorded::RestartUnit { unit: "kiosk.service".to_owned() }]);
    assert_eq!(rig.settings.operations.config.overlay().ver, 1);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_played_reboot_happens_once_and_the_box_comes_back_with_another_boot_id() {
    let mut rig = Rig::start().await;
    let before = crate::host::Host::boot_id(&*rig.host).unwrap();
    let (topic, body) = rig.signed("c1", "reboot", json!({}));
    rig.fleet.say(&topic, body, true).await;
    let end = rig.end_of("c1").await;
    assert_eq!(end.state, CommandState::Succeeded);
    assert_ne!(end.boot_id, before);
    let states: Vec<CommandState> =
        rig.fleet.heard.iter().filter_map(|message| status(message, "c1")).map(|status| status.state).collect();
    assert!(states.contains(&CommandState::Rebooting), "{states:?}");
    assert_eq!(rig.host.recorded(), [Recorded::Reboot { delay_seconds: 0.0 }]);
    // The retained copy is still there; the next command runs as ever.
    rig.greet().await;
    assert_eq!(rig.command("c2", "scene", json!({"scene": "quad"})).await.state, CommandState::Succeeded);
    assert_eq!(rig.host.recorded().len(), 1);
    rig.stop().await;
}

#[actix_rt::test]
async fn what_is_measured_while_the_broker_is_away_arrives_in_order_once_it_is_back() {
    let mut rig = Rig::start().await;
    let first = rig.fleet.until(|message| beats(message).first().copied()).await;
    rig.broker.kill();
    let mut link = rig.link.clone();
    link.wait_for(|state| state.state == "backoff").await.unwrap();
    let store = rig.settings.store.clone();
    let rows = || store.scan(b"o/e/tm/hb").unwrap().len();
    let before = rows();
    eventually("three beats on disk", || (rows() >= before + 3).then_some(())).await;
    rig.broker.again();
    rig.fleet.ready().await;
    let mut seen = vec![first];
    while !(seen.contains(&(first + 3)) && seen.contains(&(first + 4))) {
        let more = rig.fleet.until(|message| Some(beats(message)).filter(|beats| !beats.is_empty())).await;
        seen.extend(more);
    }
    assert!((first..=first + 4).all(|seq| seen.contains(&seq)), "a gap: {seen:?}");
    rig.stop().await;
}

#[actix_rt::test]
async fn heartbeats_that_the_server_has_leave_the_disk_and_others_come_again_in_batches() {
    let mut rig = Rig::start().await;
    // Nobody acknowledges: after two intervals the same comes in a batch.
    let batch = rig
        .fleet
        .until(|message| message.topic.ends_with("/up/tm/hb").then(|| Batch::parse(&message.payload).unwrap()))
        .await;
    let lives: Vec<u64> = rig.fleet.heard.iter().flat_map(beats).collect();
    assert_eq!(batch.first_available, batch.items[0].seq);
    assert!(batch.items.iter().all(|item| lives.contains(&item.seq)), "each was said live before");
    let last = batch.items.last().unwrap().seq;
    rig.answer_sync(json!({"hb": last})).await;
    let store = rig.settings.store.clone();
    let key = [b"o/e/tm/hb/", &last.to_be_bytes()[..]].concat();
    eventually("the disk is freed", || {
        store.scan(b"o/e/tm/hb").unwrap().iter().all(|(held, _)| *held > key).then_some(())
    })
    .await;
    rig.stop().await;
}

#[actix_rt::test]
async fn a_box_without_a_fleet_is_off_and_one_with_a_broken_identity_says_why() {
    let mut rig = Rig::prepared().await;
    rig.settings.fleet_url = None;
    rig.engage();
    let mut link = rig.link.clone();
    link.wait_for(|state| state.state == "off").await.unwrap();
    assert_eq!(rig.house.reports()[0].restarts, 0);
    rig.stop().await;

    let mut rig = Rig::prepared().await;
    std::fs::write(rig.dir.path().join("identity.json"), "{").unwrap();
    rig.settings.enrolment_code = Some(Secret::new("once"));
    rig.engage();
    let mut link = rig.link.clone();
    let state = link.wait_for(|state| state.state == "backoff").await.unwrap().clone();
    assert!(state.last_error.unwrap().contains("identity.json"));
    rig.stop().await;
}

#[actix_rt::test]
async fn a_new_box_enrols_with_its_code_once_and_keeps_what_it_was_given() {
    use actix_web::{App, HttpResponse, HttpServer, web};
    let mut rig = Rig::prepared().await;
    std::fs::remove_file(rig.dir.path().join("identity.json")).unwrap();
    let hits = Arc::new(AtomicU64::new(0));
    let (counted, mqtt_url) = (hits.clone(), rig.broker.url());
    let server = HttpServer::new(move || {
        let (counted, mqtt_url) = (counted.clone(), mqtt_url.clone());
        let register = move |body: web::Json<Value>| {
            // Away at first: the box tries again.
            let hit = counted.fetch_add(1, Ordering::SeqCst);
            let right = body["enrolment_code"] == "once" && body["device_id"] == "box1";
            let answer = json!({"device_id": "box1", "token": "cd".repeat(32), "fleet_url": "", "org": "org",
                "mqtt_url": mqtt_url, "command_keys": []});
            async move {
                match (hit, right) {
                    (0, _) => HttpResponse::ServiceUnavailable().finish(),
                    (_, true) => HttpResponse::Ok().json(answer),
                    _ => HttpResponse::Forbidden().json(json!({"detail": "wrong code"})),
                }
            }
        };
        App::new().route("/api/v1/devices/register", web::post().to(register))
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    rig.settings.fleet_url = Some(url.clone());
    rig.settings.enrolment_code = Some(Secret::new("once"));
    let mut identities = rig.settings.identity.subscribe();
    rig.engage();
    let identity = identities.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!((identity.fleet_url.as_str(), identity.token.expose().len()), (url.as_str(), 64));
    let mut link = rig.link.clone();
    link.wait_for(|state| state.state == "online").await.unwrap();
    assert!(rig.house.restart("fleet_link").await);
    rig.greet().await;
    assert_eq!(hits.load(Ordering::SeqCst), 2);
    assert_eq!(load(rig.dir.path()).unwrap().unwrap().token, identity.token);
    handle.stop(false).await;
    rig.stop().await;
}

#[test]
fn every_step_of_the_core_is_passed_by_this_shell() {
    let shell = [include_str!("link.rs"), include_str!("effects.rs"), include_str!("courier.rs")].concat();
    for step in Step::ALL {
        assert!(shell.contains(&format!("Step::{step:?}")), "{step:?} is never passed");
    }
}

#[actix_rt::test]
async fn box_and_server_finish_their_business_over_a_broker_that_dies_and_comes_back() {
    use crate::ingest::desk::{CommandDesk, DeskSettings};
    use crate::ingest::{Ingest, IngestSettings};
    use crate::testkit::MemoryFleet;
    let mut rig = Rig::prepared().await;
    let rows = Arc::new(MemoryFleet::default());
    let (events, _) = tokio::sync::broadcast::channel(1024);
    let desk = DeskSettings { session: rig.broker.client("desk"), store: rows.clone(), events: events.clone() };
    let desk = rig.house.engage(Duty::new("desk", "desk"), move |life| CommandDesk::new(life, desk.clone()));
    let mut ingest = IngestSettings::new(rig.broker.client("ingest"), rows.clone(), events);
    ingest.desk = Some(desk.door());
    rig.house.engage(Duty::new("ingest", "ingest"), move |life| Ingest::new(life, ingest.clone()));
    rig.engage();
    let done = async |rig: &mut Rig, id: &str| {
        let (_, body) = rig.signed(id, "take", json!({"scene": id}));
        let id = CommandId::new(id).unwrap();
        rows.add_command(&rig.address, &id, body);
        id
    };
    let ended = async |id: &CommandId| {
        let withdrawn = || Some(rows.command(id)).filter(|row| row.withdrawn);
        let row = eventually("withdrawn after its end", withdrawn).await;
        assert_eq!(row.state, Some(CommandState::Succeeded), "{row:?}");
    };
    let first = done(&mut rig, "one").await;
    ended(&first).await;
    rig.broker.kill();
    let second = done(&mut rig, "two").await;
    let store = rig.settings.store.clone();
    let before = store.scan(b"o/e/tm/hb").unwrap().len();
    eventually("beats on disk", || (store.scan(b"o/e/tm/hb").unwrap().len() >= before + 2).then_some(())).await;
    rig.broker.again();
    ended(&second).await;
    assert_eq!(rig.asked(), ["cut one", "cut two"]);
    // Everything that was measured is stored, and the server's acknowledgements free the disk again.
    eventually("no gap", || {
        let rows = lock(&rows.0);
        let seqs: Vec<u64> = rows.heartbeats.keys().map(|(_, seq)| *seq).collect();
        let whole = seqs.windows(2).all(|pair| pair[1] == pair[0] + 1);
        (seqs.len() >= 4 && whole).then_some(())
    })
    .await;
    eventually("a free disk", || (store.scan(b"o/e/tm/hb").unwrap().len() <= 3).then_some(())).await;
    rig.stop().await;
}
