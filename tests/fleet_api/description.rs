//! Schemathesis against the whole API: whatever it thinks up, nothing fails in the server, and every answer is one that the
//! description knows, in the form that it gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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

/// What the server answers to and the description names only in words: protocols of their own, and pages.
fn is_another_protocol(file: &str) -> bool {
    ["join.rs", "whep.rs", "bridge.rs", "pages.rs"].contains(&file)
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[actix_web::test]
async fn every_path_with_each_of_its_methods_is_described_and_nothing_else_is() {
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fleet/api")) {
        let file = source.file_name().unwrap().to_string_lossy().into_owned();
        if is_another_protocol(&file) {
            continue;
        }
        let scope = if ["public.rs", "metrics.rs"].contains(&file.as_str()) { "" } else { "/api/v1" };
        let text = std::fs::read_to_string(source).unwrap();
        // resource("/path", "METHOD, METHOD")
        for arguments in text.split("resource(").skip(1).filter(|arguments| arguments.starts_with('"')) {
            let words: Vec<&str> = arguments.split('"').collect();
            served.insert(format!("{scope}{}", words[1]), words[3].split(", ").map(str::to_owned).collect());
        }
    }
    // The description itself.
    served.remove("/openapi.json").unwrap();
    let world = World::new().await;
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path) in world.templates() {
        described.entry(path).or_default().insert(method);
    }
    assert_eq!(served, described);
    // And what the paths say of themselves is what they do.
    for (path, methods) in described {
        let place = world.url(&path.replace(['{', '}'], ""));
        let refused = world.http.request("BREW".parse().unwrap(), place).send().await.unwrap();
        assert_eq!(refused.status(), 405, "{path}");
        let allow: BTreeSet<String> =
            refused.headers()["allow"].to_str().unwrap().split(", ").map(str::to_owned).collect();
        assert_eq!(allow, methods, "{path}");
    }
    world.end().await;
}
