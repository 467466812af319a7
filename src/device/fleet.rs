//! The box's end of its fleet, wired: where outbox and journal live, what commands may do, what the fleet sees.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use r58_actors::House;
use r58_actors::bundle::MakeBundle;
use r58_actors::device::DeviceHandle;
use r58_actors::fleet_link::actors::ActorsView;
use r58_actors::fleet_link::adapters::MixerByDoors;
use r58_actors::fleet_link::config::{ConfigDesk, ConfigSeam};
use r58_actors::fleet_link::identity::{Identity, Secret};
use r58_actors::fleet_link::open::BrokerWay;
use r58_actors::fleet_link::operations::Operations;
use r58_actors::fleet_link::requests::Requests;
use r58_actors::fleet_link::trust::Trust;
use r58_actors::fleet_link::{FleetLink, FleetLinkSettings, Sources};
use r58_actors::governor::Metrics;
use r58_actors::host::{Host, RecordingHost, SystemHost, next_boot_seq};
use r58_actors::log_tail::LogLink;
use r58_actors::state::FleetState;
use r58_actors::supervision::{Door, Duty, RestartPolicy};
use r58_actors::turn::IceSnapshot;
use r58_mqtt::durable::KeyValue;
use tokio::sync::watch;

use crate::config::{DeviceSettings, HostKind, LinkSettings, secret_in};

/// How often the fleet is told of a changed state and of new pictures, by the protocol.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Pauses between restarts of the link.
const SOON: Duration = Duration::from_secs(1);
const AT_MOST: Duration = Duration::from_secs(60);

/// What the link is given of the rest of the box.
pub struct Ends {
    /// Where commands go and pictures come from.
    pub device: DeviceHandle,
    /// Answers what the fleet asks.
    pub requests: Requests,
    /// Judges and installs changed configuration.
    pub seam: Arc<dyn ConfigSeam>,
    /// The Governor's last word.
    pub metrics: watch::Receiver<Metrics>,
    /// TurnCache's last word.
    pub ice: watch::Receiver<IceSnapshot>,
    /// Told once enrolled.
    pub identity: watch::Sender<Option<Identity>>,
    /// Told how the link stands.
    pub link: watch::Sender<FleetState>,
    /// Who makes support bundles.
    pub bundles: Door<MakeBundle>,
}

/// Engages the link.
///
/// # Errors
/// A state directory or a certificate file that cannot be read or written.
pub fn engage(
    house: &House,
    settings: &DeviceSettings,
    state_dir: &Path,
    store: Arc<dyn KeyValue>,
    ends: Ends,
) -> Result<LogLink> {
    let link = &settings.link;
    let trust = trust(link)?;
    let password = link.broker_password_file.as_deref().map(secret_in);
    let units = link.services.clone();
    let host: Arc<dyn Host> = match link.host {
        HostKind::Real => Arc::new(SystemHost::new(units)),
        HostKind::Record => Arc::new(RecordingHost::open(state_dir, units)?),
    };
    let Ends { device, requests, seam, metrics, ice, identity, link: word, bundles } = ends;
    let allowed = services(settings, house);
    let boot_seq = next_boot_seq(state_dir)?;
    let settings = FleetLinkSettings {
        device_id: settings.id.clone(),
        name: settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        state_dir: state_dir.to_owned(),
        fleet_url: link.fleet_url.clone(),
        enrolment_code: link.enrolment_code.clone().map(Secret::new),
        broker: BrokerWay { url: link.mqtt_url.clone(), password: password.transpose()?, trust },
        heartbeat_every: Duration::from_secs(link.heartbeat_seconds),
        report_every: REPORT_EVERY,
        outbox_max_bytes: link.outbox_max_mb * 1024 * 1024,
        boot_seq,
        store,
        operations: Operations {
            mixer: Arc::new(MixerByDoors::new(device.mixer.clone(), device.scenes.clone(), &settings.name)),
            actors: ActorsView { actors: house.actors_door(), restart: house.restart_door(), changes: house.changes() },
            host,
            services: allowed,
            config: Arc::new(ConfigDesk::open(state_dir, seam)),
            bundles,
        },
        requests: Some(requests),
        sources: Sources { state: device.state.clone(), metrics, ice, thumbnails: Arc::new(device.thumbnails.clone()) },
        identity,
        link: word,
    };
    // A link that flaps, or a disk that hangs for a while, is no reason to give the fleet up.
    let duty = Duty::new("fleet", "fleet link").soft(RestartPolicy::patient(SOON, AT_MOST));
    let link = house.engage(duty, move |life| FleetLink::new(life, settings.clone()));
    Ok(LogLink { door: link.door(), boot_seq })
}

/// Whom the box believes on the way to its fleet, and what it shows.
///
/// # Errors
/// A file that cannot be read.
pub fn trust(link: &LinkSettings) -> Result<Trust> {
    let read = |file: &PathBuf| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    Ok(Trust {
        ca: link.ca_file.as_ref().map(read).transpose()?,
        shown: link.cert_file.clone().zip(link.key_file.clone()),
    })
}

/// The configured list; without one, the actors whose restart the programme does not notice.
fn services(settings: &DeviceSettings, house: &House) -> Vec<String> {
    if !settings.link.services.is_empty() {
        return settings.link.services.clone();
    }
    house.reports().into_iter().filter(|report| !report.essential).map(|report| report.name).collect()
}
