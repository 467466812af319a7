//! What the server says to devices: acknowledgements of what is stored, and the answer to their sync.
//!
//! A task of its own, so that a slow broker or store delays answers and never the reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use r58_mqtt::payload::{Payload as _, SyncDown, SyncUp, pending_hash};
use r58_mqtt::session::{Outgoing, Qos, Session};
use r58_mqtt::{CommandId, DeviceAddress, Down, Name, Topic};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::store::{FleetStore, SyncState};

/// Answers that may wait.
pub(super) const QUEUE: usize = 16 * 1024;
const STORE_DEADLINE: Duration = Duration::from_secs(10);
/// Acknowledgements are cumulative: those of this long go out as one for each device.
const ACK_EVERY: Duration = Duration::from_millis(500);

/// One thing to say.
#[derive(Debug)]
pub(super) enum Reply {
    /// So much is stored.
    Acked { device: DeviceAddress, acked: BTreeMap<Name, u64> },
    /// The device connected and said where it stands.
    Sync { device: DeviceAddress, sync: SyncUp },
}

/// Runs until the sender is gone or the session is closed.
pub(super) async fn run(mut queue: mpsc::Receiver<Reply>, session: Session, store: Arc<dyn FleetStore>) {
    let mut acked: BTreeMap<DeviceAddress, BTreeMap<Name, u64>> = BTreeMap::new();
    let mut due = tokio::time::interval(ACK_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let lives = tokio::select! {
            reply = queue.recv() => match reply {
                Some(Reply::Acked { device, acked: news }) => {
                    acked.entry(device).or_default().extend(news);
                    true
                }
                Some(Reply::Sync { device, sync }) => answer_sync(&session, &*store, &device, &sync).await,
                None => return,
            },
            _ = due.tick(), if !acked.is_empty() => acknowledge(&session, &mut acked).await,
        };
        if !lives {
            return;
        }
    }
}

async fn acknowledge(session: &Session, acked: &mut BTreeMap<DeviceAddress, BTreeMap<Name, u64>>) -> bool {
    while let Some((device, acked)) = acked.pop_first() {
        if !say(session, &device, &acknowledgement(acked), Qos::AtMostOnce).await {
            return false;
        }
    }
    true
}

fn acknowledgement(acked: BTreeMap<Name, u64>) -> SyncDown {
    SyncDown {
        server_time: Utc::now(),
        pending: None,
        pending_hash: None,
        acked,
        seq_floor: None,
        extra: Default::default(),
    }
}

async fn answer_sync(session: &Session, store: &dyn FleetStore, device: &DeviceAddress, sync: &SyncUp) -> bool {
    let state = match tokio::time::timeout(STORE_DEADLINE, store.sync_state(device)).await {
        Ok(Ok(Some(state))) => state,
        Ok(Ok(None)) => return true,
        Ok(Err(error)) => {
            warn!(%device, %error, "a sync cannot be answered, the device will ask again");
            return true;
        }
        Err(_) => return true,
    };
    // Before the answer: a device that has it asks no more, and this process may end in between.
    let missing = missing_at_device(&state, sync);
    if !missing.is_empty() && !publish_again(session, store, device, &missing).await {
        return false;
    }
    let down = SyncDown {
        pending_hash: Some(pending_hash(&state.pending)),
        pending: Some(state.pending),
        seq_floor: Some(state.seq_floor),
        ..acknowledgement(state.acked)
    };
    say(session, device, &down, Qos::AtLeastOnce).await
}

/// What the server wants done and the device does not hold: the broker may have lost its copy. A device that
/// does get it from the broker as well knows it by then.
fn missing_at_device(state: &SyncState, sync: &SyncUp) -> BTreeSet<CommandId> {
    let held: BTreeSet<&CommandId> = sync.pending.iter().collect();
    state.pending.iter().filter(|id| !held.contains(id)).cloned().collect()
}

async fn publish_again(
    session: &Session,
    store: &dyn FleetStore,
    device: &DeviceAddress,
    missing: &BTreeSet<CommandId>,
) -> bool {
    let open = match tokio::time::timeout(STORE_DEADLINE, store.open_commands(device)).await {
        Ok(Ok(open)) => open,
        Ok(Err(_)) | Err(_) => return true,
    };
    for command in open.into_iter().filter(|command| missing.contains(&command.id)) {
        debug!(%device, id = %command.id, "published again for a device that does not hold it");
        let topic = Topic::down(device, Down::Command(command.id)).to_string();
        if session.publish(Outgoing::json(topic, command.message).retained(true)).await.is_err() {
            return false;
        }
    }
    true
}

/// Whether the session still lives.
async fn say(session: &Session, device: &DeviceAddress, down: &SyncDown, qos: Qos) -> bool {
    let Ok(body) = down.to_bytes() else {
        warn!(%device, "the answer to a sync is too large");
        return true;
    };
    let topic = Topic::down(device, Down::Sync).to_string();
    session.publish(Outgoing::json(topic, body).qos(qos)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_device_lacks_is_published_again() {
        let id = |text: &str| CommandId::new(text).unwrap();
        let state = SyncState { pending: vec![id("a"), id("b"), id("c")], ..SyncState::default() };
        let sync = SyncUp { pending: vec![id("b"), id("z")], ..SyncUp::default() };
        assert_eq!(missing_at_device(&state, &sync).into_iter().collect::<Vec<_>>(), [id("a"), id("c")]);
    }
}
