//! The whole link under SIGKILL: a box in a process of its own dies at every step of a command's life, is
//! started again on the same disk, and every command ends, with no effect twice.
//!
//! The box is this very test program, started anew with [`DIR`] set; the dying is done by the failpoints of
//! the command core. Broker and disk are real. `R58_ROUNDS=n` takes every pass up to the n-th of each step.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};

use chrono::TimeDelta;
use r58_mqtt::command::Step;
use r58_mqtt::durable::{Store, StoreOptions};
use r58_mqtt::payload::{Command, CommandStatus, DeviceState as CommandState, OnInterrupt, SyncDown};
use r58_mqtt::sign::CommandSigner;
use r58_mqtt::{CommandId, DeviceAddress};
use serde_json::{Map, json};

use super::actors::ActorsView;
use super::config::{ConfigDesk, ConfigSeam};
use super::identity::{CommandKey, load, save};
use super::operations::{MixerDesk, Refusal};
use super::*;
use crate::host::{Recorded, RecordingHost, next_boot_seq};
use crate::mixer::core::TakeKind;
use crate::supervision::{Duty, House, HouseSettings};
use crate::testkit::{Listener, Mosquitto};

const DIR: &str = "R58_TEST_BOX_DIR";
const OPERATIONS: [&str; 6] = ["take", "scene", "identify", "restart_service", "config", "reboot"];

/// Writes each effect to a file that survives the process.
struct Diary(PathBuf);

impl Diary {
    fn note(&self, what: &str) -> Result<Value, Refusal> {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        file.write_all(format!("{what}\n").as_bytes()).unwrap();
        Ok(Value::Null)
    }
}

#[async_trait::async_trait]
impl MixerDesk for Diary {
    fn knows(&self, _: &str) -> bool {
        true
    }

    async fn take(&self, _: Option<String>, _: TakeKind) -> Result<Value, Refusal> {
        self.note("take")
    }

    async fn preview(&self, _: String) -> Result<Value, Refusal> {
        self.note("scene")
    }

    async fn identify(&self, _: Duration) -> Result<Value, Refusal> {
        self.note("identify")
    }
}

struct AnyConfig;

impl ConfigSeam for AnyConfig {
    fn check(&self, _: &Map<String, Value>, _: &Map<String, Value>) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn install(&self, _: &Map<String, Value>) {}

    fn public(&self) -> Value {
        json!({})
    }
}

struct NoPictures;

impl ThumbnailSource for NoPictures {
    fn pictures(&self) -> Vec<(String, Bytes, u64)> {
        Vec::new()
    }
}

/// The box. Runs until it is killed; does nothing when it is not started by the test below.
#[test]
#[ignore = "the other half of the test below"]
fn a_box_that_will_be_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = PathBuf::from(dir);
    actix_rt::System::new().block_on(async {
        let identity = load(&dir).unwrap().unwrap();
        let store = Store::open(&dir.join("store"), &StoreOptions::default()).unwrap().store;
        let house = House::open(HouseSettings::default());
        let actors =
            ActorsView { actors: house.actors_door(), restart: house.restart_door(), changes: house.changes() };
        let ice = crate::turn::TurnSettings::first_snapshot(&[]);
        let settings = FleetLinkSettings {
            device_id: identity.device_id,
            name: "Box".to_owned(),
            version: "1.0".to_owned(),
            state_dir: dir.clone(),
            fleet_url: Some("http://127.0.0.1:1".to_owned()),
            enrolment_code: None,
            broker: BrokerWay::default(),
            heartbeat_every: Duration::from_secs(60),
            report_every: Duration::from_secs(2),
            outbox_max_bytes: 1 << 20,
            boot_seq: next_boot_seq(&dir).unwrap(),
            store: Arc::new(store),
            operations: Operations {
                mixer: Arc::new(Diary(dir.join("effects"))),
                actors,
                host: Arc::new(RecordingHost::open(&dir, vec!["kiosk.service".to_owned()]).unwrap()),
                services: vec!["kiosk.service".to_owned()],
                config: Arc::new(ConfigDesk::open(&dir, Arc::new(AnyConfig))),
                bundles: crate::supervision::Door::from_fn(|_| Err(crate::bundle::BundleError::Lost)),
            },
            requests: None,
            sources: Sources {
                state: watch::channel(Arc::default()).1,
                metrics: watch::channel(Metrics::default()).1,
                ice: watch::channel(ice).1,
                thumbnails: Arc::new(NoPictures),
            },
            identity: watch::channel(None).0,
            link: watch::channel(FleetState::default()).0,
        };
        house.engage(Duty::new("fleet_link", "fleet_link"), move |life| FleetLink::new(life, settings.clone()));
        std::future::pending::<()>().await;
    });
}

/// A box's process; killed when dropped.
struct BoxProcess(Child);

impl BoxProcess {
    fn start(dir: &Path, failpoint: Option<String>) -> Self {
        let mut process = Process::new(std::env::current_exe().unwrap());
        process
            .args(["--exact", "--ignored", "--nocapture", "fleet_link::power_cuts::a_box_that_will_be_killed"])
            .env(DIR, dir)
            .env_remove("R58_FAILPOINT")
            .envs(failpoint.map(|step| ("R58_FAILPOINT", step)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(process.spawn().unwrap())
    }

    fn is_dead(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for BoxProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Round {
    address: DeviceAddress,
    dir: tempfile::TempDir,
    ends: BTreeMap<String, CommandState>,
}

impl Round {
    /// Plays the server until every command has ended, or until the box is dead and `stop_at_death`.
    async fn play(&mut self, fleet: &mut Listener, process: &mut BoxProcess, stop_at_death: bool) {
        let up = format!("r58/1/{}/up/", self.address);
        let deadline = std::time::Instant::now() + crate::testkit::LIMIT;
        while self.ends.len() < OPERATIONS.len() {
            if process.is_dead() {
                assert!(stop_at_death, "the box died without having been asked");
                return;
            }
            assert!(std::time::Instant::now() < deadline, "not ended: {:?}", self.ends);
            let heard = tokio::time::timeout(
                Duration::from_millis(50),
                fleet.until(|message| {
                    message.topic.strip_prefix(&up).map(|tail| (tail.to_owned(), message.payload.clone()))
                }),
            );
            let Ok((tail, body)) = heard.await else { continue };
            match tail.split_once('/') {
                Some(("cmd", id)) => {
                    let status = CommandStatus::parse(&body).unwrap();
                    if status.state.is_terminal() {
                        let held = self.ends.insert(id.to_owned(), status.state);
                        assert!(held.is_none_or(|held| held == status.state), "{id} ended twice: {held:?}, {status:?}");
                    }
                }
                None if tail == "sync" => self.answer_sync(fleet).await,
                _ => {}
            }
        }
    }

    async fn answer_sync(&self, fleet: &Listener) {
        let open = OPERATIONS.iter().filter(|op| !self.ends.contains_key(**op));
        let sync = SyncDown {
            server_time: chrono::Utc::now(),
            pending: Some(open.map(|op| CommandId::new(op).unwrap()).collect()),
            pending_hash: None,
            acked: BTreeMap::new(),
            seq_floor: Some(0),
            extra: Extra::new(),
        };
        fleet.say(&format!("r58/1/{}/down/sync", self.address), sync.to_bytes().unwrap(), false).await;
    }

    /// How often each operation took effect.
    fn effects(&self) -> BTreeMap<&'static str, usize> {
        let diary = std::fs::read_to_string(self.dir.path().join("effects")).unwrap_or_default();
        let host = RecordingHost::open(self.dir.path(), Vec::new()).unwrap().recorded();
        let config = ConfigDesk::open(self.dir.path(), Arc::new(AnyConfig)).overlay();
        OPERATIONS
            .into_iter()
            .map(|op| {
                let count = match op {
                    "reboot" => host.iter().filter(|entry| matches!(entry, Recorded::Reboot { .. })).count(),
                    "restart_service" => {
                        host.iter().filter(|entry| matches!(entry, Recorded::RestartUnit { .. })).count()
                    }
                    "config" => config.ver as usize,
                    _ => diary.lines().filter(|line| *line == op).count(),
                };
                (op, count)
            })
            .collect()
    }
}

fn prepare(broker: &Mosquitto, signer: &CommandSigner, name: &str) -> Round {
    let dir = tempfile::tempdir().unwrap();
    let public = signer.public_key();
    let identity = Identity {
        device_id: name.to_owned(),
        token: Secret::new("ab".repeat(32)),
        fleet_url: "http://127.0.0.1:1".to_owned(),
        org: "org".to_owned(),
        mqtt_url: broker.url(),
        command_keys: vec![CommandKey { kid: public.kid, public_key: public.public_key }],
    };
    save(dir.path(), &identity).unwrap();
    Round { address: DeviceAddress::new("org", name).unwrap(), dir, ends: BTreeMap::new() }
}

async fn send_all(fleet: &Listener, signer: &CommandSigner, address: &DeviceAddress) {
    let now = chrono::Utc::now();
    for (op, seq) in OPERATIONS.into_iter().zip(1..) {
        let args = match op {
            "scene" => json!({"scene": "quad"}),
            "restart_service" => json!({"service": "kiosk.service"}),
            "config" => json!({"changes": {"label": "A"}}),
            _ => json!({}),
        };
        let Value::Object(args) = args else { unreachable!() };
        let id = CommandId::new(op).unwrap();
        let mut command = Command::new(address, id, seq, op, args, now, now + TimeDelta::hours(1));
        command.on_interrupt = if matches!(op, "reboot" | "config") { OnInterrupt::Verify } else { OnInterrupt::Fail };
        let body = signer.sign(&mut command).unwrap();
        fleet.say(&format!("r58/1/{address}/down/cmd/{op}"), body, true).await;
    }
}

#[actix_rt::test]
async fn a_box_killed_at_any_step_ends_every_command_and_repeats_no_effect() {
    let rounds: u32 = std::env::var("R58_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let broker = Mosquitto::start();
    let signer = CommandSigner::generate();
    let mut fleet = Listener::start(&broker, "fleet", "r58/1/+/+/up/#").await;
    let mut deaths = 0;
    for step in Step::ALL {
        for pass in (1..=rounds).map(|n| 2 * n - 1) {
            let what = format!("{}:{pass}", step.as_str());
            let mut round = prepare(&broker, &signer, &format!("box-{}-{pass}", step.as_str()));
            send_all(&fleet, &signer, &round.address).await;
            let mut first = BoxProcess::start(round.dir.path(), Some(what.clone()));
            round.play(&mut fleet, &mut first, true).await;
            deaths += u32::from(first.is_dead());
            drop(first);
            let mut second = BoxProcess::start(round.dir.path(), None);
            round.play(&mut fleet, &mut second, false).await;
            drop(second);
            for (op, count) in round.effects() {
                let end = round.ends[op];
                assert!(count <= 1, "{what}: {op} took effect {count} times");
                let pretended = end == CommandState::Succeeded && count == 0;
                assert!(!pretended, "{what}: {op} is said to be done and is not");
                assert!(
                    matches!(end, CommandState::Succeeded | CommandState::Interrupted),
                    "{what}: {op} ended as {end}"
                );
            }
        }
    }
    // Verification happens only at a second start, and a reboot only once.
    assert!(deaths as usize >= Step::ALL.len() - 1, "{deaths} deaths");
}
