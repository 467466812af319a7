//! Telemetry in batches: `up/tm/{stream}`.
//!
//! The server stores each seq of a stream once (items may come again, and after later ones) and acknowledges the
//! contiguous prefix in `down/sync`. `first_available` above that closes the gap: what lies between was dropped and will
//! never come.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Extra, MAX_PAYLOAD_BYTES, payload};
use crate::id::Name;

/// The body of `up/tm/{stream}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The stream, as in the topic.
    pub stream: Name,
    /// Which start of the process sent it.
    pub boot_seq: u64,
    /// The lowest seq that the device still holds for this stream; all below are gone or acknowledged.
    pub first_available: u64,
    /// In ascending order of seq, without repetition; gaps inside a batch were dropped to stay within the outbox's size.
    pub items: Vec<BatchItem>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Batch, "telemetry batch", MAX_PAYLOAD_BYTES);

/// One measured thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchItem {
    /// Number within the stream; only grows.
    pub seq: u64,
    /// When it was measured; null when the device's clock was not set.
    #[serde(default)]
    pub ts: Option<DateTime<Utc>>,
    /// The measurement; for stream `hb` a heartbeat.
    pub data: Value,
}

impl Batch {
    /// What a server that holds everything up to `have` may acknowledge after storing this batch.
    ///
    /// ```
    /// use r58_mqtt::payload::{Batch, Payload};
    /// let batch = Batch::parse(br#"{"stream":"hb","boot_seq":1,"first_available":5,
    ///     "items":[{"seq":5,"data":{}},{"seq":6,"data":{}},{"seq":8,"data":{}}]}"#).unwrap();
    /// assert_eq!(batch.contiguous_after(2), 6); // 3 and 4 are gone for good, 7 may still come
    /// assert_eq!(batch.contiguous_after(7), 8);
    /// ```
    pub fn contiguous_after(&self, have: u64) -> u64 {
        let mut top = have.max(self.first_available.saturating_sub(1));
        for item in &self.items {
            if item.seq == top.saturating_add(1) {
                top = item.seq;
            }
        }
        top
    }
}
