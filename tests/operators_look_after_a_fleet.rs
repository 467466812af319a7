//! The dashboard's places beside the boxes, in a real browser against a real server: the map of states, users, releases and the
//! audit log, at the size of a wall and of a phone, by keyboard where there is nothing else to click.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::json;

use super::support::axe::{assert_accessible, assert_asks_nobody_else};
use super::support::dashboard::{find, fits_everywhere, see, signed_in, type_into, visit};
use super::support::r58::PATIENCE;
use super::support::site::Site;

#[tokio::test]
async fn the_places_of_the_dashboard_show_and_change_what_the_server_holds() {
    let mut site = Site::start().await;
    let code = site.api.post("/api/v1/enrolment-codes", &json!({"uses": 3})).await["code"].clone();
    let mut tokens = HashMap::new();
    for (id, place) in [("oslo-1", "Oslo"), ("oslo-2", "Oslo"), ("bergen-1", "Bergen")] {
        let body = json!({"enrolment_code": code, "device_id": id, "name": id, "platform": "linux", "arch": "aarch64"});
        let token =
            site.api.post("/api/v1/devices/register", &body).await["token"].as_str().expect("a token").to_owned();
        tokens.insert(id, token);
        let path = format!("/api/v1/devices/{id}");
        site.api.call(Method::PATCH, &path, Some(&json!({"location": place}))).await.expect("a place");
    }
    let browser = signed_in(&site, "/map").await;
    browser.page.set_window_size(2560, 1300).await.expect("a wall");

    // The address is that of the map, so it is what comes after signing in.
    browser
        .until(PATIENCE, "Oslo", "document.querySelector('[data-testid=map-Oslo]')", "document.body.innerText")
        .await;
    see(&browser, "the counts", "3 never seen").await;
    let keys = "const map = document.querySelector('[data-testid=map-Oslo]'); map.focus();
        const key = (key) => map.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
        key('End');";
    browser.script(keys).await;
    see(&browser, "the last box in words", "oslo-2: never seen").await;
    browser.screenshot("map-wall").await;
    browser
        .script("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }))")
        .await;
    browser.until(PATIENCE, "its page", "location.pathname === '/devices/oslo-2'", "location.pathname").await;
    see(&browser, "an empty chart", "Nothing was measured").await;
    let beat = json!({"ts": chrono::Utc::now(), "version": "1.0", "uptime_seconds": 9, "errors": [],
        "metrics": {"cpu_percent": 12.5, "mem_percent": 40, "disk_free_gb": 30.5},
        "status": {"recording_active": false, "mixer_active": true, "active_inputs": [], "degradation_level": 0}});
    let request = site.api.http.post(format!("{}/api/v1/devices/oslo-2/heartbeat", site.api.base)).json(&beat);
    let answer = request.header("X-Device-Id", "oslo-2").header("X-Device-Token", &tokens["oslo-2"]).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    find(&browser, "its first heartbeat", "[data-testid=chart-cpu_percent]").await;

    visit(&browser, "/users").await;
    see(&browser, "the administrator", "admin@r58.local").await;
    browser.click("add-user").await;
    type_into(
        &browser,
        &[
            ("dialog[open] [name=name]", "Ada Lovelace"),
            ("dialog[open] [name=email]", "ada@example.org"),
            ("dialog[open] [name=password]", "a good password"),
        ],
    )
    .await;
    browser.click("create-user").await;
    let ada = "document.querySelector('[data-testid=\"user-ada@example.org\"]')";
    browser.until(PATIENCE, "the new user", ada, "document.body.innerText").await;
    let role = format!(
        "const role = {ada}.querySelector('select'); role.value = 'operator';
        role.dispatchEvent(new Event('change', {{ bubbles: true }}))"
    );
    browser.script(&role).await;
    // What others do meanwhile comes by itself, here and at the log and the releases below.
    let grace =
        json!({"name": "Grace", "email": "grace@example.org", "role": "viewer", "password": "another good password"});
    let grace = site.api.post("/api/v1/users", &grace).await;
    see(&browser, "a user whom somebody else added", "grace@example.org").await;
    let path = format!("/api/v1/users/{}", grace["id"].as_str().expect("an id"));
    site.api.call(Method::PATCH, &path, Some(&json!({"is_active": false}))).await.expect("switched off");
    see(&browser, "that somebody else switched her off", "switched off").await;
    browser.screenshot("users-wall").await;
    browser.click("add-key").await;
    type_into(&browser, &[("dialog[open] [name=name]", "monitoring")]).await;
    browser.script("document.querySelector('[value=\"metrics:read\"]').click()").await;
    browser.click("create-key").await;
    let key = "document.querySelector('[data-testid=secret] .code')?.innerText.startsWith('r58k_')";
    browser.until(PATIENCE, "the key", key, "document.body.innerText").await;

    visit(&browser, "/audit").await;
    see(&browser, "the change of the role", "user.change").await;
    site.api.delete(&path).await;
    see(&browser, "what somebody else did meanwhile", "user.delete").await;
    type_into(&browser, &[("[data-testid=audit-action]", "api_key.create")]).await;
    let only = "document.querySelectorAll('[data-testid=changes] tbody tr').length === 1";
    browser.until(PATIENCE, "the one that fits", only, "document.body.innerText").await;

    browser.click("verify").await;
    see(&browser, "a verdict", "whole and unchanged").await;

    visit(&browser, "/releases").await;
    see(&browser, "no release", "No releases yet").await;
    let release = json!({"version": "1.4.0", "channel": "stable", "artifact_url": "https://releases.example/r58.tar",
        "checksum_sha256": "00".repeat(32), "size_bytes": 12_000_000, "changelog": "Quieter fans"});
    site.api.post("/api/v1/releases", &release).await;
    see(&browser, "the release", "Quieter fans").await;

    for place in ["/", "/alerts", "/releases", "/users", "/audit", "/map"] {
        visit(&browser, place).await;
        browser.until(PATIENCE, place, "!document.body.innerText.includes('Loading')", "document.body.innerText").await;
        let name = if place == "/" { "boxes" } else { &place[1..] };
        assert_accessible(&browser, name).await;
        fits_everywhere(&browser, name).await;
    }
    assert_asks_nobody_else(&browser).await;

    // A loss is told with its time, and what happens after it comes by itself again.
    visit(&browser, "/users").await;
    site.kill_fleet();
    let lost = "document.querySelector('[data-testid=connection-lost]')?.innerText.match(/for ([0-9]+) s/)?.[1] >= 4";
    browser.until(PATIENCE, "the loss, counted from its beginning", lost, "document.body.innerText").await;
    site.start_fleet().await;
    let back = "!document.querySelector('[data-testid=connection-lost]')";
    browser.until(PATIENCE, "the server again", back, "document.body.innerText").await;
    let mary = json!({"name": "Mary", "email": "mary@example.org", "role": "viewer", "password": "one more password"});
    site.api.post("/api/v1/users", &mary).await;
    see(&browser, "a user added after the loss", "mary@example.org").await;
    browser.close().await;
}
