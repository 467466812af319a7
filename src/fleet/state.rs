//! What every handler of the API reaches: database, keys, live updates, and the way to the broker.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::web::Bytes;
use async_trait::async_trait;
use chrono::Utc;
use r58_actors::caller::{Ask, LiveLog};
use r58_actors::ingest::{IngestStats, ThumbnailShelf};
use r58_actors::supervision::ActorReport;
use r58_mqtt::DeviceAddress;
use r58_mqtt::payload::Response;
use r58_mqtt::request::CallError;
use tokio::sync::broadcast;

use super::alerts::plan::AlertPlan;
use super::api::devices::states::GroupBy;
use super::auth::Lockout;
use super::bundles::BundleFiles;
use super::doorkeeper::Doorkeeper;
use super::gatekeeper::Gatekeeper;
use super::kept::Kept;
use super::keys::Keys;
use super::meters::Meters;
use super::push::Hub;
use super::store::{Store, TagCount};
use super::switchboard::Switchboard;
use super::turn::TurnDesk;
use super::{AccessPlan, FleetError};
use crate::problem::Problem;
use crate::proxies::TrustedProxies;

/// What the API asks of the broker's side.
#[async_trait]
pub trait BrokerSide: Send + Sync {
    /// The database holds commands to publish or to withdraw: look now.
    fn commands_changed(&self);

    /// Closes a device's connection, because its token is no longer good.
    async fn disconnect(&self, device: &str);

    /// Asks a box something and waits for its answer, for at most eight seconds.
    async fn ask(&self, device: DeviceAddress, ask: Ask) -> Result<Response, CallError>;

    /// What boxes say of their logs while somebody watches.
    fn logs(&self) -> broadcast::Receiver<LiveLog>;

    /// How the broker and the actors on it are.
    async fn figures(&self) -> BrokerFigures;
}

/// How the broker and the actors on it are.
#[derive(Debug, Default)]
pub struct BrokerFigures {
    /// Clients of the embedded broker.
    pub connections: Option<usize>,
    /// What Ingest counted; `None` while it does not answer.
    pub ingest: Option<IngestStats>,
    /// The server's actors.
    pub actors: Vec<ActorReport>,
}

/// Where browsers and boxes find the server and its broker.
#[derive(Debug, Clone)]
pub struct Places {
    /// As configured, without a slash at the end.
    pub public_url: Option<String>,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Whether it speaks TLS itself.
    pub https: bool,
    /// As configured, or where the broker listens.
    pub mqtt_url: String,
}

impl Places {
    /// The server's address for a caller that reached it as `host` (its `Host` header).
    pub fn public_url(&self, host: &str) -> String {
        match &self.public_url {
            Some(url) => url.clone(),
            None if self.listen.ip().is_unspecified() => format!("{}://{host}", self.scheme()),
            None => format!("{}://{}", self.scheme(), self.listen),
        }
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The broker's address for that caller.
    pub fn mqtt_url(&self, host: &str) -> String {
        let Some((scheme, address)) = self.mqtt_url.split_once("://") else { return self.mqtt_url.clone() };
        match address.parse::<SocketAddr>() {
            Ok(listen) if listen.ip().is_unspecified() => {
                let url = self.public_url(host);
                let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let authority = authority.split('/').next().unwrap_or_default();
                // Without the port, which an IPv6 address in brackets also has colons before.
                let name = match authority.rsplit_once(':') {
                    Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
                    _ => authority,
                };
                format!("{scheme}://{name}:{}", listen.port())
            }
            _ => self.mqtt_url.clone(),
        }
    }
}

/// Shared by all handlers.
pub struct Fleet {
    /// The database.
    pub store: Store,
    /// The server's keys.
    pub keys: Keys,
    /// Live updates.
    pub hub: Hub,
    /// Latest pictures.
    pub thumbnails: ThumbnailShelf,
    /// Source of ICE servers.
    pub turn: TurnDesk,
    /// Rules of access.
    pub access: AccessPlan,
    /// How the server is reached.
    pub places: Places,
    /// The broker's side.
    pub broker: Arc<dyn BrokerSide>,
    /// Files of support bundles.
    pub bundles: BundleFiles,
    /// How people are told of alerts.
    pub alerts: AlertPlan,
    /// Lines of the WebSocket bridge.
    pub switchboard: Switchboard,
    /// When the server started.
    pub started: Instant,
    /// Who may say for whom it calls.
    pub proxies: TrustedProxies,
    /// What is counted and measured over time.
    pub meters: Meters,
    /// How often guests may knock.
    pub doorkeeper: Doorkeeper,
    /// Counts by tag of large organizations.
    pub tag_counts: Kept<String, Arc<[TagCount]>>,
    /// Maps of large organizations, as they are answered.
    pub maps: Kept<(String, GroupBy), Bytes>,
    pub(super) broker_gate: Option<BrokerGate>,
    pub(super) sign_ins: Mutex<Lockout>,
    pub(super) enrolments: Mutex<Lockout>,
}

/// What the nodes of a foreign broker ask.
pub(super) struct BrokerGate {
    pub keeper: Gatekeeper,
    /// SHA-256 of what a node shows.
    pub secret_hash: String,
    pub failures: Mutex<Lockout>,
}

impl Fleet {
    /// The address of whoever asks: rates, lock-out and log lines go by it.
    ///
    /// # Errors
    /// 400 where the connection has none.
    pub fn client(&self, request: &HttpRequest) -> Result<IpAddr, Problem> {
        self.proxies.client(request).ok_or_else(|| Problem::bad_request("the connection has no address"))
    }

    /// Refuses a caller that failed too often.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn check_lockout(lockout: &Mutex<Lockout>, account: &str, from: IpAddr) -> Result<(), Problem> {
        let wait = lockout.lock().unwrap_or_else(PoisonError::into_inner).must_wait(account, from, Instant::now());
        match wait {
            None => Ok(()),
            Some(wait) => Err(too_many(wait)),
        }
    }

    /// Notes how an attempt ended.
    pub fn note_attempt(lockout: &Mutex<Lockout>, account: &str, from: IpAddr, good: bool) {
        let mut lockout = lockout.lock().unwrap_or_else(PoisonError::into_inner);
        match good {
            true => lockout.succeeded(account, from),
            false => lockout.failed(account, from, Instant::now()),
        }
    }

    /// Notes the public half of the command key, so that it is known when the key is another one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_key(&self) -> Result<(), FleetError> {
        let key = self.keys.commands.public_key();
        Ok(self.store.note_server_key(&key.kid, &key.public_key, Utc::now()).await?)
    }
}

fn too_many(wait: Duration) -> Problem {
    Problem::new(actix_web::http::StatusCode::TOO_MANY_REQUESTS, "too many failed attempts; wait a little")
        .retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_found_where_the_caller_found_it() {
        let places = |public: Option<&str>, listen: &str, mqtt: &str| Places {
            public_url: public.map(str::to_owned),
            listen: listen.parse().unwrap(),
            https: false,
            mqtt_url: mqtt.to_owned(),
        };
        let here = places(None, "127.0.0.1:8180", "mqtt://127.0.0.1:1883");
        assert_eq!(
            (here.public_url("evil"), here.mqtt_url("evil")),
            ("http://127.0.0.1:8180".into(), "mqtt://127.0.0.1:1883".into())
        );
        let open = places(None, "0.0.0.0:8180", "mqtt://0.0.0.0:1883");
        assert_eq!(
            (open.public_url("box.lan:8180"), open.mqtt_url("box.lan:8180")),
            ("http://box.lan:8180".into(), "mqtt://box.lan:1883".into())
        );
        assert_eq!(open.mqtt_url("[fd00::1]:8180"), "mqtt://[fd00::1]:1883");
        let own = Places { https: true, ..open };
        assert_eq!(own.public_url("box.lan:8180"), "https://box.lan:8180");
        let named = places(Some("https://fleet.example/r58"), "0.0.0.0:8180", "mqtts://[::]:8883");
        assert_eq!(
            (named.public_url("x"), named.mqtt_url("x")),
            ("https://fleet.example/r58".into(), "mqtts://fleet.example:8883".into())
        );
    }
}
