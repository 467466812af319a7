//! The tree as commands see it: restart an actor and know whether it came back.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::ActorsError;
use crate::supervision::{ActorReport, ActorState, Door, GetActors, RestartActor};

/// How often the tree is looked at when it does not report a change by itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Doors to the house.
#[derive(Clone)]
pub struct ActorsView {
    /// Asks for the tree.
    pub actors: Door<GetActors>,
    /// Restarts one.
    pub restart: Door<RestartActor>,
    /// Moves with every change of the tree.
    pub changes: watch::Receiver<u64>,
}

/// What became of a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComeBack {
    /// It runs in a new life.
    Running {
        /// Restarts since the process started.
        restarts: u64,
    },
    /// Nobody has that name.
    Unknown,
    /// It did not come back.
    Failed(String),
}

impl ActorsView {
    /// The whole tree; empty when the house does not answer.
    pub async fn reports(&self) -> Vec<ActorReport> {
        self.actors.send(GetActors).await.unwrap_or_default()
    }

    /// Restarts an actor, degraded or not, and waits until it runs again.
    pub async fn restart(&self, name: &str, deadline: Duration) -> ComeBack {
        let Some(before) = self.report(name).await else { return ComeBack::Unknown };
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        match self.restart.send(RestartActor { name: name.to_owned() }).await {
            Ok(Ok(())) => {}
            Ok(Err(ActorsError::Unknown { .. })) => return ComeBack::Unknown,
            Ok(Err(error)) => return ComeBack::Failed(error.to_string()),
            Err(error) => return ComeBack::Failed(error.to_string()),
        }
        let back = async {
            loop {
                match self.report(name).await {
                    Some(report) if report.restarts > before.restarts && report.state == ActorState::Running => {
                        return ComeBack::Running { restarts: report.restarts };
                    }
                    Some(report) if report.restarts > before.restarts && report.state == ActorState::Degraded => {
                        return ComeBack::Failed(report.last_cause.unwrap_or_else(|| "it was given up".to_owned()));
                    }
                    _ => {}
                }
                // A closed watch or no change: look again all the same.
                let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            }
        };
        let late = || ComeBack::Failed(format!("it does not run after {} s", deadline.as_secs()));
        tokio::time::timeout(deadline, back).await.unwrap_or_else(|_| late())
    }

    /// Whether an actor keeps running in the same life for `span`.
    pub async fn stays(&self, name: &str, restarts: u64, span: Duration) -> bool {
        let mut changes = self.changes.clone();
        let fell = async {
            loop {
                let same = self
                    .report(name)
                    .await
                    .is_some_and(|report| report.restarts == restarts && report.state == ActorState::Running);
                if !same {
                    return;
                }
                let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
            }
        };
        tokio::time::timeout(span, fell).await.is_err()
    }

    async fn report(&self, name: &str) -> Option<ActorReport> {
        self.reports().await.into_iter().find(|report| report.name == name)
    }
}
