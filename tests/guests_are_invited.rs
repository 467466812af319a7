//! A guest is sent a link with a name and an end: it waits until the crew lets it in, and a link that opens nothing tells nothing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::guest_gets_in::{COLOUR, PITCH, fails, is_live, is_the_guest, on_air, shows, take};
use super::support::browser::{Browser, Capture};
use super::support::footage::Footage;
use super::support::jpeg::Picture;
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::sdp::offer;
use super::support::site::Site;
use super::support::{stage, until};

const NAME: &str = "Ada Lovelace";

fn small_and_near() -> Home {
    Home::small("listen = \"127.0.0.1:0\"", "[[device.seats]]\nid = \"guest2\"\n[device.webrtc]\nloopback = true")
}

/// Makes an invitation to the first seat; `more` is merged into it.
async fn invite(r58: &R58, more: &Value) -> Value {
    let mut body = json!({ "seat": "guest1", "name": NAME });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let (status, made) = r58.post("/api/invitations", &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made
}

/// Asks with an invitation's token, and answers status and body.
async fn ask(r58: &R58, method: Method, path: &str, token: &str) -> (StatusCode, String) {
    let request = r58.http().request(method, format!("{}{path}", r58.device)).bearer_auth(token);
    let answer =
        request.header("Content-Type", "application/sdp").body(offer("sendonly")).send().await.expect("an answer");
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.text().await.expect("a body");
    if !status.is_success() {
        assert_eq!(headers["content-type"], "application/problem+json", "{body}");
        for secret in ["guest1", "guest2", NAME, token] {
            assert!(!body.contains(secret), "{body} tells {secret}");
        }
    }
    (status, body)
}

#[tokio::test]
async fn an_invitation_that_is_strange_revoked_or_over_opens_nothing_and_tells_nothing_also_after_a_restart() {
    let _stage = stage().await;
    let home = small_and_near();
    let r58 = R58::start(&home, "device").await;
    let made = invite(&r58, &json!({ "uses": "repeated" })).await;
    let other = invite(&r58, &json!({ "seat": "guest2" })).await;
    let text = |made: &Value, key: &str| made[key].as_str().expect("text").to_owned();
    let (id, token) = (text(&made, "id"), text(&made, "token"));
    assert_eq!(text(&made, "join_url"), format!("{}/join/{id}#{token}", r58.device));
    let state = format!("/guest/{id}");
    let (status, body) = ask(&r58, Method::GET, &state, &token).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["state"], &body["name"]), (StatusCode::OK, &json!("outside"), &json!(NAME)));

    let over = invite(&r58, &json!({ "expires_in_seconds": 1 })).await;
    for path in [state.clone(), format!("/whip/{id}"), "/whip/guest1".to_owned(), "/whip/nobody".to_owned()] {
        let method = || if path == state { Method::GET } else { Method::POST };
        for (stolen, status) in [("0123456789abcdef0123456789abcdef", 401), (&text(&other, "token"), 403), (&id, 401)] {
            assert_eq!(ask(&r58, method(), &path, stolen).await.0, status, "{path}");
        }
    }
    let path = format!("/whip/{}", text(&over, "id"));
    until(std::time::Duration::from_secs(5), "an invitation that is over", || async {
        let (status, body) = ask(&r58, Method::GET, &path.replace("whip", "guest"), &text(&over, "token")).await;
        if status == StatusCode::FORBIDDEN { Ok(()) } else { Err(body) }
    })
    .await;
    assert_eq!(ask(&r58, Method::POST, &path, &text(&over, "token")).await.0, 403);

    // What is kept holds no token, and stands after a restart; what was taken back stays so.
    let list = r58.json("/api/invitations").await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    assert!(!list.to_string().contains(&token) && !list.to_string().contains("sha256"), "{list}");
    let revoke = r58.http().delete(format!("{}/api/invitations/{}", r58.device, text(&other, "id")));
    assert_eq!(revoke.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    assert!(r58.stop().await.success());
    let r58 = R58::start(&home, "device").await;
    assert_eq!(ask(&r58, Method::GET, &state, &token).await.0, StatusCode::OK);
    let (status, body) =
        ask(&r58, Method::POST, &format!("/whip/{}", text(&other, "id")), &text(&other, "token")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("withdrawn"), "{body}");

    for (path, body, status) in [
        ("/api/invitations", json!({ "seat": "guest9", "name": "x" }), 404),
        ("/api/invitations", json!({ "seat": "guest1", "name": " " }), 400),
        ("/api/invitations", json!({ "seat": "guest1", "name": "x", "expires_in_seconds": 0 }), 400),
        ("/api/invitations", json!({ "seat": "guest1", "name": "x", "admin": true }), 400),
        ("/api/guests/guest1/admit", json!({}), 409),
        ("/api/guests/guest9/admit", json!({}), 404),
        ("/api/guests/guest1/level", json!({ "level_db": 99 }), 400),
        ("/api/guests/guest1/juggle", json!({}), 404),
    ] {
        let (got, answer) = r58.post(path, &body).await;
        assert_eq!(got, status, "{path} {body}: {answer}");
    }
    assert!(r58.stop().await.success());
}

/// Opens a link, waits for the pre-flight and joins.
async fn join(guest: &Browser, link: &Value, name: &str) {
    guest.open(link.as_str().expect("a link")).await;
    let ready =
        "document.body.dataset.state === 'ready' && ['good', 'doubtful'].includes(document.body.dataset.preflight)";
    guest.until(PATIENCE, "a pre-flight that finds nothing fatal", ready, "document.body.innerText").await;
    guest.screenshot(&format!("{name}-preflight")).await;
    let moods = "[...document.querySelectorAll('[data-testid^=check-]')].map((one) => one.dataset.mood).join()";
    let moods = guest.script(&format!("return {moods}")).await;
    // The last is how fast the box answers: on a busy machine it answers slowly, and the page says so.
    let right = [json!("good,good,good,good,good"), json!("good,good,good,good,warn")];
    assert!(right.contains(&moods), "{moods}");
    guest.click("join").await;
}

async fn waits(guest: &Browser) {
    let waiting = "document.body.dataset.state === 'waiting' && document.body.innerText.includes('waiting room')";
    guest.until(PATIENCE, "the waiting room", waiting, "document.body.innerText").await;
}

#[tokio::test]
async fn an_invited_guest_is_seen_by_the_crew_alone_until_it_is_let_in_and_goes_when_it_is_removed() {
    let _stage = stage().await;
    let home = small_and_near();
    let r58 = R58::start(&home, "device").await;
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), None).await;
    let crew = Browser::start(&Capture::Pattern, None).await;
    crew.open(&format!("{}/", r58.device)).await;
    let page = "document.querySelector('[data-testid=invite]:not(:disabled)')";
    crew.until(PATIENCE, "the crew's page", page, "document.body.innerText").await;
    crew.click("invite").await;
    crew.script(&format!("document.querySelector('[data-testid=invite-name]').value = '{NAME}'")).await;
    crew.screenshot("crew-invite").await;
    crew.click("make-link").await;
    let told = "document.querySelector('[data-testid=invite-link]')";
    crew.until(PATIENCE, "the link", told, "document.body.innerText").await;
    crew.screenshot("crew-link").await;
    let link = crew.script(&format!("return {told}.textContent")).await;
    crew.script("document.querySelector('dialog[open]').close()").await;

    take(&r58, "full-guest1").await;
    join(&guest, &link, "invited").await;
    waits(&guest).await;
    guest.screenshot("invited-waiting").await;
    let button = "document.querySelector('[data-testid=admit-guest1]')";
    crew.until(PATIENCE, "the door", button, "document.body.innerText").await;
    until(PATIENCE, "the guest on the crew's tile", || async {
        let jpeg = r58.get("/api/thumbnails/guest1").await.bytes().await.expect("a thumbnail");
        let colour = Picture::decode(&jpeg).mean(0.1, 0.1, 0.8, 0.8);
        if is_the_guest(colour) { Ok(()) } else { Err(colour) }
    })
    .await;
    assert!(!is_the_guest(on_air(&r58).await), "whoever waits is not in the programme");
    assert!(level(&r58).await < -60.0, "nor heard");
    crew.script("document.querySelector('.guests').scrollIntoView()").await;
    crew.screenshot("crew-waiting").await;
    crew.click("admit-guest1").await;
    is_live(&guest).await;
    shows(&r58).await;
    until(PATIENCE, "the guest's voice", || async { loud(&r58, |level| level > -40.0).await }).await;
    guest.until(PATIENCE, "tally", "document.body.dataset.tally === 'programme'", "document.body.innerText").await;
    guest.screenshot("invited-on-air").await;
    let state = r58.state().await;
    let label = |list: &str, id: &str| {
        let found = state[list].as_array().into_iter().flatten().find(|one| one["id"] == id);
        found.map(|one| one["label"].to_string()).unwrap_or_default()
    };
    assert_eq!(label("inputs", "guest1"), format!("{NAME:?}"));
    assert!(label("scenes", "full-guest1").contains(NAME), "{}", state["scenes"]);

    crew.click("mute-guest1").await;
    until(PATIENCE, "silence", || async { loud(&r58, |level| level < -60.0).await }).await;
    let muted = "document.body.innerText.includes('The crew has muted you')";
    guest.until(PATIENCE, "to be told", muted, "document.body.innerText").await;
    crew.click("mute-guest1").await;
    until(PATIENCE, "the voice again", || async { loud(&r58, |level| level > -40.0).await }).await;
    // The browser's own gain control goes on turning the voice up and down: only looks one after the other are compared.
    until(PATIENCE, "the voice, softer", || async {
        let (full, soft) = (at_level(&r58, 0).await, at_level(&r58, -12).await);
        if (full - soft - 12.0).abs() < 2.0 { Ok(()) } else { Err((full, soft)) }
    })
    .await;
    let (status, report) = r58.post("/api/guests/guest1/rename", &json!({ "name": "Countess" })).await;
    assert_eq!((status, &report["label"]), (StatusCode::OK, &json!("Countess")));
    let named = "document.querySelector('[data-testid=seat-guest1]').innerText.includes('Countess')";
    crew.until(PATIENCE, "the new name", named, "document.body.innerText").await;
    crew.screenshot("crew-live").await;

    crew.click("remove-guest1").await;
    fails(&guest, "removed").await;
    // Nobody is filmed on a page that leads nowhere any more.
    assert_eq!(guest.script("return document.querySelector('[data-testid=self]').srcObject").await, Value::Null);
    guest.screenshot("invited-removed").await;
    r58.state_until("a free seat", |state| state["inputs"][1]["signal"] == "free").await;
    assert!(r58.stop().await.success());
}

/// Level of the programme in dBFS.
async fn level(r58: &R58) -> f64 {
    r58.json("/api/mixer/status").await["stats"]["level_db"].as_f64().expect("a level")
}

/// Loudness with the guest's fader at `level_db`.
async fn at_level(r58: &R58, level_db: i32) -> f64 {
    let (status, answer) = r58.post("/api/guests/guest1/level", &json!({ "level_db": level_db })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    loudness(r58).await
}

/// The middle of some looks: each sees ten milliseconds, in which a voice may fade in, have a gap or crack on a busy machine.
async fn loudness(r58: &R58) -> f64 {
    let mut looks = Vec::new();
    for _ in 0..25 {
        looks.push(level(r58).await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    looks.sort_by(f64::total_cmp);
    looks[looks.len() / 2]
}

async fn loud(r58: &R58, right: impl Fn(f64) -> bool) -> Result<(), f64> {
    let level = level(r58).await;
    if right(level) { Ok(()) } else { Err(level) }
}

#[tokio::test]
async fn a_guest_is_invited_and_let_in_from_afar_by_way_of_the_fleet_server() {
    let _stage = stage().await;
    let site = Site::start().await;
    let boxed = site.enrol("studio", "[[device.seats]]\nid = \"guest1\"\n[device.webrtc]\nloopback = true").await;
    let r58 = boxed.start().await;
    let path = "/api/v1/devices/studio";
    let order = json!({ "seat": "guest1", "name": NAME });
    let made = until(PATIENCE, "an invitation by the fleet", || async {
        site.api.call(Method::POST, &format!("{path}/invitations"), Some(&order)).await
    })
    .await;
    let link = made["join_url"].as_str().expect("a link");
    let (id, token) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    assert_eq!(link, format!("{}/join/{id}.studio#{token}", site.api.base));
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), None).await;
    take(&r58, "full-guest1").await;
    join(&guest, &made["join_url"], "afar").await;
    waits(&guest).await;
    assert!(!is_the_guest(on_air(&r58).await));
    site.api.post(&format!("{path}/guests/guest1/admit"), &json!({})).await;
    is_live(&guest).await;
    shows(&r58).await;
    guest.until(PATIENCE, "tally", "document.body.dataset.tally === 'programme'", "document.body.innerText").await;
    let back = "document.querySelector('[data-testid=return][data-up=true]')";
    guest.until(PATIENCE, "the programme on the guest's page", back, "document.body.innerText").await;
    guest.screenshot("afar-on-air").await;
    dashboard(&site).await;
    guest.click("leave").await;
    r58.state_until("a free seat", |state| state["inputs"][2]["signal"] == "free").await;

    let list = site.api.get(&format!("{path}/invitations")).await;
    assert_eq!(
        (list["items"][1]["state"].as_str(), list["items"][1]["created_by"].as_str()),
        (Some("open"), Some("admin@r58.local"))
    );
    let delete =
        site.api.http.delete(format!("{}{path}/invitations/{id}", site.api.base)).bearer_auth(site.api.token());
    assert_eq!(delete.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    guest.open("about:blank").await;
    guest.open(link).await;
    fails(&guest, "withdrawn").await;
    guest.screenshot("afar-withdrawn").await;
    assert!(r58.stop().await.success());
}

/// What an operator sees of it, and the same by the command line.
async fn dashboard(site: &Site) {
    let page = Browser::start(&Capture::Pattern, None).await;
    page.open(&format!("{}/devices/studio", site.api.base)).await;
    page.until(PATIENCE, "the sign-in", "document.querySelector('form')", "document.body.innerText").await;
    let fill = format!(
        "for (const [name, value] of [['email', 'admin@r58.local'], ['password', '{}']]) {{
            const field = document.querySelector(`input[name=${{name}}]`);
            field.value = value;
            field.dispatchEvent(new Event('input', {{ bubbles: true }}));
        }}
        document.querySelector('form').requestSubmit();",
        site.password
    );
    page.script(&fill).await;
    let live =
        "document.querySelector('[data-testid=seat-guest1][data-state=live]')?.innerText.includes('Ada Lovelace')";
    page.until(PATIENCE, "the guest on the dashboard", live, "document.body.innerText").await;
    for name in ["programme", "guest1"] {
        page.click(&format!("live-{name}")).await;
        // A pressed box shows the programme alone, and says so.
        let pressed = name != "programme";
        let frames = format!(
            "document.querySelector('[data-testid=live-{name}]').parentElement.querySelector('video')
                ?.getVideoPlaybackQuality().totalVideoFrames > 30
                || ({pressed} && document.body.innerText.includes('The box is short of power'))"
        );
        page.until(PATIENCE, &format!("{name} live on the dashboard"), &frames, "document.body.innerText").await;
    }
    page.screenshot("fleet-guests").await;
    // Back at the list, by the keyboard alone to the box again; what is wanted stands in the address.
    page.script("document.querySelector('main.device nav a').click()").await;
    let listed = "document.querySelector('[data-testid=view-list]')";
    page.until(PATIENCE, "the dashboard's front page", listed, "document.body.innerText").await;
    page.click("view-list").await;
    page.click("filter-online").await;
    let row = "document.querySelector('[data-testid=line-studio]') && location.search === '?status=online&view=list'";
    page.until(PATIENCE, "the box in the list", row, "[location.href, document.body.innerText]").await;
    page.screenshot("fleet-list").await;
    page.script("document.querySelector('[data-testid=roll] [role=listitem] a[tabindex=\"0\"]').focus()").await;
    page.script("document.activeElement.click()").await;
    let again = "document.querySelector('main.device h1')?.innerText === 'studio'";
    page.until(PATIENCE, "the box's page", again, "document.body.innerText").await;
    let ctl = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(binary());
        command.arg("ctl").args(args).args(["--url", &site.api.base, "--token", site.api.token()]);
        let output = command.output().await.expect("r58 ctl");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let told = ctl(&["invite", "studio", "guest1", "Grace", "--repeated", "--expires-in", "3600"]).await;
    let link = told.lines().next().expect("a link");
    let id = link.rsplit('/').next().and_then(|name| name.split('.').next()).expect("an id");
    assert!(link.starts_with(&format!("{}/join/", site.api.base)) && link.contains(".studio#"), "{told}");
    assert!(ctl(&["invitations", "studio"]).await.contains("Grace"));
    ctl(&["revoke", "studio", id]).await;
    let list = ctl(&["invitations", "studio", "--json"]).await;
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert!(list.as_array().into_iter().flatten().any(|one| one["id"] == id && one["state"] == "revoked"), "{list}");
}
