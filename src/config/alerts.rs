//! How people are told of alerts: settings, and what is wrong with them.

use std::net::IpAddr;
use std::path::PathBuf;

use r58_actors::fleet_link::identity::Secret;
use serde::{Deserialize, Serialize};

use super::check::Found;

/// How people are told of alerts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetAlertSettings {
    /// Webhooks may be in this machine or in a private network. Administrators of every organization then reach what this
    /// server reaches.
    pub allow_private_targets: bool,
    /// What comes within so many seconds goes into one message, 0 to 3,600.
    pub group_seconds: u64,
    /// Seconds after the first attempt that failed, 1 to 3,600; each later pause is twice as long.
    pub retry_first_seconds: u64,
    /// Longest pause in seconds, `retry_first_seconds` to 86,400.
    pub retry_most_seconds: u64,
    /// Attempts before a message counts as failed, 1 to 100.
    pub attempts: u32,
}

impl Default for FleetAlertSettings {
    fn default() -> Self {
        Self {
            allow_private_targets: false,
            group_seconds: 10,
            retry_first_seconds: 10,
            retry_most_seconds: 3_600,
            attempts: 12,
        }
    }
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTlsSetting {
    /// TLS after a first word in the clear; without it nothing is sent.
    #[default]
    StartTls,
    /// TLS from the beginning.
    Tls,
    /// In the clear; for a mail server on this machine only.
    None,
}

impl SmtpTlsSetting {
    /// The port that goes with it (RFC 8314, RFC 5321).
    pub fn usual_port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// The mail server that alerts go by.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpSettings {
    /// Its name, which its certificate is for; without one no mail is sent.
    pub host: Option<String>,
    /// Its port; 587, 465 or 25 by `tls`.
    pub port: Option<u16>,
    /// `starttls`, `tls` or `none`.
    pub tls: SmtpTlsSetting,
    /// Authorities in PEM whose certificates are believed, and no others; those of the system without a file. Read for each letter.
    pub ca_file: Option<PathBuf>,
    /// User, where it wants one.
    pub username: Option<String>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// The password itself, for the environment (`R58__FLEET__SMTP__PASSWORD`); a configuration file is no place for it.
    #[serde(skip_serializing)]
    pub password: Option<Secret>,
    /// Address that mail comes from.
    pub from: Option<String>,
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Says what is wrong.
pub(super) fn judge(alerts: &FleetAlertSettings, smtp: &SmtpSettings, found: &mut Found) {
    found.range("fleet.alerts.group_seconds", alerts.group_seconds, 0, 3_600);
    found.range("fleet.alerts.retry_first_seconds", alerts.retry_first_seconds, 1, 3_600);
    found.range("fleet.alerts.retry_most_seconds", alerts.retry_most_seconds, alerts.retry_first_seconds, 86_400);
    found.range("fleet.alerts.attempts", alerts.attempts, 1, 100);
    found.both(("fleet.smtp.host", smtp.host.is_some()), ("fleet.smtp.from", smtp.from.is_some()));
    let password = smtp.password_file.is_some() || smtp.password.is_some();
    found.both(("fleet.smtp.username", smtp.username.is_some()), ("fleet.smtp.password_file", password));
    found.file("fleet.smtp.ca_file", smtp.ca_file.as_deref());
    found.file("fleet.smtp.password_file", smtp.password_file.as_deref());
    let mailbox = |from: &str| from.parse::<lettre::message::Mailbox>().is_ok();
    found.unless(smtp.from.as_deref().is_none_or(mailbox), "fleet.smtp.from", "is not a mail address");
    let clear = smtp.tls == SmtpTlsSetting::None && !smtp.host.as_deref().is_none_or(is_this_machine);
    found.unless(!clear, "fleet.smtp.tls", "none is for a mail server on this machine only");
}

#[cfg(test)]
mod tests {
    use super::super::check_text;

    #[test]
    fn mail_in_the_clear_stays_on_this_machine_and_a_password_needs_its_user() {
        let wrong = |text: &str| {
            let text = format!("[fleet.smtp]\nfrom = \"R58 <r58@x.example>\"\n{text}");
            check_text(&text).into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(wrong("host = \"127.0.0.1\"\ntls = \"none\""), "");
        assert!(wrong("host = \"mail.x.example\"\ntls = \"none\"").contains("this machine only"));
        assert!(wrong("host = \"mail.x.example\"\nusername = \"u\"").contains("password_file"));
        assert!(wrong("").contains("fleet.smtp.host"));
    }
}
