//! The crate's error, and the kind that tells a supervisor what to do about it.

use thiserror::Error;

/// What a caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Retry within the restart budget.
    Transient,
    /// Degrade and report; it may come back by itself.
    Unavailable,
    /// The caller asked for something that cannot be; tell it.
    Rejected,
    /// Stop that feature and say so once.
    Misconfigured,
    /// Quarantine the data and go on.
    Corrupt,
    /// A mistake in this program.
    Bug,
}

/// Why a pipeline could not be built, run or changed.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// GStreamer elements that are not installed, each with the Debian package that brings it.
    #[error("missing GStreamer elements: {}", describe_missing(.0))]
    MissingElements(Vec<MissingElement>),
    /// GStreamer itself did not come up.
    #[error("gstreamer did not start: {0}")]
    Init(String),
    /// No encoder on this machine passed the test clip.
    #[error("no usable H.264 encoder: {0}")]
    NoEncoder(String),
    /// The hardware's encoder sessions are spent, and software cannot stand in.
    #[error("the box's hardware encodes {most} pictures at once and no more, and {reason}")]
    EncodersBusy {
        /// Sessions that run stably.
        most: u32,
        /// Why software cannot stand in.
        reason: String,
    },
    /// A source that is not there at the moment (no cable, no server, no file).
    #[error("{input}: source unavailable: {reason}")]
    SourceUnavailable {
        /// The input's id.
        input: String,
        /// What the source said.
        reason: String,
    },
    /// A setting that cannot work.
    #[error("{what}: {reason}")]
    Misconfigured {
        /// Which setting.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A request that cannot be carried out.
    #[error("{0}")]
    Rejected(String),
    /// A shipped or stored data file that cannot be read.
    #[error("{file}: {reason}")]
    Corrupt {
        /// The file's name.
        file: String,
        /// What the parser said.
        reason: String,
    },
    /// A pipeline refused a state change, or failed while running.
    #[error("{pipeline}: {reason}")]
    Failed {
        /// The pipeline's name.
        pipeline: String,
        /// What GStreamer said.
        reason: String,
    },
    /// Something that this crate's own code should have made impossible.
    #[error("internal: {0}")]
    Bug(String),
}

impl PipelineError {
    /// What to do about this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MissingElements(_) | Self::Misconfigured { .. } | Self::NoEncoder(_) | Self::Init(_) => {
                ErrorKind::Misconfigured
            }
            Self::SourceUnavailable { .. } | Self::EncodersBusy { .. } => ErrorKind::Unavailable,
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Failed { .. } => ErrorKind::Transient,
            Self::Bug(_) => ErrorKind::Bug,
        }
    }

    pub(crate) fn failed(pipeline: &str, reason: impl std::fmt::Display) -> Self {
        Self::Failed { pipeline: pipeline.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn misconfigured(what: &str, reason: impl std::fmt::Display) -> Self {
        Self::Misconfigured { what: what.to_owned(), reason: reason.to_string() }
    }
}

/// An element that is not in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingElement {
    /// The element's factory name.
    pub element: String,
    /// The Debian package that contains it.
    pub package: String,
}

fn describe_missing(missing: &[MissingElement]) -> String {
    let each: Vec<_> = missing.iter().map(|m| format!("{} (install {})", m.element, m.package)).collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_names_its_package_and_is_a_misconfiguration() {
        let error = PipelineError::MissingElements(vec![MissingElement {
            element: "x264enc".into(),
            package: "gstreamer1.0-plugins-ugly".into(),
        }]);
        assert_eq!(error.to_string(), "missing GStreamer elements: x264enc (install gstreamer1.0-plugins-ugly)");
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
    }
}
