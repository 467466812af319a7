//! What servers of one database tell each other: PostgreSQL's LISTEN and NOTIFY. With SQLite there is nobody to tell.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::sql::Pool;
use super::{Store, StoreError};

/// Name of the channel; each database has its own.
const CHANNEL: &str = "r58_news";
/// Longest text of one notification, in bytes (PostgreSQL: less than 8,000).
pub const LONGEST: usize = 7_900;
/// Pause before listening is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// What came from the other servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A text that one of them sent, this one included.
    Text(String),
    /// Listening begins, or begins again: texts may have been missed.
    Missed,
}

/// Listens to the other servers.
pub struct Ear {
    pool: sqlx::Pool<sqlx::Postgres>,
    listener: Option<PgListener>,
}

impl Ear {
    /// Waits for news; tries for as long as the database is away.
    pub async fn next(&mut self) -> News {
        loop {
            let Some(listener) = &mut self.listener else {
                match self.listen().await {
                    Ok(listener) => {
                        self.listener = Some(listener);
                        return News::Missed;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "other servers cannot be listened to");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                }
            };
            match listener.try_recv().await {
                Ok(Some(notification)) => return News::Text(notification.payload().to_owned()),
                Ok(None) | Err(_) => self.listener = None,
            }
        }
    }

    async fn listen(&self) -> Result<PgListener, sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}

impl Store {
    /// Hears what other servers of this database say; `None` where there can be none.
    pub fn ear(&self) -> Option<Ear> {
        match &self.reader {
            Pool::Sqlite(_) => None,
            Pool::Postgres(pool) => Some(Ear { pool: pool.clone(), listener: None }),
        }
    }

    /// Tells the other servers, and this one, a text of at most [`LONGEST`] bytes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn announce(&self, text: &str) -> Result<(), StoreError> {
        if let Pool::Postgres(pool) = &self.writer {
            sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text).execute(pool).await?;
        }
        Ok(())
    }
}
