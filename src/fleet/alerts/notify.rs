//! The leader's second duty: tells people. What an alert's change asks for is gathered for each receiver for a moment, then
//! sent, and sent again until it arrives or enough was tried. Everything that must not be lost lies in the database, so a server
//! that is killed in the middle sends a message a second time at worst, under the same delivery id.

use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use futures_util::future::join_all;
use r58_actors::rounds::Round;

use super::courier::{self, CourierError};
use super::plan::AlertPlan;
use crate::fleet::store::{DueDelivery, Outcome, Store, StoreError};
use crate::fleet::vault::Vault;

/// How often there is a look.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest error that is kept, in characters.
const ERROR: usize = 300;

/// The duty.
pub struct Notifier {
    store: Store,
    plan: AlertPlan,
    vault: Vault,
}

impl Notifier {
    /// Tells people as `plan` says; `vault` opens what is sealed of receivers.
    pub fn new(store: Store, plan: AlertPlan, vault: Vault) -> Self {
        Self { store, plan, vault }
    }
}

#[async_trait]
impl Round for Notifier {
    async fn round(&mut self) -> Result<Duration, String> {
        if self.store.leads() {
            look(&self.store, &self.plan, &self.vault).await.map_err(|error| error.to_string())?;
        }
        Ok(LOOK_EVERY)
    }
}

async fn look(store: &Store, plan: &AlertPlan, vault: &Vault) -> Result<(), StoreError> {
    while store.gather_notices(Utc::now(), plan.group_within).await? {}
    let due = store.due_deliveries(Utc::now(), courier::WITHIN * 2).await?;
    // One that is slow keeps the others of its lot waiting for as long as an attempt may take, and no longer.
    for done in join_all(due.iter().map(|delivery| one(store, plan, vault, delivery))).await {
        done?;
    }
    Ok(())
}

async fn one(store: &Store, plan: &AlertPlan, vault: &Vault, delivery: &DueDelivery) -> Result<(), StoreError> {
    let brought = match delivery.receiver.as_ref().map(|receiver| receiver.target(vault)) {
        Some(Ok(target)) => courier::bring(plan, &target, &delivery.body).await,
        Some(Err(sealed)) => Err(CourierError::Hopeless(sealed.to_string())),
        None => Err(CourierError::Hopeless("its receiver was switched off".into())),
    };
    let outcome = match brought {
        Ok(()) => Outcome::Sent,
        Err(error) => {
            let again = match error {
                CourierError::Failed(_) => plan.pause_after(delivery.attempts),
                CourierError::Hopeless(_) => None,
            };
            let error: String = error.to_string().chars().filter(|c| !c.is_control()).take(ERROR).collect();
            match again {
                Some(pause) => tracing::debug!(delivery = %delivery.id, error, ?pause, "a message did not arrive"),
                None => {
                    tracing::warn!(delivery = %delivery.id, error, "a message could not be brought to its receiver")
                }
            }
            Outcome::Failed { error, again }
        }
    };
    store.note_delivery(&delivery.id, &outcome, Utc::now()).await
}
