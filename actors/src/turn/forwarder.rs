//! TurnForwarder: between TurnCache and the box's own peers, which speak TURN by UDP alone.
//!
//! Job: ask every TURN server by UDP, and where it does not answer and the provider has named a URL of TCP or TLS, put a local
//! forwarder in place of the server ([`core`] has the rule). In: TurnCache's snapshot by watch, the ends of its own probes.
//! Out: the snapshot for peers and the state of every road, both by watch. Guests' pages never see any of it: a browser speaks
//! TCP and TLS itself.
//!
//! Failure policy: the forwarders stand on a [`Shelf`] outside of the actor, so that no guest on air notices when it is rebuilt; it
//! then asks anew. While it is down peers are given what they were given last. A forwarder that cannot be opened leaves UDP.
//! Supervised by the house, not essential.

pub mod core;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, SpawnHandle, Supervised, WrapFuture as _,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use r58_pipelines::forwarder::{Forwarder, ForwarderReport, Forwarders, RoadError, answers_by_udp};
use r58_pipelines::ice::{IceScheme, IceUrl};
use tokio::sync::watch;
use tracing::{info, warn};

use self::core::{ForwarderCore, Input, Key, Output, Standing, Udp};
use super::IceSnapshot;
use crate::state::TurnRoad;
use crate::supervision::{Life, lock};

/// How often the counters of the forwarders are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The forwarders that stand, each for one server. Outlives the actor. Cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    forwarders: Forwarders,
    open: Arc<Mutex<Vec<(Key, Forwarder)>>>,
}

impl Shelf {
    /// An empty one.
    pub fn new(forwarders: Forwarders) -> Self {
        Self { forwarders, open: Arc::default() }
    }

    /// The URL of the forwarder for these roads, which stands already or does from now on.
    fn open(&self, key: &Key) -> Result<String, RoadError> {
        let mut open = lock(&self.open);
        if let Some((_, forwarder)) = open.iter().find(|(known, _)| known == key) {
            return Ok(forwarder.url());
        }
        let forwarder = self.forwarders.open(key)?;
        let url = forwarder.url();
        open.push((key.clone(), forwarder));
        Ok(url)
    }

    fn report(&self, key: &Key) -> Option<ForwarderReport> {
        lock(&self.open).iter().find(|(known, _)| known == key).map(|(_, forwarder)| forwarder.report())
    }

    /// Takes down what no peer is given any more, once the last stream has ended.
    fn tidy(&self, needed: &[Key]) {
        lock(&self.open).retain(|(key, forwarder)| needed.contains(key) || forwarder.report().open > 0);
    }
}

/// What a [`TurnForwarder`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct ForwarderSettings {
    /// Where the forwarders stand.
    pub shelf: Shelf,
    /// From TurnCache.
    pub provided: watch::Receiver<IceSnapshot>,
    /// For the box's own peers.
    pub peers: watch::Sender<IceSnapshot>,
    /// For pages and the API.
    pub roads: watch::Sender<Vec<TurnRoad>>,
}

/// The actor.
pub struct TurnForwarder {
    life: Life,
    settings: ForwarderSettings,
    core: ForwarderCore,
    timer: Option<SpawnHandle>,
    detail: String,
    told: Vec<(String, String)>,
}

impl TurnForwarder {
    /// For the house's factory.
    pub fn new(life: Life, settings: ForwarderSettings) -> Self {
        let core = ForwarderCore::default();
        Self { life, settings, core, timer: None, detail: String::new(), told: Vec::new() }
    }

    fn take(&mut self, ctx: &mut Context<Self>) {
        let servers = self.settings.provided.borrow_and_update().servers.clone();
        self.core.handle(Instant::now(), Input::Servers(servers));
        self.drain(ctx);
        let mut provided = self.settings.provided.clone();
        let changed = async move { provided.changed().await };
        ctx.spawn(changed.into_actor(self).map(|changed, actor, ctx| {
            // Without a sender nothing will ever be provided: what is there stays.
            if changed.is_ok() {
                actor.take(ctx);
            }
        }));
    }

    fn drain(&mut self, ctx: &mut Context<Self>) {
        let mut changed = false;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Probe(targets) => self.probe(targets, ctx),
                Output::Open(key) => self.open(key),
                Output::Changed => changed = true,
            }
        }
        if changed {
            self.publish();
        }
        self.arm(ctx);
    }

    fn probe(&self, targets: Vec<IceUrl>, ctx: &mut Context<Self>) {
        let asked = targets.clone();
        let answered = async move {
            let mut answers: FuturesUnordered<_> =
                asked.iter().map(|url| answers_by_udp(&url.host, url.port)).collect();
            while let Some(answer) = answers.next().await {
                if answer.is_some() {
                    return answer;
                }
            }
            None
        };
        ctx.spawn(answered.into_actor(self).map(|answer, actor, ctx| {
            let input = Input::Probed { targets, answer, jitter: rand::random() };
            actor.core.handle(Instant::now(), input);
            actor.drain(ctx);
        }));
    }

    fn open(&mut self, key: Key) {
        let url = match self.settings.shelf.open(&key) {
            Ok(url) => Some(url),
            Err(error) => {
                warn!(%error, "no forwarder for a TURN server");
                None
            }
        };
        self.core.handle(Instant::now(), Input::Opened { key, url });
    }

    fn publish(&mut self) {
        let snapshot = IceSnapshot { servers: self.core.for_peers(), ..self.settings.provided.borrow().clone() };
        replace(&self.settings.peers, snapshot);
        self.look();
    }

    /// Tells how the roads stand, counters included.
    fn look(&mut self) {
        let shelf = &self.settings.shelf;
        shelf.tidy(&self.core.needed());
        let road = |standing: &Standing| road(standing, standing.forwarded.as_ref().and_then(|key| shelf.report(key)));
        let roads: Vec<TurnRoad> = self.core.standings().iter().map(road).collect();
        let taken: Vec<_> = roads.iter().map(|road| (road.server.clone(), road.road.clone())).collect();
        for (server, road) in taken.iter().filter(|taken| !self.told.contains(taken)) {
            info!(server, road, "the box's peers reach this TURN server by another road");
        }
        self.told = taken;
        let detail = roads.iter().map(words).collect::<Vec<_>>().join("; ");
        if self.detail != detail {
            self.detail.clone_from(&detail);
            self.life.detail(detail);
        }
        replace(&self.settings.roads, roads);
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let Some(at) = self.core.poll_timeout() else { return };
        self.timer = Some(ctx.run_later(at.saturating_duration_since(Instant::now()), |actor, ctx| {
            actor.core.handle_timeout(Instant::now());
            actor.drain(ctx);
        }));
    }
}

/// Wakes readers only when there is something new to read.
fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|held| {
        let changed = *held != value;
        *held = value;
        changed
    });
}

fn road(standing: &Standing, report: Option<ForwarderReport>) -> TurnRoad {
    let by_stream = |report: &ForwarderReport| if report.road.scheme == IceScheme::Tls { "tls" } else { "tcp" };
    let (udp, rtt) = match standing.udp {
        Udp::Unknown => ("unknown", None),
        Udp::Answers(rtt) => ("answers", Some(rtt)),
        Udp::Doubtful => ("doubtful", None),
        Udp::Silent => ("silent", None),
        Udp::NotOffered => ("not_offered", None),
    };
    let road = match (standing.by_udp, &report) {
        (true, Some(_)) => "both",
        (true, None) => "udp",
        (false, Some(report)) => by_stream(report),
        (false, None) => "none",
    };
    let millis = |time: Duration| time.as_millis() as u64;
    let known = TurnRoad {
        server: standing.host.clone(),
        road: road.to_owned(),
        udp: udp.to_owned(),
        udp_rtt_ms: rtt.map(millis),
        ..TurnRoad::default()
    };
    let Some(report) = report else { return known };
    TurnRoad {
        via: Some(report.road.to_url()),
        connected_in_ms: report.connected_in.map(millis),
        connections: report.open,
        reconnects: report.reconnects,
        bytes_up: report.bytes_up,
        bytes_down: report.bytes_down,
        dropped: report.dropped,
        last_error: report.last_error,
        ..known
    }
}

/// One road in the words of the status page.
fn words(road: &TurnRoad) -> String {
    let udp = match (road.udp.as_str(), road.udp_rtt_ms) {
        (_, Some(rtt)) => format!("by UDP, {rtt} ms"),
        ("not_offered", _) => "no UDP offered".to_owned(),
        (udp, _) => format!("UDP {udp}"),
    };
    let Some(via) = &road.via else { return format!("{}: {udp}", road.server) };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let mut words = format!(
        "{}: {udp}, {via} for {} connections, {:.1} MB up, {:.1} MB down, {} reconnects",
        road.server,
        road.connections,
        megabytes(road.bytes_up),
        megabytes(road.bytes_down),
        road.reconnects
    );
    if road.dropped > 0 {
        words += &format!(", {} dropped", road.dropped);
    }
    if let Some(error) = &road.last_error {
        words += &format!("; {error}");
    }
    words
}

#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Actor for TurnForwarder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Open);
    }
}

impl Supervised for TurnForwarder {}

crate::supervised!(TurnForwarder);

impl Handler<Open> for TurnForwarder {
    type Result = ();

    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.life.opened();
        self.take(ctx);
        ctx.run_interval(LOOK_EVERY, |actor, _| actor.look());
    }
}
