//! Node-RED with an mqtt-in node and an SQLite node: what an operator would reach for to store heartbeats.
//!
//! The flow is the shortest that does the job: parse, bind the metrics, insert one row, into a table made like ours with a
//! write-ahead log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use tempfile::TempDir;

use crate::mqtt::{FLEET, PASSWORD};
use crate::process::Process;

/// Node takes a while to load it all.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// A running Node-RED; ended when dropped.
pub struct NodeRed {
    _process: Process,
    /// Its database.
    pub pool: SqlitePool,
    _dir: TempDir,
}

impl NodeRed {
    /// Starts it on messages of `topic` at `broker`.
    ///
    /// # Errors
    /// When it is not installed, or does not come up.
    pub async fn start(broker: SocketAddr, topic: &str) -> Result<Self> {
        let program = installed();
        ensure!(program.exists(), "Node-RED is not installed (npm ci in tests/bench/node-red)");
        let dir = tempfile::tempdir()?;
        let database = dir.path().join("heartbeats.db");
        let options = SqliteConnectOptions::new().filename(&database).create_if_missing(true);
        let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await?;
        sqlx::query(
            "CREATE TABLE heartbeats (device TEXT NOT NULL, ts TEXT NOT NULL, boot_seq INTEGER NOT NULL, seq INTEGER NOT NULL, \
             cpu REAL, mem REAL, disk REAL, temp REAL, body TEXT NOT NULL, PRIMARY KEY (device, boot_seq, seq)) WITHOUT ROWID",
        )
        .execute(&pool)
        .await?;
        std::fs::write(dir.path().join("flow.json"), flow(broker, topic, &database).to_string())?;
        std::fs::write(
            dir.path().join("flow_cred.json"),
            json!({"broker": {"user": FLEET, "password": PASSWORD}}).to_string(),
        )?;
        std::fs::write(
            dir.path().join("settings.js"),
            "module.exports = { credentialSecret: false, flowFile: 'flow.json', httpAdminRoot: false, httpNodeRoot: false, \
             uiHost: '127.0.0.1', uiPort: 0, diagnostics: { enabled: false }, telemetry: { enabled: false } };",
        )?;
        let mut command = Command::new("node");
        command.arg(&program).arg("-u").arg(dir.path()).arg("-s").arg(dir.path().join("settings.js"));
        command.current_dir(program.parent().and_then(Path::parent).unwrap_or(Path::new(".")));
        // The node with the database is found beside the program.
        command.env("NODE_RED_HOME", program.parent().unwrap_or(Path::new(".")));
        let mut process = Process::start("node-red", &mut command)?;
        let since = process.started();
        let connected = |line: &str| line.contains("Connected to broker").then_some(());
        process.line(since, UP_WITHIN, "connection to the broker", connected).await?;
        Ok(Self { _process: process, pool, _dir: dir })
    }
}

fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node-red/node_modules/node-red/red.js")
}

fn flow(broker: SocketAddr, topic: &str, database: &Path) -> serde_json::Value {
    let parse = "const m = msg.payload.metrics; const id = msg.topic.split('/')[3];\n\
                 msg.params = {$device: id, $ts: msg.payload.ts, $boot: msg.payload.boot_seq, $seq: msg.payload.seq, \
                 $cpu: m.cpu_percent, $mem: m.mem_percent, $disk: m.disk_free_gb, $temp: m.temperature_c, \
                 $body: JSON.stringify(msg.payload)};\nreturn msg;";
    let insert = "INSERT INTO heartbeats VALUES ($device, $ts, $boot, $seq, $cpu, $mem, $disk, $temp, $body) \
                  ON CONFLICT DO NOTHING";
    json!([
        {"id": "tab", "type": "tab", "label": "Heartbeats"},
        {"id": "broker", "type": "mqtt-broker", "broker": broker.ip().to_string(), "port": broker.port().to_string(),
         "clientid": "bench-node-red", "autoConnect": true, "usetls": false, "protocolVersion": "5", "keepalive": "60",
         "cleansession": true},
        {"id": "file", "type": "sqlitedb", "db": database, "mode": "RWC"},
        {"id": "in", "type": "mqtt in", "z": "tab", "topic": topic, "qos": "0", "datatype": "json", "broker": "broker",
         "wires": [["bind"]]},
        {"id": "bind", "type": "function", "z": "tab", "func": parse, "outputs": 1, "wires": [["store"]]},
        {"id": "store", "type": "sqlite", "z": "tab", "mydb": "file", "sqlquery": "prepared", "sql": insert, "wires": [[]]}
    ])
}
