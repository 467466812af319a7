//! The programme keeps every frame slot and every take lands on one frame, with the real GStreamer.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use r58_pipelines::{Fault, Mode, PipelineError, Programme, ProgrammeEvent, ProgrammePlan, Transition};
use support::{BLUE, GREEN, RED, Stage, colour, near};

#[test]
fn a_programme_without_any_input_runs_and_every_place_says_why() {
    let stage = Stage::new(4);
    stage.run(10);
    stage.cut("full-cam2");
    stage.events.wait("four slates", |events| {
        let slated = events.iter().filter(|event| matches!(event, ProgrammeEvent::InputSlated { .. })).count();
        (slated >= 4).then_some(())
    });
    let slate = stage.until("the slate's text", |seen| seen.bright > 100);
    stage.programme.set_slate("cam2", "no cable").unwrap();
    stage.until("the reason's text", |seen| seen.bright != slate.bright && seen.bright > 100);
    assert_eq!(stage.programme.inputs()[1].reason, "no cable");
    stage.assert_every_slot();
    assert!(stage.programme.stop());
}

/// Of the starts without a base time for each element, about one in thirty was followed by seconds of silence.
#[test]
fn no_start_is_followed_by_silence() {
    for start in 1..=50 {
        let stage = Stage::new(4);
        stage.run(6);
        let gap = stage.programme.stats().longest_gap_ms;
        assert!(gap < 1_000.0, "start {start}: {gap} ms without a frame");
        assert!(stage.programme.stop());
    }
}

#[test]
fn a_cut_lands_on_exactly_one_frame() {
    let stage = Stage::new(2);
    let (red, blue) = (colour("cam1", "red", 0.0), colour("cam2", "blue", 0.0));
    stage.programme.attach("cam1", &red.feed()).unwrap();
    stage.programme.attach("cam2", &blue.feed()).unwrap();
    stage.wait_live("cam1");
    stage.wait_live("cam2");
    stage.cut("full-cam1");
    stage.until("red", |seen| near(seen.quarter, RED, 12));
    for round in 0..20 {
        let (scene, to, from) = if round % 2 == 0 { ("full-cam2", BLUE, RED) } else { ("full-cam1", RED, BLUE) };
        let before = stage.frames.peek(Vec::len);
        let id = stage.cut(scene);
        let frames = stage.events.wait("the take", |events| {
            events.iter().find_map(|event| match event {
                ProgrammeEvent::TakeLanded { id: landed, frames } if *landed == id => Some(*frames),
                _ => None,
            })
        });
        assert!(frames <= 2, "round {round}: the take took {frames} frames");
        stage.until("the new scene", |seen| near(seen.quarter, to, 12));
        stage.frames.peek(|frames| {
            let turn = frames[before..].iter().position(|seen| near(seen.quarter, to, 12)).unwrap();
            assert!(turn <= 2, "round {round}: seen after {turn} frames");
            for seen in &frames[before..before + turn] {
                assert!(near(seen.quarter, from, 12), "round {round}: a torn frame {seen:?}");
            }
            assert!(frames[before + turn..].iter().all(|seen| near(seen.quarter, to, 12)));
        });
    }
    let stats = stage.programme.stats();
    assert_eq!(stats.takes, 21);
    stage.assert_every_slot();
}

#[test]
fn a_mix_crosses_from_one_picture_to_the_other_and_back_from_a_quad() {
    let stage = Stage::new(4);
    let inputs = [colour("cam1", "red", 0.0), colour("cam2", "blue", 0.0)];
    stage.programme.attach("cam1", &inputs[0].feed()).unwrap();
    stage.programme.attach("cam2", &inputs[1].feed()).unwrap();
    stage.wait_live("cam1");
    stage.wait_live("cam2");
    stage.cut("full-cam1");
    stage.until("red", |seen| near(seen.quarter, RED, 12));
    let before = stage.frames.peek(Vec::len);
    stage.mix("full-cam2", 400);
    stage.until("blue", |seen| near(seen.quarter, BLUE, 6));
    stage.frames.peek(|frames| {
        let crossed: Vec<_> = frames[before..].iter().map(|seen| i32::from(seen.quarter.1)).collect();
        assert!(crossed.windows(2).all(|pair| pair[1] >= pair[0] - 2), "chroma went back: {crossed:?}");
        let between = crossed.iter().filter(|u| **u > 110 && **u < 230).count();
        assert!((8..=13).contains(&between), "{between} mixed frames: {crossed:?}");
    });
    stage.mix("quad", 200);
    // A quarter from the left and the top is the middle of cam1's place in the quad.
    stage.until("the quad", |seen| near(seen.quarter, RED, 12));
    stage.assert_every_slot();
}

#[test]
fn stalled_unplugged_dropped_and_replaced_inputs_cost_no_slot_and_come_back() {
    let stage = Stage::new(3);
    let red = colour("cam1", "red", 0.0);
    let green = colour("cam2", "green", 0.0);
    stage.programme.attach("cam1", &red.feed()).unwrap();
    stage.programme.attach("cam2", &green.feed()).unwrap();
    stage.wait_live("cam1");
    stage.wait_live("cam2");
    stage.cut("full-cam1");
    stage.until("red", |seen| near(seen.quarter, RED, 12));

    support::stall(&red, Fault::Stall);
    stage.until("the slate", |seen| !near(seen.quarter, RED, 12));
    assert!(!stage.programme.inputs()[0].live);
    support::stall(&red, Fault::None);
    stage.until("red again", |seen| near(seen.quarter, RED, 12));

    support::stall(&red, Fault::Unplug);
    stage.programme.detach("cam1", "unplugged").unwrap();
    stage.until("the slate", |seen| !near(seen.quarter, RED, 12));
    assert!(red.stop());

    let blue = colour("cam1", "blue", 0.0);
    stage.programme.attach("cam1", &blue.feed()).unwrap();
    stage.until("the new input", |seen| near(seen.quarter, BLUE, 12));

    drop(blue);
    stage.until("the slate", |seen| !near(seen.quarter, BLUE, 12));
    stage.cut("full-cam2");
    stage.until("the other input", |seen| near(seen.quarter, GREEN, 12));
    stage.run(30);
    stage.assert_every_slot();
    let stats = stage.programme.stats();
    assert!(stats.longest_gap_ms < 500.0, "{stats:?}");
    assert!(stats.fps > 27.0 && stats.fps < 33.0, "{stats:?}");
}

#[test]
fn sound_follows_the_picture() {
    let stage = Stage::new(2);
    let (loud, quiet) = (colour("cam1", "red", 1000.0), colour("cam2", "blue", 0.0));
    stage.programme.attach("cam1", &loud.feed()).unwrap();
    stage.programme.attach("cam2", &quiet.feed()).unwrap();
    stage.wait_live("cam1");
    stage.wait_live("cam2");
    stage.run(10);
    assert!(stage.programme.stats().level_db < -90.0, "sound off air: {:?}", stage.programme.stats());
    stage.cut("full-cam1");
    wait_level(&stage, |db| (db + 20.0).abs() < 0.5);
    assert!((loud.stats().audio_level_db + 20.0).abs() < 0.5);
    support::stall(&loud, Fault::Stall);
    wait_level(&stage, |db| db < -90.0);
    support::stall(&loud, Fault::None);
    let before = stage.frames.peek(Vec::len);
    wait_level(&stage, |db| (db + 20.0).abs() < 0.5);
    let frames = stage.frames.peek(Vec::len) - before;
    assert!(frames < 25, "the sound came back after {frames} frames, ten of them to be sure");
    stage.cut("full-cam2");
    wait_level(&stage, |db| db < -90.0);
    stage.assert_every_slot();
}

fn wait_level(stage: &Stage, want: impl Fn(f32) -> bool) {
    // Several frames in a row: a ramp passes every level once.
    let mut steady = 0;
    for _ in 0..200 {
        stage.run(1);
        steady = if want(stage.programme.stats().level_db) { steady + 1 } else { 0 };
        if steady == 10 {
            return;
        }
    }
    panic!("the level stays at {} dB", stage.programme.stats().level_db);
}

#[test]
fn identify_shows_a_strip_and_takes_it_away() {
    let stage = Stage::new(1);
    let red = colour("cam1", "black", 0.0);
    stage.programme.attach("cam1", &red.feed()).unwrap();
    stage.wait_live("cam1");
    stage.run(5);
    let dark = stage.until("black", |seen| seen.bright == 0);
    stage.programme.identify(Some("R58 <venue & hall>")).unwrap();
    stage.until("the strip", |seen| seen.bright > dark.bright + 50);
    assert_eq!(stage.programme.identity().as_deref(), Some("R58 <venue & hall>"));
    stage.programme.identify(None).unwrap();
    stage.until("no strip", |seen| seen.bright == dark.bright);
    stage.assert_every_slot();
}

#[test]
fn the_programme_is_encoded_once_into_rtp_and_makes_thumbnails() {
    let choice = r58_pipelines::choose_encoder(&support::MODE).unwrap();
    let stage = Stage::with(1, Some(choice));
    let red = colour("cam1", "red", 440.0);
    stage.programme.attach("cam1", &red.feed()).unwrap();
    stage.cut("full-cam1");
    let rtp = stage.programme.rtp();
    let (mut video, mut audio) = (rtp.subscribe_video(), rtp.subscribe_audio());
    rtp.request_keyframe();
    let packet = video.blocking_recv().unwrap();
    assert_eq!((packet[0] >> 6, packet[1] & 0x7f), (2, 96));
    assert!(packet.len() <= 1180);
    assert_eq!(audio.blocking_recv().unwrap()[1] & 0x7f, 111);
    // A request brings parameter sets (NAL type 7) and a key frame without waiting for the next regular one.
    let found = (0..200).any(|_| {
        let packet = video.blocking_recv().unwrap();
        matches!(packet[12] & 0x1f, 7) || (packet[12] & 0x1f == 24 && packet[15] & 0x1f == 7)
    });
    assert!(found, "no parameter sets after a key frame request");
    stage.wait_live("cam1");
    let thumbnails = stage.programme.input_thumbnail("cam1").unwrap();
    for _ in 0..100 {
        stage.run(1);
        if stage.programme.thumbnail().latest().is_some() && thumbnails.latest().is_some() {
            break;
        }
    }
    let small = stage.programme.thumbnail().latest().expect("a thumbnail of the programme");
    assert_eq!(&small.jpeg[..2], [0xff, 0xd8]);
    assert!(small.jpeg.len() < 16 * 1024 && thumbnails.latest().is_some());
    stage.programme.set_preset(2);
    stage.run(5);
    assert_eq!(stage.programme.stats().preset, 2);
    stage.assert_every_slot();
}

#[test]
fn what_cannot_be_done_is_refused_in_words() {
    let stage = Stage::new(1);
    let other = r58_pipelines::Feed::new("cam1", &Mode::new(640, 360, 30));
    assert_eq!(
        stage.programme.attach("cam1", &other).unwrap_err().to_string(),
        "cam1: the feed is not in the programme's mode"
    );
    assert!(stage.programme.detach("cam7", "").is_err());
    let mut scene = stage.scenes.get("full-cam1").unwrap().clone();
    scene.slots[0].source = "cam7".into();
    assert!(matches!(stage.programme.take(&scene, Transition::Cut), Err(PipelineError::Rejected(_))));
    let plan = ProgrammePlan { bitrate_kbps: 7, ..stage.programme.plan().clone() };
    let error = Programme::start(plan, |_| {}).err().unwrap();
    assert_eq!(error.to_string(), "programme.bitrate_kbps: 7 is not from 100 to 50000");
}

#[test]
fn lips_and_voice_stay_together() {
    use gst::prelude::*;
    let stage = Stage::new(1);
    let feed = r58_pipelines::Feed::new("cam1", &support::MODE);
    stage.programme.attach("cam1", &feed).unwrap();
    stage.cut("full-cam1");
    // Where sound begins after silence.
    let heard = support::Cell::new(Vec::new());
    let (sink, was_loud) = (heard.clone(), AtomicBool::new(false));
    stage.programme.watch_sound(move |block| {
        let map = block.map_readable().unwrap();
        let is_loud = r58_pipelines::feed::level::rms_db(map.as_slice()) > -40.0;
        let begins = is_loud && !was_loud.load(Relaxed);
        was_loud.store(is_loud, Relaxed);
        if begins {
            sink.update(|onsets| onsets.push(block.pts().unwrap().nseconds()));
        }
    });
    let dark = r58_pipelines::render::plain(&support::MODE, 0xff00_0000).unwrap();
    let light = r58_pipelines::render::plain(&support::MODE, 0xffff_ffff).unwrap();
    let clock = r58_pipelines::clock::media_clock();
    let begun = r58_pipelines::clock::now_nanos();
    const CLAPS: usize = 5;
    for n in 0..40 + 30 * CLAPS as u64 {
        let at = begun + support::MODE.slot_start(n);
        let _ = clock.new_single_shot_id(gst::ClockTime::from_nseconds(at)).wait();
        let clap = n >= 30 && n % 30 < 6;
        feed.push_video(at, if clap { &light } else { &dark });
        let samples = [if clap { 0x40u8 } else { 0 }; 1600 * 4];
        let mut sound = gst::Buffer::from_slice(samples);
        sound.get_mut().unwrap().set_duration(gst::ClockTime::from_nseconds(support::MODE.frame_nanos()));
        feed.push_audio(at, &sound);
    }
    let seen = stage.frames.wait("the flashes", |frames| {
        let bright: Vec<bool> = frames.iter().map(|seen| seen.middle.0 > 200).collect();
        let onset = |n: &usize| bright[*n] && (*n == 0 || !bright[*n - 1]);
        let onsets: Vec<u64> = (0..frames.len()).filter(onset).map(|n| frames[n].pts).collect();
        (onsets.len() >= CLAPS).then_some(onsets)
    });
    let heard = heard.wait("the claps", |onsets| (onsets.len() >= CLAPS).then(|| onsets.clone()));
    // A block of sound is 20 ms long and a frame 33 ms: 45 ms early to 45 ms late is what broadcasters allow. The median,
    // because a machine that is too busy to hand over one picture in its slot shows that picture a slot later.
    let mut apart: Vec<u64> = seen.iter().zip(&heard).map(|(seen, heard)| seen.abs_diff(*heard)).collect();
    apart.sort_unstable();
    assert!(apart[CLAPS / 2] <= 45_000_000, "{apart:?} ns apart");
    stage.assert_every_slot();
}
