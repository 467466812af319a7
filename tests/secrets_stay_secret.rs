//! What is secret is nowhere in what the fleet server says, at its most talkative: its log, on its standard error or in the
//! journal, its errors, its database (which has hashes), what an operator's command line prints.

use std::os::unix::net::UnixDatagram;
use std::process::Output;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};

use super::support::namespace::is_root_or_ran_as_root;
use super::support::postgres::Postgres;
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::site::Api;
use super::support::{free_port, stage, until};

/// Everything that was planted, and everything that was said.
struct Ears {
    secrets: Vec<(&'static str, String)>,
    said: Vec<(String, String)>,
}

impl Ears {
    fn plant(&mut self, what: &'static str, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() >= 12, "{what} is too short to be looked for");
        self.secrets.push((what, secret.clone()));
        secret
    }

    fn hear(&mut self, from: impl Into<String>, text: impl Into<String>) {
        self.said.push((from.into(), text.into()));
    }

    /// Fails where a secret was said, as text or as the numbers of its bytes.
    fn search(&self) {
        let mut leaks = Vec::new();
        for (what, secret) in &self.secrets {
            let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
            for form in [secret.clone(), numbers.join(", ")] {
                for (from, text) in &self.said {
                    if let Some(at) = text.find(&form) {
                        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
                        let line: String = text[line..].chars().take(300).collect();
                        leaks.push(format!("{what} in {from}: {line}"));
                    }
                }
            }
        }
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    }
}

/// A request with these headers; an error's body is kept.
async fn ask(ears: &mut Ears, api: &Api, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Value {
    let mut request = api.http.request(method.clone(), format!("{}{path}", api.base));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_null() {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("an answer");
    let (status, head) = (answer.status(), format!("{:?}", answer.headers()));
    let text = answer.text().await.expect("a body");
    if !status.is_success() {
        ears.hear(format!("{method} {path}: {status}"), head + &text);
    }
    serde_json::from_str(&text).unwrap_or_default()
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}

/// A client of the broker, as it signs in with a password.
fn on_broker(port: u16, id: &str, user: &str, password: &str) -> Output {
    let mut command = std::process::Command::new("mosquitto_sub");
    command.args(["-V", "5", "-h", "127.0.0.1", "-p", &port.to_string(), "-i", id, "-u", user, "-P", password]);
    command.args(["-W", "1", "-t", "r58/1/default/box1/down/#"]).output().expect("mosquitto_sub")
}

#[tokio::test]
async fn no_secret_is_in_what_the_fleet_server_says_keeps_or_refuses() {
    let _stage = stage().await;
    let mut ears = Ears { secrets: Vec::new(), said: Vec::new() };
    let database = Postgres::shared().await.database().await;
    let of_database = ears.plant("the database's password", "planted-database-pw");
    let of_mail = ears.plant("the mail server's password", "planted-smtp-password");
    let of_turn = ears.plant("the TURN secret", "planted-turn-secret");
    let port = free_port();
    let home = Home::new("");
    let turn = home.path().join("turn-secret");
    std::fs::write(&turn, &of_turn).expect("a file");
    home.configure(&format!(
        "[fleet]\nlisten = \"127.0.0.1:0\"\ndatabase_url = \"{database}\"\n[fleet.broker]\nlisten = \"127.0.0.1:{port}\"\n\
         [fleet.turn]\nshared_secret_file = \"{}\"\nurls = [\"turn:turn.example:3478\"]\n\
         [fleet.alerts]\nallow_private_targets = true\n[fleet.smtp]\nhost = \"127.0.0.1\"\nport = {}\n\
         tls = \"none\"\nusername = \"r58\"\nfrom = \"r58@x.example\"\n",
        turn.display(),
        free_port()
    ));
    let mut command = home.command("fleet");
    command.env("RUST_LOG", "trace").env("R58__FLEET__DATABASE_PASSWORD", &of_database);
    command.env("R58__FLEET__SMTP__PASSWORD", &of_mail);
    let mut server = R58::spawn("fleet", &mut command).await;
    // Shown once, on purpose, and not a log line.
    let first = server.password.clone().expect("a password");
    let api = Api::sign_in(&server.fleet, &first).await;
    let admin = format!("Bearer {}", ears.plant("an access token", api.token()));
    let by_admin = [("Authorization", admin.as_str())];

    let password = ears.plant("a user's password", "planted-user-password");
    let wrong = ears.plant("a wrong password", "planted-wrong-password");
    let user = json!({"email": "u@x.example", "name": "U", "role": "operator", "password": password});
    let user = text(&ask(&mut ears, &api, Method::POST, "/api/v1/users", &by_admin, user.clone()).await, "id");
    let again = json!({"email": "u@x.example", "name": "U", "role": "operator", "password": password});
    ask(&mut ears, &api, Method::POST, "/api/v1/users", &by_admin, again).await;
    for (field, value) in [("role", &password), ("surprise", &password)] {
        let body = json!({"email": "v@x.example", "name": "V", field: value, "password": password});
        ask(&mut ears, &api, Method::POST, "/api/v1/users", &by_admin, body).await;
    }
    for (email, given) in [("u@x.example", &password), ("u@x.example", &wrong), ("nobody@x.example", &wrong)] {
        let body = json!({"email": email, "password": given});
        let tokens = ask(&mut ears, &api, Method::POST, "/api/v1/auth/login", &[], body).await;
        if tokens["refresh_token"].is_string() {
            ears.plant("an access token", text(&tokens, "access_token"));
            let refresh = ears.plant("a refresh token", text(&tokens, "refresh_token"));
            for _ in 0..2 {
                let body = json!({"refresh_token": refresh});
                let renewed = ask(&mut ears, &api, Method::POST, "/api/v1/auth/refresh", &[], body).await;
                if renewed["refresh_token"].is_string() {
                    ears.plant("a renewed token", text(&renewed, "refresh_token"));
                }
            }
        }
    }
    let reset = format!("/api/v1/users/{user}/reset-password");
    let made = ask(&mut ears, &api, Method::POST, &reset, &by_admin, json!({})).await;
    let password = ears.plant("a password that was made", text(&made, "password"));
    let org = json!({"id": "north", "name": "N", "admin": {"email": "a@n.example", "name": "A"}});
    let made = ask(&mut ears, &api, Method::POST, "/api/v1/organizations", &by_admin, org).await;
    ears.plant("an administrator's password", text(&made, "admin_password"));

    let key = json!({"name": "K", "scopes": ["devices:read"]});
    let made = ask(&mut ears, &api, Method::POST, "/api/v1/api-keys", &by_admin, key).await;
    let key = ears.plant("an API key", text(&made, "key"));
    let no_key = ears.plant("a wrong API key", format!("r58k_{}", "5a".repeat(32)));
    let no_token = ears.plant("a token of somebody else", "eyJhbGciOiJIUzI1NiJ9.cGxhbnRlZA.cGxhbnRlZC10b2tlbg");
    for bearer in [&key, &no_key, &no_token] {
        let bearer = format!("Bearer {bearer}");
        for (method, path) in [(Method::GET, "/api/v1/devices"), (Method::POST, "/api/v1/organizations")] {
            ask(&mut ears, &api, method, path, &[("Authorization", &bearer)], Value::Null).await;
        }
    }

    let made = ask(&mut ears, &api, Method::POST, "/api/v1/enrolment-codes", &by_admin, json!({})).await;
    let code = ears.plant("an enrolment code", text(&made, "code"));
    let no_code = ears.plant("a wrong enrolment code", "PLANTED-WRONG-CODE");
    let mut token = String::new();
    for code in [&no_code, &code, &code] {
        let body =
            json!({"enrolment_code": code, "device_id": "box1", "name": "Box", "platform": "linux", "arch": "aarch64"});
        let made = ask(&mut ears, &api, Method::POST, "/api/v1/devices/register", &[], body).await;
        if made["token"].is_string() {
            token = ears.plant("a device's token", text(&made, "token"));
        }
    }
    let no_device = ears.plant("a wrong device token", "d3".repeat(32));
    let renewed = ears.plant("a device's next token", "e4".repeat(32));
    let beat = json!({"ts": "2026-11-22T00:00:00Z", "metrics": {}});
    for token in [&token, &no_device] {
        let device = [("X-Device-Id", "box1"), ("X-Device-Token", token.as_str())];
        ask(&mut ears, &api, Method::POST, "/api/v1/devices/box1/heartbeat", &device, beat.clone()).await;
        ask(&mut ears, &api, Method::GET, "/turn-credentials", &device, Value::Null).await;
    }
    let device = [("X-Device-Id", "box1"), ("X-Device-Token", token.as_str())];
    for body in [json!({"token": renewed}), json!({"token": renewed.to_uppercase()}), json!({"tokens": renewed})] {
        ask(&mut ears, &api, Method::POST, "/api/v1/devices/box1/token", &device, body).await;
    }
    let guest = ears.plant("a guest's token", "00112233445566778899aabbccddeeff");
    let guest = format!("Bearer {guest}");
    ask(&mut ears, &api, Method::POST, "/whip/0123456789abcdef.box1", &[("Authorization", &guest)], Value::Null).await;
    ask(&mut ears, &api, Method::GET, "/guest/0123456789abcdef.box1", &[("Authorization", &guest)], Value::Null).await;

    let signed = ears.plant("a webhook's secret", "planted-webhook-secret");
    let at = format!("http://127.0.0.1:{}/{}", free_port(), ears.plant("a webhook's path", "planted-webhook-path"));
    for receiver in [
        json!({"name": "Pager", "url": at, "secret": signed}),
        json!({"name": "Crew", "addresses": ["crew@x.example"]}),
        json!({"name": "Odd", "url": format!("ftp://x.example/{signed}"), "secret": signed}),
        json!({"name": "Odd", "url": at, "secret": signed, "min_severity": signed}),
    ] {
        let made = ask(&mut ears, &api, Method::POST, "/api/v1/alert-receivers", &by_admin, receiver).await;
        let Some(id) = made["id"].as_str() else { continue };
        ears.hear("a receiver", made.to_string());
        let place = format!("/api/v1/alert-receivers/{id}");
        ask(&mut ears, &api, Method::POST, &format!("{place}/test"), &by_admin, Value::Null).await;
        let tried = until(PATIENCE, "an attempt", || async {
            let page = api.get(&format!("{place}/deliveries")).await;
            if page["items"][0]["error"].is_string() { Ok(page) } else { Err(page) }
        });
        ears.hear("its deliveries", tried.await.to_string());
    }

    for (id, user, given) in [
        ("person", "u@x.example", &password),
        ("person", "u@x.example", &wrong),
        ("box1", "default", &token),
        ("box1", "default", &renewed),
        ("box1", "default", &no_device),
        ("box1", "north", &renewed),
    ] {
        let output = on_broker(port, id, user, given);
        ears.hear("mosquitto_sub", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }

    for (given, arguments) in [(&key, "devices"), (&no_key, "devices"), (&key, "whoami"), (&no_token, "audit list")] {
        let mut ctl = std::process::Command::new(binary());
        ctl.args(["ctl", "--url", &server.fleet, "--json"]).args(arguments.split(' '));
        let output = ctl.env("R58_FLEET_TOKEN", given).env("RUST_LOG", "trace").output().expect("r58 ctl");
        ears.hear("r58 ctl", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }

    // A camera's password is brought to its box, so the database has it; nobody else may.
    let dump =
        std::process::Command::new("pg_dump").args(["--inserts", "--dbname", &database]).output().expect("pg_dump");
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(dump.contains("u@x.example") && dump.contains("box1") && dump.contains("Pager"), "a dump of what was done");
    ears.hear("the database", dump);
    let camera = ears.plant("a camera's password", "planted-camera-pw");
    let document =
        json!({"inputs": {"cam1": {"source": {"kind": "rtsp", "url": format!("rtsp://u:{camera}@a.example/1")}}}});
    for body in [json!({"document": document}), json!({"document": document, "expected_ver": 77})] {
        ask(&mut ears, &api, Method::PUT, "/api/v1/devices/box1/config", &by_admin, body).await;
    }

    let said = server.process.last_words().replace(&first, "(the first password)");
    assert!(said.contains("TRACE") && said.len() > 20_000, "it was talkative: {} bytes", said.len());
    ears.hear("the server's log", said);
    ears.search();
}

#[tokio::test]
async fn no_secret_is_in_the_journal() {
    if !is_root_or_ran_as_root("secrets_stay_secret::no_secret_is_in_the_journal") {
        return;
    }
    let _stage = stage().await;
    let mut ears = Ears { secrets: Vec::new(), said: Vec::new() };
    let home = Home::new(
        "[log]\nformat = \"journald\"\n[fleet]\nlisten = \"127.0.0.1:0\"\n[fleet.broker]\nlisten = \"127.0.0.1:0\"\n",
    );
    let socket = home.path().join("journal");
    let journal = UnixDatagram::bind(&socket).expect("a socket");
    let heard = Arc::new(Mutex::new(String::new()));
    let keeper = Arc::clone(&heard);
    // Ends with the test's process; it holds nothing but its socket.
    std::thread::spawn(move || {
        let mut entry = vec![0; 256 * 1024];
        while let Ok(length) = journal.recv(&mut entry) {
            keeper.lock().expect("heard").push_str(&String::from_utf8_lossy(&entry[..length]));
        }
    });
    // Where journald listens, only this server finds the test's socket.
    let plain = home.command("fleet");
    let mut command = std::process::Command::new("unshare");
    let there = "mount -t tmpfs run /run && mkdir -p /run/systemd/journal && touch /run/systemd/journal/socket \
        && mount --bind \"$0\" /run/systemd/journal/socket && exec \"$@\"";
    command.args(["--mount", "sh", "-c", there]).arg(&socket).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(home.path()).env("R58_STATE_DIR", home.state()).env("RUST_LOG", "trace");
    let mut server = R58::spawn("fleet", &mut command).await;
    let first = server.password.clone().expect("a password");
    let api = Api::sign_in(&server.fleet, &first).await;
    ears.plant("the first password", &first);
    let admin = format!("Bearer {}", ears.plant("an access token", api.token()));
    let by_admin = [("Authorization", admin.as_str())];

    let wrong = ears.plant("a wrong password", "planted-wrong-password");
    let body = json!({"email": "admin@r58.local", "password": wrong});
    ask(&mut ears, &api, Method::POST, "/api/v1/auth/login", &[], body).await;
    let made = ask(&mut ears, &api, Method::POST, "/api/v1/enrolment-codes", &by_admin, json!({})).await;
    let code = ears.plant("an enrolment code", text(&made, "code"));
    let mut token = String::new();
    for _ in 0..2 {
        let body =
            json!({"enrolment_code": code, "device_id": "box1", "name": "Box", "platform": "linux", "arch": "aarch64"});
        let made = ask(&mut ears, &api, Method::POST, "/api/v1/devices/register", &[], body).await;
        if made["token"].is_string() {
            token = ears.plant("a device's token", text(&made, "token"));
        }
    }
    let device = [("X-Device-Id", "box1"), ("X-Device-Token", token.as_str())];
    let beat = json!({"ts": "2026-11-22T00:00:00Z", "metrics": {}});
    ask(&mut ears, &api, Method::POST, "/api/v1/devices/box1/heartbeat", &device, beat).await;
    let port = server.broker.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    for given in [&token, &wrong] {
        on_broker(port, "box1", "default", given);
    }
    let camera = ears.plant("a camera's password", "planted-camera-pw");
    let url = format!("rtsp://u:{camera}@a.example/1");
    let document = json!({"document": {"inputs": {"cam1": {"source": {"kind": "rtsp", "url": url}}}}});
    ask(&mut ears, &api, Method::PUT, "/api/v1/devices/box1/config", &by_admin, document).await;

    // What is printed once, on purpose, is no log line.
    ears.hear("standard error", server.process.last_words().replace(&first, "(the first password)"));
    let said = heard.lock().expect("heard").clone();
    assert!(
        said.contains("PRIORITY=7") && said.contains("R58_TARGET=r58") && said.len() > 20_000,
        "{} bytes",
        said.len()
    );
    ears.hear("the journal", said);
    ears.search();
}
