//! Releases and rollouts.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use r58_mqtt::payload::{CommandStatus, ConnectionOrder, Payload as _, Presence};
use r58_mqtt::{CommandId, Up};
use reqwest::Method;
use serde_json::{Value, json};

use crate::live::Device;
use crate::world::{Answer, World};

struct Maker<'a> {
    world: &'a World,
    key: SigningKey,
    id: String,
}

impl<'a> Maker<'a> {
    async fn enter(world: &'a World) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = STANDARD.encode(key.verifying_key().to_bytes());
        let made =
            world.post("/api/v1/release-keys", &world.admin, json!({"name": "builds", "public_key": public})).await;
        Self { world, key, id: made.expect(201).text("id") }
    }

    async fn draft(&self, version: &str, channel: &str) -> Answer {
        let body = json!({"version": version, "channel": channel, "artifact_url": "https://r58.example/a.tar",
            "checksum_sha256": "ab".repeat(32), "size_bytes": 1000, "min_version": "0.1.0", "changelog": "all new"});
        self.world.post("/api/v1/releases", &self.world.admin, body).await
    }

    async fn sign(&self, version: &str, text: &str) -> Answer {
        let signature = STANDARD.encode(self.key.sign(text.as_bytes()).to_bytes());
        let body = json!({"key_id": self.id, "signature": signature});
        self.world.post(&format!("/api/v1/releases/{version}/publish"), &self.world.admin, body).await
    }

    async fn publish(&self, version: &str, channel: &str) {
        let draft = self.draft(version, channel).await.expect(201);
        self.sign(version, &draft.text("signed_text")).await.expect(200);
    }
}

#[actix_web::test]
async fn versions_are_in_the_order_of_semver_and_only_signed_ones_are_published() {
    let world = World::new().await;
    let maker = Maker::enter(&world).await;
    let draft = maker.draft("1.9.0", "stable").await.expect(201);
    assert_eq!((&draft.body["published"], draft.text("arch")), (&json!(false), "any".into()));
    maker.draft("1.9.0", "beta").await.expect(409);
    let latest = async |query: &str| world.get(&format!("/api/v1/releases/latest{query}"), &world.admin).await;
    latest("").await.expect(404);
    maker.sign("1.9.0", "something else").await.expect(400);
    maker.sign("9.9.9", "").await.expect(404);
    let published = maker.sign("1.9.0", &draft.text("signed_text")).await.expect(200);
    assert_eq!((&published.body["published"], &published.body["key_id"]), (&json!(true), &json!(maker.id)));
    for version in ["1.10.0", "1.10.0-rc.2", "1.10.0-rc.10"] {
        maker.publish(version, "stable").await;
    }
    maker.publish("2.0.0", "beta").await;
    maker.draft("1.11.0", "stable").await.expect(201);
    assert_eq!(latest("?channel=stable").await.expect(200).text("version"), "1.10.0");
    assert_eq!(latest("?channel=beta&arch=aarch64").await.expect(200).text("version"), "2.0.0");
    let list = world.get("/api/v1/releases?channel=stable", &world.admin).await.expect(200).body;
    let versions: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|row| row["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["1.11.0", "1.10.0", "1.10.0-rc.10", "1.10.0-rc.2", "1.9.0"]);

    let token = world.enrol(&world.admin, "box1").await["token"].as_str().unwrap().to_owned();
    let path = "/api/v1/releases/latest";
    let request = world.http.get(world.url(path)).header("X-Device-Id", "box1").header("X-Device-Token", token);
    let told = world.read(&Method::GET, path, request.send().await.unwrap()).await.expect(200);
    assert_eq!(told.text("version"), "1.10.0");

    world.call(Method::DELETE, "/api/v1/releases/1.10.0", &world.admin, None).await.expect(204);
    assert_eq!(latest("").await.expect(200).text("version"), "1.10.0-rc.10");
    for bad in [
        json!({"version": "1.2", "channel": "stable", "artifact_url": "https://x", "checksum_sha256": "ab".repeat(32), "size_bytes": 1}),
        json!({"version": "1.2.3", "channel": "stable", "artifact_url": "ftp://x", "checksum_sha256": "ab".repeat(32), "size_bytes": 1}),
        json!({"version": "1.2.3", "channel": "stable", "artifact_url": "https://x", "checksum_sha256": "ab", "size_bytes": 1}),
        json!({"version": "1.2.3", "channel": "", "artifact_url": "https://x", "checksum_sha256": "ab".repeat(32), "size_bytes": 1}),
    ] {
        world.post("/api/v1/releases", &world.admin, bad).await.expect(400);
    }
    world.post("/api/v1/release-keys", &world.admin, json!({"name": "n", "public_key": "AAAA"})).await.expect(400);
    world.end().await;
}

async fn until(world: &World, path: &str, what: &str, right: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let body = world.get(path, &world.admin).await.expect(200).body;
        if right(&body) {
            return body;
        }
        assert!(Instant::now() < deadline, "{what} did not come: {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn connected(world: &World, id: &str) -> Device {
    let registration = world.enrol(&world.admin, id).await;
    let device = Device::connect(&registration).await;
    let order = ConnectionOrder { boot_seq: 1, conn_seq: 1 };
    device.say(Up::Presence, true, Presence::online(order).to_bytes().unwrap()).await;
    until(world, &format!("/api/v1/devices/{id}"), "online", |card| card["online"] == true).await;
    device
}

async fn answer(world: &World, device: &Device, state: &str, code: Option<&str>) -> Value {
    let path = format!("/api/v1/devices/{}/commands", device.address.device);
    let list = until(world, &path, "the update", |list| list["items"][0].is_object()).await;
    let command = list["items"][0].clone();
    let id = CommandId::new(command["id"].as_str().unwrap()).unwrap();
    let text = json!({"id": id, "rev": 1, "state": state, "attempt": 1, "code": code}).to_string();
    let status = CommandStatus::parse(text.as_bytes()).unwrap().to_bytes().unwrap();
    device.say(Up::CommandStatus(id), false, status).await;
    command
}

#[actix_web::test]
async fn a_rollout_reaches_every_device_once_and_is_complete() {
    let world = World::new().await;
    let maker = Maker::enter(&world).await;
    maker.draft("1.3.0", "stable").await.expect(201);
    world.post("/api/v1/rollouts", &world.admin, json!({"version": "1.3.0", "percent": 100})).await.expect(404);
    maker.publish("1.4.0", "stable").await;
    let (one, two) = (connected(&world, "box1").await, connected(&world, "box2").await);
    let body = json!({"version": "1.4.0", "percent": 100, "at_once": 1});
    let begun = world.post("/api/v1/rollouts", &world.admin, body).await.expect(201);
    let path = format!("/api/v1/rollouts/{}", begun.text("id"));
    world.call(Method::DELETE, "/api/v1/releases/1.4.0", &world.admin, None).await.expect(409);
    let command = answer(&world, &one, "succeeded", None).await;
    assert_eq!(
        (&command["type"], &command["payload"]),
        (&json!("update"), &json!({"version": "1.4.0", "force": false}))
    );
    answer(&world, &two, "succeeded", None).await;
    let done = until(&world, &path, "the end", |rollout| rollout["state"] == "completed").await;
    assert_eq!(
        (&done["counts"]["sent"], &done["counts"]["succeeded"], &done["devices"]),
        (&json!(2), &json!(2), &json!(2))
    );
    let device = world.get("/api/v1/devices/box1", &world.admin).await.expect(200);
    assert_eq!(device.text("target_version"), "1.4.0");
    world.call(Method::PATCH, &path, &world.admin, Some(json!({"state": "running"}))).await.expect(409);
    world.end().await;
}

#[actix_web::test]
async fn a_rollout_stops_when_devices_fail_and_says_when_they_cannot() {
    let world = World::new().await;
    let maker = Maker::enter(&world).await;
    maker.publish("1.4.0", "stable").await;
    let device = connected(&world, "box1").await;
    let begin = async |body: Value| world.post("/api/v1/rollouts", &world.admin, body).await.expect(201).text("id");
    let first = begin(json!({"version": "1.4.0", "percent": 100})).await;
    answer(&world, &device, "rejected", Some("unsupported")).await;
    let path = format!("/api/v1/rollouts/{first}");
    let stopped = until(&world, &path, "the stop", |rollout| rollout["state"] != "running").await;
    assert_eq!((&stopped["state"], &stopped["counts"]["unsupported"]), (&json!("unsupported"), &json!(1)));

    let other = connected(&world, "box2").await;
    let patch = json!({"tags": ["hall"]});
    world.call(Method::PATCH, "/api/v1/devices/box2", &world.admin, Some(patch)).await.expect(200);
    // One per cent of one box is that box.
    let second = begin(json!({"version": "1.4.0", "percent": 1, "tag": "hall"})).await;
    answer(&world, &other, "failed", Some("disk")).await;
    let path = format!("/api/v1/rollouts/{second}");
    let halted = until(&world, &path, "the halt", |rollout| rollout["state"] != "running").await;
    assert_eq!((&halted["state"], &halted["counts"]["failed"]), (&json!("halted"), &json!(1)));
    let members = async |rollout: &str, query: &str| {
        let page =
            world.get(&format!("/api/v1/rollouts/{rollout}/commands{query}"), &world.admin).await.expect(200).body;
        let device = |one: &Value| one["device_id"].as_str().unwrap().to_owned();
        (page["total"].as_i64().unwrap(), page["items"].as_array().unwrap().iter().map(device).collect::<Vec<_>>())
    };
    assert_eq!(members(&second, "?failed=true").await, (1, vec!["box2".to_owned()]));
    assert_eq!(members(&first, "").await, (1, vec!["box1".to_owned()]));
    world.get("/api/v1/rollouts/none/commands", &world.admin).await.expect(404);

    let third = begin(json!({"version": "1.4.0", "percent": 20, "tag": "nobody"})).await;
    let path = format!("/api/v1/rollouts/{third}");
    let change = async |body: Value| world.call(Method::PATCH, &path, &world.admin, Some(body)).await;
    change(json!({"percent": 10})).await.expect(409);
    assert_eq!(change(json!({"percent": 30, "state": "paused"})).await.expect(200).body["percent"], 30);
    assert_eq!(change(json!({"state": "cancelled"})).await.expect(200).text("state"), "cancelled");
    change(json!({"percent": 101})).await.expect(400);
    for bad in [json!({"version": "1.4.0", "percent": 0}), json!({"version": "1.4.0", "percent": 5, "at_once": 1001})] {
        world.post("/api/v1/rollouts", &world.admin, bad).await.expect(400);
    }
    world.end().await;
}
