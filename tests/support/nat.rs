//! Guest and box behind a router each, no route between them, and a TURN server on the public network that both reach.
//!
//! ```text
//! guest 10.1.0.2 -- router 203.0.113.2 -- [203.0.113.1 TURN 198.51.100.1] -- router 198.51.100.2 -- box 10.2.0.2
//! ```
//!
//! Both routers give every flow a port of its own and let nothing in that was not asked for, so no hole can be punched.
//! The box's router lets TCP port 8000 through where how a guest finds the box's page is not what is tried.

use std::path::Path;
use std::time::Duration;

use super::namespace::Namespace;
use super::paper::Paper;
use super::process::Process;

/// Address at which guests find the box's pages.
pub const BOX_URL: &str = "http://198.51.100.2:8000";
/// Address of the TURN server, as guest and box know it.
pub const TURN_URL: &str = "turn:203.0.113.1:3478?transport=udp";
/// What it does without asking who is there.
pub const STUN_URL: &str = "stun:203.0.113.1:3478";
/// Address of a fleet server beside it.
pub const FLEET_URL: &str = "http://203.0.113.1:8180";
/// Address of that server's broker.
pub const BROKER_URL: &str = "mqtt://203.0.113.1:1883";
/// The TURN server by TLS, when it has a certificate.
pub const TURNS_URL: &str = "turns:203.0.113.1:443?transport=tcp";

/// The hosts; gone when dropped.
pub struct Internet {
    /// Where the guest's browser lives.
    pub guest: Namespace,
    /// Where the box lives.
    pub device: Namespace,
    device_router: Namespace,
    guest_router: Namespace,
    /// Where servers live.
    pub public: Namespace,
    /// The guest's plug of its cable.
    wifi: String,
}

/// Another network of the guest, by a router and a provider of its own; its plug is down until it is wanted.
pub struct Mobile {
    _router: Namespace,
    plug: String,
}

impl Internet {
    /// Lays all cables; the box's page is reached from outside.
    pub fn new() -> Self {
        let internet = Self::outward_only();
        internet.device_router.forward_tcp("198.51.100.2", 8000, "10.2.0.2");
        internet
    }

    /// Lays all cables; the box can only connect outwards.
    pub fn outward_only() -> Self {
        let mut internet = Self {
            guest: Namespace::new("g"),
            device: Namespace::new("d"),
            device_router: Namespace::new("dr"),
            guest_router: Namespace::new("gr"),
            public: Namespace::new("p"),
            wifi: String::new(),
        };
        let Self { guest, device, device_router, guest_router, public, .. } = &internet;
        let (_, wifi) = guest_router.cable("10.1.0.1/24", guest, "10.1.0.2/24");
        device_router.cable("10.2.0.1/24", device, "10.2.0.2/24");
        public.cable("203.0.113.1/24", guest_router, "203.0.113.2/24");
        public.cable("198.51.100.1/24", device_router, "198.51.100.2/24");
        for (host, gateway) in
            [(guest, "10.1.0.1"), (device, "10.2.0.1"), (guest_router, "203.0.113.1"), (device_router, "198.51.100.1")]
        {
            host.ip(&["route", "add", "default", "via", gateway]);
        }
        // coturn 4.6.1 closes a session when the system refuses to send, be it for want of a route or by a blackhole route
        // (EINVAL). The guest's router lets nothing in, so what goes this way is lost without a word.
        public.ip(&["route", "add", "default", "via", "203.0.113.2"]);
        public.exec(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        guest_router.hide("10.1.0.0/24");
        device_router.hide("10.2.0.0/24");
        internet.wifi = wifi;
        internet
    }

    /// Lays the cables of the guest's other network.
    pub fn mobile(&self) -> Mobile {
        let router = Namespace::new("mr");
        let (_, plug) = router.cable("10.3.0.1/24", &self.guest, "10.3.0.2/24");
        self.guest.ip(&["link", "set", &plug, "down"]);
        self.public.cable("192.0.2.1/24", &router, "192.0.2.2/24");
        router.ip(&["route", "add", "default", "via", "192.0.2.1"]);
        router.hide("10.3.0.0/24");
        Mobile { _router: router, plug }
    }

    /// The guest walks out of its Wi-Fi, and is on its other network.
    pub fn walk_out(&self, mobile: &Mobile) {
        self.guest.ip(&["link", "set", &self.wifi, "down"]);
        let up = format!("link set {} up\\nroute add default via 10.3.0.1\\n", mobile.plug);
        self.guest.exec(&["sh", "-c", &format!("printf '{up}' | ip -batch -")]);
    }

    /// Starts coturn with this static secret; files go to `dir`.
    pub async fn turn_server(&self, secret: &str, dir: &Path) -> Process {
        self.start_turn(secret, dir, &["--no-tls".to_owned()]).await
    }

    /// The same, which also listens for TLS with this certificate.
    pub async fn turn_server_with_tls(&self, secret: &str, dir: &Path, paper: &Paper) -> Process {
        let (certificate, key) = (dir.join("turn-cert.pem"), dir.join("turn-key.pem"));
        std::fs::write(&certificate, &paper.certificate).expect("write the certificate");
        std::fs::write(&key, &paper.key).expect("write the key");
        let more = [
            "--tls-listening-port=443".to_owned(),
            format!("--cert={}", certificate.display()),
            format!("--pkey={}", key.display()),
        ];
        self.start_turn(secret, dir, &more).await
    }

    async fn start_turn(&self, secret: &str, dir: &Path, more: &[String]) -> Process {
        let file = |name: &str| dir.join(name).display().to_string();
        let mut server = Process::start(
            "turnserver",
            self.public
                .command("turnserver")
                .args(["-n", "--no-dtls", "--no-cli", "--no-multicast-peers", "--fingerprint"])
                .args(more)
                .args([
                    "--use-auth-secret",
                    &format!("--static-auth-secret={secret}"),
                    "--realm=r58.test",
                    "--listening-ip=203.0.113.1",
                    "--relay-ip=203.0.113.1",
                    "--listening-port=3478",
                    &format!("--userdb={}", file("turn.db")),
                    &format!("--pidfile={}", file("turn.pid")),
                    "--log-file=stdout",
                    "--simple-log",
                ]),
        );
        let ready = |line: &str| line.contains("Total General servers").then_some(());
        server.line(Duration::from_secs(30), "a listening TURN server", ready).await;
        server
    }

    /// The firewall of the box's venue: not a datagram in or out.
    pub fn block_udp_of_box(&self) {
        self.device_router.exec(&["iptables", "-I", "FORWARD", "-p", "udp", "-j", "DROP"]);
    }

    /// The same at the guest's.
    pub fn block_udp_of_guest(&self) {
        self.guest_router.exec(&["iptables", "-I", "FORWARD", "-p", "udp", "-j", "DROP"]);
    }

    /// Lets nothing of the box through to the TURN server any more: neither its own allocations nor, straight, the relay of a
    /// guest, which would take packets from the box's public address while the guest knows it.
    pub fn cut_box_from_turn(&self) {
        self.device_router.exec(&["iptables", "-I", "FORWARD", "-p", "udp", "-d", "203.0.113.1", "-j", "DROP"]);
    }
}
