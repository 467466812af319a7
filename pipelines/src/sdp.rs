//! What an offer must be before a WebRTC stack sees it, and what an answer must be before a client sees it.
//!
//! Pure: text in, text or a typed [`SdpError`] out. [`CheckedOffer::parse`] takes anything a stranger may send. It never
//! panics, costs time linear in the size of the text, and hands on a **rewritten** offer that holds only what this box
//! understands: known attributes, supported codecs in canonical form, candidates that are plain UDP addresses. The stack
//! below therefore meets no syntax that was not checked here.
//!
//! The rules are those of WHIP (RFC 9725, sections 4.2 and 4.4) and WHEP: at most one audio and one video section, all in
//! one BUNDLE with rtcp-mux, and never a partial answer: one bad section refuses the whole offer.

mod answer;
mod codec;
mod fragment;
mod lines;
mod offer;
#[cfg(test)]
mod tests;

pub use answer::finish_answer;
pub(crate) use codec::h264_fmtp;
pub use codec::{Codec, H264Profile, OfferedCodec};
pub use fragment::{AnswerFragment, SdpFragment};
pub use offer::{CandidateKind, CheckedOffer, Direction, OfferedCandidate, OfferedMedia, Purpose};

use thiserror::Error;

/// Largest offer that is read, in bytes. A browser's offer is 3 to 8 KiB; more than this is answered 413.
pub const MAX_OFFER_BYTES: usize = 64 * 1024;

/// Most remote candidates that are handed on. Each one costs connectivity checks towards an address that a stranger chose.
pub const MAX_CANDIDATES: usize = 32;

/// Sound or picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaKind {
    /// An `m=audio` section.
    Audio,
    /// An `m=video` section.
    Video,
}

impl MediaKind {
    /// The word of the m-line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

/// Why an offer is refused, or why no proper answer came about.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SdpError {
    /// More than [`MAX_OFFER_BYTES`].
    #[error("the offer has {0} bytes, at most {MAX_OFFER_BYTES} are read")]
    TooLarge(usize),
    /// Not SDP, or SDP that lacks what every WebRTC offer has.
    #[error("malformed offer: {0}")]
    Malformed(&'static str),
    /// No `m=` section at all.
    #[error("the offer has no media")]
    NoMedia,
    /// A section that is neither audio nor video, is rejected, or is not SRTP over DTLS.
    #[error("unsupported media section: {0}")]
    UnsupportedSection(&'static str),
    /// Two sections of one kind.
    #[error("the offer has more than one {} section", .0.as_str())]
    DuplicateKind(MediaKind),
    /// The sections do not share one transport.
    #[error("every section must be in one BUNDLE group and use rtcp-mux")]
    NotBundled,
    /// The client leaves us no DTLS role.
    #[error("setup must be actpass or active")]
    Setup,
    /// No SHA-256 fingerprint.
    #[error("the offer has no sha-256 fingerprint")]
    Fingerprint,
    /// The offer asks for the other direction.
    #[error("the {} section has the wrong direction for this endpoint", .0.as_str())]
    Direction(MediaKind),
    /// None of the codecs of a section is supported.
    #[error("no common codec for {}: H.264, VP8 and Opus are supported", .0.as_str())]
    NoCommonCodec(MediaKind),
    /// Two sections and no `a=ssrc`: the streams cannot be told apart.
    #[error("the {} section names no ssrc", .0.as_str())]
    NoSsrc(MediaKind),
    /// The stack answered, but not to everything.
    #[error("no complete answer is possible")]
    PartialAnswer,
}

impl SdpError {
    /// The HTTP status of a WHIP or WHEP endpoint for this refusal (RFC 9725, section 4.2).
    pub fn http_status(&self) -> u16 {
        match self {
            Self::TooLarge(_) => 413,
            Self::Malformed(_) => 400,
            _ => 422,
        }
    }
}
