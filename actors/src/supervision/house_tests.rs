//! The house with actors that panic, hang and fail: new lives behind old doors, spent budgets, and an orderly end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use actix::{AsyncContext, Message};

use super::*;
use crate::supervision::testing::{LIMIT, brisk, in_a_house, until, until_running};
use crate::supervision::{Door, DoorError, Verdict};

struct Worker {
    life: Life,
    starts: Arc<AtomicUsize>,
    retired: Option<Arc<Mutex<Vec<String>>>>,
    flighty: bool,
}

impl Worker {
    fn factory(starts: &Arc<AtomicUsize>) -> impl Fn(Life) -> Worker + Send + Sync + 'static + use<> {
        let starts = starts.clone();
        move |life| Worker { life, starts: starts.clone(), retired: None, flighty: false }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Open;
#[derive(Message)]
#[rtype(result = "u64")]
struct GetGeneration;
#[derive(Message)]
#[rtype(result = "()")]
struct Panic;
#[derive(Message)]
#[rtype(result = "()")]
struct Block(mpsc::Receiver<()>);

impl Actor for Worker {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        self.starts.fetch_add(1, Ordering::SeqCst);
        if self.flighty
            && let Some(pause) = self.life.opening()
        {
            ctx.notify_later(Open, pause);
        }
    }
}
impl Supervised for Worker {}
crate::supervised!(Worker, ping only);
impl Handler<Retire> for Worker {
    type Result = ();
    fn handle(&mut self, _: Retire, _: &mut Self::Context) {
        if let Some(retired) = &self.retired {
            lock(retired).push(self.life.name().to_owned());
        }
    }
}
impl Handler<Open> for Worker {
    type Result = ();
    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        use actix::ActorContext;
        let verdict = self.life.failed("the link was lost");
        if verdict != Verdict::GaveUp {
            ctx.stop();
        }
    }
}
impl Handler<GetGeneration> for Worker {
    type Result = u64;
    fn handle(&mut self, _: GetGeneration, _: &mut Self::Context) -> u64 {
        self.life.generation()
    }
}
impl Handler<Panic> for Worker {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("rehearsed");
    }
}
impl Handler<Block> for Worker {
    type Result = ();
    fn handle(&mut self, block: Block, _: &mut Self::Context) {
        let _ = block.0.recv();
    }
}

fn quick() -> HouseSettings {
    HouseSettings {
        times: WardTimes { ping_every: Duration::from_millis(50), ping_timeout: Duration::from_millis(600) },
        ..HouseSettings::default()
    }
}

#[test]
fn a_panic_is_followed_by_a_new_life_behind_the_same_door() {
    in_a_house(HouseSettings::default(), |house| async move {
        let slot = house.engage(brisk("worker", "w"), Worker::factory(&Arc::default()));
        let (ask, kill) = (slot.door::<GetGeneration>(), slot.door::<Panic>());
        assert_eq!(ask.send(GetGeneration).await, Ok(1));
        assert_eq!(kill.send(Panic).await, Err(DoorError::Interrupted("w".into())));
        // What is said to a life that is just ending is lost with it; whoever comes later waits for the next one.
        let answer = loop {
            match ask.send(GetGeneration).await {
                Err(DoorError::Interrupted(_)) => tokio::task::yield_now().await,
                answer => break answer,
            }
        };
        assert_eq!(answer, Ok(2), "the door waits for the rebuild");
        let report = until_running(&house, "w", 1).await;
        assert!(
            report.last_cause.as_deref().is_some_and(|cause| cause.starts_with("panic: rehearsed at ")),
            "{report:?}"
        );
        assert_eq!((report.restarts, report.mailbox_depth), (1, 0));
    });
}

#[test]
fn a_blocked_actor_is_found_by_its_ping_and_replaced() {
    in_a_house(quick(), |house| async move {
        let slot = house.engage(brisk("worker", "w"), Worker::factory(&Arc::default()));
        until_running(&house, "w", 0).await;
        let (release, block) = mpsc::channel();
        slot.door::<Block>().try_send(Block(block)).unwrap();
        let report = until_running(&house, "w", 1).await;
        assert!(report.last_cause.is_some_and(|cause| cause.starts_with("no answer for")));
        assert_eq!(slot.door::<GetGeneration>().send(GetGeneration).await, Ok(2));
        // Set free, the abandoned one ends too; the house checks that.
        release.send(()).unwrap();
    });
}

/// Lets `w` panic until its restarts are used up.
async fn spend(house: &House, kill: &Door<Panic>) {
    for lives in 0..6 {
        // What is said to a life that is just ending is lost with it.
        until_running(house, "w", lives).await;
        let _ = kill.send_within(Panic, LIMIT).await;
    }
    until(house, "w", |report| report.state == ActorState::Degraded).await;
}

#[test]
fn a_spent_budget_leaves_the_actor_degraded_until_an_operator_revives_it() {
    in_a_house(HouseSettings::default(), |house| async move {
        let slot = house.engage(brisk("worker", "w"), Worker::factory(&Arc::default()));
        spend(&house, &slot.door::<Panic>()).await;
        assert_eq!(slot.door::<GetGeneration>().send(GetGeneration).await, Err(DoorError::Degraded("w".into())));
        assert!(house.restart("w").await);
        assert_eq!(slot.door::<GetGeneration>().send(GetGeneration).await, Ok(7));
        let report = until_running(&house, "w", 6).await;
        assert_eq!((report.restarts, report.asked_for), (6, 1));
        assert!(!house.restart("nobody").await);
    });
}

#[test]
fn an_essential_actor_that_is_given_up_ends_the_process_in_order() {
    let lost: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = lost.clone();
    let settings = HouseSettings {
        on_lost_duty: Arc::new(move |name, cause| lock(&note).push(format!("{name}: {cause}"))),
        ..HouseSettings::default()
    };
    in_a_house(settings, |house| async move {
        let slot = house.engage(brisk("worker", "w").essential(), Worker::factory(&Arc::default()));
        spend(&house, &slot.door::<Panic>()).await;
    });
    let lost = lock(&lost);
    assert!(lost.len() == 1 && lost[0].starts_with("w: panic: rehearsed"), "{lost:?}");
}

#[test]
fn an_actor_that_fails_as_soon_as_it_opens_is_not_restarted_in_a_frenzy() {
    let starts: Arc<AtomicUsize> = Arc::default();
    let factory = Worker::factory(&starts);
    in_a_house(HouseSettings::default(), |house| async move {
        let slot = house.engage(brisk("worker", "w"), move |life| Worker { flighty: true, ..factory(life) });
        let report = until(&house, "w", |report| report.state == ActorState::Degraded).await;
        assert_eq!((report.restarts, report.last_cause.as_deref()), (5, Some("the link was lost")));
        // It is degraded by its own word and still answers: the same life all along.
        assert_eq!(slot.door::<GetGeneration>().send(GetGeneration).await, Ok(1));
    });
    assert_eq!(starts.load(Ordering::SeqCst), 6);
}

#[test]
fn the_depth_of_a_mailbox_is_what_waits_in_it() {
    in_a_house(HouseSettings::default(), |house| async move {
        let slot = house.engage(brisk("worker", "w"), Worker::factory(&Arc::default()));
        until_running(&house, "w", 0).await;
        let (release, block) = mpsc::channel();
        slot.door::<Block>().try_send(Block(block)).unwrap();
        let ask = slot.door::<GetGeneration>();
        for _ in 0..400 {
            let _ = ask.try_send(GetGeneration);
        }
        assert_eq!(house.reports()[0].mailbox_depth, MAILBOX);
        assert_eq!(ask.try_send(GetGeneration), Err(DoorError::Full("w".into())));
        release.send(()).unwrap();
        while house.reports()[0].mailbox_depth > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask.send(GetGeneration).await, Ok(1));
    });
}

#[test]
fn the_house_is_put_down_dependants_first() {
    let retired: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = retired.clone();
    in_a_house(HouseSettings::default(), |house| async move {
        for name in ["mixer", "camera", "viewers"] {
            let (list, factory) = (list.clone(), Worker::factory(&Arc::default()));
            house.engage(brisk("worker", name), move |life| Worker { retired: Some(list.clone()), ..factory(life) });
        }
        until_running(&house, "viewers", 0).await;
    });
    assert_eq!(*lock(&retired), ["viewers", "camera", "mixer"]);
}

#[test]
fn an_actor_that_hangs_is_named_when_the_house_is_stopped_in_time() {
    actix_rt::System::new().block_on(async {
        let house = House::open(HouseSettings::default());
        let slot = house.engage(brisk("worker", "w"), Worker::factory(&Arc::default()));
        house.engage(brisk("worker", "v"), Worker::factory(&Arc::default()));
        until_running(&house, "w", 0).await;
        let (release, block) = mpsc::channel();
        slot.door::<Block>().try_send(Block(block)).unwrap();
        let started = Instant::now();
        assert_eq!(house.stop(Duration::from_secs(1)).await, ["w"]);
        assert!(started.elapsed() < Duration::from_secs(2));
        release.send(()).unwrap();
    });
}
