//! A fleet server is backed up by one command while boxes and operators are at work, and restored by another: whatever was
//! acknowledged before the back-up began is there, the same boxes go on with it, and no command happens twice. A restore that
//! is killed at any step is brought to its end by the same command; nothing runs on half of one.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::support::postgres::Postgres;
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::sim::{HOME_WITHIN, Simulated, ended_commands, id, until_online};
use super::support::site::Api;
use super::support::{backstage, free_port};

const DEVICES: usize = 15;

/// Where a server is to be, whichever directory it lives in.
struct Place {
    listen: u16,
    broker: u16,
}

impl Place {
    fn home(&self, database: Option<&str>) -> Home {
        let Self { listen, broker } = self;
        let url = database.map(|url| format!("database_url = \"{url}\"\n")).unwrap_or_default();
        Home::new(&format!(
            "[fleet]\nlisten = \"127.0.0.1:{listen}\"\n{url}[fleet.broker]\nlisten = \"127.0.0.1:{broker}\"\n"
        ))
    }
}

async fn fleet_with(home: &Home, more: &[&str], variable: (&str, &str)) -> Output {
    let mut command = tokio::process::Command::from(home.command("fleet"));
    command.args(more).env(variable.0, variable.1).kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output()).await.expect("its end").expect("a process")
}

async fn fleet(home: &Home, more: &[&str]) -> Output {
    fleet_with(home, more, ("R58_FAILPOINT", "")).await
}

#[track_caller]
fn refused(ran: Output, because: &str) {
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success() && said.contains(because), "{because:?} was not said: {said}");
}

#[track_caller]
fn done(ran: &Output) -> String {
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Makes commands, one after the other, until `enough`; answers with those that were acknowledged.
async fn commands(api: &Api, made: &mut Vec<String>, mut enough: impl FnMut(usize) -> bool) {
    while !enough(made.len()) {
        let device = id(made.len() % DEVICES + 1);
        made.push(api.command(&device, "identify", json!({"seconds": 1})).await);
    }
}

/// A box that speaks HTTP alone, with a support bundle of its own.
struct ByHttp {
    token: String,
    bundle: String,
}

impl ByHttp {
    const ID: &str = "by-http";
    const BUNDLE: &[u8] = b"what a box knows";

    async fn new(api: &Api, code: &str) -> Self {
        let body =
            json!({"enrolment_code": code, "device_id": Self::ID, "name": "H", "platform": "linux", "arch": "arm"});
        let token = api.post("/api/v1/devices/register", &body).await["token"].as_str().expect("a token").to_owned();
        let asked = api.post(&format!("/api/v1/devices/{}/bundles", Self::ID), &json!({})).await;
        let own = Self { token, bundle: asked["id"].as_str().expect("an id").to_owned() };
        let sha256 = hex::encode(Sha256::digest(Self::BUNDLE));
        let announced = json!({"size_bytes": Self::BUNDLE.len(), "sha256": sha256});
        let upload = format!("/api/v1/bundles/{}/upload", own.bundle);
        let said = own.request(api, Method::POST, &upload).json(&announced).send().await.expect("an answer");
        assert_eq!(said.status(), 204);
        let piece = own.request(api, Method::PATCH, &upload).header("upload-offset", "0");
        let said = piece.header("upload-checksum", sha256).body(Self::BUNDLE).send().await.expect("an answer");
        assert_eq!(said.headers()["upload-complete"], "?1");
        own
    }

    fn request(&self, api: &Api, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = api.http.request(method, format!("{}{path}", api.base));
        request.header("X-Device-Id", Self::ID).header("X-Device-Token", &self.token)
    }

    /// The server knows it as before, and has what it sent.
    async fn is_known(&self, api: &Api) {
        let commands = self.request(api, Method::GET, &format!("/api/v1/devices/{}/commands", Self::ID));
        assert_eq!(commands.send().await.expect("an answer").status(), 200);
        let url = format!("{}/api/v1/bundles/{}/download", api.base, self.bundle);
        let bytes = api.http.get(url).bearer_auth(api.token()).send().await.expect("an answer").bytes().await;
        assert_eq!(bytes.expect("the bundle"), Self::BUNDLE);
    }
}

async fn back_up_and_restore(databases: Option<[String; 2]>) {
    let place = Place { listen: free_port(), broker: free_port() };
    let [first, second] = match &databases {
        None => [None, None],
        Some([first, second]) => [Some(first.as_str()), Some(second.as_str())],
    };
    let old = place.home(first);
    let mut server = R58::start(&old, "fleet").await;
    let api = Api::sign_in(&server.fleet, server.password.as_deref().expect("a password")).await;
    let code = api.post("/api/v1/enrolment-codes", &json!({"uses": DEVICES + 1})).await;
    let code = code["code"].as_str().expect("a code");
    let dir = tempfile::tempdir().expect("a directory");
    let quiet = ["--outages", "0", "--site-outages", "0", "--effect", "0.3", "--failures", "0", "--code", code];
    let sim = Simulated::start(&server.fleet, DEVICES, dir.path(), &quiet);
    let by_http = ByHttp::new(&api, code).await;
    until_online(&api, HOME_WITHIN, DEVICES).await;

    let mut made = Vec::new();
    commands(&api, &mut made, |made| made >= DEVICES).await;
    let acknowledged = made.clone();
    let file = dir.path().join("fleet.backup");
    let path = file.display().to_string();
    let order = ["backup", "--to", path.as_str()];
    let backup = fleet(&old, &order);
    tokio::pin!(backup);
    let ran = loop {
        let enough = made.len() + 1;
        tokio::select! {
            ran = &mut backup => break ran,
            () = commands(&api, &mut made, |made| made >= enough) => {}
        }
    };
    let said = done(&ran);
    assert!(said.contains("support bundles: 1") && said.contains(&old.config().display().to_string()), "{said}");
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let hidden = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let left = std::fs::read_dir(dir.path()).expect("a directory").flatten().filter(hidden).count();
    assert_eq!(left, 0, "nothing is left beside it");
    let later = made.len();
    commands(&api, &mut made, |made| made >= later + DEVICES).await;
    refused(fleet(&old, &["backup", "--to", &path]).await, "exists already");
    refused(fleet(&old, &["restore", "--from", &path, "--replace"]).await, "in use");
    let own = format!("sqlite://{}", old.state().join("fleet/fleet.db").display());
    let elsewhere = place.home(Some(first.unwrap_or(&own)));
    refused(fleet(&elsewhere, &["restore", "--from", &path, "--replace"]).await, "a fleet server runs on");
    if first.is_some() {
        the_tools_are_looked_at_first(&old, &path).await;
    }

    let new = place.home(second);
    unfit_files_are_refused(&new, &file).await;
    // The same server on other ports: those are taken yet.
    let spare = Place { listen: free_port(), broker: free_port() }.home(second);
    let state = new.state().display().to_string();
    let steps =
        if second.is_some() { &["begun", "database", "key_placed"][..] } else { &["laid_out", "ready", "key_placed"] };
    for (n, step) in steps.iter().enumerate() {
        let order = ["restore", "--from", path.as_str(), "--replace"];
        let order = &order[..if n == 0 { 3 } else { 4 }];
        let killed = fleet_with(&new, order, ("R58_FAILPOINT", &format!("restore_{step}"))).await;
        assert_eq!(killed.status.signal(), Some(9), "{step}: {}", String::from_utf8_lossy(&killed.stderr));
        if ["begun", "database"].contains(step) {
            refused(fleet_with(&spare, &[], ("R58_STATE_DIR", &state)).await, "a restore was interrupted");
        }
        if *step != "laid_out" {
            refused(fleet(&new, &["backup", "--to", &format!("{path}.half")]).await, "a restore was interrupted");
        }
        if n + 1 < steps.len() {
            done(&fleet(&new, order).await);
            refused(fleet(&new, &order[..3]).await, "--replace");
        }
    }

    // The keys are the same, so the session goes on. The last step that was missing is this start's.
    server.process.kill();
    let server = R58::start(&new, "fleet").await;
    let left = std::fs::read_dir(new.state().join("fleet")).expect("its state").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.contains("restore")), "{left:?}");
    assert_eq!((server.fleet.as_str(), server.password.as_deref()), (api.base.as_str(), None));
    for id in &acknowledged {
        api.get(&format!("/api/v1/commands/{id}")).await;
    }
    by_http.is_known(&api).await;
    until_online(&api, HOME_WITHIN, DEVICES).await;
    ended_commands(&api, DEVICES).await;
    // The boxes have seen higher numbers than the server remembers.
    let once_more = |n: usize| {
        let api = &api;
        async move {
            let fresh = api.command(&id(n), "identify", json!({"seconds": 1})).await;
            api.ended(&fresh).await
        }
    };
    let ends: Vec<Value> = futures_util::stream::iter(1..=DEVICES).map(once_more).buffer_unordered(8).collect().await;
    assert!(ends.iter().all(|end| end["state"] == "succeeded"), "{ends:?}");
    let verify = tokio::process::Command::new(binary())
        .args(["ctl", "audit", "verify", "--url", &api.base, "--token", api.token()])
        .output()
        .await
        .expect("a process");
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
    let report = sim.report().await;
    assert_eq!((&report["commands"]["effects_repeated"], &report["commands"]["ended_twice"]), (&json!(0), &json!(0)));
}

/// PostgreSQL's tools are missing, or older than its server.
async fn the_tools_are_looked_at_first(home: &Home, path: &str) {
    let tools = tempfile::tempdir().expect("a directory");
    let only = ("PATH", tools.path().to_str().expect("a path"));
    let to = format!("{path}.none");
    refused(fleet_with(home, &["backup", "--to", &to], only).await, "pg_dump is not on the path (Debian: postgresql-");
    let elsewhere = home.path().join("elsewhere");
    let state = ("R58_STATE_DIR", elsewhere.to_str().expect("a path"));
    let mut command = tokio::process::Command::from(home.command("fleet"));
    command.args(["restore", "--from", path, "--replace"]).env(only.0, only.1).env(state.0, state.1);
    refused(command.output().await.expect("a process"), "pg_restore is not on the path");
    let old = tools.path().join("pg_dump");
    std::fs::write(&old, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n").expect("a script");
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).expect("rights");
    refused(fleet_with(home, &["backup", "--to", &to], only).await, "is of version 9, the database server of");
    assert!(!Path::new(&to).exists());
}

/// A back-up of the same server by a version that is newer than any.
fn of_the_future(file: &Path) -> Vec<u8> {
    let mut archive = tar::Archive::new(std::fs::File::open(file).expect("a back-up"));
    let mut newer = tar::Builder::new(Vec::new());
    for entry in archive.entries().expect("parts") {
        let mut entry = entry.expect("a part");
        let (name, mut header, mut content) =
            (entry.path().expect("a name").into_owned(), entry.header().clone(), Vec::new());
        std::io::Read::read_to_end(&mut entry, &mut content).expect("its bytes");
        if name == Path::new("manifest.json") {
            let mut manifest: Value = serde_json::from_slice(&content).expect("JSON");
            manifest["schema"] = json!(9_999);
            content = manifest.to_string().into_bytes();
        }
        header.set_size(content.len() as u64);
        newer.append_data(&mut header, name, content.as_slice()).expect("a part");
    }
    newer.into_inner().expect("a file")
}

async fn unfit_files_are_refused(home: &Home, file: &Path) {
    let whole = std::fs::read(file).expect("a back-up");
    let bad = file.with_extension("bad");
    let mut changed = whole.clone();
    changed[5_000] ^= 1;
    let cut = whole[..whole.len() / 2].to_vec();
    let unfit = [
        (changed, "back-up is damaged"),
        (cut, "back-up is damaged"),
        (b"something else".to_vec(), "back-up"),
        (Vec::new(), "back-up is damaged"),
        (of_the_future(file), "written by a newer version"),
    ];
    for (content, because) in unfit {
        std::fs::write(&bad, content).expect("a file");
        refused(fleet(home, &["restore", "--from", &bad.display().to_string()]).await, because);
    }
    let state = home.state().join("fleet");
    let left: Vec<_> =
        std::fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"], "nothing was touched");
}

#[tokio::test]
async fn a_server_is_backed_up_under_load_and_restored_on_either_engine() {
    let _backstage = backstage().await;
    let postgres = Postgres::shared().await;
    let databases = [postgres.database().await, postgres.database().await];
    // Most of the time each waits for its boxes.
    let both = async { tokio::join!(back_up_and_restore(None), back_up_and_restore(Some(databases))) };
    tokio::time::timeout(Duration::from_secs(400), both).await.expect("an end");
}
