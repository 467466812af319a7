//! What an API key may touch: words such as `devices:read` and `commands:write`, and which of them a path asks for.

use std::fmt;
use std::str::FromStr;

use actix_web::http::Method;

/// A part of the API that a scope names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Devices, their pictures and their enrolment by hand.
    Devices,
    /// Heartbeats and figures.
    Telemetry,
    /// Commands and groups of them.
    Commands,
    /// Desired and reported configuration.
    Config,
    /// Releases, their keys, and rollouts.
    Releases,
    /// Invitations, guests, and what is carried to a box for a viewer.
    Guests,
    /// Support bundles.
    Bundles,
    /// Logs of devices.
    Logs,
    /// Alerts and their rules.
    Alerts,
    /// The audit log.
    Audit,
    /// Live updates; read only.
    Events,
    /// The organization in figures, for monitoring; read only.
    Metrics,
    /// Enrolment codes.
    Enrolment,
    /// Users.
    Users,
}

impl Area {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Devices, "devices"),
        (Self::Telemetry, "telemetry"),
        (Self::Commands, "commands"),
        (Self::Config, "config"),
        (Self::Releases, "releases"),
        (Self::Guests, "guests"),
        (Self::Bundles, "bundles"),
        (Self::Logs, "logs"),
        (Self::Alerts, "alerts"),
        (Self::Audit, "audit"),
        (Self::Events, "events"),
        (Self::Metrics, "metrics"),
        (Self::Enrolment, "enrolment"),
        (Self::Users, "users"),
    ];
}

/// One permission of a key. Writing includes reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Where.
    pub area: Area,
    /// Whether things may be changed.
    pub write: bool,
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a scope: an area such as devices or commands, a colon, and read or write")]
pub struct NoScope;

impl FromStr for Scope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        let (area, right) = text.split_once(':').ok_or(NoScope)?;
        let (area, _) = Area::ALL.into_iter().find(|(_, word)| *word == area).ok_or(NoScope)?;
        match right {
            "read" => Ok(Self { area, write: false }),
            "write" if !matches!(area, Area::Events | Area::Metrics) => Ok(Self { area, write: true }),
            _ => Err(NoScope),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Area::ALL.into_iter().find(|(area, _)| *area == self.area).map_or("", |(_, word)| word);
        write!(f, "{word}:{}", if self.write { "write" } else { "read" })
    }
}

impl Scope {
    /// Whether this scope is enough where `needed` is asked for.
    pub fn covers(self, needed: Self) -> bool {
        self.area == needed.area && (self.write || !needed.write)
    }
}

/// What a request needs of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Any key: the question who one is.
    Nothing,
    /// This scope.
    Scope(Scope),
    /// A person: keys do not make keys, organizations, or anything that is not listed here.
    Person,
}

/// What a request needs, by method and path. What nobody thought of is for people only.
pub fn needed(method: &Method, path: &str) -> Need {
    let write = !method.is_safe();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let area = match parts.as_slice() {
        ["api", "v1", rest @ ..] => match rest {
            ["auth", "me"] => return Need::Nothing,
            ["devices", _, "commands", ..] | ["commands", ..] | ["command-groups", ..] => Area::Commands,
            ["devices", _, "heartbeats" | "metrics", ..] => Area::Telemetry,
            ["devices", _, "config", ..] => Area::Config,
            ["devices", _, "invitations" | "guests", ..] => Area::Guests,
            ["devices", _, "bundles", ..] | ["bundles", ..] => Area::Bundles,
            ["devices", _, "logs", ..] => Area::Logs,
            ["devices"] | ["devices", _] | ["devices", _, "rotate-token"] => Area::Devices,
            ["devices", _, "thumbnails", ..] if !write => Area::Devices,
            ["releases", ..] | ["release-keys", ..] | ["rollouts", ..] => Area::Releases,
            ["alerts" | "alert-rules" | "alert-receivers" | "silences", ..] => Area::Alerts,
            ["audit", ..] => Area::Audit,
            ["events"] => Area::Events,
            ["enrolment-codes", ..] => Area::Enrolment,
            ["users", ..] => Area::Users,
            _ => return Need::Person,
        },
        ["whep", ..] => Area::Guests,
        ["turn-credentials"] => Area::Guests,
        ["metrics"] => Area::Metrics,
        _ => return Need::Person,
    };
    Need::Scope(Scope { area, write })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_reads_back_from_its_words_and_nothing_else_is_one() {
        for (area, _) in Area::ALL {
            for write in [false, true] {
                let scope = Scope { area, write };
                let read = scope.to_string().parse::<Scope>();
                assert_eq!(read.is_ok(), !(write && matches!(area, Area::Events | Area::Metrics)), "{scope}");
                assert!(read.is_err() || read == Ok(scope));
            }
        }
        for text in ["", "devices", "devices:", "devices:own", "Devices:read", "everything:read", "*"] {
            assert_eq!(text.parse::<Scope>(), Err(NoScope), "{text}");
        }
    }

    #[test]
    fn writing_includes_reading_of_the_same_area_and_of_no_other() {
        let scope = |text: &str| text.parse::<Scope>().unwrap();
        assert!(scope("devices:write").covers(scope("devices:read")));
        assert!(!scope("devices:read").covers(scope("devices:write")));
        assert!(!scope("devices:write").covers(scope("commands:read")));
    }

    #[test]
    fn a_path_that_nobody_thought_of_is_for_people_only() {
        let need = |method: Method, path: &str| match needed(&method, path) {
            Need::Scope(scope) => scope.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(need(Method::GET, "/api/v1/devices/box1"), "devices:read");
        assert_eq!(need(Method::PATCH, "/api/v1/devices/box1"), "devices:write");
        assert_eq!(need(Method::POST, "/api/v1/devices/box1/commands"), "commands:write");
        assert_eq!(need(Method::POST, "/api/v1/commands/01J/cancel"), "commands:write");
        assert_eq!(need(Method::GET, "/api/v1/devices/box1/metrics"), "telemetry:read");
        assert_eq!(need(Method::GET, "/api/v1/auth/me"), "Nothing");
        for path in ["/api/v1/api-keys", "/api/v1/organizations", "/api/v1/devices/box1/surprise", "/control/box1", "/"]
        {
            assert_eq!(need(Method::POST, path), "Person", "{path}");
        }
    }
}
