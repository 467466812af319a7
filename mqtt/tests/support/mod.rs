//! A broker of either kind on a port of its own, and clients that wait for conditions with a limit.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use r58_mqtt::broker::{
    Authenticate, BrokerLimits, BrokerSettings, Certificates, EmbeddedBroker, Role, Verdict, Vouched,
};
use r58_mqtt::session::{
    BackoffSettings, Incoming, NotSent, Outgoing, Qos, RetainHandling, Session, SessionEvent, SessionEvents,
    SessionSettings, Subscription,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::sync::watch;

/// No condition takes longer than this unless something is broken.
pub const LIMIT: Duration = Duration::from_secs(20);
pub const PASSWORD: &str = "secret";
pub const ORGS: [&str; 2] = ["acme", "other"];

/// Knows the two organizations; a device is whoever says so.
pub struct Everyone;

#[async_trait]
impl Authenticate for Everyone {
    async fn authenticate(&self, username: &str, client_id: &str, password: &[u8]) -> Verdict {
        match (username, password) {
            ("panic", _) => panic!("an authenticator with a fault"),
            ("$fleet", b"secret") => Verdict::Allowed(Role::Fleet),
            (org, b"secret") if ORGS.contains(&org) => {
                let dev = client_id.strip_prefix("wrong-").unwrap_or(client_id);
                Verdict::Allowed(Role::Device { org: org.into(), dev: dev.into() })
            }
            _ => Verdict::Denied,
        }
    }
}

pub enum Kind {
    Embedded(Option<EmbeddedBroker>),
    Mosquitto(Child),
}

pub struct Broker {
    pub kind: Kind,
    pub addr: SocketAddr,
    pub ca: Option<Vec<u8>>,
    pub dir: TempDir,
    /// Those of the embedded one.
    pub limits: BrokerLimits,
}

/// A free port that the system does not give to outgoing connections: a client that asks for a broker which is just
/// restarting could else be connected to itself.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Each process in a place of its own, each test in it one further.
        let step = std::process::id() * 131 + NEXT.fetch_add(1, Ordering::Relaxed);
        let addr = SocketAddr::from(([127, 0, 0, 1], 10_000 + u16::try_from(step % 20_000).unwrap()));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

pub fn embedded_settings(dir: &Path) -> BrokerSettings {
    BrokerSettings { listen: free_port(), ..BrokerSettings::new(dir) }
}

/// A certificate for localhost that is its own root.
#[derive(Debug)]
struct Paper {
    pem: Vec<u8>,
    key_pem: String,
    config: Arc<rustls::ServerConfig>,
    never: watch::Sender<u64>,
}

impl Paper {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.key_pair.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self {
            pem: made.cert.pem().into_bytes(),
            key_pem: made.key_pair.serialize_pem(),
            config: Arc::new(config),
            never: watch::Sender::new(0),
        }
    }
}

impl Certificates for Paper {
    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    fn vouched(&self, _: &[CertificateDer<'static>]) -> Option<Vouched> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.never.subscribe()
    }
}

impl Broker {
    pub fn embedded(tls: bool) -> Self {
        Self::embedded_with(tls, BrokerLimits::default())
    }

    /// The embedded one with other bounds.
    pub fn limited(limits: BrokerLimits) -> Self {
        Self::embedded_with(false, limits)
    }

    fn embedded_with(tls: bool, limits: BrokerLimits) -> Self {
        let dir = TempDir::new().unwrap();
        let mut settings = embedded_settings(dir.path());
        settings.limits.clone_from(&limits);
        let ca = tls.then(|| {
            let paper = Paper::new();
            let ca = paper.pem.clone();
            settings.tls = Some(Arc::new(paper));
            ca
        });
        let broker = EmbeddedBroker::start(settings, Arc::new(Everyone)).unwrap();
        Self { addr: broker.addr(), kind: Kind::Embedded(Some(broker)), ca, dir, limits }
    }

    pub fn mosquitto(tls: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let users = dir.path().join("users");
        std::fs::write(&users, "").unwrap();
        for user in ORGS.iter().chain(&["$fleet"]) {
            let made = Command::new("mosquitto_passwd").arg("-b").arg(&users).args([user, PASSWORD]).output().unwrap();
            assert!(made.status.success(), "mosquitto_passwd");
        }
        let acl = dir.path().join("acl");
        std::fs::write(
            &acl,
            "pattern write r58/1/%u/%c/up/#\npattern read r58/1/%u/%c/down/#\npattern read r58/1/%u/_g/+/down/#\n\
             user $fleet\ntopic readwrite r58/1/#\n",
        )
        .unwrap();
        let (ca, tls_lines) = if tls {
            let (paper, cert, key) = (Paper::new(), dir.path().join("cert.pem"), dir.path().join("key.pem"));
            std::fs::write(&cert, &paper.pem).unwrap();
            std::fs::write(&key, &paper.key_pem).unwrap();
            (Some(paper.pem.clone()), format!("certfile {}\nkeyfile {}\n", cert.display(), key.display()))
        } else {
            (None, String::new())
        };
        let port = free_port().port();
        let config = dir.path().join("mosquitto.conf");
        std::fs::write(
            &config,
            format!(
                "user root\nlistener {port} 127.0.0.1\n{tls_lines}allow_anonymous false\npassword_file {}\nacl_file {}\n\
                 max_queued_messages 100000\npersistence false\n",
                users.display(),
                acl.display()
            ),
        )
        .unwrap();
        let child = Command::new("mosquitto")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        until(|| TcpStream::connect(addr).is_ok());
        Self { kind: Kind::Mosquitto(child), addr, ca, dir, limits: BrokerLimits::default() }
    }

    pub fn is_embedded(&self) -> bool {
        matches!(self.kind, Kind::Embedded(_))
    }

    pub fn url(&self) -> String {
        match self.ca {
            Some(_) => format!("mqtts://localhost:{}", self.addr.port()),
            None => format!("mqtt://{}", self.addr),
        }
    }

    pub fn settings(&self, user: &str, client_id: &str) -> SessionSettings {
        let mut settings = quick(&self.url(), user, client_id);
        settings.ca.clone_from(&self.ca);
        settings
    }

    pub fn device(&self, dev: &str) -> SessionSettings {
        self.settings("acme", dev)
    }

    pub fn fleet(&self, client_id: &str) -> SessionSettings {
        self.settings("$fleet", client_id)
    }

    /// The embedded broker stopped in order and started again, on the same port and directory.
    pub async fn restart(&mut self) {
        let Kind::Embedded(broker) = &mut self.kind else { panic!("only the embedded broker restarts") };
        let old = broker.take().unwrap();
        let mut settings = embedded_settings(self.dir.path());
        settings.listen = self.addr;
        settings.limits.clone_from(&self.limits);
        *broker = Some(
            tokio::task::spawn_blocking(move || {
                old.stop();
                EmbeddedBroker::start(settings, Arc::new(Everyone)).unwrap()
            })
            .await
            .unwrap(),
        );
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Embedded(broker) => {
                if let Some(broker) = broker.take() {
                    broker.stop();
                }
            }
            Kind::Mosquitto(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Settings with pauses short enough for a test.
pub fn quick(url: &str, user: &str, client_id: &str) -> SessionSettings {
    let mut settings = SessionSettings::new(url, client_id, user, PASSWORD);
    settings.backoff = BackoffSettings {
        first: Duration::from_millis(40),
        max: Duration::from_millis(200),
        floor: Duration::from_millis(10),
        stable: Duration::from_secs(30),
        refused: Duration::from_millis(600),
    };
    settings
}

/// Waits for a condition that nobody announces.
pub fn until(condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "condition not met in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Client {
    pub session: Session,
    pub events: SessionEvents,
    pub disconnects: usize,
    pub session_present: bool,
    /// Messages that came while something else was waited for: a session's queue comes before SUBACK.
    pub early: VecDeque<Incoming>,
}

impl Client {
    pub fn new((session, events): (Session, SessionEvents)) -> Self {
        Self { session, events, disconnects: 0, session_present: false, early: VecDeque::new() }
    }

    /// Starts a session and waits until it is connected and its filters are granted.
    pub async fn start(settings: SessionSettings) -> Self {
        let mut client = Self::new(Session::start(settings).unwrap());
        client.subscribed().await;
        client
    }

    /// With these filters, QoS 1, Retain Handling 1.
    pub async fn with(mut settings: SessionSettings, filters: &[&str]) -> Self {
        settings.subscriptions = filters.iter().map(|f| Subscription::new(*f)).collect();
        Self::start(settings).await
    }

    pub async fn event(&mut self) -> SessionEvent {
        let event =
            tokio::time::timeout(LIMIT, self.events.recv()).await.expect("an event in time").expect("a live session");
        match &event {
            SessionEvent::Disconnected { reason, .. } => {
                eprintln!("disconnected: {reason}");
                self.disconnects += 1;
            }
            SessionEvent::Connected { session_present, .. } => self.session_present = *session_present,
            _ => {}
        }
        event
    }

    pub async fn subscribed(&mut self) {
        loop {
            match self.event().await {
                SessionEvent::Subscribed { .. } => return,
                SessionEvent::Message(message) => self.early.push_back(message),
                _ => {}
            }
        }
    }

    /// The next message, not acknowledged.
    pub async fn unacked(&mut self) -> Incoming {
        if let Some(message) = self.early.pop_front() {
            return message;
        }
        loop {
            if let SessionEvent::Message(message) = self.event().await {
                return message;
            }
        }
    }

    /// The next message, acknowledged.
    pub async fn message(&mut self) -> Incoming {
        let message = self.unacked().await;
        if let Some(token) = message.ack {
            self.session.ack(token);
        }
        message
    }

    /// Payloads of the next `count` messages.
    pub async fn payloads(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(String::from_utf8(self.message().await.payload.to_vec()).unwrap());
        }
        all
    }

    /// Payloads of all messages before the one that says "end".
    pub async fn before_the_end(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match self.payloads(1).await.remove(0) {
                end if end == "end" => return all,
                other => all.push(other),
            }
        }
    }

    pub async fn publish(&self, message: Outgoing) -> Result<(), NotSent> {
        let receipt = self.session.publish(message).await?;
        tokio::time::timeout(LIMIT, receipt).await.expect("an outcome in time")
    }

    pub async fn say(&self, topic: &str, payload: &str) {
        self.publish(Outgoing::json(topic, payload.to_owned())).await.unwrap();
    }

    pub async fn retain(&self, topic: &str, payload: &str) {
        self.publish(Outgoing::json(topic, payload.to_owned()).retained(true)).await.unwrap();
    }

    /// Box 1's acknowledgements are through: the broker handles them before the message that follows them.
    pub async fn settled(self) -> Self {
        self.say("r58/1/acme/box-1/up/evt/settled", "").await;
        self
    }

    /// Goes with a DISCONNECT.
    pub async fn leave(self) {
        assert!(self.session.close(None, LIMIT).await);
    }

    /// Goes without a word: the last handle is dropped, the socket closes.
    pub async fn vanish(mut self) {
        drop(self.session);
        while self.events.recv().await.is_some() {}
    }
}

pub fn at_most_once(filter: &str, retain_handling: RetainHandling) -> Subscription {
    Subscription { filter: filter.into(), qos: Qos::AtMostOnce, retain_handling }
}

pub fn set(payloads: Vec<String>) -> BTreeSet<String> {
    payloads.into_iter().collect()
}

/// The embedded broker in a process of its own, which can be killed.
pub struct ChildBroker {
    pub child: Child,
    pub addr: SocketAddr,
}

/// Tells a child process of this test binary what to be.
pub const CHILD_DIR: &str = "R58_TEST_BROKER_DIR";

impl ChildBroker {
    pub fn start(dir: &Path, test: &str) -> Self {
        let addr_file = addr_file(dir);
        let _ = std::fs::remove_file(&addr_file);
        let child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let read = || std::fs::read_to_string(&addr_file).ok()?.trim().parse::<SocketAddr>().ok();
        until(|| read().is_some());
        Self { child, addr: read().unwrap() }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for ChildBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn addr_file(dir: &Path) -> PathBuf {
    dir.join("addr")
}

/// What the child process does: a broker until it is killed.
pub fn be_a_broker() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let broker = EmbeddedBroker::start(embedded_settings(&dir), Arc::new(Everyone)).unwrap();
    let unfinished = dir.join("addr.new");
    std::fs::write(&unfinished, broker.addr().to_string()).unwrap();
    std::fs::rename(unfinished, addr_file(&dir)).unwrap();
    loop {
        std::thread::park();
    }
}

/// Resident memory of a process.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A client that connects with this keep-alive, in seconds, and says nothing more: returns when the broker closes it.
pub fn closed_for_silence(addr: SocketAddr, keep_alive: u16) {
    let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    // MQTT 3.1.1, 3.1: user name, password and clean session.
    let flags = [4, 0b1100_0010];
    let body =
        [text("MQTT"), flags.into(), keep_alive.to_be_bytes().into(), text("silent"), text("acme"), text(PASSWORD)]
            .concat();
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.write_all(&[0x10, u8::try_from(body.len()).unwrap()]).unwrap();
    socket.write_all(&body).unwrap();
    let mut said = Vec::new();
    socket.read_to_end(&mut said).expect("closed in time");
    assert_eq!(said[..4], [0x20, 2, 0, 0], "let in at first");
}
