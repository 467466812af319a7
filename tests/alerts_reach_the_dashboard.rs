//! Whoever looks at the dashboard sees an alert without asking, takes it on there, and everybody else sees that too.

use reqwest::Method;
use serde_json::{Value, json};

use super::support::axe::assert_accessible;
use super::support::dashboard::{find, see, signed_in, type_into};
use super::support::r58::PATIENCE;
use super::support::site::Site;
use super::support::until;

/// A box that speaks HTTP alone says how hot it is.
async fn beat(site: &Site, token: &str, temperature: f64) {
    let body = json!({"ts": chrono::Utc::now(), "version": "1.0", "uptime_seconds": 9, "errors": [],
        "metrics": {"cpu_percent": 12.5, "mem_percent": 40, "disk_free_gb": 30.5, "temperature_c": temperature},
        "status": {"recording_active": false, "mixer_active": true, "active_inputs": [], "degradation_level": 0}});
    let request = site.api.http.post(format!("{}/api/v1/devices/hot-box/heartbeat", site.api.base)).json(&body);
    let answer =
        request.header("X-Device-Id", "hot-box").header("X-Device-Token", token).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
}

async fn state(site: &Site, wanted: &str) -> Value {
    until(PATIENCE, wanted, || async {
        let page = site.api.get("/api/v1/alerts?device=hot-box").await;
        if page["items"][0]["state"] == wanted { Ok(page["items"][0].clone()) } else { Err(page) }
    })
    .await
}

#[actix_web::test]
async fn an_alert_appears_by_itself_is_silenced_taken_on_and_given_back_and_leaves_when_it_is_over() {
    let site = Site::start().await;
    let rules = site.api.get("/api/v1/alert-rules").await;
    let hot = rules["items"].as_array().unwrap().iter().find(|rule| rule["kind"] == "temperature").unwrap();
    let path = format!("/api/v1/alert-rules/{}", hot["id"].as_str().unwrap());
    site.api.call(Method::PATCH, &path, Some(&json!({"for_seconds": 0, "severity": "critical"}))).await.unwrap();
    let code = site.api.post("/api/v1/enrolment-codes", &json!({})).await;
    let device = json!({"enrolment_code": code["code"], "device_id": "hot-box", "name": "Hot box", "platform": "linux",
        "arch": "aarch64"});
    let token = site.api.post("/api/v1/devices/register", &device).await["token"].as_str().unwrap().to_owned();

    let browser = signed_in(&site, "/alerts").await;
    let calm = "document.querySelector('[data-testid=\"open-alerts\"]')?.textContent.includes('Nothing')";
    browser.until(PATIENCE, "no alerts", calm, "document.body.innerText").await;

    beat(&site, &token, 95.0).await;
    let row = "document.querySelector('[data-testid=\"alert-hot-box-temperature\"]')";
    browser.until(PATIENCE, "the alert by itself", row, "document.body.innerText").await;
    let told = browser.script(&format!("return {row}.innerText")).await;
    assert!(told.as_str().unwrap().contains("critical") && told.as_str().unwrap().contains("95 °C"), "{told}");
    let count = "document.querySelector('[data-testid=\"alert-count\"]')?.textContent.trim().startsWith('1')";
    browser.until(PATIENCE, "the count", count, "document.body.innerText").await;
    browser.script("document.querySelectorAll('details').forEach((one) => (one.open = true))").await;
    browser.screenshot("alerts").await;

    browser.click("silence-hot-box").await;
    browser.script("document.querySelector('[data-testid=\"silence-reason\"]').value = 'a test'").await;
    browser.click("silence-begin").await;
    let silenced = format!(
        "{row}?.innerText.includes('silenced until') && document.querySelector('[data-testid=\"end-silence\"]')"
    );
    browser.until(PATIENCE, "silenced", &silenced, "document.body.innerText").await;
    browser.click("ack-hot-box").await;
    browser
        .until(PATIENCE, "taken on", &format!("{row}?.dataset.state === 'acknowledged'"), "document.body.innerText")
        .await;
    browser.screenshot("alerts-acknowledged").await;
    assert_eq!(state(&site, "acknowledged").await["acknowledged_by"], "user:admin@r58.local");
    browser.click("unack-hot-box").await;
    browser
        .until(PATIENCE, "given back", &format!("{row}?.dataset.state === 'firing'"), "document.body.innerText")
        .await;
    state(&site, "firing").await;

    // A silence of everything, without an alert; the one from before is ended.
    browser.click("end-silence").await;
    let none = "!document.querySelector('[data-testid=\"silence\"]')";
    browser.until(PATIENCE, "no silence", none, "document.body.innerText").await;
    browser.click("new-silence").await;
    let whole = "const whom = document.querySelector('[data-testid=\"silence-whom\"]'); whom.value = 'all'; \
                 whom.dispatchEvent(new Event('change', {bubbles: true})); \
                 document.querySelector('[data-testid=\"new-silence-reason\"]').value = 'load-in'";
    browser.script(whole).await;
    let chosen = "!document.querySelector('[data-testid=\"silence-which\"]')";
    browser.until(PATIENCE, "all boxes", chosen, "document.body.innerText").await;
    browser.screenshot("alerts-new-silence").await;
    browser.click("new-silence-begin").await;
    let listed = "document.querySelector('[data-testid=\"silence\"]')?.innerText.includes('everything')";
    browser.until(PATIENCE, "the silence", listed, "document.body.innerText").await;

    // A rule with every field.
    browser.click("edit-rule-disk").await;
    let fill = "for (const [field, value] of [['threshold', '7.5'], ['seconds', '30']]) \
                document.querySelector(`[data-testid=\"rule-${field}\"]`).value = value";
    browser.script(fill).await;
    // A box that is none is refused; one that is searched for is chosen by keys.
    type_into(&browser, &[("[data-testid=rule-device]", "nope")]).await;
    see(&browser, "that there is none", "There is no box “nope”.").await;
    browser.click("rule-save").await;
    type_into(&browser, &[("[data-testid=rule-device]", "hot-b")]).await;
    find(&browser, "the box", "[data-testid=rule-device-list] [role=option]").await;
    browser.screenshot("alerts-rule").await;
    assert_accessible(&browser, "a box to choose").await;
    let key = |key: &str| {
        format!(
            "document.querySelector('[data-testid=rule-device]').dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}));"
        )
    };
    browser.script(&key("ArrowDown")).await;
    find(&browser, "the box walked to", "[data-testid=rule-device][aria-activedescendant]").await;
    browser.script(&key("Enter")).await;
    find(&browser, "the box chosen", "[name=device_id][value=hot-box]").await;
    browser.click("rule-save").await;
    let said = "document.querySelector('[data-testid=\"rule-disk\"]')?.innerText.includes('less than 7.5 GB free for 30 s, until 9; Hot box')";
    browser.until(PATIENCE, "the changed rule", said, "document.body.innerText").await;
    beat(&site, &token, 40.0).await;
    browser.until(PATIENCE, "over by itself", &format!("!{row} && {calm}"), "document.body.innerText").await;
    state(&site, "resolved").await;
    browser.kill();
}
