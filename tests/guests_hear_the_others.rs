//! A guest's page plays the programme without the guest's own voice; nobody else gets what is sent back to it.

use reqwest::Client;
use serde_json::{Value, json};

use super::guest_gets_in::{COLOUR, PITCH, hears, join, seat, take};
use super::support::browser::Browser;
use super::support::footage::Footage;
use super::support::r58::{Home, PATIENCE, R58};
use super::support::stage;

/// The tone of the small box's camera.
const CAMERA_PITCH: f64 = 330.0;
const PASSWORD: &str = "a password of the crew";

#[tokio::test]
async fn a_guest_hears_the_programme_on_its_page_and_a_stranger_gets_nothing() {
    let _stage = stage().await;
    let home = Home::small(
        &format!("listen = \"127.0.0.1:0\"\ncrew_password = \"{PASSWORD}\""),
        "[[device.seats]]\nid = \"guest2\"\n[device.webrtc]\nloopback = true",
    );
    let r58 = R58::start(&home, "device").await.with_crew_password(PASSWORD);
    let text = |item: &Value, key: &str| item[key].as_str().expect("text").to_owned();
    let (one, two) = (seat(&r58, "guest1").await, seat(&r58, "guest2").await);
    let (own, other) = (text(&one, "token"), text(&two, "token"));
    let (_, viewer) =
        r58.post("/api/viewer-tokens", &json!({ "label": "x", "names": ["*"], "expires_in_s": 60 })).await;
    let (_, invited) = r58.post("/api/invitations", &json!({ "seat": "guest1", "name": "Ada" })).await;
    let http = Client::new();
    let whep = async |name: &str, bearer: Option<&str>| {
        let request = http.post(format!("{}/whep/{name}", r58.device)).header("Content-Type", "application/sdp");
        let request = if let Some(token) = bearer { request.bearer_auth(token) } else { request };
        request.body("no offer").send().await.expect("an answer").status().as_u16()
    };
    let (watching, waiting) = (text(&viewer, "token"), text(&invited, "token"));
    for (name, bearer, status) in [
        ("return-guest1", None, 401),
        ("return-guest1", Some("wrong"), 401),
        ("return-guest1", Some(watching.as_str()), 401),
        ("return-guest1", Some(&other), 403),
        ("return-guest2", Some(&own), 403),
        ("return-cam1", Some(&own), 403),
        // By its invitation's id, as it joins; but the crew has not let it in.
        (&format!("return-{}", text(&invited, "id")), Some(&waiting), 403),
        // The right word gets as far as the offer.
        ("return-guest1", Some(&own), 400),
    ] {
        assert_eq!(whep(name, bearer).await, status, "{name}");
    }

    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), None).await;
    join(&guest, &one).await;
    let playing = "document.querySelector('[data-testid=return][data-up=true] video')?.videoWidth > 0";
    guest.until(PATIENCE, "the programme on the guest's page", playing, "document.body.innerText").await;
    take(&r58, "two-up").await;
    hears(&guest, CAMERA_PITCH, PITCH).await;
    guest.screenshot("guest-return").await;
    let report = |state: &Value| state["inputs"][1]["guest"].clone();
    let measured = |state: &Value| {
        let report = report(state);
        report["decoded_fps"].as_f64() > Some(5.0) && report["round_trip_ms"].is_number()
    };
    let report = report(&r58.state_until("a guest that is measured", measured).await);
    println!("{report}");
    assert_eq!(report["why"], "Pictures arrive and are decoded.");
    assert_eq!(report["path"], "host");
    assert!(r58.stop().await.success());
}
