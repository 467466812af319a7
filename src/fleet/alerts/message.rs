//! What is told: one message about many alerts.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Alerts that a message names; the rest is a number.
pub const NAMED: usize = 50;

/// What happened to one alert.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// `firing` or `resolved`.
    pub event: String,
    /// The alert.
    pub id: String,
    /// How bad it is.
    pub severity: String,
    /// What its rule looks at.
    pub kind: String,
    /// The rule.
    pub rule_name: String,
    /// The device.
    pub device_id: String,
    /// Its name.
    pub device_name: String,
    /// What of the device.
    pub subject: String,
    /// What is the matter.
    pub detail: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// A message, as webhooks get it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// Version of this form.
    pub v: u32,
    /// The same at every attempt.
    pub delivery_id: String,
    /// Organization.
    pub org: String,
    /// Somebody wanted to see whether it arrives.
    pub test: bool,
    /// How many alerts it is about.
    pub total: usize,
    /// The first of them.
    pub alerts: Vec<Item>,
}

impl Message {
    /// In one line.
    pub fn subject(&self) -> String {
        if self.test {
            return "[R58] Test message".into();
        }
        let line = match self.alerts.as_slice() {
            [one] if self.total == 1 => {
                let over = if one.event == "resolved" { "over: " } else { "" };
                format!("[R58] {} {over}{}: {}", one.severity, one.device_name, one.rule_name)
            }
            many => {
                let firing = many.iter().filter(|item| item.event == "firing").count();
                match firing {
                    0 => format!("[R58] {} alerts are over", self.total),
                    _ if self.total > many.len() => format!("[R58] {} alerts", self.total),
                    _ => format!("[R58] {firing} alerts, {} over", many.len() - firing),
                }
            }
        };
        // Whatever a rule or a box is called, it stays one line.
        line.chars().filter(|c| !c.is_control()).take(200).collect()
    }

    /// For people.
    pub fn text(&self) -> String {
        if self.test {
            return "This is a test message of the R58 fleet server: it arrives.\n".into();
        }
        let mut text = String::new();
        for item in &self.alerts {
            let what = match item.event.as_str() {
                "resolved" => "over",
                _ => item.severity.as_str(),
            };
            let subject = if item.subject.is_empty() { String::new() } else { format!(" ({})", item.subject) };
            text += &format!(
                "{what}: {} [{}]{subject}\n  {}: {}\n  since {}\n\n",
                item.device_name,
                item.device_id,
                item.rule_name,
                item.detail,
                item.since.format("%Y-%m-%d %H:%M:%S UTC")
            );
        }
        if self.total > self.alerts.len() {
            text += &format!("and {} more\n", self.total - self.alerts.len());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_many_and_names_the_first() {
        let item = |event: &str| Item {
            event: event.into(),
            id: "a".into(),
            severity: "critical".into(),
            kind: "offline".into(),
            rule_name: "Box is offline".into(),
            device_id: "box1".into(),
            device_name: "Stage\nBcc: x@y".into(),
            subject: String::new(),
            detail: "its connection broke".into(),
            since: DateTime::default(),
        };
        let of = |alerts: Vec<Item>, total| Message {
            v: 1,
            delivery_id: "d".into(),
            org: "default".into(),
            test: false,
            total,
            alerts,
        };
        assert_eq!(of(vec![item("firing")], 1).subject(), "[R58] critical StageBcc: x@y: Box is offline");
        assert_eq!(of(vec![item("firing"), item("resolved")], 2).subject(), "[R58] 1 alerts, 1 over");
        let many = of(vec![item("firing")], 200);
        assert!(many.subject().contains("200 alerts") && many.text().ends_with("and 199 more\n"));
    }
}
