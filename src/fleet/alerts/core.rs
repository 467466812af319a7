//! One alert from one look to the next: no clock, no database.

/// What a rule sees of a device at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Beyond the threshold.
    Bad,
    /// Between the two thresholds: nothing is raised, nothing is resolved.
    Between,
    /// On the good side of the clearing threshold.
    Good,
    /// The device does not say: nothing is raised, nothing is resolved.
    Unknown,
}

/// An alert that is not resolved. Acknowledging changes nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The condition holds, not yet for long enough.
    Pending {
        /// Since when, milliseconds since 1970.
        since: i64,
    },
    /// Raised.
    Open {
        /// Since when the condition is gone, if it is.
        clear_since: Option<i64>,
    },
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// It begins to wait.
    Wait {
        /// Since when the condition holds.
        since: i64,
    },
    /// It is raised.
    Raise {
        /// Since when the condition holds.
        since: i64,
    },
    /// It was pending, and is none.
    Drop,
    /// The condition is gone, not yet for long enough.
    Clearing {
        /// Since when.
        since: i64,
    },
    /// The condition is back.
    Unclear,
    /// It is over.
    Resolve,
}

/// The next step of an alert (or of none) whose rule holds it for `hold` milliseconds. `began` is when the condition began as
/// far as anybody knows; it counts only where nothing was waiting yet.
pub fn step(hold: i64, state: Option<State>, seen: Seen, began: i64, now: i64) -> Step {
    let long_enough = |since: i64| now.saturating_sub(since) >= hold;
    match (state, seen) {
        (None, Seen::Bad) => match began.min(now) {
            since if long_enough(since) => Step::Raise { since },
            since => Step::Wait { since },
        },
        (None, _) => Step::Keep,
        (Some(State::Pending { since }), Seen::Bad) if long_enough(since) => Step::Raise { since },
        (Some(State::Pending { .. }), Seen::Bad) => Step::Keep,
        (Some(State::Pending { .. }), _) => Step::Drop,
        (Some(State::Open { clear_since: None }), Seen::Good) if hold <= 0 => Step::Resolve,
        (Some(State::Open { clear_since: None }), Seen::Good) => Step::Clearing { since: now },
        (Some(State::Open { clear_since: Some(since) }), Seen::Good) if long_enough(since) => Step::Resolve,
        (Some(State::Open { clear_since: Some(_) }), Seen::Good) => Step::Keep,
        (Some(State::Open { clear_since: Some(_) }), _) => Step::Unclear,
        (Some(State::Open { clear_since: None }), _) => Step::Keep,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the store makes of a step.
    fn after(state: Option<State>, step: Step) -> Option<State> {
        match step {
            Step::Keep => state,
            Step::Wait { since } => Some(State::Pending { since }),
            Step::Raise { .. } | Step::Unclear => Some(State::Open { clear_since: None }),
            Step::Clearing { since } => Some(State::Open { clear_since: Some(since) }),
            Step::Drop | Step::Resolve => None,
        }
    }

    fn seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            Just(Seen::Bad),
            Just(Seen::Bad),
            Just(Seen::Good),
            Just(Seen::Good),
            Just(Seen::Between),
            Just(Seen::Unknown)
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_raised_before_it_held_so_long_or_resolved_before_it_was_gone_so_long(
            hold in 0i64..200, looks in prop::collection::vec((seen(), 0i64..90), 1..80)
        ) {
            let (mut state, mut now) = (None, 1_000_000);
            // Since when every look was bad, or good.
            let (mut bad, mut good) = (None, None);
            for (seen, passed) in looks {
                now += passed;
                bad = (seen == Seen::Bad).then(|| bad.unwrap_or(now));
                good = (seen == Seen::Good).then(|| good.unwrap_or(now));
                let was_open = matches!(state, Some(State::Open { .. }));
                let next = step(hold, state, seen, now, now);
                match next {
                    Step::Raise { since } => {
                        prop_assert!(!was_open && bad.is_some_and(|bad| now - bad >= hold));
                        prop_assert_eq!(Some(since), bad);
                    }
                    Step::Resolve => prop_assert!(was_open && good.is_some_and(|good| now - good >= hold)),
                    _ => {
                        // And nothing that is due is put off.
                        prop_assert!(was_open || bad.is_none_or(|bad| now - bad < hold));
                        prop_assert!(!was_open || good.is_none_or(|good| now - good < hold));
                    }
                }
                state = after(state, next);
            }
        }

        #[test]
        fn the_same_look_twice_changes_nothing_the_second_time(
            hold in 1i64..200, seen in seen(), at in 0i64..400, since in 0i64..400, open in any::<bool>(), clear in any::<bool>()
        ) {
            let state = match open {
                true => State::Open { clear_since: clear.then_some(since) },
                false => State::Pending { since },
            };
            let once = after(Some(state), step(hold, Some(state), seen, at, at));
            if once.is_some() {
                prop_assert_eq!(step(hold, once, seen, at, at), Step::Keep);
            }
        }
    }

    #[test]
    fn what_began_before_anybody_looked_counts_from_its_beginning() {
        assert_eq!(step(60, None, Seen::Bad, 40, 100), Step::Raise { since: 40 });
        assert_eq!(step(60, None, Seen::Bad, 41, 100), Step::Wait { since: 41 });
        assert_eq!(step(60, None, Seen::Bad, 500, 100), Step::Wait { since: 100 }, "a clock that is ahead");
    }

    #[test]
    fn a_value_between_the_thresholds_keeps_what_is_open_open() {
        let open = Some(State::Open { clear_since: None });
        assert_eq!(step(0, open, Seen::Between, 0, 9), Step::Keep);
        assert_eq!(step(5, Some(State::Open { clear_since: Some(1) }), Seen::Between, 9, 9), Step::Unclear);
        assert_eq!(step(5, open, Seen::Unknown, 0, 900), Step::Keep);
    }
}
