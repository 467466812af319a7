//! What systemd is told, and what is shipped to it: a service says when it is ready, gives signs of life while it lives, and its
//! unit lets it do no more than it must.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;

use super::support::process::Process;
use super::support::r58::{EPHEMERAL, Home, PATIENCE, R58, binary};
use super::support::{stage, until};

/// systemd's own measure, from 0 (nothing is possible) to 10; what it calls "OK" begins at 2.
const EXPOSED_AT_MOST: &str = "20";

/// The end of the socket that systemd would hold.
struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Manager {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keeper = Arc::clone(&heard);
        // Ends with the test's process; it holds nothing but its socket.
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                keeper.lock().expect("heard").push(String::from_utf8_lossy(&message[..length]).into_owned());
            }
        });
        Self { heard, _dir: dir, path }
    }

    fn command(&self, home: &Home, side: &str) -> Command {
        let mut command = home.command(side);
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "900000");
        command
    }

    fn count(&self, word: &str) -> usize {
        self.heard.lock().expect("heard").iter().filter(|said| said.lines().any(|line| line == word)).count()
    }

    async fn hears(&self, word: &str, count: usize) {
        until(PATIENCE, &format!("{count} of {word}"), || async {
            let found = self.count(word);
            if found >= count { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

#[tokio::test]
async fn systemd_is_told_that_a_side_is_ready_lives_and_stops() {
    let _stage = stage().await;
    for side in ["device", "fleet"] {
        let manager = Manager::start();
        let home = Home::new(&format!(
            "{EPHEMERAL}[[device.inputs]]\nid = \"cam1\"\nsource = {{ kind = \"test\", pattern = \"ball\", tone_hz = 330 }}\n"
        ));
        let mut r58 = R58::spawn(side, &mut manager.command(&home, side)).await;
        manager.hears("READY=1", 1).await;
        manager.hears("WATCHDOG=1", 3).await;
        assert_eq!(manager.count("STOPPING=1"), 0);
        r58.process.signal(Signal::SIGTERM);
        assert!(r58.process.ended(PATIENCE).await.success(), "{}", r58.process.output());
        assert_eq!(manager.count("STOPPING=1"), 1);
    }
}

#[tokio::test]
async fn a_side_that_cannot_start_is_never_ready() {
    let manager = Manager::start();
    let home = Home::new("[fleet]\nlisten = \"127.0.0.1:0\"\ndatabase_url = \"nonsense:\"\n");
    let mut fleet = Process::start("r58 fleet", &mut manager.command(&home, "fleet"));
    assert!(!fleet.ended(PATIENCE).await.success());
    assert_eq!(manager.count("READY=1"), 0);
}

pub fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-image").join(path)
}

pub fn passes(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn the_units_are_sound_and_leave_little_open() {
    let dir = tempfile::tempdir().expect("a directory");
    for unit in ["r58-device.service", "r58-fleet.service"] {
        let text = std::fs::read_to_string(shipped("systemd").join(unit)).expect("a unit");
        let here = dir.path().join(unit);
        std::fs::write(&here, text.replace("/usr/bin/r58", &binary().display().to_string())).expect("write");
        let said = passes(Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&here));
        assert!(!said.contains(unit), "{said}");
        let offline = ["security", "--offline=yes", "--no-pager", "--threshold", EXPOSED_AT_MOST];
        passes(Command::new("systemd-analyze").args(offline).arg(&here));
    }
}

#[test]
fn the_shipped_configurations_are_right() {
    for file in ["device.toml", "fleet.toml"] {
        let said = passes(Command::new(binary()).args(["config", "check"]).arg(shipped("debian").join(file)));
        assert!(said.contains("right"), "{said}");
    }
}

fn manifest() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    std::fs::read_to_string(path).expect("it").parse().expect("TOML")
}

/// Otherwise the program could need a feature that only its tests bring, and not be built without them.
#[test]
fn the_tests_add_nothing_to_what_the_program_is_built_of() {
    let manifest = manifest();
    let table = |name: &str| manifest[name].as_table().expect("a table").clone();
    let of_the_program = table("dependencies");
    for (name, asked) in table("dev-dependencies") {
        assert!(!of_the_program.contains_key(&name), "{name} stands there already: {asked}");
    }
}

#[test]
fn what_the_package_is_to_bring_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = manifest();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("assets");
    let asset = |asset: &toml::Value, n: usize| asset[n].as_str().expect("text").to_owned();
    let mut brought = Vec::new();
    for [from, to] in
        assets.iter().map(|one| [asset(one, 0), asset(one, 1)]).filter(|[from, _]| !from.starts_with("target/"))
    {
        let files: Vec<PathBuf> = match from.strip_suffix("/*") {
            Some(all) => std::fs::read_dir(root.join(all)).expect(all).flatten().map(|entry| entry.path()).collect(),
            None => vec![root.join(&from)],
        };
        assert!(!files.is_empty() && files.iter().all(|file| file.is_file()), "{from}");
        brought.extend(files.iter().map(|file| match to.ends_with('/') {
            true => format!("{to}{}", file.file_name().expect("a name").to_string_lossy()),
            false => to.clone(),
        }));
    }
    for wanted in [
        "etc/r58/fleet.toml",
        "usr/share/doc/r58/README.md",
        "usr/share/doc/r58/monitoring/grafana.json",
        "usr/share/doc/r58/monitoring/prometheus.yml",
        "usr/share/doc/r58/brokers/README.md",
        "usr/share/doc/r58/brokers/mosquitto/certificates.conf",
        "usr/share/doc/r58/brokers/rmqttd/plugins/rmqtt-auth-http.toml",
    ] {
        assert!(brought.iter().any(|path| path == wanted), "{wanted} is not in {brought:?}");
    }
}

#[test]
fn shells_complete_what_the_command_line_knows() {
    for shell in ["bash", "zsh", "fish"] {
        let said = passes(Command::new(binary()).args(["ctl", "completion", shell]));
        assert!(said.contains("invitations"), "{shell}: {said}");
    }
}
