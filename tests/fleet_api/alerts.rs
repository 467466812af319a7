//! Alerts: rules, what they find, who takes it on, and who may do what.

use std::time::Duration;

use chrono::Utc;
use r58_actors::ingest::store::{FleetStore, Record, Report};
use r58_mqtt::payload::{ConnectionOrder, Presence};
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

/// Far more than a look takes on a slow machine.
pub const WITHIN: Duration = Duration::from_secs(30);

/// What the broker would bring.
pub async fn presence(world: &World, device: &str, online: bool, conn: u64) {
    let order = ConnectionOrder { boot_seq: 1, conn_seq: conn };
    let report = Report::Presence(if online { Presence::online(order) } else { Presence::will(order) });
    let device = DeviceAddress { org: OrgId::new("default").unwrap(), device: DeviceId::new(device).unwrap() };
    world.handle.store().apply(&[Record { device, received_at: Utc::now(), report }]).await.unwrap();
}

/// The rule of a kind, changed.
pub async fn rule(world: &World, kind: &str, change: Value) -> String {
    let rules = world.get("/api/v1/alert-rules", &world.admin).await.expect(200);
    let id = rules.body["items"].as_array().unwrap().iter().find(|rule| rule["kind"] == kind).unwrap()["id"].clone();
    let id = id.as_str().unwrap().to_owned();
    world.call(Method::PATCH, &format!("/api/v1/alert-rules/{id}"), &world.admin, Some(change)).await.expect(200);
    id
}

/// Waits for so many alerts of a query, and answers with them.
pub async fn alerts(world: &World, query: &str, count: usize) -> Vec<Value> {
    let end = tokio::time::Instant::now() + WITHIN;
    loop {
        let page = world.get(&format!("/api/v1/alerts?{query}"), &world.admin).await.expect(200);
        let items = page.body["items"].as_array().unwrap().clone();
        if items.len() == count {
            return items;
        }
        assert!(tokio::time::Instant::now() < end, "{count} of {query}: {items:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn a_box_that_goes_away_is_an_alert_that_is_taken_on_and_over_when_it_is_back() {
    let world = World::new().await;
    let (operator, viewer) = (world.user("default", "operator").await, world.user("default", "viewer").await);
    world.enrol(&world.admin, "box1").await;
    rule(&world, "offline", json!({"for_seconds": 0})).await;
    presence(&world, "box1", true, 1).await;
    presence(&world, "box1", false, 1).await;
    let found = alerts(&world, "state=firing&severity=critical&device=box1&kind=offline", 1).await.remove(0);
    assert_eq!((&found["device_name"], &found["detail"]), (&json!("Box box1"), &json!("its connection broke")));
    assert_eq!((&found["type"], &found["status"]), (&json!("offline"), &json!("active")));
    let summary = world.get("/api/v1/alerts/summary", &viewer).await.expect(200);
    assert_eq!(summary.body, json!({"open": 1, "firing": 1, "critical": 1, "error": 0, "warning": 0, "info": 0}));
    let path = format!("/api/v1/alerts/{}/acknowledge", found["id"].as_str().unwrap());
    world.post(&path, &viewer, json!({})).await.expect(403);
    let taken = world.post(&path, &operator, json!({"note": "on my way"})).await.expect(200);
    assert_eq!(
        (taken.text("state"), taken.text("acknowledged_by")),
        ("acknowledged".into(), "user:operator@default.example".into())
    );
    world.post(&path, &operator, json!({})).await.expect(200);
    // Given back, and taken on anew.
    let give_back = async |token: &str| world.call(Method::DELETE, &path, token, None).await;
    give_back(&viewer).await.expect(403);
    for _ in 0..2 {
        let back = give_back(&operator).await.expect(200);
        assert_eq!((back.text("state"), &back.body["acknowledged_by"]), ("firing".into(), &Value::Null));
    }
    assert_eq!(world.get("/api/v1/alerts/summary", &viewer).await.expect(200).body["firing"], 1);
    world.post(&path, &operator, json!({"note": "on my way"})).await.expect(200);
    presence(&world, "box1", true, 2).await;
    let over = alerts(&world, "state=resolved", 1).await.remove(0);
    assert_eq!((&over["id"], &over["note"]), (&found["id"], &json!("on my way")));
    world.post(&path, &operator, json!({})).await.expect(409);
    give_back(&operator).await.expect(409);
    // Another organization knows nothing of it.
    let stranger = world.user("other", "admin").await;
    world.get(&format!("/api/v1/alerts/{}", found["id"].as_str().unwrap()), &stranger).await.expect(404);
    world.post(&path, &stranger, json!({})).await.expect(404);
    give_back(&stranger).await.expect(404);
    assert_eq!(world.get("/api/v1/alerts", &stranger).await.expect(200).body["items"], json!([]));
    world.end().await;
}

#[actix_web::test]
async fn rules_are_made_changed_and_deleted_by_administrators_and_what_makes_no_sense_is_refused() {
    let world = World::new().await;
    let operator = world.user("default", "operator").await;
    let new =
        json!({"kind": "disk", "name": "Disk of the tour", "threshold": 20, "tag": "tour", "severity": "critical"});
    world.post("/api/v1/alert-rules", &operator, new.clone()).await.expect(403);
    let made = world.post("/api/v1/alert-rules", &world.admin, new).await.expect(201);
    assert_eq!((made.body["clear_threshold"].as_f64(), made.body["for_seconds"].as_i64()), (Some(24.0), Some(60)));
    let path = format!("/api/v1/alert-rules/{}", made.text("id"));
    assert_eq!(world.get("/api/v1/alert-rules", &operator).await.expect(200).body["total"], 8);
    for (bad, field) in [
        (json!({"kind": "disk", "name": "n"}), "threshold"),
        (json!({"kind": "disk", "name": "n", "threshold": 5, "clear_threshold": 4}), "clear_threshold"),
        (json!({"kind": "offline", "name": "n", "threshold": 5}), "threshold"),
        (json!({"kind": "offline", "name": "n", "for_seconds": -1}), "for_seconds"),
        (json!({"kind": "offline", "name": " "}), "name"),
        (json!({"kind": "weather", "name": "n"}), "kind"),
        (json!({"kind": "offline", "name": "n", "receiver_ids": []}), "receiver_ids"),
    ] {
        let refused = world.post("/api/v1/alert-rules", &world.admin, bad).await.expect(400);
        assert!(refused.text("detail").contains(field) || field == "kind", "{}", refused.body);
    }
    let patch = async |change: Value| world.call(Method::PATCH, &path, &world.admin, Some(change)).await;
    let changed = patch(json!({"threshold": 10, "tag": null, "enabled": false})).await.expect(200);
    assert_eq!((changed.body["clear_threshold"].as_f64(), &changed.body["tag"]), (Some(12.0), &Value::Null));
    patch(json!({"clear_threshold": 9})).await.expect(400);
    let stranger = world.user("other", "admin").await;
    for method in [Method::GET, Method::DELETE] {
        world.call(method, &path, &stranger, None).await.expect(404);
    }
    // One box alone, and one receiver; neither may be another organization's.
    let receiver = json!({"name": "R", "url": "https://hooks.invalid/"});
    let of_others = world.post("/api/v1/alert-receivers", &stranger, receiver.clone()).await.expect(201).text("id");
    let receiver = world.post("/api/v1/alert-receivers", &world.admin, receiver).await.expect(201).text("id");
    world.enrol(&stranger, "theirs").await;
    world.enrol(&world.admin, "box1").await;
    patch(json!({"device_id": "theirs"})).await.expect(404);
    patch(json!({"receiver_ids": [receiver, of_others]})).await.expect(404);
    let named = patch(json!({"device_id": "box1", "receiver_ids": [receiver, receiver]})).await.expect(200);
    assert_eq!((&named.body["device_id"], &named.body["receiver_ids"]), (&json!("box1"), &json!([receiver])));
    let one = format!("/api/v1/alert-receivers/{receiver}");
    let kept = world.call(Method::DELETE, &one, &world.admin, None).await.expect(409);
    assert!(kept.text("detail").contains("Disk of the tour"), "{}", kept.body);
    patch(json!({"receiver_ids": null})).await.expect(200);
    world.call(Method::DELETE, &one, &world.admin, None).await.expect(204);
    world.call(Method::DELETE, &path, &operator, None).await.expect(403);
    world.call(Method::DELETE, &path, &world.admin, None).await.expect(204);
    world.get(&path, &world.admin).await.expect(404);
    world.end().await;
}

#[actix_web::test]
async fn a_silence_shows_with_its_alerts_and_is_ended_early() {
    let world = World::new().await;
    let (operator, viewer) = (world.user("default", "operator").await, world.user("default", "viewer").await);
    world.enrol(&world.admin, "box1").await;
    rule(&world, "offline", json!({"for_seconds": 0})).await;
    let until = Utc::now() + chrono::Duration::hours(1);
    let silence = json!({"device_id": "box1", "reason": "it moves house", "ends_at": until});
    world.post("/api/v1/silences", &viewer, silence.clone()).await.expect(403);
    let made = world.post("/api/v1/silences", &operator, silence).await.expect(201);
    assert_eq!(made.body["active"], true);
    presence(&world, "box1", true, 1).await;
    presence(&world, "box1", false, 1).await;
    let found = alerts(&world, "state=open", 1).await.remove(0);
    assert!(found["silenced_until"].is_string() && found["status"] == "silenced", "{found}");
    let path = format!("/api/v1/silences/{}", made.text("id"));
    world.call(Method::DELETE, &path, &viewer, None).await.expect(403);
    world.call(Method::DELETE, &path, &operator, None).await.expect(204);
    assert_eq!(alerts(&world, "state=open", 1).await[0]["silenced_until"], Value::Null);
    assert_eq!(world.get("/api/v1/silences", &viewer).await.expect(200).body["items"][0]["active"], false);
    let stranger = world.user("other", "admin").await;
    world.get(&path, &stranger).await.expect(404);
    world.call(Method::DELETE, &path, &stranger, None).await.expect(404);
    // Later, and for everything; ended before it began, it never is.
    let later = json!({"all": true, "reason": "a holiday", "ends_at": until, "starts_at": until - chrono::Duration::minutes(9)});
    let later = world.post("/api/v1/silences", &operator, later).await.expect(201);
    assert_eq!((&later.body["all"], &later.body["active"]), (&json!(true), &json!(false)));
    let path = format!("/api/v1/silences/{}", later.text("id"));
    world.call(Method::DELETE, &path, &operator, None).await.expect(204);
    assert_eq!(world.get(&path, &viewer).await.expect(200).body["active"], false);
    let all = json!({"all": true, "reason": "load-in", "ends_at": until});
    world.post("/api/v1/silences", &operator, all).await.expect(201);
    assert!(alerts(&world, "state=open", 1).await[0]["silenced_until"].is_string());
    for (bad, status) in [
        (json!({"reason": "all", "ends_at": until}), 400),
        (json!({"all": true, "device_id": "box1", "reason": "r", "ends_at": until}), 400),
        (json!({"device_id": "box1", "reason": "", "ends_at": until}), 400),
        (json!({"device_id": "box1", "reason": "r", "ends_at": Utc::now()}), 400),
        (json!({"device_id": "nobody", "reason": "r", "ends_at": until}), 404),
        (json!({"rule_id": "nobody", "reason": "r", "ends_at": until}), 404),
    ] {
        world.post("/api/v1/silences", &operator, bad).await.expect(status);
    }
    world.end().await;
}

#[actix_web::test]
async fn many_alerts_come_page_by_page_each_once() {
    let world = World::new().await;
    rule(&world, "offline", json!({"for_seconds": 0})).await;
    for n in 0..5 {
        let id = format!("box{n}");
        world.enrol(&world.admin, &id).await;
        presence(&world, &id, true, 1).await;
        presence(&world, &id, false, 1).await;
    }
    alerts(&world, "state=open", 5).await;
    let (mut seen, mut cursor) = (std::collections::BTreeSet::new(), String::new());
    for _ in 0..3 {
        let page = world.get(&format!("/api/v1/alerts?page_size=2{cursor}"), &world.admin).await.expect(200);
        seen.extend(page.body["items"].as_array().unwrap().iter().map(|alert| alert["id"].to_string()));
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    for bad in ["page_size=0", "cursor=x", "state=odd", "severity=loud"] {
        world.get(&format!("/api/v1/alerts?{bad}"), &world.admin).await.expect(400);
    }
    world.end().await;
}
