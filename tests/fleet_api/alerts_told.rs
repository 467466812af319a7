//! Who is told of alerts: a webhook and a mail server, both real, both refusing at first.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use r58::fleet::alerts::courier::{CourierError, Target, bring, signature};
use r58::fleet::alerts::message::Message;
use r58::fleet::alerts::plan::{AlertPlan, SmtpPlan, SmtpTls};
use r58_actors::fleet_link::identity::Secret;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::alerts::{WITHIN, alerts, presence, rule};
use crate::environment::environment;
use crate::world::World;

/// Half of what no receiver should need to know.
const SECRET: &str = "sixteen bytes and more";

/// What came to a webhook.
#[derive(Clone)]
pub struct Call {
    delivery: String,
    timestamp: i64,
    signature: String,
    body: String,
}

/// A webhook of this test's own, which refuses the first calls.
pub struct Hook {
    pub url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    pub server: actix_web::dev::ServerHandle,
}

impl Hook {
    pub fn new(refusals: usize) -> Self {
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let held = calls.clone();
        let server = HttpServer::new(move || {
            let held = held.clone();
            App::new().default_service(web::to(move |request: HttpRequest, body: String| {
                let header = |name: &str| {
                    request.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
                };
                let call = Call {
                    delivery: header("X-R58-Delivery"),
                    timestamp: header("X-R58-Timestamp").parse().unwrap(),
                    signature: header("X-R58-Signature"),
                    body,
                };
                let mut calls = held.lock().unwrap();
                calls.push(call);
                let refused = calls.len() <= refusals;
                async move { if refused { HttpResponse::ServiceUnavailable() } else { HttpResponse::NoContent() }.finish() }
            }))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/T0/s3cret-path", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { url, calls, server: handle }
    }

    /// Waits for so many calls.
    pub async fn calls(&self, count: usize) -> Vec<Call> {
        let end = tokio::time::Instant::now() + WITHIN;
        loop {
            let calls = self.calls.lock().unwrap().clone();
            if calls.len() >= count {
                return calls;
            }
            assert!(tokio::time::Instant::now() < end, "{} of {count} calls", calls.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn plan() -> AlertPlan {
    AlertPlan {
        allow_private_targets: true,
        group_within: Duration::from_millis(1_500),
        retry_first: Duration::from_millis(50),
        retry_most: Duration::from_millis(100),
        attempts: 5,
        smtp: None,
    }
}

pub async fn receiver(world: &World, body: Value) -> String {
    world.post("/api/v1/alert-receivers", &world.admin, body).await.expect(201).text("id")
}

/// Waits until the newest message of a receiver is in a state.
async fn delivery(world: &World, receiver: &str, state: &str) -> Value {
    let end = tokio::time::Instant::now() + WITHIN;
    loop {
        let path = format!("/api/v1/alert-receivers/{receiver}/deliveries");
        let page = world.get(&path, &world.admin).await.expect(200);
        if page.body["items"][0]["state"] == state {
            return page.body["items"][0].clone();
        }
        assert!(tokio::time::Instant::now() < end, "not {state}: {}", page.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn a_site_that_goes_dark_is_one_signed_message_which_is_tried_until_it_arrives() {
    let world = World::with(|world| world.alerts = plan()).await;
    let hook = Hook::new(2);
    let body = json!({"name": "Pager", "url": hook.url, "secret": SECRET, "min_severity": "critical"});
    let id = receiver(&world, body).await;
    rule(&world, "offline", json!({"for_seconds": 0})).await;
    for n in 0..20 {
        world.enrol(&world.admin, &format!("box{n}")).await;
    }
    for conn in [true, false] {
        for n in 0..20 {
            presence(&world, &format!("box{n}"), conn, 1).await;
        }
    }
    let sent = delivery(&world, &id, "sent").await;
    let calls = hook.calls(3).await;
    let messages: Vec<Value> = calls.iter().map(|call| serde_json::from_str(&call.body).unwrap()).collect();
    assert!(calls.iter().all(|call| call.signature == signature(SECRET, call.timestamp, &call.body)));
    assert!(calls[..3].iter().all(|call| call.delivery == calls[0].delivery && call.body == calls[0].body));
    assert_eq!(
        (messages[0]["delivery_id"].as_str(), &messages[0]["org"]),
        (Some(&*calls[0].delivery), &json!("default"))
    );
    // A machine that is busy may see them in two goes; never in twenty.
    let told: usize = messages[2..].iter().map(|message| message["alerts"].as_array().unwrap().len()).sum();
    assert!(calls.len() <= 5 && (told == 20 || calls.len() > 3), "{} calls, {told} told", calls.len());
    assert!(sent["sent_at"].is_string());
    let shown = world.get(&format!("/api/v1/alert-receivers/{id}"), &world.admin).await.expect(200).body;
    let text = shown.to_string();
    assert!(!text.contains("s3cret") && !text.contains(SECRET) && shown["has_secret"] == true, "{text}");
    hook.server.stop(false).await;
    world.end().await;
}

#[actix_web::test]
async fn what_is_silenced_is_told_when_the_silence_ends_and_so_is_its_end() {
    let world = World::with(|world| world.alerts = AlertPlan { group_within: Duration::ZERO, ..plan() }).await;
    let (hook, other) = (Hook::new(0), Hook::new(0));
    let pager = receiver(&world, json!({"name": "Pager", "url": hook.url})).await;
    receiver(&world, json!({"name": "One that the rule does not name", "url": other.url})).await;
    rule(&world, "offline", json!({"for_seconds": 0, "receiver_ids": [pager]})).await;
    for id in ["box1", "box2"] {
        world.enrol(&world.admin, id).await;
    }
    let until = chrono::Utc::now() + chrono::Duration::hours(1);
    let silence = json!({"device_id": "box1", "reason": "it moves house", "ends_at": until});
    let silence = world.post("/api/v1/silences", &world.admin, silence).await.expect(201).text("id");
    // The one that is not silenced comes later, and is told first.
    for id in ["box1", "box2"] {
        presence(&world, id, true, 1).await;
        presence(&world, id, false, 1).await;
        alerts(&world, &format!("state=open&device={id}"), 1).await;
    }
    let device = |call: &Call| serde_json::from_str::<Value>(&call.body).unwrap()["alerts"][0]["device_id"].clone();
    let calls = hook.calls(1).await;
    assert_eq!((calls.len(), device(&calls[0])), (1, json!("box2")));
    world.call(Method::DELETE, &format!("/api/v1/silences/{silence}"), &world.admin, None).await.expect(204);
    assert_eq!(device(&hook.calls(2).await[1]), "box1");
    presence(&world, "box1", true, 2).await;
    let over = hook.calls(3).await;
    let over: Value = serde_json::from_str(&over[2].body).unwrap();
    assert_eq!((&over["alerts"][0]["event"], &over["alerts"][0]["device_id"]), (&json!("resolved"), &json!("box1")));
    assert_eq!(other.calls.lock().unwrap().len(), 0);
    for hook in [hook, other] {
        hook.server.stop(false).await;
    }
    world.end().await;
}

#[actix_web::test]
async fn a_receiver_that_never_answers_is_given_up_and_says_why() {
    let world = World::with(|world| world.alerts = AlertPlan { attempts: 3, ..plan() }).await;
    let hook = Hook::new(usize::MAX);
    let id = receiver(&world, json!({"name": "Pager", "url": hook.url})).await;
    world.call(Method::POST, &format!("/api/v1/alert-receivers/{id}/test"), &world.admin, None).await.expect(202);
    let failed = delivery(&world, &id, "failed").await;
    assert_eq!((failed["attempts"].as_i64(), &failed["test"]), (Some(3), &json!(true)));
    assert!(failed["error"].as_str().unwrap().contains("503"), "{failed}");
    assert_eq!(hook.calls.lock().unwrap().len(), 3);
    hook.server.stop(false).await;
    world.end().await;
}

#[actix_web::test]
async fn nobody_makes_the_server_call_what_only_it_can_reach() {
    let world = World::new().await;
    let create = async |body: Value| world.post("/api/v1/alert-receivers", &world.admin, body).await;
    for inside in
        ["http://127.0.0.1:9/x", "http://localhost/", "http://169.254.169.254/", "http://[::1]/", "gopher://x.example/"]
    {
        create(json!({"name": "n", "url": inside})).await.expect(400);
    }
    create(json!({"name": "n", "addresses": ["a@x.example"]})).await.expect(400);
    create(json!({"name": "n"})).await.expect(400);
    create(json!({"name": "n", "url": "https://x.example/", "secret": "short"})).await.expect(400);
    let id = receiver(&world, json!({"name": "n", "url": "https://hooks.example/"})).await;
    let operator = world.user("default", "operator").await;
    world.get("/api/v1/alert-receivers", &operator).await.expect(403);
    let stranger = world.user("other", "admin").await;
    for (method, path) in
        [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/deliveries"), (Method::POST, "/test")]
    {
        world.call(method, &format!("/api/v1/alert-receivers/{id}{path}"), &stranger, None).await.expect(404);
    }
    world.call(Method::DELETE, &format!("/api/v1/alert-receivers/{id}"), &world.admin, None).await.expect(204);
    world.end().await;
}

/// A mail server.
struct Post {
    port: u16,
    server: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Post {
    async fn new(arguments: &[&str]) -> Self {
        let python = tokio::task::spawn_blocking(environment).await.unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clients/smtp.py");
        let mut command = Command::new(python.join("bin/python"));
        let started =
            command.args(["-W", "ignore", script]).args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut server = started.unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(WITHIN, lines.next_line()).await.expect("its port").unwrap().unwrap();
        Self { port: port.parse().unwrap(), server, lines }
    }

    /// How it is spoken to.
    fn plan(&self, tls: SmtpTls, ca_file: Option<&Path>, password: Option<&str>) -> SmtpPlan {
        SmtpPlan {
            host: "127.0.0.1".into(),
            port: self.port,
            tls,
            ca_file: ca_file.map(Path::to_owned),
            login: password.map(|password| ("r58".into(), Secret::new(password))),
            from: "R58 fleet <r58@fleet.example>".into(),
        }
    }

    /// The next letter or login.
    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(WITHIN, self.lines.next_line()).await.expect("a letter").unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Ends it; answers with what came and was not read yet.
    async fn end(mut self) -> Vec<String> {
        self.server.kill().await.unwrap();
        let mut rest = Vec::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            rest.push(line);
        }
        rest
    }
}

#[actix_web::test]
async fn mail_goes_to_every_address_again_when_it_was_put_off_and_is_the_same_letter() {
    let mut post = Post::new(&["1"]).await;
    let smtp = post.plan(SmtpTls::None, None, None);
    let world = World::with(|world| world.alerts = AlertPlan { smtp: Some(smtp), ..plan() }).await;
    let to = ["crew@stage.example", "night@stage.example"];
    let id = receiver(&world, json!({"name": "Crew", "addresses": to})).await;
    rule(&world, "offline", json!({"for_seconds": 0, "name": "Box is gone"})).await;
    world.enrol(&world.admin, "box1").await;
    presence(&world, "box1", true, 1).await;
    presence(&world, "box1", false, 1).await;
    let (first, second) = (post.next().await, post.next().await);
    assert_eq!((&first["taken"], &second["taken"], &second["to"]), (&json!(false), &json!(true), &json!(to)));
    assert_eq!((&first["id"], &second["subject"]), (&second["id"], &json!("[R58] critical Box box1: Box is gone")));
    assert!(second["text"].as_str().unwrap().contains("its connection broke"));
    assert_eq!(delivery(&world, &id, "sent").await["attempts"], 2);
    assert_eq!(post.end().await, [""; 0]);
    world.end().await;
}

#[actix_web::test]
async fn mail_goes_by_tls_with_a_login_and_where_either_fails_it_says_why_and_nothing_goes_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.key_pair.serialize_pem()).unwrap();
    let paper = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let login = ["--login", "r58", "the right one"];
    let serve = async |speaks: &str| {
        let mut arguments = vec!["0", "--speaks", speaks];
        arguments.extend(paper.iter().chain(&login));
        Post::new(&arguments).await
    };
    let (mut upgrades, mut wraps, plain) = tokio::join!(serve("starttls"), serve("tls"), serve("plain"));
    let message =
        Message { v: 1, delivery_id: "d".into(), org: "default".into(), test: true, total: 0, alerts: Vec::new() };
    let message = serde_json::to_string(&message).unwrap();
    let to = Target::Email(vec!["crew@stage.example".into()]);
    let send = async |smtp: SmtpPlan| bring(&AlertPlan { smtp: Some(smtp), ..plan() }, &to, &message).await;
    let fails = async |smtp: SmtpPlan| match send(smtp).await {
        Err(CourierError::Failed(why)) => why,
        other => panic!("{other:?}"),
    };

    for (post, tls) in [(&mut upgrades, SmtpTls::StartTls), (&mut wraps, SmtpTls::Tls)] {
        send(post.plan(tls, Some(&cert), Some("the right one"))).await.unwrap();
        assert_eq!(post.next().await, json!({"login": "r58", "good": true}));
        let letter = post.next().await;
        assert_eq!((&letter["tls"], &letter["user"], &letter["taken"]), (&json!(true), &json!("r58"), &json!(true)));
        let wrong = fails(post.plan(tls, Some(&cert), Some("planted-wrong-one"))).await;
        assert_eq!(wrong, "the mail server refuses the login of fleet.smtp (535)");
        assert_eq!(post.next().await, json!({"login": "r58", "good": false}));
        let none = fails(post.plan(tls, Some(&cert), None)).await;
        assert_eq!(none, "the mail server refuses the login of fleet.smtp (530)");
        let stranger = fails(post.plan(tls, None, Some("the right one"))).await;
        assert!(stranger.contains("certificate"), "{stranger}");
    }
    let clear = fails(plain.plan(SmtpTls::StartTls, Some(&cert), Some("the right one"))).await;
    assert!(clear.contains("STARTTLS is not supported"), "{clear}");
    for post in [upgrades, wraps, plain] {
        assert_eq!(post.end().await, [""; 0], "nothing else was said");
    }
}
