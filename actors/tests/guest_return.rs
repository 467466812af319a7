//! Two guests on the programme, each with a tone: what is sent back to one holds the other's and the cameras', never its own.
#![allow(clippy::unwrap_used)]

#[path = "../../pipelines/tests/rtc_support/mod.rs"]
mod rtc_support;
mod support;
#[path = "../../pipelines/tests/support/tone.rs"]
mod tone;
#[path = "support/viewer.rs"]
mod viewer;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use r58_actors::GuestError;
use r58_actors::device::SeatPlan;
use r58_actors::guest::{Admission, AdmitGuest, DropGuest};
use r58_actors::mixer::TakeScene;
use r58_actors::mixer::core::TakeKind;
use r58_actors::viewers::GetViewers;
use r58_pipelines::feed::{FeedConsumer, FeedLink};
use rtc_support::*;
use support::*;
use tone::amplitude;
use viewer::Viewer;

/// The cameras' tones (see `support`), then the guests'.
const TONES: [f64; 4] = [220.0, 440.0, 700.0, 1100.0];

const SEVEN_HUNDRED: Stream = Stream {
    launch: "audiotestsrc is-live=true freq=700 volume=0.2 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! \
             opusenc ! rtpopuspay pt=111",
    ..OPUS
};

const ELEVEN_HUNDRED: Stream = Stream {
    launch: "audiotestsrc is-live=true freq=1100 volume=0.2 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! \
             opusenc ! rtpopuspay pt=111",
    ..OPUS
};

async fn join(subject: &Studio58, seat: &str, bearer: &str, tone: Stream) -> (Client, Admission) {
    let streams = [tone, VP8];
    let client = Client::open(&streams, &[], false).await;
    client.send(&streams).await;
    let offer = client.offer().await;
    let request = AdmitGuest { seat: seat.into(), bearer: Some(bearer.into()), offer };
    let admission = subject.handle.guests.admit.send_within(request, Duration::from_secs(10)).await.unwrap().unwrap();
    client.accept(admission.answer.clone()).await;
    (client, admission)
}

/// A viewer with an ear.
struct Ear {
    viewer: Viewer,
    seen: tokio::sync::watch::Receiver<Seen>,
    heard: Arc<Mutex<VecDeque<i16>>>,
    _links: [FeedLink; 2],
}

struct Drum(Arc<Mutex<VecDeque<i16>>>);

impl FeedConsumer for Drum {
    fn video(&self, _at: u64, _picture: &gst::Buffer) {}

    fn audio(&self, _at: u64, sound: &gst::Buffer) {
        let (map, mut heard) = (sound.map_readable().unwrap(), self.0.lock().unwrap());
        heard.extend(map.chunks_exact(4).map(|frame| i16::from_le_bytes([frame[0], frame[1]])));
        let surplus = heard.len().saturating_sub(24_000);
        heard.drain(..surplus);
    }
}

async fn watch(subject: &Studio58, name: &str) -> Result<Ear, GuestError> {
    let viewer = Viewer::watch(subject, name).await?;
    let heard: Arc<Mutex<VecDeque<i16>>> = Arc::default();
    let (seen, link) = watch_feed(&viewer.feed);
    let _links = [link, viewer.feed.subscribe(Arc::new(Drum(heard.clone())))];
    Ok(Ear { viewer, seen, heard, _links })
}

impl Ear {
    async fn hears(&self, wanted: [bool; 4]) {
        let begun = Instant::now();
        loop {
            let found = {
                let heard = self.heard.lock().unwrap();
                (heard.len() == 24_000).then(|| TONES.map(|hz| amplitude(&heard, hz)))
            };
            let right = |(loud, wanted): (&f64, bool)| if wanted { *loud > 0.02 } else { *loud < 0.002 };
            if found.is_some_and(|found| found.iter().zip(wanted).all(right)) {
                println!("{found:?}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{found:?} where {wanted:?} was wanted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[test]
fn what_is_sent_back_to_a_guest_holds_everyone_but_itself_and_ends_with_its_session() {
    let mut plan = plan();
    plan.seats.push(SeatPlan { id: "guest2".into(), label: "GUEST 2".into(), token: "two".into() });
    with_this_box(plan, |mut subject| async move {
        let nobody = watch(&subject, "return-guest1").await.err().unwrap();
        assert_eq!(nobody.status(), 409);
        assert_eq!(watch(&subject, "return-cam1").await.err().unwrap().status(), 404);
        assert_eq!(watch(&subject, "return-guest9").await.err().unwrap().status(), 404);

        let (one, admission) = join(&subject, "guest1", "one", SEVEN_HUNDRED).await;
        let (two, _) = join(&subject, "guest2", "two", ELEVEN_HUNDRED).await;
        subject.until("both live", |state| live(state, "guest1") && live(state, "guest2")).await;
        let take = TakeScene { scene: "quad".into(), kind: TakeKind::Cut };
        subject.handle.mixer.take.send(take).await.unwrap().unwrap();

        let mut ear = watch(&subject, "return-guest1").await.unwrap();
        let programme = watch(&subject, "programme").await.unwrap();
        wait_seen(&mut ear.seen, "the programme", |seen| seen.pictures > 0).await;
        ear.hears([true, true, false, true]).await;
        programme.hears([true, true, true, true]).await;

        let leave = DropGuest { seat: "guest1".into(), session: admission.session, bearer: Some("one".into()) };
        subject.handle.guests.end.send(leave).await.unwrap().unwrap();
        let begun = Instant::now();
        loop {
            let count = subject.handle.viewers.count.send(GetViewers).await.unwrap();
            if !count.contains_key("return-guest1") {
                break;
            }
            assert!(begun.elapsed() < LIMIT, "the return feed outlives its guest: {count:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for client in [&one, &two, &ear.viewer.client, &programme.viewer.client] {
            client.close().await;
        }
    });
}
