//! Guests of a box through the server: operators invite, whoever holds a link is carried to the box, and strangers learn nothing.

use r58_mqtt::payload::Response;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::whep::{online, serve};
use crate::world::World;

const ID: &str = "0123456789abcdef";
const TOKEN: &str = "00112233445566778899aabbccddeeff";

fn answer(id: r58_mqtt::Name, status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Response { headers, body: body.to_owned(), ..Response::new(id, status) }
}

#[actix_web::test]
async fn an_operator_invites_by_a_signed_request_and_gets_a_link_to_this_server() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let (mut device, ring) = online(&world, &registration).await;
    let (operator, viewer) = (world.user("default", "operator").await, world.user("default", "viewer").await);
    let stranger = world.user("other", "admin").await;
    let body = json!({ "seat": "guest1", "name": "Ada", "uses": "single" });
    let path = "/api/v1/devices/box1/invitations";
    for (token, status) in [(&viewer, 403u16), (&stranger, 404)] {
        world.post(path, token, body.clone()).await.expect(status);
    }
    let request = world.http.post(world.url(path)).bearer_auth(&operator).json(&body).send();
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/api/invitations"));
        let asked: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!((&asked["name"], &asked["seat"]), (&json!("Ada"), &json!("guest1")));
        assert!(asked["created_by"].as_str().unwrap().contains('@'), "{asked}");
        let made = json!({ "id": ID, "token": TOKEN, "join_url": "http://box/join/x", "fleet_join_url": null });
        answer(request.id.clone(), 201, &[("Content-Type", "application/json")], &made.to_string())
    });
    let (made, ()) = tokio::join!(request, served);
    let made = made.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["join_url"], json!(format!("{}#{TOKEN}", world.url(&format!("/join/{ID}.box1")))));
    world.end().await;
}

#[actix_web::test]
async fn a_guest_with_a_link_is_carried_to_the_box_which_judges_its_token() {
    let world = World::new().await;
    let registration = world.enrol(&world.admin, "box1").await;
    let (mut device, ring) = online(&world, &registration).await;
    let whip = format!("/whip/{ID}.box1");
    let made = world.signal(Method::POST, &whip, TOKEN, "v=0\r\n");
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.clone()), ("POST", format!("/whip/{ID}")));
        assert_eq!(request.authorization.as_deref(), Some(format!("Bearer {TOKEN}").as_str()));
        let place = format!("/whip/{ID}/0a1b");
        let headers = [("Location", place.as_str()), ("Link", "<turn:t.example>; rel=\"ice-server\"")];
        answer(request.id.clone(), 201, &headers, "answer")
    });
    let (made, ()) = tokio::join!(made, served);
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.headers()["location"], format!("{whip}/0a1b").as_str());
    assert!(made.headers().contains_key("link"));
    // The same by the SFU, under its own path.
    let call = format!("/api/calls/whip/{ID}.box1");
    let made = world.signal(Method::POST, &call, TOKEN, "v=0\r\n");
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.clone()), ("POST", format!("/api/calls/whip/{ID}")));
        answer(request.id.clone(), 201, &[("Location", &format!("/api/calls/whip/{ID}/0a1b"))], "answer")
    });
    assert_eq!(tokio::join!(made, served).0.headers()["location"], format!("{call}/0a1b").as_str());
    let ended = format!("{call}/0a1b");
    let ended = world.signal(Method::DELETE, &ended, TOKEN, "");
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.clone()), ("DELETE", format!("/api/calls/whip/{ID}/0a1b")));
        answer(request.id.clone(), 200, &[], "")
    });
    assert_eq!(tokio::join!(ended, served).0.status(), StatusCode::OK);
    // And what the guest is sent back.
    let back = format!("/whep/return-{ID}.box1");
    let made = world.signal(Method::POST, &back, TOKEN, "v=0\r\n");
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.clone()), ("POST", format!("/whep/return-{ID}")));
        assert!(request.authorization.is_some());
        answer(request.id.clone(), 201, &[("Location", &format!("/whep/return-{ID}/0a1b"))], "answer")
    });
    assert_eq!(tokio::join!(made, served).0.headers()["location"], format!("{back}/0a1b").as_str());
    let state = format!("/guest/{ID}.box1");
    let asked = world.signal(Method::GET, &state, TOKEN, "");
    let served = serve(&mut device, &ring, |request| {
        assert_eq!((request.method.as_str(), request.path.clone()), ("GET", format!("/guest/{ID}")));
        answer(request.id.clone(), 403, &[("Content-Type", "application/problem+json")], "{}")
    });
    assert_eq!(tokio::join!(asked, served).0.status(), StatusCode::FORBIDDEN);
    world.end().await;
}

#[actix_web::test]
async fn strangers_do_not_learn_which_boxes_there_are_and_whoever_guesses_has_to_wait() {
    let world = World::new().await;
    world.enrol(&world.admin, "away").await;
    let mut said = Vec::new();
    for device in ["away", "nobody"] {
        let answer = world.signal(Method::POST, &format!("/whip/{ID}.{device}"), TOKEN, "v=0\r\n").await;
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        said.push((answer.status(), answer.text().await.unwrap()));
    }
    assert_eq!(said[0].0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(said[0], said[1]);
    for (method, path, token, status) in [
        (Method::POST, format!("/whip/{ID}.away"), "", 401),
        (Method::POST, format!("/whip/{ID}.away"), "guess", 401),
        (Method::POST, "/whip/guest1.away".to_owned(), TOKEN, 404),
        (Method::POST, format!("/whip/{ID}"), TOKEN, 404),
        (Method::DELETE, format!("/whip/{ID}.away/a%2fb"), TOKEN, 404),
        (Method::PUT, format!("/whip/{ID}.away"), TOKEN, 405),
        (Method::POST, format!("/guest/{ID}.away"), TOKEN, 405),
    ] {
        let answer = world.signal(method, &path, token, "").await;
        assert_eq!(answer.status(), status, "{path}");
    }
    let mut last = StatusCode::UNAUTHORIZED;
    for _ in 0..12 {
        last = world.signal(Method::POST, "/whip/fedcba9876543210.away", "guess", "").await.status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    world.end().await;
}
