//! Duties that panic, hang and fail, in a house.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::ActorState;
use crate::supervision::testing::{in_a_house, until};
use crate::supervision::{ActorReport, HouseSettings};

/// Counts its rounds over all lives, and does something else in some.
struct Tally {
    rounds: Arc<AtomicUsize>,
    longest: Option<Duration>,
    does: fn(usize) -> Does,
}

enum Does {
    Goes,
    Fails,
    Panics,
    Hangs,
}

#[async_trait]
impl Round for Tally {
    async fn round(&mut self) -> Result<Duration, String> {
        match (self.does)(self.rounds.fetch_add(1, Ordering::SeqCst)) {
            Does::Goes => Ok(Duration::from_millis(5)),
            Does::Fails => Err("nobody is there".to_owned()),
            Does::Panics => panic!("rehearsed"),
            Does::Hangs => std::future::pending().await,
        }
    }

    fn longest(&self) -> Option<Duration> {
        self.longest
    }
}

/// Runs a duty until its report is as expected, then until it has done more rounds.
fn goes_on(longest: Option<Duration>, does: fn(usize) -> Does, fits: impl Fn(&ActorReport) -> bool) {
    in_a_house(HouseSettings::default(), |house| async move {
        let rounds = Arc::new(AtomicUsize::new(0));
        let counted = rounds.clone();
        Rounds::engage(&house, "tally", move || Tally { rounds: counted.clone(), longest, does });
        until(&house, "tally", fits).await;
        let before = rounds.load(Ordering::SeqCst);
        tokio::time::timeout(crate::supervision::testing::LIMIT, async {
            while rounds.load(Ordering::SeqCst) < before + 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the duty is done");
    });
}

fn restarted(cause: &str) -> impl Fn(&ActorReport) -> bool {
    move |report| {
        let told = report.last_cause.as_deref().is_some_and(|last| last.contains(cause));
        report.state == ActorState::Running && report.restarts == 1 && told
    }
}

#[test]
fn a_duty_that_panics_begins_anew_and_goes_on() {
    goes_on(None, |n| if n == 2 { Does::Panics } else { Does::Goes }, restarted("rehearsed"));
}

#[test]
fn a_round_that_does_not_end_is_given_up_and_the_duty_goes_on() {
    let longest = Some(Duration::from_millis(300));
    goes_on(longest, |n| if n == 2 { Does::Hangs } else { Does::Goes }, restarted("did not end"));
}

#[test]
fn a_duty_that_cannot_be_done_says_why_and_then_no_more() {
    let failing = |report: &ActorReport| report.detail.as_deref() == Some("nobody is there") && report.restarts == 0;
    goes_on(None, |n| if n < 1 { Does::Fails } else { Does::Goes }, failing);
}

#[test]
fn a_standing_duty_that_waits_is_put_down_in_order() {
    in_a_house(HouseSettings::default(), |house| async move {
        Rounds::engage(&house, "stands", || Standing(std::future::pending::<()>));
        until(&house, "stands", |report| report.state == ActorState::Running).await;
    });
}
