//! Failures of the database, sorted by what the caller can do about them.

use crate::fleet::ErrorKind;

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; reading still works, writing will once there is space.
    #[error("the disk is full")]
    DiskFull,
    /// Another process holds the database, or it is overloaded.
    #[error("the database is busy")]
    Busy,
    /// The database cannot be reached or opened.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database cannot be written to.
    #[error("the database is read-only")]
    ReadOnly,
    /// The thing exists already; names the unique column.
    #[error("{0} exists already")]
    Conflict(&'static str),
    /// A stored value cannot be read.
    #[error("stored {0} cannot be read")]
    Corrupt(&'static str),
    /// The URL is not understood.
    #[error("{0}")]
    Url(String),
    /// Anything else; a mistake of this program.
    #[error("{0}")]
    Bug(String),
}

impl StoreError {
    /// How this failure is to be handled.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy => ErrorKind::Transient,
            Self::DiskFull | Self::Unavailable(_) | Self::ReadOnly => ErrorKind::Unavailable,
            Self::Conflict(_) => ErrorKind::Rejected,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Url(_) => ErrorKind::Misconfigured,
            Self::Bug(_) => ErrorKind::Bug,
        }
    }

    /// Names what is there already, if that is what is wrong.
    pub(super) fn conflict(self, what: &'static str) -> Self {
        if matches!(self, Self::Conflict(_)) { Self::Conflict(what) } else { self }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &error {
            // SQLite result codes are "primary | extended << 8" (sqlite.org/rescode.html); PostgreSQL's are SQLSTATE.
            let code = database.code().unwrap_or_default();
            let primary = code.parse::<u32>().ok().filter(|_| code.len() != 5).map(|code| code & 0xff);
            return match (primary, code.as_ref()) {
                (Some(13), _) | (_, "53100") => Self::DiskFull,
                // Serialization, deadlock, lock or statement timeout, too many connections, out of memory.
                (Some(5 | 6), _) | (_, "40001" | "40P01" | "55P03" | "57014" | "53300" | "53200") => Self::Busy,
                (Some(8), _) | (_, "25006") => Self::ReadOnly,
                (Some(10 | 14), _) => Self::Unavailable(database.message().to_owned()),
                (Some(11 | 26), _) | (_, "XX001" | "XX002") => Self::Corrupt("database file"),
                // Connection, stopping or starting, input and output, who may, which database, idle for too long.
                (None, code)
                    if ["08", "57P", "58", "28", "3D", "25P03"].iter().any(|class| code.starts_with(class)) =>
                {
                    Self::Unavailable(database.message().to_owned())
                }
                _ if database.is_unique_violation() => Self::Conflict("entry"),
                _ => Self::Bug(database.message().to_owned()),
            };
        }
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            // A connection that ends in the middle of a message is a protocol error to the client.
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt("row"),
            other => Self::Bug(other.to_string()),
        }
    }
}
