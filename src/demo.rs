//! Both sides on one machine with nothing to configure: embedded broker, fleet server, one box with four test cameras.

use anyhow::Result;
use r58_pipelines::input::SourceSpec;

use crate::config::{HostKind, InputSettings, LogSettings, SeatSettings, Settings};
use crate::preflight::{self, StateDir};
use crate::{device, fleet, run};

/// Moving pictures of the four cameras (`videotestsrc` patterns) and the pitch of each one's tone in Hz.
const CAMERAS: [(&str, f64); 4] = [("ball", 330.0), ("smpte", 440.0), ("pinwheel", 550.0), ("circular", 660.0)];

/// Fills what the demo decides itself; what a file or the environment says stays.
pub fn settings(mut settings: Settings) -> Settings {
    let device = &mut settings.device;
    if device.inputs.is_empty() {
        device.inputs = (1..).zip(CAMERAS).map(|(n, (pattern, tone_hz))| camera(n, pattern, tone_hz)).collect();
    }
    if device.seats.is_empty() {
        device.seats = (1..=2)
            .map(|n| SeatSettings { id: format!("guest{n}"), label: format!("GUEST {n}"), token: None })
            .collect();
    }
    if device.id == "r58" {
        device.id = "r58-demo".into();
        device.name = "Demo box".into();
    }
    // Whoever starts the demo reads addresses and actors; the log speaks up when something is wrong.
    if settings.log.filter == LogSettings::default().filter {
        settings.log.filter = "warn,webrtc=error,webrtc_ice=error,dtls=error,rustls=error".into();
    }
    device.rehearsal = true;
    device.webrtc.loopback = true;
    device.link.host = HostKind::Record;
    if device.link.heartbeat_seconds == 60 {
        device.link.heartbeat_seconds = 5;
    }
    settings
}

fn camera(n: usize, pattern: &str, tone_hz: f64) -> InputSettings {
    InputSettings {
        id: format!("cam{n}"),
        label: format!("CAM {n}"),
        source: SourceSpec::Test { pattern: pattern.into(), tone_hz },
    }
}

/// Starts both sides, prints where they are, waits for the signal, and stops both in order.
///
/// # Errors
/// The first thing that is missing or in the way, before anything is half up.
pub async fn run(mut settings: Settings) -> Result<()> {
    let fleet_state = StateDir::claim(&settings.state_dir.join("fleet"))?;
    let device_state = StateDir::claim(&settings.state_dir.join("device"))?;
    run::check_fleet_ports(&settings.fleet)?;
    let listener = preflight::take_port("the box's pages", settings.device.listen)?;
    device::check_media()?;

    let fleet = fleet::start(run::fleet_plan(&settings.fleet, fleet_state.path())?).await?;
    settings.device.link.fleet_url = Some(fleet.url());
    // The broker's port may be another one than at the first start.
    settings.device.link.mqtt_url = fleet.broker_url();
    if settings.device.link.enrolment_code.is_none() {
        settings.device.link.enrolment_code = Some(fleet.create_enrolment_code().await?);
    }
    let device = match device::start(&settings.device, &device_state, listener).await {
        Ok(device) => device,
        Err(error) => {
            run::stop(fleet.stop()).await?;
            return Err(error);
        }
    };
    announce(&settings, &fleet, &device);
    let outcome = run::until_stopped(device.gave_up()).await;
    println!("r58: stopping");
    run::stop(async {
        device.stop().await;
        fleet.stop().await;
    })
    .await?;
    println!("r58: stopped in order");
    outcome
}

fn announce(settings: &Settings, fleet: &fleet::FleetHandle, device: &device::DeviceSide) {
    println!();
    println!("  multiview and switcher   {}", device.url());
    for seat in device.seats() {
        println!("  guest link, {:<12} {}", seat.label, seat.join_url);
    }
    println!("  actor tree               {}status", device.url());
    println!("  fleet server, dashboard  {}/", fleet.url());
    if let Some(broker) = fleet.broker_url() {
        println!("  MQTT broker              {broker}");
    }
    println!("  state                    {}", settings.state_dir.display());
    match &fleet.first_start {
        Some(admin) => {
            println!("  sign in                  {}  password  {}  (shown only now)", admin.email, admin.password)
        }
        None => println!("  sign in                  as before; the password was shown at the first start"),
    }
    println!();
    println!("  Ctrl-C stops everything in order.");
    println!();
}
