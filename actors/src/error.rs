//! The crate's error and what to do about it.

use crate::supervision::DoorError;

/// What the receiver of an error should do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again within the budget.
    Transient,
    /// The part is down: degrade and report.
    Unavailable,
    /// The caller asked for something that cannot be: tell the caller.
    Rejected,
    /// The configuration is wrong: stop that feature, say it once.
    Misconfigured,
    /// Stored data is damaged: quarantine it and go on.
    Corrupt,
    /// Our own mistake: a backtrace and a hard restart.
    Bug,
}

/// Everything that an actor of this crate can answer in place of a result.
#[derive(Debug, thiserror::Error)]
pub enum ActorsError {
    /// The message did not reach its actor, or the actor died on it.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The named thing does not exist.
    #[error("no {what} named {name:?}")]
    Unknown {
        /// What was looked for, e.g. `scene`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// The request cannot be granted as it stands.
    #[error("{0}")]
    Rejected(String),
    /// The part that should do it is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// The configuration does not allow it.
    #[error("{0}")]
    Misconfigured(String),
}

impl ActorsError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Door(door) => door.kind(),
            Self::Unknown { .. } | Self::Rejected(_) => ErrorKind::Rejected,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Misconfigured(_) => ErrorKind::Misconfigured,
        }
    }

    /// The HTTP status that says the same (RFC 9110, section 15).
    pub fn status(&self) -> u16 {
        match self {
            Self::Door(door) => door.status(),
            Self::Unknown { .. } => 404,
            Self::Rejected(_) => 409,
            Self::Unavailable(_) => 503,
            Self::Misconfigured(_) => 422,
        }
    }
}
