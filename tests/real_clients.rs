//! Clients that people use publish to a seat: each gets in with what it really sends, is seen, and gives the seat back.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;

use super::support::browser::{Browser, Capture};
use super::support::r58::{Home, PATIENCE, R58};
use super::support::voice::Voice;
use super::support::{python, stage, until};

pub(super) const TOKEN: &str = "the-token-of-these-tests";
/// OBS waits as long for an answer.
const OBS_PATIENCE: Duration = Duration::from_secs(8);

pub(super) async fn device() -> (R58, Home) {
    let seat = format!("token = \"{TOKEN}\"\n[device.webrtc]\nloopback = true");
    let home = Home::small("listen = \"127.0.0.1:0\"", &seat);
    (R58::start(&home, "device").await, home)
}

pub(super) async fn seat(r58: &R58) -> Value {
    r58.json("/api/seats").await["items"][0].clone()
}

pub(super) async fn until_seat_is(r58: &R58, state: &str) -> Value {
    until(PATIENCE, &format!("a seat that is {state}"), || async {
        let seat = seat(r58).await;
        if seat["state"] == state { Ok(seat) } else { Err(seat) }
    })
    .await
}

/// As OBS (libdatachannel) writes it: credentials and fingerprint for the whole session, no candidates.
fn obs_offer() -> String {
    let fingerprint: Vec<String> = (0..32).map(|n| format!("{:02X}", 255 - n)).collect();
    let section = |kind: &str, mid: u8, format: u8, ssrc: u32| {
        format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {format}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=sendonly\r\na=rtcp-mux\r\n\
             a=ssrc:{ssrc} cname:obs\r\na=ssrc:{ssrc} msid:obs obs-{kind}\r\na=msid:obs obs-{kind}\r\n"
        )
    };
    format!(
        "v=0\r\no=rtc 3767197920 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=group:LS 0 1\r\n\
         a=msid-semantic:WMS *\r\na=setup:actpass\r\na=ice-ufrag:Ob5u\r\na=ice-pwd:Ob5Ob5Ob5Ob5Ob5Ob5Ob5u\r\n\
         a=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\n{}a=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1\r\n{}a=rtpmap:96 H264/90000\r\na=rtcp-fb:96 nack\r\n\
         a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 goog-remb\r\n\
         a=fmtp:96 profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1\r\n",
        fingerprint.join(":"),
        section("audio", 0, 111, 3_900_000_001),
        section("video", 1, 96, 3_900_000_002),
    )
}

#[tokio::test]
async fn an_offer_of_obs_is_answered_within_its_patience_and_its_delete_gets_200() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let asked = Instant::now();
    let post = r58.http().post(format!("{}/whip/guest1", r58.device)).bearer_auth(TOKEN);
    let answer = post.header("Content-Type", "application/sdp").body(obs_offer()).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert!(asked.elapsed() < OBS_PATIENCE, "{:?}", asked.elapsed());
    println!("an offer of OBS was answered in {:?}", asked.elapsed());
    let location = answer.headers()["location"].to_str().expect("text").to_owned();
    let delete = r58.http().delete(format!("{}{location}", r58.device)).bearer_auth(TOKEN);
    assert_eq!(delete.send().await.expect("an answer").status(), StatusCode::OK);
    assert_eq!(seat(&r58).await["state"], "free");
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn aiortc_is_seen_and_leaves() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let asked = Instant::now();
    let mut client = python::client("aiortc_whip.py", &[&format!("{}/whip/guest1", r58.device), TOKEN, "5"]);
    let seat = until_seat_is(&r58, "live").await;
    println!("aiortc: live by {} after {:?}, its own start included", seat["path"], asked.elapsed());
    client.line(PATIENCE, "its end", |line| line.starts_with("left 200").then_some(())).await;
    assert!(client.ended(PATIENCE).await.success(), "{}", client.output());
    until_seat_is(&r58, "free").await;
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn a_guest_that_is_heard_and_never_seen_keeps_its_seat() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let mut client = python::client("aiortc_whip.py", &[&format!("{}/whip/guest1", r58.device), TOKEN, "8", "voice"]);
    until_seat_is(&r58, "live").await;
    let told =
        |state: &Value| state["inputs"].as_array().into_iter().flatten().any(|input| input["reason"] == "sound only");
    r58.state_until("a seat of sound", told).await;
    stays_live(&r58).await;
    client.line(PATIENCE, "its end", |line| line.starts_with("left 200").then_some(())).await;
    until_seat_is(&r58, "free").await;
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn str0m_is_heard_and_leaves() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let asked = Instant::now();
    let voice = Voice::join(r58.http(), &r58.device, "guest1", TOKEN).await.expect("a seat");
    until_seat_is(&r58, "live").await;
    println!("str0m: live after {:?}", asked.elapsed());
    stays_live(&r58).await;
    assert_eq!(voice.leave().await, StatusCode::OK);
    until_seat_is(&r58, "free").await;
    assert!(r58.stop().await.success());
}

/// A client in some lines, as a programmer would write it from the RFC: an offer without candidates, each batch by PATCH, a
/// restart later on.
const BARE: &str = r#"
    const done = arguments[arguments.length - 1];
    const [endpoint, token] = arguments;
    const bearer = { authorization: `Bearer ${token}` };
    const patches = [];
    let session, tag;
    const frag = (description, lines) => {
        const of = (name) => description.match(new RegExp(`a=${name}:.*`))[0];
        const head = description.match(/m=.*/)[0], mid = description.match(/a=mid:.*/)[0];
        return [of("ice-ufrag"), of("ice-pwd"), head, mid, ...lines].join("\r\n") + "\r\n";
    };
    const patch = async (body, match) => {
        const answer = await fetch(session, {
            method: "PATCH", body,
            headers: { ...bearer, "content-type": "application/trickle-ice-sdpfrag", "if-match": match },
        });
        patches.push(answer.status);
        return answer;
    };
    const until = (peer, wanted) => new Promise((resolve, reject) => {
        const look = () => peer.iceConnectionState === wanted || peer.iceConnectionState === "completed" ? resolve() : 0;
        peer.addEventListener("iceconnectionstatechange", look);
        setTimeout(() => reject(new Error(`ice is ${peer.iceConnectionState}`)), 15000);
        look();
    });
    (async () => {
        const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
        const peer = (window.peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" }));
        for (const track of media.getTracks()) peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
        const waiting = [];
        let send = (line) => waiting.push(line);
        peer.onicecandidate = ({ candidate }) => send(candidate?.candidate ? `a=${candidate.candidate}` : "a=end-of-candidates");
        const offer = await peer.createOffer();
        await peer.setLocalDescription(offer);
        const answer = await fetch(endpoint, { method: "POST", body: offer.sdp, headers: { ...bearer, "content-type": "application/sdp" } });
        session = new URL(answer.headers.get("location"), endpoint);
        tag = answer.headers.get("etag");
        const first = await answer.text();
        await peer.setRemoteDescription({ type: "answer", sdp: first });
        send = (line) => patch(frag(offer.sdp, [line]), tag);
        await Promise.all(waiting.map(send));
        await until(peer, "connected");
        send = () => undefined;
        const again = await peer.createOffer({ iceRestart: true });
        await peer.setLocalDescription(again);
        const begun = performance.now();
        const restarted = await patch(frag(again.sdp, []), "*");
        const fragment = await restarted.text();
        const candidates = fragment.split("\r\n").filter((line) => line.startsWith("a=candidate:"));
        let merged = first.replace(/a=(candidate:.*|end-of-candidates)\r\n/g, "");
        for (const name of ["ice-ufrag", "ice-pwd"])
            merged = merged.replace(new RegExp(`a=${name}:.*`, "g"), fragment.match(new RegExp(`a=${name}:.*`))[0]);
        merged = merged.replace(/(a=mid:.*\r\n)/, `$1${candidates.map((line) => `${line}\r\n`).join("")}`);
        await peer.setRemoteDescription({ type: "answer", sdp: merged });
        await until(peer, "connected");
        done({ patches, before: tag, after: restarted.headers.get("etag"), took: performance.now() - begun, session: session.href });
    })().catch((error) => done({ error: String(error), patches }));
"#;

#[tokio::test]
async fn a_bare_peer_connection_of_chromium_trickles_restarts_and_keeps_its_seat() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let browser = Browser::start(&Capture::Pattern, None).await;
    browser.open(&format!("{}/health", r58.device)).await;
    let endpoint = format!("{}/whip/guest1", r58.device);
    let told = browser.page.execute_async(BARE, vec![endpoint.into(), TOKEN.into()]).await.expect("the script runs");
    println!("bare Chromium: {told}");
    assert!(told["error"].is_null(), "{told}");
    let patches: Vec<u64> = told["patches"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let (restart, trickles) = patches.split_last().expect("patches");
    assert!(*restart == 200 && !trickles.is_empty() && trickles.iter().all(|status| *status == 204), "{told}");
    assert_ne!(told["before"], told["after"]);
    let live = until_seat_is(&r58, "live").await;
    assert!(told["session"].as_str().is_some_and(|url| url.ends_with(live["session"].as_str().unwrap_or("?"))));
    stays_live(&r58).await;
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn the_guests_page_restarts_ice_when_the_browser_is_online_again_and_keeps_its_seat() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let browser = Browser::start(&Capture::Pattern, None).await;
    browser.open(seat(&r58).await["join_url"].as_str().expect("a link")).await;
    let state = |state: &str| format!("document.body.dataset.state === '{state}'");
    browser.until(PATIENCE, "a page that is ready", &state("ready"), "document.body.innerText").await;
    browser.click("join").await;
    browser.until(PATIENCE, "a guest on the page", &state("live"), "document.body.innerText").await;
    let before = until_seat_is(&r58, "live").await;
    for round in 1..=2 {
        browser.script("dispatchEvent(new Event('online'))").await;
        until(PATIENCE, "an ICE restart", || async {
            let restarts = r58.process.output().matches("ICE restarted").count();
            if restarts >= round { Ok(()) } else { Err(restarts) }
        })
        .await;
        stays_live(&r58).await;
    }
    assert_eq!(seat(&r58).await["session"], before["session"]);
    browser.until(PATIENCE, "still a guest on the page", &state("live"), "document.body.innerText").await;
    assert!(r58.stop().await.success());
}

/// Pictures are decoded on the new path: without any the seat would be silent after three seconds.
pub(super) async fn stays_live(r58: &R58) {
    let end = Instant::now() + Duration::from_secs(5);
    until(PATIENCE, "five seconds of a live seat", || async {
        let seat = seat(r58).await;
        assert_eq!(seat["state"], "live", "{seat}");
        if Instant::now() > end { Ok(()) } else { Err(seat) }
    })
    .await;
}
