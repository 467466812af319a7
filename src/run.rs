//! Runs a side from its configuration: checks first, then start, then wait for the signal, then stop in order.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use r58_actors::fleet_link::identity::Secret;
use r58_actors::fleet_link::trust::Trust;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, FleetAlertSettings, FleetSettings, Settings, SmtpSettings, SmtpTlsSetting, secret_in};
use crate::fleet::alerts::plan::{AlertPlan, SmtpPlan, SmtpTls};
use crate::fleet::bundles::BundlePlan;
use crate::fleet::store::retention::RetentionPlan;
use crate::fleet::switchboard::BridgePlan;
use crate::fleet::{self, AccessPlan, BrokerPlan, FleetPlan, RetainedPlan, TurnPlan};
use crate::preflight::{self, StateDir};
use crate::proxies::TrustedProxies;
use crate::{demo, device, logging, service};

/// How long an orderly stop may take before the process leaves anyway.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Runs the box until it is told to stop.
///
/// # Errors
/// What the configuration, the checks or the start say; or that an essential actor gave up.
pub fn device(file: Option<&Path>) -> Result<()> {
    let settings = begin(config::load(file)?)?;
    blocking(async {
        let state = StateDir::claim(&settings.state_dir.join("device"))?;
        let listener = preflight::take_port("the box's pages", settings.device.listen)?;
        let device = device::start(&settings.device, &state, listener).await?;
        println!("r58: {}: multiview and switcher on {}", settings.device.id, device.url());
        service::ready(&format!("multiview and switcher on {}", device.url()));
        let outcome = tokio::select! {
            outcome = until_stopped(device.gave_up()) => outcome,
            () = device.keep_telling_systemd() => Ok(()),
        };
        service::stopping();
        stop(device.stop()).await?;
        outcome
    })
}

/// Runs the fleet server until it is told to stop.
///
/// # Errors
/// What the configuration, the checks or the start say.
pub fn fleet(file: Option<&Path>) -> Result<()> {
    let settings = begin(config::load(file)?)?;
    blocking(async {
        let state = StateDir::claim(&settings.state_dir.join("fleet"))?;
        check_fleet_ports(&settings.fleet)?;
        preflight::raise_open_files()?;
        let fleet = fleet::start(fleet_plan(&settings.fleet, state.path())?).await?;
        if let Some(admin) = &fleet.first_start {
            println!("r58: sign in as {} with the password {} (shown only now)", admin.email, admin.password);
        }
        if let Some(broker) = fleet.broker_url() {
            println!("r58: MQTT broker on {broker}");
        }
        println!("r58: fleet server on {}", fleet.url());
        service::ready(&format!("fleet server on {}", fleet.url()));
        let outcome = tokio::select! {
            outcome = until_stopped(std::future::pending()) => outcome,
            () = fleet.keep_telling_systemd() => Ok(()),
        };
        service::stopping();
        stop(fleet.stop()).await?;
        outcome
    })
}

/// Writes a back-up of the fleet server, which may be running.
///
/// # Errors
/// What the configuration says, or what cannot be read or written.
pub fn backup(file: Option<&Path>, to: &Path) -> Result<()> {
    let settings = begin(config::load(file)?)?;
    blocking(async {
        let plan = fleet_plan(&settings.fleet, &settings.state_dir.join("fleet"))?;
        let written = fleet::backup::backup(&plan, to, config::elsewhere(file, &settings.fleet)).await?;
        let (at, bundles) = (written.at.to_rfc3339(), written.bundles());
        println!("r58: {}: {at} (database, keys, support bundles: {bundles})", to.display());
        for place in &written.elsewhere {
            println!("r58: not in it, keep it too: {place}");
        }
        Ok(())
    })
}

/// Puts a back-up of the fleet server in its place again.
///
/// # Errors
/// What the configuration says, what is wrong with the file, or that the server runs or holds something.
pub fn restore(file: Option<&Path>, from: &Path, replace: bool) -> Result<()> {
    let settings = begin(config::load(file)?)?;
    blocking(async {
        let place = settings.state_dir.join("fleet");
        preflight::is_ours(&place)?;
        let state = StateDir::claim(&place)?;
        let plan = fleet_plan(&settings.fleet, state.path())?;
        let put = fleet::backup::restore(&plan, from, replace).await?;
        println!("r58: restored as of {}", put.at.to_rfc3339());
        for place in put.elsewhere.iter().filter(|place| !config::is_here(place)) {
            println!("r58: not here, and the server that was backed up had it: {place}");
        }
        Ok(())
    })
}

/// Runs the demo until it is told to stop.
///
/// # Errors
/// What the configuration, the checks or the start of either side say.
pub fn demo(file: Option<&Path>) -> Result<()> {
    let settings = begin(demo::settings(config::load(file)?))?;
    blocking(demo::run(settings))
}

/// Runs a future on an actix system of its own.
pub fn blocking<T>(future: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(future)
}

fn begin(settings: Settings) -> Result<Settings> {
    logging::start(&settings.log)?;
    // Both crypto back ends are in the graph; the process must choose before the first TLS or DTLS handshake.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(settings)
}

/// Waits for SIGINT or SIGTERM, or for `gave_up`, whose sentence then becomes the error.
///
/// # Errors
/// The sentence of `gave_up`.
pub async fn until_stopped(gave_up: impl Future<Output = String>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        sentence = gave_up => bail!(sentence),
    }
}

/// Runs an orderly stop within [`STOP_WITHIN`].
///
/// # Errors
/// That it took longer; the process then leaves as it is.
pub async fn stop(stopping: impl Future<Output = ()>) -> Result<()> {
    if tokio::time::timeout(STOP_WITHIN, stopping).await.is_err() {
        bail!("could not stop in order within {} s", STOP_WITHIN.as_secs());
    }
    Ok(())
}

/// Proves that the ports of a fleet server are free.
///
/// # Errors
/// Names the port and its duty.
pub fn check_fleet_ports(settings: &FleetSettings) -> Result<()> {
    preflight::port_is_free("the fleet server", settings.listen)?;
    if settings.broker.url.is_none() {
        preflight::port_is_free("the MQTT broker", settings.broker.listen)?;
    }
    Ok(())
}

/// What the fleet server is to be, from its settings.
///
/// # Errors
/// A password file that cannot be read.
pub fn fleet_plan(settings: &FleetSettings, state_dir: &Path) -> Result<FleetPlan> {
    let turn = &settings.turn;
    Ok(FleetPlan {
        listen: settings.listen,
        tls: settings.tls.files(),
        public_url: settings.public_url.clone(),
        database_url: settings.database_url.clone(),
        trusted_proxies: TrustedProxies::new(&settings.trusted_proxies)?,
        database_password: database_password(settings)?,
        retention: RetentionPlan {
            raw_days: settings.retention.raw_days,
            minute_days: settings.retention.minute_days,
            hour_days: settings.retention.hour_days,
        },
        keys_dir: settings.keys_dir.clone(),
        state_dir: state_dir.to_owned(),
        broker: broker_plan(settings)?,
        turn: TurnPlan {
            stun: turn.stun.clone(),
            cloudflare_key_id: turn.cloudflare_key_id.clone(),
            cloudflare_token_file: turn.cloudflare_token_file.clone(),
            shared_secret_file: turn.shared_secret_file.clone(),
            urls: turn.urls.clone(),
            ttl: Duration::from_secs(turn.ttl_seconds),
        },
        access: AccessPlan { metrics_token: metrics_token(settings)?, ..AccessPlan::default() },
        bridge: BridgePlan::default(),
        bundles: BundlePlan {
            directory: settings.bundles.directory.clone(),
            max_bytes: settings.bundles.max_mb * 1024 * 1024,
            quota_bytes: settings.bundles.quota_mb * 1024 * 1024,
            keep: Duration::from_secs(settings.bundles.keep_days * 86_400),
        },
        home_assistant: settings.home_assistant.clone(),
        alerts: alert_plan(&settings.alerts, &settings.smtp)?,
    })
}

fn alert_plan(alerts: &FleetAlertSettings, smtp: &SmtpSettings) -> Result<AlertPlan> {
    let in_file = smtp.password_file.as_deref().map(secret_in).transpose()?;
    let password = in_file.or_else(|| smtp.password.clone());
    Ok(AlertPlan {
        allow_private_targets: alerts.allow_private_targets,
        group_within: Duration::from_secs(alerts.group_seconds),
        retry_first: Duration::from_secs(alerts.retry_first_seconds),
        retry_most: Duration::from_secs(alerts.retry_most_seconds),
        attempts: alerts.attempts,
        smtp: smtp.host.clone().zip(smtp.from.clone()).map(|(host, from)| SmtpPlan {
            host,
            port: smtp.port.unwrap_or(smtp.tls.usual_port()),
            tls: match smtp.tls {
                SmtpTlsSetting::StartTls => SmtpTls::StartTls,
                SmtpTlsSetting::Tls => SmtpTls::Tls,
                SmtpTlsSetting::None => SmtpTls::None,
            },
            ca_file: smtp.ca_file.clone(),
            login: smtp.username.clone().zip(password),
            from,
        }),
    })
}

/// Shortest token for `/metrics`, in characters: nobody counts who tries.
const METRICS_TOKEN: usize = 16;

fn metrics_token(settings: &FleetSettings) -> Result<Option<Secret>> {
    let Some(file) = &settings.metrics_token_file else { return Ok(None) };
    let token = secret_in(file)?;
    if token.expose().chars().count() < METRICS_TOKEN {
        bail!("{} has fewer than {METRICS_TOKEN} characters", file.display());
    }
    Ok(Some(token))
}

fn database_password(settings: &FleetSettings) -> Result<Option<Secret>> {
    let in_file = settings.database_password_file.as_deref().map(secret_in).transpose()?;
    Ok(in_file.or_else(|| settings.database_password.clone()))
}

fn broker_plan(fleet: &FleetSettings) -> Result<BrokerPlan> {
    let settings = &fleet.broker;
    let Some(url) = &settings.url else {
        let tls = fleet.tls.for_broker(settings);
        let retained = RetainedPlan {
            messages: usize::try_from(settings.max_retained)?,
            bytes: usize::try_from(settings.max_retained_mb * 1_000_000)?,
        };
        let public_url = settings.public_url.clone();
        return Ok(BrokerPlan::Embedded { listen: settings.listen, tls, public_url, retained });
    };
    let read = |file: &Option<PathBuf>| -> Result<Option<String>> {
        Ok(file.as_deref().map(secret_in).transpose()?.map(|secret| secret.expose().to_owned()))
    };
    let bytes = |file: &PathBuf| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    Ok(BrokerPlan::Url {
        url: url.clone(),
        username: settings.username.clone(),
        password: read(&settings.password_file)?,
        trust: Trust {
            ca: settings.ca_file.as_ref().map(bytes).transpose()?,
            shown: settings.cert_file.clone().zip(settings.key_file.clone()),
        },
        public_url: settings.public_url.clone(),
        auth_secret: read(&settings.auth_secret_file)?,
    })
}
