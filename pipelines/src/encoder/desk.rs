//! Who encodes with what: the programme's choice by test clip, the previews' by what the budget leaves.
//!
//! A lease is held for as long as its encoder exists, its teardown included, so that the count is the hardware's own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::{SessionBudget, SessionUsage, Ticket};
use super::{CANDIDATES, EncoderChoice, choose_from, choose_named, is_hardware};
use crate::error::PipelineError;
use crate::mode::Mode;
use crate::profile::Profile;

/// Hands out encoders within a box's budget. Cheap to clone.
#[derive(Clone)]
pub struct EncoderDesk {
    inner: Arc<Inner>,
}

struct Inner {
    /// In the order to try them.
    encoders: Vec<String>,
    /// The one that the configuration insists on for the programme.
    named: Option<String>,
    budget: Mutex<SessionBudget>,
    /// What previews beyond the budget use, or why there is nothing; found out when it is first needed.
    software: Mutex<Option<Result<EncoderChoice, String>>>,
}

/// An encoder that may run until this is dropped.
#[must_use = "dropping the lease gives the session back"]
pub struct EncoderLease {
    choice: EncoderChoice,
    ticket: Ticket,
    desk: EncoderDesk,
}

impl EncoderDesk {
    /// With a profile's encoders and budget. `named` is the only one for the programme, where it is given.
    pub fn new(profile: &Profile, named: Option<&str>) -> Self {
        let listed = profile.encoders.iter().map(String::as_str);
        let encoders: Vec<&str> = if profile.encoders.is_empty() { CANDIDATES.to_vec() } else { listed.collect() };
        let inner = Inner {
            encoders: encoders.into_iter().map(str::to_owned).collect(),
            named: named.map(str::to_owned),
            budget: Mutex::new(SessionBudget::new(profile.budgets.encoder_sessions)),
            software: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The programme's encoder: the first that encodes a test clip. Blocks for up to five seconds per candidate.
    ///
    /// # Errors
    /// `NoEncoder` when none works, with every reason.
    pub fn for_programme(&self, mode: &Mode) -> Result<EncoderLease, PipelineError> {
        let choice = match &self.inner.named {
            Some(name) => choose_named(name, mode)?,
            None => super::choose_from_profile(&self.inner.encoders, mode)?,
        };
        let ticket = lock(&self.inner.budget).open_programme(is_hardware(&choice.name));
        Ok(self.lease(choice, ticket))
    }

    /// A preview's encoder: the one that works for the programme, or beyond the budget one in software. May block, once, for
    /// a test clip.
    ///
    /// # Errors
    /// `EncodersBusy` when the budget is spent and nothing in software helps.
    pub fn for_preview(&self, programme: &str, mode: &Mode) -> Result<EncoderLease, PipelineError> {
        let granted = lock(&self.inner.budget).open_preview(is_hardware(programme));
        if let Ok(ticket) = granted {
            let choice = EncoderChoice {
                name: programme.into(),
                reason: "works for the programme".into(),
                rejected: Vec::new(),
            };
            return Ok(self.lease(choice, ticket));
        }
        let most = self.usage().most;
        let choice = self.software(mode).map_err(|reason| PipelineError::EncodersBusy { most, reason })?;
        let granted = lock(&self.inner.budget).open_preview(false);
        let ticket = granted.map_err(|_| PipelineError::Bug("an encoder in software was refused".into()))?;
        Ok(self.lease(choice, ticket))
    }

    /// What runs, against what may run.
    pub fn usage(&self) -> SessionUsage {
        lock(&self.inner.budget).usage()
    }

    fn lease(&self, choice: EncoderChoice, ticket: Ticket) -> EncoderLease {
        EncoderLease { choice, ticket, desk: self.clone() }
    }

    /// The lock is held over the test clip on purpose: whoever comes meanwhile waits for its outcome.
    fn software(&self, mode: &Mode) -> Result<EncoderChoice, String> {
        let mut known = lock(&self.inner.software);
        let find = || {
            let names: Vec<_> =
                self.inner.encoders.iter().map(String::as_str).filter(|name| !is_hardware(name)).collect();
            if names.is_empty() {
                return Err("the profile names none in software".to_owned());
            }
            choose_from(&names, mode).map_err(|error| error.to_string())
        };
        known.get_or_insert_with(find).clone()
    }
}

impl EncoderLease {
    /// Which encoder, and why.
    pub fn choice(&self) -> &EncoderChoice {
        &self.choice
    }

    /// What runs beside it.
    pub fn usage(&self) -> SessionUsage {
        self.desk.usage()
    }
}

impl Drop for EncoderLease {
    fn drop(&mut self) {
        lock(&self.desk.inner.budget).close(self.ticket);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const SMALL: Mode = Mode::new(320, 180, 30);

    fn desk(encoders: &[&str], sessions: u32) -> EncoderDesk {
        let mut profile = Profile::auto();
        profile.encoders = encoders.iter().map(|name| (*name).to_owned()).collect();
        profile.budgets.encoder_sessions = sessions;
        EncoderDesk::new(&profile, None)
    }

    #[test]
    fn the_programme_takes_the_first_of_the_profiles_list_that_works() {
        let lease = desk(&["mpph264enc", "openh264enc", "x264enc"], 3).for_programme(&SMALL).unwrap();
        assert_eq!(lease.choice().name, "openh264enc");
        assert_eq!(lease.choice().rejected[0].name, "mpph264enc");
        assert_eq!(lease.usage(), SessionUsage { hardware: 0, most: 3, software: 1 });
    }

    #[test]
    fn previews_beyond_the_budget_are_encoded_in_software() {
        let desk = desk(&["mpph264enc", "x264enc"], 3);
        let leases: Vec<_> = (0..3).map(|_| desk.for_preview("mpph264enc", &SMALL).unwrap()).collect();
        let names: Vec<_> = leases.iter().map(|lease| lease.choice().name.as_str()).collect();
        assert_eq!(names, ["mpph264enc", "mpph264enc", "x264enc"]);
        assert_eq!(desk.usage(), SessionUsage { hardware: 2, most: 3, software: 1 });
        drop(leases);
        assert_eq!(desk.usage(), SessionUsage { hardware: 0, most: 3, software: 0 });
    }

    #[test]
    fn a_preview_that_neither_hardware_nor_software_can_encode_is_refused_with_the_reason() {
        let desk = desk(&["mpph264enc"], 2);
        let held = desk.for_preview("mpph264enc", &SMALL).unwrap();
        let refused = desk.for_preview("mpph264enc", &SMALL).err().unwrap();
        assert_eq!(
            refused.to_string(),
            "the box's hardware encodes 2 pictures at once and no more, and the profile names none in software"
        );
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        drop(held);
        assert!(desk.for_preview("mpph264enc", &SMALL).is_ok());
    }
}
