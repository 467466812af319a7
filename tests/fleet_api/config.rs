//! Configurations of devices: asked for, brought, compared, taken back.

use std::time::Duration;

use r58_mqtt::payload::{Command, CommandStatus, Payload as _};
use r58_mqtt::{CommandId, Down, Topic, Up};
use reqwest::Method;
use serde_json::{Value, json};

use crate::live::Device;
use crate::world::{Answer, World};

const PATH: &str = "/api/v1/devices/box1/config";

async fn put(world: &World, document: Value, expected: Option<i64>) -> Answer {
    let body = json!({"document": document, "expected_ver": expected});
    world.call(Method::PUT, PATH, &world.admin, Some(body)).await
}

async fn until(world: &World, what: &str, right: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let config = world.get(PATH, &world.admin).await.expect(200).body;
        if right(&config) {
            return config;
        }
        assert!(std::time::Instant::now() < deadline, "{what} did not come: {config}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn a_configuration_has_versions_and_a_stale_author_is_told() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let empty = world.get(PATH, &world.admin).await.expect(200).body;
    assert_eq!(empty, json!({"desired": null, "reported": null, "in_force": false, "state": null, "reason": null}));
    let source = |url: &str| json!({"inputs": {"cam1": {"source": {"kind": "rtsp", "url": url}}}});
    let first = put(&world, source("rtsp://u:secret@a/1"), Some(0)).await.expect(200).body;
    assert_eq!(
        (&first["desired"]["ver"], &first["state"], &first["in_force"]),
        (&json!(1), &json!("published"), &json!(false))
    );
    put(&world, json!({}), Some(0)).await.expect(409);
    let change = json!({"changes": {"inputs": {"cam2": {"source": {"kind": "test"}}}}, "notes": "second camera"});
    let second = world.call(Method::PATCH, PATH, &world.admin, Some(change)).await.expect(200).body;
    assert_eq!((&second["desired"]["ver"], &second["desired"]["notes"]), (&json!(2), &json!("second camera")));
    assert_eq!(second["desired"]["document"]["inputs"]["cam1"], source("rtsp://u:secret@a/1")["inputs"]["cam1"]);
    let removal = json!({"changes": {"inputs": {"cam1": null}}, "expected_ver": 1});
    world.call(Method::PATCH, PATH, &world.admin, Some(removal)).await.expect(409);

    let commands = world.get("/api/v1/devices/box1/commands", &world.admin).await.expect(200).body;
    assert_eq!(
        (&commands["items"][0]["state"], &commands["items"][1]["state"]),
        (&json!("published"), &json!("superseded"))
    );
    assert!(!commands.to_string().contains("secret"), "{commands}");

    let back = json!({"ver": 1, "expected_ver": 2});
    let third = world.post(&format!("{PATH}/rollback"), &world.admin, back).await.expect(200).body;
    assert_eq!((&third["desired"]["ver"], &third["desired"]["restores"]), (&json!(3), &json!(1)));
    // Asked for again, because the answer was lost, it is not done again, though by now it would be stale.
    let with_key = async |method: Method, path: &str, key: &str, body: Value| {
        let request = world.http.request(method, world.url(path)).bearer_auth(&world.admin);
        let answer = request.header("Idempotency-Key", key).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["desired"]["ver"].clone())
    };
    let rollback = format!("{PATH}/rollback");
    for now in [4, 5] {
        let back = json!({"ver": 2, "expected_ver": 3});
        assert_eq!(with_key(Method::POST, &rollback, "once", back).await, (200, json!(now)));
        let change = json!({"changes": {}, "notes": "the same"});
        assert_eq!(with_key(Method::PATCH, PATH, "once more", change).await, (200, json!(5)));
    }
    assert_eq!(
        with_key(Method::POST, &rollback, "once", json!({"ver": 1})).await.0,
        409,
        "the key is another request's"
    );
    assert_eq!(with_key(Method::PUT, PATH, "stale", json!({"document": {}, "expected_ver": 1})).await.0, 409);
    let put = json!({"document": third["desired"]["document"], "expected_ver": 5});
    assert_eq!(with_key(Method::PUT, PATH, "stale", put).await, (200, json!(6)), "a key that changed nothing is free");
    let list = world.get(&format!("{PATH}/versions?page_size=2"), &world.admin).await.expect(200).body;
    assert_eq!((&list["total"], &list["items"][0]["ver"]), (&json!(6), &json!(6)));
    let one = world.get(&format!("{PATH}/versions/1"), &world.admin).await.expect(200).body;
    assert_eq!(one["document"], third["desired"]["document"]);
    world.get(&format!("{PATH}/versions/9"), &world.admin).await.expect(404);
    world.post(&format!("{PATH}/rollback"), &world.admin, json!({"ver": 9})).await.expect(404);

    let diff = async |query: &str| world.get(&format!("{PATH}/diff{query}"), &world.admin).await;
    let forth = diff("?from=1&to=2").await.expect(200).body["differences"].clone();
    let added = json!({"path": "/inputs/cam2", "kind": "added", "from": null, "to": {"source": {"kind": "test"}}});
    assert_eq!(forth, json!([added]));
    assert_eq!(diff("?from=2&to=1").await.expect(200).body["differences"][0]["kind"], "removed");
    assert_eq!(diff("?from=3&to=1").await.expect(200).body["differences"], json!([]));
    diff("").await.expect(404);
    diff("?from=0").await.expect(400);
    for bad in [json!({}), json!({"document": []}), json!({"document": {"x": "y".repeat(100_000)}})] {
        world.call(Method::PUT, PATH, &world.admin, Some(bad)).await.expect(400);
    }
    world.end().await;
}

#[actix_web::test]
async fn a_device_is_brought_its_configuration_and_compared_with_what_it_says() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut device = Device::connect(&registration).await;
    let caps = json!({"ops": ["config"], "versions": [1], "limits": {"packet_bytes": 1, "command_bytes": 1}});
    device.say(Up::Caps, true, caps.to_string()).await;
    let says = async |ver: u64, pattern: &str, url: &str| {
        let config = json!({"programme": {"fps": 30}, "inputs": {
            "cam1": {"source": {"kind": "test", "pattern": pattern}}, "cam2": {"source": {"kind": "rtsp", "url": url}}}});
        device.say(Up::Reported, true, json!({"ver": ver, "boot_seq": 1, "config": config}).to_string()).await;
    };
    // A change that came by another way has used version 4.
    says(4, "ball", "rtsp://cam/1").await;
    until(&world, "what is in force", |config| config["reported"]["ver"] == 4).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while world.get("/api/v1/devices/box1", &world.admin).await.expect(200).body["caps"].is_null() {
        assert!(std::time::Instant::now() < deadline, "the caps did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let document = json!({"inputs": {"cam1": {"source": {"kind": "test", "pattern": "snow"}},
        "cam2": {"source": {"kind": "rtsp", "url": "rtsp://u:p@cam/1"}}}});
    let asked = put(&world, document.clone(), None).await.expect(200).body;
    assert_eq!(asked["desired"]["ver"], 5);
    let id = CommandId::new(asked["desired"]["command_id"].as_str().unwrap()).unwrap();
    let message = device.message("the command", &Topic::down(&device.address, Down::Command(id.clone()))).await;
    let command = Command::parse(&message.payload).unwrap();
    assert_eq!(
        (command.op.as_str(), &command.args["document"], &command.args["version"]),
        ("config", &document, &json!(5))
    );

    let differs =
        async || world.get(&format!("{PATH}/diff"), &world.admin).await.expect(200).body["differences"].clone();
    let pattern = json!({"path": "/inputs/cam1/source/pattern", "kind": "changed", "from": "ball", "to": "snow"});
    assert_eq!(differs().await, json!([pattern]), "what it was not asked for is not compared, and no password is");
    let says = async |ver: u64| {
        let config = json!({"programme": {"fps": 30}, "inputs": {
            "cam1": {"source": {"kind": "test", "pattern": "snow"}}, "cam2": {"source": {"kind": "rtsp", "url": "rtsp://cam/1"}}}});
        device.say(Up::Reported, true, json!({"ver": ver, "boot_seq": 1, "config": config}).to_string()).await;
    };
    let text = json!({"id": id, "rev": 1, "state": "succeeded", "attempt": 1, "result": {"ver": 5}}).to_string();
    let status = CommandStatus::parse(text.as_bytes()).unwrap().to_bytes().unwrap();
    device.say(Up::CommandStatus(id), false, status).await;
    says(5).await;
    until(&world, "it is in force", |config| config["in_force"] == true && config["state"] == "succeeded").await;
    assert_eq!(differs().await, json!([]));
    world.end().await;
}
