//! What the server does by itself, beside answering: duties in rounds, each a supervised actor with a thread of its own, in one
//! house with those on the broker. One that panics or hangs begins anew; `/metrics` shows all of them.
//!
//! | actor | duty | who |
//! |---|---|---|
//! | `lease` | leads, or not | of several servers, each |
//! | `news out`, `news in` | tells the others what changed, and hears them | of several servers, each |
//! | `live updates` | from notes to what listeners are told | each |
//! | `broker news` | from what Ingest and CommandDesk changed to notes | each |
//! | `bundles` | lets go of old support bundles | each |
//! | `certificates` | follows their files | each that has some |
//! | `history` | sums heartbeats up and removes old ones | the leader |
//! | `counts` | adds up how devices moved between states | the leader |
//! | `audit` | signs heads of the audit log | the leader |
//! | `alerts` | finds what is the matter | the leader |
//! | `notify` | tells people of alerts | the leader |
//! | `rollouts` | takes rollouts further | the leader |
//! | `home assistant` | tells Home Assistant of boxes | the leader |

mod counts;
mod history;
mod lease;

use std::sync::Arc;

use actix_web::web;
use r58_actors::rounds::{Rounds, Standing};
use r58_actors::supervision::House;

use self::counts::Accountant;
use self::history::History;
use self::lease::LeaseKeeper;
use super::alerts::notify::Notifier;
use super::alerts::watch::Watch;
use super::audit::HeadSigner;
use super::broker::{self, BrokerDesk};
use super::bundles::Sweeper;
use super::home_assistant::{self, HomeAssistantPlan};
use super::push::Pump;
use super::replicas;
use super::rollouts::RolloutDriver;
use super::state::Fleet;
use super::store::retention::RetentionPlan;
use crate::certificates::Certificates;

/// What the duties go by.
pub(super) struct Orders {
    /// How long heartbeats are kept.
    pub retention: RetentionPlan,
    /// Whom Home Assistant is told of.
    pub home_assistant: HomeAssistantPlan,
    /// Certificates whose files are followed.
    pub certificates: Vec<Arc<Certificates>>,
    /// This server's name for the lease.
    pub holder: Arc<str>,
}

/// Puts every duty under supervision. They are put down in reverse: what leads, last.
pub(super) fn engage(house: &House, fleet: &web::Data<Fleet>, desk: &BrokerDesk, orders: Orders) {
    let (store, hub) = (fleet.store.clone(), fleet.hub.clone());
    if store.is_shared() {
        let (own, holder) = (store.clone(), orders.holder.clone());
        Rounds::engage(house, "lease", move || LeaseKeeper::new(own.clone(), holder.clone()));
        let (own, news, holder) = (store.clone(), hub.clone(), orders.holder.clone());
        Rounds::engage(house, "news out", move || {
            let (store, hub, holder) = (own.clone(), news.clone(), holder.clone());
            Standing(move || replicas::tell(store.clone(), hub.clone(), holder.clone()))
        });
        let (own, news, broker, holder) = (store.clone(), hub.clone(), desk.side(), orders.holder);
        Rounds::engage(house, "news in", move || {
            let (store, hub, broker, holder) = (own.clone(), news.clone(), broker.clone(), holder.clone());
            Standing(move || replicas::hear(store.clone(), hub.clone(), broker.clone(), holder.clone()))
        });
    }
    let (own, news) = (store.clone(), hub.clone());
    Rounds::engage(house, "live updates", move || Pump::new(news.clone(), own.clone()));
    let (events, news) = (desk.events(), hub.clone());
    Rounds::engage(house, "broker news", move || {
        let (events, hub) = (events.clone(), news.clone());
        Standing(move || broker::bridge(events.subscribe(), hub.clone()))
    });
    let (own, files) = (store.clone(), fleet.bundles.clone());
    Rounds::engage(house, "bundles", move || Sweeper::new(own.clone(), files.clone()));
    for (n, certificates) in orders.certificates.into_iter().enumerate() {
        let name = if n == 0 { "certificates".to_owned() } else { format!("certificates {}", n + 1) };
        Rounds::engage(house, &name, move || certificates.clone().follower());
    }
    let (own, plan) = (store.clone(), orders.retention);
    Rounds::engage(house, "history", move || History::new(own.clone(), plan));
    let own = store.clone();
    Rounds::engage(house, "counts", move || Accountant(own.clone()));
    let (own, signer) = (store.clone(), fleet.keys.commands.clone());
    Rounds::engage(house, "audit", move || HeadSigner::new(own.clone(), signer.clone()));
    let (own, news) = (store.clone(), hub);
    Rounds::engage(house, "alerts", move || Watch::new(own.clone(), news.clone()));
    let (own, plan, vault) = (store, fleet.alerts.clone(), fleet.keys.vault.clone());
    Rounds::engage(house, "notify", move || Notifier::new(own.clone(), plan.clone(), vault.clone()));
    let own = fleet.clone();
    Rounds::engage(house, "rollouts", move || RolloutDriver::new(own.clone()));
    let (own, session, plan) = (fleet.clone(), desk.herald(), orders.home_assistant);
    Rounds::engage(house, "home assistant", move || {
        let (own, session, plan) = (own.clone(), session.clone(), plan.clone());
        Standing(move || home_assistant::run(own.clone(), session.clone(), plan.clone()))
    });
}
