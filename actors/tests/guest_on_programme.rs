//! A real WebRTC client takes a seat; what it sends is seen and heard by another one that watches the programme.
#![allow(clippy::unwrap_used)]

#[path = "../../pipelines/tests/rtc_support/mod.rs"]
mod rtc_support;
mod support;
#[path = "support/viewer.rs"]
mod viewer;

use std::time::Duration;

use r58_actors::GuestError;
use r58_actors::guest::core::SeatState;
use r58_actors::guest::{Admission, AdmitGuest, DropGuest, GetSeats};
use r58_actors::mixer::TakeScene;
use r58_actors::mixer::core::TakeKind;
use r58_actors::state::Levels;
use r58_actors::viewers::DropViewer;
use rtc_support::*;
use support::*;
use viewer::Viewer;

async fn join(subject: &Studio58, streams: &[Stream]) -> (Client, Result<Admission, GuestError>) {
    let client = Client::open(streams, &[], false).await;
    client.send(streams).await;
    let offer = client.offer().await;
    let request = AdmitGuest { seat: "guest1".into(), bearer: Some("one".into()), offer };
    let admission = subject.handle.guests.admit.send_within(request, Duration::from_secs(10)).await.unwrap();
    if let Ok(admission) = &admission {
        client.accept(admission.answer.clone()).await;
    }
    (client, admission)
}

#[test]
fn a_guest_is_seen_and_heard_on_the_programme_and_its_seat_is_free_when_it_is_gone() {
    with_a_box(|mut subject| async move {
        let (guest, admission) = join(&subject, &[OPUS, CONSTRAINED_BASELINE]).await;
        let session = admission.unwrap().session;
        subject.until("live", |state| live(state, "guest1")).await;
        let seats = subject.handle.guests.seats.send(GetSeats).await.unwrap();
        assert_eq!((seats[0].state, seats[0].path.as_deref()), (SeatState::Live, Some("host")));

        let scene = scene_showing(&subject.handle, "guest1");
        subject.handle.mixer.take.send(TakeScene { scene, kind: TakeKind::Cut }).await.unwrap().unwrap();
        let viewer = Viewer::watch(&subject, "programme").await.unwrap();
        let (mut seen, _link) = watch_feed(&viewer.feed);
        wait_seen(&mut seen, "the guest's red", |seen| seen.colour.is_some_and(is_red)).await;
        let mut levels = subject.handle.levels.clone();
        let loud = |levels: &Levels| levels.get("programme").is_some_and(|db| *db > -40.0);
        let heard = tokio::time::timeout(LIMIT, levels.wait_for(|levels| loud(levels))).await;
        assert!(heard.is_ok(), "the guest is not heard: {:?}", subject.handle.levels.borrow());
        wait_seen(&mut seen, "the guest's tone", |seen| seen.hertz.is_some_and(is_tone)).await;
        subject.until("one viewer", |state| state.programme.viewers == 1).await;

        // The seat is taken while its guest is seen.
        let (second, refused) = join(&subject, &[OPUS, CONSTRAINED_BASELINE]).await;
        assert_eq!(refused.unwrap_err().status(), 409);
        second.close().await;

        let leave = DropGuest { seat: "guest1".into(), session, bearer: Some("one".into()) };
        subject.handle.guests.end.send(leave).await.unwrap().unwrap();
        subject.until("free", |state| state.inputs.iter().any(|i| i.id == "guest1" && i.signal == "free")).await;
        wait_seen(&mut seen, "the slate", |seen| !seen.colour.is_some_and(is_red)).await;
        assert_eq!(subject.missed(), 0);

        let end = DropViewer { name: "programme".into(), session: viewer.session };
        subject.handle.viewers.end.send(end).await.unwrap().unwrap();
        subject.until("no viewer", |state| state.programme.viewers == 0).await;
        viewer.client.close().await;
        guest.close().await;
    });
}

#[test]
fn a_single_input_can_be_watched_and_a_guest_that_vanishes_can_come_back_at_once() {
    with_a_box(|mut subject| async move {
        let (guest, admission) = join(&subject, &[OPUS, VP8]).await;
        admission.unwrap();
        subject.until("live", |state| live(state, "guest1")).await;
        let viewer = Viewer::watch(&subject, "guest1").await.unwrap();
        let (mut seen, _link) = watch_feed(&viewer.feed);
        wait_seen(&mut seen, "the guest's red", |seen| seen.colour.is_some_and(is_red)).await;

        guest.close().await;
        subject.until("not live", |state| !live(state, "guest1")).await;
        let (again, admission) = join(&subject, &[OPUS, VP8]).await;
        admission.unwrap();
        subject.until("live again", |state| live(state, "guest1")).await;
        again.close().await;
        viewer.client.close().await;
    });
}
