//! Which GStreamer elements this crate needs, and where Debian keeps them.

use gst::prelude::*;

use crate::error::{MissingElement, PipelineError};

/// Everything that the programme, the inputs and the guests cannot do without, with the Debian 12 package of each.
const REQUIRED: &[(&str, &str)] = &[
    ("appsrc", "gstreamer1.0-plugins-base"),
    ("appsink", "gstreamer1.0-plugins-base"),
    ("audioconvert", "gstreamer1.0-plugins-base"),
    ("audiomixer", "gstreamer1.0-plugins-base"),
    ("audioresample", "gstreamer1.0-plugins-base"),
    ("audiotestsrc", "gstreamer1.0-plugins-base"),
    ("compositor", "gstreamer1.0-plugins-base"),
    ("imagefreeze", "gstreamer1.0-plugins-good"),
    ("jpegenc", "gstreamer1.0-plugins-good"),
    ("opusenc", "gstreamer1.0-plugins-base"),
    ("opusdec", "gstreamer1.0-plugins-base"),
    ("queue", "libgstreamer1.0-0"),
    ("rtph264depay", "gstreamer1.0-plugins-good"),
    ("rtph264pay", "gstreamer1.0-plugins-good"),
    ("rtpjitterbuffer", "gstreamer1.0-plugins-good"),
    ("rtpopusdepay", "gstreamer1.0-plugins-good"),
    ("rtpopuspay", "gstreamer1.0-plugins-good"),
    ("rtpvp8depay", "gstreamer1.0-plugins-good"),
    ("textoverlay", "gstreamer1.0-x"),
    ("uridecodebin", "gstreamer1.0-plugins-base"),
    ("videoconvertscale", "gstreamer1.0-plugins-base"),
    ("videorate", "gstreamer1.0-plugins-base"),
    ("videotestsrc", "gstreamer1.0-plugins-base"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("avdec_h264", "gstreamer1.0-libav"),
    ("vp8dec", "gstreamer1.0-plugins-good"),
];

/// Starts GStreamer. May be called any number of times, from any thread.
///
/// # Errors
/// `Init` when the library cannot start.
pub fn init() -> Result<(), PipelineError> {
    gst::init().map_err(|error| PipelineError::Init(error.to_string()))
}

/// Looks for every element that this crate needs.
///
/// # Errors
/// `MissingElements`, naming each one and the Debian package that contains it.
pub fn check_elements() -> Result<(), PipelineError> {
    init()?;
    check(REQUIRED)
}

fn check(required: &[(&str, &str)]) -> Result<(), PipelineError> {
    let missing: Vec<_> = required
        .iter()
        .filter(|(element, _)| gst::ElementFactory::find(element).is_none())
        .map(|(element, package)| MissingElement { element: (*element).into(), package: (*package).into() })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(PipelineError::MissingElements(missing)) }
}

/// Makes an element, or says which package it is in.
///
/// # Errors
/// `MissingElements` when it is not installed.
pub fn make(element: &str) -> Result<gst::Element, PipelineError> {
    gst::ElementFactory::make(element).build().map_err(|_| PipelineError::MissingElements(vec![missing(element)]))
}

fn missing(element: &str) -> MissingElement {
    let known = REQUIRED.iter().find(|(name, _)| *name == element).map(|(_, package)| *package);
    let package = known.unwrap_or(match element {
        "x264enc" => "gstreamer1.0-plugins-ugly",
        "openh264enc" => "gstreamer1.0-plugins-bad",
        "v4l2h264enc" | "v4l2src" | "rtspsrc" => "gstreamer1.0-plugins-good",
        _ => "gstreamer1.0-plugins-good or -bad",
    });
    MissingElement { element: element.to_owned(), package: package.to_owned() }
}

/// Adds elements to a pipeline and links them in a row.
///
/// # Errors
/// `Failed` when two neighbours do not fit.
pub(crate) fn add_linked(pipeline: &gst::Pipeline, row: &[&gst::Element]) -> Result<(), PipelineError> {
    let name = pipeline.name();
    pipeline.add_many(row.iter().copied()).map_err(|error| PipelineError::failed(&name, error))?;
    gst::Element::link_many(row.iter().copied()).map_err(|error| PipelineError::failed(&name, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn this_machine_has_every_element() {
        check_elements().unwrap();
    }

    #[test]
    fn a_missing_element_is_named_with_its_package() {
        init().unwrap();
        let error = check(&[("queue", "libgstreamer1.0-0"), ("nosuchthing", "gstreamer1.0-nowhere")]).unwrap_err();
        assert_eq!(error.to_string(), "missing GStreamer elements: nosuchthing (install gstreamer1.0-nowhere)");
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert_eq!(make("alsonothing").unwrap_err().kind(), ErrorKind::Misconfigured);
    }
}
