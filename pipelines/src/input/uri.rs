//! Files and network cameras: whatever GStreamer can decode, scaled once into the programme's mode.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use gst::prelude::*;

use super::watch::{TICK, Watch};
use super::{InputEvent, Shared};
use crate::clock;
use crate::elements::{add_linked, make};
use crate::error::{ErrorKind, PipelineError};
use crate::mode::audio_caps;
use crate::signal::{CaptureFormat, Driver, SignalInput};
use crate::teardown;

const CLOSED: &str = "the camera closed the connection";

pub(super) fn start_file(shared: &Arc<Shared>, path: &Path) -> Result<JoinHandle<()>, PipelineError> {
    let unavailable = |reason: String| PipelineError::SourceUnavailable { input: shared.id.clone(), reason };
    let whole = path.canonicalize().map_err(|error| unavailable(format!("{}: {error}", path.display())))?;
    let uri = gst::glib::filename_to_uri(&whole, None).map_err(|error| unavailable(error.to_string()))?;
    start(shared, &uri, true, |_| {})
}

pub(super) fn start_rtsp(
    shared: &Arc<Shared>,
    url: &str,
    latency_ms: u32,
    tcp: bool,
) -> Result<JoinHandle<()>, PipelineError> {
    if !url.starts_with("rtsp://") && !url.starts_with("rtsps://") {
        return Err(PipelineError::misconfigured("source.url", "not an rtsp:// or rtsps:// address"));
    }
    make("rtspsrc")?;
    start(shared, url, false, rtsp_source(latency_ms, tcp))
}

fn rtsp_source(latency_ms: u32, tcp: bool) -> impl Fn(&gst::Element) + Send + Sync + 'static {
    move |source| {
        if source.find_property("latency").is_some() && source.find_property("protocols").is_some() {
            source.set_property("latency", latency_ms);
            source.set_property("drop-on-latency", true);
            source.set_property_from_str("protocols", if tcp { "tcp" } else { "udp-mcast+udp+tcp" });
            // Reconnecting is the owner's business: it wants to know soon.
            source.set_property("tcp-timeout", 5_000_000u64);
            source.set_property("timeout", 5_000_000u64);
            // It says that all streams are there when each is about to be shown, from a thread of each: the last one may be shown
            // after that (GStreamer 1.22), and uridecodebin no longer listens then. Connected first, so it never hears it.
            source.connect("no-more-pads", false, |values| {
                if let Some(source) = values.first().and_then(|value| value.get::<gst::Element>().ok()) {
                    source.stop_signal_emission_by_name("no-more-pads");
                }
                None
            });
        }
    }
}

fn start(
    shared: &Arc<Shared>,
    uri: &str,
    loops: bool,
    set_up: impl Fn(&gst::Element) + Send + Sync + 'static,
) -> Result<JoinHandle<()>, PipelineError> {
    let pipeline = build(shared, uri, loops, set_up)?;
    let (owner, name) = (shared.clone(), pipeline.name().to_string());
    let spawn = std::thread::Builder::new().name(name).spawn(move || run(&owner, pipeline, loops));
    spawn.map_err(|error| PipelineError::failed(&shared.id, error))
}

fn build(
    shared: &Arc<Shared>,
    uri: &str,
    loops: bool,
    set_up: impl Fn(&gst::Element) + Send + Sync + 'static,
) -> Result<gst::Pipeline, PipelineError> {
    let pipeline = gst::Pipeline::with_name(&format!("input-{}", shared.id));
    clock::adopt(&pipeline);
    let decode = make("uridecodebin")?;
    decode.set_property("uri", uri);
    // A decoder that a stream of a camera brings takes a playing pipeline back to PAUSED until it has its first picture or sound,
    // and rows that are added meanwhile to PAUSED too: every stream would wait for the slowest, and for one that cannot be
    // decoded for ever. So this bin keeps its waiting to itself. A file's pipeline is to wait: it is asked for segments before
    // it plays.
    decode.set_property("async-handling", !loops);
    decode.connect("source-setup", false, move |values| {
        if let Some(source) = values.get(1).and_then(|value| value.get::<gst::Element>().ok()) {
            set_up(&source);
        }
        None
    });
    pipeline.add(&decode).map_err(|error| PipelineError::failed(&shared.id, error))?;
    let (weak, owner) = (pipeline.downgrade(), shared.clone());
    decode.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        if let Err(error) = branch(&pipeline, &owner, pad) {
            tracing::warn!(input = owner.id, %error, "stream cannot be used");
        }
    });
    Ok(pipeline)
}

/// Brings one decoded stream into the programme's mode. Streams after the first of their kind go nowhere.
fn branch(pipeline: &gst::Pipeline, shared: &Shared, pad: &gst::Pad) -> Result<(), PipelineError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let kind = caps.structure(0).map_or("", |structure| structure.name().as_str()).to_owned();
    let (known, row) = if kind.starts_with("video/") {
        ("feed-video", video_row(shared)?)
    } else if kind.starts_with("audio/") {
        ("feed-audio", audio_row(shared)?)
    } else {
        return Ok(());
    };
    if pipeline.by_name(known).is_some() {
        return Ok(());
    }
    add_linked(pipeline, &row.iter().collect::<Vec<_>>())?;
    let inlet = row[0].static_pad("sink").ok_or_else(|| PipelineError::Bug("a queue without a sink".into()))?;
    pad.link(&inlet).map_err(|error| PipelineError::failed(&shared.id, error))?;
    for element in row.iter().rev() {
        element.sync_state_with_parent().map_err(|error| PipelineError::failed(&shared.id, error))?;
    }
    Ok(())
}

/// `queue ! videorate ! videoconvertscale ! caps ! sink`: pictures that the programme has no slot for are dropped before
/// they are scaled; missing ones are not made up, the programme repeats.
pub(super) fn video_row(shared: &Shared) -> Result<Vec<gst::Element>, PipelineError> {
    let mode = shared.feed.mode();
    let rate = make("videorate")?;
    rate.set_property("drop-only", true);
    rate.set_property("max-rate", (mode.fps().ceil() as i32).max(1));
    let scale = make("videoconvertscale")?;
    scale.set_property("add-borders", true);
    scale.set_property_from_str("method", "bilinear");
    let filter = make("capsfilter")?;
    let mut caps = mode.video_caps();
    if let Some(structure) = caps.make_mut().structure_mut(0) {
        structure.remove_field("framerate");
    }
    filter.set_property("caps", &caps);
    let sink = shared.feed.video_sink();
    sink.set_caps(Some(&caps));
    Ok(vec![make("queue")?, rate, scale, filter, sink.upcast()])
}

fn audio_row(shared: &Shared) -> Result<Vec<gst::Element>, PipelineError> {
    let filter = make("capsfilter")?;
    filter.set_property("caps", audio_caps());
    let sink = shared.feed.audio_sink();
    Ok(vec![make("queue")?, make("audioconvert")?, make("audioresample")?, filter, sink.upcast()])
}

fn run(shared: &Shared, pipeline: gst::Pipeline, loops: bool) {
    let mut watch = Watch::new(shared, Driver::Generic);
    watch.tell(SignalInput::Opened);
    follow(shared, &pipeline, &mut watch, loops);
    teardown::dismantle(pipeline);
}

fn follow(shared: &Shared, pipeline: &gst::Pipeline, watch: &mut Watch<'_>, loops: bool) {
    use gst::MessageView;
    let Some(bus) = pipeline.bus() else { return };
    // Through PAUSED, so that a file can be asked for segments before the first of it is played.
    if pipeline.set_state(if loops { gst::State::Paused } else { gst::State::Playing }).is_err() {
        tracing::debug!(input = shared.id, "pipeline did not start; the bus says why");
    }
    let mut primed = !loops;
    let mut broken = false;
    let tell = |message: String, kind, watch: &mut Watch<'_>| {
        watch.tell(SignalInput::Error(message.clone()));
        (shared.events)(InputEvent::Error { message, kind });
    };
    let tick = gst::ClockTime::from_nseconds(TICK.as_nanos() as u64);
    while !shared.is_stopping() {
        if let Some(message) = bus.timed_pop(tick) {
            match message.view() {
                MessageView::Error(error) if !broken => {
                    broken = true;
                    let (message, kind) = judge(error, loops);
                    tell(message, kind, watch);
                }
                MessageView::AsyncDone(_) if !primed => {
                    primed = true;
                    rewind(pipeline, gst::SeekFlags::FLUSH);
                    let _ = pipeline.set_state(gst::State::Playing);
                }
                MessageView::SegmentDone(_) => rewind(pipeline, gst::SeekFlags::empty()),
                MessageView::Eos(_) if loops => rewind(pipeline, gst::SeekFlags::FLUSH),
                MessageView::Eos(_) if !broken => {
                    broken = true;
                    tell(CLOSED.into(), ErrorKind::Unavailable, watch);
                }
                MessageView::Latency(_) => {
                    let _ = pipeline.recalculate_latency();
                }
                _ => continue,
            }
        }
        if let Some(format) = source_format(pipeline)
            && watch.core.format() != Some(&format)
        {
            watch.tell(SignalInput::Format(format));
        }
        // A picture that was still on its way makes a broken source not live again.
        if !broken {
            watch.look(None);
        }
    }
}

/// What a source's error means to the crew, and whether another try may help. Cameras answer with RTSP's status codes
/// (RFC 2326, section 7.1.1). A relay answers 404 until its camera is there; a password does not become right by itself.
///
/// A camera that dies with a report of ours unread resets the connection in place of closing it, and rtspsrc says then that it
/// could not read; its own timeouts it does not report this way.
fn judge(error: &gst::message::Error, is_file: bool) -> (String, ErrorKind) {
    let status = error.details().and_then(|details| details.get::<u32>("rtsp-status-code").ok());
    match status {
        Some(code @ (401 | 403)) => {
            (format!("the camera refuses the user name or the password (RTSP {code})"), ErrorKind::Misconfigured)
        }
        Some(404) => ("the camera has no such stream (RTSP 404)".into(), ErrorKind::Unavailable),
        Some(code) => (format!("{} (RTSP {code})", error.error()), ErrorKind::Unavailable),
        None if error.error().matches(gst::ResourceError::OpenReadWrite) => {
            ("the camera cannot be reached".into(), ErrorKind::Unavailable)
        }
        None if !is_file && error.error().matches(gst::ResourceError::Read) => (CLOSED.into(), ErrorKind::Unavailable),
        None => (error.error().to_string(), ErrorKind::Unavailable),
    }
}

/// Back to the beginning: without a flush it follows seamlessly, with one after a short stand-still.
fn rewind(pipeline: &gst::Pipeline, flags: gst::SeekFlags) {
    if pipeline.seek_simple(gst::SeekFlags::SEGMENT | flags, gst::ClockTime::ZERO).is_err() {
        tracing::debug!(pipeline = %pipeline.name(), "this file cannot be rewound");
    }
}

fn source_format(pipeline: &gst::Pipeline) -> Option<CaptureFormat> {
    let sink = pipeline.by_name("feed-video")?;
    let scale = sink.static_pad("sink")?.peer()?.parent_element()?.static_pad("sink")?.peer()?.parent_element()?;
    let caps = scale.static_pad("sink")?.current_caps()?;
    let info = gst_video::VideoInfo::from_caps(&caps).ok()?;
    Some(CaptureFormat { fourcc: info.format().to_str().to_string(), width: info.width(), height: info.height() })
}

#[cfg(test)]
#[path = "../../tests/rtsp_support/mod.rs"]
mod rtsp_support;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::rtsp_support::{Camera, Kind};
    use super::*;
    use crate::input::InputPipeline;
    use crate::mode::Mode;

    /// Plays a camera until it is seen and heard; the states that its pipeline went through.
    fn play(upset: impl FnOnce(&gst::Element)) -> Vec<gst::State> {
        crate::elements::init().unwrap();
        let camera = Camera::start(Kind::H264Aac);
        let shared = InputPipeline::shared("cam", &Mode::new(320, 180, 15), Arc::new(|_| {}));
        let pipeline = build(&shared, &camera.url(None), false, rtsp_source(100, true)).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        upset(&pipeline.children()[0].property::<gst::Element>("source"));
        let (bus, deadline) = (pipeline.bus().unwrap(), Instant::now() + Duration::from_secs(40));
        let mut states = Vec::new();
        let all = || shared.feed.stats().frames > 0 && shared.feed.stats().last_audio.is_some();
        while !all() || bus.have_pending() {
            assert!(Instant::now() < deadline, "no picture or no sound: {states:?}");
            let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(20)) else { continue };
            if let gst::MessageView::StateChanged(change) = message.view()
                && change.src() == Some(pipeline.upcast_ref())
            {
                states.push(change.current());
            }
        }
        assert!(teardown::dismantle(pipeline));
        states
    }

    #[test]
    fn a_cameras_pipeline_that_plays_never_goes_back_while_its_streams_appear() {
        let states = play(|_| {});
        let back = states.iter().skip_while(|state| **state != gst::State::Playing).any(|s| *s != gst::State::Playing);
        assert!(!back, "{states:?}");
    }

    #[test]
    fn a_stream_that_is_shown_after_the_source_said_that_all_are_there_is_taken_too() {
        play(|source| source.no_more_pads());
    }

    #[test]
    fn a_connection_that_is_reset_was_closed_by_the_camera_and_a_file_has_no_camera() {
        crate::elements::init().unwrap();
        let message = gst::message::Error::new(gst::ResourceError::Read, "could not read");
        let gst::MessageView::Error(error) = message.view() else { panic!("not an error") };
        assert_eq!(judge(error, false), (CLOSED.to_owned(), ErrorKind::Unavailable));
        assert_eq!(judge(error, true).0, "could not read");
    }
}
