//! A command as it is answered.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use r58_mqtt::payload::ServerState;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{MAX_ATTEMPTS, Preconditions};
use crate::fleet::difference::mask;
use crate::fleet::store::{CommandRow, HistoryRow, instant};

/// One step of a command's life.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    state: String,
    ts: DateTime<Utc>,
    reason: Option<String>,
}

/// A command.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Command)]
pub struct CommandAnswer {
    pub(super) id: String,
    /// Number within the device's commands; 0 for one that was published past the server.
    seq: i64,
    device_id: String,
    #[serde(rename = "type")]
    kind: String,
    #[schema(value_type = Object)]
    payload: Value,
    priority: i64,
    /// draft, published, received, accepted, queued, executing, rebooting, verifying, succeeded, failed, rejected,
    /// timed_out, cancelled, interrupted, expired or superseded.
    state: String,
    /// The same in the older words: pending, sent, acked, running, completed, failed, cancelled or expired.
    status: String,
    /// Attempts begun; of a device that speaks HTTP, how often it was given the command.
    attempts: i64,
    /// At most.
    max_attempts: u32,
    /// 0 to 1.
    progress: Option<f64>,
    code: Option<String>,
    reason: Option<String>,
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
    notes: Option<String>,
    /// What must hold before it begins.
    preconditions: Option<Preconditions>,
    /// The group that it was made in.
    group_id: Option<String>,
    /// Cancelling was asked for; the device has the last word.
    cancel_requested: bool,
    created_at: DateTime<Utc>,
    /// When the broker took it.
    published_at: Option<DateTime<Utc>>,
    not_before: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    created_by: String,
    history: Vec<Step>,
    /// Of a draft: where to publish it, retained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    /// Of a draft: what to publish, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
}

impl CommandAnswer {
    /// A stored command with its steps, for people: without the passwords that addresses in its arguments may hold.
    pub fn new(row: CommandRow, history: Vec<HistoryRow>) -> Self {
        let mut answer = Self::with_steps(row, history);
        mask(&mut answer.payload);
        answer
    }

    /// Its id.
    pub(in crate::fleet) fn id(&self) -> &str {
        &self.id
    }

    /// A stored command for the device that is to do it.
    pub fn whole(row: CommandRow) -> Self {
        Self::with_steps(row, Vec::new())
    }

    fn with_steps(row: CommandRow, history: Vec<HistoryRow>) -> Self {
        let status = ServerState::from_str(&row.state).map(|state| state.legacy(row.code.as_deref()).as_str());
        Self {
            status: status.unwrap_or("failed").to_owned(),
            payload: serde_json::from_str(&row.payload).unwrap_or(Value::Null),
            preconditions: row.precond.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            group_id: row.group_id,
            result: row.result.as_deref().and_then(|result| serde_json::from_str(result).ok()),
            created_at: instant(row.created_at),
            published_at: row.published_at.map(instant),
            not_before: row.not_before.map(instant),
            expires_at: instant(row.expires_at),
            finished_at: row.finished_at.map(instant),
            history: history
                .into_iter()
                .map(|step| Step { state: step.state, ts: instant(step.ts), reason: step.reason })
                .collect(),
            id: row.id,
            seq: row.seq,
            device_id: row.device_id,
            kind: row.kind,
            priority: row.priority,
            state: row.state,
            attempts: row.attempts,
            max_attempts: MAX_ATTEMPTS,
            progress: row.progress,
            code: row.code,
            reason: row.reason,
            notes: row.notes,
            cancel_requested: row.cancel_requested,
            created_by: row.created_by,
            topic: None,
            message: None,
        }
    }
}
