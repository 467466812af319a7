//! A release goes to boxes while somebody watches on the dashboard: begun there, followed live, paused and taken on, halted when too many
//! boxes fail, with their names and reasons, completed, ended.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::axe::assert_accessible;
use super::support::browser::Browser;
use super::support::by_http::HttpBox;
use super::support::dashboard::{find, fits_everywhere, see, signed_in, type_into};
use super::support::r58::PATIENCE;
use super::support::site::{Api, Site};

/// A release that its maker has signed.
async fn published(api: &Api, version: &str) {
    let key = SigningKey::from_bytes(&[58; 32]);
    let public = STANDARD.encode(key.verifying_key().to_bytes());
    let held = api.post("/api/v1/release-keys", &json!({"name": "builds", "public_key": public})).await;
    let body = json!({"version": version, "channel": "stable", "artifact_url": "https://r58.example/a.tar",
        "checksum_sha256": "ab".repeat(32), "size_bytes": 12_000_000, "changelog": "Quieter fans"});
    let draft = api.post("/api/v1/releases", &body).await;
    let signature = key.sign(draft["signed_text"].as_str().expect("a text").as_bytes()).to_bytes();
    let body = json!({"key_id": held["id"], "signature": STANDARD.encode(signature)});
    api.post(&format!("/api/v1/releases/{version}/publish"), &body).await;
}

/// Begins a rollout on the page, to the boxes with a tag.
async fn begin(browser: &Browser, tag: &str, abort_percent: &str) {
    browser.click("start-rollout").await;
    find(browser, "the dialog", "dialog[open] [name=tag]").await;
    let fields = [("[name=tag]", tag), ("[name=percent]", "100"), ("[name=abort_percent]", abort_percent)];
    let fields = fields.map(|(name, text)| (format!("dialog[open] {name}"), text));
    let mut fields: Vec<(&str, &str)> = fields.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    fields.push(("dialog[open] [name=at_once]", "3"));
    type_into(browser, &fields).await;
    browser.click("begin").await;
}

/// Waits until the newest rollout is in a state; the page says so without being asked.
async fn state(browser: &Browser, wanted: &str) {
    find(browser, wanted, &format!(".rollout:first-of-type[data-state={wanted}]")).await;
}

#[tokio::test]
async fn a_rollout_is_followed_live_and_halts_when_boxes_fail() {
    let site = Site::start().await;
    let code = site.api.post("/api/v1/enrolment-codes", &json!({"uses": 7})).await["code"].clone();
    let mut boxes = Vec::new();
    for (n, tag) in ["tour", "tour", "tour", "tour", "tour", "hall", "bar"].into_iter().enumerate() {
        let one = HttpBox::register(&site.api, &code, &format!("box-{}", n + 1)).await;
        let path = format!("/api/v1/devices/{}", one.id);
        site.api.call(Method::PATCH, &path, Some(&json!({"tags": [tag]}))).await.expect("a tag");
        one.beat().await;
        boxes.push(one);
    }
    let done = json!({"status": "completed"});
    let browser = signed_in(&site, "/releases").await;
    see(&browser, "no release", "No releases yet").await;
    assert_accessible(&browser, "no releases").await;
    published(&site.api, "1.4.0").await;
    browser.script("document.querySelector('nav.places a[href=\"/map\"]').click()").await;
    browser.script("document.querySelector('nav.places a[href=\"/releases\"]').click()").await;
    see(&browser, "the release", "Quieter fans").await;
    browser.click("start-rollout").await;
    browser.screenshot("rollout-begin").await;
    assert_accessible(&browser, "the dialog").await;
    browser.script("document.querySelector('dialog[open]').close()").await;
    browser
        .until(PATIENCE, "no dialog", "!document.querySelector('[name=abort_percent]')", "document.body.innerText")
        .await;

    begin(&browser, "tour", "25").await;
    state(&browser, "running").await;
    see(&browser, "three at once", "0 done, 0 failed, 3 under way, of 5 boxes").await;
    boxes[0].does_next(&done).await;
    see(&browser, "the first, and another in its place", "1 done, 0 failed, 3 under way").await;
    browser.click("pause").await;
    state(&browser, "paused").await;
    boxes[1].does_next(&done).await;
    see(&browser, "the second, that was under way", "2 done, 0 failed, 2 under way").await;
    browser.click("go-on").await;
    see(&browser, "the rest", "2 done, 0 failed, 3 under way").await;
    browser.script("document.querySelector('[data-testid=members] summary').click()").await;
    find(&browser, "a box", "[data-testid=member-box-1][data-state=succeeded]").await;
    fits_everywhere(&browser, "rollout-running").await;
    boxes[2].does_next(&json!({"status": "failed", "error": "no room on the disk"})).await;
    state(&browser, "halted").await;
    see(&browser, "why", "Failed on 1 box.").await;
    browser.click("only-failed").await;
    see(&browser, "who", "no room on the disk").await;
    let alone =
        "[...document.querySelectorAll('.members li')].map((one) => one.dataset.testid).join() === 'member-box-3'";
    browser.until(PATIENCE, "that one alone", alone, "document.body.innerText").await;
    assert_accessible(&browser, "a rollout that halted").await;
    fits_everywhere(&browser, "rollout-halted").await;

    begin(&browser, "hall", "100").await;
    state(&browser, "running").await;
    boxes[5].does_next(&done).await;
    state(&browser, "completed").await;

    begin(&browser, "bar", "100").await;
    see(&browser, "the last one", "1 under way, of 1 box.").await;
    browser.script("window.confirm = () => true").await;
    browser.click("end").await;
    state(&browser, "cancelled").await;
    fits_everywhere(&browser, "rollouts").await;
    let states = site.api.get("/api/v1/rollouts").await["items"].clone();
    let states: Vec<&Value> = states.as_array().expect("rollouts").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["cancelled", "completed", "halted"]);
    browser.close().await;
}
