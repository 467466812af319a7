//! How much processor time the mixer takes:
//! `cargo run --release -p r58-pipelines --example mixer_load -- [scene] [seconds] [cameras] [with]`.
//!
//! Sources and encoder stand outside: still pictures are handed to the feeds by one thread (a buffer reference each, no
//! copy), and the composed frames are thrown away. `with` brings them in: `sources` (test inputs), `encoder`, or `all`.
//! Prints cores and milliseconds per programme frame.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use r58_pipelines::{
    Feed, InputPipeline, Mode, Programme, ProgrammeInput, ProgrammePlan, SceneInput, SceneSet, SourceSpec, Transition,
    choose_encoder, clock, render,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_else(|| "full-cam1".into());
    let seconds: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let cameras: usize = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let with = arguments.next().unwrap_or_default();
    let (sources, encoder) = (matches!(&*with, "sources" | "all"), matches!(&*with, "encoder" | "all"));
    r58_pipelines::init()?;
    let mode = Mode::default();
    let ids: Vec<_> = (1..=cameras).map(|n| format!("cam{n}")).collect();
    let plan = ProgrammePlan {
        mode,
        inputs: ids.iter().map(|id| ProgrammeInput { id: id.clone(), label: id.to_uppercase() }).collect(),
        encoder: encoder.then(|| choose_encoder(&mode)).transpose()?,
        bitrate_kbps: 2500,
    };
    let programme = Programme::start(plan, |_| {})?;
    let inputs: Vec<_> = ids.iter().map(|id| SceneInput::camera(id, id)).collect();
    let scenes = SceneSet::shipped(&inputs)?;
    let scene = scenes.get(&wanted).ok_or_else(|| format!("no scene {wanted}"))?;
    let mut inputs = Vec::new();
    if sources {
        let spec = SourceSpec::Test { pattern: "smpte".into(), tone_hz: 440.0 };
        for id in &ids {
            inputs.push(InputPipeline::start(id, id, &spec, &mode, Arc::new(|_| {}))?);
        }
    }
    let feeds: Vec<_> = match inputs.is_empty() {
        true => ids.iter().map(|id| Feed::new(id, &mode)).collect(),
        false => inputs.iter().map(InputPipeline::feed).collect(),
    };
    for feed in &feeds {
        programme.attach(feed.id(), feed)?;
    }
    programme.take(scene, Transition::Cut)?;
    let picture = render::pattern(&mode, "smpte")?;
    std::thread::spawn(move || {
        if sources {
            return;
        }
        let clock = clock::media_clock();
        let begun = clock::now_nanos();
        for n in 0.. {
            let due = begun + mode.slot_start(n);
            let _ = clock.new_single_shot_id(gst::ClockTime::from_nseconds(due)).wait();
            for feed in &feeds {
                feed.push_video(due, &picture);
            }
        }
    });
    std::thread::sleep(Duration::from_secs(2));
    programme.reset_gap();
    let (begun, cpu, frames) = (Instant::now(), cpu_seconds(), programme.stats().frames);
    std::thread::sleep(Duration::from_secs(seconds));
    let (wall, cpu, stats) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu, programme.stats());
    let frames = stats.frames - frames;
    println!(
        "{wanted}: {:.3} cores, {:.2} ms per frame, {frames} frames in {wall:.1} s, {} missed, longest gap {:.1} ms",
        cpu / wall,
        cpu * 1000.0 / frames as f64,
        stats.missed_slots,
        stats.longest_gap_ms
    );
    let (mut frames, mut times) = (Vec::new(), Vec::new());
    for n in 0..50u64 {
        let scene = if n % 2 == 0 { &scenes.all()[1] } else { scene };
        let before = programme.stats().takes;
        programme.take(scene, Transition::Cut)?;
        while programme.stats().takes == before {
            std::thread::sleep(Duration::from_millis(1));
        }
        frames.push(programme.stats().last_take_frames);
        times.push(programme.stats().last_take_ms);
        // In every phase of a frame.
        std::thread::sleep(Duration::from_millis(20 + n));
    }
    println!(
        "50 cuts: at most {} frames, {:.1} ms on average, {:.1} ms at most",
        frames.iter().max().copied().unwrap_or_default(),
        times.iter().sum::<f64>() / times.len() as f64,
        times.iter().copied().fold(0.0, f64::max)
    );
    for place in programme.inputs() {
        println!("{}: {} pictures taken, {} surplus", place.id, place.taken, place.surplus);
    }
    programme.stop();
    Ok(())
}

/// User and system time of this process, from /proc/self/stat (100 ticks a second on Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
