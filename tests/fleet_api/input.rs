//! Bad input: each gets its clear error, and the server lives.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use crate::world::World;

#[actix_web::test]
async fn what_is_not_json_is_named_and_refused() {
    let world = World::new().await;
    let path = "/api/v1/auth/login";
    for (media, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "", 400),
        ("application/json", "[1,2]", 400),
        ("application/json", r#"{"email": 5, "password": "x"}"#, 400),
        ("application/json", r#"{"email": "a", "password": "x", "more": 1}"#, 400),
        ("text/plain", r#"{"email": "a", "password": "x"}"#, 415),
        ("application/x-www-form-urlencoded", "email=a&password=b", 415),
    ] {
        let answer = world.http.post(world.url(path)).header(CONTENT_TYPE, media).body(body).send().await.unwrap();
        world.read(&Method::POST, path, answer).await.expect(status);
    }
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let answer =
        world.http.post(world.url(path)).header(CONTENT_TYPE, "application/json").body(deep).send().await.unwrap();
    world.read(&Method::POST, path, answer).await.expect(400);
    world.get("/health", "").await.expect(200);
    world.end().await;
}

#[actix_web::test]
async fn bodies_of_ten_megabytes_are_refused_and_do_not_pile_up() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    let body = bytes::Bytes::from(vec![b'x'; 10 * 1024 * 1024]);
    let before = resident_kb();
    for round in 0..40 {
        for path in ["/api/v1/auth/login", "/api/v1/devices/register", "/api/v1/devices/box1/commands"] {
            let request = world.http.post(world.url(path)).bearer_auth(&world.admin);
            let request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
            match request.send().await {
                Ok(answer) => {
                    world.read(&Method::POST, path, answer).await.expect(413);
                }
                // The server may close while the rest is still on its way (RFC 9110, section 15.5.14).
                Err(error) => assert!(error.is_request() || error.is_body(), "round {round}: {error:?}"),
            }
        }
    }
    let grown = resident_kb().saturating_sub(before);
    // Other tests run in this process too; what matters is that 1,200 MiB came and did not stay.
    assert!(grown < 256 * 1024, "the process grew by {grown} KiB while 1,200 MiB were refused");
    world.get("/health", "").await.expect(200);
    world.end().await;
}

/// VmRSS of this process (proc(5)).
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[actix_web::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let world = World::new().await;
    for path in ["/nothing", "/api/v1/nothing", "/api/v2/devices", "/api/v1/devices/a/b/c/d", "/api/v1/"] {
        world.get(path, &world.admin).await.expect(404);
    }
    for (method, path) in [
        (Method::PUT, "/api/v1/devices"),
        (Method::GET, "/api/v1/auth/login"),
        (Method::POST, "/health"),
        (Method::DELETE, "/api/v1/events"),
        (Method::PUT, "/api/v1/commands/x"),
    ] {
        let answer = world.call(method.clone(), path, &world.admin, None).await.expect(405);
        assert!(!answer.headers["allow"].is_empty(), "{method} {path}");
    }
    world.end().await;
}

#[actix_web::test]
async fn strange_identifiers_are_not_found_and_harm_nobody() {
    let world = World::new().await;
    world.enrol(&world.admin, "box1").await;
    for id in ["%00", "..%2F..%2Fetc%2Fpasswd", "'%20OR%201=1--", "%F0%9F%93%B7", "$fleet", &"x".repeat(2_000)] {
        for path in [
            "/api/v1/devices/{}",
            "/api/v1/devices/{}/commands",
            "/api/v1/commands/{}",
            "/api/v1/users/{}",
            "/api/v1/devices/{}/heartbeats",
            "/api/v1/devices/{}/thumbnails/cam1",
        ] {
            let path = path.replace("{}", id);
            let answer = world.get(&path, &world.admin).await;
            assert_eq!(answer.status, 404, "{path}");
        }
    }
    for id in ["", "a/b", "a+b", "#", "$share", "..", "x y", &"x".repeat(65)] {
        let code = world.post("/api/v1/enrolment-codes", &world.admin, serde_json::json!({})).await.expect(201);
        let body = crate::world::registration(&code.text("code"), id);
        world.post("/api/v1/devices/register", "", body).await.expect(400);
    }
    world.end().await;
}

#[actix_web::test]
async fn the_description_names_every_answer_and_who_may_ask() {
    let world = World::new().await;
    let operations = world.operations("x");
    assert!(operations.len() >= 28, "{}", operations.len());
    for (method, path, operation) in operations {
        assert!(
            operation["summary"].is_string() || operation["description"].is_string(),
            "{method} {path} says nothing"
        );
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path} never succeeds");
        for (status, response) in responses.iter().filter(|(status, _)| status.starts_with(['4', '5'])) {
            assert!(response["content"]["application/problem+json"].is_object(), "{method} {path} {status}");
        }
        assert_eq!(
            operation["security"].is_array(),
            responses.contains_key("401") && !path.contains("/auth/log") && !path.contains("/auth/refresh"),
            "{method} {path}"
        );
    }
    world.end().await;
}
