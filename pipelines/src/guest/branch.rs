//! One kind of a guest's media, from packets to the feed's sink.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gst::prelude::*;
use gst_video::VideoFrameExt as _;

use super::{GuestSettings, stats};
use crate::elements;
use crate::error::PipelineError;
use crate::feed::Feed;
use crate::mode::audio_caps;
use crate::sdp::{Codec, MediaKind};

/// Everything that a branch may be made of, to be loaded before the first guest.
pub(super) const ELEMENTS: [&str; 16] = [
    "appsrc",
    "queue",
    "rtpjitterbuffer",
    "rtph264depay",
    "rtpvp8depay",
    "rtpopusdepay",
    "h264parse",
    "mppvideodec",
    "avdec_h264",
    "openh264dec",
    "vp8dec",
    "opusdec",
    "videoconvertscale",
    "videorate",
    "audioconvert",
    "audioresample",
];

/// Most packets that wait at the entrance: a second of 4 Mbit/s. The oldest go first.
const ENTRANCE_PACKETS: u64 = 512;

/// Longest that a buffer waits behind the jitter buffer (nanoseconds); any latency that is of use is shorter.
const WAITING_ROOM: u64 = 3_000_000_000;

/// Opus's in-band error correction makes the decoder wait for the next packet, and it reckons with packets of the longest kind.
const FEC_LATENCY: Duration = Duration::from_millis(140);

/// A gap longer than this is not filled with repeated pictures: the programme's slate is for that (nanoseconds).
const FILL_GAPS: u64 = 500_000_000;

/// One picture in so many is looked at: two in a second.
const LOOK_AT: u64 = 15;

/// Hears what the branch sees; on streaming threads.
pub(super) struct Probes {
    pub(super) decoded: Box<dyn Fn() + Send + Sync>,
    pub(super) size: Box<dyn Fn(u32, u32) + Send + Sync>,
    /// Whether a picture is black all over; of every fifteenth.
    pub(super) dark: Box<dyn Fn(bool) + Send + Sync>,
    pub(super) keyframe: Box<dyn Fn() + Send + Sync>,
    /// The time stamp of a packet that leaves the jitter buffer, and for when, in nanoseconds of the pipeline.
    pub(super) put: Box<dyn Fn(u32, u64) + Send + Sync>,
}

pub(super) struct Branch {
    payload_type: u8,
    codec: Codec,
    entrance: gst_app::AppSrc,
    sink: Option<gst::Element>,
    bin: gst::Bin,
}

impl Branch {
    /// Builds a branch into a playing pipeline.
    pub(super) fn add(
        pipeline: &gst::Pipeline,
        feed: &Feed,
        payload_type: u8,
        codec: Codec,
        fmtp: &str,
        settings: &GuestSettings,
        probes: Probes,
    ) -> Result<Self, PipelineError> {
        let bin = gst::Bin::new();
        let entrance = entrance(payload_type, codec, fmtp);
        let mut row: Vec<gst::Element> = vec![entrance.clone().upcast(), jitter_buffer(codec, settings)?];
        let decoder = decoder(codec, settings)?;
        match codec {
            Codec::H264 => row.extend([depay("rtph264depay")?, elements::make("h264parse")?]),
            Codec::Vp8 => row.push(depay("rtpvp8depay")?),
            Codec::Opus => row.push(elements::make("rtpopusdepay")?),
        }
        match codec.kind() {
            // Encoded pictures wait for their time, not decoded ones: a tenth of a megabyte instead of twenty.
            MediaKind::Video => {
                row.extend([waiting_room()?, decoder.clone()]);
                row.extend(to_pictures(feed)?);
            }
            MediaKind::Audio => {
                row.extend([decoder.clone(), waiting_room()?]);
                row.extend(to_sound(feed)?);
            }
        }
        let failed = |error: &dyn std::fmt::Display| PipelineError::failed(&pipeline.name(), error);
        bin.add_many(&row).map_err(|e| failed(&e))?;
        gst::Element::link_many(&row).map_err(|e| failed(&e))?;
        watch_decoder(&decoder, probes.decoded, probes.size, probes.dark);
        watch_entrance(&entrance, probes.keyframe);
        watch_jitter_buffer(&row[1], probes.put);
        pipeline.add(&bin).map_err(|e| failed(&e))?;
        if let Err(error) = bin.sync_state_with_parent() {
            let _ = bin.set_state(gst::State::Null);
            let _ = pipeline.remove(&bin);
            return Err(failed(&error));
        }
        Ok(Self { payload_type, codec, entrance, sink: row.pop(), bin })
    }

    pub(super) fn serves(&self, payload_type: u8, codec: Codec) -> bool {
        (self.payload_type, self.codec) == (payload_type, codec)
    }

    /// Holds everything back by so many nanoseconds beyond its latency, from the next buffer on.
    pub(super) fn hold_back(&self, nanos: i64) {
        if let Some(sink) = &self.sink {
            sink.set_property("ts-offset", nanos);
        }
    }

    /// Never waits: a full entrance drops its oldest packet.
    pub(super) fn push(&self, packet: Bytes) {
        if let Err(error) = self.entrance.push_buffer(gst::Buffer::from_slice(packet)) {
            tracing::trace!(%error, "a packet was not taken");
        }
    }

    /// Takes the branch out of a playing pipeline, on a thread of its own.
    pub(super) fn remove(self, pipeline: &gst::Pipeline) {
        let (bin, pipeline) = (self.bin, pipeline.clone());
        std::thread::spawn(move || {
            bin.set_locked_state(true);
            let _ = bin.set_state(gst::State::Null);
            let _ = pipeline.remove(&bin);
        });
    }
}

fn entrance(payload_type: u8, codec: Codec, fmtp: &str) -> gst_app::AppSrc {
    let mut caps = gst::Caps::builder("application/x-rtp")
        .field("media", codec.kind().as_str())
        .field("encoding-name", codec.name().to_ascii_uppercase())
        .field("clock-rate", codec.clock_rate() as i32)
        .field("payload", i32::from(payload_type));
    // A sender may give its parameter sets only here (RFC 6184, section 8.2.2).
    if let (Codec::H264, Some(sets)) = (codec, parameter_sets(fmtp)) {
        caps = caps.field("sprop-parameter-sets", sets);
    }
    gst_app::AppSrc::builder()
        .caps(&caps.build())
        .format(gst::Format::Time)
        .is_live(true)
        .do_timestamp(true)
        .stream_type(gst_app::AppStreamType::Stream)
        .max_buffers(ENTRANCE_PACKETS)
        .max_bytes(0)
        .leaky_type(gst_app::AppLeakyType::Downstream)
        .build()
}

fn parameter_sets(fmtp: &str) -> Option<&str> {
    let sets = fmtp.split(';').find_map(|pair| pair.trim().strip_prefix("sprop-parameter-sets="))?;
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=,".contains(&b);
    (!sets.is_empty() && sets.bytes().all(base64)).then_some(sets)
}

fn jitter_buffer(codec: Codec, settings: &GuestSettings) -> Result<gst::Element, PipelineError> {
    let latency = match codec.kind() {
        MediaKind::Video => settings.video_latency,
        MediaKind::Audio => settings.audio_latency,
    };
    let buffer = elements::make("rtpjitterbuffer")?;
    buffer.set_property("latency", u32::try_from(latency.as_millis()).unwrap_or(u32::MAX));
    buffer.set_property("drop-on-latency", true);
    // The peer owns retransmission; here a lost packet is only announced, for concealment and key frames.
    buffer.set_property("do-retransmission", false);
    buffer.set_property("do-lost", true);
    // The first packet of a session is its first: nothing before it is worth a wait.
    buffer.set_property("faststart-min-packets", 1u32);
    Ok(buffer)
}

fn depay(name: &str) -> Result<gst::Element, PipelineError> {
    let depay = elements::make(name)?;
    depay.set_property("wait-for-keyframe", true);
    depay.set_property("request-keyframe", true);
    Ok(depay)
}

/// Where buffers wait until the feed's sink is ready for them. Without it they would wait in the jitter buffer, which drops what
/// is older than its own latency, and the sinks of both kinds wait for the longer of the two.
fn waiting_room() -> Result<gst::Element, PipelineError> {
    let queue = elements::make("queue")?;
    queue.set_property("max-size-buffers", 0u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", WAITING_ROOM);
    Ok(queue)
}

/// The first decoder of the codec that this machine has; hardware before software.
fn decoder(codec: Codec, settings: &GuestSettings) -> Result<gst::Element, PipelineError> {
    let names: &[&str] = match codec {
        Codec::H264 => &["mppvideodec", "avdec_h264", "openh264dec"],
        Codec::Vp8 => &["mppvideodec", "vp8dec"],
        Codec::Opus => &["opusdec"],
    };
    let name = names.iter().find(|name| gst::ElementFactory::find(name).is_some());
    let name = name.or(names.last()).copied().unwrap_or_default();
    let decoder = elements::make(name)?;
    // A stranger's stream may be broken for as long as it likes: that is no error of the pipeline.
    set_if_there(&decoder, "max-errors", -1i32);
    set_if_there(&decoder, "automatic-request-sync-points", true);
    set_if_there(&decoder, "discard-corrupted-frames", true);
    match name {
        "opusdec" => {
            decoder.set_property("plc", true);
            // Only where it costs nothing, because the picture waits as long.
            let free = settings.video_latency >= settings.audio_latency + FEC_LATENCY;
            decoder.set_property("use-inband-fec", free);
        }
        // More threads decode whole frames side by side, and hold back one frame each.
        "avdec_h264" => set_if_there(&decoder, "max-threads", 1i32),
        _ => {}
    }
    Ok(decoder)
}

fn set_if_there(element: &gst::Element, name: &str, value: impl Into<gst::glib::Value>) {
    if element.has_property(name) {
        element.set_property_from_value(name, &value.into());
    }
}

fn to_pictures(feed: &Feed) -> Result<Vec<gst::Element>, PipelineError> {
    let convert = elements::make("videoconvertscale")?;
    // The guest's shape is kept; a telephone held upright gets bars at its sides.
    convert.set_property("add-borders", true);
    let rate = elements::make("videorate")?;
    rate.set_property("skip-to-first", true);
    rate.set_property("max-duplication-time", FILL_GAPS);
    Ok(vec![convert, rate, filter(&feed.mode().video_caps())?, feed.video_sink().upcast()])
}

fn to_sound(feed: &Feed) -> Result<Vec<gst::Element>, PipelineError> {
    let (convert, resample) = (elements::make("audioconvert")?, elements::make("audioresample")?);
    Ok(vec![convert, resample, filter(&audio_caps())?, feed.audio_sink().upcast()])
}

fn filter(caps: &gst::Caps) -> Result<gst::Element, PipelineError> {
    let filter = elements::make("capsfilter")?;
    filter.set_property("caps", caps);
    Ok(filter)
}

fn watch_decoder(
    decoder: &gst::Element,
    decoded: Box<dyn Fn() + Send + Sync>,
    size: Box<dyn Fn(u32, u32) + Send + Sync>,
    dark: Box<dyn Fn(bool) + Send + Sync>,
) {
    let Some(pad) = decoder.static_pad("src") else { return };
    let (format, count) = (Mutex::new(None), AtomicU64::new(0));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                decoded();
                if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_AT)
                    && let Some(format) = format.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
                    && let Some(black) = looks_black(buffer, format)
                {
                    dark(black);
                }
            }
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Caps(caps) = event.view()
                    && caps.caps().structure(0).is_some_and(|s| s.name() == "video/x-raw")
                    && let Ok(video) = gst_video::VideoInfo::from_caps(caps.caps())
                {
                    size(video.width(), video.height());
                    *format.lock().unwrap_or_else(PoisonError::into_inner) = Some(video);
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

/// Whether a picture is black all over; `None` where its luma is not a plane of bytes.
fn looks_black(buffer: &gst::Buffer, format: &gst_video::VideoInfo) -> Option<bool> {
    if !format.format_info().is_yuv() || format.comp_depth(0) != 8 || format.comp_pstride(0) != 1 {
        return None;
    }
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, format).ok()?;
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    Some(stats::is_black(frame.plane_data(0).ok()?, frame.plane_stride()[0].unsigned_abs() as usize, width, height))
}

fn watch_jitter_buffer(buffer: &gst::Element, put: Box<dyn Fn(u32, u64) + Send + Sync>) {
    let Some(pad) = buffer.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(packet) = info.buffer()
            && let Some(at) = packet.pts()
            && let Ok(bytes) = packet.map_readable()
            && let Some(stamp) = stats::timestamp(&bytes)
        {
            put(stamp, at.nseconds());
        }
        gst::PadProbeReturn::Ok
    });
}

fn watch_entrance(entrance: &gst_app::AppSrc, keyframe: Box<dyn Fn() + Send + Sync>) {
    let Some(pad) = entrance.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if let Some(gst::PadProbeData::Event(event)) = &info.data
            && gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok()
        {
            keyframe();
        }
        gst::PadProbeReturn::Ok
    });
}
