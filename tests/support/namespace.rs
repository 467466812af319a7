//! Network namespaces of the test's own: hosts, routers with NAT, and the cables between them; all gone when dropped.

use std::future::Future;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

/// One host.
pub struct Namespace {
    /// Its name on this machine.
    pub name: String,
}

/// Whether the calling test may make namespaces. When it is not root it runs again as root by `sudo -n`, and the caller has
/// nothing left to do; `test` is its full name.
pub fn is_root_or_ran_as_root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let myself = std::env::current_exe().expect("the test binary");
    let again = Command::new("sudo").arg("-n").arg(myself).args(["--exact", "--nocapture", test]).output();
    let said = again.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    );
    assert!(
        said.contains("1 passed; 0 failed"),
        "network namespaces need root: run the tests as root or allow sudo without a password; as root {test} said: {said}"
    );
    false
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    /// Makes a host with its loopback up; `role` becomes a part of its name.
    pub fn new(role: &str) -> Self {
        let name = format!("r58t{}{role}{}", std::process::id() % 100_000, COUNT.fetch_add(1, Ordering::Relaxed));
        run(&["ip", "netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Lays a cable to another host and gives both ends an address (`10.0.1.1/24`). Answers the names of its two plugs.
    pub fn cable(&self, address: &str, other: &Self, other_address: &str) -> (String, String) {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let (mine, theirs) =
            (format!("r5{}a{n}", std::process::id() % 10_000), format!("r5{}b{n}", std::process::id() % 10_000));
        run(&[
            "ip",
            "link",
            "add",
            &mine,
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            &theirs,
            "netns",
            &other.name,
        ]);
        for (host, device, address) in [(self, &mine, address), (other, &theirs, other_address)] {
            host.ip(&["addr", "add", address, "dev", device]);
            host.ip(&["link", "set", device, "up"]);
        }
        (mine, theirs)
    }

    /// Runs `ip` in the host.
    pub fn ip(&self, arguments: &[&str]) {
        run(&[&["ip", "-n", &self.name], arguments].concat());
    }

    /// Runs a command in the host to its end.
    pub fn exec(&self, arguments: &[&str]) {
        run(&[&["ip", "netns", "exec", &self.name], arguments].concat());
    }

    /// Makes the host a router that hides `inside` (a network such as `10.0.1.0/24`) behind its other address, each flow on a random port.
    pub fn hide(&self, inside: &str) {
        self.exec(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        self.exec(&[
            "iptables",
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-s",
            inside,
            "!",
            "-d",
            inside,
            "-j",
            "MASQUERADE",
            "--random",
        ]);
        // What was not asked for from inside does not come in.
        self.exec(&["iptables", "-P", "FORWARD", "DROP"]);
        self.exec(&["iptables", "-A", "FORWARD", "-s", inside, "-j", "ACCEPT"]);
        self.exec(&[
            "iptables",
            "-A",
            "FORWARD",
            "-m",
            "conntrack",
            "--ctstate",
            "ESTABLISHED,RELATED",
            "-j",
            "ACCEPT",
        ]);
    }

    /// Lets one TCP port of the router's address `outside` through to a host inside, and no other packet.
    pub fn forward_tcp(&self, outside: &str, port: u16, inside: &str) {
        let port = port.to_string();
        let to = format!("{inside}:{port}");
        self.exec(&[
            "iptables",
            "-t",
            "nat",
            "-A",
            "PREROUTING",
            "-d",
            outside,
            "-p",
            "tcp",
            "--dport",
            &port,
            "-j",
            "DNAT",
            "--to",
            &to,
        ]);
        self.exec(&["iptables", "-A", "FORWARD", "-d", inside, "-p", "tcp", "--dport", &port, "-j", "ACCEPT"]);
    }

    /// A command that runs in the host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a future on a thread that lives in the host: sockets that it opens are the host's.
    pub fn run<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        let name = &self.name;
        std::thread::scope(|scope| match scope.spawn(move || run_in(name, future)).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// The same beside the caller.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let name = self.name.clone();
        std::thread::spawn(move || run_in(&name, future))
    }
}

fn run_in<T>(name: &str, future: impl Future<Output = T>) -> T {
    let host = std::fs::File::open(format!("/run/netns/{name}")).expect("the namespace");
    setns(host, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
