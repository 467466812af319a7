//! A camera on the network dies, comes back, and changes its password: the programme goes on, and the crew reads why.
#![allow(clippy::unwrap_used)]

#[path = "../../pipelines/tests/rtsp_support/mod.rs"]
mod rtsp_support;
mod support;

use std::sync::Arc;

use r58_actors::device::{InputPlan, SourceCell};
use r58_actors::state::{DeviceState, InputState};
use r58_pipelines::input::SourceSpec;
use rtsp_support::{Camera, Kind};
use support::*;

fn input(url: String) -> InputPlan {
    let source = SourceSpec::Rtsp { url, latency_ms: 100, tcp: true };
    InputPlan { id: "cam3".into(), label: "CAM 3".into(), source: SourceCell::new(source) }
}

fn cam3(state: &DeviceState) -> &InputState {
    state.inputs.iter().find(|input| input.id == "cam3").unwrap()
}

fn reason(state: &Arc<DeviceState>) -> String {
    cam3(state).reason.clone()
}

#[test]
fn a_network_camera_that_dies_leaves_a_slate_with_the_reason_and_comes_back_by_itself() {
    let camera = Camera::start(Kind::H264Aac);
    with_a_box_and(Some(input(camera.url(None))), |mut subject| async move {
        subject.until("cam3 live", |state| live(state, "cam3")).await;
        subject.until("cam3 heard", |state| cam3(state).level_db > -30.0).await;
        let (before, port) = (subject.missed(), camera.port());
        camera.kill();
        let dark = subject.until("cam3 failed", |state| cam3(state).signal == "failed").await;
        assert_eq!(reason(&dark), "the camera closed the connection");
        let studio = subject.handle.studio.clone();
        subject.until("the slate in its place", |_| !studio.input("cam3").unwrap().face().attached).await;
        let gone = subject.until("another reason", |state| cam3(state).reason == "the camera cannot be reached").await;
        assert_eq!(cam3(&gone).signal, "failed", "nobody answers at its address");
        let _back = Camera::start_on(Kind::H264Aac, port);
        subject.until("cam3 live again", |state| live(state, "cam3")).await;
        assert_eq!(subject.missed(), before, "frame slots were missed");
    });
}

#[test]
fn a_network_camera_that_refuses_the_password_is_left_in_peace() {
    let camera = Camera::start_guarded(Kind::H264Aac);
    with_a_box_and(Some(input(camera.url(Some("crew:wrong-word")))), |mut subject| async move {
        let refused = subject.until("cam3 refused", |state| cam3(state).signal == "failed").await;
        assert_eq!(reason(&refused), "the camera refuses the user name or the password (RTSP 401)");
        let asked = camera.described();
        // Ten seconds of programme at fifteen frames a second: any other fault would have been tried anew twice.
        subject.frames(150).await;
        assert_eq!(camera.described(), asked);
        assert!(asked <= 3, "asked {asked} times");
    });
}
