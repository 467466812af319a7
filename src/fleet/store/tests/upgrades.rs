//! Databases of every earlier version, with something in each of their tables: brought up to date they hold what they held, to
//! the letter, and a server of today works on them as if it had always been there.

mod of_old;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use self::of_old::{BUNDLE, CODE, KEY, OF_OLD, PASSWORD, REFRESH, START, TOKEN};
use super::super::downsample::{DAY, HOUR};
use super::super::migrations::{earlier, run_to};
use super::super::retention::RetentionPlan;
use super::super::sql::Engine;
use super::*;
use crate::fleet::auth::{password, secret};
use crate::fleet::{self, AccessPlan, BrokerPlan, FleetPlan, RetainedPlan, TurnPlan};

/// A database as it lies there, past the store.
enum Raw {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// The rows of a table, as text.
type Rows = Vec<String>;

impl Raw {
    async fn open(url: &str) -> Self {
        match url.starts_with("sqlite:") {
            true => Self::Sqlite(SqliteConnection::connect(url).await.unwrap()),
            false => Self::Postgres(PgConnection::connect(url).await.unwrap()),
        }
    }

    async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }

    async fn execute(&mut self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(connection) => drop(sql.execute(connection).await.unwrap()),
            Self::Postgres(connection) => drop(sql.execute(connection).await.unwrap()),
        }
    }

    async fn texts(&mut self, sql: &str) -> Rows {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).persistent(false).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(sql).persistent(false).fetch_all(connection).await,
        }
        .unwrap()
    }

    /// Every table with its columns; those that the engine computes are not there.
    async fn tables(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        let sql = match self {
            Self::Sqlite(_) => {
                "SELECT m.name || '.' || p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type = 'table' \
                 AND m.name NOT LIKE 'sqlite%'"
            }
            Self::Postgres(_) => {
                "SELECT c.table_name || '.' || c.column_name FROM information_schema.columns c JOIN pg_tables t \
                 ON t.tablename = c.table_name AND t.schemaname = c.table_schema \
                 WHERE t.schemaname = 'public' AND c.is_generated = 'NEVER'"
            }
        };
        let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in self.texts(sql).await {
            let (table, column) = name.split_once('.').unwrap();
            if table != "_sqlx_migrations" {
                tables.entry(table.to_owned()).or_default().insert(column.to_owned());
            }
        }
        tables
    }

    async fn rows(&mut self, table: &str, columns: &BTreeSet<String>) -> Rows {
        let values = columns.iter().map(|column| format!("COALESCE(CAST(\"{column}\" AS TEXT), '-')"));
        let line = values.collect::<Vec<_>>().join(" || '|' || ");
        self.texts(&format!("SELECT {line} FROM {table} ORDER BY 1")).await
    }
}

/// The database that grows from version to version, as one does whose server is kept up to date.
struct Growing {
    dir: tempfile::TempDir,
    url: String,
    hash_of_password: String,
}

impl Growing {
    async fn new(engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}?mode=rwc", dir.path().join("growing.db").display()),
            Engine::Postgres => Postgres::shared().await.database().await,
        };
        Self { dir, url, hash_of_password: password::hash(PASSWORD.into()).await.unwrap() }
    }

    /// Brings it to the next version, and writes what programs of then began to keep.
    async fn grow(&self, version: i64) {
        run_to(version, &self.url).await;
        let code = secret::hash(&secret::normalized_code(CODE));
        let mut raw = Raw::open(&self.url).await;
        for (_, text) in OF_OLD.iter().filter(|(own, _)| *own == version) {
            let text = text.replace("{password}", &self.hash_of_password).replace("{token}", &secret::hash(TOKEN));
            let text = text.replace("{refresh}", &secret::hash(REFRESH)).replace("{code}", &code);
            raw.execute(&text.replace("{key}", &secret::hash(KEY))).await;
        }
        if version == 39 {
            let mut change = crate::audit::Change {
                seq: 1,
                at_ms: 5,
                actor: "server".into(),
                action: "user.create".into(),
                target: "u9".into(),
                detail: None,
                hash: Default::default(),
            };
            change.hash = change.hash_after("other", Default::default());
            raw.execute(&of_old::chained("other", &change)).await;
        }
        raw.close().await;
    }

    /// A copy as it is now, in a directory of its own.
    async fn copy(&self) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let url = match self.url.starts_with("sqlite:") {
            true => {
                std::fs::copy(self.dir.path().join("growing.db"), dir.path().join("old.db")).unwrap();
                format!("sqlite://{}", dir.path().join("old.db").display())
            }
            false => Postgres::shared().await.database_like(&self.url).await,
        };
        (dir, url)
    }
}

/// What the store reads in it.
async fn reads(store: &Store, first: i64) {
    let now = DateTime::from_timestamp_millis(START + 3 * HOUR).unwrap();
    store.keep_history(&Default::default(), now).await.unwrap();
    let plan = RetentionPlan { raw_days: 1, ..Default::default() };
    while store.sum_up_once(now, &plan).await.unwrap() {}
    let card = store.device("default", "a").await.unwrap().unwrap();
    assert_eq!(card.heartbeat.as_deref(), Some("{\"seq\": 2}"));
    let (rows, total) = store.heartbeats(DeviceNo(1), DateTime::UNIX_EPOCH, 0, 10).await.unwrap();
    assert_eq!((rows.len(), total), (2, 2));
    let cpu = store.metrics(DeviceNo(1), now - Duration::hours(12)).await.unwrap()[0].unwrap();
    assert_eq!((cpu.min, cpu.max, cpu.avg(), cpu.latest, cpu.count), (20.0, 40.0, 30.0, 40.0, 2));
    if first >= 4 {
        let before = now - Duration::days(3);
        let hours = store.metric_series(DeviceNo(1), before, now, HOUR).await.unwrap();
        let old = hours.iter().find(|point| point.ts == START - 2 * DAY).unwrap();
        assert_eq!(old.metrics[0].map(|cpu| (cpu.min, cpu.max, cpu.count)), Some((10.0, 30.0, 3)));
        assert_eq!(store.ask_to_lead("of today").await.unwrap(), Some(4), "the term after the one of old");
    }
    assert_eq!(store.commands_to_publish(10).await.unwrap().len(), 1);
    let acked = [(Name::new("evt").unwrap(), 7), (Name::new("hb").unwrap(), 2)];
    let told = store.sync_state(&address("default", "a")).await.unwrap().unwrap();
    assert_eq!(told.acked, acked.into_iter().collect());
    let chain = store.chain("default", 0, u64::MAX).await.unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].hash_after("default", chain[0].hash), chain[1].hash);
}

/// A server of today and its callers.
struct Today {
    handle: fleet::FleetHandle,
    http: Client,
}

impl Today {
    async fn start(url: &str, state_dir: &Path) -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        let broker = BrokerPlan::Embedded { listen, tls: None, public_url: None, retained: RetainedPlan::default() };
        let plan = FleetPlan {
            listen,
            tls: None,
            public_url: None,
            database_url: Some(url.to_owned()),
            trusted_proxies: Default::default(),
            database_password: None,
            retention: RetentionPlan::default(),
            keys_dir: None,
            state_dir: state_dir.to_owned(),
            broker,
            turn: TurnPlan::default(),
            access: AccessPlan::default(),
            bridge: Default::default(),
            bundles: Default::default(),
            alerts: Default::default(),
            home_assistant: Vec::new(),
        };
        let handle = fleet::start(plan).await.unwrap();
        assert!(handle.first_start.is_none(), "there is an administrator");
        Self { handle, http: Client::new() }
    }

    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Value {
        let mut request = self.http.request(method.clone(), format!("{}/api/v1{path}", self.handle.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Everybody of old comes in with what they have, finds what was there, and does something new.
    async fn works(&self, first: i64) {
        let login = json!({"email": "old@r58.example", "password": PASSWORD});
        let tokens = self.call(Method::POST, "/auth/login", &[], Some(login)).await;
        let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
        let admin = [("Authorization", bearer.as_str())];
        for (since, path, found) in [
            (1, "/devices/a", "Box ä"),
            (1, "/devices?search=BOX", "Box ä"),
            (1, "/devices?tag=stage", "Box ä"),
            (1, "/devices/summary", "\"total\":1"),
            (1, "/devices/a/heartbeats?since=2027-01-01T00:00:00Z", "\"total\":2"),
            (1, "/users/u1", "Old"),
            (1, "/enrolment-codes", "\"e2\""),
            (1, "/commands/c2", "\"done\":1"),
            (1, "/devices/a/commands", "\"c1\""),
            (1, "/audit", "device.decommission"),
            (1, "/audit/verify", "\"valid\":true"),
            (10, "/api-keys", "\"k1\""),
            (12, "/command-groups/g1", "all"),
            (13, "/devices/a/config/versions", "first"),
            (14, "/release-keys", "Makers"),
            (14, "/releases", "1.0.0"),
            (14, "/rollouts/ro1", "paused"),
            (15, "/devices/a/bundles", BUNDLE),
            (31, "/alert-rules", "Hot"),
            (31, "/alerts/al1", "fan"),
            (31, "/silences", "load-in"),
            (32, "/alert-receivers", "Pager"),
            (32, "/alert-receivers/re1/deliveries", "\"de1\""),
        ] {
            if first >= since {
                let answer = self.call(Method::GET, path, &admin, None).await.to_string();
                assert!(answer.contains(found), "from version {first}, GET {path}: {answer}");
            }
        }
        let renewed = json!({"refresh_token": REFRESH});
        assert!(self.call(Method::POST, "/auth/refresh", &[], Some(renewed)).await["access_token"].is_string());
        if first >= 10 {
            let key = format!("Bearer {KEY}");
            self.call(Method::GET, "/devices", &[("Authorization", &key)], None).await;
        }
        let made = self.call(Method::POST, "/devices/a/commands", &admin, Some(json!({"type": "identify"}))).await;
        assert_eq!(made["seq"], 3, "numbers go on");
        let device = [("X-Device-Id", "a"), ("X-Device-Token", TOKEN)];
        let beat = json!({"ts": Utc::now(), "metrics": {"cpu_percent": 7.0}});
        let answer = self.call(Method::POST, "/devices/a/heartbeat", &device, Some(beat)).await;
        assert_eq!(answer["ack"], true);
        let new =
            json!({"enrolment_code": CODE, "device_id": "b", "name": "B", "platform": "linux", "arch": "aarch64"});
        assert!(self.call(Method::POST, "/devices/register", &[], Some(new)).await["token"].is_string());
        let summary = self.call(Method::GET, "/devices/summary", &admin, None).await;
        assert_eq!(summary["total"], 2, "{summary}");
    }
}

#[actix_web::test]
async fn every_earlier_database_is_brought_up_to_date_with_what_it_holds_and_used() {
    let last = earlier().last().unwrap();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let growing = Growing::new(engine).await;
        for first in earlier() {
            growing.grow(first).await;
            let (dir, url) = growing.copy().await;
            let store = upgraded(first, &url, dir.path()).await;
            // Summing up makes partitions, which takes its time; there are none of before but in the versions without them.
            if engine == Engine::Sqlite || first <= 5 || first == last {
                reads(&store, first).await;
            }
            store.close().await;
            // From here on they are alike but for what they hold: that of the first one least of all, that of the last one everything.
            if first == 1 || first == last {
                let today = Today::start(&url, dir.path()).await;
                today.works(first).await;
                today.handle.stop().await;
            }
        }
    }
}

/// Opens a database of this version, and requires that it holds afterwards what it held before.
async fn upgraded(first: i64, url: &str, state_dir: &Path) -> Store {
    let mut raw = Raw::open(url).await;
    let mut before = raw.tables().await;
    let mut held = BTreeMap::new();
    for (table, columns) in &before {
        let rows = raw.rows(table, columns).await;
        assert!(!rows.is_empty(), "{table} is empty in the database of version {first} that the test makes");
        held.insert(table.clone(), rows);
    }
    let store = Store::open(Some(url), None, state_dir).await.unwrap();
    let after = raw.tables().await;
    // The mark of heartbeats became a column of the device.
    held.entry("stream_acks".into()).and_modify(|rows| rows.retain(|row| !row.ends_with("|hb")));
    // What the chains took in is looked at elsewhere; of the counters one became a column of them. Every device is looked at once more.
    for table in ["audit_log", "audit_log_unchained", "audit_heads", "counters", "heard"] {
        before.remove(table);
    }
    for (table, columns) in &before {
        let kept = after.get(table).unwrap_or_else(|| panic!("{table} of version {first} is gone"));
        if columns.is_subset(kept) {
            assert_eq!(raw.rows(table, columns).await, held[table], "{table} of version {first}");
        } else {
            let common: BTreeSet<String> = columns.intersection(kept).cloned().collect();
            assert_eq!(raw.rows(table, &common).await.len(), held[table].len(), "{table} of version {first}");
        }
    }
    raw.close().await;
    store
}
