//! Tells Home Assistant of the boxes of those organizations that want it, by MQTT discovery.
//!
//! What is retained at the broker is compared with what should be, again and again: a box that came or changed is published, one
//! that was decommissioned is removed, and so is everything once the option is switched off. The broker's own copy is what is
//! compared with, so nothing has to be remembered over a restart, and a broker that lost everything is told anew. Only the
//! leader publishes; that two of them did would change nothing.

pub mod discovery;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix_web::web;
use bytes::Bytes;
use r58_mqtt::session::{Outgoing, Session, SessionEvent, SessionSettings, Subscription};
use tokio::time::{MissedTickBehavior, interval};

use super::state::Fleet;
use super::store::{DeviceFilter, Store, StoreError};

/// How often there is a look at what changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Boxes of an organization that Home Assistant is told of: it is a house's, not a fleet's. How many more there are is said in the
/// log and by the gauge `r58_fleet_home_assistant_untold`.
const MOST: usize = 1_000;
/// Boxes read at once.
const AT_ONCE: i64 = 200;
/// Messages of one look: each comes back, and must find room.
const NEWS: usize = 200;
/// The broker has this long to take a message.
const PUBLISH_WITHIN: Duration = Duration::from_secs(10);

/// For whom.
#[derive(Debug, Clone, Default)]
pub struct HomeAssistantPlan {
    /// Organizations whose boxes are told of.
    pub organizations: Vec<String>,
    /// Public address of the dashboard, if it has one.
    pub dashboard: Option<String>,
}

/// What is retained, or should be: topic and payload.
type Retained = BTreeMap<String, Bytes>;

/// Works for as long as it is let.
pub(super) async fn run(fleet: web::Data<Fleet>, mut settings: SessionSettings, plan: HomeAssistantPlan) {
    settings.subscriptions = vec![Subscription::new(discovery::FILTER)];
    // What is retained comes anew with each connection.
    settings.session_expiry = Duration::ZERO;
    let (session, mut events) = match Session::start(settings) {
        Ok(started) => started,
        Err(error) => return tracing::warn!(%error, "Home Assistant cannot be told of boxes"),
    };
    let mut there = Retained::new();
    let mut linked = false;
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = events.recv() => match event {
                None => return,
                event => event,
            },
            _ = tick.tick() => None,
        };
        match event {
            None if linked && fleet.store.leads() => {
                if let Err(error) = look(&fleet, &session, &plan, &there).await {
                    tracing::debug!(%error, "Home Assistant is told of boxes later");
                }
            }
            Some(SessionEvent::Connected { .. }) => there.clear(),
            Some(SessionEvent::Subscribed { .. }) => linked = true,
            Some(SessionEvent::Disconnected { .. }) => linked = false,
            Some(SessionEvent::Message(message)) => {
                if let Some(token) = message.ack {
                    session.ack(token);
                }
                if discovery::org_of(&message.topic).is_none() {
                    continue;
                }
                match message.payload.is_empty() {
                    true => there.remove(&message.topic),
                    false => there.insert(message.topic, message.payload),
                };
            }
            _ => {}
        }
    }
}

/// Publishes what is missing or another one, and removes what should not be there.
async fn look(fleet: &Fleet, session: &Session, plan: &HomeAssistantPlan, there: &Retained) -> Result<(), StoreError> {
    let wanted = wanted(&fleet.store, plan).await?;
    count_untold(fleet, plan, &wanted).await?;
    let gone: BTreeSet<&String> = there.keys().filter(|topic| !wanted.contains_key(*topic)).collect();
    let news = wanted.iter().filter(|(topic, payload)| there.get(*topic) != Some(*payload));
    let news = news.map(|(topic, payload)| (topic, payload.clone()));
    for (topic, payload) in news.chain(gone.into_iter().map(|topic| (topic, Bytes::new()))).take(NEWS) {
        let message = Outgoing::json(topic.as_str(), payload).retained(true);
        let sent = async { session.publish(message).await?.await };
        // The next look says it again.
        if !matches!(tokio::time::timeout(PUBLISH_WITHIN, sent).await, Ok(Ok(()))) {
            return Ok(());
        }
    }
    Ok(())
}

/// Says of how many boxes Home Assistant hears nothing because there are too many; warns when that begins.
async fn count_untold(fleet: &Fleet, plan: &HomeAssistantPlan, wanted: &Retained) -> Result<(), StoreError> {
    for org in &plan.organizations {
        let told = wanted.keys().filter(|topic| discovery::org_of(topic) == Some(org)).count();
        let mut untold = 0;
        if told >= MOST {
            let census = fleet.meters.census(&fleet.store).await?;
            let boxes: i64 = census.devices.iter().filter(|(of, ..)| of == org).map(|(_, _, count)| count).sum();
            untold = boxes.saturating_sub(i64::try_from(told).unwrap_or(i64::MAX)).max(0);
        }
        let gauge = fleet.meters.untold.with_label_values(&[org.as_str()]);
        if gauge.get() == 0 && untold > 0 {
            tracing::warn!(
                org,
                told,
                untold,
                "Home Assistant is told of the first boxes by name alone: there are too many"
            );
        }
        gauge.set(untold);
    }
    Ok(())
}

/// What should be retained.
async fn wanted(store: &Store, plan: &HomeAssistantPlan) -> Result<Retained, StoreError> {
    let mut wanted = Retained::new();
    for org in &plan.organizations {
        let (mut after, mut told) = (None, 0);
        loop {
            let rows = store.devices_after(org, &DeviceFilter::default(), after, AT_ONCE).await?;
            for row in rows.iter().take(MOST - told) {
                let payload = discovery::config(row, plan.dashboard.as_deref()).to_string();
                wanted.insert(discovery::topic(org, &row.id), payload.into());
            }
            told += rows.len();
            after = rows.last().map(|row| (row.name.clone(), row.id.clone()));
            if rows.len() < AT_ONCE as usize || told >= MOST {
                break;
            }
        }
    }
    Ok(wanted)
}
