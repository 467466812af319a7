//! API keys: as good as their scopes and their maker, and no better.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{PASSWORD, World};

async fn key(world: &World, token: &str, scopes: &[&str]) -> (String, String) {
    let made = world.post("/api/v1/api-keys", token, json!({"name": "a program", "scopes": scopes})).await.expect(201);
    (made.text("id"), made.text("key"))
}

#[actix_web::test]
async fn a_key_does_what_its_scopes_say_and_is_shown_once() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let (id, key) = key(&world, &world.admin, &["commands:write", "devices:read"]).await;
    assert!(key.starts_with("r58k_") && key.len() == 5 + 64);
    world.get("/api/v1/devices/box1", &key).await.expect(200);
    let patch = json!({"name": "New"});
    world.call(Method::PATCH, "/api/v1/devices/box1", &key, Some(patch)).await.expect(403);
    let made = world.post("/api/v1/devices/box1/commands", &key, json!({"type": "identify"})).await.expect(201);
    assert_eq!(made.text("created_by"), format!("user:admin@r58.local by key:{id}"));
    world.get("/api/v1/devices/box1/commands", &key).await.expect(200);
    world.get("/api/v1/devices/box1/metrics", &key).await.expect(403);
    world.get("/api/v1/auth/me", &key).await.expect(200);
    for path in ["/api/v1/api-keys", "/api/v1/organizations", "/api/v1/users", "/api/v1/events"] {
        world.get(path, &key).await.expect(403);
    }
    let list = world.get("/api/v1/api-keys", &world.admin).await.expect(200);
    assert!(list.body["items"][0]["last_used_at"].is_string());
    assert_eq!(list.body["items"][0]["scopes"], json!(["commands:write", "devices:read"]));
    assert!(!list.body.to_string().contains(&key));
    world.call(Method::DELETE, &format!("/api/v1/api-keys/{id}"), &world.admin, None).await.expect(204);
    world.get("/api/v1/devices/box1", &key).await.expect(401);
    world.end().await;
}

#[actix_web::test]
async fn a_key_shrinks_with_its_maker_and_ends_with_it() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let make = json!({"email": "o@x.example", "name": "O", "role": "operator", "password": PASSWORD});
    let maker = world.post("/api/v1/users", &world.admin, make).await.expect(201).text("id");
    let token = world.sign_in("o@x.example").await;
    let (_, key) = key(&world, &token, &["commands:write", "users:write"]).await;
    let send = async || world.post("/api/v1/devices/box1/commands", &key, json!({"type": "identify"})).await;
    send().await.expect(201);
    world.get("/api/v1/users", &key).await.expect(403);
    let path = format!("/api/v1/users/{maker}");
    let change = async |change: Value| world.call(Method::PATCH, &path, &world.admin, Some(change)).await.expect(200);
    change(json!({"role": "viewer"})).await;
    send().await.expect(403);
    world.get("/api/v1/devices/box1/commands", &key).await.expect(200);
    change(json!({"is_active": false})).await;
    send().await.expect(401);
    change(json!({"is_active": true, "role": "operator"})).await;
    send().await.expect(201);
    world.call(Method::DELETE, &path, &world.admin, None).await.expect(204);
    send().await.expect(401);
    world.end().await;
}

#[actix_web::test]
async fn operators_reach_their_own_keys_and_administrators_all_of_their_organization() {
    let world = World::new().await;
    let operator = world.user("default", "operator").await;
    let stranger = world.user("other", "admin").await;
    let (admins, _) = key(&world, &world.admin, &["devices:read"]).await;
    let (own, _) = key(&world, &operator, &["devices:read"]).await;
    let total = async |token: &str| world.get("/api/v1/api-keys", token).await.expect(200).body["total"].clone();
    assert_eq!(
        (total(&operator).await, total(&world.admin).await, total(&stranger).await),
        (json!(1), json!(2), json!(0))
    );
    let delete = async |id: &str, token: &str| {
        world.call(Method::DELETE, &format!("/api/v1/api-keys/{id}"), token, None).await.status
    };
    assert_eq!((delete(&admins, &operator).await, delete(&own, &stranger).await), (404, 404));
    assert_eq!((delete(&own, &world.admin).await, delete(&own, &world.admin).await), (204, 404));
    world.end().await;
}

#[actix_web::test]
async fn what_cannot_be_a_key_is_refused() {
    let world = World::new().await;
    for bad in [
        json!({"name": "n", "scopes": []}),
        json!({"name": "n", "scopes": ["everything"]}),
        json!({"name": "n", "scopes": ["events:write"]}),
        json!({"name": "", "scopes": ["devices:read"]}),
        json!({"name": "n", "scopes": ["devices:read"], "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "n"}),
    ] {
        world.post("/api/v1/api-keys", &world.admin, bad).await.expect(400);
    }
    world.get("/api/v1/devices", "r58k_").await.expect(401);
    world.get("/api/v1/devices", &format!("r58k_{}", "0".repeat(64))).await.expect(401);
    world.end().await;
}
