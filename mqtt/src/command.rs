//! Commands on the device: each effect happens once or is reported as interrupted, and every command ends.
//!
//! [`Core`] is the thinking part, without clock, IO or tokio. Its shell hands in what happened ([`Input`]) and carries
//! out, in order, what comes out ([`Output`]). The contract between the two:
//!
//! 1. [`Output::Write`] is one transaction: rows, removals, meta data and the outbox rows of its statuses
//!    (`journal::stage`). Writes are submitted in order; once durable, [`Input::Written`] comes back. PUBACKs and effects
//!    wait for their write inside the core, so the shell never has to order anything.
//! 2. [`Output::Execute`] begins an effect; its end comes back as [`Input::EffectFinished`], with the same attempt.
//!    An operation that takes the host down says [`Input::EffectRebooting`] first and waits for [`Output::Proceed`].
//! 3. What the shell can judge by a command's arguments it says with the message, as an [`Objection`]: such a command is
//!    rejected before anything begins.
//! 4. After every input the shell drains the outputs, then arms one timer for `poll_timeout`.
//! 5. A failed write means the journal cannot be trusted: the shell stops the core and starts a new one from disk.
//!
//! How the dedupe rules map to the code: manual acks (`ack_when_durable`), known ids (`on_known`), the
//! executing row before the effect (`begin`), terminal state and status in one write (`end`), starting over
//! (`core/start.rs`), tombstones and floor (`purge`, `on_sync`), the crash-loop breaker (`breaker_open`),
//! the clock (`clock.rs`) and withdrawal (`on_withdrawn`).

mod clock;
mod core;
mod failpoint;
mod seam;

pub use self::core::{Core, CoreConfig, OpSpec};
pub use failpoint::{Step, failpoint};
pub use seam::{
    EffectOutcome, Input, MAX_REASON_CHARS, Meta, Objection, Output, PacketRef, Row, Verification, Write, WriteId,
};

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
