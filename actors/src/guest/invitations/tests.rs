//! Invitations in virtual time.

use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn new(uses: Uses, admit: bool) -> NewInvitation {
    NewInvitation {
        seat: "g1".into(),
        name: " Ada ".into(),
        expires_at: at(3600),
        uses,
        road: Road::Auto,
        admit,
        created_by: "crew".into(),
    }
}

fn seats() -> Vec<String> {
    vec!["g1".into(), "g2".into()]
}

fn with(uses: Uses, admit: bool) -> Invitations {
    let mut all = Invitations::default();
    all.handle_create(at(0), ("i1", "secret"), &seats(), new(uses, admit)).unwrap();
    all
}

fn rows(all: &mut Invitations) -> Vec<InvitationOutput> {
    std::iter::from_fn(|| all.poll_output()).collect()
}

#[test]
fn only_the_digest_of_a_token_is_kept_and_it_finds_its_invitation() {
    let mut all = with(Uses::Single, true);
    let Some(InvitationOutput::Keep(row)) = all.poll_output() else { panic!("nothing to keep") };
    let text = serde_json::to_string(&row).unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert!(!format!("{row:?}").contains(&row.token_sha256));
    let read: Invitation = serde_json::from_str(&text).unwrap();
    assert_eq!((read.name.as_str(), read.state(at(1))), ("Ada", "open"));
    let again = Invitations::new(at(1), [read]);
    assert_eq!(again.find("secret").map(|item| item.id.as_str()), Some("i1"));
    assert!(again.find("Secret").is_none() && again.find("").is_none());
}

#[test]
fn what_cannot_be_an_invitation_is_refused_with_the_reason() {
    let mut all = Invitations::default();
    let mut refused = |change: fn(&mut NewInvitation)| {
        let mut one = new(Uses::Single, true);
        change(&mut one);
        all.handle_create(at(0), ("i", "t"), &seats(), one).unwrap_err()
    };
    assert_eq!(refused(|one| one.seat = "g9".into()), InvitationRefusal::UnknownSeat("g9".into()));
    assert_eq!(refused(|one| one.name = "  ".into()), InvitationRefusal::BadName);
    assert_eq!(refused(|one| one.name = "a\nb".into()), InvitationRefusal::BadName);
    assert_eq!(refused(|one| one.name = "x".repeat(61)), InvitationRefusal::BadName);
    assert_eq!(refused(|one| one.expires_at = at(0)), InvitationRefusal::BadExpiry);
    assert_eq!(refused(|one| one.expires_at = at(91 * 86_400)), InvitationRefusal::BadExpiry);
    assert!(rows(&mut all).is_empty());
}

#[test]
fn a_request_that_fails_uses_nothing_up() {
    let mut all = with(Uses::Single, true);
    for second in 0..5 {
        assert_eq!(all.may_enter(at(second), "i1"), Ok(Entry { admitted: false }));
        all.handle_left(at(second), "i1");
    }
    assert_eq!(all.may_enter(at(6), "i1"), Ok(Entry { admitted: false }));
    assert_eq!(all.get("i1").unwrap().state(at(6)), "open");
}

#[test]
fn a_guest_whose_network_drops_comes_back_with_a_single_invitation_and_nobody_does_later() {
    let mut all = with(Uses::Single, true);
    all.handle_connected(at(10), "i1", false);
    all.handle_admitted("i1");
    assert_eq!(all.get("i1").unwrap().state(at(10)), "in");
    all.handle_left(at(100), "i1");
    assert_eq!(all.may_enter(at(219), "i1"), Ok(Entry { admitted: true }));
    assert_eq!(all.may_enter(at(220), "i1"), Err(InvitationFault::Used));
    assert_eq!(all.get("i1").unwrap().state(at(220)), "used");
}

#[test]
fn the_next_guest_of_a_repeated_invitation_waits_to_be_let_in_again() {
    let mut all = with(Uses::Repeated, true);
    all.handle_connected(at(10), "i1", false);
    all.handle_admitted("i1");
    all.handle_left(at(20), "i1");
    assert_eq!(all.may_enter(at(30), "i1"), Ok(Entry { admitted: true }));
    assert_eq!(all.may_enter(at(140), "i1"), Ok(Entry { admitted: false }));
}

#[test]
fn an_invitation_without_a_waiting_room_admits_at_once() {
    let all = with(Uses::Single, false);
    assert_eq!(all.may_enter(at(1), "i1"), Ok(Entry { admitted: true }));
}

#[test]
fn one_that_has_ended_opens_nothing_but_keeps_nobody_from_coming_back() {
    let mut all = with(Uses::Repeated, true);
    assert_eq!(all.may_enter(at(3600), "i1"), Err(InvitationFault::Expired));
    all.handle_connected(at(3000), "i1", false);
    assert!(all.may_enter(at(4000), "i1").is_ok(), "its guest is in");
    all.handle_left(at(4000), "i1");
    assert!(all.may_enter(at(4100), "i1").is_ok(), "its guest comes back");
    assert_eq!(all.may_enter(at(4120), "i1"), Err(InvitationFault::Expired));
}

#[test]
fn what_the_crew_decides_outlives_a_start_and_ends_with_the_time_to_come_back() {
    let mut all = with(Uses::Single, true);
    all.handle_connected(at(10), "i1", false);
    all.handle_admitted("i1");
    let Some(InvitationOutput::Keep(row)) = rows(&mut all).pop() else { panic!("nothing kept") };
    let mut again = Invitations::new(at(50), [row]);
    assert_eq!(again.may_enter(at(60), "i1"), Ok(Entry { admitted: true }));
    assert_eq!(again.may_enter(at(170), "i1"), Err(InvitationFault::Used));
    assert_eq!(rows(&mut again).len(), 1, "that its guest is away is written down");
}

#[test]
fn each_way_to_be_put_out_has_its_own_sentence() {
    for (why, fault) in [
        (Withdrawn::Revoked, InvitationFault::Revoked),
        (Withdrawn::Refused, InvitationFault::Refused),
        (Withdrawn::Removed, InvitationFault::Removed),
    ] {
        let mut all = with(Uses::Repeated, true);
        all.handle_connected(at(1), "i1", false);
        all.handle_withdraw(at(2), "i1", why).unwrap();
        assert_eq!(all.may_enter(at(3), "i1"), Err(fault));
    }
    assert_eq!(
        with(Uses::Single, true).handle_withdraw(at(1), "i9", Withdrawn::Revoked),
        Err(InvitationRefusal::Unknown)
    );
}

#[test]
fn one_that_is_over_goes_after_a_day_and_makes_room_before() {
    let mut all = with(Uses::Single, true);
    all.handle_timeout(at(3600 + 86_399));
    assert!(all.get("i1").is_some());
    rows(&mut all);
    all.handle_timeout(at(3600 + 86_400));
    assert_eq!(rows(&mut all), [InvitationOutput::Forget("i1".into())]);

    let make = |all: &mut Invitations, n: usize| {
        all.handle_create(at(1), (&format!("x{n}"), &format!("t{n}")), &seats(), new(Uses::Single, true))
    };
    for n in 0..MOST_INVITATIONS {
        make(&mut all, n).unwrap();
    }
    assert_eq!(make(&mut all, 999), Err(InvitationRefusal::TooMany));
    all.handle_withdraw(at(2), "x7", Withdrawn::Revoked).unwrap();
    make(&mut all, 999).unwrap();
    assert!(all.get("x7").is_none() && all.all().len() == MOST_INVITATIONS);
}

proptest! {
    /// In any order of events: a single invitation is never open again once it was used and its guest is gone for more than
    /// the time to come back; nobody is admitted whom the crew did not let in; what is kept on disk says the same.
    #[test]
    fn a_used_invitation_stays_used(events in prop::collection::vec((0u8..5, 0i64..200), 1..60)) {
        let mut all = with(Uses::Single, true);
        let mut disk = std::collections::BTreeMap::new();
        let (mut now, mut used, mut last_in, mut let_in) = (0, false, 0, false);
        for (event, pause) in events {
            now += pause;
            if all.get("i1").is_some_and(|item| item.state(at(now)) == "in") {
                last_in = now;
            }
            let entry = all.may_enter(at(now), "i1");
            if used && now - last_in >= 120 {
                prop_assert!(entry.is_err() || all.get("i1").unwrap().state(at(now)) == "in");
            }
            if let Ok(entry) = entry {
                prop_assert!(!entry.admitted || let_in);
            }
            match event {
                0 => if let Ok(entry) = entry { all.handle_connected(at(now), "i1", entry.admitted); used = true; },
                1 => all.handle_left(at(now), "i1"),
                2 => { all.handle_admitted("i1"); let_in = true; }
                3 => all = Invitations::new(at(now), disk.values().cloned()),
                _ => all.handle_timeout(at(now)),
            }
            if event == 0 {
                last_in = now;
            }
            while let Some(output) = all.poll_output() {
                match output {
                    InvitationOutput::Keep(row) => { disk.insert(row.id.clone(), row); }
                    InvitationOutput::Forget(id) => { disk.remove(&id); }
                }
            }
            prop_assert_eq!(all.get("i1"), disk.get("i1"));
            if all.get("i1").is_none() { break; }
        }
    }
}
