//! Between the link, which never waits, and the session, whose queue may be full.

use r58_mqtt::command::{Step, failpoint};
use r58_mqtt::session::{Outgoing, Session};
use tokio::sync::mpsc;

/// A message on its way to the session's queue.
pub(super) struct Parcel {
    pub ticket: Option<u64>,
    pub message: Outgoing,
    pub is_status: bool,
}

/// Keeps the order of messages while the session's queue is full.
pub(super) async fn deliver(session: Session, mut parcels: mpsc::UnboundedReceiver<Parcel>) {
    while let Some(Parcel { ticket, message, is_status }) = parcels.recv().await {
        if is_status {
            failpoint(Step::BeforeStatus);
        }
        let taken = match ticket {
            Some(ticket) => session.publish_tracked(ticket, message).await,
            None => session.publish(message).await.map(drop),
        };
        if taken.is_err() {
            return;
        }
    }
}
