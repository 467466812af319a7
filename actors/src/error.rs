//! The crate's errors and what to do about it.

pub use r58_pipelines::ErrorKind;
use std::time::Duration;

use r58_pipelines::PipelineError;
use r58_pipelines::peer::PeerError;
use r58_pipelines::sdp::SdpError;

use crate::guest::core::SeatRefusal;
use crate::guest::invitations::{InvitationFault, InvitationRefusal};
use crate::mixer::core::MixerRefusal;
use crate::patch::core::PatchRefusal;
use crate::supervision::DoorError;

/// Everything that an actor of this crate can answer in place of a result.
#[derive(Debug, thiserror::Error)]
pub enum ActorsError {
    /// The message did not reach its actor, or the actor died on it.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// A pipeline did not do it.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The mixer does not do it.
    #[error(transparent)]
    Mixer(#[from] MixerRefusal),
    /// The named thing does not exist.
    #[error("no {what} named {name:?}")]
    Unknown {
        /// What was looked for, e.g. `scene`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// The request cannot be granted as it stands.
    #[error("{0}")]
    Rejected(String),
    /// The part that should do it is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// The configuration does not allow it.
    #[error("{0}")]
    Misconfigured(String),
}

impl ActorsError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Door(door) => door.kind(),
            Self::Pipeline(pipeline) => pipeline.kind(),
            Self::Mixer(_) => ErrorKind::Rejected,
            Self::Unknown { .. } | Self::Rejected(_) => ErrorKind::Rejected,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Misconfigured(_) => ErrorKind::Misconfigured,
        }
    }

    /// The HTTP status that says the same (RFC 9110, section 15).
    pub fn status(&self) -> u16 {
        match self {
            Self::Door(door) => door.status(),
            Self::Pipeline(pipeline) => match pipeline.kind() {
                ErrorKind::Rejected => 422,
                ErrorKind::Bug | ErrorKind::Corrupt => 500,
                ErrorKind::Transient | ErrorKind::Unavailable | ErrorKind::Misconfigured => 503,
            },
            Self::Mixer(MixerRefusal::UnknownScene(_)) => 404,
            Self::Mixer(MixerRefusal::BadTransition(_)) => 422,
            Self::Unknown { .. } => 404,
            Self::Rejected(_) => 409,
            Self::Unavailable(_) => 503,
            Self::Misconfigured(_) => 422,
        }
    }
}

/// Why a guest or a viewer has no session.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The request carries no token.
    #[error("a bearer token is required")]
    NoToken,
    /// Nobody knows the token.
    #[error("the bearer token is not valid")]
    BadToken,
    /// The token belongs to another seat.
    #[error("the bearer token is for another seat")]
    WrongSeat,
    /// The crew has put the guest out of that seat a moment ago.
    #[error("the crew has taken you out of the programme")]
    Barred,
    /// The invitation opens nothing any more.
    #[error(transparent)]
    Invitation(#[from] InvitationFault),
    /// The guest cannot be called that.
    #[error(transparent)]
    Rename(#[from] InvitationRefusal),
    /// The seat says no.
    #[error(transparent)]
    Seat(#[from] SeatRefusal),
    /// A change of a session is based on nothing, or on what is no more.
    #[error(transparent)]
    Patch(#[from] PatchRefusal),
    /// There is nothing to watch under that name.
    #[error("there is nothing named {0:?} to watch")]
    UnknownStream(String),
    /// There is no picture to watch now.
    #[error("there is no picture of {0} now")]
    NoPicture(String),
    /// The governor has switched single inputs off for viewers.
    #[error("the box is short of power: only the programme can be watched")]
    PreviewsOff,
    /// As many watch as may.
    #[error("too many are watching")]
    TooManyViewers,
    /// As many are joining at once as may.
    #[error("too many are joining")]
    TooManyJoining,
    /// The offer is refused.
    #[error(transparent)]
    Sdp(#[from] SdpError),
    /// The peer did not come about.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The pipeline did not come about.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Something that is needed is not there now.
    #[error("{0}")]
    Unavailable(String),
}

impl GuestError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Peer(peer) => peer.kind(),
            Self::Pipeline(pipeline) => pipeline.kind(),
            Self::Unavailable(_) | Self::PreviewsOff | Self::TooManyViewers | Self::TooManyJoining => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Rejected,
        }
    }

    /// The HTTP status of WHIP and WHEP (RFC 9725, section 4).
    pub fn status(&self) -> u16 {
        match self {
            Self::NoToken | Self::BadToken => 401,
            Self::WrongSeat | Self::Barred | Self::Invitation(_) => 403,
            Self::Rename(refusal) => refusal.status(),
            Self::Seat(SeatRefusal::UnknownSeat(_) | SeatRefusal::UnknownSession) | Self::UnknownStream(_) => 404,
            Self::Seat(SeatRefusal::Taken { .. } | SeatRefusal::Empty | SeatRefusal::NotWaiting)
            | Self::NoPicture(_) => 409,
            Self::Seat(SeatRefusal::Busy { .. }) | Self::PreviewsOff | Self::TooManyViewers | Self::TooManyJoining => {
                503
            }
            Self::Patch(PatchRefusal::Unconditional) => 428,
            Self::Patch(PatchRefusal::Stale) => 412,
            Self::Sdp(sdp) => sdp.http_status(),
            Self::Peer(peer) => peer.http_status(),
            Self::Pipeline(_) | Self::Unavailable(_) => 503,
        }
    }

    /// When another try may be worth it, for `Retry-After`; absent when the same request will never do.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Seat(SeatRefusal::Taken { retry_after } | SeatRefusal::Busy { retry_after }) => Some(*retry_after),
            Self::NoPicture(_) => Some(Duration::from_secs(2)),
            Self::PreviewsOff | Self::TooManyViewers | Self::Pipeline(PipelineError::EncodersBusy { .. }) => {
                Some(Duration::from_secs(30))
            }
            Self::Peer(PeerError::NotNow(_)) | Self::TooManyJoining => Some(Duration::from_secs(1)),
            other if other.status() == 503 => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}
