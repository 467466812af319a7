//! What systemd is told of a running side: that it is ready, that it lives, that it stops. Nothing is said to nobody: without
//! `NOTIFY_SOCKET` and `WATCHDOG_USEC` (sd_notify(3)) these do nothing.

use sd_notify::NotifyState;
use tracing::warn;

/// Signs of life are given three times within the span that systemd waits for one.
const SIGNS_IN_A_SPAN: u32 = 3;

/// The side answers: units that are ordered after it may start.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// An orderly stop has begun.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Gives signs of life for as long as `lives` finds one. A side in which it does not is restarted by systemd once the span is
/// over. Never ends; where nobody waits for signs it asks for none.
pub async fn keep_telling(lives: impl AsyncFn() -> bool) {
    let Some(span) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut beat = tokio::time::interval(span / SIGNS_IN_A_SPAN);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let found = tokio::time::timeout(span / SIGNS_IN_A_SPAN, lives()).await;
        if found == Ok(true) {
            say(&[NotifyState::Watchdog]);
        } else {
            warn!("no sign of life, so none for systemd: it restarts this service soon");
        }
    }
}

fn say(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        warn!(%error, "systemd cannot be told");
    }
}

/// Whether something that counts has moved since it was last looked at.
#[derive(Debug, Default)]
pub struct Pulse {
    last: Option<u64>,
}

impl Pulse {
    /// Takes the count as it is now; none is no sign of life, and neither is the one that was seen before. A count that begins
    /// anew is.
    pub fn handle_count(&mut self, count: Option<u64>) -> bool {
        let moved = count.is_some() && count != self.last;
        self.last = count;
        moved
    }
}

/// Whether an HTTP server answers at all, whatever it answers.
pub async fn answers(client: &reqwest::Client, url: &str) -> bool {
    client.get(url).send().await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_that_moves_is_a_sign_of_life() {
        let mut pulse = Pulse::default();
        assert!(!pulse.handle_count(None));
        assert!(pulse.handle_count(Some(10)));
        assert!(!pulse.handle_count(Some(10)));
        assert!(pulse.handle_count(Some(11)));
        assert!(pulse.handle_count(Some(0)), "rebuilt, it counts from the beginning");
        assert!(!pulse.handle_count(None));
    }
}
