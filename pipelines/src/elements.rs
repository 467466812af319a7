//! Which GStreamer elements this crate needs, and where Debian keeps them.

use gst::prelude::*;

use crate::encoder;
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

/// Looks for every element that this crate needs, and for any one H.264 encoder; whether that works, a test clip says later.
///
/// # Errors
/// `MissingElements`, naming each one and the Debian package that contains it.
pub fn check_elements() -> Result<(), PipelineError> {
    init()?;
    check(REQUIRED, encoder::CANDIDATES)
}

fn check(required: &[(&str, &str)], encoders: &[&str]) -> Result<(), PipelineError> {
    let is_here = |element: &str| gst::ElementFactory::find(element).is_some();
    let mut missing: Vec<_> = required
        .iter()
        .filter(|(element, _)| !is_here(element))
        .map(|(element, package)| MissingElement { element: (*element).into(), package: (*package).into() })
        .collect();
    if !encoders.iter().any(|encoder| is_here(encoder)) {
        let element = "an H.264 encoder such as x264enc".to_owned();
        missing.push(MissingElement { element, package: optional_package("x264enc").to_owned() });
    }
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
    let package = known.unwrap_or_else(|| optional_package(element));
    MissingElement { element: element.to_owned(), package: package.to_owned() }
}

/// The package of an element that only some boxes need.
fn optional_package(element: &str) -> &'static str {
    match element {
        "x264enc" => "gstreamer1.0-plugins-ugly",
        "openh264enc" => "gstreamer1.0-plugins-bad",
        "alsasrc" => "gstreamer1.0-alsa",
        "v4l2h264enc" | "v4l2src" | "rtspsrc" => "gstreamer1.0-plugins-good",
        _ => "gstreamer1.0-plugins-good or -bad",
    }
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
        let required = [("queue", "libgstreamer1.0-0"), ("nosuchthing", "gstreamer1.0-nowhere")];
        let error = check(&required, &["nosuchencoder", "queue"]).unwrap_err();
        assert_eq!(error.to_string(), "missing GStreamer elements: nosuchthing (install gstreamer1.0-nowhere)");
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        let error = check(&[], &["nosuchencoder"]).unwrap_err().to_string();
        assert!(error.contains("an H.264 encoder such as x264enc (install gstreamer1.0-plugins-ugly)"), "{error}");
        assert_eq!(make("alsonothing").unwrap_err().kind(), ErrorKind::Misconfigured);
    }
}
