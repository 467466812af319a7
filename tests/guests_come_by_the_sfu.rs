//! A guest whom no road leads straight to the box comes by the SFU: seen in the programme, gone without a trace, and told in a
//! sentence when it does not work. The SFU is a stand-in with the real one's API and traps, and forwards real media.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::guest_gets_in::{COLOUR, PITCH, is_live, press_join, reaches, shows, take};
use super::support::browser::Browser;
use super::support::footage::Footage;
use super::support::namespace::is_root_or_ran_as_root;
use super::support::nat::{BOX_URL, Internet};
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::sfu::{APP_ID, Call, Fault, SECRET, Sfu};
use super::support::{sdp, stage, until};

const CREW: &str = "the crew's own word";
const TOKEN: &str = "the-token-of-these-tests";

/// A box that knows an SFU at this address, with this secret.
fn home(url: &str, secret: &str) -> Home {
    let more = format!(
        r#"token = "{TOKEN}"
        [device.webrtc]
        loopback = true
        [device.sfu]
        app_id = "{APP_ID}"
        secret_file = "sfu-secret"
        base_url = "{url}""#
    );
    let home = Home::small("listen = \"127.0.0.1:0\"", &more);
    std::fs::write(home.path().join("sfu-secret"), format!("{secret}\n")).expect("write the secret");
    home
}

/// A guest of nothing but a browser's own objects: POST, answer, connected. Keeps what it needs to leave.
const PUBLISH: &str = r#"
    const [endpoint, token, done] = arguments;
    (async () => {
        const media = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 360 }, audio: true });
        const peer = (window.peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" }));
        for (const track of media.getTracks()) peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
        await peer.setLocalDescription(await peer.createOffer());
        const headers = { authorization: `Bearer ${token}`, "content-type": "application/sdp" };
        const begun = performance.now();
        const answer = await fetch(endpoint, { method: "POST", body: peer.localDescription.sdp, headers });
        if (answer.status !== 201) return done({ status: answer.status, problem: await answer.text() });
        window.session = new URL(answer.headers.get("location"), endpoint).href;
        await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
        await new Promise((resolve, reject) => {
            const look = () => peer.connectionState === "connected" && resolve();
            peer.onconnectionstatechange = look;
            setTimeout(() => reject(new Error(`the guest is ${peer.connectionState}`)), 15000);
            look();
        });
        done({ status: 201, session: window.session, took: performance.now() - begun });
    })().catch((error) => done({ error: String(error) }));
"#;

const LEAVE: &str = r#"
    const [token, done] = arguments;
    fetch(window.session, { method: "DELETE", headers: { authorization: `Bearer ${token}` } }).then((answer) => {
        window.peer.close();
        done(answer.status);
    }, (error) => done(String(error)));
"#;

async fn publish(guest: &Browser, r58: &R58) -> Value {
    let endpoint = format!("{}/api/calls/whip/guest1", r58.device);
    guest.page.execute_async(PUBLISH, vec![endpoint.into(), TOKEN.into()]).await.expect("the script runs")
}

async fn leave(guest: &Browser) -> Value {
    guest.page.execute_async(LEAVE, vec![TOKEN.into()]).await.expect("the script runs")
}

async fn nothing_is_open(sfu: &Sfu) {
    until(PATIENCE, "an SFU without anything open", || async {
        let open = sfu.open();
        if open.is_empty() { Ok(()) } else { Err((open, sfu.log())) }
    })
    .await;
}

/// The same as the crew.
async fn ask_crew(r58: &R58, method: &str, path: &str) -> StatusCode {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let request = r58.http().request(method, format!("{}{path}", r58.device)).basic_auth("crew", Some(CREW));
    request.send().await.expect("an answer of the box").status()
}

/// Asks as a program would; answers status, problem and `Retry-After`.
async fn ask(r58: &R58, method: &str, path: &str, token: Option<&str>) -> (StatusCode, Value, Option<String>) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let request = r58.http().request(method, format!("{}{path}", r58.device)).header("content-type", "application/sdp");
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.body(sdp::offer("sendonly")).send().await.expect("an answer of the box");
    let wait = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    (answer.status(), answer.json().await.unwrap_or(Value::Null), wait)
}

#[tokio::test]
async fn a_guest_by_the_sfu_is_in_the_programme_and_leaves_nothing_behind_whatever_goes_wrong_on_the_way() {
    let _stage = stage().await;
    let sfu = Sfu::start();
    let home = home(&sfu.url, SECRET);
    let r58 = R58::start(&home, "device").await;
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), None).await;
    guest.open(&format!("{}/health", r58.device)).await;

    let begun = Instant::now();
    let told = publish(&guest, &r58).await;
    assert_eq!(told["status"], 201, "{told} {:?}", sfu.log());
    let seat = reaches(&r58, "live", PATIENCE).await;
    println!(
        "by the SFU: connected after {} ms, live after {:?}, {} requests",
        told["took"],
        begun.elapsed(),
        sfu.log().len()
    );
    assert_eq!(seat["road"], "sfu", "{seat}");
    let calls = r58.json("/api/calls/sessions").await;
    assert_eq!((&calls["items"][0]["guest"], &calls["items"][0]["state"]), (&json!("guest1"), &json!("joined")));
    take(&r58, "full-guest1").await;
    shows(&r58).await;

    // The seat is taken, and only its token opens it.
    let (status, _, wait) = ask(&r58, "POST", "/api/calls/whip/guest1", Some(TOKEN)).await;
    assert_eq!((status, wait.as_deref()), (StatusCode::CONFLICT, Some("3")));
    assert_eq!(ask(&r58, "POST", "/api/calls/whip/guest1", None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&r58, "DELETE", "/api/calls/whip/guest1/another", Some(TOKEN)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&r58, "DELETE", "/api/calls/session/guest1", Some("wrong")).await.0, StatusCode::UNAUTHORIZED);

    assert_eq!(leave(&guest).await, 200);
    reaches(&r58, "free", PATIENCE).await;
    nothing_is_open(&sfu).await;
    let (status, call, _) = ask(&r58, "GET", "/api/calls/session/guest1", Some(TOKEN)).await;
    assert_eq!((status, &call["state"], &call["reason"]), (StatusCode::OK, &json!("ended"), &Value::Null));
    take(&r58, "full-cam1").await;

    // Everything at once that can go wrong and need not stop a guest.
    sfu.next(Call::New, Fault::Status(503, "<html>not now</html>"));
    sfu.next(Call::Push, Fault::Status(429, ""));
    sfu.next(Call::Look, Fault::Status(425, ""));
    sfu.next(Call::Pull, Fault::LostReply);
    sfu.next(Call::Pull, Fault::Track("audio", "empty_track_error"));
    sfu.next(Call::Renegotiate, Fault::LostReply);
    let told = publish(&guest, &r58).await;
    assert_eq!(told["status"], 201, "{told} {:?}", sfu.log());
    reaches(&r58, "live", PATIENCE).await;
    take(&r58, "full-guest1").await;
    shows(&r58).await;

    // The SFU drops its sessions: the seat is free at once, and what is gone counts as closed.
    sfu.next(Call::Close, Fault::Status(500, "<html>"));
    sfu.expire_all();
    reaches(&r58, "free", PATIENCE).await;
    nothing_is_open(&sfu).await;
    until(PATIENCE, "a call that is over", || async {
        let (_, call, _) = ask(&r58, "GET", "/api/calls/session/guest1", Some(TOKEN)).await;
        if call["state"] == "ended" { Ok(()) } else { Err((call, sfu.log())) }
    })
    .await;
    let gone = sfu.log().iter().filter(|line| line.ends_with("/tracks/close 410")).count();
    // Both sides of the call, and whatever of its abandoned sessions was still to be closed.
    assert!(gone >= 2, "{:?}", sfu.log());
    let refused: Vec<String> = sfu.log().into_iter().filter(|line| line.ends_with(" 400")).collect();
    // The second answer to an offer that the first one had answered.
    assert!(refused.len() == 1 && refused[0].contains("renegotiate"), "{refused:?}");
    let said = r58.process.output();
    assert!(!said.contains(SECRET) && !said.contains(APP_ID) && !said.contains("ice-pwd"), "{said}");
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn without_its_sfu_the_box_says_so_in_a_sentence_and_goes_on() {
    let _stage = stage().await;
    let sfu = Sfu::start();
    let home = home(&sfu.url, "not the secret");
    let r58 = R58::start(&home, "device").await;
    let post = || ask(&r58, "POST", "/api/calls/whip/guest1", Some(TOKEN));
    let (status, problem, _) = post().await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(problem["detail"], "the SFU does not accept this box's app id or secret (status 401)");
    // The secret can be put right under a running box.
    std::fs::write(home.path().join("sfu-secret"), SECRET).expect("write the secret");
    sfu.next(Call::Push, Fault::Delay(Duration::from_secs(10)));
    let begun = Instant::now();
    let (status, problem, wait) = post().await;
    assert_eq!(
        (status, &problem["detail"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("the SFU did not answer in time"))
    );
    assert!(wait.is_some() && begun.elapsed() < Duration::from_secs(8), "OBS waits 8 s: {:?}", begun.elapsed());
    nothing_is_open(&sfu).await;
    drop(sfu);
    let (status, problem, _) = post().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail == "the SFU cannot be reached" || detail == "the SFU's answer was lost", "{problem}");
    let seat = r58.json("/api/seats").await["items"][0].clone();
    assert_eq!(seat["state"], "free");
    let frames = r58.state().await["programme"]["frames"].as_u64();
    r58.state_until("a programme that goes on", |state| state["programme"]["frames"].as_u64() > frames).await;
    assert!(r58.stop().await.success());
}

#[test]
fn behind_two_translating_routers_without_turn_the_guests_page_comes_by_the_sfu_when_five_seconds_have_brought_no_other_way()
 {
    let here = concat!(
        module_path!(),
        "::behind_two_translating_routers_without_turn_the_guests_page_comes_by_the_sfu_when_five_seconds_have_brought_no_other_way"
    );
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::new();
        let sfu = internet.public.run(async { Sfu::start_on("203.0.113.1") });
        internet.guest.run(a_guest_without_another_way(&internet, &sfu));
    }
}

async fn a_guest_without_another_way(internet: &Internet, sfu: &Sfu) {
    let _stage = stage().await;
    let home = Home::small(
        &format!("listen = \"0.0.0.0:8000\"\ncrew_password = \"{CREW}\"\npublic_url = \"{BOX_URL}\""),
        &format!("[device.sfu]\napp_id = \"{APP_ID}\"\nbase_url = \"{}\"", sfu.url),
    );
    let mut command = internet.device.command(&binary().display().to_string());
    command.arg("device").arg("--config").arg(home.config()).current_dir(home.path());
    command.env("R58_STATE_DIR", home.state()).env("R58__DEVICE__SFU__SECRET", SECRET);
    let r58 = R58::spawn("device", &mut command).await.with_crew_password(CREW);
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), Some(BOX_URL)).await;
    let seat = r58.json("/api/seats").await["items"][0].clone();
    guest.open(seat["join_url"].as_str().expect("a link")).await;
    press_join(&guest).await;
    let pressed = Instant::now();
    is_live(&guest).await;
    println!("straight first, then by the SFU: live after {:?}", pressed.elapsed());
    assert!(pressed.elapsed() >= Duration::from_secs(5), "the straight way has its time");
    let seat = reaches(&r58, "live", PATIENCE).await;
    assert_eq!(seat["road"], "sfu", "{seat}");
    take(&r58, "full-guest1").await;
    shows(&r58).await;

    // The crew ends the call: the page notices, and comes back by the road that worked.
    assert_eq!(ask_crew(&r58, "DELETE", "/api/calls/session/guest1").await, StatusCode::OK);
    let again = until(PATIENCE, "another call", || async {
        let now = r58.json("/api/seats").await["items"][0].clone();
        if now["state"] == "live" && now["session"] != seat["session"] { Ok(now) } else { Err(now) }
    })
    .await;
    assert_eq!(again["road"], "sfu");
    is_live(&guest).await;

    guest.click("leave").await;
    reaches(&r58, "free", PATIENCE).await;
    nothing_is_open(sfu).await;
    assert!(r58.stop().await.success());
}
