//! A guest with nothing but a browser and a link is seen and heard in the programme, from wherever it sits; whoever goes away
//! gives the seat back; whoever cannot get in is told why.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::browser::{Browser, Capture};
use super::support::footage::Footage;
use super::support::jpeg::Picture;
use super::support::namespace::is_root_or_ran_as_root;
use super::support::nat::{BOX_URL, Internet, TURN_URL, TURNS_URL};
use super::support::paper::Paper;
use super::support::r58::{EPHEMERAL, Home, PATIENCE, R58, binary};
use super::support::{stage, until};

/// No camera of the demo has a picture of this colour.
pub(super) const COLOUR: [u8; 3] = [200, 40, 160];
/// No camera of the demo has this pitch (Hz), and none is a part of it.
pub(super) const PITCH: f64 = 1000.0;
/// The pitch of the demo's first camera, in Hz.
const CAMERA_PITCH: f64 = 330.0;
/// After this long without a picture a seat is free, whatever became of its guest; and some for the poll.
const SEAT_IS_LOST: Duration = Duration::from_secs(32);

pub(super) const PASSWORD: &str = "the crew's own word";
pub(super) const TURN_SECRET: &str = "north-sea-herring";

fn small_and_near() -> Home {
    Home::small("listen = \"127.0.0.1:0\"", "[device.webrtc]\nloopback = true")
}

#[tokio::test]
async fn a_guest_is_seen_and_heard_in_the_programme_and_its_closed_tab_frees_the_seat() {
    let _stage = stage().await;
    let home = Home::new(EPHEMERAL);
    let demo = R58::start(&home, "demo").await;
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), None).await;
    let crew = Browser::start(&Capture::Pattern, None).await;

    take(&demo, "full-cam1").await;
    crew.open(&format!("{}/", demo.device)).await;
    crew.until(
        PATIENCE,
        "the programme by WHEP",
        "document.querySelector('[data-testid=programme][data-live=webrtc]')",
        "document.body.innerText",
    )
    .await;
    hears(&crew, CAMERA_PITCH, PITCH).await;

    join(&guest, &seat(&demo, "guest1").await).await;
    guest.screenshot("guest-live").await;
    crew.until(
        PATIENCE,
        "the seat on the crew's page",
        "document.querySelector('[data-testid=seat-guest1][data-state=live]')",
        "document.body.innerText",
    )
    .await;
    assert!(!is_the_guest(on_air(&demo).await), "the guest is not on air yet");

    take(&demo, "full-guest1").await;
    shows(&demo).await;
    until(PATIENCE, "the guest's colour in the programme by WHEP", || async {
        let colour = seen(&crew).await;
        if is_the_guest(colour) { Ok(()) } else { Err(colour) }
    })
    .await;
    hears(&crew, PITCH, CAMERA_PITCH).await;
    guest
        .until(PATIENCE, "the guest is told", "document.body.dataset.tally === 'programme'", "document.body.innerText")
        .await;
    guest.screenshot("guest-on-air").await;
    crew.screenshot("multiview").await;

    take(&demo, "full-cam1").await;
    hears(&crew, CAMERA_PITCH, PITCH).await;

    let before = seat(&demo, "guest1").await;
    guest.close_tab().await;
    // At once: it would be silent first if nobody had said goodbye.
    until(PATIENCE, "a free seat", || async {
        let seat = seat(&demo, "guest1").await;
        assert_ne!(seat["state"], "silent", "the box was not told that the tab is closed: {}", demo.process.output());
        if seat["state"] == "free" { Ok(()) } else { Err((before.clone(), seat)) }
    })
    .await;
    assert!(demo.stop().await.success());
}

#[tokio::test]
async fn a_crashed_guest_is_followed_by_another_and_no_seat_is_lost_for_good() {
    let stage = stage().await;
    let home = small_and_near();
    let r58 = R58::start(&home, "device").await;
    let footage = Footage::new(COLOUR, PITCH);
    let (first, second) =
        (Browser::start(&footage.capture(), None).await, Browser::start(&footage.capture(), None).await);
    let link = seat(&r58, "guest1").await;
    join(&first, &link).await;
    let session = seat(&r58, "guest1").await["session"].clone();

    // A link with a wrong token opens nothing.
    let url = link["join_url"].as_str().expect("a link");
    let token = link["token"].as_str().expect("a token");
    second.open(&url.replace(token, "0123456789abcdef0123456789abcdef")).await;
    fails(&second, "bad-link").await;

    // The right one finds the seat taken while its guest is seen.
    second.open(url).await;
    press_join(&second).await;
    fails(&second, "seat-taken").await;
    second.screenshot("guest-seat-taken").await;
    let (status, retry_after) = offer(&second, token).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(retry_after > 0.0, "Retry-After: {retry_after}");
    assert_eq!(seat(&r58, "guest1").await["session"], session, "the first guest keeps its seat");

    first.kill();
    reaches(&r58, "silent", PATIENCE).await;
    second.click("rejoin").await;
    is_live(&second).await;
    let taken = reaches(&r58, "live", PATIENCE).await;
    assert_ne!(taken["session"], session, "the seat is the second guest's");

    second.kill();
    // What is left is waiting: others may have the machine.
    drop(stage);
    reaches(&r58, "free", SEAT_IS_LOST).await;
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn a_guest_that_refuses_its_camera_is_told_what_to_do() {
    let _stage = stage().await;
    let home = small_and_near();
    let r58 = R58::start(&home, "device").await;
    let guest = Browser::start(&Capture::Refused, None).await;
    let link = seat(&r58, "guest1").await;
    guest.open(link["join_url"].as_str().expect("a link")).await;
    fails(&guest, "camera-refused").await;
    guest.screenshot("guest-camera-refused").await;
    guest.open(&format!("{}/guest_join?seat=guest1", r58.device)).await;
    fails(&guest, "bad-link").await;
    assert!(r58.stop().await.success());
}

#[test]
fn behind_two_translating_routers_the_guest_gets_in_by_turn_on_both_ends_and_is_told_when_the_box_has_none() {
    let here = concat!(
        module_path!(),
        "::behind_two_translating_routers_the_guest_gets_in_by_turn_on_both_ends_and_is_told_when_the_box_has_none"
    );
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::new();
        // Whoever looks at the box does so from the guest's side, through the same forwarded port.
        internet.guest.run(a_guest_far_away(&internet));
    }
}

#[test]
fn in_a_venue_that_lets_no_udp_out_the_guest_gets_in_by_turn_over_tls_be_it_the_boxes_venue_or_its_own() {
    let here = concat!(
        module_path!(),
        "::in_a_venue_that_lets_no_udp_out_the_guest_gets_in_by_turn_over_tls_be_it_the_boxes_venue_or_its_own"
    );
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::new();
        internet.guest.run(a_guest_of_a_walled_box(&internet));
    }
}

async fn a_guest_of_a_walled_box(internet: &Internet) {
    let _stage = stage().await;
    internet.block_udp_of_box();
    let home = far_away(&format!("shared_urls = [\"{TURN_URL}\", \"{TURNS_URL}\"]\nca_file = \"turn-ca.pem\""));
    let paper = Paper::of("203.0.113.1");
    std::fs::write(home.path().join("turn-ca.pem"), &paper.authority).expect("write the authority");
    let _turn = internet.turn_server_with_tls(TURN_SECRET, &home.path(), &paper).await;
    let r58 = start_in(internet, &home).await;
    let state = r58.state_until("the road by TLS", |state| state["turn"]["roads"][0]["road"] == "tls").await;
    assert_eq!(state["turn"]["roads"][0]["udp"], "silent", "{state}");
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start_trusting(&footage.capture(), Some(BOX_URL), Some(&paper.pin)).await;

    // The guest by UDP, the box by its forwarder.
    let link = seat(&r58, "guest1").await;
    guest.open(link["join_url"].as_str().expect("a link")).await;
    press_join(&guest).await;
    let pressed = Instant::now();
    is_live(&guest).await;
    println!("guest by UDP, box by TLS: live after {:?}", pressed.elapsed());
    assert_eq!(reaches(&r58, "live", PATIENCE).await["path"], "relay");
    take(&r58, "full-guest1").await;
    shows(&r58).await;
    let right = |road: &Value| road["connections"] != 0 && road["bytes_down"].as_u64() > Some(10_000);
    let state = r58.state_until("what it carried", |state| right(&state["turn"]["roads"][0])).await;
    let road = &state["turn"]["roads"][0];
    println!("the road: {road}");
    assert_eq!((&road["via"], &road["last_error"]), (&json!(TURNS_URL), &Value::Null));
    let actors = r58.json("/api/actors").await.to_string();
    assert!(actors.contains(&format!("203.0.113.1: UDP silent, {TURNS_URL} for")), "{actors}");
    guest.click("leave").await;
    reaches(&r58, "free", PATIENCE).await;
    take(&r58, "full-cam1").await;

    // Both by TLS.
    internet.block_udp_of_guest();
    guest.click("join").await;
    let pressed = Instant::now();
    is_live(&guest).await;
    println!("both by TLS: live after {:?}", pressed.elapsed());
    assert_eq!(reaches(&r58, "live", PATIENCE).await["path"], "relay");
    take(&r58, "full-guest1").await;
    shows(&r58).await;
    assert!(r58.stop().await.success());
}

/// A box that is found at [`BOX_URL`]; `turn` is the rest of its `[device.turn]`.
pub(super) fn far_away(turn: &str) -> Home {
    let home = Home::small(
        &format!("listen = \"0.0.0.0:8000\"\ncrew_password = \"{PASSWORD}\"\npublic_url = \"{BOX_URL}\""),
        &format!("[device.turn]\nshared_secret_file = \"turn-secret\"\n{turn}"),
    );
    std::fs::write(home.path().join("turn-secret"), TURN_SECRET).expect("write the secret");
    home
}

pub(super) async fn start_in(internet: &Internet, home: &Home) -> R58 {
    let mut command = internet.device.command(&binary().display().to_string());
    command
        .arg("device")
        .arg("--config")
        .arg(home.config())
        .env("R58_STATE_DIR", home.state())
        .current_dir(home.path());
    R58::spawn("device", &mut command).await.with_crew_password(PASSWORD)
}

async fn a_guest_far_away(internet: &Internet) {
    let stage = stage().await;
    let home = far_away(&format!("shared_urls = [\"{TURN_URL}\"]"));
    let _turn = internet.turn_server(TURN_SECRET, &home.path()).await;
    let r58 = start_in(internet, &home).await;
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), Some(BOX_URL)).await;

    // The page tries its relay before its guest joins.
    guest.open(seat(&r58, "guest1").await["join_url"].as_str().expect("a link")).await;
    let through =
        "document.querySelector('[data-testid=check-network][data-mood=good]')?.innerText.includes('find their way')";
    guest.until(PATIENCE, "a word through the relay", through, "document.body.innerText").await;
    guest.screenshot("guest-preflight-relay").await;
    press_join(&guest).await;
    is_live(&guest).await;
    assert_eq!(reaches(&r58, "live", PATIENCE).await["path"], "relay");
    take(&r58, "full-guest1").await;
    shows(&r58).await;
    guest.click("leave").await;
    reaches(&r58, "free", PATIENCE).await;

    internet.cut_box_from_turn();
    guest.click("join").await;
    drop(stage);
    fails(&guest, "no-route").await;
    guest.screenshot("guest-no-route").await;
    assert!(guest.script("return document.body.innerText").await.to_string().contains("No route to the box"));
    assert!(r58.stop().await.success());
}

/// One seat as the crew sees it.
pub(super) async fn seat(r58: &R58, id: &str) -> Value {
    let seats = r58.json("/api/seats").await;
    seats["items"].as_array().into_iter().flatten().find(|seat| seat["id"] == id).cloned().expect("the seat")
}

pub(super) async fn reaches(r58: &R58, state: &str, within: Duration) -> Value {
    until(within, &format!("a {state} seat"), || async {
        let seat = seat(r58, "guest1").await;
        if seat["state"] == state { Ok(seat) } else { Err(seat) }
    })
    .await
}

pub(super) async fn join(guest: &Browser, link: &Value) {
    guest.open(link["join_url"].as_str().expect("a link")).await;
    press_join(guest).await;
    is_live(guest).await;
}

pub(super) async fn press_join(guest: &Browser) {
    guest
        .until(PATIENCE, "camera and microphone", "document.body.dataset.state === 'ready'", "document.body.innerText")
        .await;
    guest.screenshot("guest-ready").await;
    guest.click("join").await;
}

pub(super) async fn is_live(guest: &Browser) {
    guest.until(PATIENCE, "a live guest", "document.body.dataset.state === 'live'", "document.body.innerText").await;
}

pub(super) async fn fails(guest: &Browser, reason: &str) {
    let expression = format!("document.body.dataset.state === 'failed' && document.body.dataset.reason === '{reason}'");
    guest.until(PATIENCE, reason, &expression, "[document.body.dataset.reason, document.body.innerText]").await;
}

/// Offers to publish once more from within the page; answers the status and Retry-After in seconds (0 if there is none).
async fn offer(guest: &Browser, token: &str) -> (StatusCode, f64) {
    let script = "const done = arguments[0];
        const peer = new RTCPeerConnection();
        peer.addTransceiver('video', { direction: 'sendonly' });
        peer.createOffer().then((offer) => fetch('/whip/guest1', {
            method: 'POST',
            headers: { authorization: 'Bearer TOKEN', 'content-type': 'application/sdp' },
            body: offer.sdp,
        })).then((answer) => done([answer.status, Number(answer.headers.get('retry-after'))]), (error) => done([0, String(error)]));";
    let answer = guest.script_async(&script.replace("TOKEN", token)).await;
    let status = answer[0].as_u64().and_then(|status| StatusCode::from_u16(status as u16).ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer}")), answer[1].as_f64().unwrap_or_default())
}

pub(super) async fn take(r58: &R58, scene: &str) {
    r58.state_until("a programme on air", |state| state["programme"]["frames"].as_u64() > Some(0)).await;
    let (status, answer) = r58.post("/api/mixer/take", &json!({ "scene": scene, "kind": "cut" })).await;
    assert!(status.is_success(), "{status}: {answer}");
    assert_eq!(answer["pgm"], scene);
}

/// Whether this is the guest's colour; a wrong colour matrix on the way would be further off.
pub(super) fn is_the_guest(colour: [f64; 3]) -> bool {
    colour.iter().zip(COLOUR).all(|(seen, sent)| (seen - f64::from(sent)).abs() < 20.0)
}

/// Mean colour of the programme's thumbnail, but for its edge.
pub(super) async fn on_air(r58: &R58) -> [f64; 3] {
    let jpeg = r58.get("/api/thumbnails/programme").await.bytes().await.expect("a thumbnail");
    Picture::decode(&jpeg).mean(0.1, 0.1, 0.8, 0.8)
}

/// Waits until the programme's thumbnail is all of the guest's colour.
pub(super) async fn shows(r58: &R58) {
    until(PATIENCE, "the guest's colour in the programme's thumbnail", || async {
        let colour = on_air(r58).await;
        if is_the_guest(colour) { Ok(()) } else { Err(colour) }
    })
    .await;
}

/// Mean colour of the programme as the page's video element shows it, but for its edge; black while there is none.
async fn seen(crew: &Browser) -> [f64; 3] {
    let script = "const video = document.querySelector('[data-testid=programme-video]');
        if (!video || video.readyState < 2) return [0, 0, 0];
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [80, 45];
        const drawing = canvas.getContext('2d');
        drawing.drawImage(video, 0, 0, 80, 45);
        const pixels = drawing.getImageData(8, 4, 64, 36).data;
        const sum = [0, 0, 0];
        for (let at = 0; at < pixels.length; at += 4) for (let c = 0; c < 3; c++) sum[c] += pixels[at + c];
        return sum.map((total) => total / (pixels.length / 4));";
    serde_json::from_value(crew.script(script).await).expect("a colour")
}

/// Waits until the loudest pitch of the programme is `wanted`, and `other` is not heard beside it (both in Hz).
pub(super) async fn hears(crew: &Browser, wanted: f64, other: f64) {
    let script = "const video = document.querySelector('[data-testid=programme-video], [data-testid=return] video');
        const [track] = video?.srcObject?.getAudioTracks() ?? [];
        if (!track) return null;
        if (window.ear?.track !== track) {
            const context = window.ear?.context ?? new AudioContext();
            const analyser = context.createAnalyser();
            analyser.fftSize = 8192;
            analyser.smoothingTimeConstant = 0;
            context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
            window.ear = { track, context, analyser };
        }
        const { context, analyser } = window.ear;
        const width = context.sampleRate / analyser.fftSize;
        const levels = new Float32Array(analyser.frequencyBinCount);
        analyser.getFloatFrequencyData(levels);
        const at = (hertz) => Math.max(...levels.slice(Math.floor(hertz / width) - 2, Math.ceil(hertz / width) + 3), -200);
        let loudest = Math.ceil(50 / width);
        levels.forEach((level, bin) => { if (bin * width > 50 && level > levels[loudest]) loudest = bin; });
        return { pitch: loudest * width, level: at(loudest * width), other: at(OTHER), context: context.state };"
        .replace("OTHER", &other.to_string());
    until(PATIENCE, &format!("{wanted} Hz and not {other} Hz in the programme"), || async {
        let heard = crew.script(&script).await;
        let number = |name: &str| heard[name].as_f64().unwrap_or(-200.0);
        let right = (number("pitch") - wanted).abs() < 20.0
            && number("level") > -60.0
            && number("other") < number("level") - 20.0;
        if right { Ok(()) } else { Err(heard) }
    })
    .await;
}
