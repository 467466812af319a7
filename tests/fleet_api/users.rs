//! Users.

use reqwest::Method;
use serde_json::json;

use crate::world::{PASSWORD, World};

#[actix_web::test]
async fn a_user_is_made_changed_and_deleted() {
    let world = World::new().await;
    let admin = world.admin.clone();
    let body = json!({"email": "New@Example.org", "name": " New ", "role": "viewer", "password": PASSWORD});
    let made = world.post("/api/v1/users", &admin, body.clone()).await.expect(201);
    assert_eq!((made.text("email").as_str(), made.text("name").as_str()), ("new@example.org", "New"));
    assert!(!made.body.to_string().contains("argon2"));
    world.post("/api/v1/users", &admin, body).await.expect(409);
    let path = format!("/api/v1/users/{}", made.text("id"));
    assert_eq!(world.get(&path, &admin).await.expect(200).text("role"), "viewer");
    assert_eq!(world.get("/api/v1/users?page_size=1", &admin).await.expect(200).body["has_more"], true);
    let changed = world.call(Method::PATCH, &path, &admin, Some(json!({"role": "operator"}))).await.expect(200);
    assert_eq!(changed.text("role"), "operator");
    world.call(Method::DELETE, &path, &admin, None).await.expect(204);
    world.get(&path, &admin).await.expect(404);
    world.end().await;
}

#[actix_web::test]
async fn nobody_deletes_or_demotes_themselves() {
    let world = World::new().await;
    let own = format!("/api/v1/users/{}", world.get("/api/v1/auth/me", &world.admin).await.expect(200).text("id"));
    world.call(Method::DELETE, &own, &world.admin, None).await.expect(409);
    for change in [json!({"role": "viewer"}), json!({"is_active": false})] {
        world.call(Method::PATCH, &own, &world.admin, Some(change)).await.expect(409);
    }
    world.call(Method::PATCH, &own, &world.admin, Some(json!({"name": "Chief", "role": "admin"}))).await.expect(200);
    world.get("/api/v1/auth/me", &world.admin).await.expect(200);
    world.end().await;
}

#[actix_web::test]
async fn a_change_of_role_password_or_activity_ends_the_sessions_at_once() {
    let world = World::new().await;
    let admin = world.admin.clone();
    let make = json!({"email": "u@x.example", "name": "U", "role": "viewer", "password": PASSWORD});
    let id = world.post("/api/v1/users", &admin, make).await.expect(201).text("id");
    let path = format!("/api/v1/users/{id}");
    let login = json!({"email": "u@x.example", "password": PASSWORD});
    let session = world.post("/api/v1/auth/login", "", login.clone()).await.expect(200);
    let (access, refresh) = (session.text("access_token"), session.text("refresh_token"));
    world.get("/api/v1/devices", &access).await.expect(200);
    world.call(Method::PATCH, &path, &admin, Some(json!({"role": "operator"}))).await.expect(200);
    world.get("/api/v1/devices", &access).await.expect(401);
    world.post("/api/v1/auth/refresh", "", json!({"refresh_token": refresh})).await.expect(401);

    let reset = world.post(&format!("{path}/reset-password"), &admin, json!({})).await.expect(200);
    world.post("/api/v1/auth/login", "", login).await.expect(401);
    let login = json!({"email": "u@x.example", "password": reset.text("password")});
    let access = world.post("/api/v1/auth/login", "", login.clone()).await.expect(200).text("access_token");
    world.call(Method::PATCH, &path, &admin, Some(json!({"is_active": false}))).await.expect(200);
    world.get("/api/v1/auth/me", &access).await.expect(401);
    world.post("/api/v1/auth/login", "", login).await.expect(401);
    world.end().await;
}

#[actix_web::test]
async fn weak_passwords_and_strange_addresses_are_refused() {
    let world = World::new().await;
    for (email, password) in [
        ("a@b", "short"),
        ("no address", PASSWORD),
        ("@b", PASSWORD),
        ("a@b", &"x".repeat(257)),
        ("a\u{7}@b", PASSWORD),
    ] {
        let body = json!({"email": email, "name": "N", "role": "viewer", "password": password});
        world.post("/api/v1/users", &world.admin, body).await.expect(400);
    }
    let body = json!({"email": "a@b", "name": "N", "role": "emperor", "password": PASSWORD});
    world.post("/api/v1/users", &world.admin, body).await.expect(400);
    world.end().await;
}

#[actix_web::test]
async fn a_logout_ends_the_session() {
    let world = World::new().await;
    let login = json!({"email": "admin@r58.local", "password": PASSWORD});
    let refresh = world.post("/api/v1/auth/login", "", login).await.expect(200).text("refresh_token");
    world.post("/api/v1/auth/logout", "", json!({"refresh_token": refresh})).await.expect(204);
    world.post("/api/v1/auth/refresh", "", json!({"refresh_token": refresh})).await.expect(401);
    world.end().await;
}
