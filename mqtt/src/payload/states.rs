//! The states of a command at both ends, which may follow which, and the words operators have always seen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a command stands on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// Verified and journalled.
    Received,
    /// Will be carried out.
    Accepted,
    /// Will not be carried out; the code says why. Terminal.
    Rejected,
    /// Waits: for its turn, its time, or the clock.
    Queued,
    /// The effect may have begun.
    Executing,
    /// The host is going down on this command's behalf.
    Rebooting,
    /// Up again, looking whether the effect took place.
    Verifying,
    /// Done. Terminal.
    Succeeded,
    /// Tried and failed. Terminal.
    Failed,
    /// The effect did not end in its time. Terminal.
    TimedOut,
    /// Withdrawn before it began. Terminal.
    Cancelled,
    /// Cut in the middle; the effect may or may not have happened, and is not tried again. Terminal.
    Interrupted,
}

impl DeviceState {
    /// All of them, in the order of a command's life.
    pub const ALL: [Self; 12] = [
        Self::Received,
        Self::Accepted,
        Self::Rejected,
        Self::Queued,
        Self::Executing,
        Self::Rebooting,
        Self::Verifying,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Interrupted,
    ];

    /// Nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Rejected | Self::Succeeded | Self::Failed | Self::TimedOut | Self::Cancelled | Self::Interrupted
        )
    }

    /// The effect may have begun.
    pub fn is_begun(self) -> bool {
        matches!(self, Self::Executing | Self::Rebooting | Self::Verifying)
    }

    /// Whether the device may move a command from `self` to `next`. Staying is allowed where there is news to tell:
    /// another reason to wait, progress, another attempt, a verification begun again.
    ///
    /// ```
    /// use r58_mqtt::payload::DeviceState::*;
    /// assert!(Executing.can_become(Rebooting));
    /// assert!(!Executing.can_become(Cancelled));
    /// assert!(!Succeeded.can_become(Executing));
    /// ```
    pub fn can_become(self, next: Self) -> bool {
        use DeviceState as S;
        match self {
            S::Received => matches!(next, S::Accepted | S::Rejected | S::Queued | S::Cancelled),
            S::Accepted => matches!(next, S::Queued | S::Executing | S::Rejected | S::Cancelled),
            S::Queued => matches!(next, S::Queued | S::Executing | S::Rejected | S::Cancelled),
            S::Executing => matches!(
                next,
                S::Executing | S::Rebooting | S::Verifying | S::Succeeded | S::Failed | S::TimedOut | S::Interrupted
            ),
            S::Rebooting => matches!(next, S::Verifying | S::Failed | S::TimedOut | S::Interrupted),
            S::Verifying => {
                matches!(next, S::Verifying | S::Executing | S::Succeeded | S::Failed | S::TimedOut | S::Interrupted)
            }
            S::Rejected | S::Succeeded | S::Failed | S::TimedOut | S::Cancelled | S::Interrupted => false,
        }
    }

    /// The word in JSON and in a database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Queued => "queued",
            Self::Executing => "executing",
            Self::Rebooting => "rebooting",
            Self::Verifying => "verifying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// How far along: statuses that reach a server out of order never lead backwards in this.
    fn rank(self) -> u8 {
        match self {
            Self::Received => 0,
            Self::Accepted => 1,
            Self::Queued => 2,
            Self::Executing | Self::Rebooting | Self::Verifying => 3,
            _ => 4,
        }
    }
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a command state")]
pub struct UnknownState;

impl FromStr for DeviceState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownState)
    }
}

/// Where a command stands at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// Written down, not yet published.
    Draft,
    /// Retained on the broker, nothing heard yet.
    Published,
    /// What the device said last.
    Device(DeviceState),
    /// Its time passed without a terminal status.
    Expired,
    /// Replaced by a later command before it began.
    Superseded,
    /// Terminal and withdrawn from the broker.
    Closed,
}

impl ServerState {
    /// Nothing more is expected from the device.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Draft | Self::Published => false,
            Self::Device(state) => state.is_terminal(),
            Self::Expired | Self::Superseded | Self::Closed => true,
        }
    }

    /// Whether the server may move a command from `self` to `next`. Statuses may be skipped on the way, since each tells
    /// the whole state; a late terminal status overrides the server's own guess (expired, superseded).
    pub fn can_become(self, next: Self) -> bool {
        use ServerState as S;
        match (self, next) {
            (S::Closed, _) | (_, S::Draft) => false,
            (S::Draft, _) => matches!(next, S::Published | S::Expired | S::Device(DeviceState::Cancelled)),
            (_, S::Published) => false,
            (S::Published, _) => !matches!(next, S::Closed),
            (S::Device(from), S::Device(to)) => {
                !from.is_terminal() && (to.rank() > from.rank() || from.can_become(to) || from == to)
            }
            (S::Device(from), S::Closed) => from.is_terminal(),
            (S::Device(from), S::Expired | S::Superseded) => !from.is_terminal(),
            (S::Expired | S::Superseded, S::Closed) => true,
            (S::Expired | S::Superseded, S::Device(to)) => to.is_terminal(),
            (S::Expired | S::Superseded, _) => false,
        }
    }

    /// The word in JSON and in a database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Device(state) => state.as_str(),
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Closed => "closed",
        }
    }

    /// The word operators know. A rejected command whose code is `expired` reads as expired; a closed one needs the
    /// state it was closed in, so ask before closing.
    ///
    /// ```
    /// use r58_mqtt::payload::{DeviceState, LegacyStatus, ServerState};
    /// assert_eq!(ServerState::Device(DeviceState::Queued).legacy(None), LegacyStatus::Acked);
    /// assert_eq!(ServerState::Device(DeviceState::Rejected).legacy(Some("expired")), LegacyStatus::Expired);
    /// ```
    pub fn legacy(self, code: Option<&str>) -> LegacyStatus {
        use DeviceState as D;
        match self {
            Self::Draft => LegacyStatus::Pending,
            Self::Published => LegacyStatus::Sent,
            Self::Expired => LegacyStatus::Expired,
            Self::Superseded => LegacyStatus::Cancelled,
            Self::Closed => LegacyStatus::Completed,
            Self::Device(D::Received | D::Accepted | D::Queued) => LegacyStatus::Acked,
            Self::Device(D::Executing | D::Rebooting | D::Verifying) => LegacyStatus::Running,
            Self::Device(D::Succeeded) => LegacyStatus::Completed,
            Self::Device(D::Cancelled) => LegacyStatus::Cancelled,
            Self::Device(D::Rejected) if code == Some("expired") => LegacyStatus::Expired,
            Self::Device(D::Rejected | D::Failed | D::TimedOut | D::Interrupted) => LegacyStatus::Failed,
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ServerState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Ok(match text {
            "draft" => Self::Draft,
            "published" => Self::Published,
            "expired" => Self::Expired,
            "superseded" => Self::Superseded,
            "closed" => Self::Closed,
            other => Self::Device(other.parse()?),
        })
    }
}

impl Serialize for ServerState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ServerState {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The words of the REST interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LegacyStatus {
    /// Not yet published.
    Pending,
    /// Published.
    Sent,
    /// The device has it.
    Acked,
    /// The effect has begun.
    Running,
    /// Done.
    Completed,
    /// Rejected, failed, timed out or interrupted.
    Failed,
    /// Withdrawn or superseded.
    Cancelled,
    /// Its time passed.
    Expired,
}

impl LegacyStatus {
    /// The state that a device means which only knows these words; `None` for those that are the server's to say. The other
    /// way round is [`ServerState::legacy`].
    ///
    /// ```
    /// use r58_mqtt::payload::{DeviceState, LegacyStatus};
    /// assert_eq!(LegacyStatus::Completed.device_state(), Some(DeviceState::Succeeded));
    /// assert_eq!(LegacyStatus::Expired.device_state(), None);
    /// ```
    pub fn device_state(self) -> Option<DeviceState> {
        match self {
            Self::Acked => Some(DeviceState::Accepted),
            Self::Running => Some(DeviceState::Executing),
            Self::Completed => Some(DeviceState::Succeeded),
            Self::Failed => Some(DeviceState::Failed),
            Self::Cancelled => Some(DeviceState::Cancelled),
            Self::Pending | Self::Sent | Self::Expired => None,
        }
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Acked => "acked",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for LegacyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_have_no_successor_and_all_others_reach_one() {
        for from in DeviceState::ALL {
            let next: Vec<_> = DeviceState::ALL.into_iter().filter(|to| from.can_become(*to)).collect();
            assert_eq!(next.is_empty(), from.is_terminal(), "{from}");
            assert!(from.is_terminal() || next.iter().any(|to| to.is_terminal()), "{from} is a dead end");
        }
    }

    #[test]
    fn nothing_that_has_begun_can_be_cancelled() {
        for from in DeviceState::ALL.into_iter().filter(|state| state.is_begun()) {
            assert!(!from.can_become(DeviceState::Cancelled));
        }
    }

    #[test]
    fn the_server_accepts_whatever_the_device_may_do_and_never_leaves_a_device_terminal_state_but_to_close() {
        for from in DeviceState::ALL {
            for to in DeviceState::ALL {
                let server = ServerState::Device(from).can_become(ServerState::Device(to));
                assert!(server || !from.can_become(to), "{from} to {to}");
                assert!(!(server && from.is_terminal()), "{from} to {to}");
            }
            assert_eq!(ServerState::Device(from).can_become(ServerState::Closed), from.is_terminal());
        }
    }

    #[test]
    fn what_an_older_device_says_reads_back_in_its_own_words() {
        use LegacyStatus as L;
        for word in [L::Pending, L::Sent, L::Acked, L::Running, L::Completed, L::Failed, L::Cancelled, L::Expired] {
            let back = word.device_state().map(|state| ServerState::Device(state).legacy(None));
            assert!(back.is_none_or(|back| back == word), "{word}: {back:?}");
        }
    }

    #[test]
    fn every_state_reads_back_from_its_word() {
        for state in DeviceState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(state.as_str().parse(), Ok(ServerState::Device(state)));
        }
        assert!("done".parse::<ServerState>().is_err());
    }
}
