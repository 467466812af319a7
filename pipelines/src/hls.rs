//! Low-latency HLS (RFC 8216bis) of what is encoded for WHEP anyway: fragmented MP4 with H.264 and Opus.
//!
//! | room | what |
//! |---|---|
//! | `packager` | cuts units into parts and segments (pure) |
//! | `mux` | writes their boxes (pure) |
//! | `playlist` | lists them, keeps them, and says which request waits for what (pure) |
//!
//! A stream taps a fan-out without ever holding it up: units pass a bounded queue, and when that is full the stream begins
//! anew behind a discontinuity. Nothing touches a disk.

pub mod mux;
pub mod packager;
pub mod playlist;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};

use self::packager::{Packager, Packed};
use self::playlist::{Found, MOST_BYTES, Playlist, Reload, TARGET};
use crate::fanout::{CodedTap, CodedUnit, RtpFanout};
use crate::mode::Mode;

/// Units that may wait to be packed: some two seconds.
const QUEUE: usize = 256;
/// Longest that a request waits for what is to come (section 6.2.5.2: three target durations).
pub const PATIENCE: Duration = Duration::from_secs(TARGET.as_secs() * 3);
/// Requests of one stream that may wait at the same time; a player has up to three.
const MOST_WAITING: usize = 2048;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HlsRefusal {
    /// No such name, or no more.
    #[error("there is no such part of the stream, or no more")]
    Unknown,
    /// The request asks for what is too far ahead.
    #[error("that is too far ahead of the stream")]
    Unreasonable,
    /// What was waited for did not come.
    #[error("the stream does not go on")]
    TimedOut,
    /// Too many wait already.
    #[error("too many are waiting for this stream")]
    Crowded,
}

impl HlsRefusal {
    /// The HTTP status that says the same.
    pub fn status(self) -> u16 {
        match self {
            Self::Unknown => 404,
            Self::Unreasonable => 400,
            Self::TimedOut | Self::Crowded => 503,
        }
    }
}

/// One stream as HLS; cheap to clone, and ends with its last clone.
#[derive(Clone)]
pub struct HlsStream {
    inner: Arc<Inner>,
}

struct Inner {
    shelf: Arc<Shelf>,
    fanout: RtpFanout,
    touched: Mutex<Instant>,
    waiting: Semaphore,
    _tap: CodedTap,
}

/// What the packing task fills.
struct Shelf {
    playlist: Mutex<Playlist>,
    changes: watch::Sender<u64>,
}

impl Shelf {
    fn playlist(&self) -> MutexGuard<'_, Playlist> {
        self.playlist.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, packed: Packed, fanout: &RtpFanout) {
        match packed {
            Packed::Began(init) => self.playlist().begin(init),
            Packed::Part(part) => {
                let began = chrono::Utc::now() - part.duration;
                let clock = began.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                self.playlist().push(part, &clock);
            }
            Packed::KeyframeWanted => return fanout.request_keyframe(),
        }
        self.changes.send_modify(|n| *n += 1);
    }
}

impl HlsStream {
    /// Begins to package what a fan-out hands out, pictures in the size of `mode`. Its numbers begin with the seconds of the
    /// wall clock: beyond those of any stream that had this name before.
    ///
    /// # Panics
    /// Outside of a tokio runtime; the stream lives as long as that does.
    pub fn start(fanout: &RtpFanout, mode: &Mode) -> Self {
        let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let playlist = Mutex::new(Playlist::new(first, MOST_BYTES));
        let shelf = Arc::new(Shelf { playlist, changes: watch::Sender::new(0) });
        let (queue, units) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicBool::new(false));
        let overflow = lost.clone();
        let tap = fanout.tap(move |unit| {
            if queue.try_send(unit).is_err() {
                overflow.store(true, Ordering::Relaxed);
            }
        });
        let packager = Packager::new(mode.width, mode.height);
        tokio::spawn(pack(units, lost, packager, shelf.clone(), fanout.clone()));
        fanout.request_keyframe();
        let (touched, waiting) = (Mutex::new(Instant::now()), Semaphore::new(MOST_WAITING));
        Self { inner: Arc::new(Inner { shelf, fanout: fanout.clone(), touched, waiting, _tap: tap }) }
    }

    /// Whether it packages this fan-out.
    pub fn is_of(&self, fanout: &RtpFanout) -> bool {
        self.inner.fanout.is(fanout)
    }

    /// How long nobody has asked for anything.
    pub fn idle(&self) -> Duration {
        self.inner.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.inner.shelf.playlist().bytes()
    }

    /// The playlist, when it has what `_HLS_msn` and `_HLS_part` ask for. `query` is put after every address in it.
    ///
    /// # Errors
    /// See [`HlsRefusal`].
    pub async fn playlist(&self, segment: Option<u64>, part: Option<u64>, query: &str) -> Result<String, HlsRefusal> {
        self.wait_for(|playlist| match playlist.reload(segment, part) {
            Reload::Now => Some(Ok(playlist.render(query))),
            Reload::Later => None,
            Reload::Unreasonable => Some(Err(HlsRefusal::Unreasonable)),
        })
        .await
    }

    /// The bytes of a file that the playlist names, in pieces; a part that is only hinted at is waited for.
    ///
    /// # Errors
    /// See [`HlsRefusal`].
    pub async fn file(&self, name: &str) -> Result<Vec<Bytes>, HlsRefusal> {
        let number = |head: &str, tail: &str| name.strip_prefix(head)?.strip_suffix(tail)?.parse::<u64>().ok();
        if let Some(init) = number("init-", ".mp4") {
            return self.look().init(init).map(|bytes| vec![bytes]).ok_or(HlsRefusal::Unknown);
        }
        if let Some(segment) = number("segment-", ".m4s") {
            return self.look().segment(segment).ok_or(HlsRefusal::Unknown);
        }
        let part = number("part-", ".m4s").ok_or(HlsRefusal::Unknown)?;
        self.wait_for(|playlist| match playlist.part(part) {
            Found::Here(bytes) => Some(Ok(vec![bytes])),
            Found::Next => None,
            Found::Nothing => Some(Err(HlsRefusal::Unknown)),
        })
        .await
    }

    fn look(&self) -> MutexGuard<'_, Playlist> {
        *self.inner.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.inner.shelf.playlist()
    }

    async fn wait_for<T>(&self, ready: impl Fn(&Playlist) -> Option<Result<T, HlsRefusal>>) -> Result<T, HlsRefusal> {
        // Subscribed before the first look: nothing that comes in between is missed.
        let mut changes = self.inner.shelf.changes.subscribe();
        if let Some(answer) = ready(&self.look()) {
            return answer;
        }
        let _waiting = self.inner.waiting.try_acquire().map_err(|_| HlsRefusal::Crowded)?;
        let waited = async {
            loop {
                changes.changed().await.map_err(|_| HlsRefusal::TimedOut)?;
                if let Some(answer) = ready(&self.look()) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap_or(Err(HlsRefusal::TimedOut))
    }
}

/// Packs until the stream is dropped.
async fn pack(
    mut units: mpsc::Receiver<CodedUnit>,
    lost: Arc<AtomicBool>,
    mut packager: Packager,
    shelf: Arc<Shelf>,
    fanout: RtpFanout,
) {
    while let Some(unit) = units.recv().await {
        if lost.swap(false, Ordering::Relaxed) {
            tracing::debug!("units were lost on their way to HLS; it begins anew");
            packager.handle_loss();
        }
        packager.handle(&unit);
        while let Some(packed) = packager.poll_output() {
            shelf.take(packed, &fanout);
        }
    }
}
