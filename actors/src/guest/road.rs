//! The road that a guest's media take, in words for the crew. Pure.

use serde::{Deserialize, Serialize};

/// How a guest's media reach the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoadTaken {
    /// Straight, with or without address translation.
    Direct,
    /// Through a TURN server, at either end.
    Turn,
    /// Through an SFU that both ends connect to.
    Sfu,
}

impl RoadTaken {
    /// From what is known: whether the SFU stands between, and the path of the box's peer once it is connected.
    ///
    /// ```
    /// use r58_actors::guest::road::RoadTaken;
    /// assert_eq!(RoadTaken::of(false, None), None);
    /// assert_eq!(RoadTaken::of(false, Some("srflx")), Some(RoadTaken::Direct));
    /// assert_eq!(RoadTaken::of(false, Some("relay")), Some(RoadTaken::Turn));
    /// assert_eq!(RoadTaken::of(true, None), Some(RoadTaken::Sfu));
    /// ```
    pub fn of(pulled: bool, path: Option<&str>) -> Option<Self> {
        match path {
            _ if pulled => Some(Self::Sfu),
            Some("relay") => Some(Self::Turn),
            Some(_) => Some(Self::Direct),
            None => None,
        }
    }
}
