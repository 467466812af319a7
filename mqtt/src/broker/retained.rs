//! Retained messages: rmqtt's tree in memory for matching, the store for the next start.
//!
//! What rmqtt's own default does differently: no message expires that did not ask for it, and a message that did is handed
//! out with the time that it has left (MQTT 5, 3.3.2.3.3).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::retain::{DefaultRetainStorage, RetainStorage};
use rmqtt::types::{Retain, TimestampMillis, TopicFilter, TopicName};
use rmqtt::utils::timestamp_millis;
use tokio::sync::Mutex;
use tracing::warn;

use super::store::Store;

/// rmqtt's seam for retained messages.
#[derive(Clone)]
pub(super) struct Retained {
    inner: Arc<Inner>,
}

struct Inner {
    memory: DefaultRetainStorage,
    store: Arc<Store>,
    limit: usize,
    /// Keeps the order of two writers of one topic the same in memory and in the store.
    order: Mutex<()>,
}

fn asked_expiry(retain: &Retain) -> Option<Duration> {
    let seconds = retain.publish.properties.as_ref()?.message_expiry_interval?;
    Some(Duration::from_secs(u64::from(seconds.get())))
}

impl Retained {
    /// Loads what the store has.
    pub(super) async fn load(store: Arc<Store>, limit: usize) -> Self {
        let memory = DefaultRetainStorage::new();
        let now = timestamp_millis();
        for (topic, retain, expires_at) in store.all_retained(now) {
            let left = expires_at.map(|at| Duration::from_millis(u64::try_from(at - now).unwrap_or(0)));
            if let Err(e) = memory.set_with_timeout(&TopicName::from(topic), retain, left).await {
                warn!(error = %e, "retained message not restored");
            }
        }
        Self { inner: Arc::new(Inner { memory, store, limit, order: Mutex::new(()) }) }
    }

    /// Removes what has expired, in memory and in the store.
    pub(super) async fn sweep(&self) {
        self.inner.memory.remove_expired_messages().await;
        let store = self.inner.store.clone();
        let swept = tokio::task::spawn_blocking(move || store.sweep_retained(timestamp_millis())).await;
        if let Err(e) = swept {
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
        let inner = &self.inner;
        let _order = inner.order.lock().await;
        if retain.publish.payload.is_empty() {
            inner.store.remove_retained(topic);
            return inner.memory.set_with_timeout(topic, retain, None).await;
        }
        let full = usize::try_from(inner.memory.count().await).unwrap_or(0) >= inner.limit;
        if full && inner.memory.get_message(topic).await?.is_empty() {
            warn!(limit = inner.limit, "retained store is full: message delivered but not kept");
            return Ok(());
        }
        let now = timestamp_millis();
        retain.publish.create_time.get_or_insert(now);
        let expiry = asked_expiry(&retain);
        let expires_at = expiry
            .map(|e| now.saturating_add(TimestampMillis::try_from(e.as_millis()).unwrap_or(TimestampMillis::MAX)));
        let retain = inner.store.put_retained(topic, &retain, expires_at).unwrap_or(retain);
        inner.memory.set_with_timeout(topic, retain, expiry).await
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let now = timestamp_millis();
        let found = self.inner.memory.get_message(filter).await?;
        Ok(found.into_iter().map(|(topic, retain)| (topic, aged(retain, now))).collect())
    }

    async fn count(&self) -> isize {
        self.inner.memory.count().await
    }

    async fn max(&self) -> isize {
        self.inner.memory.max().await
    }
}
