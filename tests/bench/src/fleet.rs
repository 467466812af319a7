//! A fleet server with a broker of ours in front, and a box enrolled in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use r58::fleet::store::{Actor, NewDevice, NewEnrolmentCode, Store};
use reqwest::Client as Http;
use serde_json::{Value, json};

use crate::mqtt::Broker;
use crate::peers::{Home, PATIENCE};
use crate::process::Process;

/// The organization of a first start.
pub const ORG: &str = "default";

/// A running fleet server, and its administrator.
pub struct Server {
    /// The process.
    pub process: Process,
    /// Base address.
    pub url: String,
    /// The administrator's password.
    pub password: String,
    http: Http,
    token: String,
}

/// Who administrates a server of a first start.
pub const ADMIN: &str = "admin@r58.local";

impl Server {
    /// Starts the server of a home whose database knows nobody yet, and signs in; `password` is that of an earlier start.
    ///
    /// # Errors
    /// What was in the way.
    pub async fn start(home: &Home, password: Option<String>) -> Result<Self> {
        let mut process = home.start("fleet")?;
        let since = process.started();
        let url = |line: &str| line.split("fleet server on ").nth(1).map(|url| url.trim().to_owned());
        let (_, url) = process.line(since, PATIENCE, "address", url).await?;
        let password = match password {
            Some(password) => password,
            None => {
                let found =
                    |line: &str| Some(line.split("with the password ").nth(1)?.split_whitespace().next()?.to_owned());
                process.line(since, PATIENCE, "password", found).await?.1
            }
        };
        let http = Http::new();
        let login = json!({"email": ADMIN, "password": password});
        let answer = http.post(format!("{url}/api/v1/auth/login")).json(&login).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        let token = answer["access_token"].as_str().context("no access token")?.to_owned();
        Ok(Self { process, url, password, http, token })
    }

    /// POSTs JSON as the administrator.
    ///
    /// # Errors
    /// What HTTP says.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let request = self.http.post(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token).json(&body);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// GETs JSON as the administrator.
    ///
    /// # Errors
    /// What HTTP says.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let request = self.http.get(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// What `/metrics` tells whoever has its token.
    ///
    /// # Errors
    /// What HTTP says.
    pub async fn metrics(&self, token: &str) -> Result<String> {
        let request = self.http.get(format!("{}/metrics", self.url)).bearer_auth(token);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }
}

/// A running fleet server beside a broker of ours.
pub struct Fleet {
    /// The server; before the broker, so that it ends first.
    pub server: Server,
    /// The broker.
    pub broker: Arc<Broker>,
    /// Its files.
    pub home: Home,
}

impl Fleet {
    /// Starts it with `boxes` boxes called box0, box1, .. in its database.
    ///
    /// # Errors
    /// What was in the way.
    pub async fn start(boxes: usize) -> Result<Self> {
        Self::on(None, boxes).await
    }

    /// The same on this PostgreSQL.
    ///
    /// # Errors
    /// What was in the way.
    pub async fn on(database: Option<&str>, boxes: usize) -> Result<Self> {
        let broker = Arc::new(Broker::start()?);
        let url = database.map(|url| format!("database_url = \"{url}\"\n")).unwrap_or_default();
        let home = Home::new(&format!(
            "[log]\nfilter = \"off\"\n[fleet]\nlisten = \"127.0.0.1:0\"\n{url}[fleet.broker]\nurl = \"mqtt://{}\"\n\
             username = \"{}\"\npassword_file = \"password\"\n",
            broker.addr,
            crate::mqtt::FLEET
        ))?;
        home.write("password", crate::mqtt::PASSWORD)?;
        if boxes > 0 {
            enrol(&home, database, boxes).await?;
        }
        Ok(Self { server: Server::start(&home, None).await?, broker, home })
    }

    /// POSTs JSON as the administrator.
    ///
    /// # Errors
    /// What HTTP says.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.server.post(path, body).await
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
            self.server.url, self.broker.addr
        ))
    }
}

/// Boxes in the database before the server's first start.
async fn enrol(home: &Home, database: Option<&str>, boxes: usize) -> Result<()> {
    let begin = Instant::now();
    let state = home.state("fleet");
    std::fs::create_dir_all(&state)?;
    let store = Store::open(database, None, &state).await?;
    let now = Utc::now();
    store.ensure_organization(ORG, "Default", now).await?;
    let (code, expires_at) = ("of all", now + chrono::Duration::hours(1));
    let code_of_all =
        NewEnrolmentCode { id: code, code_hash: code, note: None, uses: u32::try_from(boxes)?, expires_at };
    store.store_enrolment_code(&Actor::server(ORG), code_of_all, now).await?;
    for n in 0..boxes {
        let id = format!("box{n}");
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
        store.enrol(code, &device, "hash", now).await?;
        ensure!(begin.elapsed() < Duration::from_secs(60), "only {n} boxes could be enrolled in a minute");
    }
    store.close().await;
    Ok(())
}
