//! Return feeds: what a guest is sent back, the programme's pictures with everybody's sound but its own, under `return-{seat}`.
//!
//! One is made when the guest asks for it and ends with its session, or soon after nobody listens any more. It costs no second
//! encode of the pictures, so the Governor's refusal of single inputs does not concern it.

use std::sync::Arc;

use tracing::info;

use super::Viewers;
use crate::error::GuestError;
use crate::state::InputKind;
use crate::studio::InputRoom;

const PREFIX: &str = "return-";

/// The seat whose return feed has that name, if it is one. No input's id may begin like this.
pub fn return_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

/// The name of a seat's return feed.
pub fn return_to(seat: &str) -> String {
    format!("{PREFIX}{seat}")
}

impl Viewers {
    /// The room of a seat that somebody sits in.
    ///
    /// # Errors
    /// `UnknownStream` when there is no such seat, `NoPicture` while nobody sits there.
    pub(super) fn seat_room(&self, name: &str, seat: &str) -> Result<Arc<InputRoom>, GuestError> {
        let room = self.settings.studio.input(seat).filter(|room| room.name().kind == InputKind::Guest);
        let room = room.ok_or_else(|| GuestError::UnknownStream(name.to_owned()))?;
        if room.face().attached { Ok(room.clone()) } else { Err(GuestError::NoPicture(name.to_owned())) }
    }

    /// Ends the return feeds of seats that are free.
    pub(super) fn sweep_returns(&mut self) {
        let free = |name: &str| return_of(name).is_some_and(|seat| self.seat_room(name, seat).is_err());
        let over: Vec<String> =
            self.viewers.iter().filter(|(_, viewer)| free(&viewer.name)).map(|(session, _)| session.clone()).collect();
        for session in over {
            info!(session, "a return feed ended with its guest");
            self.forget(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_feed_is_named_after_its_seat() {
        assert_eq!(return_of(&return_to("guest1")), Some("guest1"));
        assert_eq!(return_of("guest1"), None);
        assert_eq!(return_of("programme"), None);
    }
}
