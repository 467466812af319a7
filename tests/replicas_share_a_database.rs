//! Three fleet servers share one PostgreSQL and one broker. Two of them are killed one after the other, the leader first:
//! nothing that a box was told is stored gets lost, commands go on and each ends once, a dashboard at another server sees
//! what happens live, each server shows the pictures of every box, and people are told of an alert once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use r58_actors::fleet_link::identity::{self, Registration, Secret};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::hook::Hook;
use super::support::mosquitto::{Mosquitto, PASSWORD, TESTER};
use super::support::postgres::Postgres;
use super::support::r58::{Home, PATIENCE, R58};
use super::support::site::{Api, ORG, assert_steps_in_order};
use super::support::wire::Wire;
use super::support::{backstage, free_port, until};

/// Boxes that say something all the time.
const BOXES: usize = 6;
/// Heartbeats in one batch, and how often a box sends one.
const BATCH: u64 = 10;
const EVERY: Duration = Duration::from_millis(200);

/// A box without pictures: it numbers what it measured, repeats what was not acknowledged, and does each command once.
struct Box1 {
    id: String,
    wire: Wire,
    /// It measured a day or two ago, and comes out of a long outage.
    since: chrono::DateTime<chrono::Utc>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    read: usize,
    /// Up to where the server says it is stored.
    acked: u64,
    sent: u64,
    /// Commands that are not withdrawn yet, with the hash of each.
    open: BTreeMap<String, Value>,
    done: BTreeSet<String>,
    effects: usize,
}

impl Box1 {
    async fn enrol(api: &Api, broker: &Mosquitto, id: &str) -> Self {
        let code = api.post("/api/v1/enrolment-codes", &json!({})).await;
        let code = Secret::new(code["code"].as_str().expect("a code"));
        let registration = Registration::of_this_machine(code, id, id, "0");
        identity::register(&api.http, &api.base, &registration).await.expect("an identity");
        let wire = Wire::start(&broker.url(), id, TESTER, PASSWORD, &format!("r58/1/{ORG}/{id}/down/#")).await;
        let since = chrono::Utc::now() - chrono::Duration::days(2);
        Self { id: id.to_owned(), wire, since, seen: Mutex::default() }
    }

    fn topic(&self, rest: &str) -> String {
        format!("r58/1/{ORG}/{}/up/{rest}", self.id)
    }

    /// Takes in what was said to it.
    fn listen(&self) {
        let mut seen = self.seen.lock().expect("seen");
        let heard = self.wire.heard();
        for message in &heard[seen.read..] {
            let Some((_, rest)) = message.topic.split_once("/down/") else { continue };
            let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            if rest == "sync" {
                seen.acked = seen.acked.max(body["acked"]["hb"].as_u64().unwrap_or(0));
            } else if let Some(id) = rest.strip_prefix("cmd/") {
                if message.payload.is_empty() {
                    seen.open.remove(id);
                } else {
                    if seen.done.insert(id.to_owned()) {
                        seen.effects += 1;
                    }
                    seen.open.insert(id.to_owned(), body["hash"].clone());
                }
            }
        }
        seen.read = heard.len();
    }

    /// Says what is to be said: a batch from the first heartbeat that is not acknowledged, and how open commands ended.
    async fn speak(&self, more: bool) {
        self.listen();
        let (from, to, open) = {
            let mut seen = self.seen.lock().expect("seen");
            seen.sent += if more { BATCH } else { 0 };
            (seen.acked + 1, seen.sent.min(seen.acked + 500), seen.open.clone())
        };
        let items: Vec<Value> = (from..=to).map(|seq| json!({"seq": seq, "data": self.heartbeat(seq)})).collect();
        if !items.is_empty() {
            let batch = json!({"stream": "hb", "boot_seq": 1, "first_available": from, "items": items});
            self.wire.say(&self.topic("tm/hb"), batch.to_string(), false).await;
        }
        for (id, hash) in open {
            for (rev, state) in [(1, "received"), (2, "executing"), (3, "succeeded")] {
                let status = json!({"id": id, "rev": rev, "state": state, "attempt": 1, "hash": hash, "boot_id": "b"});
                self.wire.say(&self.topic(&format!("cmd/{id}")), status.to_string(), false).await;
            }
        }
    }

    fn heartbeat(&self, seq: u64) -> Value {
        let ts = self.since + chrono::Duration::seconds(seq.cast_signed());
        json!({"ts": ts.to_rfc3339(), "version": "1", "uptime_seconds": seq, "metrics": {"cpu_percent": 5.0},
            "status": {"recording_active": false, "mixer_active": true, "active_inputs": [], "degradation_level": 0},
            "errors": [], "boot_seq": 1, "seq": seq, "interval_s": 60})
    }

    fn acked(&self) -> u64 {
        self.listen();
        self.seen.lock().expect("seen").acked
    }
}

/// Three homes with one database, one broker and the same keys.
fn homes(database: &str, broker: &Mosquitto) -> (tempfile::TempDir, Vec<Home>) {
    let keys = tempfile::tempdir().expect("a directory");
    let home = |port: u16| {
        Home::new(&format!(
            "[fleet]\nlisten = \"127.0.0.1:{port}\"\ndatabase_url = \"{database}\"\nkeys_dir = \"{}\"\n{}\n\
             [fleet.alerts]\nallow_private_targets = true\ngroup_seconds = 0\n",
            keys.path().display(),
            broker.broker_table()
        ))
    };
    let homes = (0..3).map(|_| home(free_port())).collect();
    (keys, homes)
}

/// The server that says it leads.
fn leader(servers: &[Option<R58>]) -> Option<usize> {
    servers.iter().position(|server| {
        let Some(server) = server else { return false };
        let output = server.process.output();
        let last = output.lines().rfind(|line| line.contains("this server")).unwrap_or_default();
        last.contains("this server leads")
    })
}

/// A picture of one box, asked of each server: all show it, under the same ETag.
async fn picture_everywhere(api: &Api, addresses: &[String], one: &Box1) {
    let jpeg = [&[0xff, 0xd8, 0xff, 0xe0], "a picture".as_bytes()].concat();
    let path = format!("/api/v1/devices/{}/thumbnails/cam1", one.id);
    let mut tags = BTreeSet::new();
    for address in addresses {
        let answer = until(PATIENCE, "the picture at each server", || async {
            one.wire.say(&one.topic("thumb/cam1"), jpeg.clone(), false).await;
            let asked = api.http.get(format!("{address}{path}")).bearer_auth(api.token()).send().await;
            // Before it has come the answer is an empty one.
            match asked {
                Ok(answer) if answer.status() == StatusCode::OK => Ok(answer),
                other => Err(other.map(|answer| answer.status())),
            }
        })
        .await;
        tags.insert(answer.headers()["etag"].to_str().expect("a tag").to_owned());
        assert_eq!(answer.bytes().await.expect("a body"), jpeg);
    }
    assert_eq!(tags.len(), 1, "{tags:?}");
}

/// Somebody is told at once of a box that is hot; answers with that box's token.
async fn tell_of_heat(api: &Api, hook: &Hook) -> String {
    let rules = api.get("/api/v1/alert-rules").await;
    let hot = rules["items"].as_array().expect("rules").iter().find(|rule| rule["kind"] == "temperature");
    let path = format!("/api/v1/alert-rules/{}", hot.expect("a rule")["id"].as_str().expect("an id"));
    api.call(Method::PATCH, &path, Some(&json!({"for_seconds": 0}))).await.expect("a changed rule");
    api.post("/api/v1/alert-receivers", &json!({"name": "Pager", "url": hook.url})).await;
    let code = api.post("/api/v1/enrolment-codes", &json!({})).await;
    let device =
        json!({"enrolment_code": code["code"], "device_id": "hot", "name": "Hot", "platform": "linux", "arch": "x"});
    api.post("/api/v1/devices/register", &device).await["token"].as_str().expect("a token").to_owned()
}

/// A box that speaks HTTP alone says how hot it is.
async fn beat(api: &Api, token: &str, temperature: f64) {
    let body = json!({"ts": chrono::Utc::now(), "version": "1", "uptime_seconds": 9, "errors": [],
        "metrics": {"temperature_c": temperature}, "status": {"recording_active": false, "mixer_active": true,
        "active_inputs": [], "degradation_level": 0}});
    let request = api.http.post(format!("{}/api/v1/devices/hot/heartbeat", api.base)).json(&body);
    let answer = request.header("X-Device-Id", "hot").header("X-Device-Token", token).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

/// What was told of the hot box, in order: each time what happened, and to which alert.
fn told_of_heat(hook: &Hook) -> Vec<(String, String)> {
    let items = hook.calls().into_iter().flat_map(|call| call["alerts"].as_array().cloned().unwrap_or_default());
    let word = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    items.filter(|item| item["device_id"] == "hot").map(|item| (word(&item, "event"), word(&item, "id"))).collect()
}

/// Collects the live events of one server, until the test ends; comes again when it is told to.
async fn watch(api: &Api) -> Arc<Mutex<String>> {
    let told = Arc::new(Mutex::new(String::new()));
    let request = api.http.get(format!("{}/api/v1/events?changes=true", api.base)).bearer_auth(api.token());
    let request = request.timeout(Duration::from_secs(600));
    let keeper = told.clone();
    tokio::spawn(async move {
        while let Ok(answer) = request.try_clone().expect("no body").send().await {
            let mut chunks = answer.bytes_stream();
            while let Some(Ok(chunk)) = chunks.next().await {
                keeper.lock().expect("told").push_str(&String::from_utf8_lossy(&chunk));
            }
        }
    });
    until(PATIENCE, "a greeting", || async {
        if told.lock().expect("told").contains("event: hello") { Ok(()) } else { Err("silence") }
    })
    .await;
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_servers_are_killed_under_load_and_nothing_is_lost_or_done_twice() {
    let _backstage = backstage().await;
    let database = Postgres::shared().await.database().await;
    let mut broker = Mosquitto::prepare();
    broker.start().await;
    let (_keys, homes) = homes(&database, &broker);
    let mut servers = vec![Some(R58::start(&homes[0], "fleet").await)];
    let password =
        servers[0].as_ref().and_then(|first| first.password.clone()).expect("the first start shows a password");
    for home in &homes[1..] {
        servers.push(Some(R58::start(home, "fleet").await));
    }
    let address = |server: &Option<R58>| server.as_ref().expect("it runs").fleet.clone();
    let led = until(PATIENCE, "a leader", || async { leader(&servers).ok_or("nobody leads") }).await;
    let (calm, next) = ((led + 1) % 3, (led + 2) % 3);

    // The session was made at another server than it is used at: both have the same key.
    let mut api = Api::sign_in(&address(&servers[led]), &password).await;
    api.base = address(&servers[calm]);
    let live = watch(&api).await;
    let hook = Hook::start().await;
    let hot = tell_of_heat(&api, &hook).await;
    let mut boxes = Vec::new();
    for n in 0..BOXES {
        boxes.push(Arc::new(Box1::enrol(&api, &broker, &format!("box{n}")).await));
    }
    let loading = Arc::new(AtomicBool::new(true));
    // For each box. Without a leader they are published late: a box that has everything else waits for them.
    let ordered = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = boxes
        .iter()
        .map(|one| {
            let (one, loading, ordered) = (one.clone(), loading.clone(), ordered.clone());
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(EVERY);
                loop {
                    tick.tick().await;
                    let more = loading.load(Ordering::Relaxed);
                    one.speak(more).await;
                    let seen = one.seen.lock().expect("seen");
                    let all = seen.done.len() >= ordered.load(Ordering::Relaxed) && seen.acked >= seen.sent;
                    if !more && all && seen.open.is_empty() {
                        return;
                    }
                }
            })
        })
        .collect();
    let mut commands = Vec::new();
    let mut send = async |api: &Api| {
        for one in &boxes {
            commands.push(api.command(&one.id, "identify", json!({"seconds": 1})).await);
        }
        ordered.fetch_add(1, Ordering::Relaxed);
    };
    let progress = async |what: &str| {
        let from: Vec<u64> = boxes.iter().map(|one| one.acked()).collect();
        until(PATIENCE, what, || async {
            let now: Vec<u64> = boxes.iter().map(|one| one.acked()).collect();
            if from.iter().zip(&now).all(|(from, now)| *now >= from + 3 * BATCH) { Ok(()) } else { Err(now) }
        })
        .await;
    };
    send(&api).await;
    progress("heartbeats of every box stored").await;
    let addresses: Vec<String> = servers.iter().map(address).collect();
    picture_everywhere(&api, &addresses, &boxes[0]).await;
    // What an administrator does at one server is told at the others.
    let mut other = api.clone();
    other.base = address(&servers[led]);
    other
        .post(
            "/api/v1/users",
            &json!({"name": "A", "email": "a@b.example", "role": "viewer", "password": "a good one"}),
        )
        .await;
    until(PATIENCE, "live news of the user", || async {
        if live.lock().expect("told").contains("{\"kind\":\"user\"}") { Ok(()) } else { Err("silence") }
    })
    .await;
    beat(&api, &hot, 95.0).await;
    until(PATIENCE, "a message about heat", || async { told_of_heat(&hook).first().cloned().ok_or("silence") }).await;

    // The leader goes, in the middle of everything.
    send(&api).await;
    servers[led].take().expect("it runs").process.kill();
    send(&api).await;
    progress("heartbeats stored without the first leader").await;
    let led = until(PATIENCE, "another leader", || async { leader(&servers).ok_or("nobody leads") }).await;

    beat(&api, &hot, 40.0).await;
    until(PATIENCE, "word of its end from the next leader", || async {
        let told = told_of_heat(&hook);
        if told.len() > 1 { Ok(()) } else { Err(told) }
    })
    .await;

    // Another one goes; which of the two leads by now is left to them.
    send(&api).await;
    if led != calm {
        servers[led].take().expect("it runs").process.kill();
    } else {
        servers[next].take().expect("it runs").process.kill();
    }
    progress("heartbeats stored by the last server").await;
    send(&api).await;
    loading.store(false, Ordering::Relaxed);
    for one in load {
        tokio::time::timeout(PATIENCE, one)
            .await
            .expect("everything acknowledged and withdrawn in time")
            .expect("a box");
    }

    for id in &commands {
        let command = api.ended(id).await;
        assert_eq!(command["state"], "succeeded", "{command}");
        assert_steps_in_order(&command);
        let steps = command["history"].as_array().expect("a history");
        assert_eq!(steps.iter().filter(|step| step["state"] == "succeeded").count(), 1, "{command}");
    }
    for one in &boxes {
        let (effects, done, sent) = {
            let seen = one.seen.lock().expect("seen");
            (seen.effects, seen.done.len(), seen.sent)
        };
        assert_eq!((effects, done), (commands.len() / BOXES, commands.len() / BOXES));
        let path = format!("/api/v1/devices/{}/heartbeats?since=2020-01-01T00:00:00Z&page_size=1", one.id);
        assert_eq!(api.get(&path).await["total"], sent, "every heartbeat of {}", one.id);
    }
    let told = told_of_heat(&hook);
    let events: Vec<&str> = told.iter().map(|(event, _)| event.as_str()).collect();
    assert!(events == ["firing", "resolved"] && told[0].1 == told[1].1, "once each, of three servers: {told:?}");
    // The dashboard at the server that stayed was told of every command, whoever heard of it first.
    until(PATIENCE, "live news of every command", || async {
        let live = live.lock().expect("told").clone();
        let missing: Vec<&String> = commands.iter().filter(|id| !live.contains(id.as_str())).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
}
