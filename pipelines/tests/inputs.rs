//! Inputs deliver, say what is wrong with them, and come back where they should, with the real GStreamer.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use r58_pipelines::input::v4l2::scripted::{Scene, Script};
use r58_pipelines::signal::{Driver, Probe, Timings};
use r58_pipelines::{ErrorKind, Fault, InputEvent, InputPipeline, Signal, SourceSpec};
use support::{Cell, LIMIT, MODE, recorded, wait_signal};

type Events = Arc<Cell<Vec<InputEvent>>>;

fn capture(script: &Script, driver: Driver) -> (InputPipeline, Events) {
    r58_pipelines::init().unwrap();
    let events = Cell::new(Vec::new());
    let sink = events.clone();
    let report = Arc::new(move |event| sink.update(|events: &mut Vec<InputEvent>| events.push(event)));
    (InputPipeline::start_capture("cam1", script.device(driver), None, &MODE, report).unwrap(), events)
}

#[test]
fn a_test_source_delivers_and_rehearses_its_faults() {
    let spec = SourceSpec::Test { pattern: "smpte".into(), tone_hz: 440.0 };
    let (input, events) = recorded("cam1", &spec);
    assert_eq!(wait_signal(&events, Signal::Live), "");
    support::wait_frames(&input.feed(), 30);
    assert!((input.signal().fps - 30.0).abs() < 3.0, "{:?}", input.signal());
    assert!((input.stats().audio_level_db + 20.0).abs() < 0.5);
    input.rehearse(Fault::Stall).unwrap();
    assert_eq!(wait_signal(&events, Signal::Stalled), "no frames for 1 s");
    input.rehearse(Fault::None).unwrap();
    wait_signal(&events, Signal::Live);
    input.rehearse(Fault::Unplug).unwrap();
    assert_eq!(wait_signal(&events, Signal::Failed), "unplugged (rehearsal)");
    assert!(input.stop());
}

#[test]
fn a_file_is_played_over_and_over() {
    r58_pipelines::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mkv");
    make_clip(&path);
    let (input, events) = recorded("cam1", &SourceSpec::File { path });
    wait_signal(&events, Signal::Live);
    // Half a second of clip: this much only comes when it begins again and again.
    support::wait_frames(&input.feed(), 60);
    assert!(input.stats().audio_level_db > -40.0, "{:?}", input.stats());
    assert!(
        events.peek(|events| !events.iter().any(|event| matches!(event, InputEvent::Eos | InputEvent::Error { .. })))
    );
    assert_eq!(input.signal().format.as_deref(), Some("160x90 I420"));
    assert!(input.rehearse(Fault::Stall).is_err());
    assert!(input.stop());
}

fn make_clip(path: &std::path::Path) {
    use gst::prelude::*;
    let launch = format!(
        "videotestsrc num-buffers=15 ! video/x-raw,format=I420,width=160,height=90,framerate=30/1 ! x264enc ! mux. \
         audiotestsrc num-buffers=23 ! audio/x-raw,rate=44100,channels=1 ! opusenc_or_not ! mux. \
         matroskamux name=mux ! filesink location={}",
        path.display()
    )
    .replace("opusenc_or_not", "audioconvert ! audioresample ! opusenc");
    let pipeline = gst::parse::launch(&launch).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &wanted).unwrap();
    assert!(matches!(message.view(), gst::MessageView::Eos(_)), "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn sources_that_cannot_work_say_why() {
    let start = |spec: &SourceSpec| InputPipeline::start("cam1", "CAM 1", spec, &MODE, Arc::new(|_| {})).err().unwrap();
    let missing = start(&SourceSpec::File { path: PathBuf::from("/nowhere/clip.mp4") });
    assert_eq!(missing.kind(), ErrorKind::Unavailable);
    assert!(missing.to_string().starts_with("cam1: source unavailable: /nowhere/clip.mp4"), "{missing}");
    let http = SourceSpec::Rtsp { url: "http://camera/".into(), latency_ms: 200, tcp: true };
    assert_eq!(start(&http).to_string(), "source.url: not an rtsp:// or rtsps:// address");
    let shrill = SourceSpec::Test { pattern: "smpte".into(), tone_hz: 90_000.0 };
    assert_eq!(start(&shrill).to_string(), "source.tone_hz: 90000 is neither 0 nor from 20 to 20000");
}

#[test]
fn a_camera_on_the_network_that_is_not_there_is_an_error_event() {
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let spec = SourceSpec::Rtsp { url: format!("rtsp://127.0.0.1:{port}/x"), latency_ms: 100, tcp: true };
    let (input, events) = recorded("cam1", &spec);
    events
        .wait("the error", |events| events.iter().any(|event| matches!(event, InputEvent::Error { .. })).then_some(()));
    assert_eq!(wait_signal(&events, Signal::Failed), "the camera cannot be reached");
    assert!(input.stop());
}

#[test]
fn a_cable_that_is_pulled_and_put_back_is_followed() {
    let script = Script::new(Scene::no_cable());
    let (input, events) = capture(&script, Driver::Rkcif);
    assert_eq!(wait_signal(&events, Signal::NoCable), "no cable");
    script.change(|scene| *scene = Scene::healthy());
    wait_signal(&events, Signal::Live);
    script.change(|scene| {
        *scene = Scene::no_sync();
        scene.changes = 1;
    });
    assert_eq!(wait_signal(&events, Signal::NoSync), "no stable picture on the cable");
    script.change(|scene| *scene = Scene::healthy());
    wait_signal(&events, Signal::Live);
    assert_eq!(script.violations(), 0);
    assert!(input.stop());
}

#[test]
fn a_new_format_restarts_the_capture_in_order_and_a_spurious_change_does_not() {
    let script = Script::new(Scene::healthy());
    let (input, events) = capture(&script, Driver::Rkcif);
    wait_signal(&events, Signal::Live);
    assert_eq!(script.calls(), ["probe", "configure", "source"]);
    script.change(|scene| scene.changes = 1);
    wait_calls(&script, 4);
    support::wait_frames(&input.feed(), 20);
    assert_eq!(script.calls(), ["probe", "configure", "source", "probe"]);
    script.change(|scene| {
        scene.probe = Probe::Timings(Timings { width: 1280, height: 720, pixel_clock: 74_250_000, interlaced: false });
        scene.format.width = 1280;
        scene.format.height = 720;
        scene.changes = 1;
    });
    wait_calls(&script, 7);
    assert_eq!(script.calls()[4..7], ["probe", "configure", "source"]);
    events.wait("the new format", |events| {
        events
            .iter()
            .any(|event| matches!(event, InputEvent::FormatChanged { format } if format == "1280x720 UYVY"))
            .then_some(())
    });
    support::wait_frames(&input.feed(), 5);
    assert_eq!(script.violations(), 0);
    assert!(input.stop());
}

fn wait_calls(script: &Script, calls: usize) {
    let begun = Instant::now();
    while script.calls().len() < calls {
        assert!(begun.elapsed() < LIMIT, "only {:?}", script.calls());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_chips_picture_of_nothing_is_no_signal_and_never_streams() {
    let mut scene = Scene::healthy();
    scene.format.width = 640;
    scene.format.height = 480;
    scene.format.fourcc = "BGR3".into();
    let script = Script::new(scene);
    let (input, events) = capture(&script, Driver::RkHdmirx);
    assert_eq!(wait_signal(&events, Signal::NoSignal), "no picture (the capture chip reports 640x480)");
    assert!(!script.calls().contains(&"source"));
    assert!(input.stop());
}

#[test]
fn frozen_buffers_and_frames_that_stop_are_told_apart() {
    let script = Script::new(Scene::healthy());
    let (input, events) = capture(&script, Driver::Rkcif);
    wait_signal(&events, Signal::Live);
    script.change(|scene| scene.flowing = false);
    assert_eq!(wait_signal(&events, Signal::Stalled), "no frames for 1 s");
    script.change(|scene| {
        scene.flowing = true;
        scene.frozen = true;
    });
    wait_signal(&events, Signal::Live);
    let (begun, mut reason) = (Instant::now(), String::new());
    while begun.elapsed() < LIMIT * 2 && reason.is_empty() {
        std::thread::park_timeout(Duration::from_millis(20));
        if input.signal().signal == Signal::Frozen {
            reason = input.signal().reason;
        }
    }
    assert_eq!(reason, "the picture has not changed for 10 s");
    script.change(|scene| scene.frozen = false);
    wait_signal(&events, Signal::Live);
    assert!(input.stop());
}

#[test]
fn a_probe_that_hangs_is_reported_and_holds_nothing_up() {
    let mut scene = Scene::healthy();
    scene.probe_takes = Duration::from_millis(4500);
    let script = Script::new(scene);
    let (input, events) = capture(&script, Driver::Rkcif);
    assert_eq!(wait_signal(&events, Signal::Failed), "the capture driver did not answer");
    script.change(|scene| scene.probe_takes = Duration::ZERO);
    wait_signal(&events, Signal::Live);
    assert!(input.stop());
}
