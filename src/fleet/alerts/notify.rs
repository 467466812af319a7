//! The leader's second duty: tells people. What an alert's change asks for is gathered for each receiver for a moment, then
//! sent, and sent again until it arrives or enough was tried. Everything that must not be lost lies in the database, so a server
//! that is killed in the middle sends a message a second time at worst, under the same delivery id.

use std::time::Duration;

use chrono::Utc;
use futures_util::future::join_all;

use super::courier::{self, CourierError};
use super::plan::AlertPlan;
use crate::fleet::store::{DueDelivery, Outcome, Store, StoreError};

/// How often there is a look.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest error that is kept, in characters.
const ERROR: usize = 300;

/// Works until the server stops.
pub async fn run(store: Store, plan: AlertPlan) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        if !store.leads() {
            continue;
        }
        let done = look(&store, &plan).await;
        if let Err(error) = &done
            && !failing
        {
            tracing::warn!(%error, "nobody can be told of alerts");
        }
        failing = done.is_err();
    }
}

async fn look(store: &Store, plan: &AlertPlan) -> Result<(), StoreError> {
    while store.gather_notices(Utc::now(), plan.group_within).await? {}
    let due = store.due_deliveries(Utc::now(), courier::WITHIN * 2).await?;
    // One that is slow keeps the others of its lot waiting for as long as an attempt may take, and no longer.
    for done in join_all(due.iter().map(|delivery| one(store, plan, delivery))).await {
        done?;
    }
    Ok(())
}

async fn one(store: &Store, plan: &AlertPlan, delivery: &DueDelivery) -> Result<(), StoreError> {
    let brought = match &delivery.target {
        Some(target) => courier::bring(plan, target, &delivery.body).await,
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
