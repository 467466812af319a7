//! Cameras on the network, played by GStreamer's own RTSP server: what they send arrives, what is wrong with them is said.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtsp_support;
mod support;

use r58_pipelines::{ErrorKind, InputEvent, Signal, SourceSpec};
use rtsp_support::{Camera, Kind, PASSWORD, TONE, USER};
use support::{Cell, Ear, recorded};

fn source(url: String, tcp: bool) -> SourceSpec {
    SourceSpec::Rtsp { url, latency_ms: 100, tcp }
}

fn error(event: &InputEvent) -> Option<(String, ErrorKind)> {
    match event {
        InputEvent::Error { message, kind } => Some((message.clone(), *kind)),
        _ => None,
    }
}

fn wait_error(events: &Cell<Vec<InputEvent>>) -> (String, ErrorKind) {
    events.wait("an error", |events| events.iter().find_map(error))
}

fn plays(kind: Kind, tcp: bool, sounds: bool) {
    let camera = Camera::start(kind);
    let (input, events) = recorded("cam1", &source(camera.url(None), tcp));
    let ear = Ear::on(&input.feed());
    support::wait_signal(&events, Signal::Live);
    support::wait_frames(&input.feed(), 45);
    assert_eq!(input.signal().format.as_deref(), Some("320x180 I420"));
    if sounds {
        ear.wait_tone(f64::from(TONE));
        ear.wait_whole();
    }
    assert!(events.peek(|events| !events.iter().any(|event| matches!(event, InputEvent::Error { .. }))));
    assert!(input.stop());
}

#[test]
fn h264_with_aac_is_seen_and_heard() {
    plays(Kind::H264Aac, true, true);
}

#[test]
fn h264_with_opus_is_seen_and_heard() {
    plays(Kind::H264Opus, true, true);
}

#[test]
fn h264_with_the_telephones_a_law_is_seen_and_heard() {
    plays(Kind::H264Pcma, true, true);
}

#[test]
fn a_camera_that_sends_by_udp_is_seen_and_heard() {
    plays(Kind::H264Opus, false, true);
}

#[test]
fn an_h265_camera_without_a_microphone_is_seen() {
    plays(Kind::H265, true, false);
}

#[test]
fn a_camera_that_dies_says_so_once_and_another_try_finds_it_back() {
    let camera = Camera::start(Kind::H264Opus);
    let spec = source(camera.url(None), true);
    let (input, events) = recorded("cam1", &spec);
    support::wait_signal(&events, Signal::Live);
    let port = camera.port();
    camera.kill();
    assert_eq!(support::wait_signal(&events, Signal::Failed), "the camera closed the connection");
    assert_eq!(wait_error(&events).1, ErrorKind::Unavailable);
    assert!(input.stop());
    assert_eq!(events.peek(|events| events.iter().filter(|event| error(event).is_some()).count()), 1);
    assert_eq!(support::wait_signal(&events, Signal::Failed), "the camera closed the connection");
    let _back = Camera::start_on(Kind::H264Opus, port);
    let (input, events) = recorded("cam1", &spec);
    support::wait_signal(&events, Signal::Live);
    assert!(input.stop());
}

#[test]
fn a_wrong_password_is_one_clear_error_and_no_flood() {
    let camera = Camera::start_guarded(Kind::H264Opus);
    let (input, events) = recorded("cam1", &source(camera.url(Some(&format!("{USER}:wrong-word"))), true));
    let (message, kind) = wait_error(&events);
    assert_eq!(message, "the camera refuses the user name or the password (RTSP 401)");
    assert_eq!(kind, ErrorKind::Misconfigured, "trying again soon is of no use");
    assert_eq!(support::wait_signal(&events, Signal::Failed), message);
    assert!(input.stop());
    assert!(camera.described() <= 3, "asked {} times", camera.described());

    let (input, events) = recorded("cam1", &source(camera.url(Some(&format!("{USER}:{PASSWORD}"))), true));
    support::wait_signal(&events, Signal::Live);
    assert!(input.stop());
}

#[test]
fn a_stream_that_the_camera_does_not_have_is_named_and_worth_another_try() {
    let camera = Camera::start(Kind::H264Opus);
    let url = camera.url(None).replace("/live", "/elsewhere");
    let (input, events) = recorded("cam1", &source(url, true));
    let (message, kind) = wait_error(&events);
    assert_eq!((message.as_str(), kind), ("the camera has no such stream (RTSP 404)", ErrorKind::Unavailable));
    assert!(input.stop());
}
