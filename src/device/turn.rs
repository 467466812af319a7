//! TurnCache and TurnForwarder, wired: the providers in their order, the last grant on disk, and the box's own road to the servers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use r58_actors::House;
use r58_actors::fleet_link::identity::Identity;
use r58_actors::fleet_link::trust::Trust;
use r58_actors::state::TurnRoad;
use r58_actors::supervision::Duty;
use r58_actors::turn::forwarder::{ForwarderSettings, Shelf, TurnForwarder};
use r58_actors::turn::providers::{
    CLOUDFLARE_BASE, Cloudflare, FleetApi, IceProvider, SharedSecret, http_builder, http_client,
};
use r58_actors::turn::{IceSnapshot, StoredGrant, TurnCache, TurnSettings as CacheSettings};
use r58_mqtt::durable::KeyValue;
use r58_pipelines::forwarder::Forwarders;
use tokio::sync::watch;

use crate::config::TurnSettings;

/// The last words of both actors.
#[derive(Clone)]
pub struct Ice {
    /// For guests' pages: as the provider gave it.
    pub guests: watch::Receiver<IceSnapshot>,
    /// For the box's own peers: what they can speak to.
    pub peers: watch::Receiver<IceSnapshot>,
    /// How the box reaches each TURN server.
    pub roads: watch::Receiver<Vec<TurnRoad>>,
}

/// Engages both; what is answered always holds their last word.
///
/// # Errors
/// An HTTP client or a forwarder that cannot be set up, or a file of certificates without one in it.
pub fn engage(
    house: &House,
    settings: &TurnSettings,
    trust: &Trust,
    device_id: &str,
    store: Arc<dyn KeyValue>,
    identity: watch::Receiver<Option<Identity>>,
) -> Result<Ice> {
    let http = http_client().context("cannot set up the HTTP client")?;
    let ttl = Duration::from_secs(settings.ttl_seconds);
    let mut providers: Vec<Arc<dyn IceProvider>> = Vec::new();
    if settings.fleet {
        let own = trust.believe(http_builder()).map_err(anyhow::Error::msg).context("device.link.ca_file")?;
        let own = own.build().context("cannot set up the HTTP client")?;
        providers.push(Arc::new(FleetApi::new(own, identity.clone())));
    }
    if let (Some(key), Some(file)) = (&settings.cloudflare_key_id, &settings.cloudflare_token_file) {
        providers.push(Arc::new(Cloudflare::new(http, CLOUDFLARE_BASE, key, file.clone(), ttl)));
    }
    if let Some(file) = &settings.shared_secret_file {
        providers.push(Arc::new(SharedSecret::new(settings.shared_urls.clone(), file.clone(), device_id, ttl)));
    }
    let (snapshots, guests) = watch::channel(CacheSettings::first_snapshot(&settings.stun));
    let cache = CacheSettings {
        providers,
        stun: settings.stun.clone(),
        cache: Some(Arc::new(StoredGrant::new(store))),
        identity,
        snapshots,
    };
    house.engage(Duty::new("turn", "turn cache"), move |life| TurnCache::new(life, cache.clone()));

    let extra = settings.ca_file.as_ref();
    let extra = extra.map(|file| std::fs::read(file).with_context(|| format!("cannot read {}", file.display())));
    let forwarders = Forwarders::new(extra.transpose()?.as_deref()).context("device.turn")?;
    let (peers_out, peers) = watch::channel(CacheSettings::first_snapshot(&settings.stun));
    let (roads_out, roads) = watch::channel(Vec::new());
    let forwarder = ForwarderSettings {
        shelf: Shelf::new(forwarders),
        provided: guests.clone(),
        peers: peers_out,
        roads: roads_out,
    };
    house.engage(Duty::new("turn", "turn forwarder"), move |life| TurnForwarder::new(life, forwarder.clone()));
    Ok(Ice { guests, peers, roads })
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
