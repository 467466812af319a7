//! Whether a device is there: `up/presence`, retained, and the will.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Extra, MAX_SMALL_BYTES, payload};

/// Online or offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    /// Connected.
    Online,
    /// Gone, by a clean stop or by the will.
    Offline,
}

/// Which connection a presence message speaks of: boots of the device, then connections within a boot. Compared in that
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ConnectionOrder {
    /// Grows by at least one at every start of the device's process.
    pub boot_seq: u64,
    /// Grows by one at every connection within a boot.
    pub conn_seq: u64,
}

/// The body of `up/presence`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Online or offline.
    pub state: PresenceState,
    /// Why offline: `lwt`, `stopped`, `rebooting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which connection this speaks of.
    #[serde(flatten)]
    pub order: ConnectionOrder,
    /// The kernel's boot id, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The device's software version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The device's wall clock; absent when it is not set, and in the will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<DateTime<Utc>>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Presence, "presence", MAX_SMALL_BYTES);

impl Presence {
    /// A birth message.
    pub fn online(order: ConnectionOrder) -> Self {
        Self::new(PresenceState::Online, None, order)
    }

    /// A clean stop (`reason` says why).
    pub fn offline(order: ConnectionOrder, reason: &str) -> Self {
        Self::new(PresenceState::Offline, Some(reason.to_owned()), order)
    }

    /// The will the broker publishes when this connection is lost.
    pub fn will(order: ConnectionOrder) -> Self {
        Self::offline(order, "lwt")
    }

    fn new(state: PresenceState, reason: Option<String>, order: ConnectionOrder) -> Self {
        Self { state, reason, order, boot_id: None, version: None, ts: None, extra: Extra::new() }
    }

    /// Whether this message tells something newer than what a consumer already holds.
    ///
    /// Shared subscriptions and wills come in any order. A message of an older connection is never news; for the same
    /// connection offline ends it, and online cannot come after its own end.
    ///
    /// ```
    /// use r58_mqtt::payload::{ConnectionOrder, Presence, PresenceState::*};
    /// let at = |boot_seq, conn_seq| ConnectionOrder { boot_seq, conn_seq };
    /// let old_will = Presence::will(at(3, 1));
    /// assert!(!old_will.is_news(Some((Online, at(3, 2)))));
    /// assert!(old_will.is_news(Some((Online, at(3, 1)))));
    /// assert!(!Presence::online(at(3, 1)).is_news(Some((Offline, at(3, 1)))));
    /// ```
    pub fn is_news(&self, held: Option<(PresenceState, ConnectionOrder)>) -> bool {
        let Some((state, order)) = held else { return true };
        if self.order != order {
            return self.order > order;
        }
        self.state == PresenceState::Offline || state == PresenceState::Online
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_delivery_order_ends_in_the_same_presence(
            seed in proptest::collection::vec((1..3u64, 1..4u64, any::<bool>()), 1..12),
            swaps in proptest::collection::vec((0..12usize, 0..12usize), 0..20),
        ) {
            let fold = |messages: &[Presence]| {
                messages.iter().fold(None, |held, message| {
                    if message.is_news(held) { Some((message.state, message.order)) } else { held }
                })
            };
            let messages: Vec<Presence> = seed
                .into_iter()
                .map(|(boot_seq, conn_seq, online)| {
                    let order = ConnectionOrder { boot_seq, conn_seq };
                    if online { Presence::online(order) } else { Presence::will(order) }
                })
                .collect();
            let mut shuffled = messages.clone();
            for (a, b) in swaps {
                let len = shuffled.len();
                shuffled.swap(a % len, b % len);
            }
            prop_assert_eq!(fold(&messages), fold(&shuffled));
        }
    }
}
