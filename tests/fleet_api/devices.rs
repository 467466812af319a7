//! Devices: letting them in, finding them, changing them, taking them out.

use std::time::Duration;

use hmac::{Hmac, Mac};
use r58::fleet::TurnPlan;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, registration};

#[actix_web::test]
async fn an_enrolment_code_lets_one_box_in_and_gives_it_all_it_needs() {
    let world = World::new().await;
    let body = json!({"note": "venue", "expires_in_seconds": 60});
    let code = world.post("/api/v1/enrolment-codes", &world.admin, body).await.expect(201).text("code");
    let typed = code.to_lowercase().replace('-', " ");
    let register =
        async |code: &str, id: &str| world.post("/api/v1/devices/register", "", registration(code, id)).await;
    let box1 = register(&typed, "box1").await.expect(201);
    let token = box1.text("token");
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(box1.text("org"), "default");
    assert_eq!(box1.text("fleet_url"), world.url(""));
    assert_eq!(box1.text("mqtt_url"), format!("mqtt://{}", world.handle.broker.unwrap()));
    assert!(box1.body["command_keys"][0]["kid"].is_string());
    register(&code, "box2").await.expect(403);
    register("0000-0000-0000-0000", "box2").await.expect(403);
    let listed = world.get("/api/v1/enrolment-codes", &world.admin).await.expect(200);
    assert_eq!(
        (&listed.body["items"][0]["used_by"], &listed.body["items"][0]["note"]),
        (&json!("box1"), &json!("venue"))
    );
    assert!(!listed.body.to_string().contains(&code));
    let code = world.post("/api/v1/enrolment-codes", &world.admin, json!({})).await.expect(201).text("code");
    register(&code, "box1").await.expect(409);
    register(&code, "box2").await.expect(201);
    world.end().await;
}

#[actix_web::test]
async fn an_unused_code_can_be_taken_back() {
    let world = World::new().await;
    let code = world.post("/api/v1/enrolment-codes", &world.admin, json!({})).await.expect(201);
    let path = format!("/api/v1/enrolment-codes/{}", code.text("id"));
    world.call(Method::DELETE, &path, &world.admin, None).await.expect(204);
    world.call(Method::DELETE, &path, &world.admin, None).await.expect(404);
    world.post("/api/v1/devices/register", "", registration(&code.text("code"), "box1")).await.expect(403);
    world.end().await;
}

#[actix_web::test]
async fn guessing_enrolment_codes_has_to_wait() {
    let world = World::with(|plan| {
        plan.access.max_failures = 2;
        plan.access.lockout = Duration::from_secs(600);
    })
    .await;
    for _ in 0..2 {
        world.post("/api/v1/devices/register", "", registration("guess", "box1")).await.expect(403);
    }
    world.post("/api/v1/devices/register", "", registration("guess", "box1")).await.expect(429);
    world.end().await;
}

#[actix_web::test]
async fn a_rotated_token_replaces_the_old_one_and_a_decommissioned_device_has_none() {
    let world = World::new().await;
    let old = world.enrol(&world.admin, "box1").await["token"].as_str().unwrap().to_owned();
    let credentials = async |id: &str, token: &str| {
        let request = world.http.get(world.url("/turn-credentials"));
        let answer = request.header("X-Device-Id", id).header("X-Device-Token", token).send().await.unwrap();
        world.read(&Method::GET, "/turn-credentials", answer).await
    };
    credentials("box1", &old).await.expect(200);
    credentials("box2", &old).await.expect(401);
    let new = world.post("/api/v1/devices/box1/rotate-token", &world.admin, json!({})).await.expect(200).text("token");
    credentials("box1", &old).await.expect(401);
    credentials("box1", &new).await.expect(200);
    world.call(Method::DELETE, "/api/v1/devices/box1", &world.admin, None).await.expect(204);
    credentials("box1", &new).await.expect(401);
    world.call(Method::DELETE, "/api/v1/devices/box1", &world.admin, None).await.expect(404);
    let gone = world.get("/api/v1/devices/box1", &world.admin).await.expect(200);
    assert_eq!(gone.text("status"), "decommissioned", "its history stays");
    let count = async |query: &str| {
        world.get(&format!("/api/v1/devices{query}"), &world.admin).await.expect(200).body["total"].clone()
    };
    assert_eq!((count("").await, count("?status=decommissioned").await), (json!(0), json!(1)));
    world.end().await;
}

#[actix_web::test]
async fn devices_are_listed_page_by_page_and_found_by_what_is_known_of_them() {
    let world = World::new().await;
    for n in 1..=5 {
        world.enrol(&world.admin, &format!("box{n}")).await;
    }
    let patch =
        json!({"location": "Hall_7", "tags": ["stage", "stage", "b"], "metadata": {"rack": 3}, "notes": "two\nlines"});
    let changed = world.call(Method::PATCH, "/api/v1/devices/box3", &world.admin, Some(patch)).await.expect(200);
    assert_eq!(changed.body["tags"], json!(["b", "stage"]));
    let list = async |query: &str| world.get(&format!("/api/v1/devices{query}"), &world.admin).await.expect(200).body;
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let page = list("?page=2&page_size=2").await;
    assert_eq!(
        (ids(&page), &page["total"], &page["has_more"]),
        (vec!["box3".into(), "box4".into()], &json!(5), &json!(true))
    );
    let last = list("?page=3&page_size=2").await;
    assert_eq!((ids(&last), &last["has_more"]), (vec!["box5".to_owned()], &json!(false)));
    assert!(ids(&list("?page=9").await).is_empty());
    assert_eq!(ids(&list("?search=hall_7").await), ["box3"]);
    assert_eq!(ids(&list("?search=STAGE").await), ["box3"]);
    assert_eq!(ids(&list("?search=hall%257").await).len(), 0, "a per cent sign is a per cent sign");
    assert_eq!(ids(&list("?search=Box").await).len(), 5);
    assert_eq!((ids(&list("?status=online").await).len(), ids(&list("?status=offline").await).len()), (0, 5));
    for query in ["?page=0", "?page_size=0", "?page_size=201", "?page=x", "?status=weird"] {
        world.get(&format!("/api/v1/devices{query}"), &world.admin).await.expect(400);
    }
    world.end().await;
}

#[actix_web::test]
async fn null_clears_a_field_and_absence_leaves_it() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let patch = async |body: Value| world.call(Method::PATCH, "/api/v1/devices/box1", &world.admin, Some(body)).await;
    patch(json!({"location": "Hall", "notes": "n"})).await.expect(200);
    let changed = patch(json!({"location": null, "name": "Other"})).await.expect(200).body;
    assert_eq!(
        (&changed["location"], &changed["notes"], &changed["name"]),
        (&Value::Null, &json!("n"), &json!("Other"))
    );
    for bad in [
        json!({"name": ""}),
        json!({"name": null, "color": "red"}),
        json!({"tags": ["a\nb"]}),
        json!({"metadata": [1]}),
        json!({"metadata": {"x": "y".repeat(20_000)}}),
        json!({"notes": "x".repeat(4_001)}),
    ] {
        patch(bad).await.expect(400);
    }
    world.end().await;
}

#[actix_web::test]
async fn turn_credentials_are_made_from_the_shared_secret_for_whoever_is_signed_in() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "north\n").unwrap();
    let world = World::with(|plan| {
        plan.turn = TurnPlan {
            stun: vec!["stun:stun.example:3478".into()],
            shared_secret_file: Some(secret.path().to_owned()),
            urls: vec!["turn:turn.example:3478?transport=udp".into()],
            ttl: Duration::from_secs(600),
            ..TurnPlan::default()
        };
    })
    .await;
    world.get("/turn-credentials", "").await.expect(401);
    let device = world.enrol(&world.admin, "box1").await;
    let request = world.http.get(world.url("/turn-credentials")).header("X-Device-Id", "box1");
    let answer = request.header("X-Device-Token", device["token"].as_str().unwrap()).send().await.unwrap();
    let answer = world.read(&Method::GET, "/turn-credentials", answer).await.expect(200).body;
    let servers = &answer["iceServers"];
    assert_eq!(servers["urls"], json!(["stun:stun.example:3478", "turn:turn.example:3478?transport=udp"]));
    let name = servers["username"].as_str().unwrap();
    let (expiry, of) = name.split_once(':').unwrap();
    assert_eq!(of, "box1");
    let left = expiry.parse::<i64>().unwrap() - chrono::Utc::now().timestamp();
    assert!((590..=601).contains(&left), "{left}");
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"north").unwrap();
    mac.update(name.as_bytes());
    use base64::Engine;
    let expected = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(servers["credential"], json!(expected));
    assert_eq!(answer["provider"], "shared-secret");
    assert!(answer["expiresAt"].is_string());
    world.get("/turn-credentials", &world.admin).await.expect(200);
    world.end().await;
}
