//! The Mixer with a programme that writes down what it is told: takes, slates, restarts, and what outlives a panic.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use r58_pipelines::programme::{ProgrammeEvent, ProgrammeStats, TakeTicket};
use r58_pipelines::{Feed, Mode, PipelineError, RtpFanout, SceneInput, Thumbnails};

use super::*;
use crate::state::InputKind;
use crate::studio::InputName;
use crate::supervision::testing::{LIMIT, brisk, in_a_house, until, until_running};
use crate::supervision::{ActorState, DoorError, House, HouseSettings, Slot, lock};

/// A programme that only writes down what it is told.
#[derive(Default)]
struct Script {
    starts: AtomicUsize,
    fails: AtomicUsize,
    told: Mutex<Vec<String>>,
    news: Mutex<Option<ProgrammeNews>>,
}

struct Fake(Arc<Script>);
struct Starter(Arc<Script>);

impl ComposerStarter for Starter {
    fn start(&self, news: ProgrammeNews) -> Result<Arc<dyn Composer>, PipelineError> {
        self.0.starts.fetch_add(1, SeqCst);
        if self.0.fails.load(SeqCst) > 0 {
            self.0.fails.fetch_sub(1, SeqCst);
            return Err(PipelineError::NoEncoder("none at all".into()));
        }
        *lock(&self.0.news) = Some(news);
        Ok(Arc::new(Fake(self.0.clone())))
    }
}

impl Fake {
    fn note(&self, what: String) {
        lock(&self.0.told).push(what);
    }
}

impl Composer for Fake {
    fn attach(&self, input: &str, _: &Feed) {
        self.note(format!("attach {input}"));
    }
    fn detach(&self, input: &str, reason: &str) {
        self.note(format!("detach {input}: {reason}"));
    }
    fn set_slate(&self, input: &str, reason: &str) {
        self.note(format!("slate {input}: {reason}"));
    }
    fn take(&self, scene: &Scene, kind: TakeKind) -> Result<TakeTicket, PipelineError> {
        self.note(format!("take {} {kind:?}", scene.id));
        Ok(TakeTicket { id: 1, frame: 1 })
    }
    fn identify(&self, text: Option<&str>) {
        if let Some(text) = text {
            self.note(format!("identify {text}"));
        }
    }
    fn set_preset(&self, level: u8) {
        self.note(format!("preset {level}"));
    }
    fn stats(&self) -> ProgrammeStats {
        ProgrammeStats {
            frames: 1,
            missed_slots: 0,
            longest_gap_ms: 0.0,
            running_time: 0.0,
            fps: 30.0,
            takes: 0,
            last_take_frames: 0,
            last_take_ms: 0.0,
            encoder_dropped: 0,
            level_db: 0.0,
            preset: 0,
            last_frame: Some(Instant::now()),
        }
    }
    fn rtp(&self) -> Option<RtpFanout> {
        None
    }
    fn thumbnails(&self) -> Vec<(String, Thumbnails)> {
        Vec::new()
    }
    fn encoder(&self) -> EncoderState {
        EncoderState { name: "fake".into(), ..EncoderState::default() }
    }
}

struct Stage {
    studio: Studio,
    script: Arc<Script>,
    slot: Slot<Mixer>,
}

fn stage(house: &House, fails: usize) -> Stage {
    let name = |id: &str, label: &str| InputName { id: id.into(), label: label.into(), kind: InputKind::Camera };
    let names = vec![name("cam1", "CAM 1"), name("cam2", "CAM 2")];
    let inputs: Vec<_> = names.iter().map(|name| SceneInput::camera(&name.id, &name.label)).collect();
    let studio = Studio::set_up(&Mode::new(64, 64, 30), names).unwrap();
    let script = Arc::new(Script { fails: fails.into(), ..Script::default() });
    let settings = MixerSettings {
        studio: studio.clone(),
        scenes: Arc::new(SceneSet::shipped(&inputs).unwrap()),
        starter: Arc::new(Starter(script.clone())),
    };
    let slot = house.engage(brisk("mixer", "mixer").essential(), move |life| Mixer::new(life, settings.clone()));
    Stage { studio, script, slot }
}

impl Stage {
    async fn on_air(&self) {
        let mut changes = self.studio.changes();
        let up = tokio::time::timeout(LIMIT, async {
            while self.studio.programme().stats().is_none() {
                changes.changed().await.unwrap();
            }
        });
        up.await.expect("the programme starts");
    }

    fn told(&self, what: &str) -> bool {
        lock(&self.script.told).iter().any(|told| told == what)
    }

    async fn until_told(&self, what: &str) {
        let end = Instant::now() + LIMIT;
        while !self.told(what) {
            assert!(Instant::now() < end, "never told {what}: {:?}", lock(&self.script.told));
            tokio::task::yield_now().await;
        }
    }

    fn scenes(&self) -> (String, String) {
        let mind = self.studio.programme().mind().unwrap();
        (mind.pgm().to_owned(), mind.pvw().to_owned())
    }
}

/// Makes the actor panic.
#[derive(Message)]
#[rtype(result = "()")]
struct Panic;
impl Handler<Panic> for Mixer {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("rehearsed");
    }
}

#[test]
fn a_mixer_that_panics_finds_its_programme_running_and_its_scenes_as_they_were() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house, 0);
        stage.on_air().await;
        let before = stage.scenes();
        stage.slot.door().send(Transition { kind: TakeKind::Cut }).await.unwrap().unwrap();
        assert_eq!(stage.scenes(), (before.1.clone(), before.0.clone()));
        assert!(matches!(stage.slot.door().send(Panic).await, Err(DoorError::Interrupted(_))));
        assert!(stage.studio.programme().stats().is_some(), "the programme does not stop meanwhile");
        until_running(&house, "mixer", 1).await;
        let report = stage.slot.door().send(GetMixer).await.unwrap();
        assert_eq!((report.pgm, report.pvw), (before.1, before.0));
        assert_eq!(stage.script.starts.load(SeqCst), 1);
    });
}

#[test]
fn a_programme_that_breaks_is_started_anew_with_the_scene_that_was_on() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house, 0);
        stage.on_air().await;
        let report = stage.slot.door().send(Transition { kind: TakeKind::Mix { duration_ms: 200 } }).await.unwrap();
        let scene = report.unwrap().pgm;
        lock(&stage.script.told).clear();
        let news = lock(&stage.script.news).clone().unwrap();
        // Also a Mixer that did not start this programme hears of it.
        assert!(house.restart("mixer").await);
        until_running(&house, "mixer", 1).await;
        stage.slot.door().send(GetMixer).await.unwrap();
        news(ProgrammeEvent::Failed { message: "out of memory".into() });
        let report = until_running(&house, "mixer", 2).await;
        assert_eq!(report.last_cause.as_deref(), Some("out of memory"));
        stage.on_air().await;
        stage.until_told(&format!("take {scene} Cut")).await;
        // What the old one still says is nobody's news.
        news(ProgrammeEvent::Failed { message: "again".into() });
        stage.slot.door().send(GetMixer).await.unwrap();
        assert!(stage.studio.programme().stats().is_some());
        assert_eq!(stage.script.starts.load(SeqCst), 2);
    });
}

#[test]
fn a_programme_that_never_starts_ends_the_process() {
    let lost: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = lost.clone();
    let settings = HouseSettings {
        on_lost_duty: Arc::new(move |name, cause| lock(&note).push(format!("{name}: {cause}"))),
        ..HouseSettings::default()
    };
    let seen = lost.clone();
    in_a_house(settings, |house| async move {
        let stage = stage(&house, usize::MAX);
        until(&house, "mixer", |report| report.state == ActorState::Degraded).await;
        while lock(&seen).is_empty() {
            tokio::task::yield_now().await;
        }
        let refused = stage.slot.door().send(Transition { kind: TakeKind::Cut }).await.unwrap();
        assert_eq!(refused.unwrap_err().status(), 503);
        assert_eq!(stage.script.starts.load(SeqCst), 6);
    });
    assert_eq!(lock(&lost).len(), 1);
    assert!(lock(&lost)[0].starts_with("mixer: no usable H.264 encoder"), "{lost:?}");
}

#[test]
fn inputs_come_and_go_on_the_programme_as_their_faces_say() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house, 0);
        stage.on_air().await;
        let room = stage.studio.input("cam2").unwrap();
        room.show("live", "", true);
        stage.until_told("attach cam2").await;
        room.show("stalled", "no frames for 1 s", true);
        stage.until_told("slate cam2: no frames for 1 s").await;
        room.show("failed", "no route", false);
        stage.until_told("detach cam2: no route").await;
        assert!(!stage.told("attach cam1"));
    });
}

#[test]
fn a_scene_that_is_not_there_and_a_mix_of_an_hour_are_refused() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house, 0);
        stage.on_air().await;
        let unknown = stage.slot.door().send(SetPreview { scene: "nine".into() }).await.unwrap();
        assert_eq!(unknown.unwrap_err().status(), 404);
        let kind = TakeKind::Mix { duration_ms: 3_600_000 };
        let long = stage.slot.door().send(Transition { kind }).await.unwrap();
        assert_eq!(long.unwrap_err().status(), 422);
    });
}

#[test]
fn the_boxs_name_is_shown_and_goes_by_itself() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house, 0);
        stage.on_air().await;
        let identify = Identify { text: "BOX 7".into(), length: Duration::from_millis(150) };
        stage.slot.door().send(identify).await.unwrap().unwrap();
        assert!(stage.told("identify BOX 7"));
        let mut changes = stage.studio.changes();
        let gone = tokio::time::timeout(LIMIT, async {
            while stage.studio.programme().mind().unwrap().identify().is_some() {
                changes.changed().await.unwrap();
            }
        });
        gone.await.unwrap();
    });
}
