//! No organization reaches another one: every route that is described, with real ids of the other one, and every topic, as
//! everybody that an organization has: each role, an API key of each scope, a device.

use std::time::Duration;

use r58_mqtt::payload::{ConnectionOrder, Payload as _, Presence};
use r58_mqtt::session::{
    Outgoing, Session, SessionEvent, SessionEvents, SessionSettings, Subscription, Will, WillSource,
};
use r58_mqtt::{CommandId, DeviceAddress, Down, Name, Topic, Up};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::access::{PUBLIC, body};
use crate::alerts::{alerts, presence};
use crate::live::Device;
use crate::world::{PASSWORD, World};

/// Stands in whatever the one organization calls its own, and in nothing of the other.
const MARKER: &str = "zebra-7f3a";
const LIMIT: Duration = Duration::from_secs(30);
/// What does not end: their own tests look at what they tell.
const STREAMS: [&str; 2] = ["/api/v1/events", "/api/v1/devices/{id}/logs/live"];

/// Somebody who asks.
struct Stranger {
    who: String,
    headers: Vec<(&'static str, String)>,
}

impl Stranger {
    fn bearer(who: impl Into<String>, token: &str) -> Self {
        Self { who: who.into(), headers: vec![("Authorization", format!("Bearer {token}"))] }
    }

    fn device(who: &str, id: &str, token: &str) -> Self {
        Self { who: who.into(), headers: vec![("X-Device-Id", id.into()), ("X-Device-Token", token.into())] }
    }
}

/// Everybody of the organization `other`.
async fn strangers(world: &World) -> Vec<Stranger> {
    let mut all = Vec::new();
    let admin = world.user("other", "admin").await;
    for role in ["viewer", "operator"] {
        all.push(Stranger::bearer(role, &world.user("other", role).await));
    }
    let areas = [
        "devices",
        "telemetry",
        "commands",
        "config",
        "releases",
        "guests",
        "bundles",
        "logs",
        "alerts",
        "audit",
        "enrolment",
        "users",
    ];
    for area in areas {
        let key = json!({"name": area, "scopes": [format!("{area}:write")]});
        let key = world.post("/api/v1/api-keys", &admin, key).await.expect(201).text("key");
        all.push(Stranger::bearer(format!("a key for {area}"), &key));
    }
    let theirs = world.enrol(&admin, "theirs").await;
    let token = theirs["token"].as_str().unwrap();
    all.push(Stranger::device("a device", "theirs", token));
    all.push(Stranger::device("a device that poses as another", "box1", token));
    all.push(Stranger::bearer("admin", &admin));
    all
}

/// What the one organization has, by how the paths to it begin.
async fn belongings(world: &World) -> Vec<(&'static str, String)> {
    let admin = &world.admin;
    let post = async |path: &str, body: Value| world.post(&format!("/api/v1{path}"), admin, body).await.expect(201);
    let change = async |method: Method, path: &str, body: Value| {
        world.call(method, &format!("/api/v1{path}"), admin, Some(body)).await.expect(200)
    };
    world.enrol(admin, "box1").await;
    change(Method::PATCH, "/devices/box1", json!({"name": MARKER, "notes": MARKER, "tags": [MARKER]})).await;
    change(Method::PATCH, "/organizations/default", json!({"name": MARKER})).await;
    let document = json!({"inputs": {MARKER: {"source": {"kind": "test"}}}});
    change(Method::PUT, "/devices/box1/config", json!({"document": document, "notes": MARKER})).await;
    let command = post("/devices/box1/commands", json!({"type": "identify", "notes": MARKER})).await.text("id");
    let many = json!({"devices": {"ids": ["box1"]}, "command": {"type": "identify", "notes": MARKER}});
    let group = post("/command-groups", many).await.text("id");
    let bundle = post("/devices/box1/bundles", json!({})).await.text("id");
    let code = post("/enrolment-codes", json!({"note": MARKER})).await.text("id");
    let user = json!({"email": format!("{MARKER}@x.example"), "name": MARKER, "role": "viewer", "password": PASSWORD});
    let user = post("/users", user).await.text("id");
    let key = post("/api-keys", json!({"name": MARKER, "scopes": ["devices:read"]})).await.text("id");
    post(
        "/releases",
        json!({"version": "7.7.7", "channel": "stable", "artifact_url": "https://x.example/a",
        "checksum_sha256": "00".repeat(32), "size_bytes": 1, "changelog": MARKER}),
    )
    .await;
    use base64::Engine as _;
    let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
    let public = base64::engine::general_purpose::STANDARD.encode(public);
    let release_key = post("/release-keys", json!({"name": MARKER, "public_key": public})).await.text("id");
    let receiver = json!({"name": MARKER, "url": format!("https://{MARKER}.example/"), "secret": MARKER.repeat(2)});
    let receiver = post("/alert-receivers", receiver).await.text("id");
    let rule = json!({"kind": "offline", "name": MARKER, "for_seconds": 0, "tag": MARKER, "receiver_ids": [receiver]});
    let rule = post("/alert-rules", rule).await.text("id");
    let until = chrono::Utc::now() + chrono::Duration::hours(1);
    let silence = json!({"rule_id": rule, "tag": MARKER, "reason": MARKER, "ends_at": until});
    let silence = post("/silences", silence).await.text("id");
    presence(world, "box1", true, 1).await;
    presence(world, "box1", false, 1).await;
    let alert = alerts(world, "state=firing&device=box1", 1).await[0]["id"].as_str().unwrap().to_owned();
    vec![
        ("/api/v1/alerts/", alert),
        ("/api/v1/alert-rules/", rule),
        ("/api/v1/alert-receivers/", receiver),
        ("/api/v1/silences/", silence),
        ("/api/v1/devices/", "box1".into()),
        ("/api/v1/commands/", command),
        ("/api/v1/command-groups/", group),
        ("/api/v1/bundles/", bundle),
        ("/api/v1/enrolment-codes/", code),
        ("/api/v1/users/", user),
        ("/api/v1/api-keys/", key),
        ("/api/v1/release-keys/", release_key),
        ("/api/v1/releases/", "7.7.7".into()),
        ("/api/v1/organizations/", "default".into()),
    ]
}

/// A path with each belonging that may stand there; all of them where nobody thought of the path.
fn filled(template: &str, belongings: &[(&'static str, String)]) -> Vec<String> {
    let Some((before, after)) = template.split_once('{') else { return vec![template.to_owned()] };
    let (_, after) = after.split_once('}').unwrap();
    let fitting: Vec<&String> = match belongings.iter().find(|(begin, _)| *begin == before) {
        Some((_, id)) => vec![id],
        None => belongings.iter().map(|(_, id)| id).collect(),
    };
    let rest = after.split('/').map(|part| match part {
        "{name}" => "programme",
        "{ver}" => "1",
        part if part.starts_with('{') => "guest1",
        part => part,
    });
    let rest = rest.collect::<Vec<_>>().join("/");
    fitting.into_iter().map(|id| format!("{before}{id}{rest}")).collect()
}

/// Everything of an organization that its administrator sees.
async fn seen(world: &World, belongings: &[(&'static str, String)]) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "/devices",
        "/users",
        "/enrolment-codes",
        "/command-groups",
        "/releases",
        "/rollouts",
        "/release-keys",
        "/devices/box1",
        "/devices/box1/commands",
        "/devices/box1/config",
        "/devices/box1/bundles",
        "/devices/summary",
        "/alerts",
        "/alert-rules",
        "/alert-receivers",
        "/silences",
    ] {
        all.push(world.get(&format!("/api/v1{path}"), &world.admin).await.expect(200).body);
    }
    for (begin, id) in belongings.iter().filter(|(begin, _)| !["/api/v1/organizations/"].contains(begin)) {
        // Some have no path of their own; then it is the same refusal both times.
        all.push(world.get(&format!("{begin}{id}"), &world.admin).await.body);
    }
    all
}

#[actix_web::test]
async fn nobody_of_another_organization_gets_anything_by_any_route() {
    let world = World::new().await;
    let belongings = belongings(&world).await;
    let strangers = strangers(&world).await;
    let before = seen(&world, &belongings).await;
    assert!(json!(before).to_string().contains(MARKER));
    let mut asked = 0;
    for (method, template) in world.templates() {
        if STREAMS.contains(&template.as_str()) || PUBLIC.contains(&template.as_str()) {
            continue;
        }
        let method: Method = method.parse().unwrap();
        for path in filled(&template, &belongings) {
            for Stranger { who, headers } in &strangers {
                let mut request = world.http.request(method.clone(), world.url(&path));
                for (name, value) in headers {
                    request = request.header(*name, value);
                }
                if let Some(body) = body(&method, &path) {
                    request = request.json(&body);
                }
                let response = request.send().await.unwrap();
                let status = response.status();
                let head = format!("{:?}", response.headers());
                let text = head + &response.text().await.unwrap();
                assert!(!text.contains(MARKER), "{who}: {method} {path} tells of another organization: {text}");
                // What names nothing of the other organization is theirs to do.
                let foreign = template.contains('{');
                let latest = path.ends_with("/releases/latest");
                assert!(!foreign || latest || !status.is_success(), "{who}: {method} {path}: {status} {text}");
                asked += 1;
            }
        }
    }
    assert!(asked > 1_000, "{asked} requests");
    assert_eq!(seen(&world, &belongings).await, before, "nothing was changed");
    world.end().await;
}

/// Every kind of topic of a device, each followed by the next: a new one does not compile until it is among them.
fn all_up() -> Vec<Up> {
    let (name, id) = (Name::new("x").unwrap(), CommandId::new("01ZEBRA").unwrap());
    std::iter::successors(Some(Up::Presence), |up| match up {
        Up::Presence => Some(Up::Heartbeat),
        Up::Heartbeat => Some(Up::Telemetry(name.clone())),
        Up::Telemetry(_) => Some(Up::Event(name.clone())),
        Up::Event(_) => Some(Up::Caps),
        Up::Caps => Some(Up::Reported),
        Up::Reported => Some(Up::CommandStatus(id.clone())),
        Up::CommandStatus(_) => Some(Up::Sync),
        Up::Sync => Some(Up::Thumbnail(name.clone())),
        Up::Thumbnail(_) => Some(Up::Response(name.clone())),
        Up::Response(_) => None,
    })
    .collect()
}

/// The same for what it is told.
fn all_down() -> Vec<Down> {
    let id = CommandId::new("01ZEBRA").unwrap();
    std::iter::successors(Some(Down::Desired), |down| match down {
        Down::Desired => Some(Down::Command(id.clone())),
        Down::Command(_) => Some(Down::Sync),
        Down::Sync => Some(Down::Request),
        Down::Request => None,
    })
    .collect()
}

/// Every topic of a device and its organization.
fn all_topics(device: &DeviceAddress) -> Vec<String> {
    let ups = all_up().into_iter().map(|up| Topic::up(device, up));
    let downs = all_down().into_iter().map(|down| Topic::down(device, down));
    let id = CommandId::new("01ZEBRA").unwrap();
    let group = Topic::GroupCommand { org: device.org.clone(), group: Name::new("stage").unwrap(), id };
    let all: Vec<Topic> = ups.chain(downs).chain([group]).collect();
    let (mut up, mut down, mut groups) = (0, 0, 0);
    for topic in &all {
        match topic {
            Topic::Up(..) => up += 1,
            Topic::Down(..) => down += 1,
            Topic::GroupCommand { .. } => groups += 1,
        }
    }
    assert!(up > 0 && down > 0 && groups > 0);
    all.iter().map(Topic::to_string).collect()
}

/// Somebody on the broker.
struct Client {
    who: &'static str,
    session: Session,
    events: SessionEvents,
    refused: Vec<String>,
}

impl Client {
    async fn connect(who: &'static str, mut settings: SessionSettings, filters: &[String]) -> Self {
        settings.subscriptions = filters.iter().map(Subscription::new).collect();
        let (session, events) = Session::start(settings).unwrap();
        let mut client = Self { who, session, events, refused: Vec::new() };
        loop {
            match client.next().await {
                SessionEvent::Subscribed { grants } => {
                    let refused = grants.into_iter().filter(|grant| grant.granted.is_err());
                    client.refused = refused.map(|grant| grant.filter).collect();
                    return client;
                }
                SessionEvent::Connected { .. } => {}
                other => panic!("{who} did not come in: {other:?}"),
            }
        }
    }

    async fn next(&mut self) -> SessionEvent {
        timeout(LIMIT, self.events.recv()).await.expect("something").expect("a session")
    }

    /// Topics of everything that comes up to a message on a topic that ends so.
    async fn until(&mut self, end: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            if let SessionEvent::Message(mut message) = self.next().await {
                if let Some(ack) = message.ack.take() {
                    self.session.ack(ack);
                }
                assert!(
                    !String::from_utf8_lossy(&message.payload).contains("from a stranger"),
                    "{}: {}",
                    self.who,
                    message.topic
                );
                let last = message.topic.ends_with(end);
                seen.push(message.topic);
                if last {
                    return seen;
                }
            }
        }
    }
}

#[actix_web::test]
async fn no_message_leaves_an_organization_and_none_comes_in() {
    let world = World::new().await;
    let ours = world.enrol(&world.admin, "box1").await;
    let other_admin = world.user("other", "admin").await;
    let theirs = world.enrol(&other_admin, "theirs").await;
    for role in ["viewer", "operator"] {
        world.user("other", role).await;
    }
    let url = ours["mqtt_url"].as_str().unwrap().to_owned();
    let person = |id: &str, email: &str| SessionSettings::new(url.clone(), id, email, PASSWORD);
    let as_device = |registration: &Value| {
        let text = |name: &str| registration[name].as_str().unwrap().to_owned();
        SessionSettings::new(url.clone(), text("device_id"), text("org"), text("token"))
    };

    let device = Device::connect(&ours).await;
    let order = ConnectionOrder { boot_seq: 1, conn_seq: 1 };
    device.say(Up::Presence, true, Presence::online(order).to_bytes().unwrap()).await;
    for up in all_up() {
        // Also kept for those who come later, whatever the protocol says of it.
        device.say(up, true, "{}").await;
    }
    device.say(Up::Presence, true, Presence::online(order).to_bytes().unwrap()).await;
    let mut witness =
        Client::connect("a witness", person("witness", "admin@r58.local"), &["r58/1/default/#".into()]).await;

    let topics = all_topics(&device.address);
    let wide = [
        "#",
        "+/#",
        "r58/#",
        "r58/1/#",
        "r58/1/+/#",
        "r58/1/default/#",
        "r58/1/+/box1/#",
        "r58/1/+/+/up/#",
        "r58/1/default/+/down/#",
        "r58/1/+/_g/+/down/#",
        "r58/1/default/_g/#",
        "+/+/default/#",
        "$SYS/#",
        "$SYS/+",
    ];
    let plain: Vec<String> = topics.iter().cloned().chain(wide.map(str::to_owned)).collect();
    let filters: Vec<String> = plain.iter().flat_map(|filter| [filter.clone(), format!("$share/x/{filter}")]).collect();
    let strangers = [
        ("a viewer", person("s1", "viewer@other.example"), "r58/1/other/#"),
        ("an operator", person("s2", "operator@other.example"), "r58/1/other/#"),
        ("an administrator", person("s3", "admin@other.example"), "r58/1/other/#"),
        ("a device", as_device(&theirs), "r58/1/other/theirs/down/#"),
    ];
    let mut clients = Vec::new();
    for (who, settings, own) in strangers {
        let mut wished = filters.clone();
        wished.push(own.to_owned());
        let client = Client::connect(who, settings.clone(), &wished).await;
        assert_eq!(client.refused, filters, "{who} may subscribe to what is not its own");
        for topic in &topics {
            for retained in [false, true] {
                let message = Outgoing::json(topic.clone(), &b"{\"from a stranger\":1}"[..]).retained(retained);
                let sent = client.session.publish(message).await.unwrap().await;
                assert!(sent.is_err(), "{who} may publish on {topic}");
            }
        }
        // A will is looked at when somebody connects.
        for topic in &topics {
            let mut settings = settings.clone();
            if who != "a device" {
                settings.client_id.push_str("-will");
            }
            let payload = "from a stranger".into();
            let will = Will {
                topic: topic.clone(),
                payload,
                qos: r58_mqtt::session::Qos::AtLeastOnce,
                retain: true,
                delay: Duration::ZERO,
            };
            settings.will = Some(WillSource::fixed(will));
            let (session, mut events) = Session::start(settings).unwrap();
            let first = timeout(LIMIT, events.recv()).await.unwrap().unwrap();
            assert!(!matches!(first, SessionEvent::Connected { .. }), "{who} leaves a will on {topic}");
            session.close(None, Duration::from_secs(1)).await;
        }
        clients.push(client);
    }

    // Everything is said once more, then a word that each of them may hear.
    for up in all_up() {
        device.say(up, false, "{}").await;
    }
    let identify = json!({"type": "identify"});
    world.post("/api/v1/devices/box1/commands", &world.admin, identify.clone()).await.expect(201);
    let own =
        world.post("/api/v1/devices/theirs/commands", &other_admin, identify.clone()).await.expect(201).text("id");
    for client in &mut clients {
        let seen = client.until(&format!("/down/cmd/{own}")).await;
        assert!(seen.iter().all(|topic| topic.starts_with("r58/1/other/")), "{} hears {seen:?}", client.who);
    }
    let last = world.post("/api/v1/devices/box1/commands", &world.admin, identify).await.expect(201).text("id");
    let heard = witness.until(&format!("/down/cmd/{last}")).await;
    assert!(heard.len() > all_up().len() && heard.iter().all(|topic| topic.starts_with("r58/1/default/")), "{heard:?}");
    let stored = world.get("/api/v1/devices/box1/commands", &world.admin).await.expect(200).body;
    assert_eq!(stored["total"], 2, "no stranger's status was taken: {stored}");
    world.end().await;
}
