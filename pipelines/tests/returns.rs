//! The return feed of a guest: the programme's pictures, and its sound without the guest's own.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;
mod support;
#[path = "support/tone.rs"]
mod tone;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::mode::Mode;
use r58_pipelines::sdp::{CheckedOffer, MediaKind, Purpose};
use r58_pipelines::{RtpFanout, encoder};
use rtc_support::*;
use support::{Stage, colour};
use tone::amplitude;

/// Decodes a fan-out's sound.
async fn listen(fanout: &RtpFanout) -> (GuestPipeline, Arc<support::Cell<VecDeque<i16>>>, r58_pipelines::FeedLink) {
    let feed = Feed::new("ear", &Mode::new(320, 180, 30));
    let ear = GuestPipeline::start("ear", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let client = Client::open(&[OPUS], &[], false).await;
    client.receive(&[OPUS]).await;
    let offer = CheckedOffer::parse(&client.offer().await, Purpose::View).unwrap();
    client.close().await;
    let (sink, payload_type) = (ear.sink(), offer.media[0].codecs[0].payload_type);
    sink.negotiated(&offer);
    let mut packets = fanout.subscribe_audio();
    tokio::spawn(async move {
        while let Ok(packet) = packets.recv().await {
            // As a viewer's track does: the number that its client knows.
            let mut packet = packet.to_vec();
            packet[1] = (packet[1] & 0x80) | payload_type;
            sink.rtp(MediaKind::Audio, payload_type, packet.into());
        }
    });
    let heard = support::Cell::new(VecDeque::new());
    let link = feed.subscribe(Arc::new(Drum(heard.clone())));
    (ear, heard, link)
}

struct Drum(Arc<support::Cell<VecDeque<i16>>>);

impl r58_pipelines::FeedConsumer for Drum {
    fn video(&self, _at: u64, _picture: &gst::Buffer) {}

    fn audio(&self, _at: u64, sound: &gst::Buffer) {
        let map = sound.map_readable().unwrap();
        self.0.update(|heard| {
            heard.extend(map.chunks_exact(4).map(|frame| i16::from_le_bytes([frame[0], frame[1]])));
            let surplus = heard.len().saturating_sub(24_000);
            heard.drain(..surplus);
        });
    }
}

fn tones(heard: &support::Cell<VecDeque<i16>>) -> [f64; 3] {
    heard.peek(|samples| match samples.len() {
        24_000 => TONES.map(|hz| amplitude(samples, hz)),
        _ => [0.0; 3],
    })
}

const TONES: [f64; 3] = [300.0, 700.0, 1100.0];

/// Processor time of this process so far: fields 14 and 15 of its line, in hundredths of a second.
fn spent() -> Duration {
    let line = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = line.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_hears_everyone_on_the_programme_but_itself() {
    let choice = encoder::choose_encoder(&support::MODE).unwrap();
    let stage = Stage::with(3, Some(choice));
    let inputs: Vec<_> = TONES.iter().zip(1..).map(|(hz, n)| colour(&format!("cam{n}"), "smpte", *hz)).collect();
    for (input, n) in inputs.iter().zip(1..) {
        stage.programme.attach(&format!("cam{n}"), &input.feed()).unwrap();
    }
    stage.cut("three-up");
    let fanout = stage.programme.return_mix("cam2").unwrap();
    let (ear, heard, _link) = listen(&fanout.rtp()).await;
    let begun = Instant::now();
    let is = |found: [f64; 3], wanted: [bool; 3]| {
        found.iter().zip(wanted).all(|(loud, wanted)| if wanted { *loud > 0.03 } else { *loud < 0.001 })
    };
    let wait = async |what: &str, wanted: [bool; 3]| {
        let begun = Instant::now();
        while !is(tones(&heard), wanted) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?} in {} samples", tones(&heard), heard.peek(VecDeque::len));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{what}: {:?}", tones(&heard));
    };
    wait("the others", [true, false, true]).await;
    println!("after {:?}", begun.elapsed());
    // Whoever is not on air is not heard by the guest either.
    stage.cut("full-cam2");
    wait("alone on air", [false, false, false]).await;
    stage.cut("full-cam3");
    wait("one other", [false, false, true]).await;
    // The pictures are the programme's own packets.
    let mut pictures = fanout.rtp().subscribe_video();
    let mut programme = stage.programme.rtp().subscribe_video();
    assert_eq!(pictures.recv().await.unwrap(), programme.recv().await.unwrap());

    // What one more return feed costs: measured, not judged, on a machine that does other things too.
    ear.stop();
    let cost = async || {
        let (before, span) = (spent(), Duration::from_secs(2));
        tokio::time::sleep(span).await;
        (spent() - before).as_secs_f64() / span.as_secs_f64()
    };
    let one = cost().await;
    let more: Vec<_> = (0..4).map(|_| stage.programme.return_mix("cam1").unwrap()).collect();
    let five = cost().await;
    println!("a return feed costs {:.4} cores", (five - one) / 4.0);
    drop(more);
    drop(fanout);
    stage.assert_every_slot();
    assert!(stage.programme.return_mix("cam7").is_err());
}
