//! A box put together: from a plan to running actors and the doors to them.
//!
//! The binary maps configuration to a [`DevicePlan`] and HTTP to the doors of a [`DeviceHandle`]; what happens in between is
//! here. The actors of the fleet side (TurnCache, Governor, FleetLink) are engaged beside these and meet them by watches and
//! doors.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use r58_mqtt::durable::KeyValue;
use r58_pipelines::encoder::EncoderDesk;
use r58_pipelines::guest::GuestSettings as GuestLatency;
use r58_pipelines::input::SourceSpec;
use r58_pipelines::peer::PeerFactory;
use r58_pipelines::{Mode, PipelineError};
use r58_pipelines::{SceneInput, SceneSet};
use tokio::sync::watch;

use crate::camera::source::PipelineOpener;
use crate::camera::{Camera, CameraSettings, GetSignal, Rehearse, Reopen};
use crate::governor::{AllowInputViewers, GovernorPeers, SetProgrammePreset, SetThumbnailInterval};
use crate::guest::book::GuestBook;
use crate::guest::core::SeatPolicy;
use crate::guest::join::WebRtcDoorway;
use crate::guest::tokens::SeatTokens;
use crate::guest::{AdmitGuest, DropGuest, GetSeats, GuestIngest, GuestSettings, ManageGuest, PatchGuest};
use crate::mixer::composer::PipelineStarter;
use crate::mixer::{GetMixer, Identify, InputChanged, Mixer, MixerSettings, SetPreview, TakeScene, Transition};
use crate::sfu::AdmitPulled;
use crate::state::board::{BoardSettings, Neighbours, StateBoard};
use crate::state::{DeviceIdentity, DeviceState, InputKind, Levels};
use crate::studio::{InputName, Studio, ThumbnailBoard};
use crate::supervision::{Door, Duty, House, lock};
use crate::viewers::doorway::WebRtcViewerDoorway;
use crate::viewers::hls::{HLS_LINGER, HlsShelf, OpenHls};
use crate::viewers::{AdmitViewer, DropViewer, GetViewers, PatchViewer, ViewerSettings, Viewers};

/// A source of the box's own.
#[derive(Debug, Clone)]
pub struct InputPlan {
    /// Its id, unique among inputs and seats.
    pub id: String,
    /// What the crew calls it.
    pub label: String,
    /// Where its pictures come from.
    pub source: SourceCell,
}

/// Where a camera's source stands: read at the start of each of its lives, so that a restart takes a new one over.
#[derive(Clone, Debug)]
pub struct SourceCell(Arc<Mutex<SourceSpec>>);

impl SourceCell {
    /// With a first source.
    pub fn new(source: SourceSpec) -> Self {
        Self(Arc::new(Mutex::new(source)))
    }

    /// The source in force.
    pub fn get(&self) -> SourceSpec {
        lock(&self.0).clone()
    }

    /// Another source, from the camera's next life on.
    pub fn set(&self, source: SourceSpec) {
        *lock(&self.0) = source;
    }
}

/// A guest's seat.
#[derive(Clone)]
pub struct SeatPlan {
    /// Its id, unique among inputs and seats.
    pub id: String,
    /// What the crew calls it.
    pub label: String,
    /// Who knows this may sit there.
    pub token: String,
}

/// What a box is to be.
#[derive(Clone)]
pub struct DevicePlan {
    /// Who it is.
    pub device: DeviceIdentity,
    /// Picture size and rate of everything.
    pub mode: Mode,
    /// Bitrate of the programme in kbit/s.
    pub bitrate_kbps: u32,
    /// Which encoders there are, and how many may run at once.
    pub encoders: EncoderDesk,
    /// Cameras, in the order of the buttons.
    pub inputs: Vec<InputPlan>,
    /// Seats, after the cameras.
    pub seats: Vec<SeatPlan>,
    /// Whether faults may be rehearsed.
    pub rehearsal: bool,
    /// Most viewers by WHEP at the same time.
    pub viewers_most: usize,
    /// How patient seats are.
    pub seat_policy: SeatPolicy,
    /// How long guests' packets are held back.
    pub guest_latency: GuestLatency,
    /// Where invitations are kept.
    pub store: Arc<dyn KeyValue>,
}

/// The doors to one camera.
#[derive(Clone)]
pub struct CameraDoors {
    /// How is its signal?
    pub signal: Door<GetSignal>,
    /// Rehearse a fault.
    pub rehearse: Door<Rehearse>,
    /// Open its source anew.
    pub reopen: Door<Reopen>,
}

/// The doors to the mixer.
#[derive(Clone)]
pub struct MixerDoors {
    /// A scene on preview.
    pub set_preview: Door<SetPreview>,
    /// The preview on programme.
    pub transition: Door<Transition>,
    /// A scene on programme.
    pub take: Door<TakeScene>,
    /// The box's name on the programme.
    pub identify: Door<Identify>,
    /// What is on?
    pub status: Door<GetMixer>,
}

/// The doors to the seats.
#[derive(Clone)]
pub struct GuestDoors {
    /// WHIP POST.
    pub admit: Door<AdmitGuest>,
    /// WHIP PATCH.
    pub patch: Door<PatchGuest>,
    /// WHIP DELETE.
    pub end: Door<DropGuest>,
    /// Who sits where?
    pub seats: Door<GetSeats>,
    /// A seat for what the SFU offers.
    pub admit_pulled: Door<AdmitPulled>,
    /// The crew's orders.
    pub manage: Door<ManageGuest>,
}

/// The doors to the viewers.
#[derive(Clone)]
pub struct ViewerDoors {
    /// WHEP POST.
    pub admit: Door<AdmitViewer>,
    /// WHEP PATCH.
    pub patch: Door<PatchViewer>,
    /// WHEP DELETE.
    pub end: Door<DropViewer>,
    /// An HLS stream on the shelf.
    pub open_hls: Door<OpenHls>,
    /// How many watch what?
    pub count: Door<GetViewers>,
}

/// A running box. Cheap to clone.
#[derive(Clone)]
pub struct DeviceHandle {
    /// The cameras by id.
    pub cameras: BTreeMap<String, CameraDoors>,
    /// The mixer.
    pub mixer: MixerDoors,
    /// The seats.
    pub guests: GuestDoors,
    /// The viewers.
    pub viewers: ViewerDoors,
    /// HLS streams that are watched, without a mailbox.
    pub hls: HlsShelf,
    /// Small pictures, without a mailbox.
    pub thumbnails: ThumbnailBoard,
    /// All scenes.
    pub scenes: Arc<SceneSet>,
    /// Who may come in; also opens the ICE servers to guests' pages.
    pub book: GuestBook,
    /// What pages show; at most ten a second, once a second at rest.
    pub state: watch::Receiver<Arc<DeviceState>>,
    /// Levels, five a second.
    pub levels: watch::Receiver<Arc<Levels>>,
    /// Whom the Governor tells.
    pub governed: GovernorPeers,
    /// Makes peers; [`PeerFactory::warm`] it when a page asks for ICE servers.
    pub peers: PeerFactory,
    /// What stands in the box, for tests and benchmarks.
    pub studio: Studio,
}

/// Sets up the studio and engages Mixer, cameras, seats, viewers and the board, in this order: what others depend on comes
/// first, and goes last.
///
/// Must be called within an actix system. Returns before the programme runs; the state tells when it does.
///
/// # Errors
/// When GStreamer does not start, an id is used twice, or the scenes do not fit the inputs.
pub fn start(
    house: &House,
    plan: DevicePlan,
    peers: PeerFactory,
    neighbours: Neighbours,
) -> Result<DeviceHandle, PipelineError> {
    let camera = |input: &InputPlan| (input.id.clone(), input.label.clone(), InputKind::Camera);
    let seat = |seat: &SeatPlan| (seat.id.clone(), seat.label.clone(), InputKind::Guest);
    let names = plan.inputs.iter().map(camera).chain(plan.seats.iter().map(seat));
    let names: Vec<InputName> = names.map(|(id, label, kind)| InputName { id, label, kind }).collect();
    check(&names)?;
    let drawn = names.iter().map(|name| match name.kind {
        InputKind::Camera => SceneInput::camera(&name.id, &name.label),
        InputKind::Guest => SceneInput::guest(&name.id, &name.label),
    });
    let scenes = Arc::new(SceneSet::shipped(&drawn.collect::<Vec<_>>())?);
    let studio = Studio::set_up(&plan.mode, names.clone())?;

    let settings = MixerSettings {
        studio: studio.clone(),
        scenes: scenes.clone(),
        starter: Arc::new(PipelineStarter::new(&plan.mode, &names, plan.encoders.clone(), plan.bitrate_kbps)),
    };
    let mixer = house.engage(Duty::new("mixer", "mixer").essential(), move |life| Mixer::new(life, settings.clone()));

    let mut cameras = BTreeMap::new();
    for input in &plan.inputs {
        cameras.insert(input.id.clone(), engage_camera(house, &studio, input, mixer.door(), plan.rehearsal));
    }

    let tokens = SeatTokens::new(plan.seats.iter().map(|seat| (seat.id.as_str(), seat.token.as_str())));
    let seats: Vec<String> = plan.seats.iter().map(|seat| seat.id.clone()).collect();
    let book = GuestBook::open(seats.clone(), tokens, plan.store.clone());
    let settings = GuestSettings {
        studio: studio.clone(),
        seats,
        book: book.clone(),
        policy: plan.seat_policy,
        doorway: Arc::new(WebRtcDoorway { peers: peers.clone(), latency: plan.guest_latency }),
        ice: neighbours.ice.clone(),
        mixer: mixer.door(),
    };
    let guests = house.engage(Duty::new("guests", "guests"), move |life| GuestIngest::new(life, settings.clone()));

    let settings = ViewerSettings {
        studio: studio.clone(),
        doorway: Arc::new(WebRtcViewerDoorway {
            peers: peers.clone(),
            studio: studio.clone(),
            encoders: plan.encoders.clone(),
        }),
        ice: neighbours.ice.clone(),
        hls: HlsShelf::new(HLS_LINGER),
        most: plan.viewers_most,
    };
    let hls = settings.hls.clone();
    let viewers = house.engage(Duty::new("viewers", "viewers"), move |life| Viewers::new(life, settings.clone()));

    let (state_out, state) = watch::channel(Arc::default());
    let (levels_out, levels) = watch::channel(Arc::default());
    let settings = BoardSettings {
        device: plan.device,
        studio: studio.clone(),
        scenes: scenes.clone(),
        neighbours,
        rehearsal: plan.rehearsal,
        state: state_out,
        levels: levels_out,
    };
    // Pages that connect before the first look see who the box is.
    settings.state.send_replace(Arc::new(settings.compose()));
    house.engage(Duty::new("board", "state board"), move |life| StateBoard::new(life, settings.clone()));

    let thumbnails = studio.thumbnails().clone();
    let slowed = thumbnails.clone();
    Ok(DeviceHandle {
        cameras,
        governed: GovernorPeers {
            thumbnails: vec![Door::from_fn(move |SetThumbnailInterval(every)| slowed.set_interval(every))],
            viewers: vec![viewers.door::<AllowInputViewers>()],
            programme: vec![mixer.door::<SetProgrammePreset>()],
        },
        mixer: MixerDoors {
            set_preview: mixer.door(),
            transition: mixer.door(),
            take: mixer.door(),
            identify: mixer.door(),
            status: mixer.door(),
        },
        guests: GuestDoors {
            admit: guests.door(),
            patch: guests.door(),
            end: guests.door(),
            seats: guests.door(),
            admit_pulled: guests.door(),
            manage: guests.door(),
        },
        viewers: ViewerDoors {
            admit: viewers.door(),
            patch: viewers.door(),
            end: viewers.door(),
            open_hls: viewers.door(),
            count: viewers.door(),
        },
        hls,
        thumbnails,
        scenes,
        book,
        state,
        levels,
        peers,
        studio,
    })
}

fn engage_camera(
    house: &House,
    studio: &Studio,
    input: &InputPlan,
    mixer: Door<InputChanged>,
    rehearsal: bool,
) -> CameraDoors {
    let Some(room) = studio.input(&input.id).cloned() else { unreachable!("every input of the plan has a room") };
    let (source, mode) = (input.source.clone(), studio.mode());
    let duty = Duty::new("camera", &format!("camera {}", input.id));
    let slot = house.engage(duty, move |life| {
        let opener = PipelineOpener { source: source.get(), mode };
        let patient = matches!(opener.source, SourceSpec::V4l2 { .. });
        let (room, mixer) = (room.clone(), mixer.clone());
        Camera::new(life, CameraSettings { room, opener: Arc::new(opener), patient, mixer, rehearsal })
    });
    CameraDoors { signal: slot.door(), rehearse: slot.door(), reopen: slot.door() }
}

fn check(names: &[InputName]) -> Result<(), PipelineError> {
    for (n, name) in names.iter().enumerate() {
        let taken = name.id == crate::viewers::PROGRAMME || crate::viewers::returns::return_of(&name.id).is_some();
        let reason = if name.id.is_empty() || taken {
            "this id is not free for an input"
        } else if names[..n].iter().any(|other| other.id == name.id) {
            "this id is used twice"
        } else {
            continue;
        };
        return Err(PipelineError::Misconfigured { what: format!("input {:?}", name.id), reason: reason.into() });
    }
    Ok(())
}
