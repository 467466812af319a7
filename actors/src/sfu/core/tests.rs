//! The calls in virtual time: every trap of the SFU's API; `orders` has random orders of everything.

mod endings;
mod orders;

use std::collections::BTreeMap;

use super::super::wire::{Description, RemoteTrack, TrackFault, TrackReply};
use super::call::{CLOSING_LIMIT, SOUND_PATIENCE};
use super::lane::{ATTEMPTS, BACKOFF_FIRST};
use super::*;

const OFFER: &str = "v=0\r\na=ice-pwd:guest\r\n";

/// The core, its clock, and what it wants done.
struct World {
    core: SfuCore,
    now: Instant,
    sent: VecDeque<(u64, Ask)>,
    effects: VecDeque<Output>,
}

fn tracks() -> Vec<LocalTrack> {
    [("0", "audio"), ("1", "video")].map(|(mid, name)| LocalTrack { mid: mid.into(), name: name.into() }).to_vec()
}

fn seen(name: &str, active: bool) -> TrackReply {
    TrackReply { name: Some(name.into()), active, ..TrackReply::default() }
}

fn session(id: &str) -> Result<Reply, Failure> {
    Ok(Reply::Session(id.into()))
}

fn described(is_offer: bool, tracks: Vec<TrackReply>) -> Result<Reply, Failure> {
    let sdp = if is_offer { "offer\r\n" } else { "answer\r\n" };
    Ok(Reply::Tracks { description: Some(Description { is_offer, sdp: sdp.into() }), tracks })
}

/// What a pull of both tracks gives: sections that have nothing to do with the guest's.
fn offered() -> Result<Reply, Failure> {
    let track = |mid: &str, name: &str| TrackReply { mid: Some(mid.into()), ..seen(name, true) };
    described(true, vec![track("a0", "audio"), track("a1", "video")])
}

fn flowing(active: bool) -> Result<Reply, Failure> {
    Ok(Reply::Tracks { description: None, tracks: vec![seen("audio", active), seen("video", active)] })
}

impl World {
    fn new() -> Self {
        let mut world =
            Self { core: SfuCore::default(), now: Instant::now(), sent: VecDeque::new(), effects: VecDeque::new() };
        world.core.handle_publish(world.now, ("guest1", "c1"), OFFER.into(), tracks(), SeatState::Free).unwrap();
        world.drain();
        world
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(id, ask) => self.sent.push_back((id, ask)),
                effect => self.effects.push_back(effect),
            }
        }
    }

    /// The one request that waits for an answer.
    fn asked(&mut self) -> (u64, Ask) {
        let asked = self.sent.pop_front().expect("a request");
        assert!(self.sent.is_empty(), "{asked:?} and {:?}", self.sent);
        asked
    }

    fn is_quiet(&self) -> bool {
        self.sent.is_empty() && self.effects.is_empty()
    }

    fn reply(&mut self, id: u64, result: Result<Reply, Failure>) {
        self.core.handle_reply(self.now, id, result);
        self.drain();
    }

    /// Answers the one request that waits; gives what it was.
    fn answer(&mut self, result: Result<Reply, Failure>) -> Ask {
        let (id, ask) = self.asked();
        self.reply(id, result);
        ask
    }

    fn effect(&mut self) -> Output {
        self.effects.pop_front().unwrap_or_else(|| panic!("no effect; sent: {:?}", self.sent))
    }

    /// Lets time go by, with everything that falls due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let before = self.sent.len() + self.effects.len();
            self.core.handle_timeout(self.now);
            self.drain();
            if before == self.sent.len() + self.effects.len() && self.core.poll_timeout() == Some(at) {
                panic!("due at once, again and again: {:?}", self.core.reports());
            }
        }
        self.now = end;
        self.core.handle_timeout(self.now);
        self.drain();
    }

    /// The guest has its answer; the box asks for a session and looks at the guest's.
    fn published() -> Self {
        let mut world = Self::new();
        assert_eq!(world.answer(session("P")), Ask::NewSession);
        let push = Ask::Push { session: "P".into(), offer: OFFER.into(), tracks: tracks() };
        assert_eq!(world.answer(described(false, vec![])), push);
        assert_eq!(world.effect(), Output::Answered { call: "c1".into(), answer: "answer\r\n".into() });
        world
    }

    /// The guest's media flow, and the box has a session to pull by.
    fn connected() -> Self {
        let mut world = Self::published();
        let (look, first) = world.sent.pop_front().unwrap();
        let (create, second) = world.sent.pop_front().unwrap();
        assert_eq!((first, second), (Ask::Look { session: "P".into() }, Ask::NewSession));
        world.reply(create, session("S"));
        world.reply(look, flowing(true));
        world
    }

    /// The seat has the offer.
    fn pulled() -> Self {
        let mut world = Self::connected();
        let Ask::Pull { session, tracks } = world.answer(offered()) else { panic!("no pull") };
        let remote = |name: &str| RemoteTrack { publisher: "P".into(), name: name.into() };
        assert_eq!((session.as_str(), tracks), ("S", vec![remote("audio"), remote("video")]));
        assert_eq!(world.effect(), Output::Seat { call: "c1".into(), offer: "offer\r\n".into() });
        world
    }

    fn seated(&mut self) {
        self.core.handle_seated(self.now, "c1", Ok(("seat-session".into(), "ours\r\n".into())));
        self.drain();
    }

    fn joined() -> Self {
        let mut world = Self::pulled();
        world.seated();
        let answer = Ask::Answer { session: "S".into(), answer: "ours\r\n".into() };
        assert_eq!(world.answer(Ok(Reply::Done)), answer);
        assert_eq!(world.state(), CallState::Joined);
        world
    }

    fn state(&self) -> CallState {
        self.core.report("guest1").expect("a call").state
    }

    fn leave(&mut self) {
        self.core.handle_leave(self.now, "guest1", None).unwrap();
        self.drain();
    }

    /// What is closed, in this order, and then it is over.
    fn closes(&mut self, expected: &[(&str, &[&str])], why: Option<CallError>) {
        for (session, mids) in expected {
            let ask = self.answer(Ok(Reply::Done));
            let mids = mids.iter().map(|mid| (*mid).to_owned()).collect();
            assert_eq!(ask, Ask::Close { session: (*session).into(), mids });
        }
        assert_eq!(self.effect(), Output::Over { call: "c1".into(), seat: "guest1".into(), why });
        assert!(self.is_quiet() && self.core.reports().is_empty());
    }

    fn refused(&mut self) -> CallError {
        match self.effect() {
            Output::Refused { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }
}

fn unseat() -> Output {
    Output::Unseat { call: "c1".into(), seat: "guest1".into(), session: "seat-session".into() }
}

const BOTH: [(&str, &[&str]); 2] = [("S", &["a0", "a1"]), ("P", &["0", "1"])];

#[test]
fn a_guest_is_pulled_when_its_media_flow_and_everything_is_closed_when_it_leaves_the_boxes_side_first() {
    let mut world = World::joined();
    world.leave();
    assert_eq!(world.effect(), unseat());
    world.closes(&BOTH, None);
    assert_eq!(world.state(), CallState::Ended);
    assert_eq!(world.core.poll_timeout(), None);
}

#[test]
fn a_guest_that_leaves_in_the_middle_of_a_change_is_closed_after_it_and_never_beside_it() {
    let mut world = World::new();
    world.answer(session("P"));
    let (push, _) = world.asked();
    world.leave();
    assert_eq!(world.refused(), CallError::Left);
    assert!(world.is_quiet(), "one change at a time");
    world.reply(push, described(false, vec![]));
    world.closes(&[("P", &["0", "1"])], None);

    let mut world = World::connected();
    let (pull, _) = world.asked();
    world.leave();
    assert!(world.is_quiet(), "one change at a time");
    world.reply(pull, offered());
    world.closes(&BOTH, None);

    let mut world = World::pulled();
    world.leave();
    world.seated();
    assert_eq!(world.effect(), unseat());
    world.closes(&BOTH, None);
}

#[test]
fn the_last_line_end_of_an_offer_is_never_lost_and_nothing_else_of_it_changes() {
    assert_eq!(with_line_end("v=0\r\n\r\n ".into()), "v=0\r\n\r\n \r\n");
    assert_eq!(with_line_end("v=0\n".into()), "v=0\n");
}

#[test]
fn a_description_counts_by_its_type_and_an_offer_that_is_not_there_is_never_answered() {
    // The other way round: an answer to a pull.
    let mut world = World::connected();
    world.answer(described(false, vec![]));
    world.closes(&[("P", &["0", "1"])], Some(CallError::Unreadable("tracks come without an offer")));
    // None at all.
    let mut world = World::connected();
    world.answer(flowing(true));
    world.closes(&[("P", &["0", "1"])], Some(CallError::Unreadable("tracks come without an offer")));
    // An offer in place of an answer.
    let mut world = World::new();
    world.answer(session("P"));
    world.answer(described(true, vec![]));
    assert_eq!(world.refused(), CallError::Unreadable("an offer has no answer"));
    world.closes(&[("P", &["0", "1"])], Some(CallError::Unreadable("an offer has no answer")));
}

#[test]
fn sections_are_noted_before_an_error_is_judged_and_all_are_closed() {
    let mut world = World::new();
    world.answer(session("P"));
    let fault = Some(TrackFault::Refused("odd_error".into()));
    world.answer(described(false, vec![TrackReply { fault, ..seen("video", true) }]));
    let why = CallError::Refused("the guest's offer", "odd_error".into());
    assert_eq!(world.refused(), why);
    world.closes(&[("P", &["0", "1"])], Some(why));
}

#[test]
fn a_guest_that_is_not_connected_yet_is_waited_for_and_given_up_after_twenty_seconds() {
    let mut world = World::published();
    let (create, _) = world.sent.pop_back().unwrap();
    world.reply(create, session("S"));
    let mut looks = 0;
    while let Some((id, ask)) = world.sent.pop_front() {
        assert_eq!(ask, Ask::Look { session: "P".into() });
        world.reply(id, if looks % 2 == 0 { Err(Failure::NotConnected) } else { flowing(false) });
        looks += 1;
        world.pass(Duration::from_secs(1));
        if world.state() == CallState::Closing {
            break;
        }
    }
    assert!((12..60).contains(&looks), "{looks} looks in twenty seconds");
    world.closes(&[("P", &["0", "1"])], Some(CallError::NoMedia));
}

#[test]
fn tracks_that_are_not_there_yet_are_asked_for_again_with_longer_pauses_by_the_same_session() {
    let mut world = World::connected();
    let late = |name: &str| TrackReply { fault: Some(TrackFault::NotYet), ..seen(name, true) };
    let mut pauses = Vec::new();
    for _ in 0..3 {
        world.answer(Ok(Reply::Tracks { description: None, tracks: vec![late("audio"), late("video")] }));
        let begin = world.now;
        while world.sent.is_empty() {
            world.pass(Duration::from_millis(50));
        }
        pauses.push((world.now - begin).as_millis());
    }
    assert_eq!(pauses, [250, 500, 1000]);
    assert!(matches!(world.answer(offered()), Ask::Pull { session, .. } if session == "S"));
    assert!(matches!(world.effect(), Output::Seat { .. }));
}

#[test]
fn half_an_offer_is_thrown_away_with_its_session_and_a_picture_waits_four_seconds_for_its_sound() {
    let mut world = World::connected();
    let begin = world.now;
    let half = || {
        let late = TrackReply { fault: Some(TrackFault::NotYet), ..seen("audio", true) };
        described(true, vec![TrackReply { mid: Some("a1".into()), ..seen("video", true) }, late])
    };
    let mut sessions = 0;
    while !world.effects.iter().any(|effect| matches!(effect, Output::Seat { .. })) {
        let Some((id, ask)) = world.sent.pop_front() else {
            world.pass(Duration::from_millis(50));
            continue;
        };
        let reply = match ask {
            Ask::NewSession => {
                sessions += 1;
                session(&format!("S{sessions}"))
            }
            Ask::Pull { .. } => half(),
            Ask::Close { mids, .. } if mids == ["a1"] => Ok(Reply::Done),
            other => panic!("{other:?}"),
        };
        world.reply(id, reply);
    }
    let took = world.now - begin;
    assert!(took >= SOUND_PATIENCE && took < SOUND_PATIENCE + Duration::from_secs(2), "{took:?}");
    assert!(sessions >= 3, "{sessions} sessions");
}

#[test]
fn a_track_that_is_refused_ends_the_call_and_names_the_code() {
    let mut world = World::connected();
    let fault = Some(TrackFault::Refused("forbidden_track".into()));
    world.answer(described(true, vec![TrackReply { fault, ..seen("video", true) }]));
    let why = CallError::Refused("the guest's tracks", "forbidden_track".into());
    world.closes(&[("P", &["0", "1"])], Some(why));
}

#[test]
fn a_session_that_is_gone_is_replaced_and_not_more_than_twice() {
    let mut world = World::connected();
    for round in 1..=2 {
        world.answer(Err(Failure::Gone));
        assert_eq!(world.answer(session(&format!("S{round}"))), Ask::NewSession);
    }
    world.answer(Err(Failure::Gone));
    world.closes(&[("P", &["0", "1"])], Some(CallError::Gone));
}

#[test]
fn a_session_that_goes_while_it_is_answered_gives_the_seat_back_and_is_replaced() {
    let mut world = World::pulled();
    world.seated();
    world.answer(Err(Failure::Gone));
    assert_eq!(world.effect(), unseat());
    assert_eq!(world.answer(session("S2")), Ask::NewSession);
    assert!(matches!(world.answer(offered()), Ask::Pull { session, .. } if session == "S2"));
    assert!(matches!(world.effect(), Output::Seat { .. }));
}

#[test]
fn a_creation_whose_answer_is_lost_is_never_repeated() {
    let mut world = World::new();
    world.answer(Err(Failure::Lost));
    assert_eq!(world.refused(), CallError::Lost);
    world.closes(&[], Some(CallError::Lost));

    let mut world = World::new();
    world.answer(session("P"));
    world.answer(Err(Failure::Lost));
    assert_eq!(world.refused(), CallError::Lost);
    world.closes(&[("P", &["0", "1"])], Some(CallError::Lost));
}

#[test]
fn a_pull_whose_answer_is_lost_is_not_repeated_its_session_is_looked_through_and_replaced() {
    let mut world = World::connected();
    world.answer(Err(Failure::Lost));
    let asks: BTreeMap<u64, Ask> = world.sent.drain(..).collect();
    let id = |wanted: &Ask| *asks.iter().find(|(_, ask)| *ask == wanted).unwrap_or_else(|| panic!("{asks:?}")).0;
    assert_eq!(asks.len(), 2);
    world.reply(id(&Ask::Look { session: "S".into() }), offered());
    assert_eq!(world.answer(Ok(Reply::Done)), Ask::Close { session: "S".into(), mids: vec!["a0".into(), "a1".into()] });
    world.reply(id(&Ask::NewSession), session("S2"));
    assert!(matches!(world.asked().1, Ask::Pull { session, .. } if session == "S2"));
}

#[test]
fn an_answer_whose_reply_is_lost_is_said_again_and_a_no_to_the_second_means_that_the_first_was_heard() {
    let mut world = World::pulled();
    world.seated();
    world.answer(Err(Failure::Lost));
    assert!(world.sent.is_empty());
    world.pass(BACKOFF_FIRST);
    assert!(matches!(world.answer(Err(Failure::Refused("not_now".into()))), Ask::Answer { .. }));
    assert_eq!(world.state(), CallState::Joined);
}

#[test]
fn an_answer_that_is_refused_at_once_ends_the_call_and_frees_the_seat() {
    let mut world = World::pulled();
    world.seated();
    world.answer(Err(Failure::Refused("invalid_session_description".into())));
    assert!(matches!(world.effect(), Output::Unseat { .. }));
    world.closes(&BOTH, Some(CallError::Refused("the answer", "invalid_session_description".into())));
}

#[test]
fn busy_and_broken_are_tried_again_with_longer_pauses_and_not_for_ever() {
    for failure in [Failure::Busy(None), Failure::Down(503), Failure::Overlap, Failure::Unreachable] {
        let mut world = World::connected();
        let (mut attempts, begin) = (0, world.now);
        while world.state() == CallState::Pulling {
            if let Some((id, ask)) = world.sent.pop_front() {
                assert!(matches!(ask, Ask::Pull { .. }));
                attempts += 1;
                world.reply(id, Err(failure.clone()));
            } else {
                world.pass(Duration::from_millis(50));
            }
        }
        assert_eq!(attempts, ATTEMPTS, "{failure:?}");
        assert!(world.now - begin >= Duration::from_millis(250 + 500 + 1000 + 2000));
    }
}

#[test]
fn a_busy_sfu_is_left_alone_for_as_long_as_it_asks() {
    let mut world = World::connected();
    world.answer(Err(Failure::Busy(Some(Duration::from_secs(3)))));
    world.pass(Duration::from_millis(2_900));
    assert!(world.is_quiet());
    world.pass(Duration::from_millis(200));
    assert!(matches!(world.asked().1, Ask::Pull { .. }));
}

#[test]
fn a_wrong_secret_is_said_at_once() {
    let mut world = World::new();
    world.answer(Err(Failure::Denied(401)));
    assert_eq!(world.refused(), CallError::Denied(401));
    world.closes(&[], Some(CallError::Denied(401)));
}

#[test]
fn a_guest_gets_no_answer_later_than_seven_seconds_and_a_late_one_is_closed() {
    let mut world = World::new();
    world.answer(session("P"));
    let (push, _) = world.asked();
    world.pass(ANSWER_WITHIN);
    assert_eq!(world.refused(), CallError::Late);
    assert_eq!(world.core.report("guest1").unwrap().reason.as_deref(), Some("the SFU did not answer in time"));
    world.reply(push, described(false, vec![]));
    world.closes(&[("P", &["0", "1"])], Some(CallError::Late));
}

#[test]
fn a_seat_that_says_no_ends_the_call_with_its_words() {
    let mut world = World::pulled();
    world.core.handle_seated(world.now, "c1", Err("the seat is taken".into()));
    world.drain();
    world.closes(&BOTH, Some(CallError::Seat("the seat is taken".into())));
}
