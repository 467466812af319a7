//! Devices that only speak HTTP, beside those on the broker and on the same state machine.

use r58_actors::ingest::store::FleetStore as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, World};

struct OldDevice<'a> {
    world: &'a World,
    id: &'static str,
    token: String,
}

impl<'a> OldDevice<'a> {
    async fn enrol(world: &'a World, id: &'static str) -> Self {
        let token = world.enrol(&world.admin, id).await["token"].as_str().unwrap().to_owned();
        Self { world, id, token }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.world.http.request(method.clone(), self.world.url(path));
        request = request.header("X-Device-Id", self.id).header("X-Device-Token", &self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.world.read(&method, path, request.send().await.unwrap()).await
    }

    async fn beat(&self, body: Value) -> Answer {
        self.call(Method::POST, &format!("/api/v1/devices/{}/heartbeat", self.id), Some(body)).await
    }

    async fn pending(&self) -> Vec<Value> {
        let answer = self.call(Method::GET, &format!("/api/v1/devices/{}/commands", self.id), None).await.expect(200);
        answer.body["items"].as_array().unwrap().clone()
    }

    async fn report(&self, id: &str, body: Value) -> Answer {
        self.call(Method::PATCH, &format!("/api/v1/commands/{id}"), Some(body)).await
    }
}

fn beat() -> Value {
    json!({"ts": chrono::Utc::now(), "version": "1.2", "uptime_seconds": 9, "errors": [],
        "metrics": {"cpu_percent": 12.5, "mem_percent": 40, "disk_free_gb": 3.5, "load_avg": 0.5},
        "status": {"recording_active": true, "mixer_active": true, "active_inputs": ["cam1"], "degradation_level": 1}})
}

#[actix_web::test]
async fn a_heartbeat_over_http_puts_the_device_on_the_dashboard_and_tells_it_what_waits() {
    let world = World::new().await;
    let device = OldDevice::enrol(&world, "old1").await;
    let patch = json!({"target_version": "1.3.0"});
    world.call(Method::PATCH, "/api/v1/devices/old1", &world.admin, Some(patch)).await.expect(200);
    world.post("/api/v1/devices/old1/commands", &world.admin, json!({"type": "reboot"})).await.expect(201);
    let later = json!({"type": "reboot", "not_before": chrono::Utc::now() + chrono::Duration::minutes(5)});
    world.post("/api/v1/devices/old1/commands", &world.admin, later).await.expect(201);
    let ack = device.beat(beat()).await.expect(200).body;
    assert_eq!(
        (&ack["ack"], &ack["commands_pending"], &ack["target_version"]),
        (&json!(true), &json!(1), &json!("1.3.0"))
    );
    assert!(ack["server_time"].is_string());
    device.beat(beat()).await.expect(200);
    let card = world.get("/api/v1/devices/old1", &world.admin).await.expect(200).body;
    assert_eq!(
        (&card["status"], &card["cpu_percent"], &card["version"]),
        (&json!("online"), &json!(12.5), &json!("1.2"))
    );
    let history = world.get("/api/v1/devices/old1/heartbeats", &world.admin).await.expect(200).body;
    assert_eq!(history["total"], 2);
    // As one of before writes it: with its token alone, an uptime with a fraction, and a time without its zone.
    let mut older = beat();
    (older["uptime_seconds"], older["ts"]) = (json!(12.75), json!("2026-11-22T10:00:00.25"));
    let request = world.http.post(world.url("/api/v1/devices/old1/heartbeat")).header("X-Device-Token", &device.token);
    let answer = request.json(&older).send().await.unwrap();
    world.read(&Method::POST, "/api/v1/devices/old1/heartbeat", answer).await.expect(200);
    let history =
        world.get("/api/v1/devices/old1/heartbeats?since=2026-11-22T10:00:00Z", &world.admin).await.expect(200);
    let items = history.body["items"].as_array().unwrap().clone();
    let stored = items.iter().find(|beat| beat["ts"] == "2026-11-22T10:00:00.250Z").unwrap();
    assert_eq!(stored["uptime_seconds"], 12);
    let strange = world.http.get(world.url("/api/v1/devices/old1/commands")).header("X-Device-Token", "0".repeat(64));
    assert_eq!(strange.send().await.unwrap().status(), 401);
    let status = async || world.get("/api/v1/devices/old1", &world.admin).await.expect(200).text("status");
    let after = async |minutes: i64| {
        let then = chrono::Utc::now() + chrono::Duration::minutes(minutes);
        world.handle.store().mark_silent(then).await.unwrap();
    };
    after(2).await;
    assert_eq!(status().await, "online");
    after(4).await;
    assert_eq!(status().await, "offline", "three minutes were missed");
    device.beat(beat()).await.expect(200);
    assert_eq!(status().await, "online");
    for bad in
        [json!({}), json!({"ts": "yesterday"}), json!({"ts": chrono::Utc::now(), "metrics": {"cpu_percent": "hot"}})]
    {
        device.beat(bad).await.expect(400);
    }
    device.call(Method::POST, "/api/v1/devices/other/heartbeat", Some(beat())).await.expect(404);
    world.end().await;
}

#[actix_web::test]
async fn a_command_goes_through_the_older_words_to_its_end() {
    let world = World::new().await;
    let device = OldDevice::enrol(&world, "old1").await;
    let make = async |body: Value| {
        world.post("/api/v1/devices/old1/commands", &world.admin, body).await.expect(201).text("id")
    };
    let low = make(json!({"type": "reboot", "priority": 1})).await;
    let high = make(json!({"type": "restart_service", "payload": {"service": "mixer"}, "priority": 9})).await;
    let pending = device.pending().await;
    let ids: Vec<&str> = pending.iter().map(|command| command["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&high, &low], "the higher priority first");
    assert_eq!(
        (&pending[0]["status"], &pending[0]["attempts"], &pending[0]["max_attempts"]),
        (&json!("sent"), &json!(1), &json!(3))
    );
    assert_eq!(device.report(&high, json!({"status": "acked"})).await.expect(200).text("state"), "accepted");
    assert_eq!(device.pending().await.len(), 1, "what it acknowledged is not given again");
    assert_eq!(device.report(&high, json!({"status": "running"})).await.expect(200).text("status"), "running");
    device.report(&high, json!({"status": "acked"})).await.expect(409);
    let done = json!({"status": "completed", "result": {"pid": 7}});
    let ended = device.report(&high, done.clone()).await.expect(200);
    assert_eq!((ended.text("state"), &ended.body["result"]), ("succeeded".into(), &json!({"pid": 7})));
    device.report(&high, done).await.expect(200);
    device.report(&high, json!({"status": "failed"})).await.expect(409);
    let failed = device.report(&low, json!({"status": "failed", "error": "no such thing"})).await.expect(200);
    assert_eq!((failed.text("status"), failed.text("reason")), ("failed".into(), "no such thing".into()));
    for bad in [json!({"status": "sent"}), json!({"status": "expired"}), json!({"status": "weird"}), json!({})] {
        device.report(&low, bad).await.expect(400);
    }
    let other = OldDevice::enrol(&world, "old2").await;
    other.report(&low, json!({"status": "acked"})).await.expect(404);
    world.end().await;
}

#[actix_web::test]
async fn a_command_is_given_three_times_and_no_more() {
    let world = World::new().await;
    let device = OldDevice::enrol(&world, "old1").await;
    let made = world.post("/api/v1/devices/old1/commands", &world.admin, json!({"type": "reboot"})).await.expect(201);
    for attempt in 1..=3 {
        assert_eq!(device.pending().await[0]["attempts"], attempt);
    }
    assert!(device.pending().await.is_empty());
    let path = format!("/api/v1/commands/{}", made.text("id"));
    assert_eq!(world.get(&path, &world.admin).await.expect(200).text("state"), "published", "it may still speak");
    // Three minutes later, by the server's clock.
    let store = world.handle.store();
    let later = chrono::Utc::now() + chrono::Duration::minutes(3);
    store.hand_out("default", "old1", later).await.unwrap();
    let ended = world.get(&path, &world.admin).await.expect(200);
    assert_eq!((ended.text("status"), ended.text("code")), ("failed".into(), "unacknowledged".into()));
    world.end().await;
}

#[actix_web::test]
async fn a_cancelled_command_is_not_given_and_a_condition_is_judged_for_the_device() {
    let world = World::new().await;
    let device = OldDevice::enrol(&world, "old1").await;
    device.beat(beat()).await.expect(200);
    let make = async |body: Value| {
        world.post("/api/v1/devices/old1/commands", &world.admin, body).await.expect(201).text("id")
    };
    let idle = make(json!({"type": "reboot", "preconditions": {"not_while": ["recording"]}})).await;
    assert!(device.pending().await.is_empty());
    let refused = world.get(&format!("/api/v1/commands/{idle}"), &world.admin).await.expect(200);
    assert_eq!((refused.text("state"), refused.text("code")), ("rejected".into(), "precondition".into()));
    let taken = make(json!({"type": "reboot"})).await;
    assert_eq!(device.pending().await.len(), 1);
    device.report(&taken, json!({"status": "acked"})).await.expect(200);
    world.call(Method::POST, &format!("/api/v1/commands/{taken}/cancel"), &world.admin, None).await.expect(200);
    device.report(&taken, json!({"status": "running"})).await.expect(409);
    let ended = world.get(&format!("/api/v1/commands/{taken}"), &world.admin).await.expect(200);
    assert_eq!(ended.text("status"), "cancelled");
    world.end().await;
}
