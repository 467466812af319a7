//! The binary itself: a demo, a box or a fleet server, in a directory of its own on ports of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::until;

/// A debug build on two busy cores takes its time; what is promised is measured by the benchmarks.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running `r58`.
pub struct R58 {
    /// The process.
    pub process: Process,
    /// Base address of the box, without a slash at the end; empty if there is none.
    pub device: String,
    /// Base address of the fleet server, likewise.
    pub fleet: String,
    /// Host and port of the embedded broker, likewise.
    pub broker: String,
    /// The administrator's password, if this start made one.
    pub password: Option<String>,
    http: Client,
    crew: Option<String>,
}

/// The path of the binary under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_r58"))
}

/// A directory with a configuration in it, that goes with the test.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// A fresh directory whose `r58.toml` is `config`.
    pub fn new(config: &str) -> Self {
        let home = Self { dir: tempfile::tempdir().expect("a directory") };
        home.configure(config);
        home
    }

    /// A box with one camera and one seat, `guest1`, small enough to leave the machine to the browsers. `device` are keys of
    /// `[device]`, `more` keys of the seat and then other tables.
    pub fn small(device: &str, more: &str) -> Self {
        Self::new(&format!(
            r#"
            [device]
            {device}
            [device.programme]
            width = 640
            height = 360
            fps = 15
            [[device.inputs]]
            id = "cam1"
            source = {{ kind = "test", pattern = "ball", tone_hz = 330 }}
            [[device.seats]]
            id = "guest1"
            {more}"#
        ))
    }

    /// Writes `r58.toml` anew. The box takes no notice of how pressed the machine is: builds and browsers beside it are none
    /// of its business.
    pub fn configure(&self, config: &str) {
        let never = "[device.pressed_at]\ncpu_percent = [101, 101, 101]\ndisk_free_gb = [0, 0, 0]\n";
        std::fs::write(self.config(), format!("{config}\n{never}")).expect("write the configuration");
    }

    /// Path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("r58.toml")
    }

    /// Path of the state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Path of the directory itself.
    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The command that runs one side (`demo`, `device`, `fleet`) from this home.
    pub fn command(&self, side: &str) -> Command {
        let mut command = Command::new(binary());
        command
            .arg(side)
            .arg("--config")
            .arg(self.config())
            .env("R58_STATE_DIR", self.state())
            .current_dir(self.dir.path());
        command
    }
}

/// Ports that nobody else has: the configuration of a demo beside other tests.
pub const EPHEMERAL: &str =
    "[device]\nlisten = \"127.0.0.1:0\"\n[fleet]\nlisten = \"127.0.0.1:0\"\n[fleet.broker]\nlisten = \"127.0.0.1:0\"\n";

impl R58 {
    /// Starts a side and waits until it has said where it listens.
    pub async fn start(home: &Home, side: &str) -> Self {
        Self::spawn(side, &mut home.command(side)).await
    }

    /// Starts a side by a command of the caller's (a failpoint in its environment, a namespace around it).
    pub async fn spawn(side: &str, command: &mut Command) -> Self {
        let mut r58 = Self {
            process: Process::start(&format!("r58 {side}"), command),
            device: String::new(),
            fleet: String::new(),
            broker: String::new(),
            password: None,
            // Boxes are killed and restarted, and tests block now and then: no connection is used twice.
            http: Client::builder().pool_max_idle_per_host(0).build().expect("an HTTP client"),
            crew: None,
        };
        if side == "device" || side == "demo" {
            r58.device = r58.address("multiview", "http://").await;
        }
        if side == "fleet" || side == "demo" {
            r58.fleet = r58.address("fleet server", "http").await;
        }
        // The last line of each start: what came before it is there by now.
        if side == "demo" {
            r58.process.line(PATIENCE, "end of the announcement", |line| line.contains("Ctrl-C").then_some(())).await;
        }
        let output = r58.process.output();
        let broker = output
            .lines()
            .flat_map(str::split_whitespace)
            .find_map(|word| word.strip_prefix("mqtt://").or_else(|| word.strip_prefix("mqtts://")));
        r58.broker = broker.unwrap_or_default().to_owned();
        r58.password = password_line(&output);
        r58
    }

    /// Shows the crew's password from now on.
    pub fn with_crew_password(mut self, password: &str) -> Self {
        self.crew = Some(password.into());
        self
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.device));
        match &self.crew {
            Some(password) => request.basic_auth("crew", Some(password)),
            None => request,
        }
    }

    async fn address(&mut self, label: &'static str, scheme: &'static str) -> String {
        let found = move |line: &str| {
            let address =
                line.contains(label).then(|| line.split_whitespace().find(|word| word.starts_with(scheme)))??;
            Some(address.trim_end_matches('/').to_owned())
        };
        self.process.line(PATIENCE, &format!("address of the {label}"), found).await
    }

    /// GETs a path of the box.
    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect("an answer of the box")
    }

    /// GETs JSON of the box; a status other than 2xx fails.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert!(answer.status().is_success(), "GET {path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// POSTs JSON to the box and answers status and body.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let answer = self.request(Method::POST, path).json(body).send().await.expect("an answer of the box");
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// The box's state, as its pages see it.
    pub async fn state(&self) -> Value {
        self.json("/api/state").await
    }

    /// Waits until the box's state is as `right` wants it.
    pub async fn state_until(&self, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        until(PATIENCE, what, || async {
            let state = self.state().await;
            if right(&state) { Ok(state) } else { Err(state) }
        })
        .await
    }

    /// The HTTP client, for requests of the caller's own making.
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// Asks it to stop and waits for its end.
    pub async fn stop(mut self) -> std::process::ExitStatus {
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.process.ended(Duration::from_secs(20)).await
    }
}

fn password_line(output: &str) -> Option<String> {
    let line = output.lines().find(|line| line.contains("sign in"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "password");
    words.nth(1).filter(|word| *word != "was").map(str::to_owned)
}
