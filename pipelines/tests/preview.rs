//! An input is encoded while somebody watches it.

mod support;

use r58_pipelines::preview::{PREVIEW_KBPS, preview_mode};
use r58_pipelines::{PreviewEncoder, choose_encoder};
use support::{MODE, colour};

#[test]
fn a_preview_delivers_packets_and_ends_without_touching_its_input() {
    r58_pipelines::init().unwrap();
    let input = colour("cam1", "smpte", 440.0);
    let encoder = choose_encoder(&MODE).unwrap();
    let preview = PreviewEncoder::start(&input.feed(), &preview_mode(&MODE), &encoder, PREVIEW_KBPS).unwrap();
    let rtp = preview.rtp();
    let (mut video, mut audio) = (rtp.subscribe_video(), rtp.subscribe_audio());
    assert_eq!(video.blocking_recv().unwrap()[0] >> 6, 2);
    assert_eq!(audio.blocking_recv().unwrap()[0] >> 6, 2);
    preview.stop();
    support::wait_frames(&input.feed(), 5);
    assert!(input.stop());
}
