//! `r58 sim`: thousands of simulated boxes against a fleet server, for load and rehearsal.
//!
//! Each has its own enrolment, token, MQTT session (client id, will, session expiry) and the real box's link: command
//! core, journal, outbox, signature checks. Played is what a machine would do: metrics, effects, clocks, outages.
//!
//! | file | job |
//! |---|---|
//! | `script` | what happens when, from a seed; pure |
//! | `device` | one device, life after life |
//! | `works`, `look` | what commands do there, and what the box looks like |
//! | `fleet` | who belongs to it, kept in a directory; enrolment |
//! | `tally` | counters, and the closing report |
//! | `screen` | the line that moves, and keys |
//!
//! A rehearsal is rough, then calm (`--calm-after`: no outage begins any more), then it ends (`--seconds`, Ctrl-C): nothing
//! new is measured, what was measured is carried to its end, everybody says goodbye, and the report follows.

mod device;
mod fleet;
mod look;
mod screen;
pub mod script;
pub mod tally;
mod works;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use r58_actors::fleet_link::open::BrokerWay;
use r58_actors::fleet_link::trust::Trust;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::device::{Device, Orders, Phase, Shared};
use self::fleet::Fleet;
use self::screen::{Key, Screen};
use self::script::{Chaos, Script};
use self::tally::{DeviceReport, Report, Storms};
use crate::config::{LogSettings, secret_in};
use crate::{logging, preflight};

/// Files that the process needs besides one connection for each device.
const SPARE_FILES: u64 = 128;
/// How often it is looked whether a storm is over.
const WATCH_STORM: Duration = Duration::from_millis(20);
/// New devices start no faster, so that the first second is not a storm that nobody asked for.
const STARTS_PER_SECOND: u32 = 500;

/// Arguments of `r58 sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many devices.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Address of the fleet server; only needed to enrol.
    #[arg(long, env = "R58_FLEET_URL", default_value = "http://127.0.0.1:8180")]
    fleet: String,
    /// Enrolment code: one with enough uses (r58 ctl enrol --uses N), or several, separated by commas.
    #[arg(long, env = "R58_ENROLMENT_CODE", hide_env_values = true, value_delimiter = ',')]
    code: Vec<String>,
    /// Keep the fleet (tokens, outboxes, journals) in this directory: a second run is the same fleet.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// How the devices' ids begin.
    #[arg(long, default_value = "sim")]
    name: String,
    /// The same seed is the same rehearsal.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between heartbeats.
    #[arg(long, default_value_t = 60.0)]
    heartbeat: f64,
    /// Events of each device per hour.
    #[arg(long, default_value_t = 6.0)]
    events: f64,
    /// Devices of a site, which loses its network as a whole.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    site: u32,
    /// Outages of each device per hour.
    #[arg(long, default_value_t = 0.5)]
    outages: f64,
    /// Outages of each site per hour.
    #[arg(long, default_value_t = 0.1)]
    site_outages: f64,
    /// Mean length of an outage in seconds.
    #[arg(long, default_value_t = 30.0)]
    outage: f64,
    /// Share of a device's outages that cut its power, 0 to 1.
    #[arg(long, default_value_t = 0.2)]
    power_cuts: f64,
    /// Share of devices whose clock is wrong by up to ten minutes, 0 to 1.
    #[arg(long, default_value_t = 0.05)]
    wrong_clocks: f64,
    /// Share of devices whose clock is not set, 0 to 1.
    #[arg(long, default_value_t = 0.02)]
    unset_clocks: f64,
    /// Mean length of a command's effect in seconds.
    #[arg(long, default_value_t = 0.5)]
    effect: f64,
    /// Share of effects that fail, 0 to 1.
    #[arg(long, default_value_t = 0.05)]
    failures: f64,
    /// Cut everybody off for a moment every so many seconds.
    #[arg(long)]
    storm_every: Option<f64>,
    /// After so many seconds no outage begins any more, and who is away comes back.
    #[arg(long)]
    calm_after: Option<f64>,
    /// End after so many seconds; by default with Ctrl-C.
    #[arg(long)]
    seconds: Option<f64>,
    /// How long the end may take to carry everything home, in seconds.
    #[arg(long, default_value_t = 180.0)]
    settle: f64,
    /// Where the closing report goes; by default to standard output.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Address of the broker, or several separated by commas; wins over the one that enrolment gave.
    #[arg(long)]
    broker: Option<String>,
    /// PEM certificates to trust for the fleet server and the broker, besides the system's.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// File of the password for a broker where an organization's boxes share one, such as mosquitto.
    #[arg(long)]
    broker_password_file: Option<PathBuf>,
}

impl Args {
    /// The dice of the rehearsal.
    fn chaos(&self) -> Result<Chaos> {
        let span = |what: &str, seconds: f64| {
            let span = Duration::try_from_secs_f64(seconds).ok().filter(|span| *span >= Duration::from_millis(1));
            span.with_context(|| format!("--{what} wants at least 0.001 seconds"))
        };
        for (what, share) in [
            ("power-cuts", self.power_cuts),
            ("wrong-clocks", self.wrong_clocks),
            ("unset-clocks", self.unset_clocks),
            ("failures", self.failures),
        ] {
            if !(0.0..=1.0).contains(&share) {
                bail!("--{what} is a share from 0 to 1");
            }
        }
        for (what, rate) in [("outages", self.outages), ("site-outages", self.site_outages), ("events", self.events)] {
            if !(0.0..=1e6).contains(&rate) {
                bail!("--{what} is a rate per hour from 0 to 1,000,000");
            }
        }
        span("heartbeat", self.heartbeat)?;
        Ok(Chaos {
            outages: self.outages,
            site_outages: self.site_outages,
            outage: span("outage", self.outage)?,
            power_cuts: self.power_cuts,
            wrong_clocks: self.wrong_clocks,
            unset_clocks: self.unset_clocks,
            effect: span("effect", self.effect)?,
            failures: self.failures,
        })
    }
}

/// Simulates until told to stop, then reports.
///
/// # Errors
/// Arguments that make no sense, an enrolment that is refused, a limit of this machine.
pub fn run(args: Args) -> Result<()> {
    logging::start(&LogSettings { filter: "error".to_owned(), ..LogSettings::default() })?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chaos = args.chaos()?;
    enough_files(u64::from(args.devices))?;
    let fleet = Fleet::open(args.keep.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(simulate(&args, chaos, fleet))?;
    runtime.shutdown_timeout(Duration::from_secs(2));
    let text = serde_json::to_string_pretty(&report)?;
    match &args.report {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?,
        None => writeln!(std::io::stdout(), "{text}")?,
    }
    if !report.settled {
        bail!("{} entries were not acknowledged within {} s", report.pending, args.settle);
    }
    Ok(())
}

/// One connection for each device is an open file.
fn enough_files(devices: u64) -> Result<()> {
    let wanted = devices + SPARE_FILES;
    let most = preflight::raise_open_files()?;
    if most < wanted {
        bail!(
            "this process may open {most} files and {devices} devices need {wanted}: raise it with `ulimit -Hn {wanted}`"
        );
    }
    Ok(())
}

async fn simulate(args: &Args, chaos: Chaos, mut fleet: Fleet) -> Result<Report> {
    let mut screen = Screen::new(args.devices);
    let wanted = args.devices as usize;
    let ca = match &args.ca {
        Some(path) => Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
        None => None,
    };
    let password = args.broker_password_file.as_deref().map(secret_in).transpose()?;
    let trust = Trust { ca, shown: None };
    fleet.enrol(&args.fleet, &args.code, &args.name, wanted, &trust, |n| screen.enrolled(n)).await?;
    let heartbeat = Duration::from_secs_f64(args.heartbeat);
    let broker = BrokerWay { url: args.broker.clone(), password, trust };
    let shared = Arc::new(Shared::new(heartbeat, args.events, broker));
    let (orders, told) = watch::channel(Orders { phase: Phase::Rough, storms: 0 });
    let mut devices = JoinSet::new();
    let started = start(&fleet, &chaos, args, &shared, &told, &mut devices);
    let conducted = conduct(args, &shared, &orders, &mut screen);
    let (started, conducted) = tokio::join!(started, conducted);
    started?;
    let (settled, storms) = conducted?;
    orders.send_modify(|orders| orders.phase = Phase::Close);
    let mut each = Vec::with_capacity(wanted);
    while let Some(report) = devices.join_next().await {
        each.push(report.context("a simulated device panicked")?);
    }
    each.sort_by(|one, other| one.device_id.cmp(&other.device_id));
    screen.over();
    Ok(report(args.seed, &shared, settled, storms, each))
}

async fn start(
    fleet: &Fleet,
    chaos: &Chaos,
    args: &Args,
    shared: &Arc<Shared>,
    told: &watch::Receiver<Orders>,
    devices: &mut JoinSet<DeviceReport>,
) -> Result<()> {
    for (number, identity) in (0..).zip(fleet.devices()) {
        let script = Script::new(args.seed, number, number / args.site, chaos);
        let store = fleet.store_of(number);
        let (shared, told) = (shared.clone(), told.clone());
        let device = Device::new(number, identity.clone(), store, shared, script, told)?;
        devices.spawn(device.run());
        if (number + 1) % (STARTS_PER_SECOND / 10) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Leads through the phases; whether all had settled at the end, and how long storms lasted.
async fn conduct(
    args: &Args,
    shared: &Shared,
    orders: &watch::Sender<Orders>,
    screen: &mut Screen,
) -> Result<(bool, Vec<f64>)> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut user = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
    let mut keys = screen::keys();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let after = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let (calm_after, end_after) = (after(args.calm_after), after(args.seconds));
    let storm_every = after(args.storm_every).filter(|every| !every.is_zero());
    let mut next_storm = storm_every;
    let mut settle_until: Option<Instant> = None;
    let enter = |phase: Phase| {
        orders.send_if_modified(|orders| {
            let later = orders.phase < phase;
            orders.phase = orders.phase.max(phase);
            later
        })
    };
    let (mut storms, mut watch_storm) = (Storms::default(), tokio::time::interval(WATCH_STORM));
    let storm = |storms: &mut Storms| {
        storms.begin(Instant::now());
        orders.send_modify(|orders| orders.storms += 1);
    };
    loop {
        let mut end = false;
        tokio::select! {
            _ = tick.tick() => {}
            _ = watch_storm.tick(), if storms.is_under_way() => {
                storms.look(Instant::now(), shared.tally.online.get(), u64::from(args.devices));
                continue;
            }
            _ = interrupt.recv() => end = true,
            _ = terminate.recv() => end = true,
            _ = user.recv() => storm(&mut storms),
            Some(key) = keys.recv() => match key {
                Key::Storm => storm(&mut storms),
                Key::Calm => { enter(Phase::Calm); }
                Key::Quit => end = true,
            },
        }
        let passed = shared.began.elapsed();
        if calm_after.is_some_and(|at| passed >= at) {
            enter(Phase::Calm);
        }
        let phase = orders.borrow().phase;
        if next_storm.is_some_and(|at| passed >= at) && phase == Phase::Rough {
            next_storm = storm_every.map(|every| passed + every);
            storm(&mut storms);
        }
        // Asked a second time, it ends as it is.
        if end && settle_until.is_some() {
            return Ok((false, storms.into_seconds()));
        }
        if end || (settle_until.is_none() && end_after.is_some_and(|at| passed >= at)) {
            settle_until = Some(Instant::now() + Duration::try_from_secs_f64(args.settle).unwrap_or_default());
            enter(Phase::Settle);
        }
        screen.show(shared, orders.borrow().phase);
        if let Some(until) = settle_until {
            if shared.tally.settled.get() >= u64::from(args.devices) {
                return Ok((true, storms.into_seconds()));
            }
            if Instant::now() >= until {
                return Ok((false, storms.into_seconds()));
            }
        }
    }
}

fn report(seed: u64, shared: &Shared, settled: bool, storm_seconds: Vec<f64>, each: Vec<DeviceReport>) -> Report {
    let tally = &shared.tally;
    let sum = |of: fn(&DeviceReport) -> u64| each.iter().map(of).sum();
    // Linux counts it in KiB.
    let peak = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
    Report {
        seed,
        seconds: shared.began.elapsed().as_secs_f64(),
        devices: each.len(),
        online: each.iter().filter(|device| device.online).count(),
        settled,
        heartbeats: tally.heartbeats.get(),
        events: tally.events.get(),
        pending: sum(|device| device.pending),
        dropped: sum(|device| device.dropped),
        commands: tally.command_counts(),
        connections: tally.connections.get(),
        failed_connections: tally.failed_connections.get(),
        refused: tally.refused.get(),
        outages: tally.outages.get(),
        site_outages: tally.site_outages.get(),
        power_cuts: tally.power_cuts.get(),
        reboots: tally.reboots.get(),
        errors: tally.errors.get(),
        storm_seconds,
        peak_memory_bytes: u64::try_from(peak).unwrap_or(0) * 1024,
        each,
    }
}
