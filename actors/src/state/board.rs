//! StateBoard: puts together what pages show, from the studio and from what the other actors publish.
//!
//! Job: one [`DeviceState`] for every page and call, levels apart. In: the studio, and watches of the fleet link, TurnCache and
//! Governor. Out: two watches. Changes that somebody waits for (a take, a signal) go out within a tenth of a second, counters
//! once a second.
//!
//! Failure policy: it holds nothing; rebuilt, it looks again. Supervised by the house, not essential.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext as _, Context, Supervised};
use r58_pipelines::SceneSet;
use tokio::sync::watch;

use super::{
    DegradationState, DeviceIdentity, DeviceState, EncoderState, FleetState, InputState, Levels, PreviewState,
    ProgrammeState, SceneState, TakeState, TurnRoad, TurnState,
};
use crate::governor::Metrics;
use crate::mixer::core::Tally;
use crate::studio::Studio;
use crate::supervision::Life;
use crate::turn::IceSnapshot;

/// Ten a second is the most that pages are told.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Counters alone are news once a second.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// What other actors publish about themselves.
#[derive(Clone)]
pub struct Neighbours {
    /// From the TurnForwarder: servers that the box's own peers can use.
    pub ice: watch::Receiver<IceSnapshot>,
    /// From the TurnForwarder: how it reaches them.
    pub roads: watch::Receiver<Vec<TurnRoad>>,
    /// From the Governor.
    pub metrics: watch::Receiver<Metrics>,
    /// From the fleet link, in the words of the API.
    pub fleet: watch::Receiver<FleetState>,
}

/// What a [`StateBoard`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct BoardSettings {
    /// Who the box is.
    pub device: DeviceIdentity,
    /// What stands in it.
    pub studio: Studio,
    /// All scenes.
    pub scenes: Arc<SceneSet>,
    /// The other actors' words.
    pub neighbours: Neighbours,
    /// Whether faults may be rehearsed.
    pub rehearsal: bool,
    /// Where the state goes.
    pub state: watch::Sender<Arc<DeviceState>>,
    /// Where the levels go.
    pub levels: watch::Sender<Arc<Levels>>,
}

impl BoardSettings {
    /// Everything, as it is now.
    pub fn compose(&self) -> DeviceState {
        let room = self.studio.programme();
        let (mind, stats, mode) = (room.mind(), room.stats(), self.studio.mode());
        let (ice, metrics) = (self.neighbours.ice.borrow().clone(), self.neighbours.metrics.borrow().clone());
        let inputs = self.studio.inputs().iter().map(|room| {
            let (name, face, stats) = (room.name(), room.face(), room.stats());
            InputState {
                id: name.id.clone(),
                label: room.label(),
                kind: name.kind,
                signal: face.signal,
                reason: face.reason,
                frames: stats.frames,
                fps: (room.fps() * 10.0).round() / 10.0,
                tally: mind.as_ref().map_or(Tally::None, |mind| mind.tally(&name.id)),
                level_db: stats.audio_level_db,
                sound: face.sound,
                muted: room.feed().fader().is_muted(),
                gain_db: room.feed().fader().level_db(),
                guest: room.guest(),
            }
        });
        let scenes = self.scenes.all().iter();
        let mind = mind.as_ref();
        DeviceState {
            device: self.device.clone(),
            programme: ProgrammeState {
                width: mode.width,
                height: mode.height,
                fps: stats.as_ref().map_or(0.0, |stats| (stats.fps * 10.0).round() / 10.0),
                frames: stats.as_ref().map_or(0, |stats| stats.frames),
                missed_slots: stats.as_ref().map_or(0, |stats| stats.missed_slots),
                scene: mind.map(|mind| mind.pgm().to_owned()).unwrap_or_default(),
                viewers: self.studio.viewers(crate::viewers::PROGRAMME),
                encoder: EncoderState { rejected: Vec::new(), ..room.encoder() },
            },
            pvw: PreviewState { scene: mind.map(|mind| mind.pvw().to_owned()).unwrap_or_default() },
            transition: mind.and_then(|mind| mind.transition()).map(TakeState::from),
            inputs: inputs.collect(),
            scenes: scenes
                .map(|scene| SceneState {
                    id: scene.id.clone(),
                    label: self.studio.renamed(&scene.label),
                    slots: scene.slots.clone(),
                })
                .collect(),
            degradation: DegradationState {
                level: metrics.degradation.level,
                reasons: metrics.degradation.reasons.clone(),
            },
            fleet: self.neighbours.fleet.borrow().clone(),
            turn: TurnState {
                provider: ice.provider,
                expires_at: ice.expires_at,
                stale: ice.stale,
                roads: self.neighbours.roads.borrow().clone(),
            },
            identify: mind.and_then(|mind| mind.identify()).map(str::to_owned),
            whep_inputs: self.studio.previews_allowed(),
            rehearsal: self.rehearsal,
        }
    }

    fn levels(&self) -> Levels {
        let rounded = |db: f32| (db * 10.0).round() / 10.0;
        let inputs = self.studio.inputs().iter();
        let mut levels: Levels =
            inputs.map(|room| (room.name().id.clone(), rounded(room.stats().audio_level_db))).collect();
        if let Some(stats) = self.studio.programme().stats() {
            levels.insert(crate::viewers::PROGRAMME.to_owned(), rounded(stats.level_db));
        }
        levels
    }
}

/// The state without what changes by itself all the time.
fn essence(state: &DeviceState) -> DeviceState {
    let mut essence = state.clone();
    let programme = &mut essence.programme;
    (programme.frames, programme.missed_slots, programme.fps) = (0, 0, 0.0);
    for road in &mut essence.turn.roads {
        (road.bytes_up, road.bytes_down, road.dropped) = (0, 0, 0);
    }
    for input in &mut essence.inputs {
        (input.frames, input.fps, input.level_db) = (0, 0.0, 0.0);
        if let Some(guest) = &mut input.guest {
            guest.vitals = Default::default();
        }
    }
    essence
}

/// The actor.
pub struct StateBoard {
    _life: Life,
    settings: BoardSettings,
    told: Option<(Instant, DeviceState)>,
    round: u64,
}

impl StateBoard {
    /// For the house's factory.
    pub fn new(life: Life, settings: BoardSettings) -> Self {
        Self { _life: life, settings, told: None, round: 0 }
    }

    fn look(&mut self, _: &mut Context<Self>) {
        let (now, state) = (Instant::now(), self.settings.compose());
        self.round += 1;
        if self.round.is_multiple_of(2) {
            self.settings.levels.send_replace(Arc::new(self.settings.levels()));
        }
        let bare = essence(&state);
        let due =
            self.told.as_ref().is_none_or(|(at, told)| now.duration_since(*at) >= COUNTERS_EVERY || *told != bare);
        if due {
            self.told = Some((now, bare));
            self.settings.state.send_replace(Arc::new(state));
        }
    }
}

impl Actor for StateBoard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, Self::look);
    }
}

impl Supervised for StateBoard {}
crate::supervised!(StateBoard);
