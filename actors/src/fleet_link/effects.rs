//! Carries out what the command core decides, each effect in a task of its own that reports by a note. Who does it is a
//! [`Workshop`]: the box's own [`Hands`], or what plays them for a simulated box.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use r58_mqtt::CommandId;
use r58_mqtt::command::{EffectOutcome, Input, Objection, Step, Verification, failpoint};
use r58_mqtt::payload::{Command, DeviceState};
use serde_json::{Map, Value, json};
use tokio::task::{AbortHandle, JoinSet};

use super::operations::{Operation, Operations, Refusal, outcome};
use super::renewal::Renewal;
use crate::bundle::Progress;
use crate::host::Rebooting;

/// Who does what commands ask for.
#[async_trait]
pub trait Workshop: Send + Sync {
    /// Version of the configuration in force.
    fn desired_ver(&self) -> u64;

    /// The operation that a command asks for, with everything checked that its arguments decide. Has no effect and asks
    /// nobody.
    ///
    /// # Errors
    /// [`Refusal::Rejected`] with a code and a sentence.
    fn judge(&self, op: &str, args: &Map<String, Value>) -> Result<Operation, Refusal>;

    /// Does everything but a reboot, and may say how far it is.
    async fn run(&self, id: &CommandId, operation: Operation, progress: Progress) -> EffectOutcome;

    /// Brings the host down.
    ///
    /// # Errors
    /// One sentence on why it will not go down.
    async fn reboot(&self, delay: Duration) -> Result<Rebooting, String>;

    /// Whether the change of configuration that this command asked for is in force: for a command that was cut.
    fn is_applied(&self, id: &CommandId) -> bool;

    /// A command has ended, and that is on its way to the disk; how the fleet is told is not its business.
    fn ended(&self, _: &CommandId, _: DeviceState) {}
}

/// The box's own: its operations, and another token for itself.
pub(super) struct Hands {
    pub operations: Operations,
    pub renewal: Renewal,
}

#[async_trait]
impl Workshop for Hands {
    fn desired_ver(&self) -> u64 {
        self.operations.config.overlay().ver
    }

    fn judge(&self, op: &str, args: &Map<String, Value>) -> Result<Operation, Refusal> {
        self.operations.judge(op, args)
    }

    async fn run(&self, id: &CommandId, operation: Operation, progress: Progress) -> EffectOutcome {
        match operation {
            Operation::RotateToken => outcome(self.renewal.clone().renew().await),
            operation => self.operations.run(id, operation, progress).await,
        }
    }

    async fn reboot(&self, delay: Duration) -> Result<Rebooting, String> {
        let host = self.operations.host.clone();
        match tokio::task::spawn_blocking(move || host.reboot(delay)).await {
            Ok(asked) => asked.map_err(|error| error.to_string()),
            Err(_) => Err("the host seam failed".to_owned()),
        }
    }

    fn is_applied(&self, id: &CommandId) -> bool {
        self.operations.config.is_applied(id)
    }
}

/// What an effect says.
#[derive(Debug)]
pub enum EffectNote {
    /// For the core.
    Input(Box<Input>),
    /// The host was rebooted for show.
    Rebooted,
    /// The box has another token.
    Renewed,
}

pub(super) type NoteSender = Arc<dyn Fn(EffectNote) + Send + Sync>;

pub(super) struct Effects {
    workshop: Arc<dyn Workshop>,
    running: HashMap<(CommandId, u32), AbortHandle>,
    /// Delays of reboots that wait for their durable row.
    delays: HashMap<CommandId, Duration>,
}

impl Effects {
    pub fn new(workshop: Arc<dyn Workshop>) -> Self {
        Self { workshop, running: HashMap::new(), delays: HashMap::new() }
    }

    /// Version of the configuration in force.
    pub fn desired_ver(&self) -> u64 {
        self.workshop.desired_ver()
    }

    /// What speaks against a command by its arguments alone.
    pub fn objection(&self, command: &Command) -> Option<Objection> {
        let Err(Refusal::Rejected { code, reason } | Refusal::Failed { code, reason }) =
            self.workshop.judge(&command.op, &command.args)
        else {
            return None;
        };
        Some(Objection { code, reason })
    }

    /// Begins an effect.
    pub fn execute(
        &mut self,
        tasks: &mut JoinSet<()>,
        notes: NoteSender,
        id: CommandId,
        op: &str,
        args: &Map<String, Value>,
        attempt: u32,
    ) {
        failpoint(Step::BeforeEffect);
        // Once more: what was right when the command came may not be any longer.
        let operation = match self.workshop.judge(op, args) {
            Ok(operation) => operation,
            Err(Refusal::Rejected { code, reason } | Refusal::Failed { code, reason }) => {
                return finish(&notes, id, attempt, EffectOutcome::Failed { code, reason });
            }
        };
        if let Operation::Reboot { delay } = operation {
            self.delays.insert(id.clone(), delay);
            notes(EffectNote::Input(Box::new(Input::EffectRebooting { id, attempt })));
            return;
        }
        let workshop = self.workshop.clone();
        let renews = operation == Operation::RotateToken;
        let (told, of) = (notes.clone(), id.clone());
        let progress: Progress = Arc::new(move |progress| {
            told(EffectNote::Input(Box::new(Input::EffectProgress { id: of.clone(), attempt, progress })));
        });
        let key = (id.clone(), attempt);
        let task = tasks.spawn(async move {
            let command = id.clone();
            // A task inside, so that a panic of the effect becomes its outcome.
            let ran = OnDropAbort(tokio::spawn(async move { workshop.run(&command, operation, progress).await }));
            let ended = ran.join().await.unwrap_or_else(|| EffectOutcome::Failed {
                code: "panic".to_owned(),
                reason: "the effect failed in a way that nobody foresaw".to_owned(),
            });
            failpoint(Step::AfterEffect);
            let renewed = renews && matches!(ended, EffectOutcome::Succeeded(_));
            finish(&notes, id, attempt, ended);
            if renewed {
                // After the end of the command, which is durable before the link is closed.
                notes(EffectNote::Renewed);
            }
        });
        self.running.retain(|_, task| !task.is_finished());
        self.running.insert(key, task);
    }

    /// The rebooting row is durable: down with the host.
    pub fn proceed(&mut self, tasks: &mut JoinSet<()>, notes: NoteSender, id: CommandId, attempt: u32) {
        let delay = self.delays.remove(&id).unwrap_or_default();
        let workshop = self.workshop.clone();
        failpoint(Step::BeforeReboot);
        tasks.spawn(async move {
            let asked = workshop.reboot(delay).await;
            failpoint(Step::AfterReboot);
            let reason = match asked {
                // The end of this process is the next thing that happens.
                Ok(Rebooting::Underway) => return,
                Ok(Rebooting::Played) => return notes(EffectNote::Rebooted),
                Err(reason) => reason,
            };
            finish(&notes, id, attempt, EffectOutcome::Failed { code: "host".to_owned(), reason });
        });
    }

    /// Looks whether a cut effect took place.
    pub fn verify(&self, id: CommandId, op: &str, args: &Map<String, Value>, attempt: u32) -> Input {
        let verification = match Operation::parse(op, args) {
            Ok(Operation::Config { .. }) if self.workshop.is_applied(&id) => {
                Verification::Done(Some(json!({"ver": self.desired_ver()})))
            }
            // A trial that was cut was undone when the configuration was read.
            Ok(Operation::Config { .. }) => Verification::NotDone,
            _ => Verification::Unknown,
        };
        Input::Verified { id, attempt, verification }
    }

    /// Stops caring for an effect.
    pub fn abandon(&mut self, id: &CommandId, attempt: u32) {
        if let Some(task) = self.running.remove(&(id.clone(), attempt)) {
            task.abort();
        }
    }
}

fn finish(notes: &NoteSender, id: CommandId, attempt: u32, outcome: EffectOutcome) {
    notes(EffectNote::Input(Box::new(Input::EffectFinished { id, attempt, outcome })));
}

/// Ends its task when it is dropped.
struct OnDropAbort(tokio::task::JoinHandle<EffectOutcome>);

impl OnDropAbort {
    /// None after a panic.
    async fn join(mut self) -> Option<EffectOutcome> {
        (&mut self.0).await.ok()
    }
}

impl Drop for OnDropAbort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
