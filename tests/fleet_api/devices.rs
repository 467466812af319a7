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
async fn a_code_lets_in_as_many_boxes_as_it_was_made_for() {
    let world = World::new().await;
    world.post("/api/v1/enrolment-codes", &world.admin, json!({"uses": 0})).await.expect(400);
    let code = world.post("/api/v1/enrolment-codes", &world.admin, json!({"uses": 2})).await.expect(201).text("code");
    for (id, status) in [("box1", 201), ("box1", 409), ("box2", 201), ("box3", 403)] {
        world.post("/api/v1/devices/register", "", registration(&code, id)).await.expect(status);
    }
    let listed = world.get("/api/v1/enrolment-codes", &world.admin).await.expect(200);
    let listed = &listed.body["items"][0];
    assert_eq!((&listed["uses"], &listed["max_uses"], &listed["used_by"]), (&json!(2), &json!(2), &json!("box2")));
    assert!(listed["used_at"].is_string());
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
    let at_once = json!({"overlap_seconds": 0});
    let new = world.post("/api/v1/devices/box1/rotate-token", &world.admin, at_once).await.expect(200).text("token");
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

#[actix_web::test]
async fn the_old_token_is_good_until_the_new_one_was_used() {
    let world = World::new().await;
    let first = world.enrol(&world.admin, "box1").await["token"].as_str().unwrap().to_owned();
    let call = async |method: Method, path: &str, token: &str| {
        let request = world.http.request(method.clone(), world.url(path));
        let answer = request.header("X-Device-Id", "box1").header("X-Device-Token", token).send().await.unwrap();
        world.read(&method, path, answer).await
    };
    let is_good = async |token: &str| call(Method::GET, "/turn-credentials", token).await.status == 200;
    let carried = world.post("/api/v1/devices/box1/rotate-token", &world.admin, json!({})).await.expect(200);
    assert!(carried.body["old_token_until"].is_string());
    assert!(is_good(&first).await, "the box has not heard of the new one");
    // The new one is lost on the way, and another is made: the box still gets in.
    let second =
        world.post("/api/v1/devices/box1/rotate-token", &world.admin, json!({})).await.expect(200).text("token");
    assert!(is_good(&first).await);
    assert!(is_good(&second).await);
    assert!(!is_good(&first).await, "the new one was used");
    assert!(!is_good(&carried.text("token")).await, "it was replaced before it was used");

    let third = call(Method::POST, "/api/v1/devices/box1/token", &second).await.expect(200).text("token");
    call(Method::POST, "/api/v1/devices/box2/token", &second).await.expect(404);
    assert!(is_good(&second).await && is_good(&third).await && !is_good(&second).await);
    for bad in [json!({"overlap_seconds": -1}), json!({"overlap_seconds": 2_592_001}), json!({"overlap": 1})] {
        world.post("/api/v1/devices/box1/rotate-token", &world.admin, bad).await.expect(400);
    }
    world.end().await;
}

#[actix_web::test]
async fn a_walk_by_cursor_meets_every_device_once_though_others_come_and_go() {
    let world = World::new().await;
    for n in 1..=5 {
        world.enrol(&world.admin, &format!("box{n}")).await;
    }
    let list = async |query: &str| world.get(&format!("/api/v1/devices{query}"), &world.admin).await.expect(200).body;
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = list("?limit=2").await;
    assert_eq!((ids(&first), &first["has_more"]), (vec!["box1".into(), "box2".into()], &json!(true)));
    assert!(first.get("total").is_none());
    world.call(Method::DELETE, "/api/v1/devices/box1", &world.admin, None).await.expect(204);
    world.enrol(&world.admin, "box0").await;
    let second = list(&format!("?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!(ids(&second), ["box3", "box4"]);
    let last = list(&format!("?limit=2&cursor={}", second["next_cursor"].as_str().unwrap())).await;
    assert_eq!(
        (ids(&last), &last["has_more"], last.get("next_cursor")),
        (vec!["box5".to_owned()], &json!(false), None)
    );
    for bad in ["?cursor=x", "?limit=0", "?limit=201", "?limit=2&page=1"] {
        world.get(&format!("/api/v1/devices{bad}"), &world.admin).await.expect(400);
    }
    world.end().await;
}

#[actix_web::test]
async fn many_devices_are_changed_by_tag_or_by_list_and_counted() {
    let world = World::new().await;
    for n in 1..=3 {
        world.enrol(&world.admin, &format!("box{n}")).await;
    }
    let stranger = world.user("other", "admin").await;
    world.enrol(&stranger, "far").await;
    let bulk = async |body: Value| world.post("/api/v1/devices/bulk", &world.admin, body).await;
    let some = json!({"ids": ["box1", "box2", "far", "nobody"]});
    let done =
        bulk(json!({"devices": some, "add_tags": ["stage", "\"odd\" %_"], "location": "Hall"})).await.expect(200);
    assert_eq!((&done.body["changed"], &done.body["unknown"]), (&json!(2), &json!(["far", "nobody"])));
    let list = async |query: &str| world.get(&format!("/api/v1/devices{query}"), &world.admin).await.expect(200).body;
    assert_eq!((&list("?tag=stage").await["total"], &list("?tag=stag").await["total"]), (&json!(2), &json!(0)));
    assert_eq!(list("?tag=%22odd%22%20%25_&limit=9").await["items"][1]["id"], "box2");
    let tag = json!({"tag": "stage"});
    let done =
        bulk(json!({"devices": tag, "remove_tags": ["stage"], "location": null, "update_channel": "beta"})).await;
    assert_eq!(done.expect(200).body["changed"], 2);
    let one = world.get("/api/v1/devices/box1", &world.admin).await.expect(200).body;
    assert_eq!(
        (&one["tags"], &one["location"], &one["update_channel"]),
        (&json!(["\"odd\" %_"]), &Value::Null, &json!("beta"))
    );
    assert_eq!(list("?tag=stage").await["total"], 0);
    world.call(Method::DELETE, "/api/v1/devices/box1", &world.admin, None).await.expect(204);
    let summary = world.get("/api/v1/devices/summary", &world.admin).await.expect(200).body;
    assert_eq!((&summary["total"], &summary["states"]["unknown"]), (&json!(2), &json!(2)));
    assert_eq!((&summary["states"]["online"], &summary["states"]["decommissioned"]), (&json!(0), &json!(1)));
    assert_eq!(summary["tags"], json!([{"tag": "\"odd\" %_", "total": 1, "online": 0}]));
    for bad in [
        json!({}),
        json!({"devices": {}}),
        json!({"devices": {"tag": "a", "ids": ["b"]}}),
        json!({"devices": {"ids": []}}),
        json!({"devices": {"tag": "a"}, "add_tags": ["a\nb"]}),
    ] {
        bulk(bad).await.expect(400);
    }
    world.end().await;
}
