//! SfuLink with a real HTTP server in place of the SFU and scripted seats.

use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use r58_pipelines::Mode;
use serde_json::json;

use super::client::{SecretSource, SfuApp};
use super::core::CallState;
use super::*;
use crate::fleet_link::identity::Secret;
use crate::guest::tests::offer;
use crate::state::InputKind;
use crate::studio::InputName;
use crate::supervision::testing::{LIMIT, brisk, in_a_house};
use crate::supervision::{House, HouseSettings, Slot, lock};

/// What the stand-in was asked, and which status it answers to everything; 0 for what is right.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<String>>,
    status: AtomicU16,
    body: Mutex<String>,
}

async fn sfu(script: web::Data<Script>, request: HttpRequest, body: String) -> HttpResponse {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (authorization, kind) = (header("Authorization"), header("Content-Type"));
    let path = request.path().strip_prefix("/v1/apps/app1").unwrap_or("?").to_owned();
    lock(&script.asked).push(format!("{} {path} {authorization} [{kind}] {}", request.method(), body.len()));
    let status = script.status.load(SeqCst);
    if status != 0 {
        let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap());
        return response.insert_header(("Location", "/elsewhere")).body(lock(&script.body).clone());
    }
    let track = |mid: &str, name: &str| json!({ "mid": mid, "trackName": name, "status": "active" });
    let tracks = [track("0", "audio"), track("1", "video")];
    HttpResponse::Ok().json(match path.as_str() {
        "/sessions/new" => {
            let sessions =
                lock(&script.asked).iter().filter(|line| line.contains("/new ") && line.ends_with(" 0")).count();
            json!({ "sessionId": format!("s{sessions}") })
        }
        "/sessions/s1" => json!({ "tracks": tracks }),
        "/sessions/s1/tracks/new" => {
            json!({ "tracks": tracks, "sessionDescription": { "type": "answer", "sdp": "the answer\r\n" } })
        }
        "/sessions/s2/tracks/new" => {
            json!({ "tracks": tracks, "sessionDescription": { "type": "offer", "sdp": "the offer\r\n" } })
        }
        _ => json!({}),
    })
}

/// The link, its SFU and its seats.
struct Stage {
    script: Arc<Script>,
    slot: Slot<SfuLink>,
    /// The session in the seat.
    seat: Arc<Mutex<Option<String>>>,
    given: Arc<Mutex<Vec<String>>>,
    server: actix_web::dev::ServerHandle,
}

fn stage(house: &House) -> Stage {
    let script = Arc::new(Script::default());
    let data = web::Data::from(script.clone());
    let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(sfu)))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let base_url = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);

    let name = InputName { id: "guest1".into(), label: "GUEST1".into(), kind: InputKind::Guest };
    let studio = Studio::set_up(&Mode::new(64, 64, 30), vec![name]).unwrap();
    let (seat, given) = (Arc::<Mutex<Option<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
    let (taken, offered) = (seat.clone(), given.clone());
    let admit = Door::from_fn(move |AdmitPulled(order): AdmitPulled| {
        lock(&offered).push(format!("{} {:?} {}", order.seat, order.bearer, order.offer));
        *lock(&taken) = Some("seat-session".into());
        Ok(Admission { session: "seat-session".into(), tag: "t".into(), answer: "our answer\r\n".into() })
    });
    let left = seat.clone();
    let end = Door::from_fn(move |order: DropGuest| {
        assert_eq!((order.seat.as_str(), order.bearer.as_deref()), ("invitation1", Some("one")));
        lock(&left).take().map(|_| ()).ok_or(GuestError::NoToken)
    });
    let sits = seat.clone();
    let seats = Door::from_fn(move |_: GetSeats| {
        let session = lock(&sits).clone();
        let state = if session.is_some() { SeatState::Live } else { SeatState::Free };
        vec![SeatReport { id: "guest1".into(), state, session, ..SeatReport::default() }]
    });
    let app = SfuApp { base_url, app_id: Secret::new("app1"), secret: SecretSource::Given(Secret::new("the-secret")) };
    let settings = SfuSettings { client: SfuClient::new(app).unwrap(), admit, end, seats, studio: studio.clone() };
    let slot = house.engage(brisk("sfu", "sfu"), move |life| SfuLink::new(life, settings.clone()));
    Stage { script, slot, seat, given, server: handle }
}

impl Stage {
    async fn publish(&self) -> Result<Published, SfuError> {
        let order = PublishBySfu {
            seat: "guest1".into(),
            name: "invitation1".into(),
            bearer: Some("one".into()),
            offer: offer("sendonly"),
        };
        self.slot.door().send_within(order, LIMIT).await.unwrap()
    }

    async fn until(&self, state: CallState) -> CallReport {
        let end = Instant::now() + LIMIT;
        loop {
            let calls = self.slot.door().send(GetCalls(Some("guest1".into()))).await.unwrap();
            if let Some(call) = calls.first().filter(|call| call.state == state) {
                return call.clone();
            }
            assert!(Instant::now() < end, "never {state:?}: {calls:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn asked(&self) -> Vec<String> {
        lock(&self.script.asked).clone()
    }
}

#[test]
fn a_guest_is_published_pulled_seated_and_closed_with_the_secret_in_the_header_alone() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let published = stage.publish().await.unwrap();
        assert_eq!(published.answer, "the answer\r\n");
        let call = stage.until(CallState::Joined).await;
        assert_eq!(call.session, published.session);
        assert_eq!(*lock(&stage.given), ["invitation1 Some(\"one\") the offer\r\n"]);
        assert!(matches!(stage.publish().await, Err(SfuError::Call(CallError::Taken))));

        let end = |session: Option<&str>| EndCall { seat: "guest1".into(), session: session.map(str::to_owned) };
        assert_eq!(stage.slot.door().send(end(Some("another"))).await.unwrap(), Err(CallError::Unknown));
        stage.slot.door().send(end(None)).await.unwrap().unwrap();
        stage.until(CallState::Ended).await;
        assert_eq!(*lock(&stage.seat), None);
        let asked = stage.asked();
        assert!(asked.iter().all(|line| line.contains(" Bearer the-secret ")), "{asked:?}");
        // Not a byte, and no type of one.
        assert_eq!(asked[0], "POST /sessions/new Bearer the-secret [] 0");
        let closed: Vec<&str> = asked.iter().filter(|line| line.contains("/close")).map(|line| &line[..16]).collect();
        assert_eq!(closed, ["PUT /sessions/s2", "PUT /sessions/s1"]);
        stage.server.stop(false).await;
    });
}

#[test]
fn a_guest_that_the_crew_removes_is_closed_at_the_sfu_too() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.publish().await.unwrap();
        stage.until(CallState::Joined).await;
        *lock(&stage.seat) = None;
        stage.until(CallState::Ended).await;
        assert_eq!(stage.asked().iter().filter(|line| line.contains("/close")).count(), 2);
        stage.server.stop(false).await;
    });
}

#[test]
fn what_the_sfu_does_wrong_is_told_in_one_sentence_and_no_redirect_is_followed() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        for (status, body, expected) in [
            (401, "{}", "the SFU does not accept this box's app id or secret (status 401)"),
            (302, "", "the SFU refused a session: status 302"),
            (200, "<html>", "the SFU's answer cannot be used: it is not JSON of its API"),
            (200, "{\"sessionId\":\"../../x\"}", "the SFU's answer cannot be used: a new session has no proper id"),
            (400, "{\"errorCode\":\"odd\"}", "the SFU refused a session: odd"),
        ] {
            stage.script.status.store(status, SeqCst);
            *lock(&stage.script.body) = body.into();
            let refusal = stage.publish().await.unwrap_err();
            assert_eq!((refusal.to_string().as_str(), refusal.status()), (expected, 502));
        }
        stage.script.status.store(200, SeqCst);
        *lock(&stage.script.body) = "x".repeat(300 * 1024);
        assert!(stage.publish().await.unwrap_err().to_string().contains("longer than 256 KiB"));
        assert!(stage.asked().iter().all(|line| !line.contains("elsewhere") && !line.starts_with("POST ?")));

        stage.server.stop(false).await;
    });
}

#[test]
fn an_sfu_that_is_not_there_is_tried_for_some_seconds_and_then_said_to_be_out_of_reach() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.server.stop(false).await;
        let refusal = stage.publish().await.unwrap_err();
        assert_eq!((refusal.to_string().as_str(), refusal.status()), ("the SFU cannot be reached", 503));
        assert!(refusal.retry_after().is_some());
        stage.until(CallState::Ended).await;
    });
}

#[test]
fn an_offer_that_no_seat_would_take_never_reaches_the_sfu() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let order =
            PublishBySfu { seat: "guest1".into(), name: "guest1".into(), bearer: None, offer: offer("recvonly") };
        let refusal = stage.slot.door().send_within(order, LIMIT).await.unwrap().unwrap_err();
        assert_eq!(refusal.status(), 422);
        assert!(stage.asked().is_empty());
        stage.server.stop(false).await;
    });
}
