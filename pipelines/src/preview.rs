//! One input, encoded on demand: started for the first viewer, stopped after the last.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gst::prelude::*;

use crate::clock;
use crate::elements::{add_linked, make};
use crate::encoder::{EncoderChoice, EncoderLease};
use crate::error::PipelineError;
use crate::fanout::RtpFanout;
use crate::feed::{Feed, FeedConsumer, FeedLink};
use crate::mode::{Mode, audio_caps};
use crate::output::{audio_tail, leaky_queue, video_tail};
use crate::teardown;

/// The usual size of an input's preview.
pub const PREVIEW_WIDTH: u32 = 640;
/// Bitrate of a preview in kbit/s.
pub const PREVIEW_KBPS: u32 = 800;

/// A running preview of one feed. Dropping it stops it in the background.
pub struct PreviewEncoder {
    fanout: RtpFanout,
    pipeline: gst::Pipeline,
    link: Option<FeedLink>,
    lease: Option<EncoderLease>,
}

struct Inlet {
    video: gst_app::AppSrc,
    audio: gst_app::AppSrc,
    base: u64,
}

impl FeedConsumer for Inlet {
    fn video(&self, at: u64, picture: &gst::Buffer) {
        push(&self.video, at, self.base, picture);
    }

    fn audio(&self, at: u64, sound: &gst::Buffer) {
        push(&self.audio, at, self.base, sound);
    }
}

fn push(source: &gst_app::AppSrc, at: u64, base: u64, buffer: &gst::Buffer) {
    let mut buffer = buffer.copy();
    if let Some(stamped) = buffer.get_mut() {
        stamped.set_pts(gst::ClockTime::from_nseconds(at.saturating_sub(base)));
        stamped.set_dts(None);
    }
    let _ = source.push_buffer(buffer);
}

/// A preview's mode: at most [`PREVIEW_WIDTH`] across, in the programme's shape and rate.
pub fn preview_mode(mode: &Mode) -> Mode {
    let width = mode.width.min(PREVIEW_WIDTH);
    let height = (mode.height * width / mode.width).next_multiple_of(2).max(64);
    Mode { width, height, ..*mode }
}

impl PreviewEncoder {
    /// Starts encoding a feed with a leased encoder, and keeps the lease until it has really stopped.
    ///
    /// # Errors
    /// As [`PreviewEncoder::start`].
    pub fn start_leased(
        feed: &Feed,
        mode: &Mode,
        lease: EncoderLease,
        bitrate_kbps: u32,
    ) -> Result<Self, PipelineError> {
        let mut preview = Self::start(feed, mode, lease.choice(), bitrate_kbps)?;
        preview.lease = Some(lease);
        Ok(preview)
    }

    /// Starts encoding a feed at the size of `mode` (see [`preview_mode`]).
    ///
    /// # Errors
    /// `MissingElements`, `Failed` when the pipeline does not start.
    pub fn start(feed: &Feed, mode: &Mode, encoder: &EncoderChoice, bitrate_kbps: u32) -> Result<Self, PipelineError> {
        crate::init()?;
        mode.validate()?;
        let fanout = RtpFanout::new();
        let pipeline = gst::Pipeline::with_name(&format!("preview-{}", feed.id()));
        clock::adopt(&pipeline);
        let video = source(&feed.mode().video_caps(), 2);
        let scale = make("videoconvertscale")?;
        scale.set_property_from_str("method", "bilinear");
        let filter = make("capsfilter")?;
        filter.set_property("caps", mode.video_caps());
        let queue = leaky_queue(2, None)?;
        add_linked(&pipeline, &[video.upcast_ref(), &queue, &scale, &filter])?;
        let failed = |error: gst::glib::BoolError| PipelineError::failed(&pipeline.name(), error);
        let dropped = Arc::new(AtomicU64::new(0));
        let (tail, _) = video_tail(&pipeline, &encoder.name, mode, bitrate_kbps, &fanout, dropped)?;
        filter.link(&tail).map_err(failed)?;
        let audio = source(&audio_caps(), 50);
        let tail = audio_tail(&pipeline, &fanout)?;
        pipeline.add(&audio).map_err(failed)?;
        audio.link(&tail).map_err(failed)?;
        let base = clock::now_nanos();
        pipeline.set_start_time(gst::ClockTime::NONE);
        pipeline.set_base_time(gst::ClockTime::from_nseconds(base));
        if pipeline.set_state(gst::State::Playing).is_err() {
            let name = pipeline.name().to_string();
            teardown::dismantle_in_background(pipeline, ());
            return Err(PipelineError::failed(&name, "refused to start"));
        }
        let link = feed.subscribe(Arc::new(Inlet { video, audio, base }));
        Ok(Self { fanout, pipeline, link: Some(link), lease: None })
    }

    /// Its packets.
    pub fn rtp(&self) -> RtpFanout {
        self.fanout.clone()
    }

    /// Stops it; the pipeline ends in the background.
    pub fn stop(self) {}
}

impl Drop for PreviewEncoder {
    fn drop(&mut self) {
        self.link.take();
        teardown::dismantle_in_background(self.pipeline.clone(), self.lease.take());
    }
}

fn source(caps: &gst::Caps, buffers: u64) -> gst_app::AppSrc {
    gst_app::AppSrc::builder()
        .caps(caps)
        .format(gst::Format::Time)
        .is_live(true)
        .block(false)
        .max_buffers(buffers)
        .max_bytes(0)
        .leaky_type(gst_app::AppLeakyType::Downstream)
        .build()
}
