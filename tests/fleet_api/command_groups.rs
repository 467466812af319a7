//! Commands for many devices, commands that are made once, and commands that are only rehearsed.

use std::time::Duration;

use r58_mqtt::payload::{Command, ConnectionOrder, Payload as _, Presence};
use r58_mqtt::{Down, Topic, Up};
use reqwest::Method;
use serde_json::{Value, json};

use crate::live::Device;
use crate::world::World;

async fn tagged(world: &World, ids: &[&str]) {
    for id in ids {
        world.enrol(&world.admin, id).await;
    }
    let body = json!({"devices": {"ids": ids}, "add_tags": ["stage"]});
    world.post("/api/v1/devices/bulk", &world.admin, body).await.expect(200);
}

#[actix_web::test]
async fn one_call_makes_one_command_for_each_device_of_a_tag() {
    let world = World::new().await;
    tagged(&world, &["box1", "box2", "box3"]).await;
    world.enrol(&world.admin, "box4").await;
    let body = json!({"devices": {"tag": "stage"}, "command": {"type": "reboot", "payload": {"delay_seconds": 5}, "notes": "n"}});
    let made = world.post("/api/v1/command-groups", &world.admin, body).await.expect(201);
    let path = made.headers["location"].to_str().unwrap().to_owned();
    assert_eq!((&made.body["total"], &made.body["states"]), (&json!(3), &json!({"published": 3})));
    assert_eq!(
        (&made.body["tag"], &made.body["statuses"], &made.body["ended"]),
        (&json!("stage"), &json!({"sent": 3}), &json!(0))
    );
    let members = world.get(&format!("{path}/commands?page_size=2"), &world.admin).await.expect(200).body;
    assert_eq!((&members["total"], &members["has_more"]), (&json!(3), &json!(true)));
    let first = &members["items"][0];
    assert_eq!((&first["device_id"], &first["group_id"], &first["seq"]), (&json!("box1"), &made.body["id"], &json!(1)));
    assert_eq!(world.get("/api/v1/devices/box4/commands", &world.admin).await.expect(200).body["total"], 0);
    let one = format!("/api/v1/commands/{}/cancel", first["id"].as_str().unwrap());
    world.call(Method::POST, &one, &world.admin, None).await.expect(200);
    let cancelled = world.call(Method::POST, &format!("{path}/cancel"), &world.admin, None).await.expect(200);
    assert_eq!((&cancelled.body["states"], &cancelled.body["ended"]), (&json!({"cancelled": 3}), &json!(3)));
    let list = world.get("/api/v1/command-groups", &world.admin).await.expect(200).body;
    assert_eq!((&list["total"], &list["items"][0]["id"]), (&json!(1), &made.body["id"]));

    let stranger = world.user("other", "admin").await;
    for path in [path.clone(), format!("{path}/commands")] {
        world.get(&path, &stranger).await.expect(404);
    }
    let foreign = json!({"devices": {"ids": ["box1"]}, "command": {"type": "identify"}});
    let nothing = world.post("/api/v1/command-groups", &stranger, foreign).await.expect(201);
    assert_eq!((&nothing.body["total"], &nothing.body["unknown"]), (&json!(0), &json!(["box1"])));
    world.end().await;
}

#[actix_web::test]
async fn a_group_that_cannot_be_is_refused_and_uses_no_number() {
    let world = World::new().await;
    tagged(&world, &["box1"]).await;
    for command in [
        json!({"type": "Reboot"}),
        json!({"type": "reboot", "draft": true}),
        json!({"type": "reboot", "preconditions": {"not_while": ["a b"]}}),
        json!({"type": "reboot", "preconditions": {"moon": "full"}}),
        json!({"type": "reboot", "payload": {"x": "y".repeat(100_000)}}),
    ] {
        for path in ["/api/v1/command-groups", "/api/v1/command-groups/dry-run"] {
            let body = json!({"devices": {"tag": "stage"}, "command": command});
            let answer = world.post(path, &world.admin, body).await;
            let rehearsal = path.ends_with("dry-run") && (command["draft"] == true || command["payload"].is_object());
            assert_eq!(answer.status, if rehearsal { 200 } else { 400 }, "{path} {}", answer.body);
        }
    }
    let one = world.post("/api/v1/devices/box1/commands", &world.admin, json!({"type": "identify"})).await.expect(201);
    assert_eq!(one.body["seq"], 1);
    world.end().await;
}

#[actix_web::test]
async fn a_request_with_a_key_is_carried_out_once() {
    let world = World::new().await;
    tagged(&world, &["box1", "box2"]).await;
    let ask = async |path: &str, token: &str, key: &str, body: Value| {
        let request = world.http.post(world.url(path)).bearer_auth(token).header("Idempotency-Key", key).json(&body);
        world.read(&Method::POST, path, request.send().await.unwrap()).await
    };
    let (one, identify) = ("/api/v1/devices/box1/commands", json!({"type": "identify"}));
    let first = ask(one, &world.admin, "k1", identify.clone()).await.expect(201);
    let again = ask(one, &world.admin, "k1", identify.clone()).await.expect(201);
    assert_eq!(first.body["id"], again.body["id"]);
    ask(one, &world.admin, "k1", json!({"type": "reboot"})).await.expect(409);
    ask("/api/v1/devices/box2/commands", &world.admin, "k1", identify.clone()).await.expect(409);
    ask(one, &world.admin, "", identify.clone()).await.expect(400);
    ask(one, &world.admin, &"k".repeat(201), identify.clone()).await.expect(400);
    let other = ask(one, &world.admin, "k2", identify.clone()).await.expect(201);
    assert_ne!(first.body["id"], other.body["id"]);
    let stranger = world.user("other", "operator").await;
    world.enrol(&world.user("third", "admin").await, "box9").await;
    ask(one, &stranger, "k1", identify.clone()).await.expect(404);

    let group = json!({"devices": {"tag": "stage"}, "command": {"type": "identify"}});
    let both = async || ask("/api/v1/command-groups", &world.admin, "g1", group.clone()).await.expect(201);
    let (a, b) = tokio::join!(both(), both());
    assert_eq!(a.body["id"], b.body["id"]);
    assert_eq!(world.get("/api/v1/command-groups", &world.admin).await.expect(200).body["total"], 1);
    assert_eq!(world.get(one, &world.admin).await.expect(200).body["total"], 3);
    world.end().await;
}

#[actix_web::test]
async fn a_rehearsal_says_what_each_device_would_and_makes_nothing() {
    let world = World::new().await;
    tagged(&world, &["box2"]).await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut device = Device::connect(&registration).await;
    let order = ConnectionOrder { boot_seq: 1, conn_seq: 1 };
    device.say(Up::Presence, true, Presence::online(order).to_bytes().unwrap()).await;
    let caps = json!({"ops": ["reboot", "scene"], "versions": [1], "limits": {"packet_bytes": 1, "command_bytes": 1}});
    device.say(Up::Caps, true, caps.to_string()).await;
    let reported = json!({"ver": 7, "boot_seq": 1, "scenes": [{"id": "quad", "label": "Quad"}]});
    device.say(Up::Reported, true, reported.to_string()).await;
    let rehearse = async |body: Value| {
        let path = "/api/v1/devices/box1/commands/dry-run";
        world.post(path, &world.admin, body).await.expect(200).text("verdict")
    };
    let plain = |kind: &str| json!({"type": kind});
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while rehearse(plain("reboot")).await != "ok" || rehearse(plain("update")).await != "unsupported" {
        assert!(std::time::Instant::now() < deadline, "the device's words did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rehearse(json!({"type": "scene", "payload": {"scene": "quad"}})).await, "ok");
    let stale = json!({"type": "reboot", "preconditions": {"desired_ver": 8}});
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while rehearse(stale.clone()).await != "precondition" {
        assert!(std::time::Instant::now() < deadline, "the reported state did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rehearse(json!({"type": "scene", "payload": {"scene": "solo"}})).await, "arguments");
    let body = json!({"devices": {"ids": ["box1", "box2", "box3"]}, "command": {"type": "reboot"}});
    let both = world.post("/api/v1/command-groups/dry-run", &world.admin, body).await.expect(200).body;
    assert_eq!((&both["verdicts"], &both["unknown"]), (&json!({"ok": 1, "offline": 1}), &json!(["box3"])));
    assert_eq!(world.get("/api/v1/devices/box1/commands", &world.admin).await.expect(200).body["total"], 0);

    // A real command carries its conditions, signed.
    let made = world.post("/api/v1/devices/box1/commands", &world.admin, stale).await.expect(201);
    let id = r58_mqtt::CommandId::new(made.text("id")).unwrap();
    let message = device.message("the command", &Topic::down(&device.address, Down::Command(id))).await;
    assert_eq!(Command::parse(&message.payload).unwrap().precond.desired_ver, Some(8));
    assert_eq!(made.body["preconditions"], json!({"desired_ver": 8}));
    world.end().await;
}
