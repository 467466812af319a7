//! Carries out what the command core decides, each effect in a task of its own that reports by a note.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use r58_mqtt::CommandId;
use r58_mqtt::command::{EffectOutcome, Input, Objection, Step, Verification, failpoint};
use r58_mqtt::payload::Command;
use serde_json::{Map, Value, json};
use tokio::task::{AbortHandle, JoinSet};

use super::operations::{Operation, Operations, Refusal, outcome};
use super::renewal::Renewal;
use crate::bundle::Progress;
use crate::host::Rebooting;

/// What an effect says.
#[derive(Debug)]
pub(super) enum EffectNote {
    /// For the core.
    Input(Box<Input>),
    /// The host was rebooted for show.
    Rebooted,
    /// The box has another token.
    Renewed,
}

pub(super) type NoteSender = Arc<dyn Fn(EffectNote) + Send + Sync>;

pub(super) struct Effects {
    operations: Operations,
    renewal: Renewal,
    running: HashMap<(CommandId, u32), AbortHandle>,
    /// Delays of reboots that wait for their durable row.
    delays: HashMap<CommandId, Duration>,
}

impl Effects {
    pub fn new(operations: Operations, renewal: Renewal) -> Self {
        Self { operations, renewal, running: HashMap::new(), delays: HashMap::new() }
    }

    /// Version of the configuration in force.
    pub fn desired_ver(&self) -> u64 {
        self.operations.config.overlay().ver
    }

    /// What speaks against a command by its arguments alone.
    pub fn objection(&self, command: &Command) -> Option<Objection> {
        let Err(Refusal::Rejected { code, reason } | Refusal::Failed { code, reason }) =
            self.operations.judge(&command.op, &command.args)
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
        let operation = match self.operations.judge(op, args) {
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
        let operations = self.operations.clone();
        let renewal = (operation == Operation::RotateToken).then(|| self.renewal.clone());
        let renews = renewal.is_some();
        let (told, of) = (notes.clone(), id.clone());
        let progress: Progress = Arc::new(move |progress| {
            told(EffectNote::Input(Box::new(Input::EffectProgress { id: of.clone(), attempt, progress })));
        });
        let key = (id.clone(), attempt);
        let task = tasks.spawn(async move {
            let command = id.clone();
            // A task inside, so that a panic of the effect becomes its outcome.
            let ran = OnDropAbort(tokio::spawn(async move {
                match renewal {
                    Some(renewal) => outcome(renewal.renew().await),
                    None => operations.run(&command, operation, progress).await,
                }
            }));
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
        let host = self.operations.host.clone();
        failpoint(Step::BeforeReboot);
        tasks.spawn(async move {
            let asked = tokio::task::spawn_blocking(move || host.reboot(delay)).await;
            failpoint(Step::AfterReboot);
            let reason = match asked {
                // The end of this process is the next thing that happens.
                Ok(Ok(Rebooting::Underway)) => return,
                Ok(Ok(Rebooting::Played)) => return notes(EffectNote::Rebooted),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the host seam failed".to_owned(),
            };
            finish(&notes, id, attempt, EffectOutcome::Failed { code: "host".to_owned(), reason });
        });
    }

    /// Looks whether a cut effect took place.
    pub fn verify(&self, id: CommandId, op: &str, args: &Map<String, Value>, attempt: u32) -> Input {
        let verification = match Operation::parse(op, args) {
            Ok(Operation::Config { .. }) if self.operations.config.is_applied(&id) => {
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
