//! FleetLink against a real broker, with probes in place of mixer and host, and a server played by the test: how it comes,
//! goes, enrols and measures. Its commands are in `commands`.

mod commands;
mod requests;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::TimeDelta;
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
use crate::host::RecordingHost;
use crate::mixer::core::TakeKind;
use crate::supervision::{Duty, House, HouseSettings, lock};
use crate::testkit::{Listener, Mosquitto, eventually};

/// A mixer that counts what it was asked, and fails as told.
#[derive(Default)]
struct ProbeMixer {
    asked: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl MixerDesk for ProbeMixer {
    fn knows(&self, scene: &str) -> bool {
        scene != "nowhere"
    }

    async fn take(&self, scene: Option<String>, kind: TakeKind) -> Result<Value, Refusal> {
        let scene = scene.unwrap_or_default();
        let how = if kind == TakeKind::Cut { "cut" } else { "mix" };
        lock(&self.asked).push(format!("{how} {scene}"));
        match scene.as_str() {
            "refused" => Err(Refusal::rejected("refused", "not now")),
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
    desk: Arc<requests::ProbeDesk>,
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
        let desk = Arc::new(requests::ProbeDesk::default());
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
            broker: BrokerWay::default(),
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
                bundles: crate::supervision::Door::from_fn(|_| Err(crate::bundle::BundleError::Lost)),
            },
            requests: Some(Requests::new(desk.clone())),
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
        Self { broker, house, mixer, desk, host, signer, address, link: seen, dir, settings, fleet, next: 1 }
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
        self.answer_sync_with(json!([]), acked).await;
    }

    async fn answer_sync_with(&self, pending: Value, acked: Value) {
        let body = json!({"server_time": chrono::Utc::now(), "pending": pending, "acked": acked, "seq_floor": 0});
        self.fleet.say("r58/1/org/box1/down/sync", body.to_string(), false).await;
    }

    fn signed(&mut self, id: &str, op: &str, args: Value) -> (String, Vec<u8>) {
        self.signed_with(id, op, args, |_| {})
    }

    fn signed_with(&mut self, id: &str, op: &str, args: Value, change: impl FnOnce(&mut Command)) -> (String, Vec<u8>) {
        let Value::Object(args) = args else { panic!("not an object") };
        let now = chrono::Utc::now();
        let id = CommandId::new(id).unwrap();
        let topic = format!("r58/1/{}/down/cmd/{id}", self.address);
        let end = now + TimeDelta::hours(1);
        let mut command = Command::new(&self.address, id, self.next, op, args, now, end);
        change(&mut command);
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
