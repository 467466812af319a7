//! Organizations: made by a platform administrator, and closed to everybody else.

use reqwest::Method;
use serde_json::json;

use crate::world::{PASSWORD, World};

#[actix_web::test]
async fn a_platform_administrator_makes_an_organization_and_sees_nothing_inside_it() {
    let world = World::new().await;
    let body = json!({"id": "north", "name": "North", "admin": {"email": "Ada@North.example", "name": "Ada"}});
    let made = world.post("/api/v1/organizations", &world.admin, body.clone()).await.expect(201);
    assert_eq!(made.text("admin_email"), "ada@north.example");
    assert_eq!((&made.body["organization"]["users"], &made.body["organization"]["devices"]), (&json!(1), &json!(0)));
    world.post("/api/v1/organizations", &world.admin, body).await.expect(409);
    let login = json!({"email": "ada@north.example", "password": made.text("admin_password")});
    let ada = world.post("/api/v1/auth/login", "", login).await.expect(200).text("access_token");
    let me = world.get("/api/v1/auth/me", &ada).await.expect(200);
    assert_eq!((me.text("org").as_str(), &me.body["platform_admin"]), ("north", &json!(false)));
    world.get("/api/v1/organizations", &ada).await.expect(403);

    world.enrol(&ada, "north-1").await;
    let list = world.get("/api/v1/organizations", &world.admin).await.expect(200).body;
    assert_eq!(
        (&list["total"], &list["items"][1]["id"], &list["items"][1]["devices"]),
        (&json!(2), &json!("north"), &json!(1))
    );
    world.get("/api/v1/devices/north-1", &world.admin).await.expect(404);
    assert_eq!(world.get("/api/v1/devices", &world.admin).await.expect(200).body["total"], 0);
    world.enrol(&world.admin, "south-1").await;
    world.get("/api/v1/devices/south-1", &ada).await.expect(404);

    let rename = json!({"name": "Far north"});
    let path = "/api/v1/organizations/north";
    let changed = world.call(Method::PATCH, path, &world.admin, Some(rename.clone())).await.expect(200);
    assert_eq!(changed.text("name"), "Far north");
    world.call(Method::PATCH, "/api/v1/organizations/west", &world.admin, Some(rename)).await.expect(404);
    world.end().await;
}

#[actix_web::test]
async fn what_cannot_be_an_organization_is_refused_and_leaves_nothing_behind() {
    let world = World::new().await;
    let make = async |id: &str, email: &str| {
        let body = json!({"id": id, "name": "N", "admin": {"email": email, "name": "A", "password": PASSWORD}});
        world.post("/api/v1/organizations", &world.admin, body).await
    };
    for id in ["", "a/b", "+", "#", "$fleet", "with space"] {
        make(id, "a@n.example").await.expect(400);
    }
    make("north", "nobody").await.expect(400);
    make("north", "admin@r58.local").await.expect(409);
    world.get("/api/v1/organizations/north", &world.admin).await.expect(404);
    make("north", "a@n.example").await.expect(201);
    world.end().await;
}

#[actix_web::test]
async fn only_a_platform_administrator_makes_another_one() {
    let world = World::new().await;
    let make = json!({"email": "b@x.example", "name": "B", "role": "admin", "password": PASSWORD});
    let id = world.post("/api/v1/users", &world.admin, make).await.expect(201).text("id");
    let second = world.sign_in("b@x.example").await;
    let path = format!("/api/v1/users/{id}");
    let give = |platform: bool| Some(json!({"platform_admin": platform}));
    world.call(Method::PATCH, &path, &second, give(true)).await.expect(403);
    world.get("/api/v1/organizations", &second).await.expect(403);
    let given = world.call(Method::PATCH, &path, &world.admin, give(true)).await.expect(200);
    assert_eq!(given.body["platform_admin"], true);
    world.get("/api/v1/organizations", &second).await.expect(200);
    world.call(Method::PATCH, &path, &second, give(false)).await.expect(409);
    world.call(Method::PATCH, &path, &world.admin, give(false)).await.expect(200);
    world.get("/api/v1/organizations", &second).await.expect(403);
    world.end().await;
}
