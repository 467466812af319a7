//! A fleet server is backed up by one command while boxes and operators are at work, and restored by another: whatever was
//! acknowledged before the back-up began is there, the same boxes go on with it, and no command happens twice.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::json;

use super::support::postgres::Postgres;
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::sim::{HOME_WITHIN, Simulated, ended_commands, id, until_online};
use super::support::site::Api;
use super::support::{free_port, stage};

const DEVICES: usize = 25;

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

async fn fleet(home: &Home, more: &[&str]) -> Output {
    let mut command = tokio::process::Command::from(home.command("fleet"));
    command.args(more).kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output()).await.expect("its end").expect("a process")
}

#[track_caller]
fn refused(ran: Output, because: &str) {
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success() && said.contains(because), "{because:?} was not said: {said}");
}

#[track_caller]
fn done(ran: &Output) {
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Makes commands, one after the other, until `enough`; answers with those that were acknowledged.
async fn commands(api: &Api, made: &mut Vec<String>, mut enough: impl FnMut(usize) -> bool) {
    while !enough(made.len()) {
        let device = id(made.len() % DEVICES + 1);
        made.push(api.command(&device, "identify", json!({"seconds": 1})).await);
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
    let code = api.post("/api/v1/enrolment-codes", &json!({"uses": DEVICES})).await;
    let dir = tempfile::tempdir().expect("a directory");
    let quiet = ["--outages", "0", "--site-outages", "0", "--effect", "0.3", "--failures", "0"];
    let code = ["--code", code["code"].as_str().expect("a code")];
    let sim = Simulated::start(&server.fleet, DEVICES, dir.path(), &[&quiet[..], &code[..]].concat());
    until_online(&api, HOME_WITHIN, DEVICES).await;

    let mut made = Vec::new();
    commands(&api, &mut made, |made| made >= 2 * DEVICES).await;
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
    done(&ran);
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let hidden = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let left = std::fs::read_dir(dir.path()).expect("a directory").flatten().filter(hidden).count();
    assert_eq!(left, 0, "nothing is left beside it");
    let later = made.len();
    commands(&api, &mut made, |made| made >= later + DEVICES).await;
    refused(fleet(&old, &["backup", "--to", &path]).await, "exists already");
    refused(fleet(&old, &["restore", "--from", &path, "--replace"]).await, "in use");
    server.process.kill();

    let new = place.home(second);
    damaged_files_are_refused(&new, &file).await;
    done(&fleet(&new, &["restore", "--from", &path]).await);
    refused(fleet(&new, &["restore", "--from", &path]).await, "--replace");
    done(&fleet(&new, &["restore", "--from", &path, "--replace"]).await);

    // The keys are the same, so the session goes on.
    let server = R58::start(&new, "fleet").await;
    assert_eq!((server.fleet.as_str(), server.password.as_deref()), (api.base.as_str(), None));
    for id in &acknowledged {
        api.get(&format!("/api/v1/commands/{id}")).await;
    }
    until_online(&api, HOME_WITHIN, DEVICES).await;
    ended_commands(&api, DEVICES).await;
    // The boxes have seen higher numbers than the server remembers.
    for n in 1..=DEVICES {
        let fresh = api.command(&id(n), "identify", json!({"seconds": 1})).await;
        let end = api.ended(&fresh).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    }
    let verify = tokio::process::Command::new(binary())
        .args(["ctl", "audit", "verify", "--url", &api.base, "--token", api.token()])
        .output()
        .await
        .expect("a process");
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
    let report = sim.report().await;
    assert_eq!((&report["commands"]["effects_repeated"], &report["commands"]["ended_twice"]), (&json!(0), &json!(0)));
}

async fn damaged_files_are_refused(home: &Home, file: &Path) {
    let whole = std::fs::read(file).expect("a back-up");
    let bad = file.with_extension("bad");
    let mut changed = whole.clone();
    changed[5_000] ^= 1;
    let cut = whole[..whole.len() / 2].to_vec();
    for content in [changed, cut, b"something else".to_vec(), Vec::new()] {
        std::fs::write(&bad, content).expect("a file");
        let ran = fleet(home, &["restore", "--from", &bad.display().to_string()]).await;
        refused(ran, "back-up");
    }
    let state = home.state().join("fleet");
    let left: Vec<_> =
        std::fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"], "nothing was touched");
}

#[tokio::test]
async fn a_server_on_sqlite_is_backed_up_under_load_and_restored() {
    let _stage = stage().await;
    tokio::time::timeout(Duration::from_secs(400), back_up_and_restore(None)).await.expect("an end");
}

#[tokio::test]
async fn a_server_on_postgresql_is_backed_up_under_load_and_restored() {
    let _stage = stage().await;
    let postgres = Postgres::shared().await;
    let databases = [postgres.database().await, postgres.database().await];
    tokio::time::timeout(Duration::from_secs(400), back_up_and_restore(Some(databases))).await.expect("an end");
}
