//! Who leads among the servers of one database: a lease with a term, by the database's own clock.
//!
//! The leader has the duties of which one is enough: calling devices silent, publishing, withdrawing and expiring commands,
//! keeping the heartbeats' history. Each of them changes nothing when it is done twice, so the lease spares work rather than
//! keeps order; ingest, `down/sync` and the API are every server's own.
//!
//! [`Lease`] is the thinking: no clock, no database. It asks well before the lease ends, and stops leading *before* the
//! database would let another in: what it was granted counts from when it asked, not from when the answer came. A term
//! grows whenever the lease changes hands, and a duty looks at it in its own transaction ([`Store::fence`]), so that a server
//! that slept through the end of its lease writes nothing more.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::sql::{Engine, QueryBuilder, Tx, query, query_as};
use super::{Store, StoreError};

/// How long a lease lasts.
pub const LEASE: Duration = Duration::from_secs(6);
/// How long before the database lets another in its holder stops, for the clocks' difference in speed.
const MARGIN: Duration = Duration::from_secs(1);
/// How often it is asked for.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The lease's name.
const NAME: &str = "leader";

/// A term, and until when it is safe to act on it.
pub type Held = (i64, Instant);

/// What one server knows of the lease.
#[derive(Debug)]
pub struct Lease {
    held: Option<Held>,
    ask_at: Instant,
}

/// What the database said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is ours, for this term.
    Granted(i64),
    /// Another server has it.
    Refused,
    /// It said nothing.
    Failed,
}

impl Lease {
    /// Not held; to be asked for at once.
    pub fn new(now: Instant) -> Self {
        Self { held: None, ask_at: now }
    }

    /// When to ask or to stop, whichever comes first.
    pub fn poll_timeout(&self) -> Instant {
        self.held.map_or(self.ask_at, |(_, until)| until.min(self.ask_at))
    }

    /// Whether to ask now.
    pub fn must_ask(&self, now: Instant) -> bool {
        now >= self.ask_at
    }

    /// Takes the answer to what was asked at `asked`.
    pub fn handle(&mut self, now: Instant, asked: Instant, answer: Asked) {
        self.ask_at = now + ASK_EVERY;
        match answer {
            Asked::Granted(term) => self.held = Some((term, asked + LEASE - MARGIN)),
            Asked::Refused => self.held = None,
            // What was granted before still counts, for as long as it was granted.
            Asked::Failed => {}
        }
    }

    /// The term in which this server leads, and until when unless the lease is renewed.
    pub fn held(&self, now: Instant) -> Option<Held> {
        self.held.filter(|(_, until)| now < *until)
    }
}

/// What the store is told of it: nothing while nobody asked for a lease, as a store on its own leads.
#[derive(Debug, Default)]
pub(super) struct Leadership(RwLock<Option<Option<Held>>>);

/// How a store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has the database for itself.
    Alone,
    /// It leads in this term.
    Leads(i64),
    /// Another server leads, or none.
    Follows,
}

impl Leadership {
    fn standing(&self, now: Instant) -> Standing {
        match *self.0.read().unwrap_or_else(PoisonError::into_inner) {
            None => Standing::Alone,
            Some(Some((term, until))) if now < until => Standing::Leads(term),
            Some(_) => Standing::Follows,
        }
    }
}

impl Store {
    /// Tells the store whether this server leads. It stops by itself when the lease is over, whoever was to renew it.
    pub fn set_lease(&self, held: Option<Held>) {
        *self.leadership.0.write().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    /// Whether this server has the leader's duties. One that never asked for the lease has.
    pub fn leads(&self) -> bool {
        self.leadership.standing(Instant::now()) != Standing::Follows
    }

    /// Refuses a leader's transaction when another server leads by now.
    ///
    /// # Errors
    /// [`StoreError::Busy`] then; those of the database.
    pub(super) async fn fence(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let term = match self.leadership.standing(Instant::now()) {
            Standing::Alone => return Ok(()),
            Standing::Leads(term) => term,
            Standing::Follows => return Err(StoreError::Busy),
        };
        let held: Option<(i64,)> = query_as("SELECT term FROM leases WHERE name = $1 AND term = $2")
            .bind(NAME)
            .bind(term)
            .fetch_optional(&mut **tx)
            .await?;
        held.map(|_| ()).ok_or(StoreError::Busy)
    }

    /// Asks for the lease or renews it; the term if it is granted.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ask_to_lead(&self, holder: &str) -> Result<Option<i64>, StoreError> {
        let now = match self.writer.engine() {
            Engine::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS BIGINT)",
            Engine::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        };
        let life = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let mut ask = QueryBuilder::new("INSERT INTO leases (name, holder, term, expires_at) VALUES (");
        ask.push_bind(NAME).push(", ").push_bind(holder).push(", 1, ").push(now).push(" + ").push_bind(life);
        ask.push(") ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at, ");
        ask.push("term = CASE WHEN leases.holder = excluded.holder THEN leases.term ELSE leases.term + 1 END ");
        ask.push("WHERE leases.holder = excluded.holder OR leases.expires_at <= ").push(now).push(" RETURNING term");
        let row: Option<(i64,)> = ask.build_query_as().fetch_optional(&self.writer).await?;
        Ok(row.map(|(term,)| term))
    }

    /// Gives the lease up, so that nobody has to wait for its end.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn stop_leading(&self, holder: &str) -> Result<(), StoreError> {
        query("UPDATE leases SET expires_at = 0 WHERE name = $1 AND holder = $2")
            .bind(NAME)
            .bind(holder)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_stops_before_another_can_begin_and_a_database_that_is_away_ends_nothing_early() {
        let start = Instant::now();
        let mut lease = Lease::new(start);
        assert!(lease.must_ask(start) && lease.held(start).is_none());
        // The answer took a second: the lease counts from the question.
        let answered = start + Duration::from_secs(1);
        lease.handle(answered, start, Asked::Granted(7));
        assert_eq!(lease.held(answered).map(|held| held.0), Some(7));
        assert!(!lease.must_ask(answered) && lease.must_ask(answered + ASK_EVERY));
        lease.handle(start + Duration::from_secs(4), start + Duration::from_secs(3), Asked::Failed);
        assert_eq!(lease.held(start + Duration::from_millis(4_999)).map(|held| held.0), Some(7));
        assert_eq!(lease.poll_timeout(), start + LEASE - MARGIN);
        assert_eq!(lease.held(start + LEASE - MARGIN), None);
        lease.handle(start + LEASE, start + LEASE, Asked::Granted(8));
        lease.handle(start + LEASE, start + LEASE, Asked::Refused);
        assert_eq!(lease.held(start + LEASE), None);
    }

    #[test]
    fn a_lease_that_nobody_renews_ends_by_itself_and_a_store_without_one_leads() {
        let (now, leadership) = (Instant::now(), Leadership::default());
        assert_eq!(leadership.standing(now), Standing::Alone);
        for (held, standing) in [(None, Standing::Follows), (Some((3, now + LEASE)), Standing::Leads(3))] {
            *leadership.0.write().unwrap() = Some(held);
            assert_eq!(leadership.standing(now), standing);
        }
        assert_eq!(leadership.standing(now + LEASE), Standing::Follows);
    }
}
