//! A clap at every full second from the first picture on: a flash, and a tone, in streams that are encoded apart.

use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

use super::{OPUS, Stream, VP8};

/// How long a clap lasts (nanoseconds).
const LENGTH: u64 = 200_000_000;
const SECOND: u64 = 1_000_000_000;
/// When the first picture was taken, in nanoseconds of the shared clock; 0 before. Claps begin with a picture, because a flash
/// that has to wait for one would be late by up to a thirtieth of a second.
static FIRST: AtomicU64 = AtomicU64::new(0);

pub const CLAP_VP8: Stream = Stream {
    launch: "videotestsrc is-live=true pattern=black ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! \
             identity name=clap ! vp8enc deadline=1 cpu-used=8 ! rtpvp8pay mtu=1200 picture-id-mode=2",
    ..VP8
};

pub const CLAP_OPUS: Stream = Stream {
    launch: "audiotestsrc is-live=true wave=silence samplesperbuffer=480 ! \
             audio/x-raw,format=S16LE,rate=48000,channels=2,layout=interleaved ! identity name=clap ! opusenc frame-size=10 ! \
             rtpopuspay pt=111",
    ..OPUS
};

/// Paints flashes and tones into what passes an element of that name.
pub fn paint(pipeline: &gst::Pipeline) {
    let Some(element) = pipeline.by_name("clap") else { return };
    let weak = pipeline.downgrade();
    element.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let base = weak.upgrade().and_then(|pipeline| pipeline.base_time()).unwrap().nseconds();
        let is_sound = pad.current_caps().unwrap().structure(0).unwrap().name() == "audio/x-raw";
        let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else { return gst::PadProbeReturn::Ok };
        let at = base + buffer.pts().unwrap().nseconds();
        let mut map = buffer.make_mut().map_writable().unwrap();
        if is_sound {
            let first = FIRST.load(Ordering::Relaxed);
            for (n, frame) in map.chunks_exact_mut(4).enumerate() {
                let at = at + n as u64 * SECOND / 48_000;
                let clap = first > 0 && at >= first && (at - first) % SECOND < LENGTH;
                let value = if clap { (at as f64 / 1e9 * 880.0 * std::f64::consts::TAU).sin() } else { 0.0 };
                let bytes = ((value * 16_000.0) as i16).to_le_bytes();
                frame.copy_from_slice(&[bytes[0], bytes[1], bytes[0], bytes[1]]);
            }
        } else {
            let first =
                FIRST.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|first| first, |_| at);
            // Times of pictures are rounded to nanoseconds.
            if (at + 1_000 - first) % SECOND < LENGTH {
                map[..320 * 180].fill(235);
            }
        }
        drop(map);
        gst::PadProbeReturn::Ok
    });
}
