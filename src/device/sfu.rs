//! SfuLink, wired: only there when an app of the SFU is configured.

use anyhow::{Context, Result};
use r58_actors::device::DeviceHandle;
use r58_actors::fleet_link::identity::Secret;
use r58_actors::sfu::client::{SecretSource, SfuApp, SfuClient};
use r58_actors::sfu::{EndCall, GetCalls, PublishBySfu, SfuLink, SfuSettings as LinkSettings};
use r58_actors::supervision::Duty;
use r58_actors::{Door, House};

use crate::config::SfuSettings;

/// The doors to it.
#[derive(Clone)]
pub struct SfuDoors {
    /// A guest's offer.
    pub publish: Door<PublishBySfu>,
    /// The end of a call.
    pub end: Door<EndCall>,
    /// Who comes that way?
    pub calls: Door<GetCalls>,
}

/// Engages it, if it is configured.
///
/// # Errors
/// An HTTP client that cannot be set up.
pub fn engage(house: &House, settings: &SfuSettings, device: &DeviceHandle) -> Result<Option<SfuDoors>> {
    let Some(app_id) = &settings.app_id else { return Ok(None) };
    let secret = match (&settings.secret_file, &settings.secret) {
        (Some(file), _) => SecretSource::File(file.clone()),
        (None, Some(secret)) => SecretSource::Given(secret.clone()),
        (None, None) => return Ok(None),
    };
    let app = SfuApp { base_url: settings.base_url.clone(), app_id: Secret::new(app_id.as_str()), secret };
    let link = LinkSettings {
        client: SfuClient::new(app).context("cannot set up the client of the SFU")?,
        admit: device.guests.admit_pulled.clone(),
        end: device.guests.end.clone(),
        seats: device.guests.seats.clone(),
        studio: device.studio.clone(),
    };
    let slot = house.engage(Duty::new("sfu", "sfu link"), move |life| SfuLink::new(life, link.clone()));
    Ok(Some(SfuDoors { publish: slot.door(), end: slot.door(), calls: slot.door() }))
}
