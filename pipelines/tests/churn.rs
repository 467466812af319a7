//! Everything at once, at random, for a while: the programme does not care.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::time::{Duration, Instant};

use r58_pipelines::{Fault, InputPipeline, teardown};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::{Stage, colour};

const INPUTS: usize = 4;
const LASTS: Duration = Duration::from_secs(8);
const SCENES: [&str; 6] = ["full-cam1", "full-cam3", "quad", "two-up", "pip", "presentation"];

#[test]
fn inputs_and_takes_in_any_order_cost_no_slot_and_no_memory() {
    // A fixed seed: a failure can be seen again.
    let mut random = StdRng::seed_from_u64(58);
    let stage = Stage::new(INPUTS);
    let mut inputs: [Option<InputPipeline>; INPUTS] = Default::default();
    let begun = Instant::now();
    let mut settled = None;
    let mut takes = 0;
    while begun.elapsed() < LASTS {
        let n = random.gen_range(0..INPUTS);
        let id = format!("cam{}", n + 1);
        match random.gen_range(0..9) {
            0 => {
                let input = colour(&id, ["red", "green", "blue", "smpte"][n], 440.0);
                stage.programme.attach(&id, &input.feed()).unwrap();
                // The one before it is dropped while it still delivers.
                inputs[n] = Some(input);
            }
            1 => stage.programme.detach(&id, "churn").unwrap(),
            2 => inputs[n] = None,
            3 => {
                if let Some(input) = &inputs[n] {
                    stage.programme.attach(&id, &input.feed()).unwrap();
                }
            }
            4 => {
                if let Some(input) = &inputs[n] {
                    input.rehearse([Fault::None, Fault::Stall, Fault::Unplug][random.gen_range(0..3)]).unwrap();
                }
            }
            5 => stage.programme.set_slate(&id, &format!("reason {}", random.gen_range(0..50))).unwrap(),
            6 | 7 => {
                stage.cut(SCENES[random.gen_range(0..SCENES.len())]);
                takes += 1;
            }
            _ => {
                stage.mix(SCENES[random.gen_range(0..SCENES.len())], random.gen_range(1..700));
                takes += 1;
            }
        }
        stage.run(random.gen_range(1..4));
        if settled.is_none() && begun.elapsed() > LASTS / 2 {
            settled = Some(resident_kib());
        }
    }
    stage.run(2);
    stage.assert_every_slot();
    let stats = stage.programme.stats();
    assert_eq!(stats.takes, takes);
    assert_eq!(teardown::quarantined(), 0);
    let grown = resident_kib().saturating_sub(settled.unwrap_or_default());
    assert!(grown < 40 * 1024, "grown by {grown} KiB in {:?}", LASTS / 2);
    assert!(stage.programme.stop());
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
