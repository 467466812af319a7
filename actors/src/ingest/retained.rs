//! Fetches what the broker retains of every device: presence, caps and reported state.
//!
//! A shared subscription is not given retained messages, so a server without a session at the broker asks for
//! them once, by a plain subscription of a session that ends when no more come.

use std::time::Duration;

use r58_mqtt::session::{Incoming, RetainHandling, Session, SessionEvent, Subscription};
use r58_mqtt::topic::ServerFilter;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::IngestSettings;

/// So long without a retained message means that all have come. Presence that changes meanwhile comes by the
/// shared subscription.
const QUIET: Duration = Duration::from_secs(3);
/// The whole fetch takes no longer; what is missing then comes with the devices' next words.
const DEADLINE: Duration = Duration::from_secs(300);

/// Hands every retained message to `to`; ends by itself.
pub(super) async fn fetch(settings: IngestSettings, to: mpsc::Sender<(Session, Incoming)>) {
    let mut session = settings.session.clone();
    session.client_id = format!("{}-retained", session.client_id);
    session.session_expiry = Duration::ZERO;
    // All of them may wait here for a store that is slow.
    session.receive_max = u16::MAX;
    session.subscriptions = ServerFilter::ALL
        .into_iter()
        .filter(|filter| filter.is_retained())
        .map(|filter| Subscription {
            retain_handling: RetainHandling::AtSubscribe,
            ..Subscription::new(filter.plain())
        })
        .collect();
    let (session, mut events) = match Session::start(session) {
        Ok(started) => started,
        Err(error) => {
            warn!(%error, "the retained state of the devices cannot be fetched");
            return;
        }
    };
    let handing_over = async {
        let mut count = 0u64;
        while let Ok(Some(event)) = tokio::time::timeout(QUIET, events.recv()).await {
            let message = match event {
                SessionEvent::Message(message) => message,
                // The loop fetches anew when it is back; two at a time would throw each other out.
                SessionEvent::Disconnected { .. } => break,
                _ => continue,
            };
            if message.retain {
                count += 1;
                if to.send((session.clone(), message)).await.is_err() {
                    return;
                }
            } else if let Some(token) = message.ack {
                // The shared subscription brings it too.
                session.ack(token);
            }
        }
        debug!(count, "fetched what the broker retains");
    };
    let _ = tokio::time::timeout(DEADLINE, handing_over).await;
    session.close(None, Duration::from_secs(2)).await;
}
