//! Server, broker and database are killed and come back in random order under load: every write that was acknowledged is
//! there, every command ends in one state, is done once, and every heartbeat is stored once.
//!
//! A few rounds by default; `make chaos ROUNDS=100` does more, `R58_CHAOS_SEED` repeats an order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::support::mosquitto::{Mosquitto, PASSWORD};
use super::support::postgres::Postgres;
use super::support::process::Process;
use super::support::r58::{Home, PATIENCE, R58};
use super::support::sim::{
    HOME_WITHIN, Simulated, assert_carried_home, assert_heartbeats_stored_once, ended_commands, id, states_of,
    until_online,
};
use super::support::site::{Api, ORG};
use super::support::{backstage, free_port};

const DEVICES: usize = 24;
/// Longest time that something stays dead, in milliseconds.
const DEAD_FOR: u64 = 1500;
/// Writes that must be acknowledged after all is back before the next round begins.
const PROGRESS: usize = 6;
/// Who writes at the same time, each to devices of its own.
const WRITERS: usize = 3;

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Server,
    Broker,
    Database,
}

/// What dies and comes back.
struct Parts {
    home: Home,
    server: Option<Process>,
    broker: Mosquitto,
    database: Postgres,
}

impl Parts {
    fn kill(&mut self, part: Part) {
        match part {
            Part::Server => drop(self.server.take()),
            Part::Broker => self.broker.kill(),
            Part::Database => self.database.kill(),
        }
    }

    async fn bring_back(&mut self, part: Part) {
        match part {
            Part::Server => self.server = Some(self.spawn()),
            Part::Broker => self.broker.start().await,
            Part::Database => self.database.start_again().await,
        }
    }

    fn spawn(&self) -> Process {
        Process::start("r58 fleet", &mut self.home.command("fleet"))
    }

    fn output(&self) -> String {
        self.server.as_ref().map_or_else(String::new, Process::output)
    }

    /// Starts a server again that has ended by itself because its database was away, as systemd does.
    fn keep(&mut self) {
        let ended = self.server.as_mut().is_some_and(|server| !server.is_alive());
        if ended {
            self.server = Some(self.spawn());
        }
    }
}

/// Writes that were made, and what came of them.
struct Load {
    http: Client,
    base: String,
    key: String,
    goes_on: AtomicBool,
    acknowledged: AtomicUsize,
    /// Commands by device.
    commands: Mutex<BTreeMap<String, Vec<String>>>,
    /// The name that each device was given last.
    names: Mutex<BTreeMap<String, String>>,
}

impl Load {
    /// Asks until it is acknowledged. The same write twice is one: by its key, or because it only says what shall be.
    async fn write(&self, method: Method, path: &str, once: &str, body: &Value) -> Value {
        let begin = Instant::now();
        loop {
            let request = self.http.request(method.clone(), format!("{}{path}", self.base)).bearer_auth(&self.key);
            let answer = async {
                let answer =
                    request.header("Idempotency-Key", once).json(body).send().await.map_err(|e| e.to_string())?;
                let status = answer.status();
                let body: Value = answer.json().await.map_err(|error| error.to_string())?;
                // Nothing but "not now" may come of what kills these parts.
                assert!(status.is_success() || status.is_server_error(), "{method} {path}: {status} {body}");
                if status.is_success() { Ok(body) } else { Err(body.to_string()) }
            };
            match answer.await {
                Ok(body) => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    return body;
                }
                Err(excuse) => assert!(begin.elapsed() < HOME_WITHIN, "{method} {path}: not acknowledged: {excuse}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Writes to its own devices, one after the other, until told to end.
    async fn run(self: Arc<Self>, writer: usize) {
        let ops = [
            ("take", json!({"scene": "quad"})),
            ("restart_service", json!({"service": "kiosk.service"})),
            ("identify", json!({"seconds": 1})),
            ("take", json!({"scene": "nowhere"})),
        ];
        for turn in 0.. {
            if !self.goes_on.load(Ordering::Relaxed) {
                return;
            }
            let device = id(writer + 1 + WRITERS * (turn % (DEVICES / WRITERS)));
            let name = format!("{device} in turn {turn}");
            let path = format!("/api/v1/devices/{device}");
            self.write(Method::PATCH, &path, &name, &json!({"name": name})).await;
            self.names.lock().expect("names").insert(device.clone(), name.clone());
            let (op, args) = &ops[turn % ops.len()];
            let body = json!({"type": op, "payload": args});
            let made = self.write(Method::POST, &format!("{path}/commands"), &name, &body).await;
            let made = made["id"].as_str().expect("an id").to_owned();
            self.commands.lock().expect("commands").entry(device).or_default().push(made);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_every_acknowledged_write_is_there_and_every_command_ends_once() {
    let _backstage = backstage().await;
    let rounds = setting("R58_CHAOS_ROUNDS").unwrap_or(6_usize);
    let seed = setting("R58_CHAOS_SEED").unwrap_or_else(rand::random::<u32>);
    println!("{rounds} rounds, R58_CHAOS_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(u64::from(seed));

    let database = Postgres::start().await;
    let mut broker = Mosquitto::prepare();
    broker.let_in(ORG, PASSWORD);
    broker.start().await;
    let home = Home::new(&format!(
        "[fleet]\nlisten = \"127.0.0.1:{}\"\ndatabase_url = \"{}\"\n{}",
        free_port(),
        database.database().await,
        broker.broker_table()
    ));
    let R58 { process, fleet: base, password, .. } = R58::start(&home, "fleet").await;
    let api = Api::sign_in(&base, &password.expect("the first start shows a password")).await;
    let scopes = json!({"name": "chaos", "scopes": ["devices:write", "commands:write", "telemetry:read"]});
    let key = api.post("/api/v1/api-keys", &scopes).await["key"].as_str().expect("a key").to_owned();
    let code = api.post("/api/v1/enrolment-codes", &json!({"uses": DEVICES})).await;
    let code = code["code"].as_str().expect("a code");
    let api = api.with_token(&key);

    let dir = tempfile::tempdir().expect("a directory");
    let shared = dir.path().join("password").display().to_string();
    std::fs::write(&shared, PASSWORD).expect("write");
    let way = ["--code", code, "--broker", &broker.url(), "--broker-password-file", &shared].map(str::to_owned);
    let dice_of_boxes = ["--outages", "10", "--site-outages", "0", "--outage", "1", "--effect", "0.2"];
    let args: Vec<&str> = way.iter().map(String::as_str).chain(dice_of_boxes).collect();
    let sim = Simulated::start(&base, DEVICES, dir.path(), &args);
    until_online(&api, HOME_WITHIN, DEVICES).await;

    let mut parts = Parts { home, server: Some(process), broker, database };
    let load = Arc::new(Load {
        http: Client::builder().timeout(Duration::from_secs(10)).build().expect("a client"),
        base,
        key,
        goes_on: AtomicBool::new(true),
        acknowledged: AtomicUsize::new(0),
        commands: Mutex::default(),
        names: Mutex::default(),
    });
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(load.clone().run(writer))).collect();
    for round in 1..=rounds {
        let mut order = [Part::Server, Part::Broker, Part::Database];
        order.shuffle(&mut dice);
        let dying = &mut order[..dice.gen_range(1..=3)];
        println!("round {round}: {dying:?} die");
        for part in &*dying {
            parts.kill(*part);
            tokio::time::sleep(Duration::from_millis(dice.gen_range(0..DEAD_FOR / 3))).await;
        }
        tokio::time::sleep(Duration::from_millis(dice.gen_range(0..DEAD_FOR))).await;
        dying.shuffle(&mut dice);
        for part in &*dying {
            parts.bring_back(*part).await;
        }
        let (begin, before) = (Instant::now(), load.acknowledged.load(Ordering::Relaxed));
        while load.acknowledged.load(Ordering::Relaxed) < before + PROGRESS {
            parts.keep();
            assert!(!writers.iter().any(tokio::task::JoinHandle::is_finished), "a write went wrong, see above");
            assert!(begin.elapsed() < PATIENCE, "round {round}: writes do not go on: {}", parts.output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    load.goes_on.store(false, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("every write was acknowledged");
    }

    let commands = ended_commands(&api, DEVICES).await;
    until_online(&api, HOME_WITHIN, DEVICES).await;
    let report = sim.report().await;
    let written = load.acknowledged.load(Ordering::Relaxed);
    println!("{written} writes, {} heartbeats, {:?}", report["heartbeats"], states_of(&commands));
    assert_carried_home(&report);
    assert_eq!(json!(states_of(&commands)), report["commands"]["ended"], "both sides count the same ends");
    assert_heartbeats_stored_once(&api, &report).await;
    // Each command that was asked for stands there once, under the id that was acknowledged.
    let mut stored: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for command in &commands {
        let text = |key: &str| command[key].as_str().expect("a word").to_owned();
        stored.entry(text("device_id")).or_default().push(text("id"));
    }
    let mut asked = load.commands.lock().expect("commands").clone();
    stored.values_mut().chain(asked.values_mut()).for_each(|ids| ids.sort());
    assert_eq!(stored, asked);
    let names = load.names.lock().expect("names").clone();
    for (device, name) in names {
        assert_eq!(api.get(&format!("/api/v1/devices/{device}")).await["name"], name, "{device}");
    }
}
