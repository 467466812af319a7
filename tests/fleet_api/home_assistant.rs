//! Home Assistant is told of boxes by MQTT discovery: read with a real client, by those who may.

use std::process::Output;
use std::time::{Duration, Instant};

use r58::fleet;
use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

use crate::world::{PASSWORD, World, plan};

const LIMIT: Duration = Duration::from_secs(60);

/// What a person of the organization finds retained, as Home Assistant would at its start: topic and payload.
async fn listen(broker: std::net::SocketAddr, user: &str, filter: &str) -> Output {
    Command::new("mosquitto_sub")
        .args([
            "-V",
            "5",
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port().to_string(),
            "-u",
            user,
            "-P",
            PASSWORD,
            "-t",
            filter,
        ])
        .args(["-F", "%t %p", "-W", "1"])
        .output()
        .await
        .unwrap()
}

async fn retained(broker: std::net::SocketAddr) -> String {
    let output = listen(broker, "admin@r58.local", "r58/1/default/_ha/#").await;
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Looks until what is retained is as it should be.
async fn until(broker: std::net::SocketAddr, what: &str, wanted: impl Fn(&str) -> bool) -> String {
    let begin = Instant::now();
    loop {
        let found = retained(broker).await;
        if wanted(&found) {
            return found;
        }
        assert!(begin.elapsed() < LIMIT, "{what}: {found}");
    }
}

#[actix_web::test]
async fn boxes_are_told_to_home_assistant_and_taken_back_when_they_go() {
    let world = World::with(|plan| plan.home_assistant = vec!["default".into()]).await;
    world.enrol(&world.admin, "box1").await;
    world.enrol(&world.admin, "box2").await;
    let stranger = world.user("north", "viewer").await;
    world.enrol(&world.user("north", "admin").await, "theirs").await;
    let broker = world.handle.broker.unwrap();

    let found = until(broker, "two boxes", |found| found.lines().count() == 2).await;
    assert!(!stranger.is_empty() && !found.contains("theirs"), "{found}");
    let (topic, payload) = found.lines().next().unwrap().split_once(' ').unwrap();
    assert_eq!(topic, "r58/1/default/_ha/device/box1/config");
    let payload: Value = serde_json::from_str(payload).unwrap();
    assert_eq!(payload["device"]["name"], "Box box1");
    assert_eq!(payload["components"]["online"]["state_topic"], "r58/1/default/box1/up/presence");

    let other = listen(broker, "viewer@north.example", "r58/1/default/_ha/#").await;
    let said = format!("{}{}", String::from_utf8_lossy(&other.stdout), String::from_utf8_lossy(&other.stderr));
    assert!(!said.contains("box1"), "{said}");
    assert!(said.to_lowercase().contains("denied") || said.to_lowercase().contains("not authorized"), "{said}");

    let body = serde_json::json!({"name": "Stage left"});
    world.call(Method::PATCH, "/api/v1/devices/box1", &world.admin, Some(body)).await.expect(200);
    until(broker, "the new name", |found| found.contains("Stage left")).await;
    world.call(Method::DELETE, "/api/v1/devices/box1", &world.admin, None).await.expect(204);
    until(broker, "one box", |found| found.lines().count() == 1 && found.contains("box2")).await;
    world.end().await;
}

#[actix_web::test]
async fn nothing_is_left_for_home_assistant_once_the_option_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut with = plan(dir.path());
    with.home_assistant = vec!["default".into()];
    let handle = fleet::start(with).await.unwrap();
    let code = handle.create_enrolment_code().await.unwrap();
    let url = format!("http://{}/api/v1/devices/register", handle.addr);
    let body = crate::world::registration(&code, "box1");
    assert_eq!(reqwest::Client::new().post(url).json(&body).send().await.unwrap().status(), 201);
    until(handle.broker.unwrap(), "the box", |found| found.contains("box1")).await;
    handle.stop().await;

    let handle = fleet::start(plan(dir.path())).await.unwrap();
    until(handle.broker.unwrap(), "nothing", str::is_empty).await;
    handle.stop().await;
}
