//! Named steps at which a test can cut the power: `R58_FAILPOINT=step` (or `step:n` for the n-th pass) makes the process
//! SIGKILL itself there. Compiled in always, so that tests exercise the very binary that ships; without the variable a
//! pass costs one atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A step in a command's life. The shell calls [`failpoint`] with each as it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A message came; nothing is written.
    Arrived,
    /// A write is handed to the store; it may or may not be durable.
    Submitted,
    /// A write is durable; nothing that waits for it has happened.
    Written,
    /// A message is about to be acknowledged.
    BeforePuback,
    /// A message was acknowledged.
    AfterPuback,
    /// The executing row is durable; the effect has not begun.
    BeforeEffect,
    /// The effect has happened; the core has not heard of it.
    AfterEffect,
    /// The terminal row is handed to the store.
    TerminalSubmitted,
    /// The terminal row and its status are durable; nothing is sent.
    TerminalWritten,
    /// The rebooting row is durable; the host has not been asked to go down.
    BeforeReboot,
    /// The host was asked to go down.
    AfterReboot,
    /// After a start, an interrupted effect is about to be looked at.
    BeforeVerify,
    /// A status is about to be published.
    BeforeStatus,
    /// A status was published and acknowledged; its outbox row is still there.
    AfterStatus,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Arrived,
        Self::Submitted,
        Self::Written,
        Self::BeforePuback,
        Self::AfterPuback,
        Self::BeforeEffect,
        Self::AfterEffect,
        Self::TerminalSubmitted,
        Self::TerminalWritten,
        Self::BeforeReboot,
        Self::AfterReboot,
        Self::BeforeVerify,
        Self::BeforeStatus,
        Self::AfterStatus,
    ];

    /// The word for `R58_FAILPOINT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Submitted => "submitted",
            Self::Written => "written",
            Self::BeforePuback => "before_puback",
            Self::AfterPuback => "after_puback",
            Self::BeforeEffect => "before_effect",
            Self::AfterEffect => "after_effect",
            Self::TerminalSubmitted => "terminal_submitted",
            Self::TerminalWritten => "terminal_written",
            Self::BeforeReboot => "before_reboot",
            Self::AfterReboot => "after_reboot",
            Self::BeforeVerify => "before_verify",
            Self::BeforeStatus => "before_status",
            Self::AfterStatus => "after_status",
        }
    }
}

struct Armed {
    step: Step,
    passes_left: AtomicU32,
}

/// Ends the process by SIGKILL if `R58_FAILPOINT` names this step; does nothing else.
pub fn failpoint(step: Step) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let Some(armed) = ARMED.get_or_init(|| parse(&std::env::var("R58_FAILPOINT").ok()?)) else { return };
    if armed.step == step && armed.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        // The signal ends this thread before it gets anywhere; parking keeps it from doing anything meanwhile.
        loop {
            std::thread::park();
        }
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (word, passes) = text.split_once(':').unwrap_or((text, "1"));
    let step = Step::ALL.into_iter().find(|step| step.as_str() == word)?;
    Some(Armed { step, passes_left: AtomicU32::new(passes.parse().ok().filter(|passes| *passes > 0)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_word_and_nonsense_arms_nothing() {
        for step in Step::ALL {
            assert_eq!(parse(step.as_str()).unwrap().step, step);
        }
        assert_eq!(parse("written:3").unwrap().passes_left.load(Ordering::SeqCst), 3);
        assert!(parse("").is_none() && parse("written:0").is_none() && parse("nowhere").is_none());
        failpoint(Step::Arrived);
    }
}
