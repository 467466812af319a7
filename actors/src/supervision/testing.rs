//! A world for actor tests: an actix system with a house, which fails the test when an actor is left alive.

use std::future::Future;
use std::time::Duration;

use super::budget::RestartPolicy;
use super::house::{Duty, House, HouseSettings};
use super::report::{ActorReport, ActorState};

/// Longest wait for a condition, on a machine that is busy with other things.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Runs `test` in a house of its own, stops the house, and fails if an actor outlived that.
pub fn in_a_house<F: Future<Output = ()>>(settings: HouseSettings, test: impl FnOnce(House) -> F) {
    actix_rt::System::new().block_on(async {
        let house = House::open(settings);
        test(house.clone()).await;
        let alive = house.stop(LIMIT).await;
        assert!(alive.is_empty(), "left alive: {alive:?}");
    });
}

/// A duty that restarts quickly: 20 ms at first, 100 ms at most.
pub fn brisk(kind: &str, name: &str) -> Duty {
    let policy = RestartPolicy {
        first: Duration::from_millis(20),
        ceiling: Duration::from_millis(100),
        ..RestartPolicy::default()
    };
    Duty::new(kind, name).hard(policy).soft(policy)
}

/// Waits until the report of `name` fulfils `condition`, woken by the house's own changes.
pub async fn until(house: &House, name: &str, condition: impl Fn(&ActorReport) -> bool) -> ActorReport {
    let mut changes = house.changes();
    let found = tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(report) = house.reports().into_iter().find(|report| report.name == name && condition(report)) {
                return report;
            }
            changes.changed().await.expect("the house stands");
        }
    });
    match found.await {
        Ok(report) => report,
        Err(_) => panic!("{name} did not get there: {:?}", house.reports()),
    }
}

/// Waits until `name` runs in a life after `restarts` restarts.
pub async fn until_running(house: &House, name: &str, restarts: u64) -> ActorReport {
    until(house, name, |report| report.state == ActorState::Running && report.restarts >= restarts).await
}
