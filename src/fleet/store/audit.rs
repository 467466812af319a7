//! Who changed what: one row for each change, written in the change's own transaction, chained to the one before it in the
//! same organization (see [`crate::audit`]).

use chrono::{DateTime, Utc};

use super::sql::{QueryBuilder, Tx, query, query_as};
use super::{Store, StoreError, millis};
use crate::audit::{Change, Checkpoint, Hash};

/// Rows that are read or moved at once.
const LOT: i64 = 500;

/// Who acts, and in which organization.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Organization that the change belongs to.
    pub org: String,
    /// `user:{email}`, `device:{id}` or `server`.
    pub name: String,
}

impl Actor {
    /// The server itself, in `org`.
    pub fn server(org: &str) -> Self {
        Self { org: org.to_owned(), name: "server".into() }
    }
}

/// Which changes.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// By this actor.
    pub actor: Option<String>,
    /// Of this kind.
    pub action: Option<String>,
    /// To this.
    pub target: Option<String>,
    /// From then on.
    pub since: Option<DateTime<Utc>>,
    /// Before then.
    pub until: Option<DateTime<Utc>>,
}

#[derive(Debug, sqlx::FromRow)]
struct ChangeRow {
    seq: i64,
    at: i64,
    actor: String,
    action: String,
    target: String,
    detail: Option<String>,
    hash: String,
}

impl TryFrom<ChangeRow> for Change {
    type Error = StoreError;

    fn try_from(row: ChangeRow) -> Result<Self, StoreError> {
        Ok(Self {
            seq: number(row.seq)?,
            at_ms: row.at,
            actor: row.actor,
            action: row.action,
            target: row.target,
            detail: row.detail,
            hash: hash(&row.hash)?,
        })
    }
}

fn number(seq: i64) -> Result<u64, StoreError> {
    u64::try_from(seq).map_err(|_| StoreError::Corrupt("number of a change"))
}

fn hash(text: &str) -> Result<Hash, StoreError> {
    Hash::from_hex(text).ok_or(StoreError::Corrupt("hash of a change"))
}

/// A number as the tables hold it; one that they cannot hold is beyond every row.
fn stored(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Notes a change. Others who note one in the same organization wait until the transaction ends.
pub(super) async fn record(
    tx: &mut Tx,
    actor: &Actor,
    action: &str,
    target: &str,
    detail: Option<String>,
    now: i64,
) -> Result<(), StoreError> {
    // As the tables keep texts, because of what the hash is over.
    let kept = |text: &str| text.replace('\0', "\u{fffd}");
    let org = kept(&actor.org);
    let (seq, before) = next(tx, &org).await?;
    let mut change = Change {
        seq: number(seq)?,
        at_ms: now,
        actor: kept(&actor.name),
        action: action.to_owned(),
        target: kept(target),
        detail: detail.as_deref().map(kept),
        hash: Hash::default(),
    };
    change.hash = change.hash_after(&org, hash(&before)?);
    let hash = change.hash.to_string();
    query(
        "INSERT INTO audit_log (org, seq, at, actor, action, target, detail, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(org.as_str())
    .bind(seq)
    .bind(now)
    .bind(change.actor)
    .bind(change.action)
    .bind(change.target)
    .bind(change.detail)
    .bind(hash.as_str())
    .execute(&mut **tx)
    .await?;
    query("UPDATE audit_heads SET hash = $2 WHERE org = $1").bind(org).bind(hash).execute(&mut **tx).await?;
    tx.changed(&actor.org, action.split('.').next().unwrap_or_default());
    Ok(())
}

/// The number of the next change and the hash of the last one; nobody else gets them until the transaction ends.
async fn next(tx: &mut Tx, org: &str) -> Result<(i64, String), StoreError> {
    let sql = "UPDATE audit_heads SET seq = seq + 1 WHERE org = $1 RETURNING seq, hash";
    if let Some(found) = query_as(sql).bind(org).fetch_optional(&mut **tx).await? {
        return Ok(found);
    }
    query("INSERT INTO audit_heads (org, seq, hash, signed_seq) VALUES ($1, 0, $2, 0) ON CONFLICT (org) DO NOTHING")
        .bind(org)
        .bind(Hash::default().to_string())
        .execute(&mut **tx)
        .await?;
    Ok(query_as(sql).bind(org).fetch_one(&mut **tx).await?)
}

impl Store {
    /// Notes what was done without a change here, such as what a box was asked to change.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_act(
        &self,
        actor: &Actor,
        action: &'static str,
        target: &str,
        detail: Option<String>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        record(&mut tx, actor, action, target, detail, millis(now)).await?;
        Ok(tx.commit().await?)
    }

    /// Takes changes that are older than the chains into them, in their order; once in a database's life.
    pub(super) async fn chain_older_changes(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if let Some(connection) = tx.postgres() {
            // It takes as long as it takes, also for another server that waits for it.
            sqlx::query("SET LOCAL lock_timeout = 0").execute(&mut *connection).await?;
            sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *connection).await?;
        }
        tx.alone("audit", "chain").await?;
        let (mut upto, mut moved) = (i64::MIN, 0);
        loop {
            type Old = (i64, String, i64, String, String, String, Option<String>);
            let rows: Vec<Old> = query_as(
                "SELECT n, org, at, actor, action, target, detail FROM audit_log_unchained WHERE n > $1 ORDER BY n LIMIT $2",
            )
            .bind(upto)
            .bind(LOT)
            .fetch_all(&mut *tx)
            .await?;
            let Some(last) = rows.last() else { break };
            upto = last.0;
            moved += rows.len();
            for (_, org, at, name, action, target, detail) in rows {
                record(&mut tx, &Actor { org, name }, &action, &target, detail, at).await?;
            }
        }
        if moved > 0 {
            query("DELETE FROM audit_log_unchained").execute(&mut *tx).await?;
            tracing::info!(moved, "earlier changes were taken into the audit log's chains");
        }
        Ok(tx.commit().await?)
    }

    /// An organization's changes, newest first, from before number `before` on.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn changes(
        &self,
        org: &str,
        filter: &AuditFilter,
        before: Option<u64>,
        limit: i64,
    ) -> Result<Vec<Change>, StoreError> {
        let mut sql =
            QueryBuilder::new("SELECT seq, at, actor, action, target, detail, hash FROM audit_log WHERE org = ");
        sql.push_bind(org);
        for (column, text) in [("actor", &filter.actor), ("action", &filter.action), ("target", &filter.target)] {
            if let Some(text) = text {
                sql.push(format_args!(" AND {column} = ")).push_bind(text.as_str());
            }
        }
        if let Some(since) = filter.since {
            sql.push(" AND at >= ").push_bind(millis(since));
        }
        if let Some(until) = filter.until {
            sql.push(" AND at < ").push_bind(millis(until));
        }
        if let Some(before) = before {
            sql.push(" AND seq < ").push_bind(stored(before));
        }
        sql.push(" ORDER BY seq DESC LIMIT ").push_bind(limit);
        let rows: Vec<ChangeRow> = sql.build_query_as().fetch_all(&self.reader).await?;
        rows.into_iter().map(Change::try_from).collect()
    }

    /// The next changes of an organization after `after` up to `upto`, in order; some, and none when there are no more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn chain(&self, org: &str, after: u64, upto: u64) -> Result<Vec<Change>, StoreError> {
        let rows: Vec<ChangeRow> = query_as(
            "SELECT seq, at, actor, action, target, detail, hash FROM audit_log \
             WHERE org = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4",
        )
        .bind(org)
        .bind(stored(after))
        .bind(stored(upto))
        .bind(LOT)
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(Change::try_from).collect()
    }

    /// The last change of an organization and its hash; 0 before the first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn chain_head(&self, org: &str) -> Result<(u64, Hash), StoreError> {
        let row: Option<(i64, String)> =
            query_as("SELECT seq, hash FROM audit_heads WHERE org = $1").bind(org).fetch_optional(&self.reader).await?;
        row.map_or(Ok((0, Hash::default())), |(seq, text)| Ok((number(seq)?, hash(&text)?)))
    }

    /// Organizations whose head was not signed, with it, a few at a time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unsigned_heads(&self) -> Result<Vec<(String, u64, Hash)>, StoreError> {
        let rows: Vec<(String, i64, String)> =
            query_as("SELECT org, seq, hash FROM audit_heads WHERE seq > signed_seq ORDER BY org LIMIT $1")
                .bind(LOT)
                .fetch_all(&self.reader)
                .await?;
        rows.into_iter().map(|(org, seq, text)| Ok((org, number(seq)?, hash(&text)?))).collect()
    }

    /// Keeps a signed head. The first one of a number stays.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn keep_checkpoint(&self, point: &Checkpoint) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO audit_checkpoints (org, seq, hash, at, sig) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (org, seq) DO NOTHING",
        )
        .bind(point.org.as_str())
        .bind(stored(point.seq))
        .bind(point.hash.to_string())
        .bind(point.at_ms)
        .bind(point.sig.as_str())
        .execute(&mut *tx)
        .await?;
        query("UPDATE audit_heads SET signed_seq = $2 WHERE org = $1 AND signed_seq < $2")
            .bind(point.org.as_str())
            .bind(stored(point.seq))
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// The kept heads of an organization after change `after` up to `upto`, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn checkpoints(&self, org: &str, after: u64, upto: u64) -> Result<Vec<Checkpoint>, StoreError> {
        let rows: Vec<(i64, String, i64, String)> = query_as(
            "SELECT seq, hash, at, sig FROM audit_checkpoints WHERE org = $1 AND seq > $2 AND seq <= $3 ORDER BY seq",
        )
        .bind(org)
        .bind(stored(after))
        .bind(stored(upto))
        .fetch_all(&self.reader)
        .await?;
        let point = |(seq, text, at_ms, sig): (i64, String, i64, String)| {
            Ok(Checkpoint { org: org.to_owned(), seq: number(seq)?, hash: hash(&text)?, at_ms, sig })
        };
        rows.into_iter().map(point).collect()
    }
}
