//! One encoded stream, many viewers: RTP packets handed out without copying.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast;

/// Packets that a slow viewer may lag behind before it loses some: about two seconds at 2.5 Mbit/s.
const CAPACITY: usize = 1024;

/// Key frames are asked of the encoder at most this often, however many viewers ask.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// RTP payload type of the H.264 packets. A peer rewrites it to what it negotiated.
pub const VIDEO_PAYLOAD_TYPE: u8 = 96;
/// RTP payload type of the Opus packets. A peer rewrites it to what it negotiated.
pub const AUDIO_PAYLOAD_TYPE: u8 = 111;

type KeyframeHook = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Keyframes {
    hook: Option<KeyframeHook>,
    last: Option<Instant>,
}

struct Inner {
    video: broadcast::Sender<Bytes>,
    audio: broadcast::Sender<Bytes>,
    keyframes: Mutex<Keyframes>,
    video_packets: AtomicU64,
    audio_packets: AtomicU64,
}

/// The encoded programme (or one input) as RTP: H.264 constrained baseline in packetization mode 1 at 90 kHz, Opus at 48 kHz.
///
/// Cheap to clone. Publishing never waits: a viewer that does not keep up sees `RecvError::Lagged`.
#[derive(Clone)]
pub struct RtpFanout {
    inner: Arc<Inner>,
}

impl Default for RtpFanout {
    fn default() -> Self {
        Self::new()
    }
}

impl RtpFanout {
    /// A fan-out without a source yet.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                video: broadcast::Sender::new(CAPACITY),
                audio: broadcast::Sender::new(CAPACITY),
                keyframes: Mutex::default(),
                video_packets: AtomicU64::new(0),
                audio_packets: AtomicU64::new(0),
            }),
        }
    }

    /// One whole RTP packet of H.264 at a time.
    pub fn subscribe_video(&self) -> broadcast::Receiver<Bytes> {
        self.inner.video.subscribe()
    }

    /// One whole RTP packet of Opus at a time.
    pub fn subscribe_audio(&self) -> broadcast::Receiver<Bytes> {
        self.inner.audio.subscribe()
    }

    /// How many subscribers the video has now.
    pub fn viewers(&self) -> usize {
        self.inner.video.receiver_count()
    }

    /// Packets published so far: video, audio.
    pub fn packets(&self) -> (u64, u64) {
        (self.inner.video_packets.load(Ordering::Relaxed), self.inner.audio_packets.load(Ordering::Relaxed))
    }

    /// Asks the encoder for a key frame. Requests within half a second of the last one are merged into it.
    pub fn request_keyframe(&self) {
        let mut keyframes = self.inner.keyframes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if keyframes.last.is_some_and(|last| now.duration_since(last) < KEYFRAME_INTERVAL) {
            return;
        }
        if let Some(hook) = &keyframes.hook {
            hook();
            keyframes.last = Some(now);
        }
    }

    /// Sets what `request_keyframe` does. The encoder's owner calls it.
    pub fn on_keyframe_request(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.inner.keyframes.lock().unwrap_or_else(PoisonError::into_inner).hook = Some(Box::new(hook));
    }

    /// Hands one RTP packet of H.264 to all viewers.
    pub fn publish_video(&self, packet: Bytes) {
        self.inner.video_packets.fetch_add(1, Ordering::Relaxed);
        // No viewers is not an error.
        let _ = self.inner.video.send(packet);
    }

    /// Hands one RTP packet of Opus to all viewers.
    pub fn publish_audio(&self, packet: Bytes) {
        self.inner.audio_packets.fetch_add(1, Ordering::Relaxed);
        let _ = self.inner.audio.send(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_viewers_asking_at_once_cost_one_key_frame() {
        let fanout = RtpFanout::new();
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        fanout.on_keyframe_request(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for _ in 0..20 {
            fanout.request_keyframe();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_viewer_that_sleeps_loses_packets_and_stops_nobody() {
        let fanout = RtpFanout::new();
        let mut sleepy = fanout.subscribe_video();
        for n in 0..CAPACITY + 10 {
            fanout.publish_video(Bytes::from(vec![n as u8]));
        }
        assert!(matches!(sleepy.try_recv(), Err(broadcast::error::TryRecvError::Lagged(10))));
        assert_eq!(fanout.packets().0, CAPACITY as u64 + 10);
    }
}
