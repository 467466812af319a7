//! HLS of a real encoder: what a playlist names decodes, sound and pictures, without a gap.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use r58_pipelines::hls::{HlsRefusal, PATIENCE};
use r58_pipelines::preview::{PREVIEW_KBPS, preview_mode};
use r58_pipelines::{HlsStream, PreviewEncoder, RtpFanout, choose_encoder};
use support::{MODE, colour};

const LIMIT: Duration = Duration::from_secs(20);

/// The value after `key`, up to a quote, comma or end of line, of every line that has it.
fn values<'a>(text: &'a str, key: &'a str) -> Vec<&'a str> {
    let ends = |c| matches!(c, '"' | ',' | '\n');
    text.split(key).skip(1).map(move |rest| rest.split(ends).next().unwrap_or_default()).collect()
}

fn number(text: &str, key: &str) -> u64 {
    values(text, key)[0].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_and_parts_of_a_watched_input_decode_and_reloads_wait_for_news() {
    r58_pipelines::init().unwrap();
    let input = colour("cam1", "smpte", 440.0);
    let (encoder, mode) = (choose_encoder(&MODE).unwrap(), preview_mode(&MODE));
    let preview = PreviewEncoder::start(&input.feed(), &mode, &encoder, PREVIEW_KBPS).unwrap();
    let stream = HlsStream::start(&preview.rtp(), &mode);
    let begun = Instant::now();
    let first = stream.playlist(None, None, "").await.unwrap();
    println!("the first playlist came after {:?}", begun.elapsed());
    let init = values(&first, "MAP:URI=\"")[0];
    let (mut bytes, mut text) = (stream.file(init).await.unwrap().concat(), first);
    let mut segment = number(&text, "MEDIA-SEQUENCE:");
    let mut lengths = 0.0;
    for _ in 0..3 {
        while !text.contains(&format!("segment-{segment}.m4s")) {
            text = stream.playlist(Some(segment), None, "").await.unwrap();
        }
        let pieces = stream.file(&format!("segment-{segment}.m4s")).await.unwrap();
        bytes.extend(pieces.concat());
        let before = text.split(&format!("\nsegment-{segment}.m4s")).next().unwrap();
        lengths += values(before, "#EXTINF:").last().unwrap().parse::<f64>().unwrap();
        segment += 1;
    }
    // The part that is hinted at is waited for, and the next playlist lists it.
    let hint = values(&text, "PRELOAD-HINT:TYPE=PART,URI=\"")[0].to_owned();
    let open = text.rsplit(".m4s\n").next().unwrap_or_default().matches("#EXT-X-PART:").count() as u64;
    let (part, reloaded) = tokio::join!(stream.file(&hint), stream.playlist(Some(segment), Some(open), ""));
    assert!(!part.unwrap().concat().is_empty());
    assert!(reloaded.unwrap().contains(&hint));
    let (pictures, samples) = decode(&bytes);
    println!("{lengths:.2} s of segments: {pictures} pictures, {samples} samples of sound");
    let expected = (lengths * mode.fps()).round() as i64;
    assert!((pictures as i64 - expected).abs() <= 1, "{pictures} of {expected}");
    assert!((samples as f64 / 48_000.0 - lengths).abs() < 0.1, "{samples} samples in {lengths} s");
    assert_eq!(stream.file("part-1.m4s").await.unwrap_err(), HlsRefusal::Unknown);
    assert_eq!(stream.file("../../etc/passwd").await.unwrap_err(), HlsRefusal::Unknown);
    assert_eq!(stream.playlist(Some(u64::MAX), None, "").await.unwrap_err(), HlsRefusal::Unreasonable);
    preview.stop();
    assert!(input.stop());
}

#[tokio::test]
async fn a_stream_that_does_not_go_on_answers_after_three_target_durations() {
    let stream = HlsStream::start(&RtpFanout::new(), &MODE);
    let begun = Instant::now();
    assert_eq!(stream.playlist(None, None, "").await.unwrap_err(), HlsRefusal::TimedOut);
    assert!(
        begun.elapsed() >= PATIENCE && begun.elapsed() < PATIENCE + Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

/// Counts pictures and samples that GStreamer's own demuxer and decoders find.
fn decode(bytes: &[u8]) -> (u64, u64) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let line = format!(
        "filesrc location={} ! qtdemux name=d d.video_0 ! queue ! h264parse ! avdec_h264 ! fakesink name=v sync=false \
         d.audio_0 ! queue ! opusdec ! fakesink name=a sync=false",
        file.path().display()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let count = |name: &str, measure: fn(&gst::BufferRef) -> u64| {
        let counter = Arc::new(AtomicU64::new(0));
        let pad = pipeline.by_name(name).unwrap().static_pad("sink").unwrap();
        let add = counter.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            add.fetch_add(measure(info.buffer().unwrap()), Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        counter
    };
    let (pictures, sound) = (count("v", |_| 1), count("a", |buffer| buffer.size() as u64 / 4));
    pipeline.set_state(gst::State::Playing).unwrap();
    let limit = gst::ClockTime::from_seconds(LIMIT.as_secs());
    let end = pipeline.bus().unwrap().timed_pop_filtered(limit, &[gst::MessageType::Eos, gst::MessageType::Error]);
    let end = end.expect("an end");
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    (pictures.load(Ordering::Relaxed), sound.load(Ordering::Relaxed))
}
