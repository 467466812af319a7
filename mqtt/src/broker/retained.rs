//! Retained messages: an index in memory for matching, the store for the next start.
//!
//! What rmqtt's own default does differently: no message expires that did not ask for it, and a message that did is handed
//! out with the time that it has left (MQTT 5, 3.3.2.3.3). There are bounds on number and bytes; a publisher is told by
//! `hooks` before anybody is given its message, a will that finds no room is delivered and not kept.

mod index;

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::retain::RetainStorage;
use rmqtt::types::{From as Sender, Id, Publish, Retain, TimestampMillis, TopicFilter, TopicName};
use rmqtt::utils::timestamp_millis;
use tracing::warn;

use self::index::{Bounds, Index};
use super::BrokerLimits;
use super::store::{RetainedRow, Store};

/// rmqtt's seam for retained messages.
#[derive(Clone)]
pub(super) struct Retained {
    inner: Arc<Inner>,
}

struct Inner {
    index: RwLock<Index>,
    store: Arc<Store>,
    bounds: Bounds,
}

impl Inner {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn asked_expiry(retain: &Retain) -> Option<Duration> {
    let seconds = retain.publish.properties.as_ref()?.message_expiry_interval?;
    Some(Duration::from_secs(u64::from(seconds.get())))
}

/// The row of a message that is kept from now on.
fn row(retain: &mut Retain) -> Option<Vec<u8>> {
    let now = timestamp_millis();
    retain.publish.create_time.get_or_insert(now);
    let expires_at = asked_expiry(retain)
        .map(|e| now.saturating_add(TimestampMillis::try_from(e.as_millis()).unwrap_or(TimestampMillis::MAX)));
    RetainedRow::encode(retain, expires_at)
}

impl Retained {
    /// Loads what the store has; the bounds are for what comes.
    pub(super) fn load(store: Arc<Store>, limits: &BrokerLimits) -> Self {
        let mut index = Index::default();
        store.each_retained(timestamp_millis(), |topic, row| index.insert(topic, row));
        let bounds = Bounds { messages: limits.max_retained, bytes: limits.max_retained_bytes };
        Self { inner: Arc::new(Inner { index: RwLock::new(index), store, bounds }) }
    }

    /// Messages and bytes that are kept now.
    pub(super) fn held(&self) -> (usize, usize) {
        let index = self.inner.read();
        (index.len(), index.bytes())
    }

    /// Whether the message asks to be kept and there is no room for it.
    pub(super) fn is_full_for(&self, from: &Id, publish: &Publish) -> bool {
        if !publish.retain || publish.payload.is_empty() {
            return false;
        }
        let mut retain = Retain { msg_id: None, from: Sender::from_custom(from.clone()), publish: publish.clone() };
        let Inner { bounds, .. } = *self.inner;
        row(&mut retain).is_some_and(|row| !self.inner.read().has_room(bounds, &publish.topic, row.len()))
    }

    /// Removes what has expired, in memory and in the store.
    pub(super) async fn sweep(&self) {
        let (retained, now) = (self.clone(), timestamp_millis());
        let swept = tokio::task::spawn_blocking(move || {
            retained.inner.write().keep(|row| !RetainedRow(row).is_over(now));
            retained.inner.store.sweep_retained(now);
        });
        if let Err(e) = swept.await {
            warn!(error = %e, "retained sweep");
        }
    }
}

/// The message as it is now: its expiry is what is left of it.
fn aged(mut retain: Retain, now: TimestampMillis) -> Retain {
    let age = retain.publish.create_time.map_or(0, |at| now.saturating_sub(at).max(0) / 1000);
    let age = u32::try_from(age).unwrap_or(u32::MAX);
    if let Some(properties) = retain.publish.inner.properties.as_mut()
        && let Some(seconds) = properties.message_expiry_interval
    {
        properties.message_expiry_interval =
            Some(NonZeroU32::new(seconds.get().saturating_sub(age)).unwrap_or(NonZeroU32::MIN));
    }
    retain
}

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    fn need_sync(&self) -> bool {
        false
    }

    async fn set(&self, topic: &TopicName, mut retain: Retain, _: Option<Duration>) -> rmqtt::Result<()> {
        // Held to the end: two writers of one topic come to memory and store in the same order.
        let mut index = self.inner.write();
        if retain.publish.payload.is_empty() {
            index.remove(topic);
            self.inner.store.remove_retained(topic);
            return Ok(());
        }
        if let Some(row) = row(&mut retain)
            && index.has_room(self.inner.bounds, topic, row.len())
        {
            index.insert(topic, &row);
            self.inner.store.put_retained(topic, row);
        }
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let now = timestamp_millis();
        let index = self.inner.read();
        let alive = index.matching(filter).filter(|(_, row)| !RetainedRow(row).is_over(now));
        let found = alive.filter_map(|(topic, row)| Some((TopicName::from(topic), RetainedRow(row).decode()?)));
        Ok(found.map(|(topic, retain)| (topic, aged(retain, now))).collect())
    }

    async fn count(&self) -> isize {
        isize::try_from(self.inner.read().len()).unwrap_or(isize::MAX)
    }

    async fn max(&self) -> isize {
        isize::try_from(self.inner.read().most()).unwrap_or(isize::MAX)
    }
}
