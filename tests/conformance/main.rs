//! WHIP and WHEP, point by point: one test each, named by its section. `R58_CONFORMANCE_URL` (with `R58_CONFORMANCE_TOKEN`,
//! `R58_CONFORMANCE_SEAT`, `R58_CONFORMANCE_CREW`) points it at any server; without, a box with a TURN server is started here.
//!
//! The tests share one server and take turns at its seat, so this file is its own harness: it takes a filter as an argument and
//! prints what the usual one does.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod client;
mod place;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

use r58::conformance::{Check, POINTS, Point, Probe, Way, check};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(vanishing) = client::Vanishing::asked_for() {
        return runtime.block_on(vanishing.run());
    }
    if words.iter().any(|word| word == "--list") {
        POINTS.iter().for_each(|point| println!("{}: test", point.test()));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |point: &&Point| filters.is_empty() || filters.iter().any(|filter| point.test().contains(*filter));
    let points: Vec<&Point> = POINTS.iter().filter(wanted).collect();
    if points.is_empty() {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; {} filtered out", POINTS.len());
        return ExitCode::SUCCESS;
    }
    runtime.block_on(run(&points))
}

async fn run(points: &[&Point]) -> ExitCode {
    let begun = Instant::now();
    let place = place::Place::open().await;
    println!("\nrunning {} tests against {}", points.len(), place.base);
    let probe = Probe::new(&place.base, &place.seat, &place.token, place.crew.as_deref()).expect("an address");
    let mut faults = Vec::new();
    let mut told = |test: String, done: Check| {
        println!("test {test} ... {}", if done.is_ok() { "ok" } else { "FAILED" });
        faults.extend(done.err().map(|fault| format!("{test}: {fault}")));
    };
    let mut count = points.len();
    let (alone, together): (Vec<&Point>, Vec<&Point>) = points.iter().partition(|point| point.way == Way::Alone);
    for point in together {
        told(point.test(), one(&probe, &place, point).await);
    }
    if count == POINTS.len() && place.is_own() {
        count += 1;
        told("the_box::shows_what_it_has_checked_of_itself_and_when".into(), place.checks_itself().await);
    }
    for point in alone {
        told(point.test(), one(&probe, &place, point).await);
    }
    place.close().await;
    faults.iter().for_each(|fault| println!("\n---- {fault}"));
    let (passed, word) = (count - faults.len(), if faults.is_empty() { "ok" } else { "FAILED" });
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        faults.len(),
        POINTS.len() - points.len(),
        begun.elapsed().as_secs_f64()
    );
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn one(probe: &Probe, place: &place::Place, point: &Point) -> Check {
    match (point.way, point.number) {
        (Way::Client, "8") => client::vanishes(probe, place).await,
        (Way::Client, "23") => client::goes_on(probe).await,
        _ => check(probe, point).await,
    }
}
