//! Who changed what: one row for each change, written in the change's own transaction.

use super::StoreError;
use super::sql::{Tx, query, query_as};

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

pub(super) async fn record(
    tx: &mut Tx,
    actor: &Actor,
    action: &'static str,
    target: &str,
    detail: Option<String>,
    now: i64,
) -> Result<(), StoreError> {
    let (n,): (i64,) = query_as("UPDATE counters SET value = value + 1 WHERE name = 'audit' RETURNING value")
        .fetch_one(&mut **tx)
        .await?;
    query("INSERT INTO audit_log (n, org, at, actor, action, target, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(n)
        .bind(&actor.org)
        .bind(now)
        .bind(&actor.name)
        .bind(action)
        .bind(target)
        .bind(detail)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
