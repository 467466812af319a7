//! The programme never stops: real test sources, the real programme, and cameras that stall, lose their cable and panic.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use r58_actors::camera::{GetSignal, Rehearse, RehearsedFault};
use r58_actors::mixer::core::{TakeKind, Tally};
use r58_actors::mixer::{Identify, SetPreview, Transition};
use r58_actors::state::DeviceState;
use r58_actors::supervision::ActorState;
use support::*;

async fn rehearse(subject: &Studio58, id: &str, fault: RehearsedFault) {
    // A panic has no answer.
    let answer = subject.handle.cameras[id].rehearse.send(Rehearse { fault }).await;
    assert_eq!(answer.is_ok_and(|answer| answer.is_ok()), fault != RehearsedFault::Panic);
}

/// Asks the camera itself, frame by frame, so that no news from before counts.
async fn until_signal(subject: &mut Studio58, id: &str, signal: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let report = subject.handle.cameras[id].signal.send(GetSignal).await.unwrap();
        if report.signal == signal {
            return;
        }
        assert!(Instant::now() < end, "{id} never {signal}: {report:?}");
        subject.frames(1).await;
    }
}

#[test]
fn every_frame_slot_is_filled_while_cameras_panic_stall_and_lose_their_cable_and_they_come_back() {
    with_a_box(|mut subject| async move {
        let before = subject.missed();
        for (id, fault, sign) in [
            ("cam1", RehearsedFault::Panic, None),
            ("cam2", RehearsedFault::Panic, None),
            ("cam1", RehearsedFault::Stall, Some("stalled")),
            ("cam2", RehearsedFault::Unplug, Some("no_cable")),
        ] {
            rehearse(&subject, id, fault).await;
            if let Some(sign) = sign {
                until_signal(&mut subject, id, sign).await;
            }
            subject.frames(10).await;
            if fault == RehearsedFault::Unplug {
                until_signal(&mut subject, id, "no_cable").await;
                rehearse(&subject, id, RehearsedFault::None).await;
            }
            until_signal(&mut subject, id, "live").await;
        }
        assert_eq!(subject.missed(), before, "frame slots were missed");
        let reports = subject.house.reports();
        for name in ["camera cam1", "camera cam2"] {
            let report = reports.iter().find(|report| report.name == name).unwrap();
            assert_eq!((report.state, report.restarts), (ActorState::Running, 1), "{report:?}");
        }
        let mixer = reports.iter().find(|report| report.name == "mixer").unwrap();
        assert_eq!((mixer.restarts, mixer.essential), (0, true));
    });
}

#[test]
fn the_programme_goes_on_while_the_mixer_is_rebuilt_and_takes_go_on_after_it() {
    with_a_box(|mut subject| async move {
        let mixer = &subject.handle.mixer;
        mixer.set_preview.send(SetPreview { scene: scene_showing(&subject.handle, "cam2") }).await.unwrap().unwrap();
        mixer.transition.send(Transition { kind: TakeKind::Mix { duration_ms: 200 } }).await.unwrap().unwrap();
        let tally = |state: &DeviceState, id: &str| state.inputs.iter().find(|input| input.id == id).unwrap().tally;
        let mixed = |state: &DeviceState| state.transition.is_none() && tally(state, "cam2") == Tally::Programme;
        let state = subject.until("the mix to end", mixed).await;
        let (frames, missed, scene) = (state.programme.frames, subject.missed(), state.programme.scene.clone());
        assert!(subject.house.restart("mixer").await);
        let state = subject.frames(10).await;
        assert!(state.programme.frames >= frames + 10, "it is the same programme");
        assert_eq!((subject.missed(), &state.programme.scene), (missed, &scene));
        let mixer = subject.handle.mixer.clone();
        let report = mixer.transition.send(Transition { kind: TakeKind::Cut }).await.unwrap().unwrap();
        assert_eq!(report.pvw, scene);
        assert!(!report.encoder.name.is_empty());
        let identify = Identify { text: "BOX".into(), length: Duration::from_millis(300) };
        mixer.identify.send(identify).await.unwrap().unwrap();
        subject.until("identified", |state| state.identify.as_deref() == Some("BOX")).await;
        subject.until("no longer identified", |state| state.identify.is_none()).await;
    });
}

#[test]
fn thumbnails_and_levels_come_without_anybodys_mailbox() {
    with_a_box(|subject| async move {
        let end = Instant::now() + LIMIT;
        for name in ["programme", "cam1", "guest1"] {
            while subject.handle.thumbnails.latest(name).is_none() {
                assert!(Instant::now() < end, "no thumbnail of {name}");
                tokio::task::yield_now().await;
            }
        }
        let mut levels = subject.handle.levels.clone();
        let loud = |db: &f32| *db > -40.0;
        let heard = levels.wait_for(|levels| levels.get("cam1").is_some_and(loud) && levels.contains_key("programme"));
        let levels = tokio::time::timeout(LIMIT, heard).await.unwrap().unwrap().clone();
        assert!(levels["guest1"] < -60.0, "{levels:?}");
        assert_eq!(subject.handle.book.of("one").map(|pass| pass.seat).as_deref(), Some("guest1"));
    });
}
