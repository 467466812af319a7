//! The audit log: every change is in it, of each organization apart, and whoever takes an export can check it alone.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use r58::audit::verify::{Kept, Misfit, Verdict, Verifier, Why};
use r58_mqtt::payload::Response;
use reqwest::Method;
use serde_json::{Value, json};

use crate::alerts::{alerts, presence};
use crate::whep::{online, serve};
use crate::world::{Answer, PASSWORD, World, registration};

/// What changes nothing that an audit log is for, and why. Whoever adds a path adds it to the walk below, or here.
const NO_CHANGE: [(&str, &str, &str); 11] = [
    ("POST", "/api/v1/auth/login", "a session is no change of the fleet; failures are in the server's log"),
    ("POST", "/api/v1/auth/refresh", "the same session goes on"),
    ("POST", "/api/v1/auth/logout", "the session ends"),
    ("POST", "/api/v1/broker/auth", "a question of the broker"),
    ("POST", "/api/v1/devices/{id}/heartbeat", "measured, not changed by anyone"),
    ("PATCH", "/api/v1/commands/{id}", "a device reports on its command, which has a history of its own"),
    ("POST", "/api/v1/devices/{id}/commands/dry-run", "a rehearsal"),
    ("POST", "/api/v1/command-groups/dry-run", "a rehearsal"),
    ("POST", "/api/v1/bundles/{id}/upload", "a device sends what it was asked for"),
    ("HEAD", "/api/v1/bundles/{id}/upload", "a question"),
    ("PATCH", "/api/v1/bundles/{id}/upload", "a device sends what it was asked for"),
];

/// A walk along everything that changes something.
struct Walk {
    world: World,
    seen: BTreeSet<(String, String)>,
    device_token: String,
}

impl Walk {
    /// Does it, and requires that it stands in the log as `action` afterwards. `path` is the description's, with what is filled
    /// in after a space.
    async fn does(&mut self, method: &str, path: &str, ids: &[&str], body: Value, action: &str) -> Answer {
        let before = self.newest().await;
        let verb: Method = method.parse().unwrap();
        let mut filled = String::new();
        let mut ids = ids.iter();
        for (n, part) in path.split('/').enumerate() {
            filled.push_str(if n == 0 { "" } else { "/" });
            filled.push_str(if part.starts_with('{') { ids.next().unwrap() } else { part });
        }
        let mut request = self.world.http.request(verb.clone(), self.world.url(&filled));
        request = match path.ends_with("/token") {
            true => request.header("X-Device-Id", "box1").header("X-Device-Token", &self.device_token),
            false => request.bearer_auth(&self.world.admin),
        };
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = self.world.read(&verb, &filled, request.send().await.unwrap()).await;
        assert!((200..300).contains(&answer.status), "{method} {filled}: {} {}", answer.status, answer.body);
        self.noted(method, path, before, action).await;
        answer
    }

    async fn noted(&mut self, method: &str, path: &str, before: u64, action: &str) {
        let log = self.world.get("/api/v1/audit?limit=20", &self.world.admin).await.expect(200).body;
        let new: Vec<&Value> =
            log["items"].as_array().unwrap().iter().filter(|row| row["seq"].as_u64().unwrap() > before).collect();
        assert!(new.iter().any(|row| row["action"] == action), "{method} {path} left no {action}: {new:?}");
        for row in new {
            let text = row.to_string();
            assert!(!text.contains(PASSWORD) && !text.contains("hidden"), "a secret: {text}");
        }
        self.seen.insert((method.to_owned(), path.to_owned()));
    }

    async fn newest(&self) -> u64 {
        let log = self.world.get("/api/v1/audit?limit=1", &self.world.admin).await.expect(200).body;
        log["items"][0]["seq"].as_u64().unwrap_or(0)
    }
}

#[actix_web::test]
async fn whatever_a_path_changes_is_in_the_audit_log_and_no_path_is_forgotten() {
    let world = World::new().await;
    let mut walk = Walk { world, seen: BTreeSet::new(), device_token: String::new() };
    let v1 = |path: &str| format!("/api/v1{path}");

    let code = walk.does("POST", &v1("/enrolment-codes"), &[], json!({}), "enrolment_code.create").await;
    let enrol = registration(&code.text("code"), "box1");
    let device = walk.does("POST", &v1("/devices/register"), &[], enrol, "device.register").await;
    walk.device_token = device.text("token");
    let code =
        walk.does("POST", &v1("/enrolment-codes"), &[], json!({"note": "hidden"}), "enrolment_code.create").await;
    walk.does("DELETE", &v1("/enrolment-codes/{id}"), &[&code.text("id")], Value::Null, "enrolment_code.delete").await;

    let user = json!({"email": "n@x.example", "name": "N", "role": "viewer", "password": PASSWORD});
    let user = walk.does("POST", &v1("/users"), &[], user, "user.create").await.text("id");
    walk.does("PATCH", &v1("/users/{id}"), &[&user], json!({"name": "M"}), "user.change").await;
    let reset = json!({"password": "hidden password"});
    walk.does("POST", &v1("/users/{id}/reset-password"), &[&user], reset, "user.reset_password").await;
    walk.does("DELETE", &v1("/users/{id}"), &[&user], Value::Null, "user.delete").await;
    let key = json!({"name": "K", "scopes": ["devices:read"]});
    let key = walk.does("POST", &v1("/api-keys"), &[], key, "api_key.create").await;
    walk.does("DELETE", &v1("/api-keys/{id}"), &[&key.text("id")], Value::Null, "api_key.delete").await;
    let org = json!({"id": "north", "name": "N", "admin": {"email": "a@n.example", "name": "A", "password": PASSWORD}});
    walk.does("POST", &v1("/organizations"), &[], org, "organization.create").await;
    walk.does("PATCH", &v1("/organizations/{id}"), &["north"], json!({"name": "M"}), "organization.change").await;

    alerts_of_a_walk(&mut walk).await;

    let one = v1("/devices/{id}");
    walk.does("PATCH", &one, &["box1"], json!({"notes": "hidden", "tags": ["a"]}), "device.change").await;
    let bulk = json!({"devices": {"ids": ["box1"]}, "location": "hall"});
    walk.does("POST", &v1("/devices/bulk"), &[], bulk, "device.change").await;
    let identify = json!({"type": "identify"});
    let command = walk.does("POST", &v1("/devices/{id}/commands"), &["box1"], identify.clone(), "command.create").await;
    let cancel = v1("/commands/{id}/cancel");
    walk.does("POST", &cancel, &[&command.text("id")], Value::Null, "command.cancel").await;
    let many = json!({"devices": {"ids": ["box1"]}, "command": identify});
    let group = walk.does("POST", &v1("/command-groups"), &[], many, "command_group.create").await;
    let cancel = v1("/command-groups/{id}/cancel");
    walk.does("POST", &cancel, &[&group.text("id")], Value::Null, "command.cancel").await;

    let config = v1("/devices/{id}/config");
    let hidden = json!({"inputs": {"cam1": {"source": {"kind": "rtsp", "url": "rtsp://u:hidden@a/1"}}}});
    walk.does("PUT", &config, &["box1"], json!({"document": hidden}), "device.config").await;
    walk.does("PATCH", &config, &["box1"], json!({"changes": {"inputs": {"cam1": null}}}), "device.config").await;
    walk.does("POST", &format!("{config}/rollback"), &["box1"], json!({"ver": 1}), "device.config").await;
    let bundle = walk.does("POST", &v1("/devices/{id}/bundles"), &["box1"], json!({}), "bundle.create").await;
    walk.does("DELETE", &v1("/bundles/{id}"), &[&bundle.text("id")], Value::Null, "bundle.delete").await;

    let maker = SigningKey::from_bytes(&[7; 32]);
    let public = json!({"name": "builds", "public_key": STANDARD.encode(maker.verifying_key().to_bytes())});
    let key = walk.does("POST", &v1("/release-keys"), &[], public, "release_key.create").await.text("id");
    let draft = json!({"version": "1.0.0", "channel": "stable", "artifact_url": "https://r58.example/a",
        "checksum_sha256": "ab".repeat(32), "size_bytes": 1});
    let draft = walk.does("POST", &v1("/releases"), &[], draft, "release.create").await;
    let signature = STANDARD.encode(maker.sign(draft.text("signed_text").as_bytes()).to_bytes());
    let signed = json!({"key_id": key, "signature": signature});
    walk.does("POST", &v1("/releases/{v}/publish"), &["1.0.0"], signed, "release.publish").await;
    let rollout = json!({"version": "1.0.0", "percent": 1});
    let rollout = walk.does("POST", &v1("/rollouts"), &[], rollout, "rollout.create").await.text("id");
    let stop = json!({"state": "cancelled"});
    walk.does("PATCH", &v1("/rollouts/{id}"), &[&rollout], stop, "rollout.change").await;
    walk.does("DELETE", &v1("/releases/{v}"), &["1.0.0"], Value::Null, "release.delete").await;
    walk.does("DELETE", &v1("/release-keys/{id}"), &[&key], Value::Null, "release_key.delete").await;

    guests(&mut walk, &device.body).await;

    let fresh = json!({"token": "ab".repeat(32)});
    walk.does("POST", &v1("/devices/{id}/token"), &["box1"], fresh, "device.rotate_token").await;
    walk.does("POST", &v1("/devices/{id}/rotate-token"), &["box1"], Value::Null, "device.rotate_token").await;
    walk.does("DELETE", &one, &["box1"], Value::Null, "device.decommission").await;

    for (method, template) in walk.world.templates() {
        if method == "GET" {
            continue;
        }
        let known = NO_CHANGE.iter().any(|(verb, path, _)| (*verb, *path) == (method.as_str(), template.as_str()))
            || walk.seen.contains(&(method.clone(), template.clone()));
        assert!(known, "{method} {template}: does it change something? Then it belongs into this walk");
    }
    walk.world.end().await;
}

/// What is asked of the box, which keeps it.
async fn guests(walk: &mut Walk, registration: &Value) {
    let (mut device, ring) = online(&walk.world, registration).await;
    let invite = ("POST", "/api/v1/devices/{id}/invitations", "/api/v1/devices/box1/invitations", "guest.invite");
    let revoke = (
        "DELETE",
        "/api/v1/devices/{id}/invitations/{invitation}",
        "/api/v1/devices/box1/invitations/0123",
        "guest.revoke",
    );
    let order = (
        "POST",
        "/api/v1/devices/{id}/guests/{seat}/{order}",
        "/api/v1/devices/box1/guests/guest1/admit",
        "guest.order",
    );
    for (method, template, path, action) in [invite, revoke, order] {
        let before = walk.newest().await;
        let request = walk.world.http.request(method.parse().unwrap(), walk.world.url(path));
        let body = json!({"seat": "guest1", "name": "Ada"});
        let asked = request.bearer_auth(&walk.world.admin).json(&body).send();
        let served = serve(&mut device, &ring, |request| Response::new(request.id.clone(), 404));
        let (answer, ()) = tokio::join!(asked, served);
        assert_eq!(answer.unwrap().status(), 404, "the box has none of that");
        walk.noted(method, template, before, action).await;
    }
}

async fn export(world: &World, token: &str) -> String {
    let response = world.http.get(world.url("/api/v1/audit/export")).bearer_auth(token).send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (200.try_into().unwrap(), &"application/x-ndjson".parse().unwrap())
    );
    response.text().await.unwrap()
}

/// Rules, silences, receivers, and an alert that is taken on.
async fn alerts_of_a_walk(walk: &mut Walk) {
    let rule = json!({"kind": "offline", "name": "R", "for_seconds": 0});
    let rule = walk.does("POST", "/api/v1/alert-rules", &[], rule, "alert_rule.create").await.text("id");
    let of_rule = "/api/v1/alert-rules/{id}";
    walk.does("PATCH", of_rule, &[&rule], json!({"name": "S"}), "alert_rule.change").await;
    walk.world.enrol(&walk.world.admin, "box9").await;
    presence(&walk.world, "box9", true, 1).await;
    presence(&walk.world, "box9", false, 1).await;
    let firing = alerts(&walk.world, "state=firing&device=box9", 1).await.remove(0);
    let firing = firing["id"].as_str().unwrap();
    walk.does("POST", "/api/v1/alerts/{id}/acknowledge", &[firing], json!({}), "alert.acknowledge").await;
    walk.does("DELETE", "/api/v1/alerts/{id}/acknowledge", &[firing], Value::Null, "alert.unacknowledge").await;
    walk.does("DELETE", of_rule, &[&rule], Value::Null, "alert_rule.delete").await;
    let until = chrono::Utc::now() + chrono::Duration::hours(1);
    let silence = json!({"device_id": "box9", "reason": "it rests", "ends_at": until});
    let silence = walk.does("POST", "/api/v1/silences", &[], silence, "silence.create").await.text("id");
    walk.does("DELETE", "/api/v1/silences/{id}", &[&silence], Value::Null, "silence.end").await;
    // Reserved (RFC 2606): nobody is called.
    let to = json!({"name": "T", "url": "https://hooks.invalid/hidden", "secret": "hidden hidden hidden"});
    let to = walk.does("POST", "/api/v1/alert-receivers", &[], to, "alert_receiver.create").await.text("id");
    let one = "/api/v1/alert-receivers/{id}";
    walk.does("PATCH", one, &[&to], json!({"secret": "another hidden one"}), "alert_receiver.change").await;
    walk.does("POST", &format!("{one}/test"), &[&to], Value::Null, "alert_receiver.test").await;
    walk.does("DELETE", one, &[&to], Value::Null, "alert_receiver.delete").await;
}

fn check(export: &str, kept: Kept) -> Result<Verdict, Misfit> {
    let mut verifier = Verifier::new(kept, Vec::new());
    for line in export.lines() {
        verifier.line(line)?;
    }
    verifier.finish()
}

fn kept(export: &str) -> Kept {
    let mut kept = Kept::default();
    export.lines().for_each(|line| kept.line(line).unwrap());
    kept
}

#[actix_web::test]
async fn an_organizations_log_is_exported_and_verified_alone_and_goes_on_from_an_earlier_export() {
    let world = World::new().await;
    let north = world.user("north", "admin").await;
    world.enrol(&north, "north-1").await;
    let first = export(&world, &north).await;
    let verdict = check(&first, Kept::default()).unwrap();
    assert_eq!(
        (verdict.org.as_str(), verdict.changes),
        ("north", 4),
        "the rules, the user, the code, the device: {first}"
    );
    // More than are read at once, by two at a time.
    let change = async |n: usize| {
        let body = json!({"notes": format!("note {n}")});
        world.call(Method::PATCH, "/api/v1/devices/north-1", &north, Some(body)).await.expect(200);
    };
    for n in 0..260 {
        tokio::join!(change(2 * n), change(2 * n + 1));
    }
    world.enrol(&world.admin, "south-1").await;
    let second = export(&world, &north).await;
    let verdict = check(&second, kept(&first)).unwrap();
    // The server signs heads of its own as well, now and then.
    assert!(verdict.changes == 524 && verdict.checkpoints >= 2, "the earlier head is among them: {verdict:?}");
    assert!(second.starts_with(first.lines().next().unwrap()) && !second.contains("south"));
    assert_eq!(check(&first, kept(&second)).unwrap_err().why, Why::Shortened(524));
    let lines: Vec<&str> = second.lines().collect();
    // Between two changes, not beside a head.
    let gone = lines.windows(2).position(|two| two.iter().all(|line| line.contains("device.change"))).unwrap();
    let removed: Vec<&str> = lines.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, line)| *line).collect();
    let misfit = check(&removed.join("\n"), Kept::default()).unwrap_err();
    let before = lines[..gone].iter().filter(|line| line.contains("\"action\":")).count() as u64;
    assert_eq!((misfit.line, misfit.why), (gone as u64 + 1, Why::Sequence { expected: before + 1 }));
    world.end().await;
}

#[actix_web::test]
async fn changes_are_found_by_who_what_and_when_and_walked_by_cursor() {
    let world = World::new().await;
    for id in ["box1", "box2"] {
        world.enrol(&world.admin, id).await;
    }
    let operator = world.user("default", "operator").await;
    for notes in ["a", "b", "c"] {
        let body = Some(json!({ "notes": notes }));
        world.call(Method::PATCH, "/api/v1/devices/box1", &operator, body).await.expect(200);
    }
    world.get("/api/v1/audit", &operator).await.expect(403);
    world.get("/api/v1/audit/export", &operator).await.expect(403);
    let find = async |query: &str| {
        let found = world.get(&format!("/api/v1/audit?{query}"), &world.admin).await.expect(200).body;
        found["items"].as_array().unwrap().clone()
    };
    let by = find("actor=user:operator@default.example").await;
    assert_eq!((by.len(), &by[0]["action"], &by[0]["detail"]), (3, &json!("device.change"), &json!("notes")));
    assert_eq!(find("target=box2").await[0]["action"], "device.register");
    assert_eq!(find("action=device.register&target=box1").await.len(), 1);
    assert_eq!(find("until=2026-01-01T00:00:00Z").await.len(), 0);
    let all = find("limit=200&since=2026-01-01T00:00:00Z").await;
    let (mut walked, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/api/v1/audit?limit=3&cursor={cursor}"), &world.admin).await.expect(200).body;
        walked.extend(page["items"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(walked, all);
    for bad in ["limit=0", "limit=201", "cursor=x", "since=yesterday"] {
        world.get(&format!("/api/v1/audit?{bad}"), &world.admin).await.expect(400);
    }
    world.end().await;
}
