//! The core beside a reference model, under random orders of messages, writes, effects, clocks and power cuts.
//!
//! The model knows only what the protocol promises: an effect begins only after its row is durable, at most once, or as
//! often as its attempts allow when it may run twice; statuses follow the state diagram with growing revs; nothing
//! happens after a terminal state; a PUBACK comes after something durable; and in the end every command has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::rig::{Rig, command, id, sync, wall};
use super::*;
use crate::id::CommandId;
use crate::payload::{Command, CommandStatus, DeviceState, OnInterrupt};

#[derive(Debug, Clone)]
enum Act {
    Deliver(usize),
    Intrude(usize),
    Withdraw(usize),
    Commit,
    CommitUntold,
    Succeed,
    Fail,
    GoDown,
    Answer(u8),
    Crash,
    PowerCut,
    Pass(u64),
    ClockLost,
    ClockSet,
    Sync,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..6usize).prop_map(Act::Deliver),
        1 => (0..6usize).prop_map(Act::Intrude),
        1 => (0..6usize).prop_map(Act::Withdraw),
        10 => Just(Act::Commit),
        2 => Just(Act::CommitUntold),
        4 => Just(Act::Succeed),
        1 => Just(Act::Fail),
        2 => Just(Act::GoDown),
        2 => (0..3u8).prop_map(Act::Answer),
        2 => Just(Act::Crash),
        1 => Just(Act::PowerCut),
        2 => (1..400u64).prop_map(Act::Pass),
        1 => Just(Act::ClockLost),
        2 => Just(Act::ClockSet),
        2 => Just(Act::Sync),
    ]
}

/// Six commands of all kinds.
fn any_commands() -> impl Strategy<Value = Vec<Command>> {
    let one = (0..3usize, 0..3usize, 1..4u32, prop::option::of(0..600i64), 300..4000i64);
    prop::collection::vec(one, 6).prop_map(|kinds| {
        let build = |(n, (op, interrupt, attempts, from, until)): (usize, (usize, usize, u32, Option<i64>, i64))| {
            let mut command = command(&format!("c{n}"), n as u64 + 1, ["take", "set", "reboot"][op]);
            command.on_interrupt = [OnInterrupt::Fail, OnInterrupt::Resume, OnInterrupt::Verify][interrupt];
            command.max_attempts = attempts;
            command.not_before = from.map(wall);
            command.expires_at = wall(until);
            command
        };
        kinds.into_iter().enumerate().map(build).collect()
    })
}

/// What the protocol promises about one command.
#[derive(Debug, Default)]
struct Promise {
    effects: u32,
    last: Option<CommandStatus>,
}

struct Model {
    rig: Rig,
    commands: Vec<Command>,
    promises: BTreeMap<CommandId, Promise>,
    delivered: BTreeSet<CommandId>,
    /// The effect that runs, with its attempt; only one may.
    live: Option<(CommandId, u32)>,
    asked: Option<(CommandId, u32)>,
    seen_outputs: usize,
    seen_statuses: usize,
    acked: BTreeSet<u64>,
}

impl Model {
    fn new(commands: Vec<Command>) -> Self {
        Self {
            rig: Rig::new(),
            commands,
            promises: BTreeMap::new(),
            delivered: BTreeSet::new(),
            live: None,
            asked: None,
            seen_outputs: 0,
            seen_statuses: 0,
            acked: BTreeSet::new(),
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Deliver(n) => {
                let command = self.commands[*n].clone();
                self.rig.deliver(&command);
                self.delivered.insert(command.id);
            }
            Act::Intrude(n) => {
                let mut other = self.commands[*n].clone();
                other.args.insert("other".into(), true.into());
                // Only beside a known one: alone it would simply be the command.
                if self.rig.core.status(&other.id).is_some() {
                    self.rig.deliver(&other);
                }
            }
            Act::Withdraw(n) => {
                let (packet, id) = (self.rig.packet(), self.commands[*n].id.clone());
                self.rig.feed(Input::Withdrawn { packet, id });
            }
            Act::Commit => drop(self.rig.commit()),
            Act::CommitUntold => {
                // Durable, and the process dies before it hears so.
                self.rig.commit_silently();
                self.crash(false);
            }
            Act::Succeed => self.finish(EffectOutcome::Succeeded(None)),
            Act::Fail => self.finish(EffectOutcome::Failed { code: "x".into(), reason: "y".into() }),
            Act::GoDown => {
                if let Some((id, attempt)) = self.live.clone() {
                    self.rig.feed(Input::EffectRebooting { id, attempt });
                }
            }
            Act::Answer(kind) => {
                if let Some((id, attempt)) = self.asked.take() {
                    let verification = [Verification::Done(None), Verification::NotDone, Verification::Unknown]
                        [*kind as usize]
                        .clone();
                    self.rig.feed(Input::Verified { id, attempt, verification });
                }
            }
            Act::Crash => self.crash(false),
            Act::PowerCut => self.crash(true),
            Act::Pass(seconds) => self.rig.pass(Duration::from_secs(*seconds)),
            Act::ClockLost => self.rig.feed(Input::Clock { wall: None }),
            Act::ClockSet => {
                let wall = wall(0) + (self.rig.now - self.rig.start);
                self.rig.feed(Input::Clock { wall: Some(wall) });
            }
            Act::Sync => {
                let passed = (self.rig.now - self.rig.start).as_secs() as i64;
                self.rig.feed(Input::Sync(Box::new(sync(passed, Some(0)))));
            }
        }
        self.check();
    }

    fn finish(&mut self, outcome: EffectOutcome) {
        if let Some((id, attempt)) = self.live.take() {
            self.rig.feed(Input::EffectFinished { id, attempt, outcome });
        }
    }

    fn crash(&mut self, host_too: bool) {
        self.check();
        let cut: Vec<Row> = self.rig.rows.values().filter(|row| row.state().is_begun()).cloned().collect();
        let crashes = self.rig.meta.crashes;
        (self.live, self.asked) = (None, None);
        self.rig.crash(host_too);
        assert!(cut.len() <= 1, "two commands had begun: {cut:?}");
        for row in cut {
            let boot = format!("boot-{}", self.rig.boot);
            let rebooted = row.began_boot_id.as_deref() != Some(boot.as_str());
            let expected = after_a_cut(&row, rebooted, crashes + 1 >= 3);
            let found = self.rig.core.status(row.id()).unwrap().state;
            assert!(expected.contains(&found), "{row:?} became {found}, expected one of {expected:?}");
        }
    }

    fn check(&mut self) {
        let fresh: Vec<Output> = self.rig.done[self.seen_outputs..].to_vec();
        self.seen_outputs = self.rig.done.len();
        for output in fresh {
            match output {
                Output::Execute { id, attempt, .. } => self.began(id, attempt),
                Output::Verify { id, attempt, .. } => {
                    assert_eq!(self.rig.rows[&id].state(), DeviceState::Verifying);
                    self.asked = Some((id, attempt));
                }
                Output::Proceed { id, .. } => assert_eq!(self.rig.rows[&id].state(), DeviceState::Rebooting),
                Output::Abandon { id, attempt } => {
                    if self.live == Some((id, attempt)) {
                        self.live = None;
                    }
                }
                Output::PubAck { packet } => assert!(self.acked.insert(packet), "acknowledged twice"),
                Output::Write(_) => unreachable!("the rig takes writes"),
            }
        }
        let fresh: Vec<CommandStatus> = self.rig.statuses[self.seen_statuses..].to_vec();
        self.seen_statuses = self.rig.statuses.len();
        fresh.into_iter().for_each(|status| self.told(status));
    }

    fn began(&mut self, id: CommandId, attempt: u32) {
        assert_eq!(self.live, None, "two effects at a time");
        let row = &self.rig.rows[&id];
        assert_eq!((row.state(), row.last.attempt), (DeviceState::Executing, attempt), "not durable before the effect");
        let promise = self.promises.entry(id.clone()).or_default();
        promise.effects += 1;
        let may_repeat = row.command.op == "set" && row.command.on_interrupt != OnInterrupt::Fail;
        let allowed = if may_repeat { row.command.max_attempts } else { 1 };
        assert!(promise.effects <= allowed, "{id} began {} times", promise.effects);
        self.live = Some((id, attempt));
    }

    fn told(&mut self, status: CommandStatus) {
        if status.rev == 0 {
            assert_eq!(status.state, DeviceState::Rejected);
            return;
        }
        let promise = self.promises.entry(status.id.clone()).or_default();
        match &promise.last {
            Some(last) if last.rev == status.rev => {
                let mut again = status.clone();
                again.command.clone_from(&last.command);
                assert_eq!(*last, again, "one rev, two meanings");
                return;
            }
            Some(last) => {
                assert!(status.rev == last.rev + 1, "rev {} after {}", status.rev, last.rev);
                assert!(last.state.can_become(status.state), "{} after {}", status.state, last.state);
            }
            None => assert_eq!(status.rev, 1),
        }
        promise.last = Some(status);
    }

    /// Everything that may hold a command up is cleared away: then each must end.
    fn conclude(&mut self) {
        for _ in 0..60 {
            self.act(&Act::ClockSet);
            self.act(&Act::Sync);
            self.rig.settle();
            self.check();
            self.act(&Act::Succeed);
            self.act(&Act::Answer(2));
            self.rig.settle();
            self.check();
            self.act(&Act::Pass(120));
        }
        self.rig.settle();
        self.check();
        assert_eq!(self.rig.core.pending(), Vec::<CommandId>::new());
        for row in self.rig.rows.values() {
            assert!(row.state().is_terminal(), "{row:?}");
            let told = self.promises[row.id()].last.as_ref().unwrap();
            assert_eq!(told.rev, row.last.rev, "the journal says what was told");
        }
        assert!(self.rig.rows.keys().all(|id| self.delivered.contains(id)));
    }
}

/// What may become of a command that was cut in the middle, written down a second time and from the protocol alone.
fn after_a_cut(row: &Row, rebooted: bool, breaker: bool) -> Vec<DeviceState> {
    let asked_to_reboot = row.state() == DeviceState::Rebooting;
    let left = row.last.attempt < row.command.max_attempts;
    let again = row.command.op == "set" && left && !breaker;
    match (row.command.on_interrupt, row.command.op.as_str()) {
        _ if asked_to_reboot && rebooted => vec![DeviceState::Succeeded],
        (OnInterrupt::Verify, "reboot") if rebooted => vec![DeviceState::Succeeded],
        (OnInterrupt::Verify, "reboot") => vec![DeviceState::Interrupted],
        (OnInterrupt::Verify, _) if asked_to_reboot && again => vec![DeviceState::Executing],
        (OnInterrupt::Verify, _) if asked_to_reboot => vec![DeviceState::Interrupted],
        (OnInterrupt::Verify, _) => vec![DeviceState::Verifying],
        (OnInterrupt::Resume, _) if again && !asked_to_reboot => vec![DeviceState::Executing],
        _ => vec![DeviceState::Interrupted],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_makes_an_effect_happen_twice_or_leaves_a_command_without_an_end(
        commands in any_commands(),
        acts in prop::collection::vec(any_act(), 1..120),
    ) {
        let mut model = Model::new(commands);
        for act in &acts {
            model.act(act);
        }
        model.conclude();
    }
}

#[test]
fn the_model_meets_every_kind_of_end() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut ends = BTreeSet::new();
    for _ in 0..300 {
        let strategy = (any_commands(), prop::collection::vec(any_act(), 1..120));
        let (commands, acts) = strategy.new_tree(&mut runner).unwrap().current();
        let mut model = Model::new(commands);
        acts.iter().for_each(|act| model.act(act));
        model.conclude();
        ends.extend(model.rig.rows.values().map(|row| row.state().as_str()));
    }
    let all = ["cancelled", "failed", "interrupted", "rejected", "succeeded", "timed_out"];
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), all, "the model is too tame");
    assert_eq!(id("c0").as_str(), "c0");
}
