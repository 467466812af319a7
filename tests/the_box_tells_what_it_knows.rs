//! What a box knows reaches those who look after it: its log, past and live, and support bundles, whoever is killed in between;
//! and none of its secrets comes along, to wherever.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures_util::StreamExt as _;
use r58_actors::bundle_courier::PIECE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::axe::assert_accessible;
use super::support::dashboard::{find, fits_everywhere, signed_in, type_into};
use super::support::r58::{PATIENCE, R58};
use super::support::road::Road;
use super::support::site::{Boxed, Site};
use super::support::{stage, until};

/// Planted in place of every secret that a box has. Each is told from the others when it is found.
const CREW: &str = "Qm4rk3r-crew-passw0rd";
const SEAT: &str = "Qm4rk3r-seat-t0ken-of-a-guest";
const CAMERA: &str = "Qm4rk3r-camera";
const TURN: &str = "Qm4rk3r-turn-shared-secret";
const SFU: &str = "Qm4rk3r-sfu-app-secret";

struct Rig {
    site: Site,
    boxed: Boxed,
    device: R58,
    /// From the box to the fleet's API.
    road: Road,
    _secrets: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let site = Site::start().await;
        let secrets = tempfile::tempdir().expect("a directory");
        for (name, secret) in [("turn", TURN), ("sfu", SFU)] {
            std::fs::write(secrets.path().join(name), secret).expect("a secret");
        }
        let dir = secrets.path().display();
        let more = format!(
            "[[device.inputs]]\nid = \"far\"\nsource = {{ kind = \"rtsp\", url = \"rtsp://crew:{CAMERA}@127.0.0.1:9/one\" }}\n\
             [[device.seats]]\nid = \"guest1\"\ntoken = \"{SEAT}\"\n\
             [device.turn]\nfleet = false\nshared_secret_file = \"{dir}/turn\"\nshared_urls = [\"turn:127.0.0.1:9?transport=udp\"]\n\
             [device.sfu]\napp_id = \"app\"\nsecret_file = \"{dir}/sfu\"\nbase_url = \"http://127.0.0.1:9\"\n"
        );
        let boxed = site.enrol("box1", &more).await;
        let road = Road::to(&site.api.base).await;
        let device = start(&boxed, &road).await;
        let rig = Self { site, boxed, device, road, _secrets: secrets };
        rig.is_online().await;
        rig
    }

    async fn is_online(&self) {
        until(PATIENCE, "the box online", || async {
            let card = self.site.api.call(Method::GET, "/api/v1/devices/box1", None).await?;
            if card["online"] == true { Ok(()) } else { Err(card.to_string()) }
        })
        .await;
    }

    async fn raw(&self, method: Method, path: &str) -> reqwest::Response {
        let request = self.site.api.http.request(method, format!("{}{path}", self.site.api.base));
        request.bearer_auth(self.site.api.token()).send().await.expect("an answer of the fleet server")
    }
}

async fn start(boxed: &Boxed, road: &Road) -> R58 {
    let mut command = boxed.command();
    command.env("R58__DEVICE__CREW_PASSWORD", CREW).env("R58__DEVICE__LINK__FLEET_URL", &road.url);
    R58::spawn("device", &mut command).await.with_crew_password(CREW)
}

/// Reads a stream of server-sent events until one fits.
async fn heard(
    stream: &mut (impl futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin),
    what: &str,
) -> String {
    let mut text = String::new();
    let reading = async {
        while let Some(Ok(chunk)) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk));
            if text.contains(what) && text.ends_with("\n\n") {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(PATIENCE, reading).await;
    assert_eq!(found, Ok(true), "{what} was not heard: {text}");
    text
}

fn unpacked(archive: &[u8]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(archive)).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        files.insert(path, String::from_utf8_lossy(&content).into_owned());
    }
    files
}

#[tokio::test]
async fn logs_and_bundles_come_from_a_box_whoever_is_killed_and_hold_none_of_its_secrets() {
    let _stage = stage().await;
    let mut rig = Rig::start().await;
    let api = &rig.site.api;
    let mut said: Vec<(String, String)> = Vec::new();

    // The log as it comes: the stream is open before anything happens.
    let url = format!("{}/api/v1/devices/box1/logs/live?level=info", api.base);
    let live = reqwest::Client::new().get(url).bearer_auth(api.token()).send().await.expect("a stream");
    assert_eq!(live.status(), StatusCode::OK);
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    let mut live = live.bytes_stream();
    heard(&mut live, "event: hello").await;
    let command = api.command("box1", "identify", json!({"seconds": 1})).await;
    let lines = heard(&mut live, &command).await;
    assert!(lines.contains("event: log"), "{lines}");
    said.push(("the live log".into(), lines));
    drop(live);
    api.ended(&command).await;

    // The same record afterwards, by its actor, and where to go on from there.
    let past = api.get("/api/v1/devices/box1/logs?actor=fleet_link&limit=1000").await;
    assert!(past["items"].to_string().contains(&command), "{past}");
    let cursor = past["cursor"].as_u64().expect("a cursor");
    let next = api.get(&format!("/api/v1/devices/box1/logs?cursor={cursor}&level=error")).await;
    assert_eq!(next["has_more"], false);
    assert_eq!(rig.raw(Method::GET, "/api/v1/devices/box1/logs?limit=0").await.status(), StatusCode::BAD_REQUEST);
    said.push(("past log".into(), api.get("/api/v1/devices/box1/logs?level=debug&limit=1000").await.to_string()));
    let own = rig.device.json("/api/logs?limit=5").await;
    assert!((1..=5).contains(&own["items"].as_array().map_or(0, Vec::len)), "{own}");
    said.push(("the box's own log".into(), rig.device.json("/api/logs?limit=1000").await.to_string()));

    // A bundle while all is well.
    rig.device.state_until("the programme", |state| state["programme"]["encoder"]["name"] != "").await;
    let made = api.post("/api/v1/devices/box1/bundles", &json!({"include_recordings": true})).await;
    let files = unpacked(&rig.downloaded(word(&made, "id")).await);
    for name in ["manifest.json", "config.json", "actors.json", "state.json", "system.json", "logs/newest.jsonl"] {
        assert!(files.contains_key(name), "{name} is not in {:?}", files.keys());
    }
    assert!(files.keys().any(|name| name.starts_with("graphs/") && name.contains("programme")), "{:?}", files.keys());
    assert!(files["manifest.json"].contains("does not record yet"), "{}", files["manifest.json"]);
    said.extend(files);

    // And one with the server killed as soon as it had asked, and the box killed too before it could deliver.
    let made = api.post("/api/v1/devices/box1/bundles", &json!({})).await;
    let id = word(&made, "id").to_owned();
    rig.site.kill_fleet();
    rig.device.process.kill();
    rig.site.start_fleet().await;
    rig.device = start(&rig.boxed, &rig.road).await;
    said.extend(unpacked(&rig.downloaded(&id).await));
    rig.is_online().await;
    said.extend(a_large_one_with_the_server_killed_within_a_piece(&mut rig).await);
    said.push(("its page".into(), on_its_page(&rig, &id).await));

    // And everything else that either side says.
    let api = &rig.site.api;
    for path in ["", "/commands", "/bundles", "/heartbeats", "/guests", "/logs?level=trace&limit=1000"] {
        let answer = rig.raw(Method::GET, &format!("/api/v1/devices/box1{path}")).await;
        said.push((format!("GET devices/box1{path}"), answer.text().await.expect("text")));
    }
    // Errors that quote what was sent, or fail on the way to what a secret opens.
    let source = json!({"kind": "rtsp", "url": format!("rtsp://u:{CAMERA}@127.0.0.1:9/two"), "x": 1});
    let wrong = api.command("box1", "config", json!({"changes": {"inputs": {"far": {"source": source}}}})).await;
    let wrong = api.ended(&wrong).await;
    said.push(("a refused command".into(), json!([wrong["state"], wrong["reason"], wrong["result"]]).to_string()));
    for path in ["/api/actors", "/api/state", "/api/cameras/far/signal", "/api/logs?level=nonsense"] {
        said.push((format!("the box's {path}"), rig.device.get(path).await.text().await.expect("text")));
    }
    said.push(("the box's output".into(), rig.device.process.output()));
    for file in std::fs::read_dir(rig.boxed.state_file("logs")).expect("log files") {
        let path = file.expect("a file").path();
        said.push((path.display().to_string(), std::fs::read_to_string(path).expect("text")));
    }
    let token = rig.boxed.identity().token.expose().to_owned();
    for (place, text) in &said {
        for secret in [CREW, SEAT, CAMERA, TURN, SFU, token.as_str()] {
            assert!(!text.contains(secret), "{secret} is in {place}: {text}");
        }
    }

    // Gone is gone, also for whoever knows the name.
    assert_eq!(rig.raw(Method::DELETE, &format!("/api/v1/bundles/{id}")).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(rig.raw(Method::GET, &format!("/api/v1/bundles/{id}/download")).await.status(), StatusCode::NOT_FOUND);
    assert!(!rig.site.state_file(&format!("bundles/{id}.tar.gz")).exists());
}

/// The server is killed when one piece of a bundle is there for certain and a part of the next has come; back again, it gets the rest
/// and nothing of what it had, and the bundle is there whole, and once. Answers with what is in it.
async fn a_large_one_with_the_server_killed_within_a_piece(rig: &mut Rig) -> BTreeMap<String, String> {
    // Two pieces of what no compression makes smaller than three quarters.
    let noise = |n: u64| STANDARD_NO_PAD.encode(Sha256::digest(n.to_le_bytes()));
    let words: Vec<String> = (0..2 * PIECE / 43).map(noise).collect();
    let log = words.chunks(100).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n");
    std::fs::write(rig.boxed.state_file("logs").join("log-0.jsonl"), &log).expect("an old log");

    rig.road.let_through(PIECE + PIECE / 4);
    let made = rig.site.api.post("/api/v1/devices/box1/bundles", &json!({})).await;
    let path = format!("/api/v1/bundles/{}", word(&made, "id"));
    let standing = async |rig: &Rig, what: &str| {
        until(PATIENCE, what, || async {
            let bundle = rig.site.api.call(Method::GET, &path, None).await?;
            if bundle["received_bytes"] == PIECE { Ok(bundle) } else { Err(bundle.to_string()) }
        })
        .await
    };
    rig.road.is_held().await;
    let before = standing(rig, "one piece").await;
    assert_eq!(before["state"], "uploading");
    rig.site.kill_fleet();
    // Killed a moment later, it would have written some of the next piece and not yet counted it.
    let file = rig.site.state_file(&format!("bundles/{}.tar.gz", word(&made, "id")));
    let mut kept = std::fs::read(&file).expect("the piece");
    assert_eq!(kept.len() as u64, PIECE);
    kept.extend([0x5a; 70_000]);
    std::fs::write(&file, kept).expect("written");
    rig.site.start_fleet().await;
    standing(rig, "the same piece").await;

    let passed = rig.road.passed();
    rig.road.open();
    let archive = rig.downloaded(word(&made, "id")).await;
    let rest = archive.len() as u64 - PIECE;
    let again = rig.road.passed() - passed;
    assert!((rest..rest + PIECE / 2).contains(&again), "{again} bytes came for a rest of {rest}");

    // The box knows it as delivered, of the very bytes that it made, and has told so once.
    let note = format!("bundles/{}.json", word(&made, "id"));
    until(PATIENCE, "delivered", || async {
        let note = rig.boxed.state_json(&note);
        if note["state"] == "delivered" { Ok(()) } else { Err(note.to_string()) }
    })
    .await;
    assert_eq!(rig.boxed.state_json(&note)["sha256"], hex::encode(Sha256::digest(&archive)));
    let told = |line: &&str| line.contains("is with the fleet") && line.contains(word(&made, "id"));
    until(PATIENCE, "its word", || async {
        let said = rig.device.process.output();
        if said.lines().filter(told).count() == 1 { Ok(()) } else { Err(said) }
    })
    .await;
    let listed = rig.site.api.get("/api/v1/devices/box1/bundles").await;
    let same = listed["items"].as_array().expect("bundles").iter().filter(|bundle| bundle["id"] == made["id"]).count();
    assert_eq!((same, &listed["total"]), (1, &json!(3)), "{listed}");
    assert_eq!(std::fs::read_dir(rig.site.state_file("bundles")).expect("files").count(), 3);

    let mut files = unpacked(&archive);
    let held = files.remove("logs/00000000000000000000.jsonl").expect("the old log");
    assert_eq!(held, log, "byte by byte");
    files
}

/// The same for whoever looks at the box on the dashboard, live: its actors, log and bundles, and a take from the click to its
/// effect. Answers with what was shown.
async fn on_its_page(rig: &Rig, bundle: &str) -> String {
    let browser = signed_in(&rig.site, "/devices/box1").await;
    find(&browser, "its actors", "[data-testid^=actor-]").await;
    find(&browser, "its bundle", &format!("[data-testid=download-{bundle}]")).await;
    browser.script("document.querySelector('[data-testid=logs] summary').click()").await;
    find(&browser, "its log", ".log li").await;
    type_into(&browser, &[("[data-testid=scene]", "full-cam2")]).await;
    browser.click("do-take").await;
    find(&browser, "the effect", "[data-type=take][data-state=succeeded] .step:last-child").await;
    browser
        .until(
            PATIENCE,
            "what is on air",
            "document.querySelector('[data-testid=input-cam2].programme')",
            "document.body.innerText",
        )
        .await;
    assert_accessible(&browser, "a box's page").await;
    fits_everywhere(&browser, "device").await;
    let text = browser.script("return document.documentElement.outerHTML").await.to_string();
    browser.close().await;
    text
}

impl Rig {
    /// The archive of a bundle, once it is here.
    async fn downloaded(&self, id: &str) -> Vec<u8> {
        let bundle = until(PATIENCE, "the end of the bundle", || async {
            let bundle = self.site.api.call(Method::GET, &format!("/api/v1/bundles/{id}"), None).await?;
            if ["ready", "failed"].contains(&word(&bundle, "state")) { Ok(bundle) } else { Err(bundle.to_string()) }
        })
        .await;
        assert_eq!(bundle["state"], "ready", "{bundle}");
        let answer = self.raw(Method::GET, &format!("/api/v1/bundles/{id}/download")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/gzip");
        let archive = answer.bytes().await.expect("an archive").to_vec();
        assert_eq!(hex::encode(Sha256::digest(&archive)), word(&bundle, "sha256"));
        archive
    }
}

fn word<'a>(document: &'a Value, name: &str) -> &'a str {
    document[name].as_str().unwrap_or_default()
}
