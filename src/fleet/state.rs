//! What every handler of the API reaches: database, keys, live updates, and the way to the broker.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use r58_actors::ingest::ThumbnailShelf;

use super::auth::Lockout;
use super::keys::Keys;
use super::push::Hub;
use super::store::Store;
use super::turn::TurnDesk;
use super::{AccessPlan, FleetError};
use crate::problem::Problem;

/// What the API asks of the broker's side.
#[async_trait]
pub trait BrokerSide: Send + Sync {
    /// The database holds commands to publish or to withdraw: look now.
    fn commands_changed(&self);

    /// Closes a device's connection, because its token is no longer good.
    async fn disconnect(&self, device: &str);
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
    /// How browsers and boxes reach this server, without a slash at the end.
    pub public_url: String,
    /// How boxes reach the broker.
    pub mqtt_url: String,
    /// The broker's side.
    pub broker: Arc<dyn BrokerSide>,
    /// When the server started.
    pub started: Instant,
    pub(super) sign_ins: Mutex<Lockout>,
    pub(super) enrolments: Mutex<Lockout>,
}

impl Fleet {
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
