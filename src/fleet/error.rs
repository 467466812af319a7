//! What can go wrong in the fleet server, apart from what a caller of the API is told.

pub use r58_mqtt::ErrorKind;

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
