//! The house: every supervised actor, its warden, the report on all of them and the order in which they are put down.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Supervised, Supervisor};
use actix_rt::Arbiter;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::budget::RestartPolicy;
use super::door::{Door, MAILBOX, Occupant, Slot};
use super::life::{Life, Notice, Vitals, keep_panic_messages};
use super::report::{ActorReport, ActorState, GetActors, RestartActor};
use super::ward::{Ward, WardInput, WardOutput, WardTimes};
use super::{Ping, Retire, lock};
use crate::error::ActorsError;

/// What an actor needs to be supervised; [`supervised!`](crate::supervised) writes the two handlers.
pub trait Supervisable: Actor<Context = Context<Self>> + Supervised + Handler<Ping> + Handler<Retire> {}

impl<A> Supervisable for A where A: Actor<Context = Context<A>> + Supervised + Handler<Ping> + Handler<Retire> {}

/// How an actor is to be kept up.
#[derive(Debug, Clone)]
pub struct Duty {
    /// Its own name in the tree, e.g. `camera cam1`.
    pub name: String,
    /// Its duty, e.g. `camera`.
    pub kind: String,
    /// Whether the process shall end when it cannot be kept up.
    pub essential: bool,
    /// Budget of rebuilds.
    pub hard: RestartPolicy,
    /// Budget of restarts that the actor asks for itself.
    pub soft: RestartPolicy,
}

impl Duty {
    /// A duty with the default budgets that the process can live without.
    pub fn new(kind: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            essential: false,
            hard: RestartPolicy::default(),
            soft: RestartPolicy::default(),
        }
    }

    /// The process ends in order when this one is given up.
    pub fn essential(mut self) -> Self {
        self.essential = true;
        self
    }

    /// Another budget for rebuilds.
    pub fn hard(mut self, policy: RestartPolicy) -> Self {
        self.hard = policy;
        self
    }

    /// Another budget for restarts that the actor asks for itself.
    pub fn soft(mut self, policy: RestartPolicy) -> Self {
        self.soft = policy;
        self
    }
}

/// Called once with the name and the last cause of an essential actor that was given up.
pub type OnLostDuty = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Settings of a [`House`].
#[derive(Clone)]
pub struct HouseSettings {
    /// Ping figures for all actors.
    pub times: WardTimes,
    /// What to do when an essential actor is given up.
    pub on_lost_duty: OnLostDuty,
}

impl Default for HouseSettings {
    fn default() -> Self {
        Self { times: WardTimes::default(), on_lost_duty: Arc::new(|_, _| {}) }
    }
}

enum Order {
    Engage(Box<dyn Post>),
    Restart { name: String, done: oneshot::Sender<bool> },
    Stop { deadline: Duration, done: oneshot::Sender<Vec<String>> },
}

/// The tree of supervised actors of one process. Cheap to clone.
#[derive(Clone)]
pub struct House {
    settings: HouseSettings,
    roll: Arc<Mutex<Vec<Arc<Vitals>>>>,
    orders: mpsc::UnboundedSender<Order>,
    notices: mpsc::UnboundedSender<Notice>,
    changes: Arc<watch::Sender<u64>>,
}

impl House {
    /// Opens a house. Must be called within an actix system; panics otherwise, as actix itself does.
    pub fn open(settings: HouseSettings) -> Self {
        keep_panic_messages();
        let (orders, orders_rx) = mpsc::unbounded_channel();
        let (notices, notices_rx) = mpsc::unbounded_channel();
        let changes = Arc::new(watch::Sender::new(0));
        let patrol = Patrol {
            times: settings.times,
            on_lost_duty: settings.on_lost_duty.clone(),
            wards: Vec::new(),
            orders: orders_rx,
            notices: notices_rx,
            changes: changes.clone(),
        };
        Arbiter::new().spawn(patrol.run());
        Self { settings, roll: Arc::default(), orders, notices, changes }
    }

    /// Puts an actor under supervision, on a thread of its own. Engage what others depend on first: [`Self::stop`] goes
    /// through the house in reverse.
    ///
    /// The factory is called on the actor's thread, once for each life, and the actor keeps the [`Life`] it is given.
    pub fn engage<A, F>(&self, duty: Duty, factory: F) -> Slot<A>
    where
        A: Supervisable,
        F: Fn(Life) -> A + Send + Sync + 'static,
    {
        let vitals = Arc::new(Vitals::new(&duty.name, &duty.kind, duty.essential, self.changes.clone()));
        let slot = Slot { vitals: vitals.clone(), occupant: Arc::new(watch::Sender::new(Occupant::Vacant)) };
        // Held until the order is out: the patrol numbers its wards as they come.
        let mut roll = lock(&self.roll);
        roll.push(vitals);
        let tenant = Tenant {
            ward: roll.len() - 1,
            duty,
            slot: slot.clone(),
            factory: Arc::new(factory),
            notices: self.notices.clone(),
            arbiter: None,
        };
        let _ = self.orders.send(Order::Engage(Box::new(tenant)));
        slot
    }

    /// The tree, in the order of engagement. Needs no mailbox, so it answers whatever is stuck.
    pub fn reports(&self) -> Vec<ActorReport> {
        let now = Instant::now();
        lock(&self.roll).iter().map(|vitals| vitals.report(now)).collect()
    }

    /// Changes with each restart, rebuild or change of an actor's standing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The tree as a door, for actors that report it.
    pub fn actors_door(&self) -> Door<GetActors> {
        let house = self.clone();
        Door::from_fn(move |_: GetActors| house.reports())
    }

    /// Restarts by name as a door, for the fleet's `restart_service`. The answer says that the order was taken.
    pub fn restart_door(&self) -> Door<RestartActor> {
        let house = self.clone();
        Door::from_fn(move |RestartActor { name }| {
            let known = lock(&house.roll).iter().any(|vitals| vitals.name == name);
            if !known {
                return Err(ActorsError::Unknown { what: "actor", name });
            }
            let (done, _) = oneshot::channel();
            let _ = house.orders.send(Order::Restart { name, done });
            Ok(())
        })
    }

    /// Rebuilds an actor with a full budget, also a degraded one. `false` when no actor has that name.
    pub async fn restart(&self, name: &str) -> bool {
        let (done, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Restart { name: name.to_owned(), done });
        answer.await.unwrap_or(false)
    }

    /// Puts every actor down, the last engaged first, within `deadline`. Answers with the names of those still alive then:
    /// they hang in something that does not return.
    pub async fn stop(&self, deadline: Duration) -> Vec<String> {
        let (done, answer) = oneshot::channel();
        let _ = self.orders.send(Order::Stop { deadline, done });
        // Without a patrol the actix system is down, and all actors with it.
        answer.await.unwrap_or_default()
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &HouseSettings {
        &self.settings
    }
}

/// One actor as its warden handles it, whatever its type.
trait Post: Send {
    fn vitals(&self) -> &Arc<Vitals>;
    fn hard(&self) -> RestartPolicy;
    fn build(&mut self, generation: u64);
    fn ping(&self, generation: u64);
    /// Takes the present life from the doors and lets its thread end.
    fn abandon(&mut self);
    fn give_up(&mut self);
    /// Asks the present life to put everything down; the receiver resolves when it has.
    fn retire(&mut self) -> oneshot::Receiver<()>;
}

struct Tenant<A: Supervisable> {
    ward: usize,
    duty: Duty,
    slot: Slot<A>,
    factory: Arc<dyn Fn(Life) -> A + Send + Sync>,
    notices: mpsc::UnboundedSender<Notice>,
    arbiter: Option<Arbiter>,
}

impl<A: Supervisable> Tenant<A> {
    fn leave(&mut self, occupant: Occupant<A>) {
        self.slot.occupant.send_replace(occupant);
        if let Some(arbiter) = self.arbiter.take() {
            arbiter.stop();
        }
    }
}

impl<A: Supervisable> Post for Tenant<A> {
    fn vitals(&self) -> &Arc<Vitals> {
        &self.slot.vitals
    }

    fn hard(&self) -> RestartPolicy {
        self.duty.hard
    }

    fn build(&mut self, generation: u64) {
        let arbiter = Arbiter::new();
        let life = Life::new(self.ward, generation, self.slot.vitals.clone(), self.notices.clone(), self.duty.soft);
        let factory = self.factory.clone();
        let addr = Supervisor::start_in_arbiter(&arbiter.handle(), move |ctx: &mut Context<A>| {
            ctx.set_mailbox_capacity(MAILBOX);
            factory(life)
        });
        self.slot.occupant.send_replace(Occupant::Present(addr, arbiter.handle()));
        self.arbiter = Some(arbiter);
    }

    fn ping(&self, generation: u64) {
        let Occupant::Present(addr, _) = &*self.slot.occupant.borrow() else { return };
        let (request, notices, ward) = (addr.send(Ping), self.notices.clone(), self.ward);
        actix_rt::spawn(async move {
            if request.await.is_ok() {
                let _ = notices.send(Notice::Pong { ward, generation });
            }
        });
    }

    fn abandon(&mut self) {
        self.leave(Occupant::Vacant);
    }

    fn give_up(&mut self) {
        self.leave(Occupant::Degraded);
    }

    fn retire(&mut self) -> oneshot::Receiver<()> {
        let (done, retired) = oneshot::channel();
        let present = match &*self.slot.occupant.borrow() {
            Occupant::Present(addr, _) => Some(addr.clone()),
            _ => None,
        };
        // From here on new messages are refused; those in the mailbox are handled before the order to retire.
        self.slot.occupant.send_replace(Occupant::Stopped);
        let arbiter = self.arbiter.take();
        actix_rt::spawn(async move {
            if let Some(addr) = present {
                let _ = addr.send(Retire).await;
            }
            if let Some(arbiter) = arbiter {
                arbiter.stop();
            }
            let _ = done.send(());
        });
        retired
    }
}

/// The wardens of all actors, in one task on a thread of its own, where nothing blocks.
struct Patrol {
    times: WardTimes,
    on_lost_duty: OnLostDuty,
    wards: Vec<(Ward, Box<dyn Post>)>,
    orders: mpsc::UnboundedReceiver<Order>,
    notices: mpsc::UnboundedReceiver<Notice>,
    changes: Arc<watch::Sender<u64>>,
}

impl Patrol {
    async fn run(mut self) {
        loop {
            let due = self.wards.iter().filter_map(|(ward, _)| ward.poll_timeout()).min();
            let sleep = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(order) = self.orders.recv() => match order {
                    Order::Engage(post) => {
                        let ward = Ward::new(Instant::now(), post.hard(), self.times);
                        self.wards.push((ward, post));
                        self.carry_out(self.wards.len() - 1);
                    }
                    Order::Restart { name, done } => {
                        let found = self.wards.iter().position(|(_, post)| post.vitals().name == name);
                        if let Some(ward) = found {
                            self.note_cause(ward, "restarted on demand");
                            lock(&self.wards[ward].1.vitals().standing).on_demand = true;
                            self.feed(ward, WardInput::Restart);
                        }
                        let _ = done.send(found.is_some());
                    }
                    Order::Stop { deadline, done } => {
                        let _ = done.send(self.stop(deadline).await);
                        Arbiter::current().stop();
                        return;
                    }
                },
                Some(notice) = self.notices.recv() => self.take_notice(notice),
                () = sleep => {
                    let now = Instant::now();
                    for ward in 0..self.wards.len() {
                        self.wards[ward].0.handle_timeout(now, rand::random());
                        self.carry_out(ward);
                    }
                }
            }
        }
    }

    fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Pong { ward, generation } => {
                if self.wards[ward].0.generation() == generation {
                    let mut standing = lock(&self.wards[ward].1.vitals().standing);
                    if standing.warden == ActorState::Starting {
                        standing.warden = ActorState::Running;
                        self.changes.send_modify(|n| *n += 1);
                    }
                }
                self.feed(ward, WardInput::PingAnswered { generation });
            }
            Notice::GaveUp { ward, cause } => {
                let vitals = self.wards[ward].1.vitals().clone();
                error!(actor = vitals.name, cause, "actor gave up");
                if vitals.essential {
                    (self.on_lost_duty)(&vitals.name, &cause);
                }
            }
            Notice::Ended { ward, generation, cause } => {
                let before = self.wards[ward].0.poll_timeout();
                self.wards[ward].0.handle(Instant::now(), WardInput::Ended { generation }, rand::random());
                // Only the end of the present life is news: an abandoned one is expected to end some time.
                if self.wards[ward].0.poll_timeout() != before {
                    error!(actor = self.wards[ward].1.vitals().name, cause, "actor lost");
                    self.note_cause(ward, &cause);
                }
                self.carry_out(ward);
            }
        }
    }

    fn note_cause(&self, ward: usize, cause: &str) {
        lock(&self.wards[ward].1.vitals().standing).last_cause = Some(cause.to_owned());
    }

    fn feed(&mut self, ward: usize, input: WardInput) {
        self.wards[ward].0.handle(Instant::now(), input, rand::random());
        self.carry_out(ward);
    }

    fn carry_out(&mut self, index: usize) {
        let (ward, post) = &mut self.wards[index];
        let vitals = post.vitals().clone();
        while let Some(output) = ward.poll_output() {
            match output {
                WardOutput::Build(generation) => {
                    {
                        let mut standing = lock(&vitals.standing);
                        standing.warden = ActorState::Starting;
                        standing.up_since = Some(Instant::now());
                        standing.restarts += u64::from(generation > 1);
                        standing.asked_for += u64::from(std::mem::take(&mut standing.on_demand));
                    }
                    if generation > 1 {
                        info!(actor = vitals.name, life = generation, "actor rebuilt");
                    }
                    post.build(generation);
                }
                WardOutput::Ping(generation) => post.ping(generation),
                WardOutput::Abandon { stuck, .. } => {
                    let mut standing = lock(&vitals.standing);
                    standing.warden = ActorState::Backoff;
                    if stuck {
                        error!(actor = vitals.name, "actor does not answer");
                        standing.last_cause =
                            Some(format!("no answer for {} s", self.times.ping_timeout.as_secs_f32()));
                    }
                    drop(standing);
                    post.abandon();
                }
                WardOutput::GiveUp => {
                    let cause = {
                        let mut standing = lock(&vitals.standing);
                        standing.warden = ActorState::Degraded;
                        standing.last_cause.clone().unwrap_or_default()
                    };
                    error!(actor = vitals.name, cause, "actor given up");
                    post.give_up();
                    if vitals.essential {
                        (self.on_lost_duty)(&vitals.name, &cause);
                    }
                }
            }
            self.changes.send_modify(|n| *n += 1);
        }
    }

    async fn stop(&mut self, deadline: Duration) -> Vec<String> {
        let end = Instant::now() + deadline;
        let mut alive = Vec::new();
        for (ward, post) in self.wards.iter_mut().rev() {
            ward.handle(Instant::now(), WardInput::Retire, 0.0);
            let vitals = post.vitals().clone();
            let was = std::mem::replace(&mut lock(&vitals.standing).warden, ActorState::Stopped);
            let retired = post.retire();
            // A stuck one may spend half of what is left, never all: the others want to be put down in order too.
            let share = end.saturating_duration_since(Instant::now()) / 2;
            if tokio::time::timeout(share, retired).await.is_err() {
                warn!(actor = vitals.name, "actor does not retire");
            }
            let mut lives = vitals.alive.subscribe();
            let left = end.saturating_duration_since(Instant::now()) / 2;
            let gone = matches!(tokio::time::timeout(left, lives.wait_for(|alive| *alive == 0)).await, Ok(Ok(_)));
            if !gone {
                alive.push(vitals.name.clone());
            }
            if was != ActorState::Stopped {
                info!(actor = vitals.name, "actor stopped");
            }
        }
        self.changes.send_modify(|n| *n += 1);
        alive
    }
}

#[cfg(test)]
#[path = "house_tests.rs"]
mod tests;
