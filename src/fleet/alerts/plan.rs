//! How people are told.

use std::path::PathBuf;
use std::time::Duration;

use r58_actors::fleet_link::identity::Secret;

/// How people are told.
#[derive(Debug, Clone)]
pub struct AlertPlan {
    /// Webhooks may be in this machine or in a private network. Who makes receivers could otherwise reach what is not theirs.
    pub allow_private_targets: bool,
    /// What comes within this time goes into one message.
    pub group_within: Duration,
    /// Pause after the first attempt that failed; each later one is twice as long.
    pub retry_first: Duration,
    /// Longest pause.
    pub retry_most: Duration,
    /// Attempts before a message counts as failed.
    pub attempts: u32,
    /// The mail server; without one no mail is sent.
    pub smtp: Option<SmtpPlan>,
}

impl Default for AlertPlan {
    /// The attempts take three and a half hours.
    fn default() -> Self {
        Self {
            allow_private_targets: false,
            group_within: Duration::from_secs(10),
            retry_first: Duration::from_secs(10),
            retry_most: Duration::from_secs(3_600),
            attempts: 12,
            smtp: None,
        }
    }
}

impl AlertPlan {
    /// The pause after so many attempts failed; `None` when that was the last.
    pub fn pause_after(&self, attempts: u32) -> Option<Duration> {
        let doubled = self.retry_first.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1)));
        (attempts < self.attempts).then_some(doubled.min(self.retry_most))
    }
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Plain first, then TLS or nothing (RFC 3207); port 587.
    StartTls,
    /// TLS from the beginning (RFC 8314); port 465.
    Tls,
    /// In the clear; within this machine only.
    None,
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct SmtpPlan {
    /// Its name, which its certificate is for.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub tls: SmtpTls,
    /// Whose certificates are believed, in PEM: these and no others; without a file those that the system believes.
    pub ca_file: Option<PathBuf>,
    /// User and password, where it wants them.
    pub login: Option<(String, Secret)>,
    /// Address that mail comes from.
    pub from: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let plan = AlertPlan::default();
        let pauses: Vec<u64> = (1..).map_while(|n| plan.pause_after(n)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
    }
}
