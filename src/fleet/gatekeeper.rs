//! Who may connect to the broker, and as what: asked by the embedded broker itself, and by nodes of a cluster over HTTP
//! (`api/broker_auth.rs`). A box's user name is its organization; nodes that put the common name of its certificate there say
//! its own id, which must then be its client id too.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use async_trait::async_trait;
use r58_mqtt::broker::{Authenticate, Role, Verdict};

use super::AccessPlan;
use super::auth::{self, Lockout, device, password, secret};
use super::state::Fleet;
use super::store::Store;

/// How the ids of the server's own clients begin.
const OWN_CLIENTS: &str = "fleet-";

/// Lets the server's own clients in by their password, devices by their token, and people by theirs.
pub struct Gatekeeper {
    store: Store,
    own_user: String,
    own_password: String,
    sign_ins: Mutex<Lockout>,
}

#[async_trait]
impl Authenticate for Gatekeeper {
    async fn vouches(&self, org: &str, dev: &str) -> bool {
        match self.store.device_secret(dev).await {
            Ok(held) => held.is_some_and(|(owner, _)| owner == org),
            Err(error) => {
                tracing::warn!(%error, device = dev, "whether a device is in service could not be checked");
                false
            }
        }
    }

    async fn authenticate(&self, username: &str, client_id: &str, password: &[u8]) -> Verdict {
        let Ok(password) = std::str::from_utf8(password) else { return Verdict::Denied };
        if username == self.own_user {
            let good = secret::equal(&secret::hash(password), &secret::hash(&self.own_password));
            return if good { Verdict::Allowed(Role::Fleet) } else { Verdict::Denied };
        }
        if username.contains('@') {
            return self.person(username, client_id, password).await;
        }
        match device::check_token(&self.store, client_id, password).await {
            Ok(Some(org)) if org == username || client_id == username => {
                Verdict::Allowed(Role::Device { org, dev: client_id.to_owned() })
            }
            Ok(_) => Verdict::Denied,
            Err(error) => {
                tracing::warn!(%error, device = client_id, "a device's token could not be checked");
                Verdict::Denied
            }
        }
    }
}

impl Gatekeeper {
    /// For a broker on which the server's own clients are called `own_user`.
    pub fn new(store: Store, own_user: &str, own_password: &str, access: &AccessPlan) -> Self {
        Self {
            store,
            own_user: own_user.to_owned(),
            own_password: own_password.to_owned(),
            sign_ins: Mutex::new(Lockout::new(access.max_failures, access.lockout)),
        }
    }

    /// A user of the fleet by e-mail address and password: MQTT dashboards read, operators also publish commands.
    async fn person(&self, email: &str, client_id: &str, given: &str) -> Verdict {
        // A second client of the same id would take over a box's session, or the server's own.
        let free = self.store.device_secret(client_id).await.is_ok_and(|device| device.is_none());
        if !free || client_id.starts_with(OWN_CLIENTS) {
            return Verdict::Denied;
        }
        let email = email.to_ascii_lowercase();
        // The broker does not tell where a client comes from, so an account waits as a whole.
        let from = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        if Fleet::check_lockout(&self.sign_ins, &email, from).is_err() {
            return Verdict::Denied;
        }
        let user = match self.store.user_by_email(&email).await {
            Ok(user) => user.filter(|user| user.is_active),
            Err(error) => {
                tracing::warn!(%error, "a user's password could not be checked");
                return Verdict::Denied;
            }
        };
        let right = password::verify(given.to_owned(), user.as_ref().map(|user| user.password_hash.clone())).await;
        Fleet::note_attempt(&self.sign_ins, &email, from, right);
        match user.filter(|_| right) {
            Some(user) => {
                let commands = auth::Role::from_stored(&user.role) >= auth::Role::Operator;
                Verdict::Allowed(Role::Person { org: user.org, commands })
            }
            None => Verdict::Denied,
        }
    }
}
