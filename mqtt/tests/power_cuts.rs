//! The process is killed at every named step of a command's life, for every kind of operation, and started again: no
//! effect happens twice that may not, and every command ends and is told to the server.
//!
//! The child is this very test program with a shell around the command core as small as one can be; `R58_FAILPOINT` makes
//! it SIGKILL itself. The host is a directory: effects are lines in a file, a reboot is a changed boot id and exit code 77.

#![allow(clippy::unwrap_used)] // a test may

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use chrono::Utc;
use r58_mqtt::command::{Core, CoreConfig, EffectOutcome, Input, OpSpec, Output, Step, Verification, Write, failpoint};
use r58_mqtt::durable::{KeyValue, Store, StoreOptions};
use r58_mqtt::outbox::{Limits, Outbox, OutboxConfig};
use r58_mqtt::payload::{Command, CommandStatus, DeviceState, OnInterrupt, Payload, SyncDown};
use r58_mqtt::sign::{CommandSigner, KeyRing};
use r58_mqtt::{CommandId, DeviceAddress, journal};

/// The exit code of a host that went down.
const WENT_DOWN: i32 = 77;

fn at() -> DeviceAddress {
    DeviceAddress::new("acme", "box7").unwrap()
}

fn append(path: &Path, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The messages that lie retained on the broker: one command of each kind.
fn publish(dir: &Path) {
    let signer = CommandSigner::load_or_create(&dir.join("key.pem")).unwrap();
    let now = Utc::now();
    let kinds = [
        ("once", "take", OnInterrupt::Fail, 1),
        ("again", "set", OnInterrupt::Resume, 3),
        ("looked-at", "take", OnInterrupt::Verify, 1),
        ("down", "reboot", OnInterrupt::Verify, 1),
        ("unknown", "format", OnInterrupt::Fail, 1),
    ];
    for (seq, (id, op, on_interrupt, max_attempts)) in kinds.into_iter().enumerate() {
        let id = CommandId::new(id).unwrap();
        let until = now + Duration::from_secs(3600);
        let mut command = Command::new(&at(), id.clone(), seq as u64 + 1, op, Default::default(), now, until);
        (command.on_interrupt, command.max_attempts) = (on_interrupt, max_attempts);
        fs::write(dir.join(format!("{id}.retained")), signer.sign(&mut command).unwrap()).unwrap();
    }
}

/// What the writer's thread says.
struct Durable {
    write: u64,
    order: Option<u64>,
    terminal: bool,
}

/// The smallest shell.
struct Shell {
    dir: PathBuf,
    core: Core,
    outbox: Outbox,
    store: Arc<dyn KeyValue>,
    tell: mpsc::Sender<Durable>,
    writing: usize,
    inputs: Vec<Input>,
}

impl Shell {
    fn boot_id(dir: &Path) -> String {
        format!("boot-{}", lines(&dir.join("boots")).len())
    }

    fn open(dir: &Path, tell: mpsc::Sender<Durable>) -> Self {
        let opened = Store::open(&dir.join("state"), &StoreOptions::default()).unwrap();
        assert_eq!(opened.quarantined, None);
        let store: Arc<dyn KeyValue> = Arc::new(opened.store);
        let now = Instant::now();
        let outbox_config = OutboxConfig { limits: Limits::default(), boot_seq: 1, first_seq: 1 };
        let outbox = Outbox::open(now, store.clone(), outbox_config).unwrap();
        let loaded = journal::load(&*store).unwrap();
        assert_eq!(loaded.unreadable, 0);
        let ops = [
            ("take", OpSpec::default()),
            ("set", OpSpec { idempotent: true, reboots: false }),
            ("reboot", OpSpec { idempotent: false, reboots: true }),
        ];
        let mut config = CoreConfig::new(&Self::boot_id(dir), ops.map(|(op, spec)| (op.to_owned(), spec)));
        config.stable_after = Duration::from_millis(30);
        let core = Core::new(now, config, loaded.rows, loaded.meta);
        Self { dir: dir.to_owned(), core, outbox, store, tell, writing: 0, inputs: Vec::new() }
    }

    /// What a broker delivers at every connect: all that is retained, here even three times.
    fn connect(&mut self) {
        self.inputs.push(Input::Clock { wall: Some(Utc::now()) });
        let sync = br#"{"server_time":"2026-01-01T00:00:00Z","seq_floor":0}"#;
        self.inputs.push(Input::Sync(Box::new(SyncDown::parse(sync).unwrap())));
        let signer = CommandSigner::load(&self.dir.join("key.pem")).unwrap();
        let keys = KeyRing::new([&signer.public_key()]).unwrap();
        let mut packet = 0;
        let mut retained: Vec<PathBuf> = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        retained.retain(|path| path.extension().is_some_and(|extension| extension == "retained"));
        // By name, not by seq: brokers deliver what is retained in any order.
        retained.sort();
        for _ in 0..3 {
            for path in &retained {
                let id = CommandId::new(path.file_stem().unwrap().to_str().unwrap()).unwrap();
                let verdict = Box::new(keys.verify(&at(), &id, &fs::read(path).unwrap()));
                packet += 1;
                self.inputs.push(Input::Message { packet, id, verdict, objection: None });
            }
        }
    }

    fn run(&mut self, told: &mpsc::Receiver<Durable>) {
        self.connect();
        loop {
            for input in std::mem::take(&mut self.inputs) {
                if matches!(input, Input::Message { .. }) {
                    failpoint(Step::Arrived);
                }
                self.core.handle(Instant::now(), input);
                self.drain();
            }
            self.drain();
            self.send();
            let idle = self.inputs.is_empty() && self.writing == 0;
            if idle && self.core.pending().is_empty() && self.outbox.pending() == 0 {
                return;
            }
            if !self.inputs.is_empty() {
                continue;
            }
            let timer = self
                .core
                .poll_timeout(Instant::now())
                .map_or(Duration::from_secs(20), |at| at.saturating_duration_since(Instant::now()));
            match told.recv_timeout(timer) {
                Ok(durable) => {
                    failpoint(if durable.terminal { Step::TerminalWritten } else { Step::Written });
                    self.writing -= 1;
                    durable.order.into_iter().for_each(|order| self.outbox.committed(order));
                    self.inputs.push(Input::Written { write: durable.write });
                }
                Err(_) => self.core.handle_timeout(Instant::now()),
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Write(write) => self.write(&write),
                Output::PubAck { .. } => {
                    failpoint(Step::BeforePuback);
                    failpoint(Step::AfterPuback);
                }
                Output::Execute { id, op, attempt, .. } => {
                    failpoint(Step::BeforeEffect);
                    if op == "reboot" {
                        self.inputs.push(Input::EffectRebooting { id, attempt });
                        continue;
                    }
                    append(&self.dir.join("effects"), &format!("{id} {attempt}"));
                    failpoint(Step::AfterEffect);
                    self.inputs.push(Input::EffectFinished { id, attempt, outcome: EffectOutcome::Succeeded(None) });
                }
                Output::Proceed { id, attempt } => {
                    failpoint(Step::BeforeReboot);
                    append(&self.dir.join("effects"), &format!("{id} {attempt}"));
                    append(&self.dir.join("boots"), "up");
                    failpoint(Step::AfterReboot);
                    std::process::exit(WENT_DOWN);
                }
                Output::Verify { id, attempt, .. } => {
                    failpoint(Step::BeforeVerify);
                    let done = lines(&self.dir.join("effects")).contains(&format!("{id} {attempt}"));
                    let verification = if done { Verification::Done(None) } else { Verification::NotDone };
                    self.inputs.push(Input::Verified { id, attempt, verification });
                }
                Output::Abandon { id, .. } => panic!("{id} was abandoned"),
            }
        }
    }

    fn write(&mut self, write: &Write) {
        let terminal = write.rows.iter().any(|row| row.state().is_terminal());
        let staged = journal::stage(&mut self.outbox, Instant::now(), write).unwrap();
        let (tell, number, order) = (self.tell.clone(), write.write, staged.order);
        self.writing += 1;
        self.store.submit(
            staged.changes,
            Box::new(move |result| {
                result.unwrap();
                let _ = tell.send(Durable { write: number, order, terminal });
            }),
        );
        failpoint(if terminal { Step::TerminalSubmitted } else { Step::Submitted });
    }

    fn send(&mut self) {
        while let Some(outgoing) = self.outbox.next_batch(Instant::now()).unwrap() {
            failpoint(Step::BeforeStatus);
            append(&self.dir.join("server"), std::str::from_utf8(&outgoing.payload).unwrap());
            failpoint(Step::AfterStatus);
            self.outbox.acked(Instant::now(), outgoing.ticket);
        }
    }
}

/// Not a test: the device of the one below.
#[test]
fn child_device() {
    let Ok(dir) = std::env::var("R58_TEST_DIR") else { return };
    let (tell, told) = mpsc::channel();
    let mut shell = Shell::open(Path::new(&dir), tell);
    shell.run(&told);
}

/// Runs the device until everything has ended; the first start has the failpoint. Returns how often it was killed.
fn live(dir: &Path, point: &str) -> u32 {
    let mut kills = 0;
    for start in 0..8 {
        let mut process = Process::new(std::env::current_exe().unwrap());
        process.args(["--exact", "child_device", "--nocapture"]).env("R58_TEST_DIR", dir);
        // The second start is cut as well: recovery has steps of its own.
        if start < 2 {
            process.env("R58_FAILPOINT", point);
        }
        let output = process.stdin(Stdio::null()).output().unwrap();
        match (output.status.signal(), output.status.code()) {
            (Some(9), _) => kills += 1,
            (_, Some(WENT_DOWN)) => {}
            (_, Some(0)) => return kills,
            other => panic!("{point}: {other:?}\n{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
    panic!("{point}: the device does not come to rest");
}

fn judge(dir: &Path, point: &str) {
    let mut effects: BTreeMap<String, u32> = BTreeMap::new();
    for line in lines(&dir.join("effects")) {
        *effects.entry(line.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    let mut ends: BTreeMap<String, CommandStatus> = BTreeMap::new();
    for line in lines(&dir.join("server")) {
        let status = CommandStatus::parse(line.as_bytes()).unwrap();
        let held = ends.get(status.id.as_str());
        if let Some(held) = held.filter(|held| status.is_news(Some(held.rev))) {
            assert!(held.state.can_become(status.state), "{point}: {} after {}", status.state, held.state);
        }
        if status.is_news(held.map(|held| held.rev)) {
            ends.insert(status.id.to_string(), status);
        }
    }
    for (id, allowed) in [("once", 1), ("again", 3), ("looked-at", 1), ("down", 1), ("unknown", 0)] {
        let happened = effects.get(id).copied().unwrap_or(0);
        assert!(happened <= allowed, "{point}: {id} happened {happened} times");
        let end = ends.get(id).unwrap_or_else(|| panic!("{point}: the server never heard of {id}"));
        assert!(end.state.is_terminal(), "{point}: {id} is left {}", end.state);
        // What is said is true: success means the effect happened, and certainty that it did not means it did not.
        match (end.state, end.code.as_deref()) {
            (DeviceState::Succeeded, _) => assert!(happened >= 1, "{point}: {id} did not happen"),
            (DeviceState::Interrupted, Some("not_done")) => assert_eq!(happened, 0, "{point}: {id}"),
            (DeviceState::Interrupted, _) => {}
            (DeviceState::Rejected, code) => assert_eq!((id, code), ("unknown", Some("unsupported")), "{point}"),
            other => panic!("{point}: {id} ended {other:?}"),
        }
    }
}

fn cut_at(steps: &[Step]) {
    for step in steps {
        let mut kills = 0;
        for pass in [1, 3, 6] {
            let point = format!("{}:{pass}", step.as_str());
            let dir = tempfile::tempdir().unwrap();
            publish(dir.path());
            kills += live(dir.path(), &point);
            judge(dir.path(), &point);
        }
        // A verification happens only after another cut: the test below makes one.
        assert!(kills > 0 || *step == Step::BeforeVerify, "{} is never passed", step.as_str());
    }
}

#[test]
fn a_cut_while_a_command_is_received_leaves_no_command_without_an_end() {
    cut_at(&Step::ALL[..5]);
}

#[test]
fn a_cut_around_an_effect_never_makes_it_happen_twice() {
    cut_at(&Step::ALL[5..9]);
}

#[test]
fn a_cut_around_a_reboot_or_a_status_is_told_truly() {
    cut_at(&Step::ALL[9..]);
}

#[test]
fn a_cut_while_looking_what_an_earlier_cut_did_is_told_truly() {
    // The third effect is that of the command which is looked at (after the first by name, then by seq).
    for effect in ["before_effect:3", "after_effect:3"] {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path());
        let killed = |point: &str| {
            let mut process = Process::new(std::env::current_exe().unwrap());
            process.args(["--exact", "child_device"]).env("R58_TEST_DIR", dir.path()).env("R58_FAILPOINT", point);
            process.stdin(Stdio::null()).output().unwrap().status.signal() == Some(9)
        };
        assert!(killed(effect) && killed("before_verify:1"), "{effect}");
        live(dir.path(), "before_verify:1");
        judge(dir.path(), effect);
    }
}
