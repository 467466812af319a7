//! The server's side of the broker: the embedded one or somebody else's, and the actors that work on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use r58_actors::caller::{Ask, CallDevice, Caller, CallerSettings, LiveLog};
use r58_actors::fleet_link::trust::Trust;
use r58_actors::ingest::desk::{CommandDesk, DeskSettings, LookAtCommands};
use r58_actors::ingest::store::FleetStore;
use r58_actors::ingest::{FleetEvent, GetIngestStats, Ingest, IngestSettings, ThumbnailShelf};
use r58_actors::supervision::{ActorReport, Door, Duty, House, HouseSettings};
use r58_mqtt::DeviceAddress;
use r58_mqtt::broker::{BrokerSettings, EmbeddedBroker, Vouched};
use r58_mqtt::payload::Response;
use r58_mqtt::request::{CallError, DEADLINE};
use r58_mqtt::session::SessionSettings;
use r58_mqtt::sign::CommandSigner;
use rustls::pki_types::CertificateDer;
use tokio::sync::{RwLock, broadcast, watch};
use ulid::Ulid;

use super::auth::secret;
use super::gatekeeper::Gatekeeper;
use super::push::Hub;
use super::state::{BrokerFigures, BrokerSide};
use super::store::Store;
use super::{BrokerPlan, FleetError, FleetPlan, RetainedPlan};
use crate::certificates::Certificates;

/// User name of the server's own clients; no organization can be called so.
const FLEET_USER: &str = "$fleet";
/// Events that a slow dashboard feed may be behind.
const EVENTS: usize = 4_096;
/// Batches of boxes' logs that a slow watcher may be behind.
const LOGS: usize = 256;
/// A scrape waits no longer for Ingest.
const FIGURES_WITHIN: Duration = Duration::from_secs(2);
/// The actors have this long to end.
const RETIRE_WITHIN: Duration = Duration::from_secs(3);

/// What handlers reach of it.
struct Side {
    look: Door<LookAtCommands>,
    call: Door<CallDevice>,
    logs: broadcast::Sender<LiveLog>,
    embedded: Embedded,
    stats: Door<GetIngestStats>,
    house: House,
}

/// The embedded broker while it runs.
type Embedded = Arc<RwLock<Option<EmbeddedBroker>>>;

#[async_trait]
impl BrokerSide for Side {
    fn commands_changed(&self) {
        // A refused poke costs a second at most: the desk looks by itself.
        let _ = self.look.try_send(LookAtCommands);
    }

    async fn disconnect(&self, device: &str) {
        if let Some(broker) = &*self.embedded.read().await {
            broker.disconnect(device).await;
        }
    }

    async fn ask(&self, device: DeviceAddress, ask: Ask) -> Result<Response, CallError> {
        // The caller ends every call by itself before that.
        let asked = self.call.send_within(CallDevice { device, ask }, DEADLINE + Duration::from_secs(2)).await;
        asked.unwrap_or(Err(CallError::BrokerAway))
    }

    fn logs(&self) -> broadcast::Receiver<LiveLog> {
        self.logs.subscribe()
    }

    async fn figures(&self) -> BrokerFigures {
        BrokerFigures {
            connections: self.embedded.read().await.as_ref().map(EmbeddedBroker::connections),
            ingest: self.stats.send_within(GetIngestStats, FIGURES_WITHIN).await.ok(),
            actors: self.house.reports(),
        }
    }
}

/// How the server's own clients, and boxes, reach the broker.
struct Way {
    own_url: String,
    told_url: String,
    username: String,
    password: String,
    trust: Trust,
}

async fn embed(
    plan: &FleetPlan,
    store: &Store,
    listen: SocketAddr,
    tls: Option<Arc<Certificates>>,
    public_url: Option<&str>,
    retained: RetainedPlan,
) -> Result<(EmbeddedBroker, Way), FleetError> {
    let own_password = secret::token();
    let mut settings = BrokerSettings::new(plan.state_dir.join("broker"));
    settings.listen = listen;
    settings.limits.max_retained = retained.messages;
    settings.limits.max_retained_bytes = retained.bytes;
    let scheme = if tls.is_some() { "mqtts" } else { "mqtt" };
    if let Some(tls) = tls {
        settings.tls = Some(Arc::new(ForBroker::new(tls)?));
    }
    let keeper = Gatekeeper::new(store.clone(), FLEET_USER, &own_password, &plan.access);
    let started = tokio::task::spawn_blocking(move || EmbeddedBroker::start(settings, Arc::new(keeper))).await;
    let broker = started
        .map_err(|error| FleetError::Bug(error.to_string()))?
        .map_err(|error| FleetError::Broker(error.to_string()))?;
    let told_url = public_url.map_or_else(|| format!("{scheme}://{}", broker.addr()), str::to_owned);
    // Within this process, TLS would protect nothing.
    let own_url = format!("mqtt://{}", own_way(broker.inner_addr()));
    let (username, trust) = (FLEET_USER.to_owned(), Trust::default());
    Ok((broker, Way { own_url, told_url, username, password: own_password, trust }))
}

/// An address listened on, as one to connect to.
fn own_way(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, listen.port())),
        _ => listen,
    }
}

/// The server's certificates as the broker asks for them.
#[derive(Debug)]
struct ForBroker {
    certificates: Arc<Certificates>,
    config: Arc<rustls::ServerConfig>,
}

impl ForBroker {
    fn new(certificates: Arc<Certificates>) -> Result<Self, FleetError> {
        let config = certificates.server_config().map_err(|error| FleetError::Bug(error.to_string()))?;
        Ok(Self { certificates, config: Arc::new(config) })
    }
}

impl r58_mqtt::broker::Certificates for ForBroker {
    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    fn vouched(&self, chain: &[CertificateDer<'static>]) -> Option<Vouched> {
        let named = self.certificates.device(chain)?;
        let (org, dev) = (named.device.org.to_string(), named.device.device.to_string());
        Some(Vouched { org, dev, until: named.until })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.certificates.changes()
    }
}

/// What this server is called at the broker, the same at every start: only then does the broker keep for it what boxes
/// say while it is away. Servers on one database have state directories, and so names, of their own.
fn own_name(state_dir: &Path) -> Result<String, FleetError> {
    let path = state_dir.join("broker-client");
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    if held.trim().parse::<Ulid>().is_ok() {
        return Ok(held.trim().to_lowercase());
    }
    let fresh = Ulid::new().to_string().to_lowercase();
    let failed =
        |error: std::io::Error| FleetError::Path { path: path.display().to_string(), reason: error.to_string() };
    std::fs::create_dir_all(state_dir).and_then(|()| std::fs::write(&path, &fresh)).map_err(failed)?;
    Ok(fresh)
}

/// Broker and actors of one server.
pub(super) struct BrokerDesk {
    embedded: Embedded,
    addr: Option<SocketAddr>,
    mqtt_url: String,
    house: House,
    look: Door<LookAtCommands>,
    call: Door<CallDevice>,
    logs: broadcast::Sender<LiveLog>,
    stats: Door<GetIngestStats>,
    herald: SessionSettings,
    shelf: ThumbnailShelf,
    events: broadcast::Sender<FleetEvent>,
}

impl BrokerDesk {
    /// Starts the embedded broker, if the plan has one, and the actors.
    ///
    /// # Errors
    /// When the broker's port is taken, or its certificate cannot be used.
    pub async fn start(
        plan: &FleetPlan,
        store: &Store,
        signer: Arc<CommandSigner>,
        tls: Option<Arc<Certificates>>,
    ) -> Result<Self, FleetError> {
        let (embedded, way) = match &plan.broker {
            BrokerPlan::Embedded { listen, public_url, retained, .. } => {
                let (broker, way) = embed(plan, store, *listen, tls, public_url.as_deref(), *retained).await?;
                (Some(broker), way)
            }
            BrokerPlan::Url { url, username, password, trust, public_url, .. } => {
                let way = Way {
                    own_url: url.clone(),
                    told_url: public_url.clone().unwrap_or_else(|| url.clone()),
                    username: username.clone().unwrap_or_default(),
                    password: password.clone().unwrap_or_default(),
                    trust: trust.clone(),
                };
                (None, way)
            }
        };
        let (events, _) = broadcast::channel(EVENTS);
        let (logs, _) = broadcast::channel(LOGS);
        let rows: Arc<dyn FleetStore> = Arc::new(store.clone());
        let house = House::open(HouseSettings::default());
        let own = own_name(&plan.state_dir)?;
        let session = |name: &str| {
            let client = format!("fleet-{name}-{own}");
            let mut session = SessionSettings::new(&way.own_url, client, &way.username, &way.password);
            (session.ca, session.shown) = (way.trust.ca.clone(), way.trust.shown.clone());
            session
        };
        let desk = DeskSettings { session: session("desk"), store: rows.clone(), events: events.clone() };
        let desk = house.engage(Duty::new("desk", "command desk"), move |life| CommandDesk::new(life, desk.clone()));
        let look: Door<LookAtCommands> = desk.door();
        let mut ear = session("ingest");
        if store.is_shared() {
            // A broker goes on giving a server that is gone its share, for as long as its session lasts. Boxes repeat what was
            // not acknowledged; the others have to hear it.
            ear.session_expiry = Duration::ZERO;
        }
        let mut ingest = IngestSettings::new(ear, rows, events.clone());
        ingest.desk = Some(look.clone());
        let shelf = ingest.shelf.clone();
        let ingest = house.engage(Duty::new("ingest", "ingest"), move |life| Ingest::new(life, ingest.clone()));
        let stats = ingest.door();
        let caller = CallerSettings { session: session("caller"), signer, logs: logs.clone() };
        let caller = house.engage(Duty::new("caller", "caller"), move |life| Caller::new(life, caller.clone()));
        let call = caller.door();
        let herald = session("herald");
        let addr = embedded.as_ref().map(EmbeddedBroker::addr);
        let embedded = Arc::new(RwLock::new(embedded));
        Ok(Self { embedded, addr, mqtt_url: way.told_url, house, look, call, logs, stats, herald, shelf, events })
    }

    /// Where the embedded broker listens.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// What boxes are told.
    pub fn mqtt_url(&self) -> String {
        self.mqtt_url.clone()
    }

    /// For a session that tells others of boxes.
    pub fn herald(&self) -> SessionSettings {
        self.herald.clone()
    }

    /// Latest pictures.
    pub fn thumbnails(&self) -> ThumbnailShelf {
        self.shelf.clone()
    }

    /// What changed in the database.
    pub fn events(&self) -> broadcast::Sender<FleetEvent> {
        self.events.clone()
    }

    /// Where the server's actors live; what is engaged later is put down earlier.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// For handlers.
    pub fn side(&self) -> Arc<dyn BrokerSide> {
        Arc::new(Side {
            look: self.look.clone(),
            call: self.call.clone(),
            logs: self.logs.clone(),
            embedded: self.embedded.clone(),
            stats: self.stats.clone(),
            house: self.house.clone(),
        })
    }

    /// The actors.
    pub fn actors(&self) -> Vec<ActorReport> {
        self.house.reports()
    }

    /// Puts the actors down, then the broker.
    pub async fn stop(self) {
        let stuck = self.house.stop(RETIRE_WITHIN).await;
        if !stuck.is_empty() {
            tracing::warn!(?stuck, "actors did not end in time");
        }
        if let Some(broker) = self.embedded.write().await.take()
            && tokio::task::spawn_blocking(move || broker.stop()).await.is_err()
        {
            tracing::warn!("the broker did not stop in order");
        }
    }
}

/// Passes what Ingest and CommandDesk changed on to the dashboards.
pub(super) async fn bridge(mut events: broadcast::Receiver<FleetEvent>, hub: Hub) {
    loop {
        match events.recv().await {
            Ok(FleetEvent::Device(device)) => hub.devices_changed([&device]),
            Ok(FleetEvent::Command { device, id }) => hub.command_changed(device.org.as_str(), id.as_str()),
            Ok(FleetEvent::Thumbnail { device, name, seq }) => {
                hub.picture_came(device.org.as_str(), device.device.as_str(), name.as_str(), seq);
            }
            Err(broadcast::error::RecvError::Lagged(_)) => hub.missed(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
