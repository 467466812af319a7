//! Real guests that are not seen, each for another reason: the box says which, in one sentence, and how the line is doing.
#![allow(clippy::unwrap_used)]

#[path = "../../pipelines/tests/rtc_support/mod.rs"]
mod rtc_support;
mod support;

use std::time::Duration;

use r58_actors::guest::diagnosis::Diagnosis;
use r58_actors::guest::{Admission, AdmitGuest, DropGuest};
use r58_actors::state::{DeviceState, GuestReport};
use rtc_support::impaired::Relay;
use rtc_support::*;
use support::*;

const BLACK: Stream = Stream {
    launch: "videotestsrc is-live=true pattern=black ! video/x-raw,width=320,height=180,framerate=30/1 ! \
             vp8enc name=enc deadline=1 cpu-used=8 ! rtpvp8pay mtu=1200 picture-id-mode=2",
    ..VP8
};

async fn admit(subject: &Studio58, offer: String) -> Admission {
    let request = AdmitGuest { seat: "guest1".into(), bearer: Some("one".into()), offer };
    subject.handle.guests.admit.send_within(request, Duration::from_secs(10)).await.unwrap().unwrap()
}

async fn leave(subject: &mut Studio58, client: Client, admission: Admission) {
    let leave = DropGuest { seat: "guest1".into(), session: admission.session, bearer: Some("one".into()) };
    subject.handle.guests.end.send(leave).await.unwrap().unwrap();
    client.close().await;
    subject.until("nobody there", |state| report(state).is_none()).await;
}

fn report(state: &DeviceState) -> Option<&GuestReport> {
    state.inputs.iter().find(|input| input.id == "guest1").unwrap().guest.as_ref()
}

async fn told(subject: &mut Studio58, diagnosis: Diagnosis) {
    subject.until(diagnosis.sentence(), |state| report(state).is_some_and(|g| g.why == diagnosis.sentence())).await;
}

#[test]
fn a_guest_without_addresses_one_without_a_key_frame_and_one_with_a_black_picture_are_told_apart() {
    with_a_box(|mut subject| async move {
        // It never hears the answer, so no check of its own tells where it is.
        let client = Client::open(&[VP8], &[], false).await;
        client.send(&[VP8]).await;
        let admission = admit(&subject, Relay::hide(&client.offer().await)).await;
        told(&mut subject, Diagnosis::NoCandidates).await;
        leave(&mut subject, client, admission).await;

        // Its key frames are held back: whatever its encoder does when it is asked for one, none arrives.
        let client = Client::open(&[VP8], &[], false).await;
        let held_back = std::sync::Arc::new(std::sync::Mutex::new(None));
        client
            .send_some(&[VP8], move |packet| {
                let mut held_back = held_back.lock().unwrap();
                // The picture id takes three bytes of the descriptor (RFC 7741, section 4.2); bit 0 behind it is the kind.
                if packet.payload[0] & 0x10 != 0 && packet.payload.get(4).is_some_and(|header| header & 1 == 0) {
                    *held_back = Some(packet.header.timestamp);
                }
                *held_back != Some(packet.header.timestamp)
            })
            .await;
        let admission = admit(&subject, client.offer().await).await;
        client.accept(admission.answer.clone()).await;
        told(&mut subject, Diagnosis::NoKeyframe).await;
        leave(&mut subject, client, admission).await;

        let client = Client::open(&[BLACK], &[], false).await;
        client.send(&[BLACK]).await;
        let admission = admit(&subject, client.offer().await).await;
        client.accept(admission.answer.clone()).await;
        told(&mut subject, Diagnosis::Dark).await;
        leave(&mut subject, client, admission).await;
    });
}

#[test]
fn a_guest_that_is_seen_is_measured_and_one_that_mutes_its_camera_is_told_from_one_that_is_gone() {
    with_a_box(|mut subject| async move {
        let client = Client::open(&[OPUS, VP8], &[], false).await;
        client.send(&[OPUS, VP8]).await;
        let admission = admit(&subject, client.offer().await).await;
        client.accept(admission.answer.clone()).await;
        told(&mut subject, Diagnosis::Fine).await;
        let measured =
            |state: &DeviceState| report(state).is_some_and(|g| (25.0..35.0).contains(&g.vitals.decoded_fps));
        let state = subject.until("thirty pictures a second", measured).await;
        let guest = report(&state).unwrap();
        println!("{}", serde_json::to_string(guest).unwrap());
        assert_eq!(guest.path.as_deref(), Some("host"));
        let (video, audio) = (guest.vitals.video.unwrap(), guest.vitals.audio.unwrap());
        assert!(video.bitrate_kbps > 5 && audio.bitrate_kbps > 5, "{guest:?}");
        assert!(video.loss_percent == 0.0 && video.jitter_ms < 30.0, "{guest:?}");
        assert_eq!((guest.vitals.width, guest.vitals.codec.as_deref()), (Some(320), Some("VP8")));

        client.mute();
        told(&mut subject, Diagnosis::MutedAtSource).await;
        leave(&mut subject, client, admission).await;
    });
}
