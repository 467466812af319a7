//! Who may do what.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use r58::fleet::{self, FleetError};
use r58::proxies::TrustedProxies;
use reqwest::Method;
use serde_json::{Value, json};

use crate::alerts;
use crate::world::{PASSWORD, World, plan};

/// Paths that are for devices alone.
const OF_DEVICES: &str = "/upload";

/// Operations that need no sign-in, by design.
pub const PUBLIC: [&str; 5] =
    ["/health", "/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout", "/api/v1/devices/register"];

/// Operations of devices alone, which no user's token opens.
fn is_for_devices(method: &Method, path: &str) -> bool {
    (*method == Method::POST && (path.ends_with("/token") || path.ends_with("/heartbeat")))
        || (*method == Method::PATCH && path.contains("/commands/"))
}

/// A body that passes the checks of its path, so that what is refused is refused for the role.
pub fn body(method: &Method, path: &str) -> Option<Value> {
    let body = match (method.as_str(), path) {
        ("POST", "/api/v1/users") => {
            json!({"email": "n@x.example", "name": "N", "role": "viewer", "password": PASSWORD})
        }
        ("POST", "/api/v1/organizations") => {
            json!({"id": "n", "name": "N", "admin": {"email": "a@n.example", "name": "A", "password": PASSWORD}})
        }
        ("PATCH", path) if path.contains("/organizations/") => json!({"name": "N"}),
        ("POST", "/api/v1/api-keys") => json!({"name": "N", "scopes": ["devices:read"]}),
        ("POST", "/api/v1/command-groups" | "/api/v1/command-groups/dry-run") => {
            json!({"devices": {"ids": ["box1"]}, "command": {"type": "identify"}})
        }
        ("POST", "/api/v1/releases") => json!({"version": "1.0.0", "channel": "stable",
            "artifact_url": "https://x.example/a", "checksum_sha256": "00".repeat(32), "size_bytes": 1}),
        ("POST", "/api/v1/release-keys") => json!({"name": "N", "public_key": ""}),
        ("POST", "/api/v1/alert-rules") => json!({"kind": "offline", "name": "N"}),
        ("POST", "/api/v1/silences") => json!({"tag": "t", "reason": "r", "ends_at": "2026-01-01T00:00:00Z"}),
        ("POST", "/api/v1/alert-receivers") => json!({"name": "N", "url": "https://hooks.invalid/"}),
        ("POST", "/api/v1/rollouts") => json!({"version": "1.0.0", "percent": 1}),
        ("POST", path) if path.ends_with("/publish") => json!({"key_id": "k", "signature": ""}),
        ("PUT", _) => json!({"document": {}}),
        ("PATCH", path) if path.ends_with("/config") => json!({"changes": {}}),
        ("POST", path) if path.ends_with("/rollback") => json!({"ver": 1}),
        ("POST", path) if path.ends_with("/commands/dry-run") => json!({"type": "identify"}),
        ("POST", path) if path.ends_with("/commands") => json!({"type": "identify"}),
        ("POST", "/api/v1/devices/bulk") => json!({"devices": {"ids": ["box1"]}}),
        ("POST", path) if path.ends_with("/invitations") => json!({"seat": "guest1", "name": "N"}),
        ("POST" | "PATCH", _) => json!({}),
        _ => return None,
    };
    Some(body)
}

#[actix_web::test]
async fn without_a_token_nothing_is_served_that_is_not_public() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    for (method, path, _) in world.operations("box1") {
        if PUBLIC.contains(&path.as_str()) {
            continue;
        }
        for token in ["", "nonsense", "eyJhbGciOiJub25lIn0.e30.", "r58k_nonsense"] {
            let answer = world.call(method.clone(), &path, token, body(&method, &path)).await;
            assert_eq!(answer.status, 401, "{method} {path} with {token:?}");
            assert!(answer.headers.contains_key("www-authenticate"));
        }
    }
    world.end().await;
}

#[actix_web::test]
async fn each_role_may_do_its_own_and_no_more() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let (viewer, operator) = (world.user("default", "viewer").await, world.user("default", "operator").await);
    let admins_only = |method: &Method, path: &str| {
        path.contains("/users")
            || path.contains("/audit")
            || path.contains("/alert-receivers")
            || path.contains("/organizations")
            || path.contains("/enrolment-codes")
            || path.ends_with("/rotate-token")
            || (*method != Method::GET
                && ["/release", "/rollouts", "/alert-rules"].iter().any(|part| path.contains(part)))
            || (*method == Method::DELETE && path.contains("/devices/"))
    };
    // Who comes when is the crew's business, also to read; so are keys, and configurations, which may hold passwords.
    let crew_only = |path: &str| {
        ["/invitations", "/guests", "/api-keys", "/config", "/bundles"].iter().any(|part| path.contains(part))
    };
    for (method, path, _) in world.operations("box1") {
        if PUBLIC.contains(&path.as_str())
            || path.ends_with("/events")
            || path.ends_with(OF_DEVICES)
            || path.ends_with("/broker/auth")
        {
            continue;
        }
        if is_for_devices(&method, &path) {
            world.call(method, &path, &world.admin, None).await.expect(401);
            continue;
        }
        let least = match &method {
            _ if crew_only(&path) => "operator",
            _ if admins_only(&method, &path) => "admin",
            &Method::GET => "viewer",
            _ => "operator",
        };
        let answer = world.call(method.clone(), &path, &viewer, body(&method, &path)).await;
        assert_eq!(answer.status == 403, least != "viewer", "viewer: {method} {path}: {}", answer.status);
        if least != "viewer" {
            let answer = world.call(method.clone(), &path, &operator, body(&method, &path)).await;
            assert_eq!(answer.status == 403, least == "admin", "operator: {method} {path}: {}", answer.status);
        }
    }
    world.end().await;
}

#[actix_web::test]
async fn an_administrator_of_another_organization_sees_and_changes_nothing() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let command =
        world.post("/api/v1/devices/box1/commands", &world.admin, json!({"type": "identify"})).await.expect(201);
    let own = world.get("/api/v1/auth/me", &world.admin).await.expect(200).text("id");
    let codes = world.get("/api/v1/enrolment-codes", &world.admin).await.expect(200);
    let stranger = world.user("other", "admin").await;
    let code = codes.body["items"][0]["id"].as_str().unwrap().to_owned();
    let made = async |path: &str| {
        let body = body(&Method::POST, path).map(|mut body| {
            if path.ends_with("/silences") {
                body["ends_at"] = json!(chrono::Utc::now() + chrono::Duration::hours(1));
            }
            body
        });
        world.call(Method::POST, path, &world.admin, body).await.expect(201).text("id")
    };
    let (rule, receiver) = (made("/api/v1/alert-rules").await, made("/api/v1/alert-receivers").await);
    let silence = made("/api/v1/silences").await;
    alerts::rule(&world, "offline", json!({"for_seconds": 0})).await;
    alerts::presence(&world, "box1", true, 1).await;
    alerts::presence(&world, "box1", false, 1).await;
    let alert = alerts::alerts(&world, "state=firing", 1).await[0]["id"].as_str().unwrap().to_owned();
    let command = command.text("id");
    for id in ["box1", &command, &own, &code, &rule, &receiver, &silence, &alert] {
        for (method, path, _) in world.operations(id) {
            // Organizations are for platform administrators, whom the stranger is none of.
            if !path.contains(id) || path.contains("/organizations/") || path.ends_with(OF_DEVICES) {
                continue;
            }
            let answer = world.call(method.clone(), &path, &stranger, body(&method, &path)).await;
            let expected = if is_for_devices(&method, &path) { 401 } else { 404 };
            assert_eq!(answer.status, expected, "{method} {path}: {}", answer.body);
        }
    }
    for path in ["/api/v1/devices", "/api/v1/enrolment-codes"] {
        assert_eq!(world.get(path, &stranger).await.expect(200).body["total"], 0, "{path}");
    }
    let users = world.get("/api/v1/users", &stranger).await.expect(200);
    assert_eq!(users.body["total"], 1, "only itself");
    let kept = world.get("/api/v1/devices/box1", &world.admin).await.expect(200);
    assert_eq!(kept.text("name"), "Box box1");
    world.end().await;
}

#[actix_web::test]
async fn the_first_start_makes_an_administrator_and_the_second_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = plan(dir.path());
    first.access.admin_password = None;
    let handle = fleet::start(first.clone()).await.unwrap();
    let admin = handle.first_start.clone().unwrap();
    assert!(admin.password.len() >= 19 && admin.email == "admin@r58.local");
    handle.stop().await;
    for file in ["access-token.key", "command-key.pem"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let handle = fleet::start(first).await.unwrap();
    assert!(handle.first_start.is_none());
    let url = format!("http://{}/api/v1/auth/login", handle.addr);
    let body = json!({"email": " Admin@R58.local ", "password": admin.password});
    let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    handle.stop().await;
}

#[actix_web::test]
async fn a_port_that_is_taken_and_a_key_that_others_can_read_stop_the_start_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut refused = plan(dir.path());
    refused.listen = taken.local_addr().unwrap();
    let error = fleet::start(refused).await.err().unwrap();
    assert!(matches!(error, FleetError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
    let key = dir.path().join("access-token.key");
    std::fs::write(&key, "00".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = fleet::start(plan(dir.path())).await.err().unwrap();
    assert!(error.to_string().contains("readable by others"), "{error}");
}

#[actix_web::test]
async fn guessing_a_password_has_to_wait() {
    let world = World::with(|plan| {
        plan.access.max_failures = 3;
        plan.access.lockout = Duration::from_secs(600);
    })
    .await;
    let guess = |password: &str| json!({"email": "admin@r58.local", "password": password});
    for _ in 0..3 {
        world.post("/api/v1/auth/login", "", guess("wrong password")).await.expect(401);
    }
    let answer = world.post("/api/v1/auth/login", "", guess(PASSWORD)).await.expect(429);
    assert!(answer.headers.contains_key("retry-after"));
    let other = json!({"email": "somebody@else.example", "password": PASSWORD});
    world.post("/api/v1/auth/login", "", other).await.expect(401);
    world.end().await;
}

#[actix_web::test]
async fn behind_a_known_proxy_each_client_waits_for_itself_and_a_header_of_others_changes_nothing() {
    let guess = |password: &str| json!({"email": "admin@r58.local", "password": password});
    // What a client claims stands left of what its proxy writes.
    for (trusted, other_client) in [("127.0.0.0/8", 200), ("192.0.2.0/24", 429)] {
        let world = World::with(|plan| {
            plan.access.max_failures = 3;
            plan.access.lockout = Duration::from_secs(600);
            plan.trusted_proxies = TrustedProxies::new(&[trusted.to_owned()]).unwrap();
        })
        .await;
        let sign_in = async |forwarded: &str, password: &str| {
            let request = world.http.post(world.url("/api/v1/auth/login")).header("X-Forwarded-For", forwarded);
            let response = request.json(&guess(password)).send().await.unwrap();
            world.read(&Method::POST, "/api/v1/auth/login", response).await
        };
        for n in 0..3 {
            sign_in(&format!("203.0.113.{n}, 198.51.100.7"), "wrong password").await.expect(401);
        }
        sign_in("198.51.100.7", PASSWORD).await.expect(429);
        sign_in("198.51.100.8, 198.51.100.7", PASSWORD).await.expect(429);
        sign_in("198.51.100.8", PASSWORD).await.expect(other_client);
        world.end().await;
    }
}

#[actix_web::test]
async fn a_refresh_token_is_good_for_one_use_and_a_second_use_ends_the_session() {
    let world = World::new().await;
    let login = json!({"email": "admin@r58.local", "password": PASSWORD});
    let first = world.post("/api/v1/auth/login", "", login).await.expect(200).text("refresh_token");
    let spend = async |token: &str| world.post("/api/v1/auth/refresh", "", json!({"refresh_token": token})).await;
    let answer = spend(&first).await.expect(200);
    let second = answer.text("refresh_token");
    world.get("/api/v1/auth/me", &answer.text("access_token")).await.expect(200);
    spend(&first).await.expect(401);
    spend(&second).await.expect(401);
    world.end().await;
}

#[actix_web::test]
async fn pages_of_another_origin_cannot_act_and_every_answer_says_how_it_may_be_used() {
    let world = World::new().await;
    let login = json!({"email": "admin@r58.local", "password": PASSWORD});
    let url = world.url("/api/v1/auth/login");
    let foreign = world.http.post(&url).header("origin", "http://evil.example").json(&login).send().await.unwrap();
    world.read(&Method::POST, "/api/v1/auth/login", foreign).await.expect(403);
    let own = format!("http://{}", world.handle.addr);
    let ours = world.http.post(&url).header("origin", own).json(&login).send().await.unwrap();
    world.read(&Method::POST, "/api/v1/auth/login", ours).await.expect(200);
    for path in ["/health", "/api/v1/devices", "/nothing"] {
        let headers = world.get(path, "").await.headers;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"), "{path}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{path}");
    }
    world.end().await;
}
