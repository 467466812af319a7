//! What GuestIngest is told and asked.

use actix::Message;

use crate::error::GuestError;
use crate::patch::{Patch, Patched};
use crate::state::SeatReport;

/// Asks for a seat (WHIP POST).
#[derive(Clone, Message)]
#[rtype(result = "Result<Admission, GuestError>")]
pub struct AdmitGuest {
    /// The seat or the invitation in the URL.
    pub seat: String,
    /// The bearer token, as sent.
    pub bearer: Option<String>,
    /// The SDP offer.
    pub offer: String,
}

/// A session with its answer: of a guest, or of a viewer.
#[derive(Clone, PartialEq, Eq)]
pub struct Admission {
    /// Its id; 128 random bits in hex.
    pub session: String,
    /// The entity tag of its ICE session, without quotes.
    pub tag: String,
    /// The SDP answer.
    pub answer: String,
}

impl std::fmt::Debug for Admission {
    /// Without the SDP: it holds addresses and passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Ends a session (WHIP DELETE).
#[derive(Clone, Message)]
#[rtype(result = "Result<(), GuestError>")]
pub struct DropGuest {
    /// The seat or the invitation in the URL.
    pub seat: String,
    /// The session in the URL.
    pub session: String,
    /// The bearer token, as sent.
    pub bearer: Option<String>,
}

/// Candidates that come late, or an ICE restart (WHIP PATCH). The seat, the tracks and the place in the scene stay.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Patched, GuestError>")]
pub struct PatchGuest {
    /// The seat or the invitation in the URL.
    pub seat: String,
    /// The session in the URL.
    pub session: String,
    /// The bearer token, as sent.
    pub bearer: Option<String>,
    /// The change.
    pub patch: Patch,
}

/// Asks for all seats, in the order of the configuration.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<SeatReport>")]
pub struct GetSeats;

/// What the crew wants of a seat or of its guest.
#[derive(Debug, Clone, PartialEq)]
pub enum GuestOrder {
    /// Lets the guest in from the waiting room.
    Admit,
    /// Does not let it in: its session ends, and its invitation with it.
    Refuse,
    /// Puts it out: its session ends, and its invitation with it.
    Remove,
    /// Calls it otherwise for as long as it sits there.
    Rename(String),
    /// Mutes it in the programme, or not any more.
    Mute(bool),
    /// Sets its level in the programme, in dB.
    Level(f32),
}

/// The crew's order for one seat; answers how the seat stands then.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<SeatReport, GuestError>")]
pub struct ManageGuest {
    /// The seat.
    pub seat: String,
    /// What is wanted.
    pub order: GuestOrder,
}
