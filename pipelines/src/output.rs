//! The encoding tail of a pipeline: raw pictures and sound in, RTP packets and encoded units out to a [`RtpFanout`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gst::prelude::*;

use crate::elements::{add_linked, make};
use crate::encoder::{coded_caps, make_encoder};
use crate::error::PipelineError;
use crate::fanout::{AUDIO_PAYLOAD_TYPE, CodedUnit, RtpFanout, VIDEO_PAYLOAD_TYPE};
use crate::mode::Mode;
use crate::sdp::MediaKind;

/// Largest RTP packet: it must fit an MTU of 1280 with IPv6, UDP, TURN channel data and SRTP around it.
const MTU: u32 = 1180;
/// Pictures that wait for a slow encoder before the oldest is left out.
const ENCODER_QUEUE: u32 = 3;
/// Bitrate of the Opus stream in bit/s.
const OPUS_BITRATE: i32 = 96_000;

/// A queue that never holds up what is in front of it: when full it loses its oldest buffer, counted in `dropped`.
pub(crate) fn leaky_queue(buffers: u32, dropped: Option<Arc<AtomicU64>>) -> Result<gst::Element, PipelineError> {
    let queue = make("queue")?;
    queue.set_property("max-size-buffers", buffers);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    queue.set_property_from_str("leaky", "downstream");
    if let Some(dropped) = dropped {
        queue.connect("overrun", false, move |_| {
            dropped.fetch_add(1, Ordering::Relaxed);
            None
        });
        queue.set_property("silent", false);
    } else {
        queue.set_property("silent", true);
    }
    Ok(queue)
}

/// Builds `queue ! encoder ! rtph264pay ! appsink` into `pipeline`. Answers the queue to link to, and the encoder.
pub(crate) fn video_tail(
    pipeline: &gst::Pipeline,
    encoder: &str,
    mode: &Mode,
    bitrate_kbps: u32,
    fanout: &RtpFanout,
    dropped: Arc<AtomicU64>,
) -> Result<(gst::Element, gst::Element), PipelineError> {
    let queue = leaky_queue(ENCODER_QUEUE, Some(dropped))?;
    let encoder = make_encoder(encoder, mode, bitrate_kbps)?;
    let coded = make("capsfilter")?;
    coded.set_property("caps", coded_caps());
    let pay = make("rtph264pay")?;
    pay.set_property("pt", u32::from(VIDEO_PAYLOAD_TYPE));
    pay.set_property("mtu", MTU);
    pay.set_property("config-interval", -1i32);
    pay.set_property_from_str("aggregate-mode", "zero-latency");
    let publish = fanout.clone();
    let sink = packet_sink(move |packet| publish.publish_video(packet));
    add_linked(pipeline, &[&queue, &encoder, &coded, &pay, sink.upcast_ref()])?;
    hand_out_units(&coded, MediaKind::Video, fanout);
    let weak = encoder.downgrade();
    fanout.on_keyframe_request(move || {
        if let Some(pad) = weak.upgrade().and_then(|encoder| encoder.static_pad("src")) {
            pad.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    });
    Ok((queue, encoder))
}

/// Builds `queue ! opusenc ! rtpopuspay ! appsink` into `pipeline`. Answers the queue to link to.
pub(crate) fn audio_tail(pipeline: &gst::Pipeline, fanout: &RtpFanout) -> Result<gst::Element, PipelineError> {
    let queue = leaky_queue(25, None)?;
    let encoder = make("opusenc")?;
    encoder.set_property("bitrate", OPUS_BITRATE);
    encoder.set_property_from_str("bitrate-type", "cbr");
    // Complexity 5 is not audibly worse at this rate and costs half of the default 10.
    encoder.set_property("complexity", 5i32);
    encoder.set_property_from_str("frame-size", "20");
    let pay = make("rtpopuspay")?;
    pay.set_property("pt", u32::from(AUDIO_PAYLOAD_TYPE));
    let publish = fanout.clone();
    let sink = packet_sink(move |packet| publish.publish_audio(packet));
    add_linked(pipeline, &[&queue, &encoder, &pay, sink.upcast_ref()])?;
    hand_out_units(&encoder, MediaKind::Audio, fanout);
    Ok(queue)
}

/// Copies what passes to the taps of the fan-out, while there are any: an encoder's buffers may be few and must go back to it.
fn hand_out_units(element: &gst::Element, kind: MediaKind, fanout: &RtpFanout) {
    let Some(pad) = element.static_pad("src") else { return };
    let fanout = fanout.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(buffer) = info.buffer() {
            fanout.publish_unit(|| unit(pad, kind, buffer));
        }
        gst::PadProbeReturn::Ok
    });
}

fn unit(pad: &gst::Pad, kind: MediaKind, buffer: &gst::BufferRef) -> Option<CodedUnit> {
    // Some encoders shift their time stamps and say so in the segment; running time is the same for sound and pictures.
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let at = segment.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts()?)?;
    let map = buffer.map_readable().ok()?;
    Some(CodedUnit {
        kind,
        at: at.nseconds(),
        duration: buffer.duration().map_or(0, gst::ClockTime::nseconds),
        keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        data: Bytes::copy_from_slice(map.as_slice()),
    })
}

fn packet_sink(publish: impl Fn(Bytes) + Send + 'static) -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder().sync(false).async_(false).build();
    sink.set_property("enable-last-sample", false);
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                if let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                    publish(Bytes::copy_from_slice(map.as_slice()));
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    sink
}
