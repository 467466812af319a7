//! The box: from its settings to running actors, a link to the fleet, and pages.
//!
//! Here is only wiring. What must be known first: [`check_media`] and the ports are proved before anything starts; the house
//! comes down in reverse order of engagement; the pages close last, so that they can show how it went.

mod access;
mod bundle_sources;
mod calls;
mod carrier;
mod config_seam;
mod fleet;
mod guest_desk;
mod http;
mod log_desk;
mod seats;
mod secrets;
mod sfu;
mod signalling;
mod turn;
mod viewer_tokens;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use anyhow::{Context, Result, bail};
use r58_actors::bundle::{BundleMaker, BundleSettings, MakeBundle, Shelf};
use r58_actors::bundle_courier::{BundleCourier, CourierSettings};
use r58_actors::device::{self as box_actors, DevicePlan, InputPlan, SeatPlan, SourceCell};
use r58_actors::fleet_link::config::ConfigSeam;
use r58_actors::fleet_link::identity;
use r58_actors::fleet_link::requests::Requests;
use r58_actors::fleet_link::trust::Trust;
use r58_actors::governor::core::Thresholds;
use r58_actors::governor::{Governor, GovernorSettings, Metrics};
use r58_actors::log_tail::{LogLink, LogTail, LogTailSettings, WatchLogs};
use r58_actors::logs::LogBook;
use r58_actors::logs::files::FileLimits;
use r58_actors::state::DeviceIdentity;
use r58_actors::state::board::Neighbours;
use r58_actors::studio::Studio;
use r58_actors::supervision::{Door, Duty, HouseSettings};
use r58_actors::{ActorState, House};
use r58_mqtt::durable::KeyValue;
use r58_pipelines::Mode;
use r58_pipelines::encoder::EncoderDesk;
use r58_pipelines::peer::{PeerFactory, PeerSettings, UdpPorts};
use r58_pipelines::profile::Profile;
use tokio::sync::{mpsc, watch};

pub use http::SeatLink;

use crate::config::{DeviceSettings, InputSettings, PressureSettings, WebrtcSettings};
use crate::preflight::StateDir;
use crate::proxies::TrustedProxies;
use crate::service::{self, Pulse};
use access::Access;
use bundle_sources::BoxSources;
use carrier::Carrier;
use config_seam::LiveConfig;
use guest_desk::GuestDesk;
use log_desk::LogDesk;
use signalling::{RatePolicy, Signalling};
use viewer_tokens::ViewerTokens;

/// Share of an orderly stop that the actors get; the rest is for pages and logs.
const ACTORS_STOP_WITHIN: Duration = Duration::from_secs(4);

/// A running box.
pub struct DeviceSide {
    house: House,
    pages: ServerHandle,
    url: String,
    seats: Vec<SeatLink>,
    gave_up: std::cell::RefCell<mpsc::UnboundedReceiver<String>>,
    studio: Studio,
    /// Where this process finds its own pages, whatever others call them.
    own: String,
}

/// Says whether GStreamer and every element that the box needs are there.
///
/// # Errors
/// Names each missing element and the Debian package that it is in.
pub fn check_media() -> Result<()> {
    r58_pipelines::check_elements().map_err(anyhow::Error::from)
}

/// Starts the box on a port that was taken before.
///
/// # Errors
/// What is missing or wrong, in one sentence; nothing is left running.
pub async fn start(settings: &DeviceSettings, state: &StateDir, listener: TcpListener) -> Result<DeviceSide> {
    check_media()?;
    let profile = Profile::load(&settings.profile)?;
    let settings = &with_ports(settings.clone(), &profile);
    if settings.inputs.is_empty() && settings.seats.is_empty() {
        bail!("nothing to mix: name [[device.inputs]] or [[device.seats]], or a device.profile with ports");
    }
    // The first guest shall not wait for the linker.
    tokio::task::spawn_blocking(r58_pipelines::guest::preload).await??;
    let address = listener.local_addr().context("the box's pages have no address")?;
    let url = base_url(settings.public_url.as_deref(), address);
    let seats = seats::links(&settings.seats, state.path(), &url)?;
    let peers = PeerFactory::new(peer_settings(&settings.webrtc)).context("cannot set up WebRTC")?;
    let enrolled = identity::load(state.path()).context("cannot read the box's identity")?;

    let directory = state.path().to_owned();
    let store = tokio::task::spawn_blocking(move || turn::open_store(&directory)).await??;
    let viewers = store.clone();
    let private = settings.seats.iter().map(|seat| seat.id.clone()).collect();
    let viewers = Arc::new(tokio::task::spawn_blocking(move || ViewerTokens::open(viewers, private)).await??);

    let book = crate::logging::book();
    secrets::learn(book.redactor(), settings, &seats);
    if let Err(error) = book.keep_in(&state.path().join("logs"), FileLimits::default()) {
        // A box that cannot keep its log still has a programme to make.
        tracing::warn!(%error, "the log is kept in memory only");
    }

    let (lost, gave_up) = mpsc::unbounded_channel();
    let house = House::open(HouseSettings {
        on_lost_duty: Arc::new(move |name, cause| {
            let _ = lost.send(format!("{name} could not be kept up: {cause}"));
        }),
        ..HouseSettings::default()
    });
    tell_who_comes_up(&house);

    let org = enrolled.as_ref().map(|identity| identity.org.clone()).unwrap_or_default();
    let (identities, identity) = watch::channel(enrolled);
    let links = guest_desk::Links { own: url.clone(), identity: identity.clone() };
    let identity_for_bundles = identity.clone();
    let trust = fleet::trust(&settings.link)?;
    let ice = turn::engage(&house, &settings.turn, &trust, &settings.id, store.clone(), identity)?;
    secrets::follow(book.redactor().clone(), links.identity.clone(), ice.guests.clone());
    let (metrics_out, metrics) = watch::channel(Metrics::default());
    let (fleet_out, fleet) = watch::channel(Default::default());
    let metrics_for_pages = metrics.clone();
    let neighbours = Neighbours { ice: ice.peers.clone(), roads: ice.roads, metrics: metrics.clone(), fleet };
    let cells: BTreeMap<_, _> =
        settings.inputs.iter().map(|input| (input.id.clone(), SourceCell::new(input.source.clone()))).collect();
    let plan = device_plan(settings, &profile, &seats, &org, &cells, store.clone());
    let device = box_actors::start(&house, plan, peers, neighbours)?;

    let sfu = sfu::engage(&house, &settings.sfu, &device)?;
    let governor = GovernorSettings {
        state_dir: state.path().to_owned(),
        thresholds: thresholds(&settings.pressed_at),
        peers: device.governed.clone(),
        metrics: metrics_out,
    };
    house.engage(Duty::new("governor", "governor"), move |life| Governor::new(life, governor.clone()));
    let signalling =
        Arc::new(Signalling::new(device.clone(), ice.guests.clone(), viewers.clone(), RatePolicy::default()));
    let desk = Arc::new(GuestDesk::new(device.clone(), ice.guests.clone(), ice.peers.clone(), links, sfu.is_some()));
    let calls = Arc::new(calls::Calls::new(device.clone(), sfu, ice.guests.clone(), signalling.clone()));
    // The link and the tail need each other: the tail speaks by the link's door, the link hands requests to the tail's.
    let (tail_in, tail) = log_tail(&house, book.clone());
    let logs = Arc::new(LogDesk { book: book.clone(), watch: tail });
    let carrier =
        Carrier { signalling: signalling.clone(), calls: calls.clone(), desk: desk.clone(), logs: logs.clone() };
    let seam: Arc<dyn ConfigSeam> = Arc::new(LiveConfig::new(settings, cells));
    let sources = BoxSources {
        settings: settings.clone(),
        seam: seam.clone(),
        house: house.clone(),
        device: device.clone(),
        book: book.clone(),
    };
    let bundles = bundles(&house, settings, state.path(), sources, metrics.clone(), identity_for_bundles, trust);
    let ends = fleet::Ends {
        device: device.clone(),
        requests: Requests::new(Arc::new(carrier)),
        seam,
        metrics,
        ice: ice.guests.clone(),
        identity: identities,
        link: fleet_out,
        bundles,
    };
    tail_in.send_replace(Some(fleet::engage(&house, settings, state.path(), store, ends)?));

    let own = if address.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
    } else {
        address
    };
    let own = format!("http://{own}/");
    let studio = device.studio.clone();
    let check = http::SelfCheck { url: own.clone(), crew: settings.crew_password.clone() };
    let face = http::Face {
        calls,
        logs,
        conformance: Default::default(),
        own: check,
        signalling,
        desk,
        proxies: TrustedProxies::new(&settings.trusted_proxies)?,
        access: Access::new(settings.crew_password.as_deref(), settings.public_url.as_deref()),
        device,
        house: house.clone(),
        seats: seats.clone(),
        viewers,
        base_url: url.clone(),
        ice: ice.guests,
        peer_ice: ice.peers,
        metrics: metrics_for_pages,
        since: Instant::now(),
    };
    let pages = http::serve(listener, Arc::new(face)).context("cannot serve the box's pages")?;
    Ok(DeviceSide { house, pages, url, seats, gave_up: gave_up.into(), studio, own })
}

impl DeviceSide {
    /// Base address of the pages, with a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The guests' links.
    pub fn seats(&self) -> &[SeatLink] {
        &self.seats
    }

    /// Resolves when an essential actor could not be kept up, with a sentence that names it.
    pub async fn gave_up(&self) -> String {
        let told = std::future::poll_fn(|context| self.gave_up.borrow_mut().poll_recv(context)).await;
        match told {
            Some(sentence) => sentence,
            None => std::future::pending().await,
        }
    }

    /// Lives for as long as programme frames leave the compositor and the pages answer.
    pub async fn keep_telling_systemd(&self) {
        let (client, url) = (reqwest::Client::new(), format!("{}health", self.own));
        let pulse = std::cell::RefCell::new(Pulse::default());
        service::keep_telling(async || {
            let frames = self.studio.programme().stats().map(|stats| stats.frames);
            pulse.borrow_mut().handle_count(frames) && service::answers(&client, &url).await
        })
        .await;
    }

    /// Stops the actors, those that others depend on last, then the pages.
    pub async fn stop(self) {
        let hanging = self.house.stop(ACTORS_STOP_WITHIN).await;
        if !hanging.is_empty() {
            tracing::warn!(actors = hanging.join(", "), "left behind at the stop: they hang in something");
        }
        self.pages.stop(false).await;
    }
}

/// Where the tail finds the fleet link once that is engaged.
type LinkDoor = watch::Sender<Option<LogLink>>;

/// Engages what tells the log live.
fn log_tail(house: &House, book: LogBook) -> (LinkDoor, Door<WatchLogs>) {
    let (door_in, link) = watch::channel(None);
    let settings = LogTailSettings { book, link };
    let tail = house.engage(Duty::new("fleet", "log tail"), move |life| LogTail::new(life, settings.clone()));
    (door_in, tail.door())
}

/// Engages what makes support bundles and what takes them to the fleet.
fn bundles(
    house: &House,
    settings: &DeviceSettings,
    state_dir: &Path,
    sources: BoxSources,
    metrics: watch::Receiver<Metrics>,
    identity: watch::Receiver<Option<identity::Identity>>,
    trust: Trust,
) -> Door<MakeBundle> {
    let shelf = Shelf::new(state_dir.join("bundles"));
    let (made_in, made) = watch::channel(0);
    let maker = BundleSettings {
        shelf: shelf.clone(),
        max_bytes: settings.link.bundle_max_mb * 1024 * 1024,
        book: sources.book.clone(),
        log_directory: state_dir.join("logs"),
        sources: Arc::new(sources),
        metrics,
        made: made_in,
    };
    let door =
        house.engage(Duty::new("fleet", "bundle maker"), move |life| BundleMaker::new(life, maker.clone())).door();
    let courier = CourierSettings { shelf, identity, fleet_url: settings.link.fleet_url.clone(), trust, made };
    house.engage(Duty::new("fleet", "bundle courier"), move |life| BundleCourier::new(life, courier.clone()));
    door
}

/// One line for each actor when it first runs.
fn tell_who_comes_up(house: &House) {
    let (house, mut changes) = (house.clone(), house.changes());
    actix_rt::spawn(async move {
        let mut told = std::collections::BTreeSet::new();
        loop {
            for report in house.reports() {
                if report.state == ActorState::Running && told.insert(report.name.clone()) {
                    println!("r58: {} is up", report.name);
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Without configured inputs, those of the hardware profile.
fn with_ports(mut settings: DeviceSettings, profile: &Profile) -> DeviceSettings {
    if settings.inputs.is_empty() {
        let ports = profile.ports.iter();
        settings.inputs = ports
            .map(|port| InputSettings { id: port.id.clone(), label: port.label.clone(), source: port.source() })
            .collect();
    }
    settings
}

fn device_plan(
    settings: &DeviceSettings,
    profile: &Profile,
    seats: &[SeatLink],
    org: &str,
    cells: &BTreeMap<String, SourceCell>,
    store: Arc<dyn KeyValue>,
) -> DevicePlan {
    let programme = &settings.programme;
    DevicePlan {
        device: DeviceIdentity {
            id: settings.id.clone(),
            name: settings.name.clone(),
            org: org.to_owned(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        mode: Mode::new(programme.width, programme.height, programme.fps),
        bitrate_kbps: programme.bitrate_kbps,
        encoders: EncoderDesk::new(profile, (programme.encoder != "auto").then_some(programme.encoder.as_str())),
        inputs: settings
            .inputs
            .iter()
            .map(|input| InputPlan {
                id: input.id.clone(),
                label: seats::label(&input.label, &input.id),
                source: cells.get(&input.id).cloned().unwrap_or_else(|| SourceCell::new(input.source.clone())),
            })
            .collect(),
        seats: seats
            .iter()
            .map(|seat| SeatPlan { id: seat.id.clone(), label: seat.label.clone(), token: seat.token.clone() })
            .collect(),
        rehearsal: settings.rehearsal,
        viewers_most: settings.webrtc.most_viewers,
        seat_policy: Default::default(),
        guest_latency: Default::default(),
        store,
    }
}

fn thresholds(pressed: &PressureSettings) -> Thresholds {
    Thresholds {
        cpu_percent: pressed.cpu_percent,
        mem_percent: pressed.mem_percent,
        // Judged to be no less than nothing.
        disk_free: pressed.disk_free_gb.map(|gigabytes| (gigabytes * 1e9) as u64),
    }
}

fn peer_settings(webrtc: &WebrtcSettings) -> PeerSettings {
    PeerSettings {
        ports: match webrtc.udp_ports {
            Some((first, last)) if first == last => UdpPorts::Single(first),
            Some((first, last)) => UdpPorts::Range(first, last),
            None => UdpPorts::Any,
        },
        relay_only: webrtc.relay_only,
        loopback: webrtc.loopback,
        interfaces: webrtc.interfaces.clone(),
        ..PeerSettings::default()
    }
}

/// The configured address, or one that reaches `address` from this machine.
fn base_url(public: Option<&str>, address: SocketAddr) -> String {
    if let Some(url) = public {
        return format!("{}/", url.trim_end_matches('/'));
    }
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    format!("http://{}/", SocketAddr::new(ip, address.port()))
}
