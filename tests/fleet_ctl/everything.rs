//! What the dashboard and any program may ask of the API, a person can ask on the command line: every operation of the description
//! that is for people is called by some `r58 ctl` command of this walk, against a running server, with answers in JSON.

use std::collections::BTreeSet;

use serde_json::Value;

use super::World;

/// The token that shows the server's figures, in which each request is counted by its route.
pub const METRICS: &str = "a token for the figures of a test";

/// Operations that no command of this walk calls, and why.
const BESIDE: &[(&str, &str, &str)] = &[
    ("GET", "/api/v1/audit/verify", "the server's word on itself; `audit verify` looks through the export here"),
    ("GET", "/api/v1/organizations/{id}", "`org list` tells all of each"),
    ("GET", "/api/v1/users/{id}", "`user list` tells all of each"),
    ("GET", "/api/v1/alert-rules/{id}", "`alert rule list` tells all of each"),
    ("GET", "/api/v1/alert-receivers/{id}", "`alert receiver list` tells all of each"),
    ("GET", "/api/v1/silences/{id}", "`alert silence list` tells all of each"),
    ("GET", "/api/v1/rollouts/{id}", "`release rollouts` tells all of each"),
    ("GET", "/api/v1/releases/latest", "for boxes; `release list` begins with it"),
    ("GET", "/api/v1/devices/{id}/config/versions/{ver}", "`config versions` tells all of each"),
    ("GET", "/metrics", "for Prometheus"),
    ("GET", "/turn-credentials", "for media"),
];

/// Method and path of each operation that people may call.
async fn for_people(world: &World) -> BTreeSet<(String, String)> {
    let description: Value =
        reqwest::get(format!("http://{}/openapi.json", world.handle.addr)).await.unwrap().json().await.unwrap();
    let mut found = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let ways = operation["security"].as_array().cloned().unwrap_or_default();
            if ways.iter().any(|way| way.get("user").is_some()) {
                found.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

/// Method, route and status of each request so far.
async fn asked(world: &World) -> BTreeSet<(String, String, u16)> {
    let url = format!("http://{}/metrics", world.handle.addr);
    let text = reqwest::Client::new().get(url).bearer_auth(METRICS).send().await.unwrap().text().await.unwrap();
    let label = |line: &str, name: &str| {
        let from = line.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
        line[from..].split('"').next().unwrap().to_owned()
    };
    let counted = text.lines().filter(|line| line.starts_with("r58_fleet_http_requests_total{"));
    counted.map(|line| (label(line, "method"), label(line, "route"), label(line, "status").parse().unwrap())).collect()
}

struct Walk<'a>(&'a World);

impl Walk<'_> {
    /// Runs a command that does its work.
    async fn does(&self, args: &[&str]) -> Value {
        let ran = self.0.run(&[&["--json"], args].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.err);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", ran.out))
    }

    /// Runs one that is refused for what is not there; that too is told in JSON.
    async fn is_refused(&self, args: &[&str]) {
        let ran = self.0.run(&[&["--json"], args].concat()).await;
        assert_eq!(ran.code, 1, "{args:?}: {}{}", ran.out, ran.err);
        let told: Value = serde_json::from_str(ran.err.lines().last().unwrap_or_default()).unwrap();
        assert!(told["error"].is_string(), "{args:?}: {told}");
    }
}

fn id(document: &Value) -> &str {
    document["id"].as_str().unwrap_or_else(|| panic!("no id in {document}"))
}

#[actix_web::test]
async fn the_command_line_asks_for_everything_that_people_may_ask_for() {
    let world = World::new().await;
    let walk = Walk(&world);
    walk.does(&["login", "--email", "admin@r58.local"]).await;
    walk.does(&["whoami"]).await;
    organization(&walk).await;
    devices(&walk).await;
    commands(&walk).await;
    box_away(&walk).await;
    releases(&walk, &world).await;
    alerts(&walk).await;
    walk.does(&["audit", "list", "--limit", "3"]).await;
    let file = world.home.path().join("log.jsonl");
    walk.does(&["audit", "export", file.to_str().unwrap()]).await;
    walk.does(&["audit", "verify"]).await;
    walk.does(&["decommission", "box1"]).await;

    let asked = asked(&world).await;
    let misunderstood: Vec<_> =
        asked.iter().filter(|(.., status)| [400, 405, 415, 422, 500].contains(status)).collect();
    assert!(misunderstood.is_empty(), "{misunderstood:?}");
    let reached: BTreeSet<(String, String)> = asked.into_iter().map(|(method, route, _)| (method, route)).collect();
    let beside = |(method, path): &&(String, String)| BESIDE.iter().any(|(m, p, _)| m == method && p == path);
    let wanted = for_people(&world).await;
    let missing: Vec<_> = wanted.difference(&reached).filter(|one| !beside(one)).collect();
    assert!(missing.is_empty(), "no r58 ctl command asks for {missing:#?}");
    for (method, path, _) in BESIDE {
        let one = ((*method).to_owned(), (*path).to_owned());
        assert!(wanted.contains(&one), "{method} {path} is not there any more");
        assert!(!reached.contains(&one), "{method} {path} has a command now");
    }
    walk.does(&["logout"]).await;
    world.handle.stop().await;
}

async fn organization(walk: &Walk<'_>) {
    walk.does(&["org", "create", "north", "North", "--admin-email", "admin@north.example"]).await;
    walk.does(&["org", "rename", "north", "North End"]).await;
    assert_eq!(walk.does(&["org", "list"]).await.as_array().unwrap().len(), 2);
    let made = walk.does(&["user", "create", "ada@example.org", "Ada", "--role", "operator"]).await;
    assert!(made["password"].as_str().unwrap().len() >= 10);
    let changed = walk.does(&["user", "change", "ADA@example.org", "--role", "viewer", "--active", "false"]).await;
    assert_eq!((&changed["role"], &changed["is_active"]), (&"viewer".into(), &false.into()));
    assert!(walk.does(&["user", "reset-password", "ada@example.org"]).await["password"].is_string());
    assert_eq!(walk.does(&["user", "list"]).await.as_array().unwrap().len(), 2);
    walk.does(&["user", "delete", id(&made)]).await;
    walk.is_refused(&["user", "delete", "ada@example.org"]).await;
    let key = walk.does(&["key", "create", "monitoring", "metrics:read"]).await;
    walk.does(&["key", "list"]).await;
    walk.does(&["key", "delete", id(&key)]).await;
    let code = walk.does(&["enrol", "--note", "the hall", "--uses", "2"]).await;
    assert_eq!(walk.does(&["codes"]).await[0]["note"], "the hall");
    walk.does(&["delete-code", id(&code)]).await;
}

async fn devices(walk: &Walk<'_>) {
    walk.does(&["devices"]).await;
    let change = ["change", "box1", "--name", "Stage left", "--tag", "tour", "--location", "Oslo", "--channel", "beta"];
    let changed = walk.does(&change).await;
    assert_eq!(
        (&changed["name"], &changed["tags"][0], &changed["location"]),
        (&"Stage left".into(), &"tour".into(), &"Oslo".into())
    );
    assert!(walk.does(&["change", "box1", "--location", ""]).await["location"].is_null());
    assert_eq!(walk.does(&["change-all", "tour", "--add-tag", "hall"]).await["changed"], 1);
    assert_eq!(walk.does(&["device", "box1"]).await["tags"], serde_json::json!(["hall", "tour"]));
    assert_eq!(walk.does(&["summary"]).await["total"], 1);
    assert_eq!(walk.does(&["map", "--by", "tag"]).await["groups"][0]["states"], "u");
    walk.does(&["metrics", "box1", "--hours", "2"]).await;
    walk.does(&["heartbeats", "box1"]).await;
    assert!(walk.does(&["rotate-token", "box1", "--overlap", "60"]).await["token"].is_string());
    let file = walk.0.home.path().join("picture.jpg");
    walk.is_refused(&["picture", "box1", "programme", file.to_str().unwrap()]).await;
    assert!(!file.exists(), "nothing is written of what is not there");
}

async fn commands(walk: &Walk<'_>) {
    walk.does(&["send", "box1", "identify", "seconds=3", "--dry-run"]).await;
    let later = ["--begin-in", "600", "--priority", "9", "--not-while", "recording", "--notes", "tonight"];
    let later = walk.does(&[&["send", "box1", "reboot"][..], &later].concat()).await;
    assert_eq!((&later["priority"], &later["notes"]), (&9.into(), &"tonight".into()));
    walk.does(&["cancel", id(&later)]).await;
    let command = walk.does(&["send", "box1", "identify", "seconds=3"]).await;
    assert_eq!(walk.does(&["commands", "box1"]).await.as_array().unwrap().len(), 2);
    walk.does(&["cancel", id(&command)]).await;
    walk.does(&["sign", "box1", "identify"]).await;
    // It has not ended within that time.
    walk.is_refused(&["send", "box1", "identify", "--wait", "--wait-seconds", "1"]).await;
    walk.does(&["group", "send", "tour", "identify", "--dry-run"]).await;
    let group = walk.does(&["group", "send", "tour", "identify"]).await;
    walk.does(&["group", "list"]).await;
    walk.does(&["group", "show", id(&group)]).await;
    assert_eq!(walk.does(&["group", "commands", id(&group)]).await[0]["device_id"], "box1");
    walk.does(&["group", "cancel", id(&group)]).await;

    let source = r#"{"inputs": {"cam1": {"source": {"kind": "test"}}}}"#;
    walk.does(&["config", "change", "box1", source, "--notes", "a rehearsal"]).await;
    walk.does(&["config", "replace", "box1", "{}"]).await;
    walk.does(&["config", "show", "box1"]).await;
    assert_eq!(walk.does(&["config", "versions", "box1"]).await[1]["notes"], "a rehearsal");
    walk.does(&["config", "diff", "box1", "--from", "1", "--to", "2"]).await;
    let back = walk.does(&["config", "rollback", "box1", "1", "--notes", "as it was"]).await;
    assert_eq!((&back["desired"]["ver"], &back["desired"]["restores"]), (&3.into(), &1.into()));
}

/// What a box has to answer itself; this one is not there.
async fn box_away(walk: &Walk<'_>) {
    walk.is_refused(&["invite", "box1", "guest1", "Ada"]).await;
    walk.is_refused(&["invitations", "box1"]).await;
    walk.is_refused(&["revoke", "box1", "none"]).await;
    walk.is_refused(&["guests", "box1"]).await;
    walk.is_refused(&["guest", "box1", "guest1", "admit"]).await;
    walk.is_refused(&["logs", "box1"]).await;
    walk.is_refused(&["logs", "box1", "--follow"]).await;
    let bundle = walk.does(&["bundle", "box1"]).await;
    assert_eq!(walk.does(&["bundles", "box1"]).await.as_array().unwrap().len(), 1);
    let file = walk.0.home.path().join("bundle.tar.gz");
    walk.is_refused(&["fetch-bundle", id(&bundle), file.to_str().unwrap()]).await;
    walk.does(&["delete-bundle", id(&bundle)]).await;
}

async fn releases(walk: &Walk<'_>, world: &World) {
    let file = world.home.path().join("maker.pem");
    let made =
        std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&file).status();
    assert!(made.unwrap().success(), "openssl is needed");
    let file = file.to_str().unwrap();
    let key = walk.does(&["release", "key", "builds", "--private-key", file]).await;
    walk.does(&["release", "keys"]).await;
    for version in ["1.4.0", "1.5.0"] {
        let release = serde_json::json!({"version": version, "channel": "stable", "size_bytes": 9,
            "artifact_url": "https://r58.example/a", "checksum_sha256": "ab".repeat(32)});
        walk.does(&["release", "create", &release.to_string()]).await;
    }
    walk.does(&["release", "publish", "1.4.0", "--key", id(&key), "--private-key", file]).await;
    walk.does(&["release", "delete", "1.5.0"]).await;
    assert_eq!(walk.does(&["release", "list"]).await.as_array().unwrap().len(), 1);
    let begin = ["release", "rollout", "1.4.0", "--percent", "5", "--tag", "tour", "--at-once", "7"];
    let rollout = walk.does(&begin).await;
    assert_eq!(rollout["at_once"], 7);
    walk.does(&["release", "rollouts"]).await;
    walk.does(&["release", "boxes", id(&rollout), "--failed"]).await;
    walk.does(&["release", "change", id(&rollout), "--state", "cancelled"]).await;
    walk.does(&["release", "delete-key", id(&key)]).await;
}

async fn alerts(walk: &Walk<'_>) {
    walk.does(&["alert", "list"]).await;
    walk.does(&["alert", "summary"]).await;
    walk.is_refused(&["alert", "show", "none"]).await;
    walk.is_refused(&["alert", "ack", "none"]).await;
    walk.is_refused(&["alert", "unack", "none"]).await;
    let rule = walk.does(&["alert", "rule", "create", "disk", "Disk of the tour", "--threshold", "20"]).await;
    walk.does(&["alert", "rule", "change", id(&rule), "--severity", "info"]).await;
    walk.does(&["alert", "rule", "list"]).await;
    walk.does(&["alert", "rule", "delete", id(&rule)]).await;
    let silence = walk.does(&["alert", "silence", "create", "load-in", "--device", "box1"]).await;
    walk.does(&["alert", "silence", "list"]).await;
    walk.does(&["alert", "silence", "end", id(&silence)]).await;
    let receiver = walk.does(&["alert", "receiver", "create", "Pager", "--webhook", "https://hooks.example/r58"]).await;
    walk.does(&["alert", "receiver", "change", id(&receiver), "--min-severity", "critical"]).await;
    walk.does(&["alert", "receiver", "list"]).await;
    walk.does(&["alert", "receiver", "test", id(&receiver)]).await;
    walk.does(&["alert", "receiver", "deliveries", id(&receiver)]).await;
    walk.does(&["alert", "receiver", "delete", id(&receiver)]).await;
}
