//! What a box shows, watched through the fleet server: the exchange is carried over the broker, signed, to whom it may.

use r58_mqtt::payload::{ConnectionOrder, Payload, Presence, Request, Response};
use r58_mqtt::session::{Outgoing, Properties};
use r58_mqtt::sign::{KeyRing, PublicKey};
use r58_mqtt::{Down, Topic, Up};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::live::Device;
use crate::world::World;

/// A box that is online, and the keys it trusts.
pub async fn online(world: &World, registration: &Value) -> (Device, KeyRing) {
    let device = Device::connect(registration).await;
    let order = ConnectionOrder { boot_seq: 1, conn_seq: 1 };
    device.say(Up::Presence, true, Presence::online(order).to_bytes().unwrap()).await;
    let keys: Vec<PublicKey> = serde_json::from_value(registration["command_keys"].clone()).unwrap();
    let id = registration["device_id"].as_str().unwrap();
    while world.get(&format!("/api/v1/devices/{id}"), &world.admin).await.expect(200).body["online"] != true {
        tokio::task::yield_now().await;
    }
    (device, KeyRing::new(&keys).unwrap())
}

/// Takes the next request and answers it.
pub async fn serve(device: &mut Device, ring: &KeyRing, answer: impl FnOnce(&Request) -> Response) {
    let topic = Topic::down(&device.address, Down::Request);
    let message = device.message("a request", &topic).await;
    let request = ring.verify_request(&device.address, &message.payload).unwrap();
    let back = message.properties.response_topic.unwrap();
    let properties = Properties { correlation: message.properties.correlation, ..Properties::json() };
    let answer = answer(&request).to_bytes().unwrap();
    device.session.publish(Outgoing { properties, ..Outgoing::json(back, answer) }).await.unwrap();
}

impl World {
    pub(crate) async fn signal(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &'static str,
    ) -> reqwest::Response {
        let request = self.http.request(method, self.url(path)).header("Content-Type", "application/sdp");
        request.bearer_auth(token).body(body).send().await.unwrap()
    }
}

#[actix_web::test]
async fn a_session_is_made_and_ended_through_the_server_and_its_pass_goes_no_further() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let (mut device, ring) = online(&world, &registration).await;
    let viewer = world.user("default", "viewer").await;
    let made = world.signal(Method::POST, "/whep/box1/programme", &viewer, "v=0\r\n");
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/whep/programme"));
        assert_eq!((request.body.as_str(), request.content_type.as_deref()), ("v=0\r\n", Some("application/sdp")));
        assert_eq!(request.authorization, None);
        let headers = [("Location", "/whep/programme/0a1b"), ("Content-Type", "application/sdp"), ("ETag", "\"x\"")];
        let headers = headers.into_iter().chain([("Set-Cookie", "evil=1")]);
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Response { headers, body: "answer".to_owned(), ..Response::new(request.id.clone(), 201) }
    });
    let (made, ()) = tokio::join!(made, served);
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.headers()["location"], "/whep/box1/programme/0a1b");
    assert_eq!(made.headers()["etag"], "\"x\"");
    assert!(!made.headers().contains_key("set-cookie"));
    assert_eq!(made.text().await.unwrap(), "answer");
    let ended = world.signal(Method::DELETE, "/whep/box1/programme/0a1b", &viewer, "");
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("DELETE", "/whep/programme/0a1b"));
        Response::new(request.id.clone(), 200)
    });
    assert_eq!(tokio::join!(ended, served).0.status(), StatusCode::OK);
    world.end().await;
}

#[actix_web::test]
async fn nobody_watches_a_box_of_another_organization_or_one_that_is_away() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    world.enrol(&world.admin, "away").await;
    let (device, _) = online(&world, &registration).await;
    let stranger = world.user("other", "admin").await;
    for (path, token, status) in [
        ("/whep/box1/programme", "", 401),
        ("/whep/box1/programme", "nonsense", 401),
        ("/whep/box1/programme", stranger.as_str(), 404),
        ("/whep/box1/programme/0a1b", stranger.as_str(), 405),
        ("/whep/nobody/programme", world.admin.as_str(), 404),
        ("/whep/box1/..%2fapi", world.admin.as_str(), 404),
        ("/whep/away/programme", world.admin.as_str(), 503),
    ] {
        let answer = world.signal(Method::POST, path, token, "v=0\r\n").await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    }
    let answer = world.signal(Method::DELETE, "/whep/box1/programme/0a1b", &stranger, "").await;
    assert_eq!(answer.status(), 404);
    drop(device);
    world.end().await;
}

#[actix_web::test]
async fn a_box_that_goes_in_the_middle_is_a_clear_error_at_once() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let (mut device, ring) = online(&world, &registration).await;
    let asked = world.signal(Method::POST, "/whep/box1/programme", &world.admin, "v=0\r\n");
    let goes = async {
        let topic = Topic::down(&device.address, Down::Request);
        let message = device.message("a request", &topic).await;
        ring.verify_request(&device.address, &message.payload).unwrap();
        let order = ConnectionOrder { boot_seq: 1, conn_seq: 1 };
        device.say(Up::Presence, true, Presence::offline(order, "stopped").to_bytes().unwrap()).await;
    };
    let (answer, ()) = tokio::join!(asked, goes);
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], json!("the device is not connected"));
    world.end().await;
}

#[actix_web::test]
async fn an_answer_that_never_comes_is_a_clear_error_and_one_that_comes_too_late_finds_nobody() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let (mut device, ring) = online(&world, &registration).await;
    let caller = || {
        let found = world.handle.actors().into_iter().find(|actor| actor.name == "caller");
        found.and_then(|actor| actor.detail).unwrap_or_default()
    };
    let asked = world.signal(Method::POST, "/whep/box1/programme", &world.admin, "v=0\r\n");
    let silent = async {
        let topic = Topic::down(&device.address, Down::Request);
        let message = device.message("a request", &topic).await;
        assert!(caller().ends_with("1 wait for an answer"), "{}", caller());
        message
    };
    let (answer, message) = tokio::join!(asked, silent);
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], json!("the device did not answer in time"));
    assert!(!caller().contains("wait"), "{}", caller());
    // Too late, and for nobody.
    let request = ring.verify_request(&device.address, &message.payload).unwrap();
    let late = Response::new(request.id, 201).to_bytes().unwrap();
    device.session.publish(Outgoing::json(message.properties.response_topic.unwrap(), late)).await.unwrap();
    // The next exchange is none the worse for it.
    let ended = world.signal(Method::DELETE, "/whep/box1/programme/0a1b", &world.admin, "");
    let served = serve(&mut device, &ring, |request| Response::new(request.id.clone(), 404));
    assert_eq!(tokio::join!(ended, served).0.status(), StatusCode::NOT_FOUND);
    world.end().await;
}
