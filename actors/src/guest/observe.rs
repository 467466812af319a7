//! Looks at the guests' media once a second and puts up, in each seat's room, how its line is doing and why it is black if it is.

use std::time::Instant;

use super::diagnosis::diagnose;
use super::vitals::VitalsCore;
use super::{GuestIngest, GuestMedia};
use crate::state::GuestReport;

/// What is followed of one guest.
pub(super) struct GuestWatch {
    admitted: Instant,
    vitals: VitalsCore,
}

impl GuestWatch {
    pub(super) fn begin(now: Instant) -> Self {
        Self { admitted: now, vitals: VitalsCore::default() }
    }

    /// Answers what there is to tell, when it is time for it.
    fn look(&mut self, now: Instant, media: &dyn GuestMedia, path: Option<&String>) -> Option<GuestReport> {
        if !self.vitals.wants(now) {
            return None;
        }
        let sample = media.sample()?;
        let why = diagnose(now, self.admitted, &sample).sentence().to_owned();
        self.vitals.handle_sample(now, sample);
        Some(GuestReport { path: path.cloned(), why, vitals: self.vitals.vitals()? })
    }
}

impl GuestIngest {
    /// Looks at all guests, and clears the rooms of those that are gone.
    pub(super) fn watch_media(&mut self, now: Instant) {
        for seat in &self.settings.seats {
            let Some(room) = self.settings.studio.input(seat) else { continue };
            let sitter = self.core.session(seat).and_then(|session| self.sitters.get_mut(session));
            match sitter {
                None => room.tell_of_guest(None),
                Some(sitter) => {
                    if let Some(report) = sitter.watch.look(now, &*sitter.media, sitter.path.as_ref()) {
                        room.tell_of_guest(Some(report));
                    }
                }
            }
        }
    }
}
