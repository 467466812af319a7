//! Viewers with scripted peers and encoders: who is refused, who is counted, and when an input is encoded.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, mpsc};

use futures_util::future::BoxFuture;
use r58_pipelines::RtpFanout;
use r58_pipelines::ice::IceServer;
use r58_pipelines::{Mode, PipelineError};

use super::doorway::Preview;
use super::hls::OpenHls;
use super::*;
use crate::guest::tests::offer;
use crate::patch::tests::patch;
use crate::state::InputKind;
use crate::studio::InputName;
use crate::supervision::testing::{LIMIT, brisk, in_a_house};
use crate::supervision::{House, HouseSettings, Slot, lock};

/// Counts things that live, and lets a test wait for a count.
#[derive(Default)]
struct Tally(Mutex<usize>, Condvar);

impl Tally {
    fn add(&self) {
        *lock(&self.0) += 1;
        self.1.notify_all();
    }
    fn sub(&self) {
        *lock(&self.0) -= 1;
        self.1.notify_all();
    }
    fn wait(&self, count: usize) {
        let guard = lock(&self.0);
        let (left, timeout) = self.1.wait_timeout_while(guard, LIMIT, |now| *now != count).unwrap();
        assert!(!timeout.timed_out(), "{} instead of {count}", *left);
    }
}

#[derive(Default)]
struct Script {
    ice: Arc<crate::patch::tests::ScriptedIce>,
    peers: Tally,
    encoders: Tally,
    started: AtomicUsize,
    busy: AtomicBool,
    /// Keeps one encoder from starting until something is sent, or the sender goes.
    held: Mutex<Option<mpsc::Receiver<()>>>,
    news: Mutex<Option<ViewerNews>>,
}

struct Doorway(Arc<Script>);
struct Peer(Arc<Script>);
struct Encoder(Arc<Script>);

impl ViewerDoorway for Doorway {
    fn watch(
        &self,
        _: RtpFanout,
        _: String,
        _: Vec<IceServer>,
        news: ViewerNews,
    ) -> BoxFuture<'static, Result<Watched, GuestError>> {
        *lock(&self.0.news) = Some(news);
        self.0.peers.add();
        let peer = Peer(self.0.clone());
        let ice = Arc::new(crate::patch::tests::Ice(self.0.ice.clone()));
        Box::pin(async move { Ok(Watched { answer: "v=0".into(), ice, media: Box::new(peer) }) })
    }

    fn preview(&self, _: &InputRoom) -> Result<Preview, GuestError> {
        let held = lock(&self.0.held).take();
        if let Some(held) = held {
            let _ = held.recv();
        }
        if self.0.busy.load(SeqCst) {
            let reason = "the profile names none in software".into();
            return Err(PipelineError::EncodersBusy { most: 3, reason }.into());
        }
        self.0.encoders.add();
        self.0.started.fetch_add(1, SeqCst);
        Ok(Preview { fanout: RtpFanout::new(), encoder: Box::new(Encoder(self.0.clone())) })
    }

    fn return_feed(&self, room: &InputRoom) -> Result<Preview, GuestError> {
        self.preview(room)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.peers.sub();
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.0.encoders.sub();
    }
}

struct Stage {
    studio: Studio,
    script: Arc<Script>,
    slot: Slot<Viewers>,
    hls: HlsShelf,
    _ice: watch::Sender<IceSnapshot>,
}

fn stage(house: &House) -> Stage {
    stage_for(house, 2)
}

fn stage_for(house: &House, most: usize) -> Stage {
    let name = InputName { id: "cam1".into(), label: "CAM 1".into(), kind: InputKind::Camera };
    let studio = Studio::set_up(&Mode::new(64, 64, 30), vec![name]).unwrap();
    let script = Arc::<Script>::default();
    let (ice, snapshot) = watch::channel(crate::turn::TurnSettings::first_snapshot(&[]));
    let settings = ViewerSettings {
        studio: studio.clone(),
        doorway: Arc::new(Doorway(script.clone())),
        ice: snapshot,
        hls: HlsShelf::new(Duration::from_millis(500)),
        most,
    };
    let hls = settings.hls.clone();
    let slot = house.engage(brisk("viewers", "viewers"), move |life| Viewers::new(life, settings.clone()));
    Stage { studio, script, slot, hls, _ice: ice }
}

impl Stage {
    async fn admit(&self, name: &str) -> Result<Admission, GuestError> {
        let request = AdmitViewer { name: name.into(), offer: offer("recvonly") };
        self.slot.door().send(request).await.unwrap()
    }

    fn live(&self) {
        self.studio.input("cam1").unwrap().show("live", "", true);
    }
}

#[test]
fn an_input_is_encoded_once_for_all_its_viewers_and_not_after_the_last() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.live();
        let first = stage.admit("cam1").await.unwrap();
        let second = stage.admit("cam1").await.unwrap();
        assert_eq!((stage.script.started.load(SeqCst), stage.studio.viewers("cam1")), (1, 2));
        let end = stage.slot.door::<DropViewer>();
        for Admission { session, .. } in [first, second] {
            end.send(DropViewer { name: "cam1".into(), session }).await.unwrap().unwrap();
        }
        assert_eq!(stage.studio.viewers("cam1"), 0);
        stage.script.peers.wait(0);
        stage.script.encoders.wait(0);
    });
}

#[test]
fn every_refusal_has_its_status() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        assert_eq!(stage.admit("cam9").await.unwrap_err().status(), 404);
        assert_eq!(stage.admit("cam1").await.unwrap_err().status(), 409, "there is no picture yet");
        assert_eq!(stage.admit("programme").await.unwrap_err().status(), 503, "it is not on air yet");
        stage.live();
        let publish = AdmitViewer { name: "cam1".into(), offer: offer("sendonly") };
        assert_eq!(stage.slot.door().send(publish).await.unwrap().unwrap_err().status(), 422);
        stage.admit("cam1").await.unwrap();
        stage.admit("cam1").await.unwrap();
        let full = stage.admit("cam1").await.unwrap_err();
        assert_eq!((full.status(), full.retry_after().is_some()), (503, true));
    });
}

#[test]
fn a_viewer_changes_its_network_and_watches_on() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.live();
        let Admission { session, tag, .. } = stage.admit("cam1").await.unwrap();
        let send = async |name: &str, patch: Patch| {
            let request = PatchViewer { name: name.into(), session: session.clone(), patch };
            stage.slot.door().send(request).await.unwrap()
        };
        let base = format!("\"{tag}\"");
        assert_eq!(send("cam1", patch(Some(&base), "abcd")).await.unwrap(), Patched::Trickled);
        assert!(matches!(send("cam1", patch(Some("*"), "next")).await, Ok(Patched::Restarted { .. })));
        assert_eq!(send("cam1", patch(Some(&base), "abcd")).await.unwrap_err().status(), 412);
        assert_eq!(send("programme", patch(Some("*"), "next")).await.unwrap_err().status(), 404);
    });
}

#[test]
fn only_so_many_viewers_join_at_once() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage_for(&house, 2 * MOST_HALF_OPEN);
        stage.live();
        for _ in 0..MOST_HALF_OPEN {
            stage.admit("cam1").await.unwrap();
        }
        let refused = stage.admit("cam1").await.unwrap_err();
        assert_eq!((refused.status(), refused.retry_after()), (503, Some(Duration::from_secs(1))));
        let news = lock(&stage.script.news).clone().unwrap();
        news(ViewerEvent::Connected("host".into()));
        stage.admit("cam1").await.unwrap();
    });
}

#[test]
fn an_input_beyond_the_encoders_budget_is_refused_in_one_sentence_and_counted_nowhere() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.live();
        stage.script.busy.store(true, SeqCst);
        let refused = stage.admit("cam1").await.unwrap_err();
        assert_eq!((refused.status(), refused.retry_after()), (503, Some(Duration::from_secs(30))));
        assert_eq!(
            refused.to_string(),
            "the box's hardware encodes 3 pictures at once and no more, and the profile names none in software"
        );
        assert_eq!(stage.studio.viewers("cam1"), 0);
        stage.script.busy.store(false, SeqCst);
        stage.admit("cam1").await.unwrap();
    });
}

#[test]
fn two_first_viewers_at_once_share_one_encoder_or_one_refusal() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.live();
        let mut changes = stage.studio.changes();
        for busy in [true, false] {
            stage.script.busy.store(busy, SeqCst);
            let (release, held) = mpsc::channel();
            *lock(&stage.script.held) = Some(held);
            let both = async {
                while stage.studio.viewers("cam1") < 2 {
                    changes.changed().await.unwrap();
                }
                release.send(()).unwrap();
            };
            let (first, second, ()) = tokio::join!(stage.admit("cam1"), stage.admit("cam1"), both);
            let sentence = |answer: Result<Admission, GuestError>| answer.map(|_| ()).map_err(|e| e.to_string());
            let (first, second) = (sentence(first), sentence(second));
            assert_eq!((first.is_err(), &first), (busy, &second));
        }
        assert_eq!((stage.script.started.load(SeqCst), stage.studio.viewers("cam1")), (1, 2));
    });
}

#[test]
fn a_governor_short_of_power_ends_the_viewers_of_inputs() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.live();
        stage.admit("cam1").await.unwrap();
        stage.slot.door().send(OpenHls { name: "cam1".into() }).await.unwrap().unwrap();
        stage.slot.door().send(AllowInputViewers(false)).await.unwrap();
        assert!(stage.hls.get("cam1").is_none());
        stage.script.peers.wait(0);
        stage.script.encoders.wait(0);
        let refusal = stage.admit("cam1").await.unwrap_err();
        assert_eq!((refusal.status(), stage.studio.previews_allowed()), (503, false));
        stage.slot.door().send(AllowInputViewers(true)).await.unwrap();
        stage.admit("cam1").await.unwrap();
    });
}

#[test]
fn an_input_is_encoded_as_long_as_it_is_watched_by_hls_and_not_long_after() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let door = stage.slot.door::<OpenHls>();
        let open = || door.send(OpenHls { name: "cam1".into() });
        assert_eq!(open().await.unwrap().unwrap_err().status(), 409, "there is no picture yet");
        stage.live();
        let (first, second) = tokio::join!(open(), open());
        first.unwrap().unwrap();
        second.unwrap().unwrap();
        let Admission { session, .. } = stage.admit("cam1").await.unwrap();
        assert_eq!(stage.script.started.load(SeqCst), 1, "one encoder for all ways to watch");
        let end = DropViewer { name: "cam1".into(), session };
        stage.slot.door().send(end).await.unwrap().unwrap();
        // A request twice a second is somebody who watches: longer than the encoder would linger.
        let until = Instant::now() + LINGER + LINGER / 2;
        while Instant::now() < until {
            let stream = stage.hls.get("cam1").expect("it is watched");
            assert!(stream.file("part-1.m4s").await.is_err());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(*lock(&stage.script.encoders.0), 1);
        stage.script.encoders.wait(0);
        assert!(stage.hls.get("cam1").is_none());
        let unknown = stage.slot.door().send(OpenHls { name: "cam9".into() }).await.unwrap();
        assert_eq!(unknown.unwrap_err().status(), 404);
    });
}

#[test]
fn a_viewer_whose_peer_is_gone_is_forgotten() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.live();
        let Admission { session, .. } = stage.admit("cam1").await.unwrap();
        let news = lock(&stage.script.news).clone().unwrap();
        news(ViewerEvent::Gone);
        stage.script.peers.wait(0);
        let again = stage.slot.door().send(DropViewer { name: "cam1".into(), session }).await.unwrap();
        assert_eq!(again.unwrap_err().status(), 404);
        assert_eq!(stage.slot.door().send(GetViewers).await.unwrap(), BTreeMap::new());
    });
}
