//! A fleet server and its boxes, each a process of its own on ports that stay, so that each can be killed and come back alone.

use std::path::PathBuf;
use std::time::Duration;

use r58_actors::fleet_link::identity::{self, Identity, Registration, Secret};
use r58_mqtt::payload::ServerState;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::mosquitto::Mosquitto;
use super::process::Process;
use super::r58::{Home, PATIENCE, R58};
use super::rmqttd::Cluster;
use super::{free_port, until};

/// The organization of the first start.
pub const ORG: &str = "default";

/// A fleet server with an address that stays.
pub struct Site {
    home: Home,
    fleet: Option<R58>,
    /// Its API, as the administrator.
    pub api: Api,
    /// Where boxes and clients find the broker.
    pub broker_url: String,
    /// The administrator's password.
    pub password: String,
}

impl Site {
    /// With the embedded broker.
    pub async fn start() -> Self {
        Self::with_fleet("").await
    }

    /// With a broker that may still be down.
    pub async fn with(broker: &Mosquitto) -> Self {
        Self::begin(&broker.broker_table(), broker.url()).await
    }

    /// With a broker that boxes find at `broker_url`; `rest` are its tables.
    pub async fn with_broker(rest: &str, broker_url: String) -> Self {
        Self::begin(rest, broker_url).await
    }

    /// With a cluster that may still be down and asks this server, on that port, who may connect.
    pub async fn with_cluster(cluster: &Cluster) -> Self {
        Self::begin_on(cluster.fleet_port, &cluster.broker_table(), cluster.url()).await
    }

    /// With the embedded broker, and more keys of `[fleet]`.
    pub async fn with_fleet(more: &str) -> Self {
        let port = free_port();
        let table = format!("{more}[fleet.broker]\nlisten = \"127.0.0.1:{port}\"\n");
        Self::begin(&table, format!("mqtt://127.0.0.1:{port}")).await
    }

    async fn begin(rest: &str, broker_url: String) -> Self {
        Self::begin_on(free_port(), rest, broker_url).await
    }

    async fn begin_on(port: u16, rest: &str, broker_url: String) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let home = Home::new(&format!("[fleet]\nlisten = \"{listen}\"\n{rest}"));
        let fleet = R58::start(&home, "fleet").await;
        let password = fleet.password.clone().expect("the first start shows a password");
        let api = Api::sign_in(&fleet.fleet, &password).await;
        Self { home, fleet: Some(fleet), api, broker_url, password }
    }

    /// SIGKILL.
    pub fn kill_fleet(&mut self) {
        if let Some(mut fleet) = self.fleet.take() {
            fleet.process.kill();
        }
    }

    /// Starts the server again.
    pub async fn start_fleet(&mut self) {
        assert!(self.fleet.is_none(), "it runs already");
        self.fleet = Some(R58::start(&self.home, "fleet").await);
    }

    /// The file of the server's state with this name.
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.home.state().join("fleet").join(name)
    }

    /// Enrols a box with a code of the administrator; `more` is the rest of its `[device.link]`.
    pub async fn enrol(&self, id: &str, more: &str) -> Boxed {
        let code = self.api.post("/api/v1/enrolment-codes", &json!({})).await;
        let code = Secret::new(code["code"].as_str().expect("a code"));
        let registration = Registration::of_this_machine(code, id, id, "0");
        let identity = identity::register(&self.api.http, &self.api.base, &registration).await.expect("an identity");
        let home = Home::new(&format!(
            "[log]\nfilter = \"warn,r58_actors=info,webrtc=error,webrtc_ice=error\"\n\
             [device]\nid = \"{id}\"\nlisten = \"127.0.0.1:0\"\n\
             [device.programme]\nwidth = 320\nheight = 180\nfps = 10\nbitrate_kbps = 200\nencoder = \"x264enc\"\n\
             [[device.inputs]]\nid = \"cam1\"\nsource = {{ kind = \"test\", pattern = \"black\", tone_hz = 440 }}\n\
             [[device.inputs]]\nid = \"cam2\"\nsource = {{ kind = \"test\", pattern = \"blue\", tone_hz = 550 }}\n\
             [device.link]\nfleet_url = \"{}\"\nheartbeat_seconds = 1\nhost = \"record\"\n{more}\n",
            self.api.base
        ));
        let boxed = Boxed { id: id.to_owned(), home };
        let dir = boxed.home.state().join("device");
        std::fs::create_dir_all(&dir).expect("a directory");
        identity::save(&dir, &identity).expect("save the identity");
        boxed
    }
}

/// An enrolled box, running or not.
pub struct Boxed {
    /// Its id.
    pub id: String,
    home: Home,
}

impl Boxed {
    /// Starts it and waits for its pages.
    pub async fn start(&self) -> R58 {
        R58::start(&self.home, "device").await
    }

    /// The command that runs it.
    pub fn command(&self) -> std::process::Command {
        self.home.command("device")
    }

    /// Starts it without waiting, with a failpoint perhaps.
    pub fn process(&self, failpoint: Option<&str>) -> Process {
        let mut command = self.home.command("device");
        command.envs(failpoint.map(|step| ("R58_FAILPOINT", step)));
        Process::start(&format!("r58 device {} ({})", self.id, failpoint.unwrap_or("no failpoint")), &mut command)
    }

    /// The file of its state with this name.
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.home.state().join("device").join(name)
    }

    /// JSON of its state directory; null when there is none.
    pub fn state_json(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.state_file(name)).unwrap_or_else(|_| "null".to_owned());
        serde_json::from_str(&text).expect("JSON")
    }

    /// What the recording host was asked so far.
    pub fn asked_of_host(&self) -> Vec<Value> {
        self.state_json("host.json")["recorded"].as_array().cloned().unwrap_or_default()
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        identity::load(&self.home.state().join("device")).expect("a readable identity").expect("an identity")
    }

    /// A topic of its own.
    pub fn topic(&self, rest: &str) -> String {
        format!("r58/1/{ORG}/{}/{rest}", self.id)
    }
}

/// The fleet's API, as the administrator.
#[derive(Clone)]
pub struct Api {
    /// Base address.
    pub base: String,
    /// The client.
    pub http: Client,
    token: String,
}

impl Api {
    /// Signs in as the administrator of the first start.
    pub async fn sign_in(base: &str, password: &str) -> Self {
        // The server ends a connection that is idle for five seconds; a request must not meet that half-way.
        let idle = Duration::from_secs(2);
        let http =
            Client::builder().timeout(Duration::from_secs(10)).pool_idle_timeout(idle).build().expect("a client");
        let mut api = Self { base: base.to_owned(), http, token: String::new() };
        let tokens = api.post("/api/v1/auth/login", &json!({"email": "admin@r58.local", "password": password})).await;
        api.token = tokens["access_token"].as_str().expect("a token").to_owned();
        api
    }

    /// The same server, as who holds this token or key.
    pub fn with_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// The administrator's access token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A request; an error when there is no answer or it is no success.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
    }

    /// An exchange of WHIP or WHEP; whatever comes back is an answer.
    pub async fn signal(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        request
            .header("Content-Type", "application/sdp")
            .body(body)
            .send()
            .await
            .expect("an answer of the fleet server")
    }

    /// GETs JSON.
    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// POSTs JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.call(Method::POST, path, Some(body)).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// DELETEs; there is no answer but that it is done.
    pub async fn delete(&self, path: &str) {
        let request = self.http.delete(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "DELETE {path}: {}", answer.text().await.unwrap_or_default());
    }

    /// Makes a command and answers with its id.
    pub async fn command(&self, device: &str, op: &str, args: Value) -> String {
        let made =
            self.post(&format!("/api/v1/devices/{device}/commands"), &json!({"type": op, "payload": args})).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Makes a signed command that is to be published by hand.
    pub async fn draft(&self, device: &str, op: &str, args: Value) -> Draft {
        let body = json!({"type": op, "payload": args, "draft": true});
        let made = self.post(&format!("/api/v1/devices/{device}/commands"), &body).await;
        let text = |key: &str| made[key].as_str().unwrap_or_else(|| panic!("no {key} in {made}")).to_owned();
        Draft { id: text("id"), topic: text("topic"), message: text("message") }
    }

    /// Waits until a command has ended, and answers with it.
    pub async fn ended(&self, id: &str) -> Value {
        until(PATIENCE, &format!("the end of command {id}"), || async {
            let command = self.call(Method::GET, &format!("/api/v1/commands/{id}"), None).await?;
            if is_ended(&command) { Ok(command) } else { Err(command.to_string()) }
        })
        .await
    }

    /// Every stored heartbeat of a device, oldest first.
    pub async fn heartbeats(&self, device: &str) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        for page in 1.. {
            let path = format!("/api/v1/devices/{device}/heartbeats?page={page}&page_size=200");
            let answer = self.call(Method::GET, &path, None).await?;
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let last = items.len() < 200;
            all.extend(items);
            if last {
                break;
            }
        }
        all.reverse();
        Ok(all)
    }
}

/// A command to be published by hand.
pub struct Draft {
    /// Its id.
    pub id: String,
    /// Where to publish it.
    pub topic: String,
    /// What to publish, byte for byte.
    pub message: String,
}

/// Whether the server holds a command's end.
pub fn is_ended(command: &Value) -> bool {
    !command["finished_at"].is_null()
}

/// Fails unless each of a command's steps may follow the one before. The server hears of a draft that was published by hand
/// only from the box, whatever that has come to by then.
#[track_caller]
pub fn assert_steps_in_order(command: &Value) {
    let steps = command["history"].as_array().expect("a history");
    let states: Vec<ServerState> =
        steps.iter().map(|step| step["state"].as_str().unwrap_or_default().parse().expect("a state")).collect();
    for pair in states.windows(2) {
        let by_hand = pair[0] == ServerState::Draft;
        assert!(by_hand || pair[0].can_become(pair[1]), "{} cannot become {}: {command}", pair[0], pair[1]);
    }
}
