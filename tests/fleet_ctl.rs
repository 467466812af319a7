//! Promise: `r58 ctl` does an operator's work against a running server and says by its exit code how it went.
//!
//! The real binary runs, with a configuration directory of its own.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "fleet_ctl/everything.rs"]
mod everything;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use r58::fleet::store::NewDevice;
use r58::fleet::switchboard::BridgePlan;
use r58::fleet::{self, AccessPlan, BrokerPlan, FleetHandle, FleetPlan, RetainedPlan, TurnPlan};
use r58_actors::fleet_link::identity::Secret;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const PASSWORD: &str = "a good password";

struct World {
    handle: FleetHandle,
    home: TempDir,
    _state: TempDir,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl World {
    async fn new() -> Self {
        let (state, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let handle = fleet::start(FleetPlan {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            public_url: None,
            database_url: None,
            trusted_proxies: Default::default(),
            database_password: None,
            retention: r58::fleet::store::retention::RetentionPlan::default(),
            keys_dir: None,
            state_dir: state.path().to_owned(),
            broker: BrokerPlan::Embedded {
                listen: ([127, 0, 0, 1], 0).into(),
                tls: None,
                public_url: None,
                retained: RetainedPlan::default(),
            },
            turn: TurnPlan::default(),
            access: AccessPlan {
                admin_password: Some(PASSWORD.into()),
                metrics_token: Some(Secret::new(everything::METRICS)),
                ..AccessPlan::default()
            },
            bridge: BridgePlan::default(),
            bundles: Default::default(),
            alerts: Default::default(),
            home_assistant: Vec::new(),
        })
        .await
        .unwrap();
        let world = Self { handle, home, _state: state };
        let code = world.handle.create_enrolment_code().await.unwrap();
        let hash = fleet::auth::secret::hash(&fleet::auth::secret::normalized_code(&code));
        let device = NewDevice {
            id: "box1".into(),
            name: "Box 1".into(),
            platform: "linux".into(),
            arch: "aarch64".into(),
            serial_number: None,
            mac_address: None,
            version: None,
            capabilities: None,
        };
        world.handle.store().enrol(&hash, &device, "hash", chrono::Utc::now()).await.unwrap();
        world
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_r58"));
        command.arg("ctl").args(args).arg("--url").arg(format!("http://{}", self.handle.addr));
        command.env("XDG_CONFIG_HOME", self.home.path()).env("R58_FLEET_PASSWORD", PASSWORD);
        command
            .env_remove("R58_USER_PASSWORD")
            .env_remove("R58_FLEET_TOKEN")
            .env_remove("R58_FLEET_EMAIL")
            .env_remove("R58_FLEET_URL");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args)).await
    }

    fn session_file(&self) -> std::path::PathBuf {
        self.home.path().join("r58").join("session.json")
    }
}

async fn run(mut command: Command) -> Ran {
    let output = command.output().await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[actix_web::test]
async fn an_audit_log_is_listed_exported_and_verified_also_without_a_server() {
    let world = World::new().await;
    world.run(&["login", "--email", "admin@r58.local"]).await;
    let listed = world.run(&["audit", "list", "--action", "device.register"]).await;
    assert!(listed.out.contains("box1") && listed.out.lines().count() == 2, "{}{}", listed.out, listed.err);
    let file = |name: &str| world.home.path().join(name).display().to_string();
    let (early, late) = (file("early.jsonl"), file("late.jsonl"));
    assert_eq!(world.run(&["audit", "export", &early]).await.code, 0);
    assert_eq!(world.run(&["audit", "export", &early]).await.code, 1, "it is there already");
    world.run(&["enrol"]).await;
    assert_eq!(world.run(&["audit", "export", &late]).await.code, 0);
    let online = world.run(&["audit", "verify", "--against", &early, "--json"]).await;
    let verdict: Value = serde_json::from_str(&online.out).unwrap();
    assert_eq!((online.code, &verdict["valid"], &verdict["org"]), (0, &true.into(), &"default".into()), "{verdict}");
    world.run(&["logout"]).await;

    // A checkpoint is the last line; alone it does as well as the whole.
    let point = file("point.json");
    let text = std::fs::read_to_string(&early).unwrap();
    std::fs::write(&point, text.lines().last().unwrap()).unwrap();
    for earlier in [&early, &point] {
        let good = world.run(&["audit", "verify", &late, "--against", earlier]).await;
        assert!(good.code == 0 && good.out.contains("whole and unchanged"), "{}{}", good.out, good.err);
    }
    let cut = world.run(&["audit", "verify", &early, "--against", &late]).await;
    assert!(cut.code == 1 && cut.out.contains("cut off"), "{}{}", cut.out, cut.err);
    let changed = file("changed.jsonl");
    std::fs::write(&changed, text.replacen("device.register", "device.forgotten", 1)).unwrap();
    let line = text.lines().position(|line| line.contains("device.register")).unwrap() + 1;
    let found = world.run(&["audit", "verify", &changed, "--json"]).await;
    let found: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((&found["valid"], &found["line"]), (&false.into(), &line.into()), "{found}");
    let other = world.run(&["audit", "verify", &late, "--key", &"A".repeat(43)]).await;
    assert_eq!(other.code, 1, "{}", other.out);
    world.handle.stop().await;
}

#[actix_web::test]
async fn a_session_is_kept_privately_and_carries_the_work() {
    let world = World::new().await;
    let refused = world.run(&["devices"]).await;
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("not signed in"), "{}", refused.err);
    let signed_in = world.run(&["login", "--email", "admin@r58.local"]).await;
    assert_eq!((signed_in.code, signed_in.out.trim()), (0, "signed in as admin@r58.local"), "{}", signed_in.err);
    assert_eq!(mode(&world.session_file()), 0o600);
    assert!(!std::fs::read_to_string(world.session_file()).unwrap().contains(PASSWORD));

    let devices = world.run(&["devices"]).await;
    assert!(devices.out.contains("box1") && devices.out.contains("offline"), "{}", devices.out);
    let devices: Value = serde_json::from_str(&world.run(&["devices", "--json"]).await.out).unwrap();
    assert_eq!(devices[0]["id"], "box1");
    assert_eq!(world.run(&["device", "nobody"]).await.code, 1);

    let sent = world.run(&["send", "box1", "take", "scene=quad", "duration_ms=500", "--json"]).await;
    let sent: Value = serde_json::from_str(&sent.out).unwrap();
    assert_eq!((&sent["payload"]["scene"], &sent["payload"]["duration_ms"]), (&"quad".into(), &500.into()));
    let signed = world.run(&["sign", "box1", "identify", r#"{"seconds": 3}"#]).await;
    let (topic, message) = signed.out.split_once('\n').unwrap();
    assert!(topic.starts_with("r58/1/default/box1/down/cmd/") && message.contains("ed25519:"), "{}", signed.out);
    let id = sent["id"].as_str().unwrap();
    let cancelled = world.run(&["cancel", id]).await;
    assert!(cancelled.code == 0 && cancelled.out.contains("cancelled"), "{}{}", cancelled.out, cancelled.err);
    assert_eq!(world.run(&["cancel", id]).await.code, 1, "too late");
    assert!(world.run(&["commands", "box1"]).await.out.contains("take"));
    assert!(world.run(&["enrol", "--note", "hall"]).await.out.contains("good until"));

    assert_eq!(world.run(&["logout"]).await.code, 0);
    assert_eq!(world.run(&["whoami"]).await.code, 4);
    world.handle.stop().await;
}

#[actix_web::test]
async fn an_expired_access_token_is_renewed_without_a_word() {
    let world = World::new().await;
    assert_eq!(world.run(&["login", "--email", "admin@r58.local"]).await.code, 0);
    let file = world.session_file();
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut spoilt = kept.clone();
    let url = format!("http://{}", world.handle.addr);
    spoilt[&url]["access_token"] = "expired".into();
    std::fs::write(&file, spoilt.to_string()).unwrap();
    assert_eq!(world.run(&["whoami"]).await.code, 0);
    let renewed: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_ne!(renewed[&url]["refresh_token"], kept[&url]["refresh_token"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = world.run(&["whoami"]).await;
    assert!(refused.code == 4 && refused.err.contains("readable by others"), "{}", refused.err);
    world.handle.stop().await;
}

#[actix_web::test]
async fn what_goes_wrong_is_told_apart_by_the_exit_code() {
    let world = World::new().await;
    let mut wrong = world.command(&["login", "--email", "admin@r58.local"]);
    wrong.env("R58_FLEET_PASSWORD", "a wrong password");
    let refused = run(wrong).await;
    assert!(refused.code == 4 && refused.err.contains("email or password is wrong"), "{}", refused.err);
    let mut away = Command::new(env!("CARGO_BIN_EXE_r58"));
    away.args(["ctl", "devices", "--token", "x", "--url", "http://127.0.0.1:9"]).env_remove("R58_FLEET_URL");
    let away = run(away).await;
    assert!(away.code == 3 && away.err.contains("cannot reach the fleet server"), "{}", away.err);
    assert_eq!(world.run(&["send", "box1"]).await.code, 2, "an argument is missing");
    assert_eq!(world.run(&["send", "box1", "take", "quad", "--token", "x"]).await.code, 2, "neither pair nor object");
    let refused = world.run(&["devices", "--token", "nonsense", "--json"]).await;
    let error: Value = serde_json::from_str(&refused.err).unwrap();
    assert!(refused.code == 4 && error["error"].is_string());
    world.handle.stop().await;
}

#[actix_web::test]
async fn watch_shows_a_command_as_it_happens() {
    let world = World::new().await;
    assert_eq!(world.run(&["login", "--email", "admin@r58.local"]).await.code, 0);
    let mut watching = world.command(&["watch", "--device", "box1", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    // The watcher listens some time after it starts: send until it has heard one.
    let heard = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            tokio::select! {
                line = lines.next_line() => break line.unwrap().unwrap(),
                sent = world.run(&["send", "box1", "identify"]) => assert_eq!(sent.code, 0, "{}", sent.err),
            }
        }
    });
    let heard: Value = serde_json::from_str(&heard.await.unwrap()).unwrap();
    assert_eq!((&heard["event"], &heard["data"]["type"]), (&"command".into(), &"identify".into()));
    watching.kill().await.unwrap();
    assert_eq!(world.run(&["watch", "--device", "nobody"]).await.code, 1);
    world.handle.stop().await;
}

#[actix_web::test]
async fn organizations_keys_groups_configurations_and_releases_are_looked_after_from_the_shell() {
    let world = World::new().await;
    assert_eq!(world.run(&["login", "--email", "admin@r58.local"]).await.code, 0);
    let json = async |args: &[&str]| -> Value {
        let ran = world.run(&[args, &["--json"][..]].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    };
    let made = json(&["org", "create", "north", "North", "--admin-email", "ada@north.example"]).await;
    assert!(made["admin_password"].as_str().unwrap().len() >= 19);
    assert!(world.run(&["org", "list"]).await.out.contains("north  North  1 users, 0 devices"));
    assert_eq!(json(&["org", "rename", "north", "Far north"]).await["name"], "Far north");

    let key = json(&["key", "create", "a program", "devices:read"]).await;
    let token = key["key"].as_str().unwrap();
    assert!(world.run(&["devices", "--token", token]).await.out.contains("box1"));
    assert_eq!(world.run(&["send", "box1", "identify", "--token", token]).await.code, 4);
    assert!(world.run(&["key", "list"]).await.out.contains("a program"));
    assert_eq!(world.run(&["key", "delete", key["id"].as_str().unwrap()]).await.code, 0);
    assert_eq!(world.run(&["devices", "--token", token]).await.code, 4);

    let group = json(&["group", "send", "stage", "identify"]).await;
    assert_eq!((&group["total"], &group["tag"]), (&0.into(), &"stage".into()));
    assert!(json(&["group", "send", "stage", "identify", "--dry-run"]).await["devices"].as_array().unwrap().is_empty());
    assert!(world.run(&["group", "list"]).await.out.contains("identify  stage  0 of 0 ended"));

    let changed = json(&["config", "change", "box1", r#"{"inputs": {"cam1": null}, "a": 1}"#]).await;
    assert_eq!(changed["desired"]["document"], serde_json::json!({"a": 1, "inputs": {}}));
    json(&["config", "change", "box1", "a=2"]).await;
    assert_eq!(world.run(&["config", "change", "box1", "a=3", "--expected", "1"]).await.code, 1);
    assert_eq!(
        world.run(&["config", "diff", "box1", "--from", "1", "--to", "2"]).await.out.trim(),
        "changed /a: 1 -> 2"
    );
    assert_eq!(json(&["config", "rollback", "box1", "1"]).await["desired"]["ver"], 3);
    assert_eq!(json(&["config", "versions", "box1"]).await.as_array().unwrap().len(), 3);

    let file = world.home.path().join("maker.pem");
    let made =
        std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&file).status();
    assert!(made.unwrap().success(), "openssl is needed");
    let file = file.to_str().unwrap();
    let key = json(&["release", "key", "builds", "--private-key", file]).await["id"].clone();
    let release = serde_json::json!({"version": "1.4.0", "channel": "stable", "size_bytes": 9,
        "artifact_url": "https://r58.example/a", "checksum_sha256": "ab".repeat(32)});
    json(&["release", "create", &release.to_string()]).await;
    let publish = ["release", "publish", "1.4.0", "--key", key.as_str().unwrap(), "--private-key", file];
    assert_eq!(json(&publish).await["published"], true);
    assert!(world.run(&["release", "list"]).await.out.contains("1.4.0  any  stable  published"));
    let rollout = json(&["release", "rollout", "1.4.0", "--percent", "5"]).await;
    let id = rollout["id"].as_str().unwrap();
    assert_eq!(json(&["release", "change", id, "--percent", "10", "--state", "paused"]).await["percent"], 10);
    assert!(world.run(&["release", "rollouts"]).await.out.contains("10 %  paused"));
    world.handle.stop().await;
}

#[actix_web::test]
async fn a_bundle_is_asked_for_and_listed_and_a_box_that_is_away_tells_no_log() {
    let world = World::new().await;
    world.run(&["login", "--email", "admin@r58.local"]).await;
    let asked = world.run(&["bundle", "box1", "--without-logs", "--json"]).await;
    let asked: Value = serde_json::from_str(&asked.out).unwrap();
    assert_eq!(asked["state"], "requested");
    let listed = world.run(&["bundles", "box1"]).await;
    assert!(listed.out.contains(asked["id"].as_str().unwrap()) && listed.out.contains("requested"), "{}", listed.out);
    let listed: Value = serde_json::from_str(&world.run(&["bundles", "box1", "--json"]).await.out).unwrap();
    assert_eq!(listed[0]["device_id"], "box1");
    for args in [&["logs", "box1"][..], &["logs", "box1", "--follow"]] {
        let away = world.run(args).await;
        assert_eq!(away.code, 1, "{}", away.err);
        assert!(away.err.contains("not connected"), "{}", away.err);
    }
    assert_eq!(world.run(&["logs", "box1", "--level", "loud"]).await.code, 1);
    world.handle.stop().await;
}

#[actix_web::test]
async fn alerts_their_rules_silences_and_receivers_are_looked_after_from_the_command_line() {
    let world = World::new().await;
    assert_eq!(world.run(&["login", "--email", "admin@r58.local"]).await.code, 0);
    let json = async |args: &[&str]| -> Value {
        let ran = world.run(&[&["--json", "alert"], args].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    };
    assert_eq!(json(&["rule", "list"]).await.as_array().unwrap().len(), 7);
    let rule = json(&["rule", "create", "disk", "Disk of the tour", "--threshold", "20", "--tag", "tour"]).await;
    let id = rule["id"].as_str().unwrap();
    let changed = json(&["rule", "change", id, "--severity", "critical", "--tag", "", "--enabled", "false"]).await;
    assert_eq!(
        (&changed["severity"], &changed["tag"], &changed["enabled"]),
        (&"critical".into(), &Value::Null, &false.into())
    );
    assert!(
        world.run(&["alert", "rule", "list"]).await.out.contains("disk 20 for 60 s  critical  Disk of the tour  off")
    );
    let one = json(&["rule", "change", id, "--device", "box1"]).await;
    assert_eq!((&one["device_id"], &one["receiver_ids"]), (&"box1".into(), &Value::Null));
    json(&["rule", "delete", id]).await;
    let silence = json(&["silence", "create", "it moves", "--device", "box1", "--minutes", "5"]).await;
    assert!(world.run(&["alert", "silence", "list"]).await.out.contains("device_id box1"));
    json(&["silence", "end", silence["id"].as_str().unwrap()]).await;
    let later = ["silence", "create", "the crew sleeps", "--all", "--from", "2099-01-01T00:00:00Z"];
    assert_ne!(world.run(&[&["alert"], &later[..]].concat()).await.code, 0, "farther away than a year");
    let silence = json(&later[..4]).await;
    assert_eq!((&silence["all"], &silence["active"]), (&true.into(), &true.into()));
    let receiver = json(&["receiver", "create", "Pager", "--webhook", "https://hooks.invalid/s3cret"]).await;
    let id = receiver["id"].as_str().unwrap();
    assert_eq!(json(&["receiver", "change", id, "--min-severity", "critical"]).await["min_severity"], "critical");
    let listed = world.run(&["alert", "receiver", "list"]).await.out;
    assert!(listed.contains("https://hooks.invalid/…  from critical") && !listed.contains("s3cret"), "{listed}");
    json(&["receiver", "test", id]).await;
    assert_eq!(json(&["receiver", "deliveries", id]).await[0]["test"], true);
    json(&["receiver", "delete", id]).await;
    assert_eq!(json(&["list"]).await, Value::Array(Vec::new()));
    assert_eq!(json(&["summary"]).await["open"], 0);
    for order in ["ack", "unack"] {
        assert_eq!(world.run(&["alert", order, "nothing"]).await.code, 1);
    }
    world.handle.stop().await;
}
