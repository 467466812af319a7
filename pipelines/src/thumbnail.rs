//! Small JPEG pictures of a stream, one a second, at no cost in between.
//!
//! Nothing hangs on the live path: a picture that is due is handed to a little pipeline of its own (scale, encode) that holds
//! one picture and drops the rest.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;

use crate::clock;
use crate::elements::{add_linked, make};
use crate::error::PipelineError;
use crate::feed::FeedConsumer;
use crate::mode::Mode;
use crate::teardown;

/// Width of a thumbnail in pixels.
pub const WIDTH: i32 = 320;
/// Height of a thumbnail in pixels.
pub const HEIGHT: i32 = 180;
/// JPEG quality, 0..=100, of a picture of usual detail.
const QUALITY: i32 = 70;
/// Lowest quality; a picture of noise has some 11 KiB then (measured).
const LOWEST_QUALITY: i32 = 10;
/// What the fleet's link carries at the most, in bytes.
const MOST_BYTES: usize = 16 * 1024;

/// Quality for the next picture, after one of `bytes` at `quality`: a picture rich in detail gets less until it fits, and more
/// again when there is room.
fn next_quality(quality: i32, bytes: usize) -> i32 {
    match bytes {
        _ if bytes > MOST_BYTES => (quality - 15).max(LOWEST_QUALITY),
        _ if bytes < MOST_BYTES / 2 => (quality + 5).min(QUALITY),
        _ => quality,
    }
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// JPEG, 320 by 180.
    pub jpeg: Bytes,
    /// Counts up from 1 with every new picture.
    pub seq: u64,
}

struct Inner {
    source: gst_app::AppSrc,
    pipeline: gst::Pipeline,
    latest: Mutex<Option<Thumbnail>>,
    due: Mutex<Due>,
    seq: AtomicU64,
}

struct Due {
    interval: Duration,
    last: Option<Instant>,
}

/// The latest small picture of one stream. Cheap to clone.
#[derive(Clone)]
pub struct Thumbnails {
    inner: Arc<Inner>,
}

impl Thumbnails {
    /// A maker of thumbnails for pictures in `mode`.
    ///
    /// # Errors
    /// `MissingElements`, or `Failed` when its pipeline does not start.
    pub fn start(name: &str, mode: &Mode) -> Result<Self, PipelineError> {
        let pipeline = gst::Pipeline::with_name(&format!("thumbnail-{name}"));
        clock::adopt(&pipeline);
        let source = gst_app::AppSrc::builder()
            .caps(&mode.video_caps())
            .format(gst::Format::Time)
            .is_live(true)
            .max_buffers(1)
            .leaky_type(gst_app::AppLeakyType::Downstream)
            .build();
        let scale = make("videoconvertscale")?;
        scale.set_property_from_str("method", "bilinear");
        // Full range and the matrix of BT.601: what a JPEG means by its samples (JFIF). The encoder would not say otherwise.
        let small = gst::Caps::builder("video/x-raw")
            .field("width", WIDTH)
            .field("height", HEIGHT)
            .field("colorimetry", "1:4:0:0")
            .build();
        let filter = make("capsfilter")?;
        filter.set_property("caps", &small);
        let encode = make("jpegenc")?;
        encode.set_property("quality", QUALITY);
        let sink = gst_app::AppSink::builder().sync(false).async_(false).max_buffers(1).drop(true).build();
        add_linked(&pipeline, &[source.upcast_ref(), &scale, &filter, &encode, sink.upcast_ref()])?;
        let thumbnails = Self {
            inner: Arc::new(Inner {
                source,
                pipeline: pipeline.clone(),
                latest: Mutex::new(None),
                due: Mutex::new(Due { interval: Duration::from_secs(1), last: None }),
                seq: AtomicU64::new(0),
            }),
        };
        let weak = Arc::downgrade(&thumbnails.inner);
        let quality = AtomicI32::new(QUALITY);
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let inner = weak.upgrade().ok_or(gst::FlowError::Eos)?;
                    if let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                        let (now, bytes) = (quality.load(Ordering::Relaxed), map.len());
                        let next = next_quality(now, bytes);
                        if next != now {
                            quality.store(next, Ordering::Relaxed);
                            encode.set_property("quality", next);
                        }
                        let seq = inner.seq.fetch_add(1, Ordering::Relaxed) + 1;
                        let jpeg = Bytes::copy_from_slice(map.as_slice());
                        *lock(&inner.latest) = Some(Thumbnail { jpeg, seq });
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        pipeline.set_state(gst::State::Playing).map_err(|error| PipelineError::failed(&pipeline.name(), error))?;
        Ok(thumbnails)
    }

    /// The newest picture, if there was one yet.
    pub fn latest(&self) -> Option<Thumbnail> {
        lock(&self.inner.latest).clone()
    }

    /// How often a picture is made. The governor makes it longer when the box is short of power.
    pub fn set_interval(&self, interval: Duration) {
        lock(&self.inner.due).interval = interval;
    }

    /// Offers a picture; it is taken when one is due. Never waits.
    pub fn offer(&self, picture: &gst::Buffer) {
        let now = Instant::now();
        {
            let mut due = lock(&self.inner.due);
            if due.last.is_some_and(|last| now.duration_since(last) < due.interval) {
                return;
            }
            due.last = Some(now);
        }
        self.push(picture);
    }

    /// Offers a picture that must not be missed, such as a slate that is shown once. The next one offered takes its place at
    /// once: a slate must not outlive the gap that it explains.
    pub fn offer_now(&self, picture: &gst::Buffer) {
        lock(&self.inner.due).last = None;
        self.push(picture);
    }

    fn push(&self, picture: &gst::Buffer) {
        let mut picture = picture.copy();
        if let Some(buffer) = picture.get_mut() {
            buffer.set_pts(gst::ClockTime::ZERO);
            buffer.set_dts(None);
        }
        // A full queue or a stopped pipeline costs one thumbnail.
        let _ = self.inner.source.push_buffer(picture);
    }
}

impl FeedConsumer for Thumbnails {
    fn video(&self, _at: u64, picture: &gst::Buffer) {
        self.offer(picture);
    }

    fn audio(&self, _at: u64, _sound: &gst::Buffer) {}
}

impl Drop for Inner {
    fn drop(&mut self) {
        teardown::dismantle_in_background(self.pipeline.clone(), ());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settles(bytes_at: impl Fn(i32) -> usize) -> i32 {
        (0..50).fold(QUALITY, |quality, _| next_quality(quality, bytes_at(quality)))
    }

    #[test]
    fn a_picture_that_is_too_large_gets_smaller_until_it_fits() {
        let detailed = |quality: i32| quality as usize * 400;
        assert!(detailed(settles(detailed)) <= MOST_BYTES);
        assert_eq!(settles(|_| 100_000), LOWEST_QUALITY);
    }

    #[test]
    fn quality_comes_back_with_room() {
        assert_eq!(settles(|_| 4_000), QUALITY);
        assert_eq!(next_quality(LOWEST_QUALITY, 4_000), LOWEST_QUALITY + 5);
    }

    fn reaches(thumbnails: &Thumbnails, seq: u64) {
        let begin = Instant::now();
        while thumbnails.latest().is_none_or(|latest| latest.seq < seq) {
            assert!(begin.elapsed() < Duration::from_secs(20), "no thumbnail {seq}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_slate_is_shown_between_two_pictures_and_gives_way_to_the_next() {
        crate::elements::init().unwrap();
        let mode = Mode { width: 160, height: 90, ..Mode::default() };
        let thumbnails = Thumbnails::start("test", &mode).unwrap();
        thumbnails.set_interval(Duration::from_secs(3600));
        let picture = gst::Buffer::from_slice(vec![128u8; 160 * 90 * 3 / 2]);
        thumbnails.offer(&picture);
        reaches(&thumbnails, 1);
        thumbnails.offer_now(&picture);
        reaches(&thumbnails, 2);
        thumbnails.offer(&picture);
        reaches(&thumbnails, 3);
        assert!(lock(&thumbnails.inner.due).last.is_some(), "the one after that waits for its time");
    }
}
