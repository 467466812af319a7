//! What can go wrong in the fleet server, apart from what a caller of the API is told.

/// How a failure is to be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again within a budget.
    Transient,
    /// The service is down for now; report it.
    Unavailable,
    /// The caller asked for something it cannot have.
    Rejected,
    /// The configuration is wrong; say it once.
    Misconfigured,
    /// Stored data is damaged.
    Corrupt,
    /// A mistake of this program.
    Bug,
}

/// A failure of the fleet server. Messages never hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// An address could not be listened on.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// The address asked for.
        addr: String,
        /// The system's reason.
        reason: String,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {path}: {reason}")]
    Path {
        /// The file or directory.
        path: String,
        /// The system's reason.
        reason: String,
    },
    /// A setting cannot be followed.
    #[error("{0}")]
    Misconfigured(String),
    /// The database refused.
    #[error("database: {0}")]
    Store(#[from] super::store::StoreError),
    /// The broker is out of reach or could not start.
    #[error("broker: {0}")]
    Broker(String),
    /// A mistake of this program.
    #[error("internal error: {0}")]
    Bug(String),
}

impl FleetError {
    /// How this failure is to be handled.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { .. } | Self::Path { .. } | Self::Misconfigured(_) => ErrorKind::Misconfigured,
            Self::Store(error) => error.kind(),
            Self::Broker(_) => ErrorKind::Unavailable,
            Self::Bug(_) => ErrorKind::Bug,
        }
    }
}
