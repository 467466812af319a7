//! A cluster of three rmqttd on loopback, from the shipped configuration: nodes can be killed and come back.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::r58::PATIENCE;
use super::{free_port, until};

/// Nodes.
pub const NODES: usize = 3;
/// The server's user.
const FLEET: &str = "$fleet";
/// Its password.
const PASSWORD: &str = "a cluster's password";
/// What nodes show the server.
const SECRET: &str = "what nodes and server share";

const NODE: &str = include_str!("../../mqtt/brokers/rmqttd/rmqtt.toml");
const PLUGINS: [(&str, &str); 5] = [
    ("rmqtt-auth-http", include_str!("../../mqtt/brokers/rmqttd/plugins/rmqtt-auth-http.toml")),
    ("rmqtt-acl", include_str!("../../mqtt/brokers/rmqttd/plugins/rmqtt-acl.toml")),
    ("rmqtt-cluster-raft", include_str!("../../mqtt/brokers/rmqttd/plugins/rmqtt-cluster-raft.toml")),
    ("rmqtt-cluster-broadcast", include_str!("../../mqtt/brokers/rmqttd/plugins/rmqtt-cluster-broadcast.toml")),
    ("rmqtt-retainer", include_str!("../../mqtt/brokers/rmqttd/plugins/rmqtt-retainer.toml")),
];

/// Three nodes, up or down.
pub struct Cluster {
    dir: TempDir,
    binary: PathBuf,
    mqtt: [u16; NODES],
    nodes: [Option<Process>; NODES],
    /// Where the server is asked.
    pub fleet_port: u16,
}

/// The binary: `R58_RMQTTD`, or `rmqttd` of the path.
fn binary() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|dir| dir.join("rmqttd"));
    std::env::var_os("R58_RMQTTD")
        .map(PathBuf::from)
        .into_iter()
        .chain(on_path)
        .find(|path| path.is_file())
        .expect("rmqttd is installed")
}

impl Cluster {
    /// The files of three nodes; none runs yet.
    pub fn prepare() -> Self {
        let binary = binary();
        let dir = tempfile::tempdir().expect("a directory");
        let ports = || [(); NODES].map(|()| free_port());
        let (mqtt, grpc, raft, fleet_port) = (ports(), ports(), ports(), free_port());
        for node in 0..NODES {
            let home = dir.path().join(format!("node{}", node + 1));
            std::fs::create_dir_all(home.join("plugins")).expect("a directory");
            let own = |text: &str| {
                let mut text = text
                    .replace("0.0.0.0:5363", &format!("127.0.0.1:{}", grpc[node]))
                    .replace("0.0.0.0:1883", &format!("127.0.0.1:{}", mqtt[node]))
                    .replace("fleet.example:8180", &format!("127.0.0.1:{fleet_port}"))
                    .replace("the secret that the server has in auth_secret_file", SECRET)
                    .replace("dir = \"plugins\"", &format!("dir = \"{}\"", home.join("plugins").display()));
                for other in 0..NODES {
                    let name = format!("broker{}", other + 1);
                    text = text
                        .replace(&format!("{name}:5363"), &format!("127.0.0.1:{}", grpc[other]))
                        .replace(&format!("{name}:6003"), &format!("127.0.0.1:{}", raft[other]));
                }
                text
            };
            std::fs::write(home.join("rmqtt.toml"), own(NODE)).expect("write");
            for (name, text) in PLUGINS {
                std::fs::write(home.join("plugins").join(format!("{name}.toml")), own(text)).expect("write");
            }
        }
        std::fs::write(dir.path().join("password"), PASSWORD).expect("write");
        std::fs::write(dir.path().join("secret"), SECRET).expect("write");
        Self { dir, binary, mqtt, nodes: Default::default(), fleet_port }
    }

    /// Starts all nodes, one after the other.
    pub async fn start(&mut self) {
        for node in 0..NODES {
            self.start_node(node).await;
        }
    }

    /// Starts a node, for the first time or again, and waits until it listens.
    pub async fn start_node(&mut self, node: usize) {
        assert!(self.nodes[node].is_none(), "it runs already");
        let home = self.dir.path().join(format!("node{}", node + 1));
        let mut command = Command::new(&self.binary);
        command.arg("-f").arg(home.join("rmqtt.toml")).args(["--id", &(node + 1).to_string()]).current_dir(&home);
        self.nodes[node] = Some(Process::start(&format!("rmqttd {}", node + 1), &mut command));
        let port = self.mqtt[node];
        until(
            PATIENCE,
            "a listening rmqttd",
            || async move { TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop) },
        )
        .await;
    }

    /// SIGKILL.
    pub fn kill_node(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].take() {
            process.kill();
        }
    }

    /// Whether every node that was started still runs.
    pub fn is_whole(&mut self) -> bool {
        self.nodes.iter_mut().flatten().all(Process::is_alive)
    }

    /// All nodes' addresses.
    pub fn url(&self) -> String {
        self.mqtt.map(|port| format!("mqtt://127.0.0.1:{port}")).join(",")
    }

    /// The `[fleet.broker]` table of a server that uses it.
    pub fn broker_table(&self) -> String {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        format!(
            "[fleet.broker]\nurl = \"{}\"\nusername = \"{FLEET}\"\npassword_file = \"{}\"\nauth_secret_file = \"{}\"\n",
            self.url(),
            file("password"),
            file("secret")
        )
    }
}
