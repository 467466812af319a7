//! One encoded stream, many viewers: RTP packets handed out without copying, and whole pictures for those who package them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::sdp::MediaKind;

/// Packets that a slow viewer may lag behind before it loses some: about two seconds at 2.5 Mbit/s.
const CAPACITY: usize = 1024;

/// Key frames are asked of the encoder at most this often, however many viewers ask.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// RTP payload type of the H.264 packets. A peer rewrites it to what it negotiated.
pub const VIDEO_PAYLOAD_TYPE: u8 = 96;
/// RTP payload type of the Opus packets. A peer rewrites it to what it negotiated.
pub const AUDIO_PAYLOAD_TYPE: u8 = 111;

type KeyframeHook = Box<dyn Fn() + Send + Sync>;

/// One encoded picture or block of sound, before it is cut into packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodedUnit {
    /// An access unit of H.264 as a byte stream (Annex B), or an Opus packet.
    pub kind: MediaKind,
    /// When it is shown or heard, in nanoseconds of the encoding pipeline's running time.
    pub at: u64,
    /// How long, in nanoseconds; 0 when the encoder does not say.
    pub duration: u64,
    /// Whether a decoder can begin here.
    pub keyframe: bool,
    /// The bytes.
    pub data: Bytes,
}

type TakeUnit = dyn Fn(CodedUnit) + Send + Sync;

/// Takes encoded units for as long as it is kept.
pub struct CodedTap {
    _take: Arc<TakeUnit>,
}

#[derive(Default)]
struct Keyframes {
    hook: Option<KeyframeHook>,
    last: Option<Instant>,
}

struct Inner {
    video: broadcast::Sender<Bytes>,
    audio: broadcast::Sender<Bytes>,
    keyframes: Mutex<Keyframes>,
    taps: Mutex<Vec<Weak<TakeUnit>>>,
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
                taps: Mutex::default(),
                video_packets: AtomicU64::new(0),
                audio_packets: AtomicU64::new(0),
            }),
        }
    }

    /// The same pictures, with sound that its owner publishes: a guest's return feed. Nobody else's sound comes through it.
    pub fn with_other_sound(&self) -> Self {
        let other = Self {
            inner: Arc::new(Inner {
                video: self.inner.video.clone(),
                audio: broadcast::Sender::new(CAPACITY),
                keyframes: Mutex::default(),
                taps: Mutex::default(),
                video_packets: AtomicU64::new(0),
                audio_packets: AtomicU64::new(0),
            }),
        };
        let pictures = self.clone();
        other.on_keyframe_request(move || pictures.request_keyframe());
        other
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

    /// Whether both are the same fan-out, and so of the same encoder.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Hands encoded units to `take`, on the encoder's own threads: it must not block.
    pub fn tap(&self, take: impl Fn(CodedUnit) + Send + Sync + 'static) -> CodedTap {
        let take: Arc<TakeUnit> = Arc::new(take);
        self.inner.taps.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&take));
        CodedTap { _take: take }
    }

    /// Hands one encoded unit to all taps; `unit` is only made when there are any.
    pub fn publish_unit(&self, unit: impl FnOnce() -> Option<CodedUnit>) {
        let taps: Vec<_> = {
            let mut taps = self.inner.taps.lock().unwrap_or_else(PoisonError::into_inner);
            taps.retain(|tap| tap.strong_count() > 0);
            taps.iter().filter_map(Weak::upgrade).collect()
        };
        let Some((last, others)) = taps.split_last() else { return };
        let Some(unit) = unit() else { return };
        for tap in others {
            tap(unit.clone());
        }
        last(unit);
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
    fn a_tap_gets_units_for_as_long_as_it_is_kept() {
        let fanout = RtpFanout::new();
        let unit = || {
            let (data, kind) = (Bytes::from_static(b"au"), MediaKind::Video);
            Some(CodedUnit { kind, at: 0, duration: 0, keyframe: true, data })
        };
        fanout.publish_unit(|| unreachable!("nobody wants it"));
        let taken = Arc::new(AtomicU64::new(0));
        let count = taken.clone();
        let tap = fanout.tap(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        fanout.publish_unit(unit);
        drop(tap);
        fanout.publish_unit(|| unreachable!("nobody wants it any more"));
        assert_eq!(taken.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn another_sound_comes_with_the_same_pictures_and_the_same_key_frames() {
        let (programme, asked) = (RtpFanout::new(), Arc::new(AtomicU64::new(0)));
        let count = asked.clone();
        programme.on_keyframe_request(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let other = programme.with_other_sound();
        let (mut pictures, mut sound) = (other.subscribe_video(), other.subscribe_audio());
        programme.publish_video(Bytes::from_static(b"picture"));
        programme.publish_audio(Bytes::from_static(b"everyone"));
        other.publish_audio(Bytes::from_static(b"the others"));
        other.request_keyframe();
        assert_eq!(pictures.try_recv().unwrap(), "picture");
        assert_eq!(sound.try_recv().unwrap(), "the others");
        assert!(sound.try_recv().is_err());
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
