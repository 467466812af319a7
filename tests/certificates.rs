//! Promise: with certificates of one's own authority (`r58 ctl ca`), people, boxes and programs reach the fleet by TLS and nobody
//! poses as another box; what is renewed or revoked counts without a restart.
//!
//! The binary runs, with clients that are not ours: reqwest (rustls), mosquitto's and OpenSSL's.

use std::path::Path;
use std::process::{Command, Output};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::authority::{Authority, Paper};
use super::support::mosquitto::Mosquitto;
use super::support::postgres::Postgres;
use super::support::process::Process;
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::{free_port, site, stage, until};

/// A fleet server that speaks TLS only, with an authority of its own.
struct Site {
    authority: Authority,
    server: Paper,
    home: Home,
    fleet: R58,
}

impl Site {
    async fn new() -> Self {
        let authority = Authority::new();
        let server = authority.server();
        let home = Home::new(&config(&authority, &server));
        let fleet = R58::start(&home, "fleet").await;
        assert!(fleet.fleet.starts_with("https://"), "{}", fleet.fleet);
        Self { authority, server, home, fleet }
    }

    /// An HTTP client that believes the authority.
    fn http(&self, shown: Option<&Paper>) -> reqwest::Client {
        let ca = std::fs::read(self.authority.pem()).expect("the authority");
        let mut builder = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .add_root_certificate(reqwest::Certificate::from_pem(&ca).expect("a certificate"));
        if let Some(paper) = shown {
            builder = builder.identity(paper.identity());
        }
        builder.build().expect("a client")
    }

    async fn register(&self, id: &str, shown: Option<&Paper>) -> Result<(StatusCode, Value), reqwest::Error> {
        let body = json!({"device_id": id, "name": id, "platform": "linux", "arch": "aarch64"});
        let url = format!("{}/api/v1/devices/register", self.fleet.fleet);
        let answer = self.http(shown).post(url).json(&body).send().await?;
        let status = answer.status();
        Ok((status, answer.json().await.unwrap_or_default()))
    }

    async fn admin(&self) -> String {
        let body = json!({"email": "admin@r58.local", "password": self.fleet.password});
        let url = format!("{}/api/v1/auth/login", self.fleet.fleet);
        let answer = self.http(None).post(url).json(&body).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    async fn decommission(&self, id: &str) {
        let url = format!("{}/api/v1/devices/{id}", self.fleet.fleet);
        let answer = self.http(None).delete(url).bearer_auth(self.admin().await).send().await.expect("an answer");
        assert_eq!(answer.status(), 204);
    }

    fn mosquitto(&self, program: &str, shown: Option<&Paper>, arguments: &[&str]) -> Command {
        let (host, port) = self.fleet.broker.rsplit_once(':').expect("host and port");
        let mut command = Command::new(program);
        command.args(["-V", "5", "-h", host, "-p", port, "--cafile"]).arg(self.authority.pem());
        if let Some(paper) = shown {
            command.arg("--cert").arg(&paper.cert).arg("--key").arg(&paper.key);
        }
        command.args(arguments);
        command
    }

    /// Whether a client with these arguments may connect and publish as a box does.
    fn publishes(&self, shown: Option<&Paper>, topic: &str, arguments: &[&str]) -> bool {
        let mut command = self.mosquitto("mosquitto_pub", shown, &["-q", "1", "-t", topic, "-m", "{}", "-d"]);
        let output = command.args(arguments).output().expect("mosquitto_pub");
        let said = said(&output);
        output.status.success() && said.contains("CONNACK (0)") && !said.contains("RC:135")
    }

    /// Serial number of the certificate that is served now.
    fn served(&self) -> String {
        let address = self.fleet.fleet.trim_start_matches("https://");
        let script = "openssl s_client -connect \"$0\" </dev/null 2>/dev/null | openssl x509 -noout -serial";
        let output = Command::new("sh").args(["-c", script, address]).output().expect("openssl");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_lowercase();
        text.trim_start_matches("serial=").to_owned()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn config(authority: &Authority, server: &Paper) -> String {
    format!(
        "[fleet]\nlisten = \"127.0.0.1:0\"\n[fleet.tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n\
         crl_file = {:?}\n[fleet.broker]\nlisten = \"127.0.0.1:0\"\ntls = true\n",
        server.cert,
        server.key,
        authority.pem(),
        authority.crl()
    )
}

fn ctl(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["ctl", "--url", &site.fleet.fleet]).args(arguments).env("HOME", site.home.path());
    command.env_remove("XDG_CONFIG_HOME").output().expect("r58 ctl")
}

#[tokio::test]
async fn people_come_by_https_and_a_renewed_certificate_is_served_without_a_restart() {
    let site = Site::new().await;
    let health = site.http(None).get(format!("{}/health", site.fleet.fleet)).send().await.expect("an answer");
    let hsts = health.headers().get("Strict-Transport-Security").expect("HSTS").to_str().expect("text");
    assert!(hsts.starts_with("max-age="), "{hsts}");
    let believed = ctl(&site, &["--ca-file", site.authority.pem().to_str().expect("a path"), "health"]);
    assert!(believed.status.success(), "{}", said(&believed));
    let stranger = ctl(&site, &["health"]);
    assert_eq!(stranger.status.code(), Some(3));
    assert!(said(&stranger).contains("--ca-file"), "{}", said(&stranger));
    let address = site.fleet.fleet.trim_start_matches("https://");
    for (version, right) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false)] {
        let script = "openssl s_client -connect \"$0\" \"$1\" -cipher ALL:@SECLEVEL=0 </dev/null";
        let output = Command::new("sh").args(["-c", script, address, version]).output().expect("openssl");
        assert_eq!(output.status.success(), right, "{version}: {}", said(&output));
    }

    assert_eq!(site.served(), site.server.serial);
    let renewed = site.authority.server();
    assert_ne!(renewed.serial, site.server.serial);
    until(PATIENCE, "the renewed certificate", || async {
        let served = site.served();
        if served == renewed.serial { Ok(()) } else { Err(served) }
    })
    .await;

    std::fs::write(&renewed.cert, "nonsense").expect("write");
    until(PATIENCE, "a word on the broken one", || async {
        let output = site.fleet.process.output();
        if output.contains("those from before stay") { Ok(()) } else { Err(output) }
    })
    .await;
    assert_eq!(site.served(), renewed.serial);
    assert!(site.fleet.stop().await.success());
}

#[tokio::test]
async fn a_box_is_let_in_by_its_certificate_and_only_as_itself() {
    let site = Site::new().await;
    let paper = site.authority.device("default", "box1");
    let own = "r58/1/default/box1/up/hb";
    assert!(!site.publishes(Some(&paper), own, &["-i", "box1"]), "it is not registered yet");

    let (status, refused) = site.register("box1", None).await.expect("an answer");
    assert_eq!(status, 403, "{refused}");
    let (status, refused) = site.register("box2", Some(&paper)).await.expect("an answer");
    assert_eq!(status, 403, "another box's name: {refused}");
    let foreign = site.authority.device("nowhere", "box9");
    let (status, refused) = site.register("box9", Some(&foreign)).await.expect("an answer");
    assert_eq!(status, 403, "an organization that is not there: {refused}");
    let (status, made) = site.register("box1", Some(&paper)).await.expect("an answer");
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["org"], "default");
    assert!(made["mqtt_url"].as_str().expect("an address").starts_with("mqtts://"), "{made}");
    let (status, again) = site.register("box1", Some(&paper)).await.expect("an answer");
    assert_eq!(status, 201, "{again}");
    assert_ne!(made["token"], again["token"]);

    assert!(site.publishes(Some(&paper), own, &["-i", "box1"]), "no user name, no password");
    assert!(site.publishes(Some(&paper), own, &["-i", "box1", "-u", "default"]));
    let token = again["token"].as_str().expect("a token");
    assert!(site.publishes(None, own, &["-i", "box1", "-u", "default", "-P", token]), "by token as ever");
    let admin = ["-u", "admin@r58.local", "-P", site.fleet.password.as_deref().expect("a password")];
    assert!(!site.publishes(Some(&paper), own, &["-i", "box2"]));
    assert!(!site.publishes(Some(&paper), own, &["-i", "box1", "-u", "other"]));
    assert!(!site.publishes(Some(&paper), own, &[&["-i", "box1"][..], &admin].concat()), "nor a person's");
    assert!(!site.publishes(Some(&paper), "r58/1/default/box2/up/hb", &["-i", "box1"]), "its own topics only");
    assert!(!site.publishes(None, own, &["-i", "box1"]), "nothing shown");
    let mut people = site.mosquitto("mosquitto_sub", None, &["-t", "r58/1/default/#", "-E"]);
    assert!(people.args(admin).status().expect("mosquitto_sub").success(), "people need no certificate");

    let elsewhere = Authority::new();
    let stranger = elsewhere.device("default", "box1");
    let expired = site.authority.expired("default", "box1", &site.home.path());
    for bad in [&stranger, &expired] {
        assert!(!site.publishes(Some(bad), own, &["-i", "box1"]), "{}", bad.cert.display());
        assert!(site.register("box1", Some(bad)).await.is_err(), "{}", bad.cert.display());
    }

    site.decommission("box1").await;
    let (status, refused) = site.register("box1", Some(&paper)).await.expect("an answer");
    assert_eq!(status, 403, "{refused}");
    assert!(!site.publishes(Some(&paper), own, &["-i", "box1"]));
    assert!(site.fleet.stop().await.success());
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_connection_and_opens_none() {
    let site = Site::new().await;
    let (paper, other) = (site.authority.device("default", "box1"), site.authority.device("default", "box2"));
    for (id, paper) in [("box1", &paper), ("box2", &other)] {
        assert_eq!(site.register(id, Some(paper)).await.expect("an answer").0, 201);
    }
    let plain = site.mosquitto("mosquitto_sub", Some(&paper), &["-i", "box1", "-t", "r58/1/default/box1/down/#", "-d"]);
    // Through a pipe it speaks late otherwise.
    let mut command = Command::new("stdbuf");
    command.arg("-oL").arg(plain.get_program()).args(plain.get_args());
    let mut listening = Process::start("mosquitto_sub", &mut command);
    listening.line(PATIENCE, "a subscription", |line| line.contains("SUBACK").then_some(())).await;

    site.authority.revoke(&paper);
    until(PATIENCE, "the end of the connection", || async {
        let output = site.fleet.process.output();
        if output.contains("its certificate is no longer good") { Ok(()) } else { Err(output) }
    })
    .await;
    until(PATIENCE, "a refusal", || async {
        match site.publishes(Some(&paper), "r58/1/default/box1/up/hb", &["-i", "box1"]) {
            true => Err("it still gets in"),
            false => Ok(()),
        }
    })
    .await;
    assert!(site.register("box1", Some(&paper)).await.is_err());
    assert!(site.publishes(Some(&other), "r58/1/default/box2/up/hb", &["-i", "box2"]), "others are not touched");
    assert!(site.fleet.stop().await.success());
}

#[tokio::test]
async fn a_box_registers_by_certificate_and_comes_back_without_its_identity() {
    let _stage = stage().await;
    let site = Site::new().await;
    let paper = site.authority.device("default", "box1");
    let link = format!(
        "[device.link]\nfleet_url = {:?}\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\nheartbeat_seconds = 1\n",
        site.fleet.fleet,
        site.authority.pem(),
        paper.cert,
        paper.key
    );
    let home = Home::small("id = \"box1\"\nlisten = \"127.0.0.1:0\"", &link);
    let online = |state: &Value| state["fleet"]["state"] == "online";
    let device = R58::start(&home, "device").await;
    device.state_until("the fleet reached", online).await;
    let identity = home.state().join("device/identity.json");
    let token = || -> Value {
        let text = std::fs::read_to_string(&identity).expect("the identity");
        serde_json::from_str::<Value>(&text).expect("an identity")["token"].clone()
    };
    let first = token();
    assert!(device.stop().await.success());

    std::fs::remove_file(&identity).expect("it is there");
    let device = R58::start(&home, "device").await;
    device.state_until("the fleet reached again", online).await;
    assert_ne!(token(), first);
    let url = format!("{}/api/v1/devices?page_size=50", site.fleet.fleet);
    let list = site.http(None).get(url).bearer_auth(site.admin().await).send().await.expect("an answer");
    let list: Value = list.json().await.expect("JSON");
    assert_eq!(list["total"], 1, "{list}");
    assert!(device.stop().await.success());
    assert!(site.fleet.stop().await.success());
}

#[tokio::test]
async fn on_a_mosquitto_a_box_is_what_its_certificate_says_and_the_server_shows_one_too() {
    let _stage = stage().await;
    let authority = Authority::new();
    let [one, other, revoked] = ["box1", "box2", "box3"].map(|id| authority.device("default", id));
    authority.revoke(&revoked);
    let (mut broker, table) = Mosquitto::by_certificates(&authority);
    broker.start().await;
    let (port, url) = (broker.port.to_string(), format!("mqtts://localhost:{}", broker.port));
    let site = site::Site::with_broker(&table, url.clone()).await;
    let papers = |paper: &Paper| {
        format!("ca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n", authority.pem(), paper.cert, paper.key)
    };
    let device = site.enrol("box1", &papers(&one)).await;
    assert_eq!(device.identity().mqtt_url, url);
    let running = device.start().await;
    let done = site.api.command("box1", "identify", json!({"seconds": 1})).await;
    assert_eq!(site.api.ended(&done).await["state"], "succeeded");

    let client = |program: &str, paper: Option<&Paper>, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-V", "5", "-h", "localhost", "-p", &port, "--cafile"]).arg(authority.pem());
        if let Some(paper) = paper {
            command.arg("--cert").arg(&paper.cert).arg("--key").arg(&paper.key);
        }
        command.args(arguments).output().expect("mosquitto's client")
    };
    let publishes = |paper: Option<&Paper>, topic: &str, who: &[&str]| {
        let output = client("mosquitto_pub", paper, &[&["-q", "1", "-t", topic, "-m", "{}", "-d"], who].concat());
        output.status.success() && said(&output).contains("CONNACK (0)") && !said(&output).contains("RC:135")
    };
    let poses = ["-i", "box1", "-u", "box1", "-P", "anything"];
    assert!(publishes(Some(&other), "r58/1/default/box2/up/evt/test", &["-i", "box2"]));
    assert!(publishes(Some(&other), "r58/1/default/box2/up/evt/test", &poses), "by its certificate, whatever it says");
    for topic in
        ["r58/1/default/box1/up/evt/test", "r58/1/default/box2/down/cmd/x", "r58/1/default/box1/down/cmd/x", "x"]
    {
        assert!(!publishes(Some(&other), topic, &["-i", "box2"]), "{topic}");
        assert!(!publishes(Some(&other), topic, &poses), "{topic}, as box1");
    }
    assert!(!publishes(None, "r58/1/default/box1/up/hb", &poses), "without a certificate");
    assert!(!publishes(Some(&revoked), "r58/1/default/box3/up/hb", &["-i", "box3"]), "a revoked one");
    let stranger = Authority::new().device("default", "box1");
    assert!(!publishes(Some(&stranger), "r58/1/default/box1/up/hb", &["-i", "box1"]), "of another authority");

    // A retained command waits for each; one box hears its own alone.
    let absent = site.enrol("box2", &papers(&other)).await;
    let waiting = site.api.draft("box2", "identify", json!({"seconds": 1})).await;
    let sent = site.api.command("box2", "identify", json!({"seconds": 1})).await;
    let hears = |paper: &Paper| {
        let topics = ["-t", "r58/#", "-W", "1", "-i", "listener", "-c", "-x", "0", "-F", "%t"];
        let output = client("mosquitto_sub", Some(paper), &topics);
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    until(PATIENCE, "box2's own commands", || async {
        let heard = hears(&other);
        let own = heard.iter().all(|topic| topic.starts_with("r58/1/default/box2/down/"));
        assert!(own && !heard.contains(&waiting.topic), "{heard:?}");
        if heard.iter().any(|topic| topic.ends_with(&sent)) { Ok(()) } else { Err(heard) }
    })
    .await;
    drop(absent);
    // Nobody took box1's place meanwhile.
    let done = site.api.command("box1", "identify", json!({"seconds": 1})).await;
    assert_eq!(site.api.ended(&done).await["state"], "succeeded");
    assert!(running.stop().await.success());
}

#[tokio::test]
async fn a_bad_file_is_one_clear_sentence_before_anything_starts() {
    let authority = Authority::new();
    let server = authority.server();
    let other = authority.device("default", "box1");
    let good = config(&authority, &server);
    let check = |config: &str| -> (bool, String) {
        let home = Home::new(config);
        let output = Command::new(binary()).args(["config", "check"]).arg(home.config()).output().expect("r58");
        (output.status.success(), said(&output))
    };
    let (right, text) = check(&good);
    assert!(right, "{text}");
    let path = |path: &Path| format!("{path:?}");
    for (from, to, wanted) in [
        (path(&server.key), path(&other.key), "is not the key of"),
        (path(&server.cert), path(Path::new("/nowhere.pem")), "cannot read /nowhere.pem"),
        (path(&authority.crl()), path(&authority.pem()), "holds no revocation list"),
    ] {
        let config = good.replace(&from, &to);
        let (right, text) = check(&config);
        assert!(!right && text.contains(wanted) && text.contains("line "), "{text}");
        let home = Home::new(&config);
        let output = home.command("fleet").output().expect("r58 fleet");
        assert!(!output.status.success() && said(&output).contains(wanted), "{}", said(&output));
    }
    let refused = authority.run(&["init"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("never overwritten"), "{}", said(&refused));
}

#[tokio::test]
async fn the_database_is_reached_by_tls_and_password_and_no_error_tells_the_password() {
    const PASSWORD: &str = "a database's password";
    let authority = Authority::new();
    let paper = authority.server();
    let server = Postgres::start_with_tls(free_port(), (&paper.cert, &paper.key), PASSWORD).await;
    let home = |ca: &Path, password: &str| {
        let home = Home::new("");
        let file = home.path().join("password");
        std::fs::write(&file, format!("{password}\n")).expect("write");
        home.configure(&format!(
            "[fleet]\nlisten = \"127.0.0.1:0\"\ndatabase_url = {:?}\ndatabase_password_file = {file:?}\n\
             [fleet.broker]\nlisten = \"127.0.0.1:0\"\n",
            server.tls_url("postgres", ca)
        ));
        home
    };
    let right = home(&authority.pem(), PASSWORD);
    let fleet = R58::start(&right, "fleet").await;
    assert!(fleet.stop().await.success());

    let stranger = Authority::new();
    for (ca, password, wanted) in [
        (stranger.pem(), PASSWORD, "certificate"),
        (authority.pem(), "not the password", "password authentication failed"),
    ] {
        let wrong = home(&ca, password);
        let output = wrong.command("fleet").output().expect("r58 fleet");
        let said = said(&output);
        assert!(!output.status.success() && said.contains(wanted), "{wanted}: {said}");
        assert!(!said.contains(password), "{said}");
    }
}

#[tokio::test]
async fn mosquitto_takes_the_same_papers() {
    let authority = Authority::new();
    let (server, good, bad) =
        (authority.server(), authority.device("default", "box1"), authority.device("default", "box2"));
    authority.revoke(&bad);
    let (dir, port) = (tempfile::tempdir().expect("a directory"), free_port());
    let config = dir.path().join("mosquitto.conf");
    let lines = format!(
        "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\ncrlfile {}\n\
         require_certificate true\n",
        authority.pem().display(),
        server.cert.display(),
        server.key.display(),
        authority.crl().display()
    );
    std::fs::write(&config, lines).expect("write");
    let _broker = Process::start("mosquitto", Command::new("mosquitto").arg("-c").arg(&config));
    let gets_in = |paper: Option<&Paper>| {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", "a", "-m", "b", "--cafile"]);
        command.arg(authority.pem());
        if let Some(paper) = paper {
            command.arg("--cert").arg(&paper.cert).arg("--key").arg(&paper.key);
        }
        let output = command.output().expect("mosquitto_pub");
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    };
    until(PATIENCE, "a box with a certificate", || async { gets_in(Some(&good)) }).await;
    assert!(gets_in(Some(&bad)).is_err(), "revoked");
    assert!(gets_in(None).is_err(), "nothing shown");
}
