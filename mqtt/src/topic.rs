//! The topic tree: every topic is made and read here, and nowhere else.
//!
//! ```text
//! r58/1/{org}/{dev}/up/presence | hb | tm/{stream} | evt/{kind} | caps | reported | cmd/{id} | sync | thumb/{name} | response/{server}
//! r58/1/{org}/{dev}/down/desired | cmd/{id} | sync | request
//! r58/1/{org}/_g/{group}/down/cmd/{id}
//! ```
//!
//! `up` is what a device may write and `down` what it may read, so a broker's ACL is two lines
//! (`pattern write r58/1/%u/%c/up/#`, `pattern read r58/1/%u/%c/down/#`).
//!
//! ```
//! use r58_mqtt::{topic::{Topic, Up}, DeviceAddress};
//!
//! let box7 = DeviceAddress::new("acme", "box7").unwrap();
//! let topic = Topic::up(&box7, Up::Presence);
//! assert_eq!(topic.to_string(), "r58/1/acme/box7/up/presence");
//! assert_eq!("r58/1/acme/box7/up/presence".parse::<Topic>().unwrap(), topic);
//! assert!("r58/1/acme/+/up/presence".parse::<Topic>().is_err());
//! ```

use std::fmt;
use std::str::FromStr;

use crate::id::{CommandId, DeviceAddress, DeviceId, IdError, Name, OrgId};

/// First two levels: the product and the protocol's major version.
pub const ROOT: &str = "r58/1";
/// The longest topic this tree can hold, in bytes: root, three names of 64 bytes and the fixed levels.
pub const MAX_TOPIC_BYTES: usize = 224;
/// The level that stands in place of a device for messages to a group.
const GROUP: &str = "_g";

/// Why a topic was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Longer than any topic of the tree.
    #[error("topic is {0} bytes long, the longest of this tree has {MAX_TOPIC_BYTES}")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("topic is not valid UTF-8")]
    NotUtf8,
    /// Another product, or another major version.
    #[error("topic does not begin with {ROOT}/")]
    Foreign,
    /// Right root, but not a place in the tree.
    #[error("topic is not part of the tree")]
    Unknown,
    /// A level that is not a valid name (wildcards end here).
    #[error("topic: {0}")]
    Level(#[from] IdError),
}

/// What a device says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Up {
    /// Retained, QoS 1; also the will.
    Presence,
    /// Live heartbeat, QoS 0.
    Heartbeat,
    /// A batch of one telemetry stream, QoS 1, through the outbox.
    Telemetry(Name),
    /// One event, QoS 1, through the outbox.
    Event(Name),
    /// Retained: operations, schema versions, limits.
    Caps,
    /// Retained: the state that was seen.
    Reported,
    /// The status of one command, QoS 1, through the outbox.
    CommandStatus(CommandId),
    /// Sent at every connect.
    Sync,
    /// A JPEG of at most 16 KiB, QoS 0.
    Thumbnail(Name),
    /// The answer to a [`Down::Request`] of one server, QoS 1.
    Response(Name),
}

/// What a device is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Down {
    /// Retained: the configuration that should be.
    Desired,
    /// Retained, QoS 1; an empty payload withdraws it.
    Command(CommandId),
    /// The server's answer to [`Up::Sync`], and cumulative acknowledgements.
    Sync,
    /// A signed request with a response topic, QoS 1, gone when nobody waits for its answer any more.
    Request,
}

/// One topic of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// From a device.
    Up(DeviceAddress, Up),
    /// To a device.
    Down(DeviceAddress, Down),
    /// A command to a group of devices of one organization; only the server clears it.
    GroupCommand {
        /// The organization.
        org: OrgId,
        /// The group.
        group: Name,
        /// The command.
        id: CommandId,
    },
}

impl Topic {
    /// A topic that `device` writes.
    pub fn up(device: &DeviceAddress, what: Up) -> Self {
        Self::Up(device.clone(), what)
    }

    /// A topic that `device` reads.
    pub fn down(device: &DeviceAddress, what: Down) -> Self {
        Self::Down(device.clone(), what)
    }

    /// Reads a topic name; never panics, whatever the bytes.
    ///
    /// ```
    /// use r58_mqtt::topic::{Topic, TopicError};
    /// assert_eq!(Topic::parse("r58/2/a/b/up/hb"), Err(TopicError::Foreign));
    /// assert_eq!(Topic::parse("r58/1/a/b/up/hb/x"), Err(TopicError::Unknown));
    /// assert!(matches!(Topic::parse("r58/1/a/#"), Err(TopicError::Unknown)));
    /// ```
    ///
    /// # Errors
    /// [`TopicError`] for anything that is not exactly one place in the tree.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        if text.len() > MAX_TOPIC_BYTES {
            return Err(TopicError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).ok_or(TopicError::Foreign)?;
        let mut levels = [""; 6];
        let mut count = 0;
        for level in rest.split('/') {
            *levels.get_mut(count).ok_or(TopicError::Unknown)? = level;
            count += 1;
        }
        match &levels[..count] {
            [org, GROUP, group, "down", "cmd", id] => {
                Ok(Self::GroupCommand { org: OrgId::new(org)?, group: Name::new(group)?, id: CommandId::new(id)? })
            }
            [org, device, "up", tail @ ..] => {
                let what = parse_up(tail)?;
                Ok(Self::Up(address(org, device)?, what))
            }
            [org, device, "down", tail @ ..] => {
                let what = parse_down(tail)?;
                Ok(Self::Down(address(org, device)?, what))
            }
            _ => Err(TopicError::Unknown),
        }
    }

    /// Reads a topic name from the wire.
    ///
    /// # Errors
    /// As [`Topic::parse`], and [`TopicError::NotUtf8`].
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, TopicError> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| TopicError::NotUtf8)?)
    }

    /// The device at the other end, if the topic names one.
    pub fn device(&self) -> Option<&DeviceAddress> {
        match self {
            Self::Up(device, _) | Self::Down(device, _) => Some(device),
            Self::GroupCommand { .. } => None,
        }
    }

    /// Whether messages on this topic are published with the retain flag.
    pub fn is_retained(&self) -> bool {
        match self {
            Self::Up(_, what) => matches!(what, Up::Presence | Up::Caps | Up::Reported),
            Self::Down(_, what) => matches!(what, Down::Desired | Down::Command(_)),
            Self::GroupCommand { .. } => true,
        }
    }

    /// The quality of service messages on this topic are published with: 0 or 1.
    pub fn qos(&self) -> u8 {
        match self {
            Self::Up(_, Up::Heartbeat | Up::Thumbnail(_)) => 0,
            _ => 1,
        }
    }
}

fn address(org: &str, device: &str) -> Result<DeviceAddress, TopicError> {
    Ok(DeviceAddress { org: OrgId::new(org)?, device: DeviceId::new(device)? })
}

fn parse_up(tail: &[&str]) -> Result<Up, TopicError> {
    Ok(match tail {
        ["presence"] => Up::Presence,
        ["hb"] => Up::Heartbeat,
        ["tm", stream] => Up::Telemetry(Name::new(stream)?),
        ["evt", kind] => Up::Event(Name::new(kind)?),
        ["caps"] => Up::Caps,
        ["reported"] => Up::Reported,
        ["cmd", id] => Up::CommandStatus(CommandId::new(id)?),
        ["sync"] => Up::Sync,
        ["thumb", name] => Up::Thumbnail(Name::new(name)?),
        ["response", server] => Up::Response(Name::new(server)?),
        _ => return Err(TopicError::Unknown),
    })
}

fn parse_down(tail: &[&str]) -> Result<Down, TopicError> {
    Ok(match tail {
        ["desired"] => Down::Desired,
        ["cmd", id] => Down::Command(CommandId::new(id)?),
        ["sync"] => Down::Sync,
        ["request"] => Down::Request,
        _ => return Err(TopicError::Unknown),
    })
}

impl fmt::Display for Up {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Presence => f.write_str("presence"),
            Self::Heartbeat => f.write_str("hb"),
            Self::Telemetry(stream) => write!(f, "tm/{stream}"),
            Self::Event(kind) => write!(f, "evt/{kind}"),
            Self::Caps => f.write_str("caps"),
            Self::Reported => f.write_str("reported"),
            Self::CommandStatus(id) => write!(f, "cmd/{id}"),
            Self::Sync => f.write_str("sync"),
            Self::Thumbnail(name) => write!(f, "thumb/{name}"),
            Self::Response(server) => write!(f, "response/{server}"),
        }
    }
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Desired => f.write_str("desired"),
            Self::Command(id) => write!(f, "cmd/{id}"),
            Self::Sync => f.write_str("sync"),
            Self::Request => f.write_str("request"),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(device, what) => write!(f, "{ROOT}/{device}/up/{what}"),
            Self::Down(device, what) => write!(f, "{ROOT}/{device}/down/{what}"),
            Self::GroupCommand { org, group, id } => write!(f, "{ROOT}/{org}/{GROUP}/{group}/down/cmd/{id}"),
        }
    }
}

impl FromStr for Up {
    type Err = TopicError;
    /// Reads the part of a topic after `up/`.
    fn from_str(text: &str) -> Result<Self, TopicError> {
        let levels: Vec<&str> = text.splitn(3, '/').collect();
        parse_up(&levels)
    }
}

impl FromStr for Topic {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

/// The filters a device subscribes to: everything addressed to it, and the commands of its groups.
///
/// Subscribe with Retain Handling 1, so that a retained command does not come a second time beside its queued copy.
///
/// ```
/// use r58_mqtt::{topic::device_filters, DeviceAddress};
/// let box7 = DeviceAddress::new("acme", "box7").unwrap();
/// assert_eq!(device_filters(&box7, &[]), ["r58/1/acme/box7/down/#"]);
/// ```
pub fn device_filters(device: &DeviceAddress, groups: &[Name]) -> Vec<String> {
    let own = format!("{ROOT}/{device}/down/#");
    let of_groups = groups.iter().map(|group| format!("{ROOT}/{}/{GROUP}/{group}/down/cmd/+", device.org));
    std::iter::once(own).chain(of_groups).collect()
}

/// The filter of one server for the answers to its requests.
///
/// ```
/// use r58_mqtt::{Name, topic::response_filter};
/// assert_eq!(response_filter(&Name::new("server1").unwrap()), "r58/1/+/+/up/response/server1");
/// ```
pub fn response_filter(server: &Name) -> String {
    format!("{ROOT}/+/+/up/{}", Up::Response(server.clone()))
}

/// What the server consumes, one filter each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerFilter {
    /// `up/presence`
    Presence,
    /// `up/hb`
    Heartbeat,
    /// `up/tm/+`
    Telemetry,
    /// `up/evt/+`
    Event,
    /// `up/caps`
    Caps,
    /// `up/reported`
    Reported,
    /// `up/cmd/+`
    CommandStatus,
    /// `up/sync`
    Sync,
    /// `up/thumb/+`
    Thumbnail,
}

impl ServerFilter {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Presence,
        Self::Heartbeat,
        Self::Telemetry,
        Self::Event,
        Self::Caps,
        Self::Reported,
        Self::CommandStatus,
        Self::Sync,
        Self::Thumbnail,
    ];

    fn tail(self) -> (&'static str, &'static str) {
        match self {
            Self::Presence => ("presence", "presence"),
            Self::Heartbeat => ("hb", "hb"),
            Self::Telemetry => ("tm", "tm/+"),
            Self::Event => ("evt", "evt/+"),
            Self::Caps => ("caps", "caps"),
            Self::Reported => ("reported", "reported"),
            Self::CommandStatus => ("cmd", "cmd/+"),
            Self::Sync => ("sync", "sync"),
            Self::Thumbnail => ("thumb", "thumb/+"),
        }
    }

    /// The filter for every device of every organization. A shared subscription delivers no retained messages, so a
    /// server that starts subscribes once to this form for presence, caps and reported.
    pub fn plain(self) -> String {
        format!("{ROOT}/+/+/up/{}", self.tail().1)
    }

    /// The same as a shared subscription. The group's name is different for every filter: brokers were measured to
    /// lose messages when two filters share one group.
    ///
    /// ```
    /// use r58_mqtt::topic::ServerFilter;
    /// assert_eq!(ServerFilter::Telemetry.shared("ingest"), "$share/ingest-tm/r58/1/+/+/up/tm/+");
    /// ```
    pub fn shared(self, group: &str) -> String {
        format!("$share/{group}-{}/{}", self.tail().0, self.plain())
    }

    /// Whether the messages behind this filter are retained.
    pub fn is_retained(self) -> bool {
        matches!(self, Self::Presence | Self::Caps | Self::Reported)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
    }

    fn any_topic() -> impl Strategy<Value = Topic> {
        (name(), name(), name(), 0..13usize).prop_map(|(org, device, last, which)| {
            let at = DeviceAddress::new(&org, &device).unwrap();
            let last_name = Name::new(&last).unwrap();
            let id = CommandId::new(&last).unwrap();
            match which {
                0 => Topic::up(&at, Up::Presence),
                1 => Topic::up(&at, Up::Heartbeat),
                2 => Topic::up(&at, Up::Telemetry(last_name)),
                3 => Topic::up(&at, Up::Event(last_name)),
                4 => Topic::up(&at, Up::Caps),
                5 => Topic::up(&at, Up::Reported),
                6 => Topic::up(&at, Up::CommandStatus(id)),
                7 => Topic::up(&at, Up::Sync),
                8 => Topic::up(&at, Up::Thumbnail(last_name)),
                9 => Topic::down(&at, Down::Desired),
                10 => Topic::down(&at, Down::Command(id)),
                11 => Topic::down(&at, Down::Sync),
                _ => Topic::GroupCommand { org: at.org, group: last_name, id },
            }
        })
    }

    proptest! {
        #[test]
        fn every_topic_reads_back_as_what_was_written(topic in any_topic()) {
            let text = topic.to_string();
            prop_assert!(text.len() <= MAX_TOPIC_BYTES);
            prop_assert_eq!(Topic::parse(&text), Ok(topic));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Topic::parse_bytes(&bytes);
        }

        #[test]
        fn a_topic_that_parses_is_written_back_unchanged(tail in "(r58/1/)?[a-z_+#/$]{0,40}") {
            if let Ok(topic) = Topic::parse(&tail) {
                prop_assert_eq!(topic.to_string(), tail);
            }
        }
    }

    #[test]
    fn wildcards_empty_levels_and_strangers_are_refused() {
        for bad in [
            "",
            "/",
            "r58",
            "r58/1",
            "r58/1/",
            "r58/1/a",
            "r58/1/a/b",
            "r58/1/a/b/up",
            "r58/1/a/b/up/",
            "r58/1//b/up/hb",
            "r58/1/a/+/up/hb",
            "r58/1/a/b/up/#",
            "r58/1/a/b/sideways/hb",
            "r58/1/a/b/down/hb",
            "r58/1/a/b/up/tm",
            "r58/1/a/b/up/tm/",
            "r58/1/a/b/up/tm/x/y",
            "r58/1/a/_g/g/up/cmd/x",
            "r58/1/a/_g/up/hb",
            "/r58/1/a/b/up/hb",
            "$share/g/r58/1/a/b/up/hb",
        ] {
            assert!(Topic::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Topic::parse(&"x".repeat(70_000)), Err(TopicError::TooLong(70_000)));
    }

    #[test]
    fn every_server_filter_has_a_group_of_its_own() {
        let groups: HashSet<String> =
            ServerFilter::ALL.iter().map(|filter| filter.shared("g").split('/').nth(1).unwrap().to_owned()).collect();
        assert_eq!(groups.len(), ServerFilter::ALL.len());
    }
}
