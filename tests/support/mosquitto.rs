//! A mosquitto of one's own: a broker that can be killed and come back apart from the server, with passwords and an ACL of
//! two lines for boxes.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::authority::Authority;
use super::r58::PATIENCE;
use super::{free_port, until};

/// User of the server.
pub const FLEET: &str = "fleet";
/// User of the test, who may do everything in the tree.
pub const TESTER: &str = "tester";
/// Password of both.
pub const PASSWORD: &str = "a broker's password";

/// The shipped configuration.
const CONFIG: &str = include_str!("../../mqtt/brokers/mosquitto/mosquitto.conf");
/// The shipped rules, and one who watches.
const ACL: &str = concat!(include_str!("../../mqtt/brokers/mosquitto/acl"), "\nuser tester\ntopic readwrite r58/#\n");

/// The shipped configuration for boxes with certificates.
const BY_CERTIFICATES: &str = include_str!("../../mqtt/brokers/mosquitto/certificates.conf");
/// The shipped rules for them.
const CERTIFICATES_ACL: &str = include_str!("../../mqtt/brokers/mosquitto/certificates-acl");

/// A broker that keeps nothing over its end; killed when dropped.
pub struct Mosquitto {
    dir: TempDir,
    /// Where boxes come.
    pub port: u16,
    child: Option<Child>,
}

/// The shipped configuration with a place of the test's own.
fn own(config: String, shipped: &str, own: &str) -> String {
    assert!(config.contains(shipped), "the shipped configuration has no {shipped}");
    config.replace(shipped, own)
}

impl Mosquitto {
    /// A port and the files; it does not run yet.
    pub fn prepare() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let shown = dir.path().display();
        let config =
            own(CONFIG.to_owned(), "listener 1883 127.0.0.1", &format!("listener {port} 127.0.0.1\nuser root"));
        let config = own(config, "/etc/mosquitto/r58-passwords", &format!("{shown}/passwords"));
        let config = own(config, "/etc/mosquitto/r58-acl", &format!("{shown}/acl"));
        std::fs::write(dir.path().join("mosquitto.conf"), config).expect("write");
        std::fs::write(dir.path().join("acl"), ACL).expect("write");
        std::fs::write(dir.path().join("passwords"), "").expect("write");
        std::fs::write(dir.path().join("fleet-password"), PASSWORD).expect("write");
        let broker = Self { dir, port, child: None };
        broker.let_in(FLEET, PASSWORD);
        broker.let_in(TESTER, PASSWORD);
        broker
    }

    /// One that knows its clients by certificates of this authority. Also the `[fleet.broker]` table of a server that uses it.
    pub fn by_certificates(authority: &Authority) -> (Self, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let (port, servers) = (free_port(), free_port());
        let (paper, client) = (authority.server(), authority.client());
        let (acl, ca) = (dir.path().join("acl"), authority.pem());
        std::fs::write(&acl, CERTIFICATES_ACL).expect("write");
        let config = own(BY_CERTIFICATES.to_owned(), "listener 8883", &format!("listener {port} 127.0.0.1\nuser root"));
        let config = own(config, "listener 8884 127.0.0.1", &format!("listener {servers} 127.0.0.1"));
        let files = [
            ("/etc/mosquitto/ca.pem", &ca),
            ("/etc/mosquitto/crl.pem", &authority.crl()),
            ("/etc/mosquitto/server.pem", &paper.cert),
            ("/etc/mosquitto/server.key", &paper.key),
            ("/etc/mosquitto/r58-certificates-acl", &acl),
        ];
        let config =
            files.iter().fold(config, |config, (shipped, file)| own(config, shipped, &file.display().to_string()));
        std::fs::write(dir.path().join("mosquitto.conf"), config).expect("write");
        let table = format!(
            "[fleet.broker]\nurl = \"mqtts://localhost:{servers}\"\npublic_url = \"mqtts://localhost:{port}\"\n\
             ca_file = {ca:?}\ncert_file = {:?}\nkey_file = {:?}\n",
            client.cert, client.key
        );
        (Self { dir, port, child: None }, table)
    }

    /// Gives a user a password, at once when it runs.
    pub fn let_in(&self, user: &str, password: &str) {
        let done = Command::new("mosquitto_passwd")
            .arg("-b")
            .arg(self.dir.path().join("passwords"))
            .args([user, password])
            .stderr(Stdio::null())
            .status()
            .expect("mosquitto_passwd is installed");
        assert!(done.success(), "mosquitto_passwd: {done}");
        self.reload();
    }

    /// Starts it, for the first time or again, and waits until it listens.
    pub async fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        self.child = Some(child);
        let port = self.port;
        until(PATIENCE, "a listening mosquitto", || async move {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop)
        })
        .await;
    }

    /// From now on no box's answer to a request gets anywhere.
    pub fn lose_answers(&self) {
        let deny = format!("{ACL}pattern deny r58/1/%u/%c/up/response/#\n");
        std::fs::write(self.dir.path().join("acl"), deny).expect("write");
        self.reload();
    }

    /// Has it read its files again, if it runs.
    fn reload(&self) {
        let Some(child) = &self.child else { return };
        let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP).expect("a signal");
    }

    /// SIGKILL: what it held in memory is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// The `[fleet.broker]` table of a server that uses it.
    pub fn broker_table(&self) -> String {
        let file = self.dir.path().join("fleet-password");
        format!(
            "[fleet.broker]\nurl = \"{}\"\nusername = \"{FLEET}\"\npassword_file = \"{}\"\n",
            self.url(),
            file.display()
        )
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
