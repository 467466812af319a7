//! The viewer's page in a real browser: WHEP where it works, HLS by itself where it does not, and pictures that move by both.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::browser::{Browser, Capture};
use super::support::r58::{Home, PATIENCE, R58};
use super::support::stage;

const PASSWORD: &str = "a password of the crew";

async fn device(device: &str, webrtc: &str) -> (R58, Home) {
    let webrtc = format!("[device.webrtc]\n{webrtc}");
    let home = Home::small(&format!("listen = \"127.0.0.1:0\"\n{device}"), &webrtc);
    let r58 = R58::start(&home, "device").await;
    (r58, home)
}

async fn on_air(r58: &R58) {
    r58.state_until("a programme on air", |state| state["programme"]["frames"].as_u64() > Some(30)).await;
}

/// Waits for pictures by this way, that move in time and are not black, and answers how long that took.
async fn plays(browser: &Browser, way: &str) -> Duration {
    let begun = Instant::now();
    let page = format!("document.querySelector('[data-testid=watch][data-way={way}][data-live=yes]')");
    browser.until(PATIENCE, &format!("pictures by {way}"), &page, "document.body.innerText").await;
    let took = begun.elapsed();
    let begin = browser.script("window.video = document.querySelector('video'); return video.currentTime").await;
    let begin = begin.as_f64().expect("a time");
    let moved = format!("video.currentTime > {begin} + 2 && video.getVideoPlaybackQuality().totalVideoFrames > 30");
    browser.until(PATIENCE, "two seconds of it", &moved, "video.currentTime").await;
    let brightest = browser
        .script(
            "const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight), to = canvas.getContext('2d');
             to.drawImage(video, 0, 0);
             return to.getImageData(0, 0, canvas.width, canvas.height).data.reduce((most, value, n) => n % 4 < 3 ? Math.max(most, value) : most, 0)",
        )
        .await;
    assert!(brightest.as_u64() > Some(100), "the picture is dark: {brightest}");
    took
}

#[tokio::test]
async fn the_viewers_page_plays_by_whep_and_by_hls_when_it_is_told_to() {
    let _stage = stage().await;
    let (r58, _home) = device("", "loopback = true").await;
    on_air(&r58).await;
    let browser = Browser::start(&Capture::Pattern, None).await;
    browser.open(&format!("{}/watch/programme", r58.device)).await;
    println!("by WHEP after {:?}", plays(&browser, "whep").await);
    browser.screenshot("watch-whep").await;
    browser.open(&format!("{}/watch/cam1?via=hls", r58.device)).await;
    println!("by HLS after {:?}", plays(&browser, "hls").await);
    let behind = browser.script("return video.seekable.end(0) - video.currentTime").await;
    println!("{behind} s behind the end of what is there");
    let sound = browser.script("return video.webkitAudioDecodedByteCount").await;
    assert!(sound.as_u64() > Some(0), "no sound by HLS");
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn a_viewer_with_a_token_who_finds_no_place_by_whep_is_played_hls() {
    let _stage = stage().await;
    let (r58, _home) = device(&format!("crew_password = \"{PASSWORD}\""), "loopback = true\nmost_viewers = 0").await;
    let r58 = r58.with_crew_password(PASSWORD);
    on_air(&r58).await;
    let (_, made) = r58.post("/api/viewer-tokens", &json!({ "names": ["programme"] })).await;
    let link = made["watch_url"].as_str().expect("a link");
    let browser = Browser::start(&Capture::Pattern, None).await;
    browser.open(link).await;
    println!("by HLS after {:?}", plays(&browser, "hls").await);
    let why = browser.script("return document.querySelector('[role=status]').title").await;
    assert!(why.as_str().is_some_and(|why| why.starts_with("Too many are watching")), "{why}");
    browser.screenshot("watch-hls").await;
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn where_ice_does_not_connect_both_pages_play_hls_after_five_seconds() {
    let _stage = stage().await;
    // No interface has that name: the box answers, and no packet finds a way.
    let (r58, _home) = device("", "interfaces = [\"nowhere0\"]").await;
    on_air(&r58).await;
    let browser = Browser::start(&Capture::Pattern, None).await;
    browser.open(&format!("{}/watch/programme", r58.device)).await;
    println!("by HLS after {:?}", plays(&browser, "hls").await);
    println!("because: {}", browser.script("return document.querySelector('[role=status]').title").await);
    browser.open(&format!("{}/", r58.device)).await;
    let live = "document.querySelector('[data-testid=programme][data-live=hls]')";
    browser.until(PATIENCE, "the crew's programme by HLS", live, "document.body.innerText").await;
    browser.screenshot("multiview-hls").await;
    let frames = "document.querySelector('[data-testid=programme-video]').getVideoPlaybackQuality().totalVideoFrames";
    let before = browser.script(&format!("return {frames}")).await.as_u64().unwrap_or_default();
    browser.until(PATIENCE, "frames", &format!("{frames} > {before} + 15"), frames).await;
    assert_eq!(r58.state().await["inputs"][0]["signal"], Value::from("live"));
    assert!(r58.stop().await.success());
}
