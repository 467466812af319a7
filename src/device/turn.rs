//! TurnCache, wired: the providers in their order, and the last grant on disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use r58_actors::House;
use r58_actors::fleet_link::identity::Identity;
use r58_actors::supervision::Duty;
use r58_actors::turn::providers::{CLOUDFLARE_BASE, Cloudflare, FleetApi, IceProvider, SharedSecret, http_client};
use r58_actors::turn::{IceSnapshot, StoredGrant, TurnCache, TurnSettings as CacheSettings};
use r58_mqtt::durable::KeyValue;
use tokio::sync::watch;

use crate::config::TurnSettings;

/// Engages the cache; the answer always holds its last snapshot.
///
/// # Errors
/// An HTTP client that cannot be set up.
pub fn engage(
    house: &House,
    settings: &TurnSettings,
    device_id: &str,
    store: Arc<dyn KeyValue>,
    identity: watch::Receiver<Option<Identity>>,
) -> Result<watch::Receiver<IceSnapshot>> {
    let http = http_client().context("cannot set up the HTTP client")?;
    let ttl = Duration::from_secs(settings.ttl_seconds);
    let mut providers: Vec<Arc<dyn IceProvider>> = Vec::new();
    if settings.fleet {
        providers.push(Arc::new(FleetApi::new(http.clone(), identity.clone())));
    }
    if let (Some(key), Some(file)) = (&settings.cloudflare_key_id, &settings.cloudflare_token_file) {
        providers.push(Arc::new(Cloudflare::new(http, CLOUDFLARE_BASE, key, file.clone(), ttl)));
    }
    if let Some(file) = &settings.shared_secret_file {
        providers.push(Arc::new(SharedSecret::new(settings.shared_urls.clone(), file.clone(), device_id, ttl)));
    }
    let (snapshots, ice) = watch::channel(CacheSettings::first_snapshot(&settings.stun));
    let cache = CacheSettings {
        providers,
        stun: settings.stun.clone(),
        cache: Some(Arc::new(StoredGrant::new(store))),
        identity,
        snapshots,
    };
    house.engage(Duty::new("turn", "turn cache"), move |life| TurnCache::new(life, cache.clone()));
    Ok(ice)
}

/// Opens the box's durable store: outbox, command journal and the last grant. Blocks for as long as the disk takes.
///
/// # Errors
/// A directory that cannot be used; corrupt data are set aside and said, not an error.
pub fn open_store(state_dir: &Path) -> Result<Arc<dyn KeyValue>> {
    use r58_mqtt::durable::{Store, StoreOptions};
    let opened =
        Store::open(&state_dir.join("store"), &StoreOptions::default()).context("cannot open the box's store")?;
    if let Some((aside, reason)) = opened.quarantined {
        tracing::warn!(aside = %aside.display(), reason, "the box's store was corrupt and is set aside, a new one is begun");
    }
    Ok(Arc::new(opened.store))
}
