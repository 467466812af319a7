//! Commands, as far as they are the server's.

use r58_mqtt::sign::{KeyRing, PublicKey};
use r58_mqtt::{CommandId, DeviceAddress, DeviceId, OrgId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

#[actix_web::test]
async fn a_command_gets_the_devices_next_number_and_can_be_followed() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    world.enrol(&world.admin, "box2").await;
    let send = async |device: &str, body: Value| {
        world.post(&format!("/api/v1/devices/{device}/commands"), &world.admin, body).await
    };
    let take = json!({"type": "take", "payload": {"scene": "quad", "kind": "cut"}, "priority": 9, "notes": "now"});
    let first = send("box1", take).await.expect(201);
    assert_eq!(
        (first.body["seq"].clone(), first.text("state"), first.text("status")),
        (json!(1), "published".into(), "sent".into())
    );
    assert_eq!(first.body["payload"], json!({"scene": "quad", "kind": "cut"}));
    assert!(first.body.get("message").is_none(), "only a draft shows its message");
    assert_eq!(first.text("created_by"), "user:admin@r58.local");
    assert_eq!(send("box1", json!({"type": "identify"})).await.expect(201).body["seq"], 2);
    assert_eq!(send("box2", json!({"type": "identify"})).await.expect(201).body["seq"], 1);
    let path = first.headers["location"].to_str().unwrap().to_owned();
    let read = world.get(&path, &world.admin).await.expect(200);
    assert_eq!(read.body["history"][0]["state"], "published");
    let list = world.get("/api/v1/devices/box1/commands?page_size=1", &world.admin).await.expect(200).body;
    assert_eq!((&list["total"], &list["items"][0]["seq"]), (&json!(2), &json!(2)), "newest first");
    send("nobody", json!({"type": "identify"})).await.expect(404);
    world.get("/api/v1/devices/nobody/commands", &world.admin).await.expect(404);
    world.end().await;
}

#[actix_web::test]
async fn a_draft_is_signed_for_its_device_and_left_to_be_published_by_hand() {
    let world = World::new().await;
    let device = world.enrol(&world.admin, "box1").await;
    let body = json!({"type": "identify", "payload": {"seconds": 5}, "draft": true});
    let draft = world.post("/api/v1/devices/box1/commands", &world.admin, body).await.expect(201);
    let id = draft.text("id");
    assert_eq!((draft.text("state"), draft.text("status")), ("draft".into(), "pending".into()));
    assert_eq!(draft.text("topic"), format!("r58/1/default/box1/down/cmd/{id}"));
    let keys: Vec<PublicKey> = serde_json::from_value(device["command_keys"].clone()).unwrap();
    let ring = KeyRing::new(&keys).unwrap();
    let at =
        |device: &str| DeviceAddress { org: OrgId::new("default").unwrap(), device: DeviceId::new(device).unwrap() };
    let message = draft.text("message");
    let id = CommandId::new(&id).unwrap();
    let verified = ring.verify(&at("box1"), &id, message.as_bytes()).unwrap();
    let command = verified.command();
    assert_eq!((command.op.as_str(), command.seq, command.by.user.as_str()), ("identify", 1, "admin@r58.local"));
    assert!(ring.verify(&at("box2"), &id, message.as_bytes()).is_err(), "worth nothing at another device");
    world.end().await;
}

#[actix_web::test]
async fn what_cannot_be_a_command_is_refused() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let past = "2020-01-01T00:00:00Z";
    let far = "2999-01-01T00:00:00Z";
    for bad in [
        json!({}),
        json!({"type": ""}),
        json!({"type": "Take it"}),
        json!({"type": "x".repeat(65)}),
        json!({"type": "take", "payload": [1]}),
        json!({"type": "take", "payload": null}),
        json!({"type": "take", "priority": 11}),
        json!({"type": "take", "priority": 0}),
        json!({"type": "take", "expires_at": past}),
        json!({"type": "take", "expires_at": far}),
        json!({"type": "take", "expires_at": "soon"}),
        json!({"type": "take", "not_before": far}),
        json!({"type": "take", "surprise": true}),
        json!({"type": "config", "payload": {"changes": "x".repeat(100_000)}}),
    ] {
        let text = bad.to_string();
        let answer = world.post("/api/v1/devices/box1/commands", &world.admin, bad).await;
        assert_eq!(answer.status, 400, "{}", &text[..text.len().min(80)]);
    }
    let list = world.get("/api/v1/devices/box1/commands", &world.admin).await.expect(200).body;
    assert_eq!(list["total"], 0);
    let good = world.post("/api/v1/devices/box1/commands", &world.admin, json!({"type": "take"})).await.expect(201);
    assert_eq!(good.body["seq"], 1, "refused ones use no number");
    world.end().await;
}

#[actix_web::test]
async fn a_command_that_nobody_took_is_cancelled_at_once_and_only_once() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let made = world.post("/api/v1/devices/box1/commands", &world.admin, json!({"type": "reboot"})).await.expect(201);
    let path = format!("/api/v1/commands/{}/cancel", made.text("id"));
    let cancelled = world.call(Method::POST, &path, &world.admin, None).await.expect(200);
    assert_eq!((cancelled.text("state"), cancelled.text("status")), ("cancelled".into(), "cancelled".into()));
    assert!(cancelled.body["finished_at"].is_string());
    world.call(Method::POST, &path, &world.admin, None).await.expect(409);
    world.call(Method::POST, "/api/v1/commands/unknown/cancel", &world.admin, None).await.expect(404);
    world.end().await;
}
