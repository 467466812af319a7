//! Boxes in Home Assistant: told by way of a mosquitto with the shipped rules; and, where there is a Home Assistant, found by the real one.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::by_http::HttpBox;
use super::support::mosquitto::{Mosquitto, PASSWORD};
use super::support::process::Process;
use super::support::r58::PATIENCE;
use super::support::site::Site;
use super::support::{free_port, stage, until};

/// What Home Assistant's account finds retained there: topic and payload.
async fn retained(broker: &str, user: &str) -> String {
    let address = broker.trim_start_matches("mqtt://");
    let (host, port) = address.split_once(':').expect("an address");
    let listened = tokio::process::Command::new("mosquitto_sub")
        .args([
            "-V",
            "5",
            "-h",
            host,
            "-p",
            port,
            "-u",
            user,
            "-P",
            PASSWORD,
            "-t",
            "r58/1/default/#",
            "-F",
            "%t %p",
            "-W",
            "1",
        ])
        .output()
        .await
        .expect("mosquitto_sub is installed");
    String::from_utf8_lossy(&listened.stdout).into_owned()
}

#[tokio::test]
async fn boxes_are_told_by_way_of_a_mosquitto_with_the_shipped_rules() {
    let mut broker = Mosquitto::prepare();
    broker.let_in("homeassistant", PASSWORD);
    broker.let_in("other", PASSWORD);
    broker.start().await;
    let keys = format!("home_assistant = [\"default\"]\n{}", broker.broker_table());
    let site = Site::with_broker(&keys, broker.url()).await;
    let code = site.api.post("/api/v1/enrolment-codes", &json!({})).await["code"].clone();
    HttpBox::register(&site.api, &code, "stage").await;
    let url = broker.url();
    let found = |wanted: &'static str, there: bool| {
        let url = url.clone();
        async move {
            until(PATIENCE, "what is retained", || async {
                let found = retained(&url, "homeassistant").await;
                if found.contains(wanted) == there { Ok(found) } else { Err(found) }
            })
            .await
        }
    };
    let told = found("r58/1/default/_ha/device/stage/config {", true).await;
    assert!(told.contains("r58/1/default/stage/up/presence"), "{told}");
    assert_eq!(retained(&url, "other").await, "", "who has no rule reads nothing");
    site.api.delete("/api/v1/devices/stage").await;
    found("_ha/device/stage", false).await;
}

/// A Home Assistant that runs, and its API as its owner.
struct HomeAssistant {
    process: Process,
    _dir: TempDir,
    http: Client,
    base: String,
    token: String,
}

/// Set by `make test-home-assistant`.
const HASS: &str = "R58_HASS";
/// Its first start on a small machine.
const FIRST_START: Duration = Duration::from_secs(240);

impl HomeAssistant {
    /// Starts one that knows nothing, and does what its first user does on its first page.
    async fn start() -> Self {
        let hass = std::env::var(HASS).unwrap_or_else(|_| panic!("{HASS} names no Home Assistant; see the Makefile"));
        let (dir, port) = (tempfile::tempdir().expect("a directory"), free_port());
        let config = format!(
            "homeassistant:\n  name: Hall\n  time_zone: UTC\n  unit_system: metric\n\
             http:\n  server_host: 127.0.0.1\n  server_port: {port}\nlogger:\n  default: warning\n"
        );
        std::fs::write(dir.path().join("configuration.yaml"), config).expect("write");
        let mut command = Command::new(hass);
        command.arg("--config").arg(dir.path()).args(["--skip-pip"]).stdin(Stdio::null());
        let process = Process::start("home assistant", &mut command);
        let base = format!("http://127.0.0.1:{port}");
        let http = Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let mut home = Self { process, _dir: dir, http, base, token: String::new() };
        let client = format!("{}/", home.base);
        let owner = json!({"client_id": client, "name": "Owner", "username": "owner", "password": "a good password",
            "language": "en"});
        let made = until(FIRST_START, "its first page", || {
            home.ask(Method::POST, "/api/onboarding/users", Some(owner.clone()))
        })
        .await;
        let code = made["auth_code"].as_str().expect("a code").to_owned();
        let form = format!("grant_type=authorization_code&code={code}&client_id={client}");
        let request = home.http.post(format!("{}/auth/token", home.base)).body(form);
        let answer =
            request.header("Content-Type", "application/x-www-form-urlencoded").send().await.expect("an answer");
        let tokens: Value = answer.json().await.expect("JSON");
        home.token = tokens["access_token"].as_str().unwrap_or_else(|| panic!("no token in {tokens}")).to_owned();
        home
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, String> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        match status {
            StatusCode::OK | StatusCode::CREATED => {
                serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
            }
            _ => Err(format!("{path}: {status}: {text}")),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, path, Some(body)).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Goes through its forms as its owner would: the broker, then where boxes are told of.
    async fn use_broker(&self, broker: &str, user: &str, password: &str) {
        let address = broker.trim_start_matches("mqtt://");
        let (host, port) = address.split_once(':').expect("an address");
        let account = json!({"broker": host, "port": port.parse::<u16>().expect("a port"), "username": user, "password": password});
        let flow = self.post("/api/config/config_entries/flow", json!({"handler": "mqtt"})).await;
        let path = format!("/api/config/config_entries/flow/{}", flow["flow_id"].as_str().expect("a form"));
        let made = self.post(&path, account.clone()).await;
        assert_eq!(made["type"], "create_entry", "{made}");
        let entry = made["result"]["entry_id"].clone();
        let options = "/api/config/config_entries/options/flow";
        let flow = self.post(options, json!({"handler": entry})).await;
        let path = format!("{options}/{}", flow["flow_id"].as_str().expect("a form"));
        self.post(&path, account).await;
        let told = json!({"discovery": true, "discovery_prefix": "r58/1/default/_ha", "birth_enable": false, "will_enable": false});
        let done = self.post(&path, told).await;
        assert_eq!(done["type"], "create_entry", "{done}");
    }

    /// Its entities of one box: name and state.
    async fn entities(&self, prefix: &str) -> Result<Vec<(String, String)>, String> {
        let all = self.ask(Method::GET, "/api/states", None).await?;
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let all = all.as_array().into_iter().flatten().map(|one| (text(one, "entity_id"), text(one, "state")));
        let mut found: Vec<_> =
            all.filter(|(id, _)| id.split('.').nth(1).is_some_and(|name| name.starts_with(prefix))).collect();
        found.sort();
        Ok(found)
    }

    /// Waits until its entities of a box are as they should be.
    async fn until(&self, what: &str, right: impl Fn(&[(String, String)]) -> bool) -> Vec<(String, String)> {
        until(PATIENCE, what, || async {
            let found = self.entities("stage").await?;
            if right(&found) { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
    }
}

fn is(found: &[(String, String)], entity: &str, state: &str) -> bool {
    found.iter().any(|(id, is)| id == entity && is == state)
}

/// The real Home Assistant finds a real box, follows it, misses it, and forgets it.
#[tokio::test]
#[ignore = "wants a Home Assistant: make test-home-assistant"]
async fn home_assistant_finds_a_box_follows_it_and_forgets_it() {
    let _stage = stage().await;
    let begin = Instant::now();
    let site = Site::with_fleet("home_assistant = [\"default\"]\n").await;
    let viewer =
        json!({"email": "home@example.org", "name": "Home Assistant", "role": "viewer", "password": "a good password"});
    site.api.post("/api/v1/users", &viewer).await;
    let boxed = site.enrol("stage", "").await;
    let mut running = boxed.start().await;
    let home = HomeAssistant::start().await;
    home.use_broker(&site.broker_url, "home@example.org", "a good password").await;

    let found = home.until("a box that is there", |found| {
        is(found, "binary_sensor.stage_online", "on") && is(found, "binary_sensor.stage_programme", "on")
    });
    let found = found.await;
    println!("after {:?}: {found:?}", begin.elapsed());
    let names: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
    for wanted in
        ["binary_sensor.stage_cam1", "binary_sensor.stage_cam2", "sensor.stage_scene", "sensor.stage_temperature"]
    {
        assert!(names.contains(&wanted), "{names:?}");
    }
    let scene = site.api.command("stage", "take", json!({"scene": "full-cam2", "kind": "cut"})).await;
    assert_eq!(site.api.ended(&scene).await["state"], "succeeded");
    home.until("the scene on air", |found| is(found, "sensor.stage_scene", "full-cam2")).await;

    // Its connection breaks: it is offline, and of the rest nothing is known.
    running.process.kill();
    home.until("a box that is gone", |found| {
        is(found, "binary_sensor.stage_online", "off") && is(found, "sensor.stage_scene", "unavailable")
    })
    .await;
    let back = boxed.start().await;
    home.until("the box again", |found| is(found, "binary_sensor.stage_online", "on")).await;
    drop(back);
    site.api.delete("/api/v1/devices/stage").await;
    home.until("no entity of it", <[_]>::is_empty).await;
    let said = home.process.output();
    // It first connects with a will that no account of the fleet may leave behind, before its owner can switch it off.
    let complaint = |line: &&str| line.contains("ERROR") && line.contains("mqtt") && !line.contains("not authorised");
    let complaints: Vec<&str> = said.lines().filter(complaint).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
