//! A client at the broker: says what the test wants said, and keeps all that it hears.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use r58_mqtt::session::{
    BackoffSettings, Incoming, Outgoing, RetainHandling, Session, SessionEvent, SessionSettings, Subscription,
};

use super::r58::PATIENCE;
use super::until;

/// A connected client; gone when dropped.
pub struct Wire {
    session: Session,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    subscribed: bool,
    heard: Vec<Incoming>,
}

impl Wire {
    /// Connects and subscribes to `filter`, the retained messages first. Comes back by itself, quickly.
    pub async fn start(url: &str, client: &str, user: &str, password: &str, filter: &str) -> Self {
        let mut settings = SessionSettings::new(url, client, user, password);
        settings.session_expiry = Duration::ZERO;
        settings.receive_max = 1000;
        settings.event_capacity = 4096;
        settings.max_packet = 4 * 1024 * 1024;
        let (first, max) = (Duration::from_millis(20), Duration::from_millis(200));
        settings.backoff = BackoffSettings { first, max, floor: first, refused: max, ..BackoffSettings::default() };
        settings.subscriptions =
            vec![Subscription { retain_handling: RetainHandling::AtSubscribe, ..Subscription::new(filter) }];
        let (session, mut events) = Session::start(settings).expect("settings of a client");
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (acks, keeper) = (session.clone(), Arc::clone(&kept));
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let mut kept = keeper.lock().expect("kept");
                match event {
                    SessionEvent::Subscribed { grants } => {
                        assert!(grants.iter().all(|grant| grant.granted.is_ok()), "not granted: {grants:?}");
                        kept.subscribed = true;
                    }
                    SessionEvent::Disconnected { .. } => kept.subscribed = false,
                    SessionEvent::Message(message) => {
                        message.ack.into_iter().for_each(|token| acks.ack(token));
                        kept.heard.push(message);
                    }
                    _ => {}
                }
            }
        });
        let wire = Self { session, kept };
        wire.subscribed().await;
        wire
    }

    /// Waits until it is subscribed (again).
    pub async fn subscribed(&self) {
        until(PATIENCE, "a subscribed client", || async {
            if self.kept.lock().expect("kept").subscribed { Ok(()) } else { Err("not subscribed") }
        })
        .await;
    }

    /// Publishes, and again until the broker has acknowledged it.
    pub async fn say(&self, topic: &str, payload: impl Into<Bytes>, retain: bool) {
        let message = Outgoing::json(topic, payload).retained(retain);
        until(PATIENCE, "an acknowledged message", || async {
            self.session
                .publish(message.clone())
                .await
                .map_err(|error| error.to_string())?
                .await
                .map_err(|error| error.to_string())
        })
        .await;
    }

    /// Publishes what it heard once more, as it was.
    pub async fn say_again(&self, message: &Incoming) {
        let properties = message.properties.clone();
        let again = Outgoing { properties, ..Outgoing::json(message.topic.clone(), message.payload.clone()) };
        self.session.publish(again).await.expect("a session").await.expect("an acknowledgement");
    }

    /// Publishes many, retained, and waits for all acknowledgements.
    pub async fn say_all(&self, messages: Vec<(String, Bytes)>) {
        let mut receipts = Vec::with_capacity(messages.len());
        for (topic, payload) in messages {
            let message = Outgoing::json(topic, payload).retained(true);
            receipts.push(self.session.publish(message).await.expect("a session"));
        }
        for receipt in receipts {
            receipt.await.expect("an acknowledgement");
        }
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Vec<Incoming> {
        self.kept.lock().expect("kept").heard.clone()
    }
}
