//! Still pictures: test patterns, slates, the identity strip. Each is drawn once, when its text changes.

use std::time::Duration;

use gst::prelude::*;

use crate::elements::{add_linked, make};
use crate::error::PipelineError;
use crate::mode::Mode;
use crate::teardown;

/// Drawing a still takes some milliseconds; longer than this is a failure.
const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// A piece of text on a picture.
struct Text<'a> {
    text: &'a str,
    /// Pango font description.
    font: String,
    vertical: &'a str,
    /// Pixels down from where `vertical` puts it.
    down: i32,
}

/// A picture in `mode` with one of videotestsrc's patterns, by its nick name.
///
/// # Errors
/// `Misconfigured` when there is no such pattern.
pub fn pattern(mode: &Mode, name: &str) -> Result<gst::Buffer, PipelineError> {
    let source = make("videotestsrc")?;
    let class = source.find_property("pattern").and_then(|p| gst::glib::EnumClass::with_type(p.value_type()));
    let known = class.is_some_and(|class| class.value_by_nick(name).is_some());
    if !known {
        return Err(PipelineError::misconfigured("source.pattern", format!("there is no test pattern {name}")));
    }
    source.set_property_from_str("pattern", name);
    draw(source, &mode.video_caps(), &[])
}

/// A plain picture in `mode`; `argb` such as `0xff202428`.
///
/// # Errors
/// `Failed` when it cannot be drawn.
pub fn plain(mode: &Mode, argb: u32) -> Result<gst::Buffer, PipelineError> {
    draw(solid(argb)?, &mode.video_caps(), &[])
}

/// What stands in place of an input without a picture: a headline, and why.
///
/// # Errors
/// `Failed` when it cannot be drawn.
pub fn slate(mode: &Mode, headline: &str, reason: &str) -> Result<gst::Buffer, PipelineError> {
    let big = Text { text: headline, font: font(mode, 14), vertical: "center", down: -(mode.height as i32) / 20 };
    let small = Text { text: reason, font: font(mode, 26), vertical: "center", down: mode.height as i32 / 12 };
    let texts: Vec<_> = [big, small].into_iter().filter(|text| !text.text.is_empty()).collect();
    draw(solid(0xff20_2830)?, &mode.video_caps(), &texts)
}

/// A strip with the box's name, for the lower edge of the programme. Answers the picture and its caps.
///
/// # Errors
/// `Failed` when it cannot be drawn.
pub fn strip(mode: &Mode, text: &str) -> Result<(gst::Buffer, gst::Caps), PipelineError> {
    let size = strip_mode(mode);
    let text = Text { text, font: font(mode, 20), vertical: "center", down: 0 };
    let caps = size.video_caps();
    Ok((draw(solid(0xff00_4a8f)?, &caps, &[text])?, caps))
}

/// Size of the identity strip for a programme in `mode`.
pub fn strip_mode(mode: &Mode) -> Mode {
    Mode { width: mode.width / 4 * 2, height: (mode.height / 10).next_multiple_of(2), ..*mode }
}

fn font(mode: &Mode, share: u32) -> String {
    format!("Sans Bold {}px", mode.height / share)
}

fn solid(argb: u32) -> Result<gst::Element, PipelineError> {
    let source = make("videotestsrc")?;
    source.set_property_from_str("pattern", "solid-color");
    source.set_property("foreground-color", argb);
    Ok(source)
}

fn draw(source: gst::Element, caps: &gst::Caps, texts: &[Text<'_>]) -> Result<gst::Buffer, PipelineError> {
    let pipeline = gst::Pipeline::with_name("still");
    let buffer = draw_in(&pipeline, source, caps, texts);
    teardown::dismantle(pipeline);
    buffer
}

fn draw_in(
    pipeline: &gst::Pipeline,
    source: gst::Element,
    caps: &gst::Caps,
    texts: &[Text<'_>],
) -> Result<gst::Buffer, PipelineError> {
    source.set_property("num-buffers", 1i32);
    let filter = make("capsfilter")?;
    filter.set_property("caps", caps);
    let mut row = vec![source, filter];
    for text in texts {
        let overlay = make("textoverlay")?;
        // The element reads its text as Pango markup.
        overlay.set_property("text", gst::glib::markup_escape_text(text.text).as_str());
        overlay.set_property("font-desc", &text.font);
        overlay.set_property_from_str("valignment", text.vertical);
        overlay.set_property_from_str("halignment", "center");
        overlay.set_property_from_str("line-alignment", "center");
        overlay.set_property_from_str("wrap-mode", "wordchar");
        overlay.set_property("auto-resize", false);
        overlay.set_property("deltay", text.down);
        row.push(overlay);
    }
    let sink = gst_app::AppSink::builder().caps(caps).sync(false).build();
    row.push(sink.clone().upcast());
    add_linked(pipeline, &row.iter().collect::<Vec<_>>())?;
    pipeline.set_state(gst::State::Playing).map_err(|error| PipelineError::failed("still", error))?;
    let sample = sink.try_pull_sample(LIMIT).ok_or_else(|| {
        let seconds = Duration::from(LIMIT).as_secs();
        PipelineError::failed("still", format!("no picture within {seconds} s"))
    })?;
    let buffer = sample.buffer().ok_or_else(|| PipelineError::failed("still", "a sample without a picture"))?;
    // A copy of its own: the element's pool must not be kept busy by a picture that lives for days.
    buffer.copy_deep().map_err(|error| PipelineError::failed("still", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slate_carries_its_text_and_markup_is_only_text() {
        crate::init().unwrap();
        let mode = Mode::new(320, 180, 30);
        let bare = slate(&mode, "", "").unwrap();
        let text = slate(&mode, "NO SIGNAL  <CAM & 2>", "no cable").unwrap();
        let luma = |buffer: &gst::Buffer| buffer.map_readable().unwrap()[..320 * 180].to_vec();
        let bright = luma(&text).iter().filter(|y| **y > 180).count();
        assert!(bright > 200, "{bright} bright pixels");
        assert_eq!(luma(&bare).iter().filter(|y| **y > 180).count(), 0);
    }

    #[test]
    fn an_unknown_pattern_is_named() {
        crate::init().unwrap();
        let error = pattern(&Mode::default(), "nonsense").unwrap_err();
        assert_eq!(error.to_string(), "source.pattern: there is no test pattern nonsense");
    }
}
