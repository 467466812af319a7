//! The WebSocket bridge, each fault of the relay before it absent: a unit that came back was deleted by its old connection's
//! close, text came out as bytes, and there was no authentication, no ping and no limit.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use r58::fleet::switchboard::BridgePlan;
use r58_mqtt::payload::{Command, Payload as _, Response};
use r58_mqtt::{CommandId, Down, Topic};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::whep::{online, serve};
use crate::world::World;

/// Nothing here takes longer, on a busy machine either.
const LIMIT: Duration = Duration::from_secs(30);

/// One end of a line.
struct Line(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl World {
    /// Opens a line; the status of the refusal if there is none.
    async fn line(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Line, u16> {
        let mut request = self.url(path).replacen("http", "ws", 1).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Line(socket)),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    async fn unit(&self, registration: &Value) -> Line {
        let text = |name: &str| registration[name].as_str().unwrap();
        let headers = [("X-Device-Id", text("device_id")), ("X-Device-Token", text("token"))];
        self.line(&format!("/unit/{}", text("device_id")), &headers).await.unwrap_or_else(|status| panic!("{status}"))
    }

    async fn controller(&self, id: &str, token: &str) -> Line {
        let headers = [("Authorization", format!("Bearer {token}"))];
        let headers = [(headers[0].0, headers[0].1.as_str())];
        self.line(&format!("/control/{id}"), &headers).await.unwrap_or_else(|status| panic!("{status}"))
    }

    /// Waits until the server counts so many units and controllers.
    async fn counts(&self, units: u64, controllers: u64) {
        let counted = tokio::time::timeout(LIMIT, async {
            loop {
                let health = self.get("/health", "").await.expect(200).body;
                if (health["units"].as_u64(), health["controllers"].as_u64()) == (Some(units), Some(controllers)) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        counted.await.unwrap_or_else(|_| panic!("never {units} units and {controllers} controllers"));
    }
}

impl Line {
    async fn say(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).await.unwrap();
    }

    /// The next message that is no ping; pings are answered underneath.
    async fn hear(&mut self) -> Message {
        loop {
            let heard = tokio::time::timeout(LIMIT, self.0.next()).await.expect("nothing was heard");
            match heard {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                Some(Err(_)) | None => return Message::Close(None),
            }
        }
    }

    async fn json(&mut self) -> Value {
        let heard = self.hear().await;
        let Message::Text(text) = &heard else { panic!("{heard:?}") };
        serde_json::from_str(text).unwrap()
    }

    /// The code of its end, whatever was on its way before.
    async fn end(&mut self) -> Option<CloseCode> {
        loop {
            if let Message::Close(frame) = self.hear().await {
                return frame.map(|frame| frame.code);
            }
        }
    }
}

#[actix_web::test]
async fn frames_go_between_a_unit_and_all_its_controllers_as_they_came() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut early = world.controller("box1", &world.admin).await;
    early.say("hello?").await;
    assert_eq!(early.json().await, json!({ "error": "R58 unit not connected", "unitId": "box1" }));
    let mut unit = world.unit(&registration).await;
    let mut late = world.controller("box1", &world.admin).await;
    world.counts(1, 2).await;
    for message in [Message::text("\u{e9}t\u{e9}"), Message::binary(vec![0, 159, 255]), Message::text("")] {
        unit.say(message.clone()).await;
        assert_eq!(early.hear().await, message);
        assert_eq!(late.hear().await, message);
        late.say(message.clone()).await;
        assert_eq!(unit.hear().await, message);
    }
    drop((early, late));
    world.counts(1, 0).await;
    world.end().await;
}

#[actix_web::test]
async fn a_unit_that_comes_back_stays_when_its_old_connection_closes() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut old = world.unit(&registration).await;
    let mut controller = world.controller("box1", &world.admin).await;
    let mut new = world.unit(&registration).await;
    assert_eq!(old.end().await, Some(CloseCode::Policy));
    drop(old);
    for n in 0..3 {
        controller.say(format!("{n}")).await;
        assert_eq!(new.hear().await, Message::text(format!("{n}")));
        new.say(format!("yes {n}")).await;
        assert_eq!(controller.hear().await, Message::text(format!("yes {n}")));
    }
    world.counts(1, 1).await;
    drop(new);
    world.counts(0, 1).await;
    controller.say("hello?").await;
    assert_eq!(controller.json().await["error"], "R58 unit not connected");
    world.end().await;
}

#[actix_web::test]
async fn nobody_gets_on_a_line_without_the_right_to_it() {
    let world = World::new().await;
    let one = world.enrol(&world.admin, "box1").await;
    world.enrol(&world.admin, "box2").await;
    let (viewer, stranger) = (world.user("default", "viewer").await, world.user("other", "admin").await);
    let token = one["token"].as_str().unwrap();
    let bearer = |token: &str| format!("Bearer {token}");
    for (path, headers, status) in [
        ("/control/box1", vec![], 401),
        ("/control/box1", vec![("Authorization", bearer("nonsense"))], 401),
        ("/control/box1", vec![("Authorization", bearer(&viewer))], 403),
        ("/control/box1", vec![("Authorization", bearer(&stranger))], 404),
        ("/control/nobody", vec![("Authorization", bearer(&world.admin))], 404),
        ("/control/box1", vec![("Sec-WebSocket-Protocol", "r58-bridge, bearer.nonsense".to_owned())], 401),
        ("/unit/box1", vec![], 401),
        ("/unit/box1", vec![("Authorization", bearer(&world.admin))], 401),
        ("/unit/box1", vec![("X-Device-Id", "box1".to_owned()), ("X-Device-Token", "0".repeat(64))], 401),
        ("/unit/box2", vec![("X-Device-Id", "box1".to_owned()), ("X-Device-Token", token.to_owned())], 403),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(world.line(path, &headers).await.err(), Some(status), "{path} {headers:?}");
    }
    world.counts(0, 0).await;
    let protocols = format!("r58-bridge, bearer.{}", world.admin);
    assert!(world.line("/control/box1", &[("Sec-WebSocket-Protocol", &protocols)]).await.is_ok(), "as a page does it");
    let plain = world.http.get(world.url("/control/box1")).bearer_auth(&world.admin).send().await.unwrap();
    assert_eq!(plain.status(), 400);
    world.end().await;
}

#[actix_web::test]
async fn a_line_whose_right_has_gone_ends_and_so_does_one_that_answers_no_ping() {
    let ping_every = Duration::from_millis(100);
    let bridge = BridgePlan { ping_every, silent_after: Duration::from_millis(600), ..BridgePlan::default() };
    let world = World::with(|plan| plan.bridge = bridge).await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut unit = world.unit(&registration).await;
    let silent = world.controller("box1", &world.admin).await;
    let mut awake = world.controller("box1", &world.admin).await;
    // Whoever reads answers pings underneath; the silent one is not read from.
    unit.say("anybody?").await;
    assert_eq!(awake.hear().await, Message::text("anybody?"));
    let reader = tokio::spawn(async move { (awake.end().await, awake) });
    let at_once = json!({"overlap_seconds": 0});
    world.post("/api/v1/devices/box1/rotate-token", &world.admin, at_once).await.expect(200);
    assert_eq!(unit.end().await, Some(CloseCode::Policy), "its token is another one now");
    world.counts(0, 1).await;
    assert!(!reader.is_finished(), "whoever answers pings stays");
    reader.abort();
    drop(silent);
    world.end().await;
}

#[actix_web::test]
async fn size_rate_and_number_of_connections_are_bounded() {
    let bridge =
        BridgePlan { most_controllers: 2, frame_bytes: 1000, burst: 20, per_second: 1, ..BridgePlan::default() };
    let world = World::with(|plan| plan.bridge = bridge).await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut unit = world.unit(&registration).await;
    let mut large = world.controller("box1", &world.admin).await;
    let mut fast = world.controller("box1", &world.admin).await;
    let bearer = format!("Bearer {}", world.admin);
    assert_eq!(world.line("/control/box1", &[("Authorization", &bearer)]).await.err(), Some(503));
    large.say("x".repeat(1001)).await;
    assert_eq!(large.end().await, Some(CloseCode::Size));
    for n in 0..40 {
        // It may be out by then.
        let _ = fast.0.send(Message::text(n.to_string())).await;
    }
    assert_eq!(fast.end().await, Some(CloseCode::Policy));
    for n in 0..20 {
        assert_eq!(unit.hear().await, Message::text(n.to_string()));
    }
    world.counts(1, 0).await;
    drop(world.controller("box1", &world.admin).await);
    world.end().await;
}

#[actix_web::test]
async fn a_unit_on_the_broker_is_asked_and_commanded_by_the_same_line() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let (mut device, ring) = online(&world, &registration).await;
    let mut controller = world.controller("box1", &world.admin).await;
    let wish = json!({ "id": 7, "method": "POST", "path": "/whep/programme", "content_type": "application/sdp", "body": "v=0" });
    controller.say(wish.to_string()).await;
    serve(&mut device, &ring, |request| {
        assert_eq!((request.path.as_str(), request.body.as_str()), ("/whep/programme", "v=0"));
        let headers = vec![("Location".to_owned(), "/whep/programme/0a1b".to_owned())];
        Response { headers, body: "answer".to_owned(), ..Response::new(request.id.clone(), 201) }
    })
    .await;
    let told = controller.json().await;
    assert_eq!(
        told,
        json!({"id": 7, "status": 201, "headers": {"location": "/whep/programme/0a1b"}, "body": "answer"})
    );

    controller.say(json!({ "id": "t", "type": "take", "payload": { "scene": "quad" } }).to_string()).await;
    let told = controller.json().await;
    assert_eq!((&told["id"], &told["command"]["type"]), (&json!("t"), &json!("take")), "{told}");
    let id = CommandId::new(told["command"]["id"].as_str().unwrap()).unwrap();
    let message = device.message("the command", &Topic::down(&device.address, Down::Command(id.clone()))).await;
    assert_eq!(Command::parse(&message.payload).unwrap().by.user, "admin@r58.local");
    let cancelled = world.call(Method::POST, &format!("/api/v1/commands/{id}/cancel"), &world.admin, None).await;
    assert_eq!(cancelled.status, 200);
    while controller.json().await["command"]["cancel_requested"] != true {}

    for (wish, status) in [
        (json!({ "id": 1, "method": "POST", "path": "/whip/guest1" }), 404),
        (json!({ "id": 2, "method": "POST", "path": "/whep/../api" }), 404),
        (json!({ "id": 3, "method": "GET", "path": "/whep/programme" }), 405),
        (json!({ "id": 4, "type": "Take!", "payload": {} }), 400),
    ] {
        controller.say(wish.to_string()).await;
        let told = controller.json().await;
        assert_eq!((&told["id"], &told["status"]), (&wish["id"], &json!(status)), "{told}");
    }
    for noise in ["hello", "{}", "[1]", "{\"id\":1}"] {
        controller.say(noise).await;
        assert_eq!(controller.json().await["error"], "R58 unit not connected", "{noise}");
    }
    world.end().await;
}
