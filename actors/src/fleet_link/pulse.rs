//! What the box says by the clock: heartbeats, and what changed since it last looked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, AsyncContext as _, Context, SpawnHandle, WrapFuture as _};
use chrono::Utc;
use r58_mqtt::payload::{Caps, Payload as _, Reported};
use r58_mqtt::{Name, Up};
use tracing::debug;

use super::report::{Look, heartbeat, reported};
use super::{FleetLink, operations, state};
use crate::supervision::ActorReport;

/// Stream of heartbeats in the outbox.
const STREAM: &str = "hb";
/// The tree is asked for no longer than this; a heartbeat without it is better than none.
const TREE_DEADLINE: Duration = Duration::from_secs(2);

/// What the pulse remembers.
#[derive(Default)]
pub(super) struct Pulse {
    /// Connections before the present session's first.
    pub conn_base: u64,
    beat: Option<SpawnHandle>,
    look: Option<SpawnHandle>,
    last_reported: Option<Reported>,
    shown: BTreeMap<String, u64>,
}

impl FleetLink {
    /// With each new link.
    pub(super) fn begin_pulse(&mut self, ctx: &mut Context<Self>) {
        self.plan_beat(ctx);
        if let Some(look) = self.pulse.look.take() {
            ctx.cancel_future(look);
        }
        self.pulse.look = Some(ctx.run_interval(self.settings.report_every, |actor, ctx| actor.look_around(ctx)));
    }

    /// With each new connection: capabilities, reported state and a heartbeat at once.
    pub(super) fn born(&mut self, ctx: &mut Context<Self>) {
        self.pulse.last_reported = None;
        self.pulse.shown.clear();
        if let (Some(link), Some(identity)) = (&self.link, &*self.settings.identity.borrow()) {
            let ops = operations::specs().into_keys().collect();
            let keys = identity.command_keys.iter().map(|key| key.kid.clone()).collect();
            link.say_retained(Up::Caps, Caps::new(ops, &self.settings.version, keys).to_bytes());
        }
        self.look_around(ctx);
        self.beat(ctx);
    }

    /// The next heartbeat, 10 % earlier or later: a fleet must not beat in step.
    fn plan_beat(&mut self, ctx: &mut Context<Self>) {
        if let Some(beat) = self.pulse.beat.take() {
            ctx.cancel_future(beat);
        }
        let wait = self.settings.heartbeat_every.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        self.pulse.beat = Some(ctx.run_later(wait, |actor, ctx| actor.beat(ctx)));
    }

    fn beat(&mut self, ctx: &mut Context<Self>) {
        self.plan_beat(ctx);
        self.with_tree(ctx, |actor, tree, ctx| {
            actor.record_beat(&tree);
            actor.settle(ctx);
        });
    }

    /// On disk first, then live; again in a batch unless the server says within two intervals that it has it.
    fn record_beat(&mut self, tree: &[ActorReport]) {
        let Some(link) = &mut self.link else { return };
        let Ok(stream) = Name::new(STREAM) else { return };
        let settings = &self.settings;
        let state = settings.sources.state.borrow().clone();
        let metrics = settings.sources.metrics.borrow().clone();
        let ice = settings.sources.ice.borrow().clone();
        let (now, wall) = (Instant::now(), Utc::now());
        let look = Look {
            now,
            wall,
            clock_set: link.is_clock_set(),
            version: &settings.version,
            uptime: self.started.elapsed(),
            boot_seq: settings.boot_seq,
            boot_id: &self.boot_id,
            interval: settings.heartbeat_every,
            state: &state,
            metrics: &metrics,
            ice: &ice,
            actors: tree,
            outbox: link.outbox_counts(),
        };
        let hold = settings.heartbeat_every.saturating_mul(2);
        let ts = look.clock_set.then_some(wall);
        link.record(now, &Up::Telemetry(stream), hold, ts, Some((Up::Heartbeat, hold)), |seq| {
            heartbeat(&look, seq).to_bytes().unwrap_or_default()
        });
    }

    fn look_around(&mut self, ctx: &mut Context<Self>) {
        if let Some(link) = &self.link {
            state::publish_outbox(&self.settings.link, link.outbox_counts());
        }
        if !self.link.as_ref().is_some_and(super::link::Link::is_online) {
            return;
        }
        self.show_pictures();
        self.with_tree(ctx, |actor, tree, _| actor.say_reported(&tree));
    }

    fn say_reported(&mut self, tree: &[ActorReport]) {
        let Some(link) = self.link.as_mut().filter(|link| link.is_online()) else { return };
        let settings = &self.settings;
        let config = &settings.operations.config;
        let ver = config.overlay().ver;
        let state = settings.sources.state.borrow().clone();
        let seen = reported(&state, settings.boot_seq, ver, config.public(), tree, &settings.operations.services);
        if self.pulse.last_reported.as_ref() == Some(&seen) {
            return;
        }
        link.set_conditions(Instant::now(), ver);
        let ts = link.is_clock_set().then(Utc::now);
        link.say_retained(Up::Reported, Reported { ts, ..seen.clone() }.to_bytes());
        self.pulse.last_reported = Some(seen);
    }

    fn show_pictures(&mut self) {
        let Some(link) = &self.link else { return };
        let pictures = self.settings.sources.thumbnails.pictures();
        let present: BTreeSet<String> = pictures.iter().map(|(name, ..)| name.clone()).collect();
        self.pulse.shown.retain(|name, _| present.contains(name));
        for (name, jpeg, seq) in pictures {
            if self.pulse.shown.get(&name) == Some(&seq) {
                continue;
            }
            let topic = match Name::new(&name) {
                Ok(topic) => topic,
                Err(error) => {
                    debug!(%error, "a picture without a proper name");
                    continue;
                }
            };
            if link.show(topic, jpeg) {
                self.pulse.shown.insert(name, seq);
            }
        }
    }

    fn with_tree(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Vec<ActorReport>, &mut Context<Self>) + 'static,
    ) {
        let actors = self.settings.operations.actors.clone();
        let asked = async move { tokio::time::timeout(TREE_DEADLINE, actors.reports()).await.unwrap_or_default() };
        ctx.spawn(asked.into_actor(self).map(move |tree, actor, ctx| then(actor, tree, ctx)));
    }
}
