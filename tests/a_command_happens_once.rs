//! A command happens once, and says how it ended: whatever step the power goes at, however often the broker brings it.
//!
//! Effects are counted where they leave a trace that outlives the process: reboots and unit restarts in the recording
//! host's book, changes of configuration in the overlay's version, takes in the mixer's own log of takes that it carried out.
//! Each command carries a number of its own in its arguments, by which its traces are known.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Mutex;

use futures_util::future::join_all;
use r58_actors::fleet_link::operations::specs;
use r58_mqtt::command::{OpSpec, Step};
use r58_mqtt::payload::{Payload as _, SyncUp};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::mosquitto::{Mosquitto, PASSWORD, TESTER};
use super::support::process::Process;
use super::support::r58::{PATIENCE, R58};
use super::support::site::{Boxed, Draft, ORG, Site, assert_steps_in_order, is_ended};
use super::support::wire::Wire;
use super::support::{stage, until};

/// Boxes that are killed side by side.
const TRACKS: usize = 3;
/// Rounds: in the n-th the power goes at the n-th pass of a step.
const ROUNDS: u32 = 3;
/// Commands of one box at most; each has a unit of its own.
const UNITS: u64 = 100;

/// One command and the power cuts it lives through.
#[derive(Debug)]
struct Cell {
    op: String,
    step: Step,
    round: u32,
    cuts: Vec<String>,
}

/// Every step with every operation that can pass it, once; then the steps that are passed again and again, at later passes,
/// with the operations in turn.
fn cells() -> VecDeque<Cell> {
    let ops: Vec<(String, OpSpec)> = specs().into_iter().collect();
    let mut cells = VecDeque::new();
    for (op, spec) in &ops {
        for step in Step::ALL {
            let cuts = match step {
                // The effect of a reboot has steps of its own.
                Step::AfterEffect if spec.reboots => continue,
                Step::BeforeReboot | Step::AfterReboot if !spec.reboots => continue,
                // The link closes to sign in with the new token before it comes to this.
                Step::TerminalWritten if op == "rotate_token" => continue,
                // Only what was cut is looked at, and only what leaves something to look at.
                Step::BeforeVerify if op != "config" => continue,
                Step::BeforeVerify => vec![Step::AfterEffect.as_str().to_owned(), step.as_str().to_owned()],
                _ => vec![step.as_str().to_owned()],
            };
            cells.push_back(Cell { op: op.clone(), step, round: 1, cuts });
        }
    }
    for round in 2..=ROUNDS {
        for (n, step) in Step::ALL.into_iter().enumerate() {
            let once = [
                Step::BeforeEffect,
                Step::AfterEffect,
                Step::TerminalSubmitted,
                Step::TerminalWritten,
                Step::BeforeReboot,
                Step::AfterReboot,
                Step::BeforeVerify,
            ];
            if !once.contains(&step) {
                let op = ops[(n + round as usize) % ops.len()].0.clone();
                let cuts = vec![format!("{}:{round}", step.as_str())];
                cells.push_back(Cell { op, step, round, cuts });
            }
        }
    }
    cells
}

/// The arguments of the `n`-th command of a box.
fn arguments(op: &str, n: u64) -> Value {
    match op {
        "take" => json!({"scene": "two-up", "kind": "mix", "duration_ms": n}),
        "scene" => json!({"scene": "pip"}),
        "identify" => json!({"seconds": 1}),
        "restart_service" => json!({"service": unit(n)}),
        "reboot" => json!({"delay_seconds": n}),
        "config" => json!({"changes": {"inputs": {"cam2": {}}}}),
        "rotate_token" => json!({}),
        "bundle" => json!({"include_logs": true, "include_diagnostics": false}),
        other => panic!("what does {other} do? count its effects here"),
    }
}

fn unit(n: u64) -> String {
    format!("unit-{n}.service")
}

fn units() -> String {
    let units: Vec<String> = (1..=UNITS).map(|n| format!("{:?}", unit(n))).collect();
    format!("services = [\"camera cam2\", {}]", units.join(", "))
}

/// How often the `n`-th command of a box took effect; none for an operation that may be done again without harm.
fn effects(boxed: &Boxed, op: &str, n: u64, id: &str, said: &str) -> Option<usize> {
    let asked = |what: &str, key: &str, value: Value| {
        boxed.asked_of_host().iter().filter(|entry| entry["what"] == what && entry[key] == value).count()
    };
    match op {
        "take" => {
            let number = format!("duration_ms: {n} ");
            Some(said.lines().filter(|line| line.contains("r58_actors::mixer") && line.contains(&number)).count())
        }
        "restart_service" => Some(asked("restart_unit", "unit", json!(unit(n)))),
        "reboot" => Some(asked("reboot", "delay_seconds", json!(n as f64))),
        // The version counts changes, and nothing else moves it: see `judge`.
        "config" => Some(usize::from(boxed.state_json("overlay.json")["by"] == id)),
        _ => None,
    }
}

fn version(boxed: &Boxed) -> u64 {
    boxed.state_json("overlay.json")["ver"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn a_box_killed_at_any_step_of_any_command_does_it_once_and_says_how_it_ended() {
    let _stage = stage().await;
    let site = Site::start().await;
    let queue = Mutex::new(cells());
    let tracks = (1..=TRACKS).map(|n| track(&site, format!("box{n}"), &queue));
    let counts: Vec<BTreeMap<String, usize>> = join_all(tracks).await;
    let mut sum = BTreeMap::new();
    for (ending, count) in counts.into_iter().flatten() {
        *sum.entry(ending).or_insert(0) += count;
    }
    println!("how they ended: {sum:?}");
    // Not so cautious that nothing gets done: a cut before the effect has begun costs nothing.
    assert!(sum["succeeded"] > sum["interrupted"], "{sum:?}");
}

/// Works off cells with one box.
async fn track(site: &Site, id: String, queue: &Mutex<VecDeque<Cell>>) -> BTreeMap<String, usize> {
    let boxed = site.enrol(&id, &units()).await;
    let mut endings = BTreeMap::new();
    for n in 1.. {
        let Some(cell) = queue.lock().expect("queue").pop_front() else { break };
        assert!(n <= UNITS, "more commands than units");
        *endings.entry(cut(site, &boxed, &cell, n).await).or_insert(0) += 1;
    }
    nothing_is_retained(site, &boxed).await;
    endings
}

/// Sends a command, cuts the power as the cell says, lets the box recover, and judges.
async fn cut(site: &Site, boxed: &Boxed, cell: &Cell, n: u64) -> String {
    let before = version(boxed);
    let id = site.api.command(&boxed.id, &cell.op, arguments(&cell.op, n)).await;
    let mut said = String::new();
    for point in &cell.cuts {
        let mut life = boxed.process(Some(point));
        if cell.round == 1 {
            let status = life.ended(PATIENCE).await;
            assert_eq!(status.signal(), Some(9), "{cell:?}: {status}: {}", life.output());
        } else {
            killed_or_done(site, &mut life, &id).await;
        }
        said += &life.last_words();
    }
    // A command that is done ends a row of crashes, as in the field; and the box still takes commands.
    let next = site.api.command(&boxed.id, "identify", json!({"seconds": 1})).await;
    let mut life = boxed.process(None);
    let command = site.api.ended(&id).await;
    let follower = site.api.ended(&next).await;
    said += &life.last_words();
    assert_eq!(follower["state"], "succeeded", "{cell:?}: {follower}");
    judge(boxed, cell, n, &command, before, &said);
    command["state"].as_str().unwrap_or_default().to_owned()
}

/// At a later pass the command may be through before the step comes round again.
async fn killed_or_done(site: &Site, life: &mut Process, id: &str) {
    until(PATIENCE, "a kill, or the command's end", || {
        let alive = life.is_alive();
        async move {
            if !alive {
                return Ok(());
            }
            let command = site.api.call(Method::GET, &format!("/api/v1/commands/{id}"), None).await?;
            if is_ended(&command) { Ok(()) } else { Err(command.to_string()) }
        }
    })
    .await;
}

fn judge(boxed: &Boxed, cell: &Cell, n: u64, command: &Value, before: u64, said: &str) {
    let id = command["id"].as_str().expect("an id");
    let state = command["state"].as_str().expect("a state");
    let begun = said.lines().filter(|line| line.contains("a command begins") && line.contains(id)).count();
    let effects = effects(boxed, &cell.op, n, id, said);
    let told = format!("{cell:?} begun {begun} times, effects {effects:?}: {command}\n{said}");
    assert!(matches!(state, "succeeded" | "interrupted"), "no other end is right here: {told}");
    assert_steps_in_order(command);
    match effects {
        None => assert!(state == "succeeded" && (1..=3).contains(&begun), "{told}"),
        Some(effects) => {
            assert!(effects <= 1 && begun <= 1, "more than once: {told}");
            assert!(state == "interrupted" || effects == 1, "a success without an effect: {told}");
        }
    }
    let changed = version(boxed) - before;
    let config = cell.op == "config" && state == "succeeded";
    assert_eq!(changed, u64::from(config), "the version moves with a change and with nothing else: {told}");
    let is_certain = effects.is_some() && cell.round == 1;
    match cell.step {
        Step::Arrived | Step::TerminalWritten | Step::AfterReboot | Step::BeforeVerify if is_certain => {
            assert_eq!((state, effects), ("succeeded", Some(1)), "{told}");
        }
        Step::BeforeEffect | Step::BeforeReboot if is_certain => {
            assert_eq!((state, effects), ("interrupted", Some(0)), "{told}");
        }
        Step::AfterEffect if is_certain => assert_eq!(effects, Some(1), "{told}"),
        _ => {}
    }
}

/// With the box gone, looks by its eyes whether the broker still retains a command for it.
async fn nothing_is_retained(site: &Site, boxed: &Boxed) {
    let identity = boxed.identity();
    let filter = boxed.topic("down/#");
    let eyes = Wire::start(&site.broker_url, &boxed.id, ORG, identity.token.expose(), &filter).await;
    let sync = SyncUp::default().to_bytes().expect("a sync");
    eyes.say(&boxed.topic("up/sync"), sync, false).await;
    until(PATIENCE, "a broker that retains no command", || async {
        let heard = eyes.heard();
        // The server's answer comes behind what the subscription brought.
        if !heard.iter().any(|message| message.topic.ends_with("down/sync")) {
            return Err("no answer to the sync".to_owned());
        }
        let left = retained(&heard);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// Topics of commands of which the last word is not a withdrawal.
fn retained(heard: &[r58_mqtt::session::Incoming]) -> Vec<String> {
    let mut last = BTreeMap::new();
    for message in heard.iter().filter(|message| message.topic.contains("/down/cmd/")) {
        last.insert(message.topic.clone(), message.payload.is_empty());
    }
    last.into_iter().filter_map(|(topic, withdrawn)| (!withdrawn).then_some(topic)).collect()
}

/// A box at a mosquitto, a client that may publish by hand, and a signed command of every operation.
struct ByHand {
    site: Site,
    boxed: Boxed,
    wire: Wire,
    broker: Mosquitto,
    drafts: BTreeMap<&'static str, Draft>,
}

/// Numbers of the hand-published take and reboot, unlike any other's.
const BY_HAND: u64 = 77;

impl ByHand {
    async fn start() -> Self {
        let mut broker = Mosquitto::prepare();
        let site = Site::with(&broker).await;
        let boxed = site.enrol("box1", &units()).await;
        broker.let_in(ORG, boxed.identity().token.expose());
        broker.start().await;
        let wire = Wire::start(&broker.url(), "tester", TESTER, PASSWORD, &boxed.topic("down/cmd/#")).await;
        let mut drafts = BTreeMap::new();
        let config = json!({"changes": {"inputs": {"cam1": {"source": {"kind": "test", "pattern": "green"}}}}});
        for (name, op, args) in [
            ("take", "take", arguments("take", BY_HAND)),
            ("scene", "scene", arguments("scene", BY_HAND)),
            ("identify", "identify", arguments("identify", BY_HAND)),
            ("unit", "restart_service", arguments("restart_service", BY_HAND)),
            ("actor", "restart_service", json!({"service": "camera cam2"})),
            ("config", "config", config),
            ("reboot", "reboot", arguments("reboot", BY_HAND)),
        ] {
            drafts.insert(name, site.api.draft(&boxed.id, op, args).await);
        }
        Self { site, boxed, wire, broker, drafts }
    }

    /// Publishes every command's bytes, retained, so many times.
    async fn publish(&self, times: usize) {
        for draft in self.drafts.values() {
            for _ in 0..times {
                self.wire.say(&draft.topic, draft.message.clone(), true).await;
            }
        }
    }

    /// Waits until the box is through with all that was published before.
    async fn through(&self) {
        let last = self.site.api.draft(&self.boxed.id, "identify", json!({"seconds": 1})).await;
        self.wire.say(&last.topic, last.message.clone(), true).await;
        assert_eq!(self.site.api.ended(&last.id).await["state"], "succeeded");
    }

    async fn all_succeeded(&self) {
        for (name, draft) in &self.drafts {
            let command = self.site.api.ended(&draft.id).await;
            assert_eq!(command["state"], "succeeded", "{name}: {command}");
            assert_steps_in_order(&command);
        }
    }

    async fn all_withdrawn(&self) {
        until(PATIENCE, "a broker that retains no command", || async {
            let left = retained(&self.wire.heard());
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    fn count(&self, name: &str, op: &str, said: &str) -> Option<usize> {
        effects(&self.boxed, op, BY_HAND, &self.drafts[name].id, said)
    }

    /// One effect of each that counts.
    fn one_effect_each(&self, said: &str) {
        for (name, op) in [("take", "take"), ("unit", "restart_service"), ("config", "config"), ("reboot", "reboot")] {
            assert_eq!(self.count(name, op, said), Some(1), "{name}: {said}");
        }
        assert_eq!(version(&self.boxed), 1, "one change of configuration");
        assert_eq!(self.boxed.asked_of_host().len(), 2, "one reboot and one unit: {:?}", self.boxed.asked_of_host());
    }
}

async fn restarts(box1: &R58, actor: &str) -> u64 {
    let actors = box1.json("/api/actors").await;
    let found = actors["actors"].as_array().into_iter().flatten().find(|report| report["name"] == actor);
    found.and_then(|report| report["restarts"].as_u64()).expect("a report")
}

async fn online(box1: &R58) {
    box1.state_until("the fleet reached", |state| state["fleet"]["state"] == "online").await;
}

#[tokio::test]
async fn a_retained_command_delivered_three_times_has_one_effect() {
    let _stage = stage().await;
    let mut hand = ByHand::start().await;
    let mut box1 = hand.boxed.start().await;
    online(&box1).await;

    hand.publish(3).await;
    hand.all_succeeded().await;
    hand.publish(1).await;
    hand.through().await;
    assert_eq!(restarts(&box1, "camera cam2").await, 1, "one restart of the camera");
    assert_eq!(restarts(&box1, "camera cam1").await, 1, "the camera that was given another source");

    // Another connection to a broker that has forgotten everything, and is told it all again.
    hand.broker.kill();
    box1.state_until("the loss noticed", |state| state["fleet"]["state"] != "online").await;
    hand.broker.start().await;
    hand.wire.subscribed().await;
    hand.publish(1).await;
    online(&box1).await;
    hand.publish(1).await;
    hand.through().await;
    assert_eq!(restarts(&box1, "camera cam2").await, 1, "one restart of the camera");
    let mut said = box1.process.last_words();

    // Another life of the box, told it all again.
    hand.publish(3).await;
    let mut box1 = hand.boxed.start().await;
    online(&box1).await;
    hand.through().await;
    assert_eq!(restarts(&box1, "camera cam2").await, 0, "not in this life");
    said += &box1.process.last_words();

    hand.one_effect_each(&said);
    hand.all_succeeded().await;
    hand.all_withdrawn().await;
}

#[tokio::test]
async fn a_box_whose_journal_was_wiped_does_not_replay_old_commands() {
    let _stage = stage().await;
    let hand = ByHand::start().await;
    let mut box1 = hand.boxed.start().await;
    hand.publish(1).await;
    hand.all_succeeded().await;
    let mut said = box1.process.last_words();

    std::fs::remove_dir_all(hand.boxed.state_file("store")).expect("wipe the journal");
    hand.publish(1).await;
    let mut box1 = hand.boxed.start().await;
    online(&box1).await;
    hand.through().await;
    assert_eq!(restarts(&box1, "camera cam2").await, 0, "not in this life");
    said += &box1.process.last_words();
    hand.one_effect_each(&said);
    hand.all_succeeded().await;
    hand.all_withdrawn().await;
}
