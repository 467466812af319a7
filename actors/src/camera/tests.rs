//! A Camera with a scripted source: whether its word on the signal is the source's, and what is left after a panic or its end.

use std::collections::VecDeque;
use std::sync::Mutex;

use actix::Actor as _;
use r58_pipelines::signal::Signal;
use r58_pipelines::{Mode, PipelineError};

use super::*;
use crate::mixer::InputChanged;
use crate::state::InputKind;
use crate::studio::{InputName, Studio};
use crate::supervision::testing::{LIMIT, brisk, in_a_house, until_running};
use crate::supervision::{DoorError, HouseSettings, lock};

/// A source that does what the test says.
#[derive(Default)]
struct Script {
    openings: Mutex<VecDeque<Result<(), &'static str>>>,
    news: Mutex<Option<SourceNews>>,
    signal: Mutex<Option<(Signal, String)>>,
    open: std::sync::atomic::AtomicUsize,
    opened: std::sync::atomic::AtomicUsize,
}

struct Opener(Arc<Script>);
struct Source(Arc<Script>);

impl SourceOpener for Opener {
    fn open(&self, _: &InputRoom, news: SourceNews) -> Result<Box<dyn CameraSource>, PipelineError> {
        let next = lock(&self.0.openings).pop_front().unwrap_or(Ok(()));
        next.map_err(|reason| PipelineError::Rejected(reason.into()))?;
        *lock(&self.0.news) = Some(news);
        *lock(&self.0.signal) = None;
        self.0.open.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.0.opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Box::new(Source(self.0.clone())))
    }
}

impl CameraSource for Source {
    fn signal(&self) -> (Signal, String, Option<String>) {
        let (signal, reason) = lock(&self.0.signal).clone().unwrap_or((Signal::Starting, String::new()));
        (signal, reason, Some("64x64 I420".into()))
    }
    fn rehearse(&self, _: RehearsedFault) -> Result<(), ActorsError> {
        Ok(())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Script {
    fn say(&self, signal: Signal, reason: &str) {
        *lock(&self.signal) = Some((signal, reason.into()));
        let news = lock(&self.news).clone().expect("the source is open");
        news(SourceEvent::Signal(signal, reason.into()));
    }

    fn count(&self) -> (usize, usize) {
        use std::sync::atomic::Ordering::SeqCst;
        (self.open.load(SeqCst), self.opened.load(SeqCst))
    }
}

struct Stage {
    studio: Studio,
    script: Arc<Script>,
    settings: CameraSettings,
}

/// Counts what a mixer would be told.
struct Probe;
impl actix::Actor for Probe {
    type Context = Context<Self>;
}
impl Handler<InputChanged> for Probe {
    type Result = ();
    fn handle(&mut self, _: InputChanged, _: &mut Self::Context) {}
}

fn stage(openings: &[Result<(), &'static str>]) -> Stage {
    let name = InputName { id: "cam1".into(), label: "CAM 1".into(), kind: InputKind::Camera };
    let studio = Studio::set_up(&Mode::new(64, 64, 30), vec![name]).unwrap();
    let script = Arc::new(Script { openings: Mutex::new(openings.iter().copied().collect()), ..Script::default() });
    let settings = CameraSettings {
        room: studio.input("cam1").unwrap().clone(),
        opener: Arc::new(Opener(script.clone())),
        patient: false,
        mixer: Probe.start().recipient::<InputChanged>().into(),
        rehearsal: true,
    };
    Stage { studio, script, settings }
}

impl Stage {
    /// Waits for the input's face, woken by the studio's own changes.
    async fn until(&self, signal: &str) -> String {
        let room = self.studio.input("cam1").unwrap();
        let mut changes = self.studio.changes();
        let seen = tokio::time::timeout(LIMIT, async {
            loop {
                let face = room.face();
                if face.signal == signal {
                    return face.reason;
                }
                changes.changed().await.unwrap();
            }
        });
        seen.await.unwrap_or_else(|_| panic!("never {signal}: {:?}", room.face()))
    }
}

#[test]
fn a_camera_says_what_its_source_says() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&[]);
        let settings = stage.settings.clone();
        let slot = house.engage(brisk("camera", "camera cam1"), move |life| Camera::new(life, settings.clone()));
        stage.until("starting").await;
        while stage.script.count().0 == 0 {
            tokio::task::yield_now().await;
        }
        stage.script.say(Signal::Live, "");
        stage.until("live").await;
        let report = slot.door::<GetSignal>().send(GetSignal).await.unwrap();
        assert_eq!((report.signal.as_str(), report.format.as_deref()), ("live", Some("64x64 I420")));
        stage.script.say(Signal::NoCable, "no cable");
        assert_eq!(stage.until("no_cable").await, "no cable");
        assert!(stage.studio.input("cam1").unwrap().face().attached);
    });
}

#[test]
fn a_camera_whose_source_cannot_be_opened_says_why_and_tries_again() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&[Err("nobody answers")]);
        let settings = stage.settings.clone();
        house.engage(brisk("camera", "camera cam1"), move |life| Camera::new(life, settings.clone()));
        assert_eq!(stage.until("failed").await, "nobody answers");
        stage.until("starting").await;
        stage.script.say(Signal::Live, "");
        stage.until("live").await;
    });
}

#[test]
fn a_camera_that_panics_comes_back_with_a_source_of_its_own() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&[]);
        let settings = stage.settings.clone();
        let slot = house.engage(brisk("camera", "camera cam1"), move |life| Camera::new(life, settings.clone()));
        while stage.script.count().0 == 0 {
            tokio::task::yield_now().await;
        }
        stage.script.say(Signal::Live, "");
        stage.until("live").await;
        let panicked = slot.door::<Rehearse>().send(Rehearse { fault: RehearsedFault::Panic }).await;
        assert!(matches!(panicked, Err(DoorError::Interrupted(_))));
        until_running(&house, "camera cam1", 1).await;
        while stage.script.count() != (1, 2) {
            tokio::task::yield_now().await;
        }
        stage.script.say(Signal::Live, "");
        stage.until("live").await;
    });
}

#[test]
fn a_camera_that_is_put_down_leaves_no_source_open() {
    let script = std::cell::OnceCell::new();
    in_a_house(HouseSettings::default(), |house| {
        let stage = stage(&[]);
        script.set(stage.script.clone()).ok().unwrap();
        async move {
            let settings = stage.settings.clone();
            house.engage(brisk("camera", "camera cam1"), move |life| Camera::new(life, settings.clone()));
            while stage.script.count().0 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let script = script.get().unwrap();
    let end = Instant::now() + LIMIT;
    while script.count().0 > 0 {
        assert!(Instant::now() < end, "a source is left open");
        std::thread::yield_now();
    }
}

#[test]
fn faults_are_rehearsed_only_where_that_is_allowed() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&[]);
        let settings = CameraSettings { rehearsal: false, ..stage.settings.clone() };
        let slot = house.engage(brisk("camera", "camera cam1"), move |life| Camera::new(life, settings.clone()));
        let refused = slot.door::<Rehearse>().send(Rehearse { fault: RehearsedFault::Panic }).await.unwrap();
        assert_eq!(refused.unwrap_err().status(), 422);
    });
}
