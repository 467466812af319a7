//! Which H.264 encoder this machine has, found out by encoding a test clip with each.
//!
//! A factory in the registry proves nothing: hardware encoders register without hardware, or fail on the first frame. The
//! first candidate that turns a short clip into decodable access units wins, and the reasons are kept for the API.

use std::time::{Duration, Instant};

use gst::prelude::*;
use serde::Serialize;

use crate::elements::{add_linked, init, make};
use crate::error::PipelineError;
use crate::mode::Mode;
use crate::teardown;

pub mod budget;
mod desk;

pub use desk::{EncoderDesk, EncoderLease};

/// Candidates in order: the box's own hardware, other hardware, then software (facts measured on the box: `mpph264enc`
/// baseline, constant bitrate, a key frame a second, is the stable one).
pub(crate) const CANDIDATES: &[&str] = &["mpph264enc", "v4l2h264enc", "x264enc", "openh264enc"];
/// Those of them that are sessions of a chip, which can run out.
const HARDWARE: &[&str] = &["mpph264enc", "v4l2h264enc"];
/// Frames in the test clip.
const CLIP_FRAMES: u32 = 15;
/// An encoder that needs longer than this for the clip is stuck.
const CLIP_LIMIT: Duration = Duration::from_secs(5);
/// Highest preset level of [`set_preset`].
pub const LOWEST_PRESET: u8 = 2;

/// Whether an encoder is a session of a chip.
pub fn is_hardware(name: &str) -> bool {
    HARDWARE.contains(&name)
}

/// Whether this software knows how to set an encoder up.
pub fn is_known(name: &str) -> bool {
    CANDIDATES.contains(&name)
}

/// A candidate that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The element.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// The encoder that was chosen, and why the ones before it were not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EncoderChoice {
    /// The element.
    pub name: String,
    /// Why it was chosen.
    pub reason: String,
    /// Candidates that failed, in the order they were tried.
    pub rejected: Vec<Rejection>,
}

/// Tries the candidates in order and takes the first that encodes a clip in this mode. Blocks for up to five seconds per
/// candidate; typically a fraction of a second.
///
/// # Errors
/// `NoEncoder` when none works, with every reason.
pub fn choose_encoder(mode: &Mode) -> Result<EncoderChoice, PipelineError> {
    choose_from(CANDIDATES, mode)
}

/// Tries the candidates of a hardware profile, in its order; an empty list is this software's own order.
///
/// # Errors
/// `NoEncoder` when none works, with every reason.
pub fn choose_from_profile(encoders: &[String], mode: &Mode) -> Result<EncoderChoice, PipelineError> {
    if encoders.is_empty() {
        return choose_encoder(mode);
    }
    let names: Vec<_> = encoders.iter().map(String::as_str).collect();
    choose_from(&names, mode)
}

/// Tries one encoder by name (`programme.encoder` in the configuration).
///
/// # Errors
/// `NoEncoder` when it does not encode the test clip, or is none that this software knows.
pub fn choose_named(name: &str, mode: &Mode) -> Result<EncoderChoice, PipelineError> {
    match CANDIDATES.iter().find(|candidate| **candidate == name) {
        Some(known) => choose_from(&[*known], mode),
        None => Err(PipelineError::NoEncoder(format!("{name} is none of {}", CANDIDATES.join(", ")))),
    }
}

fn choose_from(candidates: &[&str], mode: &Mode) -> Result<EncoderChoice, PipelineError> {
    init()?;
    let mut rejected = Vec::new();
    for name in candidates {
        let begun = Instant::now();
        match encode_clip(name, mode) {
            Ok(bytes) => {
                let took = begun.elapsed().as_millis();
                let reason = format!("encoded {CLIP_FRAMES} test frames to {bytes} bytes in {took} ms");
                return Ok(EncoderChoice { name: (*name).to_owned(), reason, rejected });
            }
            Err(reason) => rejected.push(Rejection { name: (*name).to_owned(), reason }),
        }
    }
    let all: Vec<_> = rejected.iter().map(|r| format!("{}: {}", r.name, r.reason)).collect();
    Err(PipelineError::NoEncoder(all.join("; ")))
}

fn encode_clip(name: &str, mode: &Mode) -> Result<usize, String> {
    if gst::ElementFactory::find(name).is_none() {
        return Err("not installed".into());
    }
    let pipeline = gst::Pipeline::with_name(&format!("encoder-test-{name}"));
    let outcome = run_clip(&pipeline, name, mode);
    teardown::dismantle(pipeline);
    outcome
}

fn run_clip(pipeline: &gst::Pipeline, name: &str, mode: &Mode) -> Result<usize, String> {
    let words = |error: PipelineError| error.to_string();
    let source = make("videotestsrc").map_err(words)?;
    source.set_property("num-buffers", CLIP_FRAMES as i32);
    let raw = make("capsfilter").map_err(words)?;
    raw.set_property("caps", mode.video_caps());
    let encoder = make_encoder(name, mode, 1000).map_err(words)?;
    let coded = make("capsfilter").map_err(words)?;
    coded.set_property("caps", coded_caps());
    let sink = gst_app::AppSink::builder().sync(false).build();
    add_linked(pipeline, &[&source, &raw, &encoder, &coded, sink.upcast_ref()]).map_err(words)?;
    pipeline.set_state(gst::State::Playing).map_err(|_| first_error(pipeline))?;
    let deadline = Instant::now() + CLIP_LIMIT;
    let (mut frames, mut bytes) = (0, 0);
    while frames < CLIP_FRAMES {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_nseconds(left.as_nanos() as u64)) else {
            if sink.is_eos() {
                return Err(format!("only {frames} of {CLIP_FRAMES} frames came out"));
            }
            return Err(first_error(pipeline));
        };
        let size = sample.buffer().map_or(0, gst::BufferRef::size);
        if size == 0 {
            return Err("an empty frame came out".into());
        }
        frames += 1;
        bytes += size;
    }
    Ok(bytes)
}

fn first_error(pipeline: &gst::Pipeline) -> String {
    let message = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => error.error().to_string(),
        _ => format!("no frames within {} s", CLIP_LIMIT.as_secs()),
    }
}

/// What every encoder must deliver: whole access units as a byte stream.
pub(crate) fn coded_caps() -> gst::Caps {
    gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au").build()
}

/// An encoder set up for live viewers: no reordering, a key frame every two seconds and on request.
///
/// # Errors
/// `MissingElements`, or `Rejected` for a name that is none of the candidates.
pub(crate) fn make_encoder(name: &str, mode: &Mode, bitrate_kbps: u32) -> Result<gst::Element, PipelineError> {
    let encoder = make(name)?;
    let gop = (mode.fps() * 2.0).round() as u32;
    match name {
        "x264enc" => {
            encoder.set_property("bitrate", bitrate_kbps);
            encoder.set_property("key-int-max", gop);
            encoder.set_property_from_str("tune", "zerolatency");
            encoder.set_property_from_str("speed-preset", "ultrafast");
            encoder.set_property("byte-stream", true);
            encoder.set_property("bframes", 0u32);
            encoder.set_property("cabac", false);
            encoder.set_property("aud", false);
            // Sliced threads cost some per cent of the bits and buy the whole frame's latency.
            encoder.set_property("threads", 2u32);
            encoder.set_property("vbv-buf-capacity", 600u32);
        }
        "openh264enc" => {
            encoder.set_property("bitrate", bitrate_kbps * 1000);
            encoder.set_property("gop-size", gop);
            encoder.set_property_from_str("complexity", "low");
            encoder.set_property_from_str("rate-control", "bitrate");
        }
        "mpph264enc" => {
            encoder.set_property("bps", bitrate_kbps * 1000);
            encoder.set_property("gop", gop as i32);
            encoder.set_property_from_str("profile", "baseline");
            encoder.set_property_from_str("rc-mode", "cbr");
            // Whoever begins to watch late needs the parameter sets too; the first frame alone has them by default.
            if encoder.has_property("header-mode") {
                encoder.set_property_from_str("header-mode", "each-idr");
            }
        }
        "v4l2h264enc" => {
            let controls = gst::Structure::builder("controls")
                .field("video_bitrate", (bitrate_kbps * 1000) as i32)
                .field("h264_i_frame_period", gop as i32)
                .build();
            encoder.set_property("extra-controls", controls);
        }
        other => return Err(PipelineError::Rejected(format!("{other} is no encoder that this software knows"))),
    }
    Ok(encoder)
}

/// Makes a running encoder cheaper: the governor's last resort. Level 0 is `bitrate_kbps`, 1 two thirds, 2 a third of it.
/// The bitrate is what all four encoders can change while they run; the speed preset already is the fastest.
pub(crate) fn set_preset(encoder: &gst::Element, bitrate_kbps: u32, level: u8) {
    let level = level.min(LOWEST_PRESET);
    let kbps = (bitrate_kbps * (3 - u32::from(level)) / 3).max(100);
    match encoder.factory().map(|factory| factory.name().to_string()).as_deref() {
        Some("x264enc") => encoder.set_property("bitrate", kbps),
        Some("openh264enc") => encoder.set_property("bitrate", kbps * 1000),
        Some("mpph264enc") => encoder.set_property("bps", kbps * 1000),
        Some("v4l2h264enc") => {
            let controls = gst::Structure::builder("controls").field("video_bitrate", (kbps * 1000) as i32).build();
            encoder.set_property("extra-controls", controls);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_encoder_that_really_encodes_is_chosen_and_the_others_have_reasons() {
        let choice = choose_from(&["mpph264enc", "x264enc"], &Mode::new(320, 180, 30)).unwrap();
        assert_eq!(choice.name, "x264enc");
        assert_eq!(choice.rejected, [Rejection { name: "mpph264enc".into(), reason: "not installed".into() }]);
        assert!(choice.reason.starts_with("encoded 15 test frames"), "{}", choice.reason);
    }

    #[test]
    fn openh264_works_too_when_x264_is_not_there() {
        assert_eq!(choose_named("openh264enc", &Mode::new(320, 180, 30)).unwrap().name, "openh264enc");
    }

    #[test]
    fn a_machine_without_encoders_says_so_with_every_reason() {
        let error = choose_from(&["mpph264enc"], &Mode::default()).unwrap_err();
        assert_eq!(error.to_string(), "no usable H.264 encoder: mpph264enc: not installed");
        assert!(choose_named("rav1e", &Mode::default()).is_err());
    }
}
