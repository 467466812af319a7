//! How many encoder sessions a box may run at once. Pure: it counts, and grants or refuses.
//!
//! The box's encoder hardware is stable with three sessions, risky with four, and crashes with eight; what is on air must not
//! pay for what somebody looks at. One session is the programme's, whether it runs or is about to; previews share the rest.
//! Encoders in software are the governor's business: they are counted, not limited.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What runs, against what may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionUsage {
    /// Hardware sessions in use, the programme's included.
    pub hardware: u32,
    /// Hardware sessions that run stably; 0 is no limit.
    pub most: u32,
    /// Encoders that run in software.
    pub software: u32,
}

/// No hardware session is free for a preview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSpent;

/// A granted session; give it back with [`SessionBudget::close`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
pub struct Ticket(u64);

#[derive(Debug, Clone, Copy)]
struct Session {
    programme: bool,
    hardware: bool,
}

/// The sessions of one box.
#[derive(Debug, Default)]
pub struct SessionBudget {
    most: u32,
    last: u64,
    running: BTreeMap<Ticket, Session>,
}

impl SessionBudget {
    /// With `most` hardware sessions; 0 is no limit.
    pub fn new(most: u32) -> Self {
        Self { most, ..Self::default() }
    }

    /// A session for the programme: always granted. One that is being stopped still counts.
    pub fn open_programme(&mut self, hardware: bool) -> Ticket {
        self.open(Session { programme: true, hardware })
    }

    /// A session for a preview.
    ///
    /// # Errors
    /// When it is one in hardware and all that the programme does not need are taken.
    pub fn open_preview(&mut self, hardware: bool) -> Result<Ticket, BudgetSpent> {
        if hardware && self.most > 0 && self.spoken_for() >= self.most {
            return Err(BudgetSpent);
        }
        Ok(self.open(Session { programme: false, hardware }))
    }

    /// A session has ended.
    pub fn close(&mut self, ticket: Ticket) {
        self.running.remove(&ticket);
    }

    /// What runs now.
    pub fn usage(&self) -> SessionUsage {
        let count = |hardware: bool| self.running.values().filter(|s| s.hardware == hardware).count() as u32;
        SessionUsage { hardware: count(true), most: self.most, software: count(false) }
    }

    /// Hardware sessions in use, and the programme's when it has none at the moment.
    fn spoken_for(&self) -> u32 {
        let count = |programme: bool| {
            self.running.values().filter(|session| session.hardware && session.programme == programme).count() as u32
        };
        count(true).max(1) + count(false)
    }

    fn open(&mut self, session: Session) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.running.insert(ticket, session);
        ticket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn previews_share_what_the_programme_leaves_and_get_back_what_is_closed() {
        let mut budget = SessionBudget::new(3);
        budget.open_programme(true);
        let first = budget.open_preview(true).unwrap();
        budget.open_preview(true).unwrap();
        assert_eq!(budget.open_preview(true), Err(BudgetSpent));
        assert!(budget.open_preview(false).is_ok(), "software is not limited");
        assert_eq!(budget.usage(), SessionUsage { hardware: 3, most: 3, software: 1 });
        budget.close(first);
        assert!(budget.open_preview(true).is_ok());
    }

    #[test]
    fn the_programmes_session_is_kept_free_while_it_restarts() {
        let mut budget = SessionBudget::new(2);
        let on_air = budget.open_programme(true);
        budget.open_preview(true).unwrap();
        budget.close(on_air);
        assert_eq!(budget.open_preview(true), Err(BudgetSpent));
        budget.open_programme(true);
        assert_eq!(budget.usage().hardware, 2);
    }

    #[test]
    fn without_a_limit_nothing_is_refused_and_with_one_session_the_programme_has_it() {
        let mut free = SessionBudget::new(0);
        assert!((0..20).all(|_| free.open_preview(true).is_ok()));
        assert_eq!(SessionBudget::new(1).open_preview(true), Err(BudgetSpent));
    }

    proptest! {
        /// The programme is never refused, and with one programme at a time no more run than may.
        #[test]
        fn never_more_than_the_budget(most in 1u32..6, events in prop::collection::vec((0u8..4, any::<bool>(), 0usize..8), 1..200)) {
            let mut budget = SessionBudget::new(most);
            let (mut programme, mut previews) = (None, Vec::new());
            for (event, hardware, which) in events {
                match event {
                    0 => {
                        if let Some(old) = programme.take() {
                            budget.close(old);
                        }
                        programme = Some(budget.open_programme(hardware));
                    }
                    1 if !previews.is_empty() => budget.close(previews.remove(which % previews.len())),
                    _ => previews.extend(budget.open_preview(hardware).ok()),
                }
                prop_assert!(budget.usage().hardware <= most, "{:?}", budget.usage());
            }
        }
    }
}
