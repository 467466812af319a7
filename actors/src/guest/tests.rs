//! The seats with scripted peers: refusals, liveness by decoded pictures, takeover, and what a lost peer or a panic frees.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use futures_util::future::BoxFuture;
use r58_mqtt::durable::Memory;
use r58_pipelines::Mode;
use r58_pipelines::ice::IceServer;

use super::invitations::{NewInvitation, Road, Uses};
use super::tokens::SeatTokens;
use super::*;
use crate::patch::Patch;
use crate::patch::tests::patch;
use crate::state::{InputKind, SeatReport};
use crate::studio::InputName;
use crate::supervision::testing::{LIMIT, brisk, in_a_house, until_running};
use crate::supervision::{DoorError, House, HouseSettings, Slot, lock};

/// An offer as a browser with a camera and a microphone sends it, `sendonly` or `recvonly`.
pub(crate) fn offer(direction: &str) -> String {
    let fingerprint: Vec<String> = (0..32).map(|n| format!("{n:02X}")).collect();
    let section = |kind: &str, mid: &str, formats: &str| {
        format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n\
             a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=mid:{mid}\r\n\
             a={direction}\r\na=rtcp-mux\r\na=ssrc:{mid}1 cname:x\r\n",
            fingerprint.join(":")
        )
    };
    let head = "v=0\r\no=- 46117317 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n";
    let audio = section("audio", "0", "111") + "a=rtpmap:111 opus/48000/2\r\n";
    let video = section("video", "1", "102")
        + "a=rtpmap:102 H264/90000\r\n\
           a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";
    format!("{head}{audio}{video}")
}

/// Guests without a network: their pictures are what the test says.
#[derive(Default)]
struct Script {
    ice: Arc<crate::patch::tests::ScriptedIce>,
    frames: AtomicU64,
    open: AtomicUsize,
    refuse: Mutex<Option<&'static str>>,
    news: Mutex<Option<GuestNews>>,
}

struct Doorway(Arc<Script>);
struct Media(Arc<Script>);

impl GuestDoorway for Doorway {
    fn join(
        &self,
        _: &InputRoom,
        _: String,
        _: Vec<IceServer>,
        news: GuestNews,
    ) -> BoxFuture<'static, Result<Joined, GuestError>> {
        *lock(&self.0.news) = Some(news);
        self.0.frames.store(0, SeqCst);
        let script = self.0.clone();
        Box::pin(async move {
            if let Some(reason) = *lock(&script.refuse) {
                return Err(GuestError::Unavailable(reason.into()));
            }
            script.open.fetch_add(1, SeqCst);
            let ice = Arc::new(crate::patch::tests::Ice(script.ice.clone()));
            Ok(Joined { answer: "v=0".into(), ice, media: Box::new(Media(script)) })
        })
    }
}

impl GuestMedia for Media {
    fn decoded(&self) -> (u64, Option<Instant>) {
        (self.0.frames.load(SeqCst), Some(Instant::now()))
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

struct Nobody;
impl Actor for Nobody {
    type Context = Context<Self>;
}
impl Handler<InputChanged> for Nobody {
    type Result = ();
    fn handle(&mut self, _: InputChanged, _: &mut Self::Context) {}
}

struct Stage {
    studio: Studio,
    script: Arc<Script>,
    slot: Slot<GuestIngest>,
    book: GuestBook,
    _ice: watch::Sender<IceSnapshot>,
}

fn stage(house: &House) -> Stage {
    let name = |id: &str| InputName { id: id.into(), label: id.to_uppercase(), kind: InputKind::Guest };
    let studio = Studio::set_up(&Mode::new(64, 64, 30), vec![name("guest1"), name("guest2")]).unwrap();
    let script = Arc::<Script>::default();
    let (ice, snapshot) = watch::channel(crate::turn::TurnSettings::first_snapshot(&[]));
    let policy = SeatPolicy {
        dead_after: Duration::from_millis(300),
        lost_after: Duration::from_millis(900),
        ..SeatPolicy::default()
    };
    let tokens = SeatTokens::new([("guest1", "one"), ("guest2", "two")]);
    let seats = vec!["guest1".to_owned(), "guest2".to_owned()];
    let book = GuestBook::open(seats, tokens, Arc::new(Memory::new()));
    let settings = GuestSettings {
        studio: studio.clone(),
        seats: vec!["guest1".into(), "guest2".into()],
        book: book.clone(),
        policy,
        doorway: Arc::new(Doorway(script.clone())),
        ice: snapshot,
        mixer: Nobody.start().recipient::<InputChanged>().into(),
    };
    let slot = house.engage(brisk("guests", "guests"), move |life| GuestIngest::new(life, settings.clone()));
    Stage { studio, script, slot, book, _ice: ice }
}

fn ask(seat: &str, bearer: Option<&str>) -> AdmitGuest {
    AdmitGuest { seat: seat.into(), bearer: bearer.map(str::to_owned), offer: offer("sendonly") }
}

impl Stage {
    async fn admit(&self, request: AdmitGuest) -> Result<Admission, GuestError> {
        self.slot.door().send(request).await.unwrap()
    }

    async fn until(&self, seat: &str, signal: &str) {
        let room = self.studio.input(seat).unwrap();
        let mut changes = self.studio.changes();
        let seen = tokio::time::timeout(LIMIT, async {
            while room.face().signal != signal {
                changes.changed().await.unwrap();
            }
        });
        seen.await.unwrap_or_else(|_| panic!("{seat} never {signal}: {:?}", room.face()));
    }

    fn say(&self, event: GuestEvent) {
        let news = lock(&self.script.news).clone().unwrap();
        news(event);
    }

    async fn until_open(&self, count: usize) {
        let end = Instant::now() + LIMIT;
        while self.script.open.load(SeqCst) != count {
            assert!(Instant::now() < end, "{} guests open", self.script.open.load(SeqCst));
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn every_refusal_has_its_status() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let bad = |offer: &str| AdmitGuest { offer: offer.into(), ..ask("guest1", Some("one")) };
        for (request, status) in [
            (ask("guest1", None), 401),
            (ask("guest1", Some("")), 401),
            (ask("guest1", Some("guess")), 401),
            (ask("guest1", Some("two")), 403),
            (ask("guest9", Some("one")), 403),
            (bad("hello"), 400),
            (bad(&offer("recvonly")), 422),
        ] {
            let refusal = stage.admit(request).await.unwrap_err();
            assert_eq!(refusal.status(), status, "{refusal}");
        }
        assert_eq!(stage.studio.input("guest1").unwrap().face().signal, "free");
    });
}

#[test]
fn a_guest_is_live_when_its_picture_is_decoded_and_its_seat_is_then_taken() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let admission = stage.admit(ask("guest1", Some("one"))).await.unwrap();
        assert_eq!((admission.session.len(), admission.answer.as_str()), (32, "v=0"));
        stage.until("guest1", "joining").await;
        stage.script.frames.store(1, SeqCst);
        stage.say(GuestEvent::Picture);
        stage.until("guest1", "live").await;
        let refusal = stage.admit(ask("guest1", Some("one"))).await.unwrap_err();
        assert_eq!(refusal.status(), 409);
        assert!(refusal.retry_after().is_some());
        stage.say(GuestEvent::Connected("relay".into()));
        let seats = stage.slot.door().send(GetSeats).await.unwrap();
        assert_eq!((seats[0].state, seats[0].session.as_ref()), (SeatState::Live, Some(&admission.session)));
        assert_eq!(seats[0].path.as_deref(), Some("relay"));
    });
}

#[test]
fn a_guest_that_leaves_frees_its_seat_once() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let Admission { session, .. } = stage.admit(ask("guest1", Some("one"))).await.unwrap();
        let leave = DropGuest { seat: "guest1".into(), session, bearer: Some("one".into()) };
        let foreign = DropGuest { bearer: Some("two".into()), ..leave.clone() };
        let end = stage.slot.door::<DropGuest>();
        assert_eq!(end.send(foreign).await.unwrap().unwrap_err().status(), 403);
        end.send(leave.clone()).await.unwrap().unwrap();
        assert_eq!(end.send(leave).await.unwrap().unwrap_err().status(), 404);
        stage.until("guest1", "free").await;
        stage.until_open(0).await;
    });
}

#[test]
fn a_guest_that_restarts_its_ice_session_keeps_its_seat() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let Admission { session, tag, .. } = stage.admit(ask("guest1", Some("one"))).await.unwrap();
        let send = async |seat: &str, bearer: Option<&str>, patch: Patch| {
            let bearer = bearer.map(str::to_owned);
            let request = PatchGuest { seat: seat.into(), session: session.clone(), bearer, patch };
            stage.slot.door().send(request).await.unwrap()
        };
        let late = patch(Some(&format!("\"{tag}\"")), "abcd");
        assert_eq!(send("guest1", Some("one"), late.clone()).await.unwrap(), Patched::Trickled);
        let Patched::Restarted { tag: next, .. } = send("guest1", Some("one"), patch(Some("*"), "next")).await.unwrap()
        else {
            panic!("no restart");
        };
        assert_ne!(next, tag);
        let seats = stage.slot.door().send(GetSeats).await.unwrap();
        assert_eq!(seats[0].session.as_ref(), Some(&session));
        for (seat, bearer, patch, status) in [
            ("guest1", Some("one"), late.clone(), 412),
            ("guest1", None, late.clone(), 401),
            ("guest1", Some("two"), late.clone(), 403),
            ("guest2", Some("two"), late, 404),
        ] {
            assert_eq!(send(seat, bearer, patch).await.unwrap_err().status(), status);
        }
    });
}

#[test]
fn a_dead_seat_is_taken_over_and_a_forgotten_one_becomes_free() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.admit(ask("guest1", Some("one"))).await.unwrap();
        stage.script.frames.store(1, SeqCst);
        stage.say(GuestEvent::Picture);
        stage.until("guest1", "live").await;
        stage.until("guest1", "silent").await;
        stage.admit(ask("guest1", Some("one"))).await.unwrap();
        stage.until_open(1).await;
        stage.script.frames.store(1, SeqCst);
        stage.say(GuestEvent::Picture);
        stage.until("guest1", "free").await;
        stage.until_open(0).await;
    });
}

#[test]
fn a_guest_whose_peer_is_lost_or_never_comes_about_frees_its_seat() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.admit(ask("guest1", Some("one"))).await.unwrap();
        stage.say(GuestEvent::Lost);
        stage.until("guest1", "free").await;
        *lock(&stage.script.refuse) = Some("no relay");
        assert_eq!(stage.admit(ask("guest1", Some("one"))).await.unwrap_err().status(), 503);
        stage.until("guest1", "free").await;
    });
}

/// Makes the actor panic.
#[derive(Message)]
#[rtype(result = "()")]
struct Panic;
impl Handler<Panic> for GuestIngest {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("rehearsed");
    }
}

#[test]
fn a_panic_frees_every_seat_and_guests_come_back() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        stage.admit(ask("guest1", Some("one"))).await.unwrap();
        assert!(matches!(stage.slot.door().send(Panic).await, Err(DoorError::Interrupted(_))));
        stage.until("guest1", "free").await;
        stage.until_open(0).await;
        until_running(&house, "guests", 1).await;
        stage.admit(ask("guest1", Some("one"))).await.unwrap();
    });
}

impl Stage {
    /// Makes an invitation to the first seat and answers with its id and token.
    async fn invite(&self, uses: Uses) -> (String, String) {
        let new = NewInvitation {
            seat: "guest1".into(),
            name: "Ada".into(),
            expires_at: chrono::Utc::now() + chrono::TimeDelta::hours(1),
            uses,
            road: Road::Auto,
            admit: true,
            created_by: "crew".into(),
        };
        let made = self.book.invite(new).await.unwrap().unwrap();
        (made.invitation.id, made.token)
    }

    async fn order(&self, order: GuestOrder) -> Result<SeatReport, GuestError> {
        self.slot.door().send(ManageGuest { seat: "guest1".into(), order }).await.unwrap()
    }

    fn curtained(&self) -> bool {
        self.studio.input("guest1").unwrap().feed().fader().is_curtained()
    }

    /// Joins and shows a picture.
    async fn come_in(&self, id: &str, token: &str, state: &str) -> Result<Admission, GuestError> {
        let admission = self.admit(ask(id, Some(token))).await?;
        self.say(GuestEvent::Connected("host".into()));
        self.script.frames.store(1, SeqCst);
        self.say(GuestEvent::Picture);
        self.until("guest1", state).await;
        Ok(admission)
    }
}

#[test]
fn an_invited_guest_waits_behind_the_curtain_until_it_is_let_in_and_a_rebuilt_actor_remembers() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let (id, token) = stage.invite(Uses::Single).await;
        stage.come_in(&id, &token, "waiting").await.unwrap();
        assert!(stage.curtained());
        assert_eq!(stage.studio.input("guest1").unwrap().label(), "Ada");
        assert_eq!(stage.studio.renamed("Full GUEST1"), "Full Ada");
        let report = stage.order(GuestOrder::Admit).await.unwrap();
        assert_eq!((report.state, report.waiting, report.invitation.as_ref()), (SeatState::Live, false, Some(&id)));
        assert!(!stage.curtained());
        assert!(matches!(stage.slot.door().send(Panic).await, Err(DoorError::Interrupted(_))));
        stage.until("guest1", "free").await;
        until_running(&house, "guests", 1).await;
        stage.come_in(&id, &token, "live").await.unwrap();
        assert!(!stage.curtained());
    });
}

#[test]
fn a_guest_that_is_refused_or_removed_does_not_come_back_by_the_same_invitation() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        for (order, admitted) in [(GuestOrder::Refuse, false), (GuestOrder::Remove, true)] {
            let (id, token) = stage.invite(Uses::Repeated).await;
            stage.come_in(&id, &token, "waiting").await.unwrap();
            if admitted {
                stage.order(GuestOrder::Admit).await.unwrap();
                assert_eq!(stage.order(GuestOrder::Refuse).await.unwrap_err().status(), 409);
            }
            let report = stage.order(order).await.unwrap();
            assert_eq!((report.state, report.label.as_str()), (SeatState::Free, "GUEST1"));
            stage.until_open(0).await;
            assert_eq!(stage.admit(ask(&id, Some(&token))).await.unwrap_err().status(), 403);
            assert!(stage.curtained(), "what its pipeline still has is seen by nobody");
        }
        assert_eq!(stage.order(GuestOrder::Admit).await.unwrap_err().status(), 409);
        stage.admit(ask("guest1", Some("one"))).await.unwrap();
        stage.order(GuestOrder::Remove).await.unwrap();
        assert_eq!(stage.admit(ask("guest1", Some("one"))).await.unwrap_err().status(), 403);
    });
}

#[test]
fn an_invitation_whose_peer_never_connects_is_not_used_and_one_bearer_does_not_end_anothers_session() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        let (id, token) = stage.invite(Uses::Single).await;
        for _ in 0..2 {
            stage.admit(ask(&id, Some(&token))).await.unwrap();
            stage.say(GuestEvent::Lost);
            stage.until("guest1", "free").await;
        }
        let Admission { session, .. } = stage.come_in(&id, &token, "waiting").await.unwrap();
        let end = async |seat: &str, bearer: &str| {
            let order = DropGuest { seat: seat.into(), session: session.clone(), bearer: Some(bearer.into()) };
            stage.slot.door().send(order).await
        };
        assert_eq!(end("guest1", "one").await.unwrap().unwrap_err().status(), 404);
        stage.book.revoke(&id).unwrap();
        end(&id, &token).await.unwrap().unwrap();
        assert_eq!(stage.admit(ask(&id, Some(&token))).await.unwrap_err().status(), 403);
    });
}

#[test]
fn the_crew_names_and_fades_a_seat_and_its_fader_stays_where_it_was() {
    in_a_house(HouseSettings::default(), |house| async move {
        let stage = stage(&house);
        assert_eq!(stage.order(GuestOrder::Rename("Bo".into())).await.unwrap_err().status(), 409, "nobody is there");
        stage.admit(ask("guest1", Some("one"))).await.unwrap();
        stage.order(GuestOrder::Mute(true)).await.unwrap();
        stage.order(GuestOrder::Level(-12.0)).await.unwrap();
        let report = stage.order(GuestOrder::Rename("Bo".into())).await.unwrap();
        assert_eq!((report.label.as_str(), report.muted, report.level_db), ("Bo", true, -12.0));
        assert_eq!(stage.order(GuestOrder::Rename("\n".into())).await.unwrap_err().status(), 400);
        stage.say(GuestEvent::Lost);
        stage.until("guest1", "free").await;
        let report = stage.order(GuestOrder::Mute(false)).await.unwrap();
        assert_eq!((report.label.as_str(), report.muted, report.level_db), ("GUEST1", false, -12.0));
    });
}
