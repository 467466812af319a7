//! One life of an actor, from its factory to its end: the guard that notices the end, and the actor's own word on its state.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::budget::{RestartBudget, RestartPolicy, Verdict};
use super::lock;
use super::report::{ActorReport, ActorState};

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the message of each thread's last panic, for the drop guard that runs while it unwinds.
pub(super) fn keep_panic_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info
                .payload()
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| info.payload().downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "panic without a message".into());
            let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
            LAST_PANIC.with(|last| *last.borrow_mut() = Some(format!("panic: {text}{place}")));
            before(info);
        }));
    });
}

/// What is known about an actor across its lives; shared by its doors, its life and its warden.
pub(super) struct Vitals {
    pub name: String,
    pub kind: String,
    pub essential: bool,
    /// Messages sent and not yet handled.
    pub depth: AtomicUsize,
    /// Messages refused because nobody was there or the mailbox was full.
    pub refused: AtomicU64,
    /// Lives whose value is not dropped yet: more than one while a stuck one lingers.
    pub alive: watch::Sender<usize>,
    pub standing: Mutex<Standing>,
    /// Bumped when anything of this changes.
    pub changes: Arc<watch::Sender<u64>>,
}

/// The part of [`Vitals`] that changes.
pub(super) struct Standing {
    /// The warden's word: starting, running, backoff, degraded, stopped.
    pub warden: ActorState,
    /// The actor's own word while the warden has it running.
    pub own: ActorState,
    pub restarts: u64,
    /// Of these, those on demand.
    pub asked_for: u64,
    /// The next build is one on demand.
    pub on_demand: bool,
    pub last_cause: Option<String>,
    pub up_since: Option<Instant>,
    pub detail: Option<String>,
}

impl Vitals {
    pub fn new(name: &str, kind: &str, essential: bool, changes: Arc<watch::Sender<u64>>) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            essential,
            depth: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            alive: watch::Sender::new(0),
            standing: Mutex::new(Standing {
                warden: ActorState::Starting,
                own: ActorState::Running,
                restarts: 0,
                asked_for: 0,
                on_demand: false,
                last_cause: None,
                up_since: None,
                detail: None,
            }),
            changes,
        }
    }

    pub fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn report(&self, now: Instant) -> ActorReport {
        let standing = lock(&self.standing);
        let state = if standing.warden == ActorState::Running { standing.own } else { standing.warden };
        let up = standing.up_since.filter(|_| matches!(state, ActorState::Running | ActorState::Starting));
        ActorReport {
            name: self.name.clone(),
            kind: self.kind.clone(),
            state,
            essential: self.essential,
            restarts: standing.restarts,
            asked_for: standing.asked_for,
            last_cause: standing.last_cause.clone(),
            uptime_seconds: up.map_or(0, |since| now.saturating_duration_since(since).as_secs()),
            mailbox_depth: self.depth.load(Ordering::Relaxed),
            detail: standing.detail.clone(),
        }
    }
}

/// What reaches a warden from outside of its own task.
pub(super) enum Notice {
    /// A life's value was dropped.
    Ended { ward: usize, generation: u64, cause: String },
    /// A life answered its ping.
    Pong { ward: usize, generation: u64 },
    /// A life has spent its soft budget.
    GaveUp { ward: usize, cause: String },
}

/// Handed to the factory; the actor keeps it in a field for as long as it lives.
///
/// Dropping it tells the warden that this life is over, and whether by a panic.
pub struct Life {
    pub(super) ward: usize,
    pub(super) generation: u64,
    pub(super) vitals: Arc<Vitals>,
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    budget: RestartBudget,
    pause: Option<Duration>,
}

impl Life {
    pub(super) fn new(
        ward: usize,
        generation: u64,
        vitals: Arc<Vitals>,
        notices: mpsc::UnboundedSender<Notice>,
        soft: RestartPolicy,
    ) -> Self {
        vitals.alive.send_modify(|alive| *alive += 1);
        {
            let mut standing = lock(&vitals.standing);
            standing.own = ActorState::Running;
            standing.detail = None;
        }
        Self { ward, generation, vitals, notices, budget: RestartBudget::new(soft), pause: Some(Duration::ZERO) }
    }

    /// The actor's name in the tree.
    pub fn name(&self) -> &str {
        &self.vitals.name
    }

    /// Which life of this actor this is, from 1: what an earlier life left behind carries a lower number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Something outside was lost. Charges the soft budget; the actor then stops its context, and [`Self::opening`] in
    /// `started` says what was granted.
    pub fn failed(&mut self, cause: impl Into<String>) -> Verdict {
        let verdict = self.budget.handle_failed(Instant::now(), rand::random());
        let cause = cause.into();
        let mut standing = lock(&self.vitals.standing);
        standing.last_cause = Some(cause.clone());
        match verdict {
            Verdict::RestartIn(pause) => {
                standing.restarts += 1;
                standing.own = ActorState::Backoff;
                self.pause = Some(pause);
            }
            Verdict::GaveUp => {
                standing.own = ActorState::Degraded;
                self.pause = None;
                let _ = self.notices.send(Notice::GaveUp { ward: self.ward, cause });
            }
        }
        drop(standing);
        self.vitals.changed();
        verdict
    }

    /// For `started`: after which pause to notify itself to open, or `None` when the budget is spent and the actor stays up
    /// to answer that it is unavailable.
    pub fn opening(&self) -> Option<Duration> {
        self.pause
    }

    /// What had to be opened is open: the actor runs, and starts to earn a full budget.
    pub fn opened(&mut self) {
        self.budget.handle_started(Instant::now());
        lock(&self.vitals.standing).own = ActorState::Running;
        self.vitals.changed();
    }

    /// The actor's own word on what it is doing; empty for none.
    pub fn detail(&self, text: impl Into<String>) {
        let text = text.into();
        lock(&self.vitals.standing).detail = if text.is_empty() { None } else { Some(text) };
        self.vitals.changed();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let cause = if std::thread::panicking() {
            LAST_PANIC.with(|last| last.borrow_mut().take()).unwrap_or_else(|| "panic".into())
        } else {
            "ended without having been asked".to_owned()
        };
        self.vitals.alive.send_modify(|alive| *alive = alive.saturating_sub(1));
        self.vitals.changed();
        // Without a warden the house is down already, and nobody needs to know.
        let _ = self.notices.send(Notice::Ended { ward: self.ward, generation: self.generation, cause });
    }
}
