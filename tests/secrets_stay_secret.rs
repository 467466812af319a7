//! What is secret is nowhere in what either side says, at its most talkative: its log, on its standard error or in the journal,
//! its errors, the server's database (which has hashes), what an operator's command line prints, and what other processes see.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use r58_actors::fleet_link::identity;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::namespace::is_root_or_ran_as_root;
use super::support::postgres::Postgres;
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::site::{Api, Site};
use super::support::{backstage, free_port, stage, until};

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

/// What other processes see of this one.
fn seen_by_others(process: u32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{process}/cmdline")).expect("a running process")).into_owned()
}

/// Whatever the program says of an address of a database that has a password in it and leads nowhere.
fn of_a_database_that_is_not_there(ears: &mut Ears) {
    let secret = ears.plant("a password in a database's address", "planted-url-password");
    for place in [format!("127.0.0.1:{}/r58", free_port()), "[nonsense/r58".into(), "127.0.0.1:port/r58".into()] {
        for scheme in ["postgres", "mysql"] {
            let home = Home::new(&format!("[fleet]\ndatabase_url = \"{scheme}://r58:{secret}@{place}\"\n"));
            let (config, to) = (home.config(), home.path().join("to"));
            for arguments in
                [vec!["config", "check"], vec!["fleet", "backup", "--to", to.to_str().expect("a path"), "--config"]]
            {
                let mut command = Command::new(binary());
                command.args(&arguments).arg(&config).env("R58_STATE_DIR", home.state()).env("RUST_LOG", "trace");
                let output = command.output().expect("r58");
                let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
                assert!(!said.is_empty(), "{arguments:?}");
                ears.hear(format!("r58 {arguments:?} {place}"), said);
            }
        }
    }
}

/// A client of the broker, as it signs in with a password.
fn on_broker(port: u16, id: &str, user: &str, password: &str) -> Output {
    let mut command = std::process::Command::new("mosquitto_sub");
    command.args(["-V", "5", "-h", "127.0.0.1", "-p", &port.to_string(), "-i", id, "-u", user, "-P", password]);
    command.args(["-W", "1", "-t", "r58/1/default/box1/down/#"]).output().expect("mosquitto_sub")
}

#[tokio::test]
async fn no_secret_is_in_what_the_fleet_server_says_keeps_or_refuses() {
    let _backstage = backstage().await;
    let mut ears = Ears { secrets: Vec::new(), said: Vec::new() };
    of_a_database_that_is_not_there(&mut ears);
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

    // Where a page cannot set headers, and where nobody should put a token.
    for bearer in [api.token(), no_token.as_str()] {
        let protocols = format!("r58-bridge, bearer.{bearer}");
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", protocols.as_str()),
        ];
        ask(&mut ears, &api, Method::GET, "/control/nobody", &upgrade, Value::Null).await;
    }
    for path in ["/api/v1/events", "/api/v1/devices", "/control/nobody"] {
        ask(&mut ears, &api, Method::GET, &format!("{path}?access_token={no_token}"), &[], Value::Null).await;
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
        let turn = ask(&mut ears, &api, Method::GET, "/turn-credentials", &device, Value::Null).await;
        if let Some(credential) = turn["iceServers"]["credential"].as_str() {
            ears.plant("a TURN credential", credential);
        }
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

    ears.hear("the server's command line", seen_by_others(server.process.id()));
    let said = server.process.last_words().replace(&first, "(the first password)");
    assert!(said.contains("TRACE") && said.len() > 20_000, "it was talkative: {} bytes", said.len());
    ears.hear("the server's log", said);
    ears.search();
}

/// A request to a box; an error's body is kept.
async fn ask_box(ears: &mut Ears, device: &R58, method: Method, path: &str, authorization: &str, body: &str) -> Value {
    let request = device.http().request(method.clone(), format!("{}{path}", device.device));
    let request = request.header("Authorization", authorization).header("Content-Type", "application/json");
    let answer = request.body(body.to_owned()).send().await.expect("an answer");
    let (status, head) = (answer.status(), format!("{:?}", answer.headers()));
    let text = answer.text().await.expect("a body");
    if !status.is_success() {
        let path = path.split('?').next().unwrap_or_default();
        ears.hear(format!("{method} {path} of the box: {status}"), head + &text);
    }
    serde_json::from_str(&text).unwrap_or_default()
}

#[tokio::test]
async fn no_secret_is_in_what_a_box_says_or_refuses() {
    let _stage = stage().await;
    let mut ears = Ears { secrets: Vec::new(), said: Vec::new() };
    let site = Site::start().await;
    let made = site.api.post("/api/v1/enrolment-codes", &json!({})).await;
    let code = ears.plant("an enrolment code", text(&made, "code"));
    let crew = ears.plant("the crew's password", "planted-crew-password");
    let seat = ears.plant("a seat's token", "planted-seat-token");
    let camera = ears.plant("a camera's password", "planted-camera-pw");
    let home = Home::new("");
    let mut file = |what: &'static str, name: &str, secret: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, ears.plant(what, secret)).expect("a file");
        path.display().to_string()
    };
    let turn = file("the TURN secret", "turn", "planted-turn-secret");
    let sfu = file("the SFU's secret", "sfu", "planted-sfu-secret");
    home.configure(&format!(
        "[device]\nid = \"box1\"\nname = \"Box\"\nlisten = \"127.0.0.1:0\"\n\
         [device.programme]\nwidth = 320\nheight = 180\nfps = 10\nbitrate_kbps = 200\nencoder = \"x264enc\"\n\
         [[device.inputs]]\nid = \"cam1\"\nsource = {{ kind = \"test\", pattern = \"black\", tone_hz = 440 }}\n\
         [[device.inputs]]\nid = \"far\"\nsource = {{ kind = \"rtsp\", url = \"rtsp://crew:{camera}@127.0.0.1:9/one\" }}\n\
         [[device.seats]]\nid = \"guest1\"\ntoken = \"{seat}\"\n\
         [device.turn]\nfleet = false\nshared_secret_file = \"{turn}\"\nshared_urls = [\"turn:127.0.0.1:9?transport=udp\"]\n\
         [device.sfu]\napp_id = \"app\"\nsecret_file = \"{sfu}\"\nbase_url = \"http://127.0.0.1:9\"\n\
         [device.link]\nfleet_url = \"{}\"\nenrolment_code = \"{code}\"\nheartbeat_seconds = 1\nhost = \"record\"\n",
        site.api.base
    ));
    let mut command = home.command("device");
    command.env("RUST_LOG", "trace").env("R58__DEVICE__CREW_PASSWORD", &crew);
    let mut device = R58::spawn("device", &mut command).await;
    until(PATIENCE, "the box online", || async {
        let card = site.api.call(Method::GET, "/api/v1/devices/box1", None).await?;
        if card["online"] == true { Ok(()) } else { Err(card.to_string()) }
    })
    .await;
    let token = || identity::load(&home.state().join("device")).expect("an identity").expect("enrolled").token;
    ears.plant("the box's token", token().expose());

    // The crew, and whoever is not of it.
    let basic = |password: &str| STANDARD.encode(format!("crew:{password}"));
    let wrong = ears.plant("a wrong password", "planted-wrong-password");
    for password in [&crew, &wrong] {
        let basic = ears.plant("what a browser sends of a password", basic(password));
        let basic = format!("Basic {basic}");
        for path in ["/api/state", "/api/actors", "/api/logs?level=nonsense", "/metrics"] {
            ask_box(&mut ears, &device, Method::GET, path, &basic, "").await;
        }
        let issued = json!({"label": "foyer", "names": ["programme"], "expires_in_s": 600}).to_string();
        let issued = ask_box(&mut ears, &device, Method::POST, "/api/viewer-tokens", &basic, &issued).await;
        if issued["token"].is_string() {
            // A player of HLS has it in its addresses.
            let viewer = ears.plant("a viewer's token", text(&issued, "token"));
            for path in ["/hls/programme/index.m3u8", "/hls/far/index.m3u8", "/hls/nothing/index.m3u8"] {
                ask_box(&mut ears, &device, Method::GET, &format!("{path}?token={viewer}"), "", "").await;
            }
            ask_box(&mut ears, &device, Method::POST, "/whep/programme", &format!("Bearer {viewer}"), "v=0").await;
        }
        let turn = ask_box(&mut ears, &device, Method::GET, "/api/turn-credentials", &basic, "").await;
        if let Some(credential) = turn["iceServers"]["credential"].as_str() {
            ears.plant("a TURN credential", credential);
        }
    }
    let no_seat = ears.plant("a wrong seat's token", "planted-wrong-seat-token");
    for given in [&seat, &no_seat] {
        let bearer = format!("Bearer {given}");
        for path in ["/whip/guest1", "/api/calls/whip/guest1", &format!("/whip/guest1?token={given}")] {
            ask_box(&mut ears, &device, Method::POST, path, &bearer, "v=0").await;
        }
    }

    // The fleet: an invitation, another token, a camera's password in a command.
    let guest = json!({"seat": "guest1", "name": "Ada", "expires_in_seconds": 600});
    let made = site.api.post("/api/v1/devices/box1/invitations", &guest).await;
    let link = text(&made, "join_url");
    ears.plant("what opens an invitation", link.rsplit(['#', '=']).next().unwrap_or_default());
    let before = token().expose().to_owned();
    let renewed = site.api.command("box1", "rotate_token", json!({})).await;
    assert_eq!(site.api.ended(&renewed).await["state"], "succeeded");
    let after = ears.plant("the box's next token", token().expose());
    assert_ne!(before, after);
    let source = json!({"kind": "rtsp", "url": format!("rtsp://u:{camera}@127.0.0.1:9/two")});
    let changed = site.api.command("box1", "config", json!({"changes": {"inputs": {"far": {"source": source}}}})).await;
    ears.hear("a command", site.api.ended(&changed).await["result"].to_string());

    ears.hear("the box's command line", seen_by_others(device.process.id()));
    let said = device.process.last_words();
    assert!(said.contains("TRACE") && said.len() > 20_000, "it was talkative: {} bytes", said.len());
    ears.hear("the box's log", said);
    ears.search();
}

#[tokio::test]
async fn no_secret_is_in_the_journal() {
    if !is_root_or_ran_as_root("secrets_stay_secret::no_secret_is_in_the_journal") {
        return;
    }
    let _backstage = backstage().await;
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
