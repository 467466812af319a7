//! Nodes of a broker cluster ask who may connect.

use std::time::Duration;

use r58::fleet::{BrokerPlan, FleetPlan};
use serde_json::{Value, json};

use crate::world::{PASSWORD, World};

const SECRET: &str = "what nodes and server share";

/// A server whose broker is somebody else's; that it is away does not matter here.
fn foreign_broker(plan: &mut FleetPlan) {
    plan.broker = BrokerPlan::Url {
        url: "mqtt://127.0.0.1:1,mqtt://127.0.0.1:2".into(),
        username: Some("$fleet".into()),
        password: Some("the server's own".into()),
        trust: Default::default(),
        public_url: None,
        auth_secret: Some(SECRET.into()),
    };
}

async fn ask(world: &World, username: &str, client_id: &str, password: &str) -> Value {
    let body = json!({"client_id": client_id, "username": username, "password": password});
    world.post("/api/v1/broker/auth", SECRET, body).await.expect(200).body
}

#[actix_web::test]
async fn a_node_lets_in_whom_the_server_knows_each_with_its_own_rules() {
    let world = World::with(foreign_broker).await;
    let box1 = world.enrol(&world.admin, "box1").await;
    let token = box1["token"].as_str().unwrap();
    assert_eq!(box1["mqtt_url"], "mqtt://127.0.0.1:1,mqtt://127.0.0.1:2");
    let allowed = ask(&world, "default", "box1", token).await;
    assert_eq!((&allowed["result"], &allowed["superuser"]), (&json!("allow"), &json!(false)));
    assert_eq!(allowed["acl"][0]["topic"], "r58/1/default/box1/up/#");
    assert_eq!(allowed["acl"][3], json!({"permission": "deny", "action": "all", "topic": "#"}));
    world.user("default", "viewer").await;
    let viewer = ask(&world, "viewer@default.example", "laptop", PASSWORD).await;
    assert_eq!((&viewer["result"], &viewer["acl"][1]["permission"]), (&json!("allow"), &json!("deny")));
    // A node that knows clients by their certificates puts the common name in the user name's place.
    assert_eq!(ask(&world, "box1", "box1", token).await["acl"][0]["topic"], "r58/1/default/box1/up/#");
    assert_eq!(ask(&world, "$fleet", "fleet-desk-1", "the server's own").await["superuser"], true);
    for (username, client_id, password) in [
        ("default", "box1", "wrong"),
        ("default", "box2", token),
        ("other", "box1", token),
        ("box2", "box1", token),
        ("default", "box1/up", token),
        ("$fleet", "fleet-desk-1", SECRET),
        ("viewer@default.example", "box1", PASSWORD),
    ] {
        assert_eq!(ask(&world, username, client_id, password).await["result"], "deny", "{username} {client_id}");
    }
    world.end().await;
}

#[actix_web::test]
async fn whoever_does_not_know_the_secret_is_not_answered_and_soon_has_to_wait() {
    let world = World::with(|plan| {
        foreign_broker(plan);
        plan.access.max_failures = 2;
        plan.access.lockout = Duration::from_secs(600);
    })
    .await;
    let body = json!({"client_id": "box1", "username": "default", "password": "guess"});
    for token in [world.admin.as_str(), "guess"] {
        world.post("/api/v1/broker/auth", token, body.clone()).await.expect(401);
    }
    world.post("/api/v1/broker/auth", SECRET, body).await.expect(429);
    world.end().await;
}
