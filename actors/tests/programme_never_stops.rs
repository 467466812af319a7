//! The programme never stops: real test sources, the real programme, and cameras that stall, lose their cable and panic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use r58_actors::camera::{GetSignal, Rehearse, RehearsedFault};
use r58_actors::device::{SourceCell, DeviceHandle, DevicePlan, InputPlan, SeatPlan, start};
use r58_actors::mixer::core::{TakeKind, Tally};
use r58_actors::mixer::{Identify, SetPreview, Transition};
use r58_actors::state::board::Neighbours;
use r58_actors::state::{DeviceIdentity, DeviceState, FleetState};
use r58_actors::supervision::{ActorState, House, HouseSettings};
use r58_actors::turn::TurnSettings;
use r58_pipelines::Mode;
use r58_pipelines::input::SourceSpec;
use r58_pipelines::peer::{PeerFactory, PeerSettings};
use tokio::sync::watch;

/// Longest wait for anything here, on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(40);

fn plan() -> DevicePlan {
    let input = |n: u32, pattern: &str| InputPlan {
        id: format!("cam{n}"),
        label: format!("CAM {n}"),
        source: SourceCell::new(SourceSpec::Test { pattern: pattern.into(), tone_hz: 220.0 * f64::from(n) }),
    };
    DevicePlan {
        device: DeviceIdentity { id: "box".into(), name: "BOX".into(), org: "test".into(), version: "0".into() },
        mode: Mode::new(320, 180, 15),
        bitrate_kbps: 300,
        encoder: None,
        inputs: vec![input(1, "ball"), input(2, "smpte")],
        seats: vec![SeatPlan { id: "guest1".into(), label: "GUEST 1".into(), token: "one".into() }],
        rehearsal: true,
        viewers_most: 4,
        seat_policy: Default::default(),
        guest_latency: Default::default(),
    }
}

struct Box58 {
    house: House,
    handle: DeviceHandle,
    state: watch::Receiver<Arc<DeviceState>>,
}

/// Runs a test in a box that is on air with both cameras live, and fails if anything is left alive.
fn with_a_box<F: Future<Output = ()>>(test: impl FnOnce(Box58) -> F) {
    actix_rt::System::new().block_on(async {
        let house = House::open(HouseSettings::default());
        let peers = PeerFactory::new(PeerSettings { loopback: true, ..PeerSettings::default() }).unwrap();
        let (_ice, ice) = watch::channel(TurnSettings::first_snapshot(&[]));
        let (_metrics, metrics) = watch::channel(Default::default());
        let (_fleet, fleet) = watch::channel(FleetState::default());
        let handle = start(&house, plan(), peers, Neighbours { ice, metrics, fleet }).unwrap();
        let state = handle.state.clone();
        let mut subject = Box58 { house: house.clone(), handle, state };
        subject.until("on air", |state| state.programme.frames > 0 && live(state, "cam1") && live(state, "cam2")).await;
        test(subject).await;
        let alive = house.stop(Duration::from_secs(10)).await;
        assert!(alive.is_empty(), "left alive: {alive:?}");
    });
}

fn live(state: &DeviceState, id: &str) -> bool {
    state.inputs.iter().any(|input| input.id == id && input.signal == "live")
}

impl Box58 {
    async fn until(&mut self, what: &str, condition: impl Fn(&DeviceState) -> bool) -> Arc<DeviceState> {
        let seen = tokio::time::timeout(LIMIT, self.state.wait_for(|state| condition(state))).await;
        match seen {
            Ok(Ok(state)) => state.clone(),
            _ => panic!("never {what}: {:#?}, {:#?}", self.handle.studio.programme().stats(), self.house.reports()),
        }
    }

    /// Lets so many further programme frames pass.
    async fn frames(&mut self, count: u64) -> Arc<DeviceState> {
        let goal = self.handle.studio.programme().stats().unwrap().frames + count;
        self.until("more frames", |state| state.programme.frames >= goal).await
    }

    async fn rehearse(&self, id: &str, fault: RehearsedFault) {
        // A panic has no answer.
        let answer = self.handle.cameras[id].rehearse.send(Rehearse { fault }).await;
        assert_eq!(answer.is_ok_and(|answer| answer.is_ok()), fault != RehearsedFault::Panic);
    }

    /// Asks the camera itself, frame by frame, so that no news from before counts.
    async fn until_signal(&mut self, id: &str, signal: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let report = self.handle.cameras[id].signal.send(GetSignal).await.unwrap();
            if report.signal == signal {
                return;
            }
            assert!(Instant::now() < end, "{id} never {signal}: {report:?}");
            self.frames(1).await;
        }
    }

    fn missed(&self) -> u64 {
        self.handle.studio.programme().stats().unwrap().missed_slots
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
            subject.rehearse(id, fault).await;
            if let Some(sign) = sign {
                subject.until_signal(id, sign).await;
            }
            subject.frames(10).await;
            subject.until_signal(id, "live").await;
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
        let heard = levels.wait_for(|levels| levels.get("cam1").is_some_and(|db| *db > -40.0));
        let levels = tokio::time::timeout(LIMIT, heard).await.unwrap().unwrap().clone();
        assert!(levels["guest1"] < -60.0, "{levels:?}");
        assert!(levels.contains_key("programme"));
        assert_eq!(subject.handle.tokens.seat_of("one"), Some("guest1"));
    });
}

fn scene_showing(handle: &DeviceHandle, id: &str) -> String {
    let only = |scene: &&r58_pipelines::Scene| scene.shows(id) && scene.slots.len() == 1;
    handle.scenes.all().iter().find(only).unwrap().id.clone()
}
