//! The whole way: a device on the broker, its words in the database and on the dashboard, commands on their way.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bytes::Bytes;
use r58::certificates::TlsFiles;
use r58::fleet::{BrokerPlan, RetainedPlan};
use r58_mqtt::payload::{
    Command, CommandStatus, ConnectionOrder, DeviceState, Heartbeat, Payload, Presence, SyncDown, SyncUp,
};
use r58_mqtt::session::{Incoming, Outgoing, Qos, Session, SessionEvent, SessionEvents, SessionSettings, Subscription};
use r58_mqtt::{CommandId, DeviceAddress, DeviceId, Down, Name, OrgId, Topic, Up};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::World;

/// Nothing here takes longer, on a busy machine either.
const LIMIT: Duration = Duration::from_secs(30);

/// A device that speaks for itself.
pub struct Device {
    pub address: DeviceAddress,
    pub session: Session,
    events: SessionEvents,
}

impl Device {
    pub async fn connect(registration: &Value) -> Self {
        Self::connect_trusting(registration, None).await
    }

    async fn connect_trusting(registration: &Value, ca: Option<Vec<u8>>) -> Self {
        let text = |name: &str| registration[name].as_str().unwrap().to_owned();
        let address =
            DeviceAddress { org: OrgId::new(text("org")).unwrap(), device: DeviceId::new(text("device_id")).unwrap() };
        let mut settings = SessionSettings::new(text("mqtt_url"), text("device_id"), text("org"), text("token"));
        settings.ca = ca;
        settings.subscriptions = vec![Subscription::new(format!("r58/1/{}/{}/down/#", address.org, address.device))];
        let (session, events) = Session::start(settings).unwrap();
        let mut device = Self { address, session, events };
        device.until("the connection", |event| matches!(event, SessionEvent::Connected { .. }).then_some(())).await;
        device
    }

    async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(SessionEvent) -> Option<T>) -> T {
        let found = timeout(LIMIT, async {
            loop {
                let event = self.events.recv().await.expect("the session ended");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    pub async fn message(&mut self, what: &str, topic: &Topic) -> Incoming {
        let (topic, session) = (topic.to_string(), self.session.clone());
        self.until(what, |event| match event {
            SessionEvent::Message(mut message) => {
                if let Some(ack) = message.ack.take() {
                    session.ack(ack);
                }
                (message.topic == topic).then_some(message)
            }
            _ => None,
        })
        .await
    }

    pub async fn say(&self, up: Up, retain: bool, payload: impl Into<Bytes>) {
        let topic = Topic::up(&self.address, up).to_string();
        let message = Outgoing::json(topic, payload).retained(retain).qos(Qos::AtLeastOnce);
        self.session.publish(message).await.unwrap().await.unwrap();
    }

    async fn status(&self, id: &CommandId, rev: u64, state: DeviceState) {
        let text = json!({"id": id, "rev": rev, "state": state, "attempt": 1, "result": {"done": rev}}).to_string();
        let status = CommandStatus::parse(text.as_bytes()).unwrap();
        self.say(Up::CommandStatus(id.clone()), false, status.to_bytes().unwrap()).await;
    }
}

/// The dashboard's stream.
pub struct Stream {
    response: Response,
    buffer: String,
    /// What came so far.
    bytes: usize,
}

impl Stream {
    pub async fn open(world: &World, token: &str) -> Self {
        Self::open_for(world, token, "").await
    }

    /// Of some devices: `query` with its question mark.
    async fn open_for(world: &World, token: &str, query: &str) -> Self {
        let url = world.url(&format!("/api/v1/events{query}"));
        let response = world.http.get(url).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self { response, buffer: String::new(), bytes: 0 };
        stream.until("hello", |event, _| event == "hello").await;
        stream
    }

    /// Reads to its end.
    async fn end(mut self) {
        let read = async { while self.response.chunk().await.unwrap().is_some() {} };
        timeout(LIMIT, read).await.expect("the stream goes on");
    }

    pub async fn until(&mut self, what: &str, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        let found = timeout(LIMIT, async {
            loop {
                while let Some(end) = self.buffer.find("\n\n") {
                    let block: String = self.buffer.drain(..end + 2).collect();
                    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                    let (event, data) = (field("event: "), field("data: "));
                    let data = serde_json::from_str(data).unwrap_or_default();
                    if wanted(event, &data) {
                        return data;
                    }
                }
                let chunk = self.response.chunk().await.unwrap().expect("the stream ended");
                self.bytes += chunk.len();
                self.buffer.push_str(&String::from_utf8_lossy(&chunk));
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what} did not come"))
    }
}

pub fn heartbeat(seq: u64, cpu: f64) -> Vec<u8> {
    let mut heartbeat = Heartbeat { boot_seq: 1, seq, ts: chrono::Utc::now(), interval_s: 60, ..Heartbeat::default() };
    heartbeat.metrics.cpu_percent = Some(cpu);
    heartbeat.version = "9.9".into();
    heartbeat.to_bytes().unwrap()
}

#[actix_web::test]
async fn a_heartbeat_moves_the_card_and_the_history() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut stream = Stream::open(&world, &world.admin).await;
    let mut device = Device::connect(&registration).await;
    let order = ConnectionOrder { boot_seq: 1, conn_seq: 1 };
    device.say(Up::Presence, true, Presence::online(order).to_bytes().unwrap()).await;
    stream.until("online", |event, card| event == "device" && card["online"] == true).await;
    device.say(Up::Heartbeat, false, heartbeat(1, 42.0)).await;
    let card = stream.until("the figure", |event, card| event == "device" && card["cpu_percent"] == 42.0).await;
    assert_eq!((&card["id"], &card["status"], &card["version"]), (&json!("box1"), &json!("online"), &json!("9.9")));

    device.say(Up::Sync, false, SyncUp::default().to_bytes().unwrap()).await;
    let topic = Topic::down(&device.address, Down::Sync);
    let answer = loop {
        let message = device.message("the sync", &topic).await;
        let sync = SyncDown::parse(&message.payload).unwrap();
        if sync.pending.is_some() {
            break sync;
        }
    };
    assert_eq!(answer.acked.get(&Name::new("hb").unwrap()), Some(&1));
    let history = world.get("/api/v1/devices/box1/heartbeats", &world.admin).await.expect(200).body;
    assert_eq!((&history["total"], &history["items"][0]["metrics"]["cpu_percent"]), (&json!(1), &json!(42.0)));
    let metrics = world.get("/api/v1/devices/box1/metrics?hours=1", &world.admin).await.expect(200).body;
    assert_eq!(metrics["cpu_percent"], json!({"min": 42.0, "max": 42.0, "avg": 42.0, "latest": 42.0, "count": 1}));
    let line = |query: &str| format!("/api/v1/devices/box1/metrics?{query}");
    let since = (chrono::Utc::now() - chrono::Duration::hours(1)).format("%Y-%m-%dT%H:%M:%SZ");
    for (bucket, seconds) in [("minute", 60), ("quarter", 900), ("day", 86_400)] {
        let path = line(&format!("from={since}&bucket={bucket}"));
        let told = world.get(&path, &world.admin).await.expect(200).body;
        assert_eq!(told["bucket_seconds"], seconds);
        let points = told["points"].as_array().unwrap();
        assert_eq!((points.len(), &points[0]["metrics"]), (1, &metrics), "{told}");
    }
    for bad in
        ["bucket=hour", "from=2020-01-01T00:00:00Z&bucket=minute", "from=2020-01-02T00:00:00Z&to=2020-01-01T00:00:00Z"]
    {
        world.get(&line(bad), &world.admin).await.expect(400);
    }
    world.get(&line("from=2020-01-01T00:00:00Z&bucket=fortnight"), &world.admin).await.expect(400);
    world.get("/api/v1/devices/box1/metrics?hours=0", &world.admin).await.expect(400);

    let nothing = world.get("/api/v1/devices/box1/thumbnails/programme", &world.admin).await;
    assert_eq!(nothing.status, 204, "no picture came in");
    let picture = Bytes::from_static(&[0xff, 0xd8, 0xff, 0xe0, 1, 2, 3]);
    let name = Name::new("programme").unwrap();
    let topic = Topic::up(&device.address, Up::Thumbnail(name)).to_string();
    device.session.publish(Outgoing::json(topic, picture.clone()).qos(Qos::AtMostOnce)).await.unwrap().await.unwrap();
    stream.until("the picture", |event, note| event == "thumbnail" && note["name"] == "programme").await;
    let path = world.url("/api/v1/devices/box1/thumbnails/programme");
    let answer = world.http.get(path).bearer_auth(&world.admin).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/jpeg");
    assert_eq!(answer.bytes().await.unwrap(), picture);
    drop(stream);
    world.end().await;
}

#[actix_web::test]
async fn a_command_reaches_its_device_and_is_withdrawn_when_it_is_over() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut stream = Stream::open(&world, &world.admin).await;
    let mut device = Device::connect(&registration).await;
    let made = world.post("/api/v1/devices/box1/commands", &world.admin, json!({"type": "identify"})).await.expect(201);
    let id = CommandId::new(made.text("id")).unwrap();
    let topic = Topic::down(&device.address, Down::Command(id.clone()));
    let message = device.message("the command", &topic).await;
    assert_eq!(Command::parse(&message.payload).unwrap().op, "identify");
    for (rev, state) in [(1, DeviceState::Received), (2, DeviceState::Executing), (3, DeviceState::Succeeded)] {
        device.status(&id, rev, state).await;
        let wanted = state.as_str();
        stream.until(wanted, |event, command| event == "command" && command["state"] == wanted).await;
    }
    let withdrawn = device.message("the withdrawal", &topic).await;
    assert!(withdrawn.payload.is_empty());
    let read = world.get(&format!("/api/v1/commands/{id}"), &world.admin).await.expect(200).body;
    assert_eq!((&read["status"], &read["result"]), (&json!("completed"), &json!({"done": 3})));
    assert!(read["published_at"].is_string());
    drop(stream);
    world.end().await;
}

#[actix_web::test]
async fn a_stream_tells_nothing_of_another_organization() {
    let world = World::new().await;
    let stranger = world.user("other", "viewer").await;
    let other_admin = world.user("other", "admin").await;
    world.enrol(&world.admin, "ours").await;
    world.enrol(&other_admin, "theirs").await;
    let mut stream = Stream::open(&world, &stranger).await;
    let rename = |name: &str| Some(json!({"name": name}));
    for n in 0..5 {
        world
            .call(reqwest::Method::PATCH, "/api/v1/devices/ours", &world.admin, rename(&format!("{n}")))
            .await
            .expect(200);
    }
    world.call(reqwest::Method::PATCH, "/api/v1/devices/theirs", &other_admin, rename("last")).await.expect(200);
    let first = stream.until("any card", |event, _| event == "device").await;
    assert_eq!(first["id"], "theirs");
    drop(stream);
    world.end().await;
}

#[actix_web::test]
async fn changes_are_told_to_administrators_who_ask_and_who_is_switched_off_hears_nothing_more() {
    let world = World::new().await;
    let (viewer, operator) = (world.user("default", "viewer").await, world.user("default", "operator").await);
    let key = json!({"name": "k", "scopes": ["events:read", "audit:read"]});
    let key = world.post("/api/v1/api-keys", &world.admin, key).await.expect(201).text("key");
    for token in [&viewer, &operator, &key] {
        world.get("/api/v1/events?changes=true", token).await.expect(403);
    }
    let other = world.user("other", "admin").await;
    let mut asked = Stream::open_for(&world, &world.admin, "?devices=&changes=true").await;
    let mut stranger = Stream::open_for(&world, &other, "?changes=true").await;
    let mut plain = Stream::open(&world, &viewer).await;
    let by_key = Stream::open(&world, &key).await;

    let user = json!({"name": "Ada", "email": "ada@example.org", "role": "viewer", "password": "a good password"});
    world.post("/api/v1/users", &world.admin, user).await.expect(201);
    asked.until("the new user", |event, data| event == "changed" && data["kind"] == "user").await;
    world.sign_in("viewer@default.example").await;
    asked.until("who signed in", |event, data| event == "changed" && data["kind"] == "sign_in").await;
    let release = json!({"version": "1.4.0", "channel": "stable", "artifact_url": "https://releases.example/r58.tar",
        "checksum_sha256": "00".repeat(32), "size_bytes": 12_000_000});
    world.post("/api/v1/releases", &world.admin, release).await.expect(201);
    plain
        .until("the release, which everybody may read", |event, _| {
            assert_ne!(event, "changed");
            event == "release"
        })
        .await;
    world.post("/api/v1/enrolment-codes", &other, json!({})).await.expect(201);
    let first = stranger.until("any change", |event, _| event == "changed").await;
    assert_eq!(first["kind"], "enrolment_code", "of another organization");

    // A stream that a key opened ends with any change of users: who has the key shows it again.
    by_key.end().await;
    let users = world.get("/api/v1/users", &world.admin).await.expect(200).body;
    let named = |user: &&Value| user["email"] == "viewer@default.example";
    let id = users["items"].as_array().unwrap().iter().find(named).unwrap()["id"].as_str().unwrap().to_owned();
    let off = Some(json!({"is_active": false}));
    world.call(reqwest::Method::PATCH, &format!("/api/v1/users/{id}"), &world.admin, off).await.expect(200);
    plain.end().await;
    asked.until("the end of it", |event, data| event == "changed" && data["kind"] == "user").await;
    drop((asked, stranger));
    world.end().await;
}

#[actix_web::test]
async fn a_wrong_token_does_not_get_onto_the_broker_and_a_rotated_one_is_thrown_off() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut device = Device::connect(&registration).await;
    let at_once = json!({"overlap_seconds": 0});
    world.post("/api/v1/devices/box1/rotate-token", &world.admin, at_once).await.expect(200);
    device
        .until("the end of the connection", |event| matches!(event, SessionEvent::Disconnected { .. }).then_some(()))
        .await;
    for (id, org) in [("box1", "other"), ("box2", "default"), ("box1", "$fleet")] {
        let mut settings = SessionSettings::new(
            registration["mqtt_url"].as_str().unwrap(),
            id,
            org,
            registration["token"].as_str().unwrap(),
        );
        settings.connect_timeout = Duration::from_secs(5);
        let (session, mut events) = Session::start(settings).unwrap();
        let refused = timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        assert!(!matches!(refused, SessionEvent::Connected { .. }), "{id} of {org} came in");
        session.close(None, Duration::from_secs(1)).await;
    }
    device.session.close(None, Duration::from_secs(1)).await;
    world.end().await;
}

#[actix_web::test]
async fn with_a_certificate_server_and_devices_meet_on_the_broker_by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let tls = TlsFiles { cert, key, client_ca: None, crl: None };
    std::fs::write(&tls.cert, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.key_pair.serialize_pem()).unwrap();
    std::fs::set_permissions(&tls.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let listen = ([127, 0, 0, 1], 0).into();
    let world = World::with(|plan| {
        plan.broker =
            BrokerPlan::Embedded { listen, tls: Some(tls), public_url: None, retained: RetainedPlan::default() }
    })
    .await;
    let registration = world.enrol(&world.admin, "box1").await;
    assert!(registration["mqtt_url"].as_str().unwrap().starts_with("mqtts://127.0.0.1:"));
    let mut device = Device::connect_trusting(&registration, Some(made.cert.pem().into_bytes())).await;
    let made = world.post("/api/v1/devices/box1/commands", &world.admin, json!({"type": "identify"})).await.expect(201);
    let topic = Topic::down(&device.address, Down::Command(CommandId::new(made.text("id")).unwrap()));
    assert!(!device.message("the command", &topic).await.payload.is_empty());
    world.end().await;
}

#[actix_web::test]
async fn a_stop_ends_open_streams_within_its_time() {
    let world = World::new().await;
    let _stream = Stream::open(&world, &world.admin).await;
    let stopped = timeout(Duration::from_secs(5), world.end()).await;
    assert!(stopped.is_ok(), "the stop took longer than five seconds");
}

/// A dashboard of a large fleet shows a screen of it, and is sent that.
#[actix_web::test]
async fn who_names_the_boxes_on_its_screen_is_sent_these_and_a_word_about_the_others() {
    const BOXES: usize = 200;
    let world = World::new().await;
    let code = json!({"uses": BOXES});
    let code = world.post("/api/v1/enrolment-codes", &world.admin, code).await.expect(201).text("code");
    let id = |n: usize| format!("box-{n:03}");
    for n in 0..BOXES {
        world.post("/api/v1/devices/register", "", crate::world::registration(&code, &id(n))).await.expect(201);
    }
    let mut all = Stream::open(&world, &world.admin).await;
    let mut screen = Stream::open_for(&world, &world.admin, "?devices=box-003,box-004").await;
    let mut counts = Stream::open_for(&world, &world.admin, "?devices=").await;
    // How they are comes by itself, so that nothing has to be asked for when a list is scrolled.
    screen.until("how they are", |event, data| event == "device" && data["id"] == "box-004").await;

    let (before, shown) = (all.bytes, screen.bytes);
    let everything = json!({"devices": {"ids": (0..BOXES).map(id).collect::<Vec<_>>()}, "add_tags": ["moved"]});
    world.post("/api/v1/devices/bulk", &world.admin, everything).await.expect(200);
    let tagged = |data: &Value| data["tags"] == json!(["moved"]);
    all.until("the last box", |event, data| event == "device" && data["id"] == id(BOXES - 1) && tagged(data)).await;
    screen.until("its last box", |event, data| event == "device" && data["id"] == "box-004" && tagged(data)).await;
    counts.until("that something moved", |event, _| event == "moved").await;
    let (whole, part) = (all.bytes - before, screen.bytes - shown);
    println!("{BOXES} boxes changed: {whole} bytes to who hears of all, {part} bytes to who shows two");
    assert!(whole > 20 * part, "{whole} bytes and {part} bytes");
    assert!(counts.bytes < 1_000, "{} bytes", counts.bytes);

    let many: Vec<String> = (0..401).map(id).collect();
    world.get(&format!("/api/v1/events?devices={}", many.join(",")), &world.admin).await.expect(400);
    drop((all, screen, counts));
    world.end().await;
}
