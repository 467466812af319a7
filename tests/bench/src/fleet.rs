//! A fleet server with a broker of ours in front, and a box enrolled in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use r58::fleet::store::{Actor, NewDevice, Store};
use reqwest::Client as Http;
use serde_json::{Value, json};

use crate::mqtt::Broker;
use crate::peers::{Home, PATIENCE};
use crate::process::Process;

/// The organization of a first start.
pub const ORG: &str = "default";

/// A running fleet server.
pub struct Fleet {
    /// The process; before the broker, so that it ends first.
    _process: Process,
    /// The broker.
    pub broker: Arc<Broker>,
    /// Its files.
    pub home: Home,
    /// Base address.
    pub url: String,
    http: Http,
    token: String,
}

impl Fleet {
    /// Starts it with `boxes` boxes called box0, box1, .. in its database.
    ///
    /// # Errors
    /// What was in the way.
    pub async fn start(boxes: usize) -> Result<Self> {
        let broker = Arc::new(Broker::start()?);
        let home = Home::new(&format!(
            "[log]\nfilter = \"off\"\n[fleet]\nlisten = \"127.0.0.1:0\"\n[fleet.broker]\nurl = \"mqtt://{}\"\nusername = \"{}\"\npassword_file = \"password\"\n",
            broker.addr,
            crate::mqtt::FLEET
        ))?;
        home.write("password", crate::mqtt::PASSWORD)?;
        if boxes > 0 {
            enrol(&home, boxes).await?;
        }
        let mut process = home.start("fleet")?;
        let since = process.started();
        let url = |line: &str| line.split("fleet server on ").nth(1).map(|url| url.trim().to_owned());
        let (_, url) = process.line(since, PATIENCE, "address", url).await?;
        let password =
            |line: &str| Some(line.split("with the password ").nth(1)?.split_whitespace().next()?.to_owned());
        let (_, password) = process.line(since, PATIENCE, "password", password).await?;
        let http = Http::new();
        let login = json!({"email": "admin@r58.local", "password": password});
        let answer = http.post(format!("{url}/api/v1/auth/login")).json(&login).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        let token = answer["access_token"].as_str().context("no access token")?.to_owned();
        Ok(Self { _process: process, broker, home, url, http, token })
    }

    /// POSTs JSON as the administrator.
    ///
    /// # Errors
    /// What HTTP says.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let request = self.http.post(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token).json(&body);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Home of a box that will enrol itself at its first start; `more` is added to its configuration.
    ///
    /// # Errors
    /// When no enrolment code could be had.
    pub async fn box_home(&self, id: &str, more: &str) -> Result<Home> {
        let code = self.post("/enrolment-codes", json!({})).await?;
        let code = code["code"].as_str().context("no enrolment code")?;
        Home::new(&format!(
            "[log]\nfilter = \"off\"\n[device]\nid = \"{id}\"\nlisten = \"127.0.0.1:0\"\n[device.link]\nfleet_url = \"{}\"\n\
             mqtt_url = \"mqtt://{}\"\nenrolment_code = \"{code}\"\nheartbeat_seconds = 2\nhost = \"record\"\n{more}",
            self.url, self.broker.addr
        ))
    }
}

/// Boxes in the database before the server's first start.
async fn enrol(home: &Home, boxes: usize) -> Result<()> {
    let begin = Instant::now();
    let state = home.state("fleet");
    std::fs::create_dir_all(&state)?;
    let store = Store::open(None, None, &state).await?;
    let now = Utc::now();
    store.ensure_organization(ORG, "Default", now).await?;
    for n in 0..boxes {
        let id = format!("box{n}");
        store.create_enrolment_code(&Actor::server(ORG), &id, &id, None, now, now + chrono::Duration::hours(1)).await?;
        let device = NewDevice {
            id: id.clone(),
            name: id.clone(),
            platform: "linux".into(),
            arch: "aarch64".into(),
            serial_number: None,
            mac_address: None,
            version: None,
            capabilities: None,
        };
        store.enrol(&id, &device, "hash", now).await?;
        ensure!(begin.elapsed() < Duration::from_secs(60), "only {n} boxes could be enrolled in a minute");
    }
    store.close().await;
    Ok(())
}
