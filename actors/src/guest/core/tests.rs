//! Seats in virtual time.

use super::*;
use proptest::prelude::*;

fn core(seats: &[&str]) -> GuestCore {
    GuestCore::new(SeatPolicy::default(), seats.iter().map(|seat| (*seat).to_owned()))
}

fn drain(core: &mut GuestCore) -> Vec<GuestOutput> {
    std::iter::from_fn(|| core.poll_output()).collect()
}

fn ended(session: &str, why: Farewell) -> GuestOutput {
    GuestOutput::End { seat: "g1".into(), session: session.into(), why }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_seat_goes_from_free_over_joining_to_live() {
    let (now, mut core) = (Instant::now(), core(&["g1"]));
    assert_eq!(core.state("g1"), Some(SeatState::Free));
    core.handle_admit(now, "g1", "s1", false).unwrap();
    assert_eq!(core.state("g1"), Some(SeatState::Joining));
    core.handle_decoded(now + secs(1), "s1", 1, Some(now + secs(1)));
    assert_eq!(core.state("g1"), Some(SeatState::Live));
}

#[test]
fn a_live_seat_answers_taken_and_says_when_to_come_back() {
    let (now, mut core) = (Instant::now(), core(&["g1"]));
    core.handle_admit(now, "g1", "s1", false).unwrap();
    core.handle_decoded(now, "s1", 30, Some(now));
    let refused = core.handle_admit(now + secs(1), "g1", "s2", false);
    assert_eq!(refused, Err(SeatRefusal::Taken { retry_after: secs(2) }));
    assert_eq!(core.session("g1"), Some("s1"));
}

#[test]
fn a_dead_seat_is_taken_over_at_once() {
    let (now, mut core) = (Instant::now(), core(&["g1"]));
    core.handle_admit(now, "g1", "s1", false).unwrap();
    core.handle_decoded(now, "s1", 30, Some(now));
    drain(&mut core);
    core.handle_admit(now + secs(3), "g1", "s2", false).unwrap();
    assert_eq!(drain(&mut core)[0], ended("s1", Farewell::TakenOver));
    assert_eq!(core.session("g1"), Some("s2"));
}

#[test]
fn a_silent_guest_loses_its_seat_after_thirty_seconds() {
    let (now, mut core) = (Instant::now(), core(&["g1"]));
    core.handle_admit(now, "g1", "s1", false).unwrap();
    core.handle_decoded(now, "s1", 30, Some(now));
    core.handle_timeout(core.poll_timeout().unwrap());
    assert_eq!(core.state("g1"), Some(SeatState::Silent));
    // Its packets still arrive and decode to nothing: that does not count.
    core.handle_decoded(now + secs(20), "s1", 30, Some(now));
    assert_eq!(core.poll_timeout(), Some(now + secs(30)));
    drain(&mut core);
    core.handle_timeout(now + secs(30));
    assert_eq!(drain(&mut core)[0], ended("s1", Farewell::Silent));
    assert_eq!(core.state("g1"), Some(SeatState::Free));
}

#[test]
fn a_guest_that_never_shows_a_picture_loses_its_seat() {
    let (now, mut core) = (Instant::now(), core(&["g1"]));
    core.handle_admit(now, "g1", "s1", false).unwrap();
    drain(&mut core);
    core.handle_timeout(now + secs(20));
    assert_eq!(drain(&mut core)[0], ended("s1", Farewell::NeverSeen));
}

#[test]
fn the_second_farewell_finds_no_session() {
    let (now, mut core) = (Instant::now(), core(&["g1"]));
    core.handle_admit(now, "g1", "s1", false).unwrap();
    assert_eq!(core.handle_end("s1", Farewell::Left), Ok(()));
    assert_eq!(core.handle_end("s1", Farewell::Left), Err(SeatRefusal::UnknownSession));
}

#[test]
fn only_so_many_guests_join_at_once() {
    let now = Instant::now();
    let policy = SeatPolicy { half_open: 1, ..SeatPolicy::default() };
    let mut core = GuestCore::new(policy, ["g1".to_owned(), "g2".to_owned()]);
    core.handle_admit(now, "g1", "s1", false).unwrap();
    assert!(matches!(core.handle_admit(now, "g2", "s2", false), Err(SeatRefusal::Busy { .. })));
    core.handle_decoded(now, "s1", 1, Some(now));
    core.handle_admit(now, "g2", "s2", false).unwrap();
}

proptest! {
    /// Every session that was admitted ends exactly once or still has its seat, in any order of events; no guest that
    /// decoded a picture within three seconds ever loses its seat to another or to a clock.
    #[test]
    fn sessions_end_exactly_once(events in prop::collection::vec((0u8..5, 0usize..3, 0u64..12_000), 1..150)) {
        let seats = ["g1", "g2", "g3"];
        let (mut now, mut core) = (Instant::now(), core(&seats));
        let mut open: BTreeMap<String, Option<Instant>> = BTreeMap::new();
        let (mut next, mut frames) = (0, 0);
        for (event, which, pause) in events {
            let seat = seats[which];
            let sitting = core.session(seat).map(str::to_owned);
            let mut left = None;
            match event {
                0 => {
                    next += 1;
                    let session = format!("s{next}");
                    if core.handle_admit(now, seat, &session, false).is_ok() {
                        open.insert(session, None);
                    }
                }
                1 => if let Some(session) = sitting {
                    frames += 1;
                    open.insert(session.clone(), Some(now));
                    core.handle_decoded(now, &session, frames, Some(now));
                }
                2 => if let Some(session) = sitting {
                    core.handle_end(&session, Farewell::Left).unwrap();
                    left = Some(session);
                }
                _ => {
                    now += Duration::from_millis(pause);
                    core.handle_timeout(now);
                }
            }
            for output in drain(&mut core) {
                if let GuestOutput::End { session, .. } = output {
                    let last = open.remove(&session);
                    prop_assert!(last.is_some(), "{session} ended twice");
                    if left.as_deref() != Some(session.as_str()) && let Some(Some(last)) = last {
                        prop_assert!(now.duration_since(last) >= secs(3));
                    }
                }
            }
            for session in open.keys() {
                prop_assert!(core.seat_of(session).is_some());
            }
            prop_assert!(core.poll_timeout().is_none_or(|due| due > now));
        }
    }
}

#[test]
fn a_guest_in_the_waiting_room_keeps_its_seat_and_is_live_when_it_is_let_in() {
    let (now, mut core) = (Instant::now(), core(&["g1"]));
    core.handle_admit(now, "g1", "s1", true).unwrap();
    core.handle_decoded(now, "s1", 1, Some(now));
    assert_eq!((core.state("g1"), core.is_waiting("g1")), (Some(SeatState::Waiting), true));
    assert!(matches!(core.handle_admit(now, "g1", "s2", false), Err(SeatRefusal::Taken { .. })));
    drain(&mut core);
    core.handle_let_in("g1").unwrap();
    assert_eq!(drain(&mut core), [GuestOutput::Changed { seat: "g1".into(), state: SeatState::Live }]);
    core.handle_timeout(now + secs(4));
    assert_eq!(core.state("g1"), Some(SeatState::Silent));
    assert_eq!(core.handle_let_in("g2"), Err(SeatRefusal::UnknownSeat("g2".into())));
}
