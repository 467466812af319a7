//! Bad requests to the box and to the fleet server: each gets its problem (RFC 9457), and floods leave nothing behind.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HOST, ORIGIN};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::r58::{EPHEMERAL, Home, PATIENCE, R58};
use crate::support::sdp::offer;
use crate::support::{stage, stage_alone, until};

/// A small picture, so that the machine has time for the tests.
const SMALL: &str = "[device.programme]\nwidth = 640\nheight = 360\nfps = 15\nbitrate_kbps = 300\n";
const SDP: &str = "application/sdp";
const JSON: &str = "application/json";
/// Ten megabytes: forty times what any route reads.
const HUGE: usize = 10 * 1024 * 1024;
/// Connections of a flood.
const CONNECTIONS: usize = 50;
/// Requests of a flood on each connection.
const REQUESTS: usize = 60;
/// What the process may have grown by after floods that came to a hundred times as much, in bytes: arenas of the allocator.
const GROWTH: u64 = 32 * 1024 * 1024;
/// Listeners that the box admits at the same time.
const LISTENERS: usize = 64;

/// A demo on air, and what is known of it.
struct Target {
    demo: R58,
    _home: Home,
    /// Empty frame slots before anything hostile came.
    missed: u64,
    /// The token of the first seat.
    token: String,
}

impl Target {
    async fn start() -> Self {
        let home = Home::new(&format!("{EPHEMERAL}{SMALL}"));
        let demo = R58::start(&home, "demo").await;
        demo.state_until("a programme on air", |state| state["programme"]["frames"].as_u64() > Some(15)).await;
        demo.state_until("live inputs", |state| {
            state["inputs"].as_array().into_iter().flatten().filter(|input| input["signal"] == "live").count() == 4
        })
        .await;
        let seats = demo.json("/api/seats").await;
        let token = seats["items"][0]["token"].as_str().expect("a token").to_owned();
        let missed = missed(&demo).await;
        Self { demo, _home: home, missed, token }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let base = if path.starts_with("/api/v1/") { &self.demo.fleet } else { &self.demo.device };
        self.demo.http().post(format!("{base}{path}"))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.demo.http().get(format!("{}{path}", self.demo.device))
    }

    /// The programme went on without a gap and both sides answer.
    async fn goes_on_well(mut self) {
        let state = self.demo.state().await;
        let goal = state["programme"]["frames"].as_u64().expect("frames") + 15;
        self.demo.state_until("further frames", |state| state["programme"]["frames"].as_u64() >= Some(goal)).await;
        assert_eq!(missed(&self.demo).await, self.missed, "frame slots were missed");
        for base in [&self.demo.device, &self.demo.fleet] {
            let health = self.demo.http().get(format!("{base}/health")).send().await.expect("an answer");
            assert_eq!(health.status(), StatusCode::OK);
        }
        assert!(self.demo.process.is_alive());
        let tree = self.demo.json("/api/actors").await;
        let restarted: Vec<_> =
            tree["actors"].as_array().into_iter().flatten().filter(|actor| actor["restarts"] != 0).collect();
        assert!(restarted.is_empty(), "an actor died of it: {restarted:?}");
        assert!(self.demo.stop().await.success());
    }
}

async fn missed(demo: &R58) -> u64 {
    demo.json("/api/mixer/status").await["stats"]["missed_slots"].as_u64().expect("a count")
}

/// Sends it and expects a problem with one of these statuses and a sentence.
async fn refused(request: RequestBuilder, statuses: &[u16], what: &str) -> Value {
    let answer = request.send().await.unwrap_or_else(|error| panic!("{what}: no answer: {error:?}"));
    let status = answer.status().as_u16();
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let text = answer.text().await.unwrap_or_default();
    assert!(statuses.contains(&status), "{what}: {status} {text}");
    assert_eq!(kind, "application/problem+json", "{what}: {status} {text}");
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
    assert_eq!(problem["status"], status, "{what}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 5), "{what}: {text}");
    problem
}

/// Sends a body that is too large. The server may close while the rest is still on its way (RFC 9110, section 15.5.14).
async fn too_large(request: RequestBuilder, what: &str) {
    if let Ok(answer) = request.body(vec![b' '; HUGE]).send().await {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{what}");
    }
}

#[tokio::test]
async fn malformed_requests_each_get_their_problem() {
    // No frame slot may be missed.
    let _stage = stage_alone().await;
    let target = Target::start().await;
    offers(&target).await;
    orders(&target).await;
    fleet(&target).await;
    strangers(&target).await;
    paths(&target).await;
    target.goes_on_well().await;
}

/// WHIP and WHEP.
async fn offers(target: &Target) {
    let good = offer("sendonly");
    let whip =
        |token: &str, kind: &str| target.post("/whip/guest1").bearer_auth(token).header(CONTENT_TYPE, kind.to_owned());
    let token = target.token.as_str();
    refused(target.post("/whip/guest1").header(CONTENT_TYPE, SDP).body(good.clone()), &[401], "no token").await;
    refused(target.post("/whip/guest1").basic_auth("guest1", Some(token)).body(good.clone()), &[401], "another scheme")
        .await;
    for wrong in ["x", "", &"f".repeat(32), &"f".repeat(6_000), &token[..31]] {
        refused(whip(wrong, SDP).body(good.clone()), &[401], "a wrong token").await;
    }
    refused(
        target.post("/whip/guest2").bearer_auth(token).header(CONTENT_TYPE, SDP).body(good.clone()),
        &[403],
        "another seat",
    )
    .await;
    refused(
        target.post("/whip/nobody").bearer_auth(token).header(CONTENT_TYPE, SDP).body(good.clone()),
        &[403, 404],
        "no such seat",
    )
    .await;
    refused(target.post("/whip/guest1").bearer_auth(token).body(good.clone()), &[415], "no content type").await;
    for kind in ["text/plain", JSON, "application/sdpx", "multipart/form-data; boundary=x"] {
        refused(whip(token, kind).body(good.clone()), &[415], kind).await;
    }
    for (what, body) in malformed(&good) {
        refused(whip(token, SDP).body(body.clone()), &[400, 422], what).await;
        refused(target.post("/whep/programme").header(CONTENT_TYPE, SDP).body(body), &[400, 422], what).await;
    }
    // A guest's offer to a viewer's door and the other way round.
    refused(
        target.post("/whep/programme").header(CONTENT_TYPE, SDP).body(good.clone()),
        &[400, 422],
        "a guest at WHEP",
    )
    .await;
    refused(whip(token, SDP).body(offer("recvonly")), &[400, 422], "a viewer at WHIP").await;
    refused(target.post("/whep/nothing").header(CONTENT_TYPE, SDP).body(offer("recvonly")), &[404], "no such stream")
        .await;
    refused(target.post("/whep/programme").header(CONTENT_TYPE, "text/plain").body(offer("recvonly")), &[415], "WHEP")
        .await;
    too_large(whip(token, SDP), "an offer of 10 MB").await;
    too_large(target.post("/whep/programme").header(CONTENT_TYPE, SDP), "an offer of 10 MB").await;
    for path in ["/whip/guest1/no-such-session", "/whep/programme/no-such-session", "/whep/nothing/x"] {
        let request = target.demo.http().delete(format!("{}{path}", target.demo.device)).bearer_auth(token);
        refused(request, &[404], path).await;
    }
    for path in ["/whip/guest1", "/whep/programme"] {
        let request = target.demo.http().put(format!("{}{path}", target.demo.device)).bearer_auth(token);
        refused(request, &[405], path).await;
    }
    let state = target.demo.state().await;
    assert_eq!(state["programme"]["viewers"], 0, "nobody was let in");
}

fn malformed(good: &str) -> Vec<(&'static str, Vec<u8>)> {
    let lines: Vec<&str> = good.split("\r\n").collect();
    vec![
        ("empty", Vec::new()),
        ("no SDP", b"hello".to_vec()),
        ("JSON", br#"{"type":"offer","sdp":"v=0"}"#.to_vec()),
        ("another version", good.replacen("v=0", "v=1", 1).into_bytes()),
        ("no media", lines[..5].join("\r\n").into_bytes()),
        ("cut off in the middle", good.as_bytes()[..good.len() / 2].to_vec()),
        ("not UTF-8", vec![0xff; 400]),
        ("NUL", vec![0; 400]),
        ("no fingerprint", without(&lines, "a=fingerprint")),
        ("no ufrag", without(&lines, "a=ice-ufrag")),
        ("no password", without(&lines, "a=ice-pwd")),
        (
            "a codec that nobody has",
            good.replace("H264/90000", "XYZ/90000").replace("opus/48000/2", "ABC/8000").into_bytes(),
        ),
        ("a thousand sections", (good.to_owned() + &"m=video 9 UDP/TLS/RTP/SAVPF 102\r\n".repeat(1_000)).into_bytes()),
        ("one endless line", ("v=0\r\na=".to_owned() + &"x".repeat(60_000)).into_bytes()),
    ]
}

fn without(lines: &[&str], start: &str) -> Vec<u8> {
    lines.iter().filter(|line| !line.starts_with(start)).copied().collect::<Vec<_>>().join("\r\n").into_bytes()
}

/// The crew's orders.
async fn orders(target: &Target) {
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    for (path, unknown) in [
        ("/api/mixer/set_scene", json!({ "scene": "quad", "more": 1 })),
        ("/api/mixer/transition", json!({ "kind": "cut", "more": 1 })),
        ("/api/mixer/take", json!({ "scene": "quad", "kind": "cut", "more": 1 })),
        ("/api/cameras/cam1/rehearse", json!({ "fault": "none", "more": 1 })),
    ] {
        let send = |kind: &'static str, body: String| target.post(path).header(CONTENT_TYPE, kind).body(body);
        for body in ["", "{", "null", "[]", "\"quad\"", "{}", r#"{"scene":5,"kind":5,"fault":5}"#, "\u{feff}{}", &deep]
        {
            refused(send(JSON, body.to_owned()), &[400], &format!("{path} {:.20}", body)).await;
        }
        let problem = refused(send(JSON, unknown.to_string()), &[400], path).await;
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("more")), "{problem}");
        refused(send("text/plain", unknown.to_string()), &[415], path).await;
        refused(target.post(path), &[400, 415], path).await;
        too_large(send(JSON, String::new()), path).await;
        let request = target.get(path);
        refused(request, &[404, 405], path).await;
    }
    for (path, body, status) in [
        ("/api/mixer/set_scene", json!({ "scene": "no such scene" }), 404),
        ("/api/mixer/set_scene", json!({ "scene": "x".repeat(100_000) }), 404),
        ("/api/mixer/take", json!({ "scene": "../../etc/passwd", "kind": "cut" }), 404),
        ("/api/mixer/take", json!({ "scene": "quad", "kind": "wipe" }), 422),
        ("/api/mixer/take", json!({ "scene": "quad", "kind": "mix", "duration_ms": u64::MAX }), 422),
        ("/api/mixer/take", json!({ "scene": "quad", "kind": "mix", "duration_ms": -1 }), 400),
        ("/api/mixer/take", json!({ "scene": "quad", "kind": "mix", "duration_ms": 1e300 }), 400),
        ("/api/cameras/cam1/rehearse", json!({ "fault": "fire" }), 400),
        ("/api/cameras/cam9/rehearse", json!({ "fault": "none" }), 404),
        ("/api/cameras/guest1/rehearse", json!({ "fault": "none" }), 404),
    ] {
        let what = format!("{path} {:.60}", body.to_string());
        refused(target.post(path).json(&body), &[status], &what).await;
    }
}

/// Every route of the fleet server that takes a body.
async fn fleet(target: &Target) {
    let sign_in =
        json!({ "email": "admin@r58.local", "password": target.demo.password.as_deref().expect("a password") });
    let answer = target.post("/api/v1/auth/login").json(&sign_in).send().await.expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    let token = answer["access_token"].as_str().expect("a token");
    let description =
        target.demo.http().get(format!("{}/openapi.json", target.demo.fleet)).send().await.expect("an answer");
    let description: Value = description.json().await.expect("JSON");
    let mut tried = 0;
    for (path, operations) in description["paths"].as_object().expect("paths") {
        if operations["post"]["requestBody"].is_null() {
            continue;
        }
        tried += 1;
        let path = path.replace("{id}", "r58-demo");
        let send = |kind: &'static str, body: &str| {
            target.post(&path).bearer_auth(token).header(CONTENT_TYPE, kind).body(body.to_owned())
        };
        // What devices and brokers say is for them: a person is refused whatever the body is.
        let security = operations["post"]["security"].as_array();
        let for_people = security.is_none_or(|ways| ways.iter().any(|way| way.get("user").is_some()));
        if !for_people {
            for kind in [JSON, "text/plain"] {
                refused(send(kind, "{"), &[401], &path).await;
            }
            continue;
        }
        // Older callers of these send nothing at all, and say nothing of what it is.
        if operations["post"]["requestBody"]["required"] != true {
            for body in ["{", "5"] {
                refused(send(JSON, body), &[400, 404], &format!("{path} {body}")).await;
            }
            continue;
        }
        for body in ["", "{", "[]", "5", r#"{"no such field": 1}"#] {
            refused(send(JSON, body), &[400, 404], &format!("{path} {body}")).await;
        }
        refused(send("text/plain", "{}"), &[404, 415], &path).await;
        too_large(send(JSON, ""), &path).await;
    }
    assert!(tried >= 5, "only {tried} routes take a body");
    let command = |token: String| {
        target.post("/api/v1/devices/r58-demo/commands").bearer_auth(token).json(&json!({ "type": "reboot" }))
    };
    for wrong in [String::new(), "x".into(), format!("{token}x"), token.replace('.', ""), "f".repeat(6_000)] {
        refused(command(wrong), &[401], "a wrong token").await;
    }
    refused(command(token.into()).header(ORIGIN, "http://evil.example"), &[403], "a foreign page").await;
}

/// Pages of strangers, and names that are not the box's.
async fn strangers(target: &Target) {
    let take = || target.post("/api/mixer/take").json(&json!({ "scene": "quad", "kind": "cut" }));
    for origin in ["http://evil.example", "null", "https://127.0.0.1.evil.example", "http://127.0.0.1:1", ""] {
        refused(take().header(ORIGIN, origin), &[403], &format!("from {origin:?}")).await;
    }
    let viewer = target
        .post("/whep/programme")
        .header(CONTENT_TYPE, SDP)
        .header(ORIGIN, "http://evil.example")
        .body(offer("recvonly"));
    refused(viewer, &[403], "a foreign viewer").await;
    for host in ["evil.example", "127.0.0.1.evil.example:8000", "box.local"] {
        for path in
            ["/", "/api/state", "/api/seats", "/api/events", "/api/thumbnails/programme", "/api/turn-credentials"]
        {
            refused(target.get(path).header(HOST, host), &[403], &format!("{path} by {host}")).await;
        }
        refused(take().header(HOST, host), &[403], &format!("a take by {host}")).await;
    }
}

/// Paths that want out, sent as they are: a client would tidy them up.
async fn paths(target: &Target) {
    for base in [&target.demo.device, &target.demo.fleet] {
        for path in [
            "/assets/../../../../etc/passwd",
            "/assets/..%2f..%2f..%2fetc%2fpasswd",
            "/assets/%2e%2e/%2e%2e/Cargo.toml",
            "/assets/../index.html",
            "/assets//etc/passwd",
            "/assets/..\\..\\etc\\passwd",
            "/assets/%00",
            "/assets/",
            "/api/thumbnails/../../etc/passwd",
            "/api/thumbnails/..%2f..%2fetc%2fpasswd",
            "/api/thumbnails/%ff%fe",
            "/api/thumbnails/no-such",
            "/api/scenes/..%2f..%2fetc%2fpasswd",
            "/api/v1/devices/..%2f..%2fetc%2fpasswd/thumbnails/x",
            "/%2e%2e/%2e%2e/etc/passwd",
        ] {
            let answer =
                raw(base, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
                    .await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let status = head.split_whitespace().nth(1).unwrap_or_default();
            assert!(["400", "401", "404"].contains(&status), "{path}: {answer}");
            assert!(!body.contains("root:"), "{path}: {answer}");
            if status != "400" {
                assert!(head.to_lowercase().contains("content-type: application/problem+json"), "{path}: {answer}");
            }
        }
        for request in [
            &b"\0\0\0\0\r\n\r\n"[..],
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /\r\n\r\n",
            b"POST /api/mixer/take HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
            b"POST /api/mixer/take HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let answer = raw(base, request).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{:?}: {answer}", String::from_utf8_lossy(request));
        }
        let endless = [&b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "[..], &vec![b'x'; 512 * 1024]].concat();
        let answer = raw(base, &endless).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}

/// What a server says to bytes until it closes; nothing when it closes at once.
async fn raw(base: &str, request: &[u8]) -> String {
    let address = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // It may have had enough before all is said.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn floods_leave_the_programme_and_the_memory_as_they_were() {
    // No frame slot may be missed.
    let _stage = stage_alone().await;
    let target = Target::start().await;
    // The first flood fills caches, arenas and thread stacks; what counts is what further ones add.
    flood(&target).await;
    let before = target.demo.process.resident();
    for _ in 0..2 {
        flood(&target).await;
    }
    let grown = target.demo.process.resident().saturating_sub(before);
    assert!(grown < GROWTH, "grown by {} KiB", grown / 1024);
    listeners(&target).await;
    target.goes_on_well().await;
}

/// Some thousands of requests over fifty connections, a hundred of them with ten megabytes.
async fn flood(target: &Target) {
    let mut floods = JoinSet::new();
    for n in 0..CONNECTIONS {
        let (base, token) = (target.demo.device.clone(), target.token.clone());
        floods.spawn(async move {
            let http = Client::builder().pool_max_idle_per_host(1).timeout(PATIENCE).build().expect("a client");
            for turn in 0..REQUESTS {
                let path =
                    ["/api/state", "/api/thumbnails/programme", "/api/thumbnails/cam1", "/api/scenes", "/api/actors"]
                        [(n + turn) % 5];
                let answer = http.get(format!("{base}{path}")).send().await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::OK, "{path}");
                answer.bytes().await.expect("a body");
            }
            too_large(http.post(format!("{base}/whip/guest1")).bearer_auth(&token).header(CONTENT_TYPE, SDP), "WHIP")
                .await;
            too_large(http.post(format!("{base}/api/mixer/take")).header(CONTENT_TYPE, JSON), "take").await;
        });
    }
    while let Some(done) = floods.join_next().await {
        done.expect("a flood");
    }
}

/// As many listeners as there is room for; the next is told to come back, and let in when one has left.
async fn listeners(target: &Target) {
    let mut open = Vec::new();
    for n in 0..LISTENERS {
        let answer = target.get("/api/events").send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "listener {n}");
        open.push(answer);
    }
    let one_more = || target.get("/api/events").timeout(Duration::from_secs(30));
    let answer = one_more().send().await.expect("an answer");
    assert!(answer.headers().contains_key("Retry-After"));
    for _ in 0..CONNECTIONS {
        refused(one_more(), &[503], "one listener too many").await;
    }
    open.truncate(LISTENERS / 2);
    until(PATIENCE, "room for a listener", || async {
        let status = one_more().send().await.expect("an answer").status();
        if status == StatusCode::OK { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn of_the_clients_of_one_proxy_only_the_one_that_floods_has_to_wait() {
    let _stage = stage().await;
    let home = Home::small("listen = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]", "");
    let r58 = R58::start(&home, "device").await;
    let knock = async |forwarded: String| {
        let request = r58.http().get(format!("{}/guest/guest1", r58.device)).header("X-Forwarded-For", forwarded);
        request.send().await.expect("an answer").status()
    };
    until(PATIENCE, "a flood that is refused", async || {
        // What it claims to be before its proxy speaks makes no difference.
        let flood = (0..100).map(|n| knock(format!("203.0.113.{n}, 198.51.100.7")));
        let said = futures_util::future::join_all(flood.collect::<Vec<_>>()).await;
        if said.contains(&StatusCode::SERVICE_UNAVAILABLE) { Ok(()) } else { Err(said.len()) }
    })
    .await;
    assert_eq!(knock("198.51.100.8".to_owned()).await, StatusCode::UNAUTHORIZED);
    r58.stop().await;
}
