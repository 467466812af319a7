//! The crate's one error, and what to do about each kind of it.

use crate::id::IdError;
use crate::payload::PayloadError;
use crate::sign::{KeyError, VerifyError};
use crate::topic::TopicError;

/// What a caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Retry within the budget.
    Transient,
    /// Degrade and report; something that is needed is not there now.
    Unavailable,
    /// Tell the caller: this request will never be accepted as it is.
    Rejected,
    /// Stop this feature and say so once: an operator must change the configuration.
    Misconfigured,
    /// Quarantine the data and go on with fresh ones.
    Corrupt,
    /// A fault of ours.
    Bug,
}

/// Everything that can go wrong in this crate. Messages carry no secrets and no payloads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MqttError {
    /// A name that may not stand in a topic.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A topic outside of the tree.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A payload that cannot be read.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A command that may not be executed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A signing key that cannot be made, read or written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The durable store is held by another process.
    #[error("the state directory {path} is in use by another process")]
    StoreLocked {
        /// The directory.
        path: String,
    },
    /// The durable store cannot be opened, read or written.
    #[error("durable store: {0}")]
    Store(String),
    /// Data on disk do not make sense.
    #[error("durable store is corrupt: {0}")]
    StoreCorrupt(String),
    /// The outbox or the store is at its size limit and nothing may be dropped.
    #[error("durable store is full: {used} of {limit} bytes")]
    StoreFull {
        /// Bytes in use.
        used: u64,
        /// The configured limit in bytes.
        limit: u64,
    },
    /// The link to the broker failed; reconnecting may help.
    #[error("broker link: {0}")]
    Link(String),
    /// The broker refused the credentials or the client id.
    #[error("broker refused the connection: {0}")]
    Refused(String),
    /// The embedded broker could not be started.
    #[error("embedded broker: {0}")]
    Broker(String),
    /// A setting that cannot work.
    #[error("configuration: {0}")]
    Misconfigured(String),
    /// File access outside of the durable store.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The part that was asked has already stopped.
    #[error("{0} has stopped")]
    Stopped(&'static str),
    /// A fault of ours.
    #[error("internal: {0}")]
    Bug(String),
}

impl MqttError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Id(_) | Self::Topic(_) | Self::Payload(_) | Self::Verify(_) => ErrorKind::Rejected,
            Self::Key(_) | Self::StoreLocked { .. } | Self::Refused(_) => ErrorKind::Misconfigured,
            Self::Misconfigured(_) | Self::Broker(_) => ErrorKind::Misconfigured,
            Self::StoreCorrupt(_) => ErrorKind::Corrupt,
            Self::Store(_) | Self::StoreFull { .. } | Self::Stopped(_) => ErrorKind::Unavailable,
            Self::Link(_) | Self::Io { .. } => ErrorKind::Transient,
            Self::Bug(_) => ErrorKind::Bug,
        }
    }
}
