//! Kinds of rules, what may be asked of them, and the usual ones.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest time for which a condition is waited for, in seconds: a day.
pub const LONGEST_FOR: i64 = 86_400;

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The device is not connected. It has to have been, once.
    Offline,
    /// Less free space than so many GB.
    Disk,
    /// Its hottest sensor at so many degrees Celsius or more.
    Temperature,
    /// A camera input that was live and is not.
    InputLost,
    /// A guest who is in and whose picture does not come.
    GuestFailing,
    /// So many restarts, of the box or of a part of it, within an hour.
    Restarts,
    /// Its clock is not set, or so many seconds off.
    Clock,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Offline,
        Self::Disk,
        Self::Temperature,
        Self::InputLost,
        Self::GuestFailing,
        Self::Restarts,
        Self::Clock,
    ];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Disk => "disk",
            Self::Temperature => "temperature",
            Self::InputLost => "input_lost",
            Self::GuestFailing => "guest_failing",
            Self::Restarts => "restarts",
            Self::Clock => "clock",
        }
    }

    /// From its stored word.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What its threshold may be; `None` for a kind that has none.
    pub fn limits(self) -> Option<RangeInclusive<f64>> {
        match self {
            Self::Disk => Some(0.1..=100_000.0),
            Self::Temperature => Some(30.0..=150.0),
            Self::Restarts => Some(1.0..=50.0),
            Self::Clock => Some(1.0..=86_400.0),
            Self::Offline | Self::InputLost | Self::GuestFailing => None,
        }
    }

    /// Whether a small value is the bad one.
    pub fn is_bad_below(self) -> bool {
        self == Self::Disk
    }

    /// Where a rule with this threshold clears unless it says so itself.
    fn usual_clear(self, threshold: f64) -> f64 {
        match self {
            Self::Disk => threshold * 1.2,
            Self::Temperature => threshold - 5.0,
            Self::Restarts => threshold - 1.0,
            _ => threshold / 2.0,
        }
    }

    /// Checks thresholds, and fills in what is not given.
    ///
    /// # Errors
    /// Says which field is wrong and what would be right.
    pub fn check(self, threshold: Option<f64>, clear: Option<f64>) -> Result<Thresholds, String> {
        let word = self.as_str();
        let Some(limits) = self.limits() else {
            return match (threshold, clear) {
                (None, None) => Ok(None),
                _ => Err(format!("threshold: a rule of kind {word} has none")),
            };
        };
        let (low, high) = (*limits.start(), *limits.end());
        let threshold = threshold.filter(|value| limits.contains(value));
        let threshold = threshold.ok_or_else(|| format!("threshold: {low} to {high} for a rule of kind {word}"))?;
        let clear = clear.unwrap_or_else(|| self.usual_clear(threshold));
        match (self.is_bad_below(), clear.is_finite() && clear >= 0.0) {
            (true, true) if clear > threshold => Ok(Some((threshold, clear))),
            (false, true) if clear < threshold => Ok(Some((threshold, clear))),
            (true, _) => Err("clear_threshold: above the threshold, so that it does not flap".into()),
            (false, _) => Err("clear_threshold: below the threshold and not below 0, so that it does not flap".into()),
        }
    }
}

/// Where a rule raises and where it clears, if its kind has that.
pub type Thresholds = Option<(f64, f64)>;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// To be known.
    Info,
    /// Somebody should look.
    Warning,
    /// Something is not done that should be.
    Error,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }

    /// From its stored word; an unknown one is a warning.
    pub fn from_stored(word: &str) -> Self {
        Self::ALL.into_iter().find(|severity| severity.as_str() == word).unwrap_or(Self::Warning)
    }
}

/// A rule of one organization.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Identifier.
    pub id: String,
    /// What it looks at.
    pub kind: Kind,
    /// Name to show.
    pub name: String,
    /// Where it raises and clears.
    pub thresholds: Thresholds,
    /// Seconds for which the condition has to hold, and to be gone.
    pub for_s: i64,
    /// How bad it is.
    pub severity: Severity,
    /// Devices with it; all when there is none.
    pub tag: Option<String>,
    /// This device alone; all when there is none.
    pub device: Option<String>,
}

/// The rules that every organization begins with: kind, name, threshold, seconds, severity.
pub const USUAL: [(Kind, &str, Option<f64>, i64, Severity); 7] = [
    (Kind::Offline, "Box is offline", None, 120, Severity::Critical),
    // The Governor gives up previews at 10 GB and says so at 5 (`device.pressed_at`).
    (Kind::Disk, "Disk is nearly full", Some(5.0), 60, Severity::Warning),
    // An RK3588 slows down from 85 degrees on.
    (Kind::Temperature, "Box is hot", Some(80.0), 120, Severity::Warning),
    (Kind::InputLost, "Input lost", None, 30, Severity::Warning),
    (Kind::GuestFailing, "Guest has no picture", None, 30, Severity::Warning),
    (Kind::Restarts, "Restarts again and again", Some(3.0), 0, Severity::Warning),
    // What was measured during an outage arrives late and looks like a wrong clock for a moment.
    (Kind::Clock, "Clock is wrong", Some(30.0), 300, Severity::Info),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_rules_are_as_good_as_any_that_are_asked_for() {
        for (kind, name, threshold, for_s, _) in USUAL {
            let checked = kind.check(threshold, None).unwrap();
            assert_eq!(checked.is_some(), kind.limits().is_some(), "{name}");
            assert!((0..=LONGEST_FOR).contains(&for_s));
            assert_eq!(Kind::from_stored(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn a_rule_that_would_flap_is_refused() {
        assert_eq!(Kind::Disk.check(Some(5.0), Some(6.0)), Ok(Some((5.0, 6.0))));
        assert_eq!(Kind::Temperature.check(Some(80.0), None), Ok(Some((80.0, 75.0))));
        for (kind, threshold, clear) in [
            (Kind::Disk, Some(5.0), Some(5.0)),
            (Kind::Temperature, Some(80.0), Some(80.0)),
            (Kind::Temperature, Some(80.0), Some(-1.0)),
            (Kind::Temperature, Some(500.0), None),
            (Kind::Temperature, None, None),
            (Kind::Offline, Some(1.0), None),
            (Kind::Clock, Some(f64::NAN), None),
            (Kind::Disk, Some(5.0), Some(f64::INFINITY)),
        ] {
            assert!(kind.check(threshold, clear).is_err(), "{kind:?} {threshold:?} {clear:?}");
        }
    }
}
