//! A box of two test cameras and a seat, on air, that must leave nothing alive.
#![allow(dead_code, clippy::unwrap_used)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use r58_actors::device::{DeviceHandle, DevicePlan, InputPlan, SeatPlan, SourceCell, start};
use r58_actors::state::board::Neighbours;
use r58_actors::state::{DeviceIdentity, DeviceState, FleetState};
use r58_actors::supervision::{House, HouseSettings};
use r58_actors::turn::TurnSettings;
use r58_pipelines::encoder::EncoderDesk;
use r58_pipelines::input::SourceSpec;
use r58_pipelines::peer::{PeerFactory, PeerSettings};
use r58_pipelines::{Mode, Profile};
use tokio::sync::watch;

/// Longest wait for anything here, on a machine that is busy with other things.
pub const LIMIT: Duration = Duration::from_secs(40);

/// Two cameras and a seat, in a small mode.
pub fn plan() -> DevicePlan {
    let input = |n: u32, pattern: &str| InputPlan {
        id: format!("cam{n}"),
        label: format!("CAM {n}"),
        source: SourceCell::new(SourceSpec::Test { pattern: pattern.into(), tone_hz: 220.0 * f64::from(n) }),
    };
    DevicePlan {
        device: DeviceIdentity { id: "box".into(), name: "BOX".into(), org: "test".into(), version: "0".into() },
        mode: Mode::new(320, 180, 15),
        bitrate_kbps: 300,
        encoders: EncoderDesk::new(&Profile::auto(), None),
        inputs: vec![input(1, "ball"), input(2, "smpte")],
        seats: vec![SeatPlan { id: "guest1".into(), label: "GUEST 1".into(), token: "one".into() }],
        rehearsal: true,
        viewers_most: 4,
        seat_policy: Default::default(),
        guest_latency: Default::default(),
        store: Arc::new(r58_mqtt::durable::Memory::new()),
    }
}

pub struct Studio58 {
    pub house: House,
    pub handle: DeviceHandle,
    state: watch::Receiver<Arc<DeviceState>>,
}

/// Runs a test in a box that is on air with both cameras live, and fails if anything is left alive.
pub fn with_a_box<F: Future<Output = ()>>(test: impl FnOnce(Studio58) -> F) {
    with_a_box_and(None, test);
}

/// The same with one more input.
pub fn with_a_box_and<F: Future<Output = ()>>(extra: Option<InputPlan>, test: impl FnOnce(Studio58) -> F) {
    let mut plan = plan();
    plan.inputs.extend(extra);
    with_this_box(plan, test);
}

/// The same with another plan; it must have both cameras.
pub fn with_this_box<F: Future<Output = ()>>(plan: DevicePlan, test: impl FnOnce(Studio58) -> F) {
    actix_rt::System::new().block_on(async {
        let house = House::open(HouseSettings::default());
        let peers = PeerFactory::new(PeerSettings { loopback: true, ..PeerSettings::default() }).unwrap();
        let (_ice, ice) = watch::channel(TurnSettings::first_snapshot(&[]));
        let (_roads, roads) = watch::channel(Vec::new());
        let (_metrics, metrics) = watch::channel(Default::default());
        let (_fleet, fleet) = watch::channel(FleetState::default());
        let handle = start(&house, plan, peers, Neighbours { ice, roads, metrics, fleet }).unwrap();
        let state = handle.state.clone();
        let mut subject = Studio58 { house: house.clone(), handle, state };
        subject.until("on air", |state| state.programme.frames > 0 && live(state, "cam1") && live(state, "cam2")).await;
        test(subject).await;
        let alive = house.stop(Duration::from_secs(10)).await;
        assert!(alive.is_empty(), "left alive: {alive:?}");
    });
}

pub fn live(state: &DeviceState, id: &str) -> bool {
    state.inputs.iter().any(|input| input.id == id && input.signal == "live")
}

impl Studio58 {
    pub async fn until(&mut self, what: &str, condition: impl Fn(&DeviceState) -> bool) -> Arc<DeviceState> {
        let seen = tokio::time::timeout(LIMIT, self.state.wait_for(|state| condition(state))).await;
        match seen {
            Ok(Ok(state)) => state.clone(),
            _ => panic!("never {what}: {:#?}, {:#?}", self.handle.studio.programme().stats(), self.house.reports()),
        }
    }

    /// Lets so many further programme frames pass.
    pub async fn frames(&mut self, count: u64) -> Arc<DeviceState> {
        let goal = self.handle.studio.programme().stats().unwrap().frames + count;
        self.until("more frames", |state| state.programme.frames >= goal).await
    }

    /// Frame slots of the programme that were not filled.
    pub fn missed(&self) -> u64 {
        self.handle.studio.programme().stats().unwrap().missed_slots
    }
}

/// The scene that shows only this input.
pub fn scene_showing(handle: &DeviceHandle, id: &str) -> String {
    let only = |scene: &&r58_pipelines::Scene| scene.shows(id) && scene.slots.len() == 1;
    handle.scenes.all().iter().find(only).unwrap().id.clone()
}
