//! How the link stands, in the words of the box's pages.

use chrono::Utc;
use tokio::sync::watch;

use crate::state::FleetState;

/// One word, and why when it is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkWord {
    /// No fleet is configured.
    Off,
    /// On its way: enrolling, opening, connecting.
    Connecting,
    /// The fleet hears this box.
    Online,
    /// Waits for its next try.
    Backoff(String),
}

/// Publishes a change of the word. The last error stays until the link is online again.
pub(super) fn publish(to: &watch::Sender<FleetState>, word: &LinkWord) {
    to.send_if_modified(|held| {
        let (state, error) = match word {
            LinkWord::Off => ("off", None),
            LinkWord::Connecting => ("connecting", held.last_error.clone()),
            LinkWord::Online => ("online", None),
            LinkWord::Backoff(reason) => ("backoff", Some(reason.clone())),
        };
        if held.state == state && held.last_error == error {
            return false;
        }
        if held.state != state {
            held.since = Some(Utc::now());
        }
        held.state = state.to_owned();
        held.last_error = error;
        true
    });
}

/// Publishes how much waits on disk, and how much was given up.
pub(super) fn publish_outbox(to: &watch::Sender<FleetState>, (pending, dropped): (u64, u64)) {
    to.send_if_modified(|held| {
        let changed = (held.outbox_pending, held.outbox_dropped) != (pending, dropped);
        (held.outbox_pending, held.outbox_dropped) = (pending, dropped);
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_shown_while_trying_again_and_gone_when_online() {
        let (to, seen) = watch::channel(FleetState::default());
        publish(&to, &LinkWord::Backoff("no route".to_owned()));
        publish(&to, &LinkWord::Connecting);
        assert_eq!(seen.borrow().state, "connecting");
        assert_eq!(seen.borrow().last_error.as_deref(), Some("no route"));
        publish(&to, &LinkWord::Online);
        assert_eq!(seen.borrow().last_error, None);
    }
}
