//! A disk that is full: the fleet server refuses to write and says why, reading goes on, what boxes measure waits with them, and
//! once there is room everything goes on by itself.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::support::namespace::is_root_or_ran_as_root;
use super::support::postgres::Postgres;
use super::support::r58::{Home, PATIENCE, R58};
use super::support::sim::{HOME_WITHIN, Simulated, assert_carried_home, assert_heartbeats_stored_once, until_online};
use super::support::site::Api;
use super::support::{backstage, free_port, until};

const DEVICES: usize = 10;

/// Takes all the room that there is, also what was let go since.
fn fill(path: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    for size in [1 << 20, 4096, 1] {
        let block = vec![7; size];
        while file.write_all(&block).is_ok() {}
    }
}

async fn write(api: &Api) -> Result<serde_json::Value, String> {
    api.call(Method::POST, "/api/v1/enrolment-codes", Some(&json!({"note": "x".repeat(150)}))).await
}

#[tokio::test]
async fn a_full_disk_stops_no_reader_loses_no_heartbeat_and_is_over_when_there_is_room() {
    if !is_root_or_ran_as_root(
        "a_full_disk::a_full_disk_stops_no_reader_loses_no_heartbeat_and_is_over_when_there_is_room",
    ) {
        return;
    }
    let _backstage = backstage().await;
    let (listen, broker) = (free_port(), free_port());
    let home = Home::new(&format!(
        "[fleet]\nlisten = \"127.0.0.1:{listen}\"\n[fleet.broker]\nlisten = \"127.0.0.1:{broker}\"\n"
    ));
    std::fs::create_dir(home.state()).expect("a directory");
    // A small disk that only the server sees, gone with it.
    let plain = home.command("fleet");
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=24m,mode=0700 small \"$0\" && exec \"$@\""]);
    command.arg(home.state()).arg(plain.get_program()).args(plain.get_args()).current_dir(home.path());
    command.env("R58_STATE_DIR", home.state());
    let mut server = R58::spawn("fleet", &mut command).await;
    let api = Api::sign_in(&server.fleet, server.password.as_deref().expect("a password")).await;
    let code = api.post("/api/v1/enrolment-codes", &json!({"uses": DEVICES})).await;
    let dir = tempfile::tempdir().expect("a directory");
    let orders = ["--code", code["code"].as_str().expect("a code"), "--outages", "0", "--site-outages", "0"];
    let sim = Simulated::start(&server.fleet, DEVICES, dir.path(), &orders);
    until_online(&api, HOME_WITHIN, DEVICES).await;

    let seen = home.state();
    let inside =
        PathBuf::from(format!("/proc/{}/root", server.process.id())).join(seen.strip_prefix("/").expect("absolute"));
    let filler = inside.join("filler");
    // Room that the database has taken already it writes over: only once that is used up are writes refused.
    let (begin, mut refusals) = (std::time::Instant::now(), 0);
    // Long enough for several heartbeats of each box.
    while refusals < 10 || begin.elapsed() < Duration::from_secs(10) {
        fill(&filler);
        for _ in 0..50 {
            let Err(refused) = write(&api).await else { continue };
            assert!(refused.starts_with("507") && refused.contains("disk is full"), "{refused}");
            refusals += 1;
            break;
        }
        for path in ["/api/v1/devices", "/api/v1/audit", "/api/v1/auth/me", "/health"] {
            api.get(path).await;
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "it is full and nearly nothing is refused: {refusals}");
    }
    assert!(server.process.is_alive());

    std::fs::remove_file(&filler).expect("room");
    until(PATIENCE, "a write once there is room", || write(&api)).await;
    until_online(&api, HOME_WITHIN, DEVICES).await;
    let done = api.command("sim-00001", "identify", json!({"seconds": 1})).await;
    api.ended(&done).await;
    let report = sim.report().await;
    assert_carried_home(&report);
    assert_heartbeats_stored_once(&api, &report).await;
    assert!(server.process.is_alive());
}

#[tokio::test]
async fn a_database_server_whose_disk_is_full_refuses_writes_answers_readers_and_goes_on_when_there_is_room() {
    if !is_root_or_ran_as_root(
        "a_full_disk::a_database_server_whose_disk_is_full_refuses_writes_answers_readers_and_goes_on_when_there_is_room",
    ) {
        return;
    }
    let _backstage = backstage().await;
    let postgres = Postgres::start_with_small_disk(48).await;
    let url = postgres.database_on_small_disk().await;
    let home = Home::new(&format!(
        "[fleet]\nlisten = \"127.0.0.1:0\"\ndatabase_url = \"{url}\"\n[fleet.broker]\nlisten = \"127.0.0.1:0\"\n"
    ));
    let mut server = R58::start(&home, "fleet").await;
    let api = Api::sign_in(&server.fleet, server.password.as_deref().expect("a password")).await;

    // A box that only speaks HTTP is told the same.
    let code = api.post("/api/v1/enrolment-codes", &json!({})).await;
    let old = json!({"enrolment_code": code["code"], "device_id": "old1", "name": "Old", "platform": "linux", "arch": "arm64"});
    let old = api.post("/api/v1/devices/register", &old).await;
    let token = old["token"].as_str().expect("a token");
    let beat = async || {
        let request =
            api.http.post(format!("{}/api/v1/devices/old1/heartbeat", api.base)).header("X-Device-Token", token);
        let answer = request.json(&json!({"ts": chrono::Utc::now(), "metrics": {}})).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    assert_eq!(beat().await.0, 200);

    let filler = postgres.small_disk().join("filler");
    // The code of that box is the first.
    let (begin, mut written, mut refusals) = (std::time::Instant::now(), 1, 0);
    while refusals < 10 {
        fill(&filler);
        match write(&api).await {
            // Pages that are there already are written over.
            Ok(_) => written += 1,
            Err(refused) => {
                assert!(refused.starts_with("507") && refused.contains("disk is full"), "{refused}");
                refusals += 1;
            }
        }
        let (status, said) = beat().await;
        assert!(status == 200 || (status == 507 && said.contains("disk is full")), "{status}: {said}");
        for path in ["/api/v1/devices", "/api/v1/audit", "/api/v1/auth/me", "/health"] {
            api.get(path).await;
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "it is full and nearly nothing is refused: {refusals}");
    }

    std::fs::remove_file(&filler).expect("room");
    until(PATIENCE, "a write once there is room", || write(&api)).await;
    assert!(server.process.is_alive());
    let codes = api.get("/api/v1/enrolment-codes").await;
    assert_eq!(codes["total"], written + 1, "what was acknowledged, and nothing else");
}
