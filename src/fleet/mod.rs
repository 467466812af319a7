//! The fleet server: database, API, pages, and the actors between database and broker.
//!
//! | room | what lives there |
//! |---|---|
//! | `store/` | the database: one file a table family, and `apply`, which Ingest writes through |
//! | `auth/` | passwords, tokens, roles, lock-out |
//! | `api/` | the REST interface, one file a resource, and its description |
//! | `alerts/` | rules, what they find in what boxes say, and who is told |
//! | `audit` | signing and writing out the audit log |
//! | `backup` | back-up and restore |
//! | `difference` | what differs between two configurations |
//! | `push` | live updates to dashboards |
//! | `meters` | what is counted and measured over time, for `/metrics` |
//! | `rollout`, `rollouts` | staged rollouts: the pure core, and what carries it out |
//! | `kept` | answers that cost much, kept for a moment |
//! | `rehearsal` | what a device would say to a command |
//! | `bundles` | files of support bundles |
//! | `duties/` | what the server does by itself, beside answering: supervised actors |
//! | `replicas` | what several servers on one database tell each other |
//! | `broker` | embedded or remote broker, Ingest and CommandDesk on it |
//! | `home_assistant` | tells Home Assistant of boxes |
//! | `gatekeeper` | who may connect to the broker, and as what |
//! | `doorkeeper` | how often guests without an account may knock |
//! | `switchboard` | lines between older units and their controllers |
//! | `turn` | ICE servers for boxes |
//! | `vault` | secrets in the database that have to be read again |
//!
//! [`start`] brings it up from a [`FleetPlan`] and answers with a [`FleetHandle`]; nothing here reads a
//! configuration file or the environment.

pub mod alerts;
pub mod api;
pub mod audit;
pub mod auth;
pub mod backup;
mod broker;
pub mod bundles;
pub mod difference;
pub mod doorkeeper;
mod duties;
mod error;
pub mod gatekeeper;
pub mod home_assistant;
pub mod kept;
pub mod keys;
pub mod meters;
pub mod plan;
pub mod push;
pub mod rehearsal;
mod replicas;
pub mod rollout;
pub mod rollouts;
pub mod state;
pub mod store;
pub mod switchboard;
pub mod turn;
pub mod vault;

pub use error::{ErrorKind, FleetError};
pub use plan::{AccessPlan, BrokerPlan, FleetPlan, RetainedPlan, TurnPlan};

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, middleware, web};
use chrono::Utc;
use r58_actors::fleet_link::identity::Secret;
use r58_actors::supervision::ActorReport;
use ulid::Ulid;

use self::auth::certificate::ShownCertificate;
use self::auth::{Lockout, Role, password, secret};
use self::broker::BrokerDesk;
use self::bundles::BundleFiles;
use self::doorkeeper::Doorkeeper;
use self::duties::Orders;
use self::gatekeeper::Gatekeeper;
use self::home_assistant::HomeAssistantPlan;
use self::keys::Keys;
use self::push::Hub;
use self::state::{BrokerGate, Fleet, Places};
use self::store::{Actor, NewUser, Store};
use self::switchboard::Switchboard;
use self::turn::TurnDesk;
use self::vault::Vault;
use crate::certificates::{Certificates, TlsFiles};
use crate::service;

/// The organization made at the first start.
pub const DEFAULT_ORG: &str = "default";
/// Threads that serve HTTP; the work is the database's.
const WORKERS: usize = 2;
/// Requests under way get this long at a stop.
const DRAIN_SECONDS: u64 = 2;
/// A client has this long to send its request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The administrator made at the first start of a database, to be shown once.
#[derive(Clone)]
pub struct GeneratedAdmin {
    /// The address to sign in with.
    pub email: String,
    /// The generated password; only its argon2id hash is stored.
    pub password: String,
}

/// A running fleet server.
pub struct FleetHandle {
    /// Where the API and the dashboard listen.
    pub addr: SocketAddr,
    /// Where the embedded broker listens, if the server runs one.
    pub broker: Option<SocketAddr>,
    /// The administrator, if this start made one.
    pub first_start: Option<GeneratedAdmin>,
    fleet: web::Data<Fleet>,
    desk: BrokerDesk,
    http: ServerHandle,
    holder: Arc<str>,
    broker_tls: bool,
}

impl FleetHandle {
    /// Address of API and dashboard, as listened on.
    pub fn url(&self) -> String {
        format!("{}://{}", self.fleet.places.scheme(), self.addr)
    }

    /// Address of the embedded broker, as listened on.
    pub fn broker_url(&self) -> Option<String> {
        let scheme = if self.broker_tls { "mqtts" } else { "mqtt" };
        self.broker.map(|broker| format!("{scheme}://{broker}"))
    }

    /// Makes a one-time code with which a box enrols itself in the default organization; it is valid for an hour.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_enrolment_code(&self) -> Result<String, FleetError> {
        Ok(api::enrolment::code_for_companion(&self.fleet.store, DEFAULT_ORG).await?)
    }

    /// The server's own actors.
    pub fn actors(&self) -> Vec<ActorReport> {
        self.desk.actors()
    }

    /// The database, for measurements that stand beside the server.
    pub fn store(&self) -> Store {
        self.fleet.store.clone()
    }

    /// Lives for as long as it answers to HTTP. A database or broker that is away is not mended by another start of this process.
    pub async fn keep_telling_systemd(&self) {
        let own = match self.addr.ip().is_unspecified() {
            true => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.addr.port()),
            false => self.addr,
        };
        // It asks itself: whose certificate it is needs no proof.
        let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap_or_default();
        let url = format!("{}://{own}/health", self.fleet.places.scheme());
        service::keep_telling(async || service::answers(&client, &url).await).await;
    }

    /// Stops the server: no new requests, actors put down, database closed, broker last. Bounded by five seconds.
    pub async fn stop(self) {
        self.fleet.hub.close();
        self.http.stop(true).await;
        self.desk.stop().await;
        if self.fleet.store.is_shared()
            && let Err(error) = self.fleet.store.stop_leading(&self.holder).await
        {
            tracing::debug!(%error, "the lease could not be given up; it ends by itself");
        }
        self.fleet.store.close().await;
    }
}

/// Starts the fleet server and returns when it answers. Must be called within an actix system.
///
/// # Errors
/// Says in one sentence what is in the way: a port that is taken, a directory that is not writable, a database
/// that is locked. Nothing is left half up.
pub async fn start(plan: FleetPlan) -> Result<FleetHandle, FleetError> {
    let unusable = |error: std::io::Error| FleetError::Path {
        path: plan.state_dir.display().to_string(),
        reason: error.to_string(),
    };
    std::fs::create_dir_all(&plan.state_dir).map_err(unusable)?;
    backup::finish_restore(&plan).map_err(|error| FleetError::Misconfigured(format!("{error:#}")))?;
    let listener = listen(plan.listen)?;
    let addr = listener.local_addr().map_err(|error| refused(plan.listen, &error))?;
    let papers = Papers::open(&plan)?;
    let (tls, broker_tls) = (papers.api.clone(), papers.broker.is_some());
    let keys = Keys::load_or_create(plan.keys_dir.as_deref().unwrap_or(&plan.state_dir))?;
    let turn = TurnDesk::new(&plan.turn)?;
    let bundles = BundleFiles::open(plan.bundles.clone(), &plan.state_dir).map_err(unusable)?;
    let store =
        Store::open(plan.database_url.as_deref(), plan.database_password.as_ref().map(Secret::expose), &plan.state_dir)
            .await?;
    let first_start = match prepare(&store, &keys.vault, &plan.access).await {
        Ok(first_start) => first_start,
        Err(error) => {
            store.close().await;
            return Err(error);
        }
    };
    let hub = Hub::new(store.is_shared());
    let news = hub.clone();
    store.tell_of_changes(move |changes| news.kinds_changed(changes));
    let holder = replicas::holder();
    if store.is_shared() {
        // Until the lease is granted, nobody here leads. A file's only server always does.
        store.set_lease(None);
    }
    let desk = match BrokerDesk::start(&plan, &store, keys.commands.clone(), papers.broker.clone()).await {
        Ok(desk) => desk,
        Err(error) => {
            store.close().await;
            return Err(error);
        }
    };
    let public_url = plan.public_url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
    let fleet = web::Data::new(Fleet {
        store: store.clone(),
        keys,
        hub: hub.clone(),
        thumbnails: desk.thumbnails(),
        turn,
        places: Places { public_url, listen: addr, https: tls.is_some(), mqtt_url: desk.mqtt_url() },
        broker: desk.side(),
        bundles: bundles.clone(),
        alerts: plan.alerts.clone(),
        switchboard: Switchboard::new(plan.bridge),
        started: Instant::now(),
        sign_ins: Mutex::new(Lockout::new(plan.access.max_failures, plan.access.lockout)),
        doorkeeper: Doorkeeper::default(),
        tag_counts: Default::default(),
        maps: Default::default(),
        broker_gate: broker_gate(&plan, &store),
        meters: Default::default(),
        enrolments: Mutex::new(Lockout::new(plan.access.max_failures, plan.access.lockout)),
        proxies: plan.trusted_proxies,
        access: plan.access,
    });
    let served = async {
        fleet.note_key().await?;
        serve(listener, fleet.clone(), tls.as_ref())
    };
    let http = match served.await {
        Ok(http) => http,
        Err(error) => {
            desk.stop().await;
            store.close().await;
            return Err(error);
        }
    };
    let orders = Orders {
        retention: plan.retention,
        home_assistant: HomeAssistantPlan {
            organizations: plan.home_assistant,
            dashboard: fleet.places.public_url.clone(),
        },
        certificates: papers.all().collect(),
        holder: holder.clone(),
    };
    duties::engage(desk.house(), &fleet, &desk, orders);
    tracing::info!(%addr, broker = %fleet.places.mqtt_url, "fleet server is up");
    Ok(FleetHandle { addr, broker: desk.addr(), first_start, fleet, desk, http, holder, broker_tls })
}

fn refused(addr: SocketAddr, error: &std::io::Error) -> FleetError {
    FleetError::Listen { addr: addr.to_string(), reason: error.to_string() }
}

fn listen(addr: SocketAddr) -> Result<TcpListener, FleetError> {
    let listener = TcpListener::bind(addr).map_err(|error| refused(addr, &error))?;
    listener.set_nonblocking(true).map_err(|error| refused(addr, &error))?;
    Ok(listener)
}

/// Certificates of the API and of the embedded broker; where both have the same files, they share them.
struct Papers {
    api: Option<Arc<Certificates>>,
    broker: Option<Arc<Certificates>>,
}

impl Papers {
    fn open(plan: &FleetPlan) -> Result<Self, FleetError> {
        let open = |files: &TlsFiles| {
            Certificates::open(files.clone()).map_err(|wrong| FleetError::Misconfigured(wrong.message))
        };
        let api = plan.tls.as_ref().map(open).transpose()?;
        let broker = match &plan.broker {
            BrokerPlan::Embedded { tls: Some(files), .. } if plan.tls.as_ref() == Some(files) => api.clone(),
            BrokerPlan::Embedded { tls: Some(files), .. } => Some(open(files)?),
            _ => None,
        };
        Ok(Self { api, broker })
    }

    fn all(self) -> impl Iterator<Item = Arc<Certificates>> {
        let shared = self.api.as_ref().zip(self.broker.as_ref()).is_some_and(|(one, other)| Arc::ptr_eq(one, other));
        self.api.into_iter().chain(self.broker.filter(|_| !shared))
    }
}

fn serve(
    listener: TcpListener,
    fleet: web::Data<Fleet>,
    tls: Option<&Arc<Certificates>>,
) -> Result<ServerHandle, FleetError> {
    let bug = |error: &dyn std::error::Error| FleetError::Bug(error.to_string());
    let certificates = tls.cloned();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(fleet.clone())
            .wrap(middleware::Compress::default())
            .wrap(middleware::from_fn(api::gate::gate))
            .configure(api::configure)
    })
    .workers(WORKERS)
    .client_request_timeout(HEAD_WITHIN)
    .shutdown_timeout(DRAIN_SECONDS)
    .disable_signals()
    .on_connect(move |connection, extensions| {
        if let Some(shown) = certificates.as_ref().and_then(|own| ShownCertificate::of(own, connection)) {
            extensions.insert(shown);
        }
    });
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls.server_config().map_err(|error| bug(&error))?),
        None => server.listen(listener),
    };
    let server = server.map_err(|error| bug(&error))?.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}

/// Who answers the nodes of a broker that somebody else runs, and the hash of what they show.
fn broker_gate(plan: &FleetPlan, store: &Store) -> Option<BrokerGate> {
    let BrokerPlan::Url { username, password, auth_secret: Some(shown), .. } = &plan.broker else { return None };
    // Without a password nobody is let in as one of the server's own.
    let password = password.clone().unwrap_or_else(secret::token);
    let user = username.as_deref().unwrap_or_default();
    Some(BrokerGate {
        keeper: Gatekeeper::new(store.clone(), user, &password, &plan.access),
        secret_hash: secret::hash(shown),
        failures: Mutex::new(Lockout::new(plan.access.max_failures, plan.access.lockout)),
    })
}

/// Makes what an empty database needs: the default organization and its administrator.
async fn prepare(store: &Store, vault: &Vault, access: &AccessPlan) -> Result<Option<GeneratedAdmin>, FleetError> {
    let now = Utc::now();
    store.ensure_organization(DEFAULT_ORG, "Default", now).await?;
    store.index_older_tags().await?;
    store.make_usual_alert_rules(now).await?;
    store.seal_older_receivers(vault).await?;
    if store.count_users().await? > 0 {
        return Ok(None);
    }
    let password = access.admin_password.clone().unwrap_or_else(secret::password);
    let password_hash = password::hash(password.clone())
        .await
        .ok_or_else(|| FleetError::Bug("the administrator's password could not be hashed".into()))?;
    let user = NewUser {
        id: Ulid::new().to_string(),
        email: access.admin_email.to_lowercase(),
        name: "Administrator".into(),
        role: Role::Admin.as_str().into(),
        password_hash,
    };
    let server = Actor::server(DEFAULT_ORG);
    let made = store.create_user(&server, user, now).await?;
    store.set_platform(&server, &made.id, true, now).await?;
    let email = made.email;
    Ok(Some(GeneratedAdmin { email, password }))
}
