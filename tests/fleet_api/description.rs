//! Schemathesis against the whole API: whatever it thinks up, nothing fails in the server, and every answer is one that the
//! description knows, in the form that it gives it.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::environment::environment;
use crate::world::World;

/// Seconds for all of it: every operation is covered first, in about half of them, then it goes on thinking.
const BUDGET: &str = "20";
/// What is to hold for every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance";

#[actix_web::test]
async fn whatever_schemathesis_sends_is_answered_as_described() {
    let world = World::new().await;
    let device = world.enrol(&world.admin, "box1").await;
    let config = json!({"document": {}});
    world.call(Method::PUT, "/api/v1/devices/box1/config", &world.admin, Some(config)).await.expect(200);
    let dir = tempfile::tempdir().unwrap();
    let settings = format!(
        r#"
        [[operations]]
        include-path-regex = "^/api/v1/devices/.id.(/|$)"
        parameters = {{ "path.id" = "box1" }}
        [[operations]]
        include-path-regex = "/(heartbeat|token)$"
        headers = {{ "X-Device-Id" = "box1", "X-Device-Token" = "{}" }}
        # It would end what the others need: the device, and the session.
        [[operations]]
        include-name = ["DELETE /api/v1/devices/{{id}}", "POST /api/v1/users/{{id}}/reset-password"]
        enabled = false
        # A stream does not end; a box that is not there is waited for.
        [[operations]]
        include-path-regex = "^/api/v1/events$|/guests|/invitations|/logs"
        enabled = false
        "#,
        device["token"].as_str().unwrap()
    );
    std::fs::write(dir.path().join("schemathesis.toml"), settings).unwrap();
    let python = tokio::task::spawn_blocking(environment).await.unwrap();
    let ran = tokio::process::Command::new(python.join("bin/st"))
        .args(["run", &world.url("/openapi.json"), "--phases", "coverage,fuzzing", "--max-examples", "3"])
        .args(["--max-time", BUDGET, "--checks", CHECKS, "--continue-on-failure", "--no-shrink", "--no-color"])
        .args(["--workers", "1", "--generation-deterministic", "--warnings", "off"])
        .args(["--header", &format!("Authorization: Bearer {}", world.admin)])
        .current_dir(dir.path())
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(Duration::from_secs(240), ran).await.expect("its end").unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    let passed = said.lines().any(|line| line.contains("generated,") && line.contains("passed"));
    assert!(ran.status.success() && passed, "{said}");
    world.get("/api/v1/auth/me", &world.admin).await.expect(200);
    world.end().await;
}
