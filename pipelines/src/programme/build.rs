//! The programme's pipeline, put together once and never rebuilt while it runs.
//!
//! ```text
//! slot (x N)   appsrc ! tee ! compositor.A and compositor.B      appsrc ! audiomixer
//! black, strip appsrc ! compositor
//! compositor ! caps ! queue(leaky) ! encoder ! rtph264pay ! appsink
//! audiomixer ! caps ! queue(leaky) ! opusenc ! rtpopuspay ! appsink
//! ```
//! There is no livesync and no fallbackswitch in front of the compositor. The compositor itself repeats the last picture of a
//! pad (`max-last-buffer-repeat` is endless) and fills every frame slot by its own timeout (`force-live`), and the audiomixer
//! does the same with silence; so a slot needs no thread of its own that repeats frames, and a slate is one picture pushed
//! once. That is three threads and about eight queues fewer per input.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::types::ProgrammePlan;
use super::watch;
use crate::clock;
use crate::elements::{add_linked, make};
use crate::error::PipelineError;
use crate::fanout::RtpFanout;
use crate::mode::{Mode, audio_caps};
use crate::output::{audio_tail, video_tail};
use crate::render::strip_mode;

/// What the picture waits for late frames beyond the one frame that the compositor takes anyway: a quarter of a frame.
/// Pictures sit in the middle of their slots, so they may be three quarters of a frame late.
const VIDEO_LATENCY_DIVISOR: u64 = 4;
/// What the sound waits for late blocks (nanoseconds): two Opus frames.
pub(super) const AUDIO_LATENCY: u64 = 40_000_000;

/// The parts that are touched while it runs.
pub(super) struct Built {
    pub(super) pipeline: gst::Pipeline,
    pub(super) compositor: gst::Element,
    pub(super) video: Vec<gst_app::AppSrc>,
    pub(super) audio: Vec<gst_app::AppSrc>,
    /// Per bus, per input.
    pub(super) pads: [Vec<gst::Pad>; 2],
    pub(super) volumes: Vec<gst::Pad>,
    pub(super) black: (gst_app::AppSrc, gst::Pad),
    pub(super) strip: (gst_app::AppSrc, gst::Pad),
    pub(super) audiomixer: gst::Element,
    pub(super) encoder: Option<gst::Element>,
}

pub(super) fn build(
    plan: &ProgrammePlan,
    fanout: &RtpFanout,
    dropped: &Arc<AtomicU64>,
) -> Result<Built, PipelineError> {
    let pipeline = gst::Pipeline::with_name("programme");
    clock::adopt(&pipeline);
    let caps = plan.mode.video_caps();
    let compositor = aggregate_live("compositor", plan.mode.frame_nanos() / VIDEO_LATENCY_DIVISOR)?;
    compositor.set_property_from_str("background", "black");
    compositor.set_property("emit-signals", true);
    let filter = make("capsfilter")?;
    filter.set_property("caps", &caps);
    let audiomixer = aggregate_live("audiomixer", AUDIO_LATENCY)?;
    audiomixer.set_property("output-buffer-duration", 20_000_000u64);
    // An input that comes back is heard at once; by default the mixer would doubt its stamps for a second.
    audiomixer.set_property("discont-wait", 0u64);
    let audio_filter = make("capsfilter")?;
    audio_filter.set_property("caps", audio_caps());
    add_linked(&pipeline, &[&compositor, &filter])?;
    add_linked(&pipeline, &[&audiomixer, &audio_filter])?;

    let mut built = Built {
        pipeline: pipeline.clone(),
        video: Vec::new(),
        audio: Vec::new(),
        pads: [Vec::new(), Vec::new()],
        volumes: Vec::new(),
        black: still(&pipeline, &compositor, &plan.mode, "black")?,
        strip: still(&pipeline, &compositor, &strip_mode(&plan.mode), "strip")?,
        compositor,
        audiomixer,
        encoder: None,
    };
    for input in &plan.inputs {
        built.add_slot(&input.id, &caps)?;
    }
    built.place_strip(&plan.mode);
    match &plan.encoder {
        Some(choice) => {
            let mode = &plan.mode;
            let (queue, encoder) =
                video_tail(&pipeline, &choice.name, mode, plan.bitrate_kbps, fanout, dropped.clone())?;
            link(&filter, &queue)?;
            link(&audio_filter, &audio_tail(&pipeline, fanout)?)?;
            built.encoder = Some(encoder);
        }
        None => {
            link(&filter, &end(&pipeline)?)?;
            link(&audio_filter, &end(&pipeline)?)?;
        }
    }
    Ok(built)
}

/// Waits until every pad has had a buffer.
pub(super) struct Primed {
    arrived: mpsc::Receiver<()>,
    pads: usize,
}

impl Primed {
    /// Counts the first buffer of each pad. Call it before the sources are started.
    pub(super) fn count<'a>(pads: impl IntoIterator<Item = &'a gst::Pad>) -> Self {
        let (arrives, arrived) = mpsc::channel();
        let mut count = 0;
        for pad in pads {
            count += 1;
            let arrives = arrives.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                let _ = arrives.send(());
                gst::PadProbeReturn::Remove
            });
        }
        Self { arrived, pads: count }
    }

    /// Brings a pipeline to PLAYING, with something on every pad before its time begins: an aggregator that starts without
    /// data sets its time line back when the first buffer arrives. `begins` is told the beginning of its time, in
    /// nanoseconds of the shared clock, before anything runs by it.
    pub(super) fn play(
        &self,
        pipeline: &gst::Pipeline,
        limit: Duration,
        begins: impl FnOnce(u64),
    ) -> Result<(), PipelineError> {
        pipeline.set_start_time(gst::ClockTime::NONE);
        let failed = |_| PipelineError::failed(&pipeline.name(), watch::first_error(pipeline));
        pipeline.set_state(gst::State::Paused).map_err(failed)?;
        self.wait(&pipeline.name(), limit)?;
        let base = clock::now_nanos();
        begins(base);
        let base = gst::ClockTime::from_nseconds(base);
        pipeline.set_base_time(base);
        // A pipeline hands its clock to all elements before it hands each of them its base time. An aggregator that runs in
        // between takes the whole age of the clock for lost, races ahead, and then is silent until time has caught up.
        pipeline
            .iterate_recurse()
            .foreach(|element| element.set_base_time(base))
            .map_err(|_| PipelineError::Bug("a pipeline changed while it was started".into()))?;
        pipeline.set_state(gst::State::Playing).map_err(failed)?;
        Ok(())
    }

    fn wait(&self, pipeline: &str, limit: Duration) -> Result<(), PipelineError> {
        let deadline = Instant::now() + limit;
        for n in 0..self.pads {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.arrived.recv_timeout(left).is_err() {
                let reason = format!("only {n} of {} pads got their first buffer", self.pads);
                return Err(PipelineError::failed(pipeline, reason));
            }
        }
        Ok(())
    }
}

impl Built {
    /// Counts the first buffer of each pad of both aggregators. Call it before the sources are started.
    pub(super) fn count_first_buffers(&self) -> Primed {
        Primed::count(self.pads.iter().flatten().chain(&self.volumes).chain([&self.black.1, &self.strip.1]))
    }

    fn add_slot(&mut self, id: &str, caps: &gst::Caps) -> Result<(), PipelineError> {
        let video = live_source(&format!("video-{id}"), caps, 4);
        let tee = make("tee")?;
        add_linked(&self.pipeline, &[video.upcast_ref(), &tee])?;
        for pads in &mut self.pads {
            let pad = request(&self.compositor)?;
            join(&tee, &pad)?;
            prepare(&pad);
            pads.push(pad);
        }
        let audio = live_source(&format!("audio-{id}"), &audio_caps(), 50);
        self.pipeline.add(&audio).map_err(|error| PipelineError::failed("programme", error))?;
        let pad = request(&self.audiomixer)?;
        pad.set_property("volume", 0.0f64);
        join(audio.upcast_ref(), &pad)?;
        self.volumes.push(pad);
        self.video.push(video);
        self.audio.push(audio);
        Ok(())
    }

    /// The strip stands in the lower left, in front of everything.
    fn place_strip(&self, mode: &Mode) {
        let size = strip_mode(mode);
        let pad = &self.strip.1;
        pad.set_property("xpos", (mode.width / 20 / 2 * 2) as i32);
        pad.set_property("ypos", (mode.height - size.height - mode.height / 12 / 2 * 2) as i32);
        pad.set_property("width", size.width as i32);
        pad.set_property("height", size.height as i32);
        pad.set_property("zorder", 1000u32);
    }
}

/// An aggregator that keeps its own time, whatever its inputs do. The latency is set up front, so that a late input never
/// redistributes it.
pub(super) fn aggregate_live(factory: &str, latency: u64) -> Result<gst::Element, PipelineError> {
    make(factory)?;
    let built = gst::ElementFactory::make(factory).property("force-live", true).build();
    let element = built.map_err(|error| PipelineError::failed("programme", error))?;
    element.set_property("ignore-inactive-pads", true);
    element.set_property("min-upstream-latency", latency);
    element.set_property_from_str("start-time-selection", "zero");
    Ok(element)
}

/// A source that is pushed into from anywhere and never waits: when nobody takes, its oldest buffer goes. It is not live, so
/// that it delivers its first buffer before the clock runs; the aggregators are live by themselves.
pub(super) fn live_source(name: &str, caps: &gst::Caps, buffers: u64) -> gst_app::AppSrc {
    gst_app::AppSrc::builder()
        .name(name)
        .caps(caps)
        .format(gst::Format::Time)
        .is_live(false)
        .block(false)
        .max_buffers(buffers)
        .max_bytes(0)
        .leaky_type(gst_app::AppLeakyType::Downstream)
        .build()
}

/// A pad with a source that is given one picture now and then.
fn still(
    pipeline: &gst::Pipeline,
    compositor: &gst::Element,
    mode: &Mode,
    name: &str,
) -> Result<(gst_app::AppSrc, gst::Pad), PipelineError> {
    let source = live_source(name, &mode.video_caps(), 1);
    pipeline.add(&source).map_err(|error| PipelineError::failed("programme", error))?;
    let pad = request(compositor)?;
    join(source.upcast_ref(), &pad)?;
    prepare(&pad);
    Ok((source, pad))
}

/// Hidden, and scaling with two taps: at the sizes that scenes use it looks the same as the default cubic filter and costs
/// a third of it.
fn prepare(pad: &gst::Pad) {
    pad.set_property("alpha", 0.0f64);
    let config = gst::Structure::builder("GstVideoConverter")
        .field("GstVideoConverter.resampler-method", gst_video::VideoResamplerMethod::Linear)
        .build();
    pad.set_property("converter-config", config);
}

pub(super) fn request(aggregator: &gst::Element) -> Result<gst::Pad, PipelineError> {
    aggregator.request_pad_simple("sink_%u").ok_or_else(|| PipelineError::Bug("an aggregator gave no pad".into()))
}

pub(super) fn join(source: &gst::Element, pad: &gst::Pad) -> Result<(), PipelineError> {
    let from = source.static_pad("src").or_else(|| source.request_pad_simple("src_%u"));
    let from = from.ok_or_else(|| PipelineError::Bug(format!("{} has no source pad", source.name())))?;
    from.link(pad).map(|_| ()).map_err(|error| PipelineError::failed("programme", error))
}

fn link(from: &gst::Element, to: &gst::Element) -> Result<(), PipelineError> {
    from.link(to).map_err(|error| PipelineError::failed("programme", error))
}

fn end(pipeline: &gst::Pipeline) -> Result<gst::Element, PipelineError> {
    let sink = make("fakesink")?;
    sink.set_property("sync", false);
    sink.set_property("async", false);
    sink.set_property("enable-last-sample", false);
    add_linked(pipeline, &[&sink])?;
    Ok(sink)
}
