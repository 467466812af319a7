//! What a PATCH of a session means: candidates for the ICE session of the moment, or the beginning of another one. Pure.
//!
//! The entity tag names the ICE session, the client's user fragment says which one its fragment is about (RFC 9725, section
//! 4.3). Requests may overlap, be repeated and come in any order: a fragment of an ICE session that is over never takes
//! hold again, whatever its `If-Match` says.

use std::collections::VecDeque;

/// User fragments that are remembered: a client that restarted as often meanwhile has no late requests from before.
const REMEMBERED: usize = 16;

/// The `If-Match` of a request (RFC 9110, section 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is none.
    Missing,
    /// `*`; also `"*"`, which the RFC's own examples show and clients send.
    Any,
    /// Strong entity tags, without their quotes. Weak ones never match and are left out.
    Tags(Vec<String>),
}

impl Precondition {
    /// Reads the header's value.
    pub fn read(value: Option<&str>) -> Self {
        let Some(value) = value.map(str::trim) else { return Self::Missing };
        if value == "*" || value == "\"*\"" {
            return Self::Any;
        }
        let strong = |tag: &str| tag.trim().strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
        Self::Tags(value.split(',').filter_map(strong).take(8).collect())
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Add the candidates.
    Trickle,
    /// Begin a new ICE session.
    Restart,
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatchRefusal {
    /// 428: a change must say what it is based on.
    #[error("a change of a session needs If-Match")]
    Unconditional,
    /// 412: it is based on an ICE session that is over.
    #[error("the ICE session has changed meanwhile")]
    Stale,
}

/// The ICE sessions that a session has had.
#[derive(Debug, Clone)]
pub struct IceLedger {
    tag: String,
    /// The client's user fragments, the one of the moment last.
    fragments: VecDeque<String>,
}

impl IceLedger {
    /// The first ICE session: its tag, and the client's user fragment.
    pub fn new(tag: String, fragment: String) -> Self {
        Self { tag, fragments: VecDeque::from([fragment]) }
    }

    /// The tag of the moment, without quotes.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// What a request means now.
    ///
    /// # Errors
    /// `Unconditional`, `Stale`.
    pub fn judge(&self, precondition: &Precondition, fragment: &str) -> Result<Step, PatchRefusal> {
        match precondition {
            Precondition::Missing => return Err(PatchRefusal::Unconditional),
            Precondition::Tags(tags) if !tags.contains(&self.tag) => return Err(PatchRefusal::Stale),
            Precondition::Tags(_) | Precondition::Any => {}
        }
        if self.fragments.back().is_some_and(|last| last == fragment) {
            Ok(Step::Trickle)
        } else if self.fragments.iter().any(|past| past == fragment) {
            Err(PatchRefusal::Stale)
        } else {
            Ok(Step::Restart)
        }
    }

    /// A new ICE session has begun.
    pub fn handle_restarted(&mut self, tag: String, fragment: String) {
        self.tag = tag;
        if self.fragments.len() == REMEMBERED {
            self.fragments.pop_front();
        }
        self.fragments.push_back(fragment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tags(value: &str) -> Precondition {
        Precondition::read(Some(value))
    }

    #[test]
    fn the_header_is_read_in_all_its_forms() {
        assert_eq!(Precondition::read(None), Precondition::Missing);
        for any in ["*", "\"*\"", " * "] {
            assert_eq!(tags(any), Precondition::Any, "{any}");
        }
        assert_eq!(tags("\"a\""), Precondition::Tags(vec!["a".into()]));
        assert_eq!(tags("\"a\", W/\"b\" ,\"c\""), Precondition::Tags(vec!["a".into(), "c".into()]));
        for none in ["", "a", "W/\"a\"", "\""] {
            assert_eq!(tags(none), Precondition::Tags(vec![]), "{none:?}");
        }
    }

    #[test]
    fn a_matching_fragment_trickles_and_a_new_one_restarts() {
        let mut ledger = IceLedger::new("one".into(), "ufrag1".into());
        assert_eq!(ledger.judge(&tags("\"one\""), "ufrag1"), Ok(Step::Trickle));
        assert_eq!(ledger.judge(&tags("*"), "ufrag1"), Ok(Step::Trickle));
        assert_eq!(ledger.judge(&tags("*"), "ufrag2"), Ok(Step::Restart));
        ledger.handle_restarted("two".into(), "ufrag2".into());
        assert_eq!(ledger.judge(&tags("\"two\""), "ufrag2"), Ok(Step::Trickle));
        // A client that sends the tag in place of the star knows as much.
        assert_eq!(ledger.judge(&tags("\"two\""), "ufrag3"), Ok(Step::Restart));
    }

    #[test]
    fn a_change_without_a_base_or_on_an_old_one_is_refused() {
        let mut ledger = IceLedger::new("one".into(), "ufrag1".into());
        assert_eq!(ledger.judge(&Precondition::Missing, "ufrag1"), Err(PatchRefusal::Unconditional));
        assert_eq!(ledger.judge(&tags("\"other\""), "ufrag1"), Err(PatchRefusal::Stale));
        assert_eq!(ledger.judge(&tags("W/\"one\""), "ufrag1"), Err(PatchRefusal::Stale));
        ledger.handle_restarted("two".into(), "ufrag2".into());
        assert_eq!(ledger.judge(&tags("\"one\""), "ufrag1"), Err(PatchRefusal::Stale));
    }

    #[test]
    fn a_late_request_of_an_old_ice_session_never_restarts_into_it() {
        let mut ledger = IceLedger::new("one".into(), "ufrag1".into());
        ledger.handle_restarted("two".into(), "ufrag2".into());
        assert_eq!(ledger.judge(&tags("*"), "ufrag1"), Err(PatchRefusal::Stale));
        assert_eq!(ledger.judge(&tags("\"two\""), "ufrag1"), Err(PatchRefusal::Stale));
    }

    proptest! {
        /// In any order of requests, repeated ones too: the ICE sessions go forward only, and trickling touches the last.
        #[test]
        fn ice_sessions_only_go_forward(requests in prop::collection::vec((0usize..6, any::<bool>()), 1..60)) {
            let mut ledger = IceLedger::new("t0".into(), "u0".into());
            let mut newest = 0;
            for (which, star) in requests {
                let precondition = if star { Precondition::Any } else { Precondition::Tags(vec![format!("t{which}")]) };
                match ledger.judge(&precondition, &format!("u{which}")) {
                    Ok(Step::Trickle) => prop_assert_eq!(which, newest),
                    Ok(Step::Restart) => {
                        prop_assert!(star && which != newest);
                        ledger.handle_restarted(format!("t{which}"), format!("u{which}"));
                        newest = which;
                    }
                    Err(refusal) => prop_assert!(refusal == PatchRefusal::Stale && which != newest),
                }
            }
        }
    }
}
