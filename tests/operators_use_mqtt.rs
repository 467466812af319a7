//! Operators and dashboards with nothing but an MQTT client: heartbeats are read and commands are published with the accounts
//! that sign in to the dashboard, as README's tour says it.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::support::r58::{EPHEMERAL, Home, PATIENCE, R58};
use super::support::{stage, until};

const DEVICE: &str = "r58-demo";

struct Operator<'a> {
    demo: &'a R58,
    home: &'a Home,
}

impl Operator<'_> {
    fn mosquitto(&self, program: &str, arguments: &[&str]) -> Output {
        let (host, port) = self.demo.broker.rsplit_once(':').expect("host and port");
        let password = self.demo.password.as_deref().expect("the first start's password");
        let mut command = Command::new(program);
        command.args(["-V", "5", "-h", host, "-p", port, "-u", "admin@r58.local", "-P", password]).args(arguments);
        command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    fn ctl(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(super::support::r58::binary());
        command.args(["ctl", "--json", "--url", &self.demo.fleet, "--email", "admin@r58.local"]).args(arguments);
        command.env("HOME", self.home.path()).env_remove("XDG_CONFIG_HOME");
        command.env("R58_FLEET_PASSWORD", self.demo.password.as_deref().expect("the first start's password"));
        let output = command.output().expect("r58 ctl");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    }
}

#[tokio::test]
async fn heartbeats_are_read_and_a_signed_command_is_done_once_and_withdrawn() {
    let _stage = stage().await;
    let home = Home::new(EPHEMERAL);
    let demo = R58::start(&home, "demo").await;
    demo.state_until("the fleet reached", |state| state["fleet"]["state"] == "online").await;
    let operator = Operator { demo: &demo, home: &home };

    let heard =
        operator.mosquitto("mosquitto_sub", &["-C", "1", "-W", "30", "-t", &format!("r58/1/default/{DEVICE}/up/hb")]);
    let heartbeat: Value = serde_json::from_slice(&heard.stdout).expect("a heartbeat");
    assert!(heartbeat["programme"]["frames"].as_u64() > Some(0), "{heartbeat}");

    let signed = operator.ctl(&["sign", DEVICE, "take", "scene=full-cam3"]);
    let (topic, message) = (signed["topic"].as_str().expect("topic"), signed["message"].as_str().expect("message"));
    for _ in 0..3 {
        let sent = operator.mosquitto("mosquitto_pub", &["-r", "-q", "1", "-t", topic, "-m", message]);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    }
    demo.state_until("the take", |state| state["programme"]["scene"] == "full-cam3").await;

    // Somebody else takes another scene; what was delivered three times must not come back.
    let (status, _) = demo.post("/api/mixer/take", &json!({ "scene": "full-cam1", "kind": "cut" })).await;
    assert!(status.is_success());
    let id = signed["id"].as_str().expect("id");
    until(PATIENCE, "the command's end", || async {
        let commands = operator.ctl(&["commands", DEVICE]);
        let items = commands["items"].as_array().or(commands.as_array()).cloned().unwrap_or_default();
        let state = items.iter().find(|item| item["id"] == id).map(|item| item["state"].clone());
        if state == Some(json!("succeeded")) || state == Some(json!("closed")) { Ok(()) } else { Err(commands) }
    })
    .await;
    until(PATIENCE, "its withdrawal", || async {
        let kept = operator.mosquitto("mosquitto_sub", &["-C", "1", "-W", "1", "-t", topic]);
        if kept.stdout.is_empty() { Ok(()) } else { Err(String::from_utf8_lossy(&kept.stdout).into_owned()) }
    })
    .await;
    assert_eq!(demo.state().await["programme"]["scene"], "full-cam1");

    // The box takes another token, signs in with it, and obeys as before.
    let token = || -> String {
        let text = std::fs::read_to_string(home.state().join("device/identity.json")).expect("the identity");
        let identity: Value = serde_json::from_str(&text).expect("an identity");
        identity["token"].as_str().expect("a token").to_owned()
    };
    let old = token();
    let renewed = operator.ctl(&["send", DEVICE, "rotate_token", "--wait"]);
    assert_eq!(renewed["state"], "succeeded", "{renewed}");
    let new = token();
    assert_ne!(old, new);
    assert!(!renewed.to_string().contains(&new), "no command ever holds a token");
    let is_good = async |token: &str| {
        let asked = demo.http().get(format!("{}/turn-credentials", demo.fleet));
        let answer = asked.header("X-Device-Id", DEVICE).header("X-Device-Token", token).send().await;
        answer.expect("an answer").status() == 200
    };
    until(PATIENCE, "the end of the old token", || async { if is_good(&old).await { Err(()) } else { Ok(()) } }).await;
    assert!(is_good(&new).await);
    let taken = operator.ctl(&["send", DEVICE, "take", "scene=full-cam2", "--wait"]);
    assert_eq!(taken["state"], "succeeded", "{taken}");
    assert!(demo.stop().await.success());
}

#[tokio::test]
async fn what_an_operator_may_not_publish_is_refused() {
    let _stage = stage().await;
    let home = Home::new(EPHEMERAL);
    let demo = R58::start(&home, "demo").await;
    let operator = Operator { demo: &demo, home: &home };
    for topic in
        ["r58/1/default/r58-demo/down/sync", "r58/1/default/r58-demo/up/presence", "r58/1/other/box/down/cmd/1"]
    {
        let sent = operator.mosquitto("mosquitto_pub", &["-q", "1", "-t", topic, "-m", "{}", "-d"]);
        let said = String::from_utf8_lossy(&sent.stderr).into_owned() + &String::from_utf8_lossy(&sent.stdout);
        assert!(!sent.status.success() || said.contains("RC:135"), "{topic}: {said}");
    }
    // A client that calls itself like the box would take over its session.
    demo.state_until("the fleet reached", |state| state["fleet"]["state"] == "online").await;
    let posing = operator.mosquitto("mosquitto_sub", &["-i", DEVICE, "-W", "2", "-t", "r58/1/default/#"]);
    assert!(!posing.status.success(), "{}", String::from_utf8_lossy(&posing.stdout));
    let fleet = demo.state().await["fleet"].clone();
    assert_eq!(fleet["state"], "online", "{fleet}");
    assert!(demo.stop().await.success());
}
