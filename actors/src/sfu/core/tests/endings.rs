//! How calls end, and who gets the seat then.

use super::*;

#[test]
fn a_guest_whose_seat_ends_is_closed_and_another_seats_end_is_not_its_business() {
    let mut world = World::joined();
    assert_eq!(world.core.seated(), ["seat-session"]);
    world.core.handle_unseated(world.now, "another");
    world.drain();
    assert!(world.is_quiet());
    world.core.handle_unseated(world.now, "seat-session");
    world.drain();
    world.closes(&BOTH, None);
}

#[test]
fn what_cannot_be_closed_is_given_up_after_half_a_minute() {
    let mut world = World::joined();
    world.leave();
    world.effect();
    // A request that never comes back.
    world.asked();
    world.pass(CLOSING_LIMIT - Duration::from_millis(1));
    assert!(world.is_quiet());
    world.pass(Duration::from_millis(1));
    assert!(matches!(world.effect(), Output::Over { .. }));
    assert_eq!(world.core.poll_timeout(), None);
}

#[test]
fn a_seat_is_given_to_one_and_to_another_only_when_the_first_is_seen_no_more() {
    let mut world = World::joined();
    let now = world.now;
    let mut again = |state| world.core.handle_publish(now, ("guest1", "c2"), OFFER.into(), tracks(), state);
    assert_eq!(again(SeatState::Live), Err(CallError::Taken));
    assert_eq!(again(SeatState::Joining), Err(CallError::Taken));
    assert_eq!(again(SeatState::Silent), Ok(()));
    world.drain();
    assert!(matches!(world.effect(), Output::Unseat { .. }));
    let report = world.core.report("guest1").unwrap();
    assert_eq!((report.session.as_str(), report.state), ("c2", CallState::Publishing));

    let mut other = SfuCore::default();
    let mut direct = |state| other.handle_publish(now, ("guest1", "c3"), OFFER.into(), tracks(), state);
    assert_eq!(direct(SeatState::Live), Err(CallError::Taken), "a guest who came straight");
    assert_eq!(direct(SeatState::Free), Ok(()));
    assert_eq!(direct(SeatState::Free), Err(CallError::Taken), "a guest on its way");
}

#[test]
fn joining_and_leaving_faster_than_the_sfu_can_close_piles_nothing_up() {
    let (mut core, now) = (SfuCore::default(), Instant::now());
    let join = |core: &mut SfuCore, call: usize| {
        core.handle_publish(now, ("guest1", &format!("c{call}")), OFFER.into(), tracks(), SeatState::Free)
    };
    let begun =
        (0..100).take_while(|call| join(&mut core, *call).is_ok() && core.handle_leave(now, "guest1", None).is_ok());
    assert_eq!(begun.count(), CLOSING_MOST);
    assert_eq!(join(&mut core, 100), Err(CallError::Closing));
    core.handle_timeout(now + CLOSING_LIMIT);
    assert!(core.reports().is_empty());
    assert_eq!(core.handle_publish(now, ("guest1", "c"), OFFER.into(), tracks(), SeatState::Free), Ok(()));
}
