//! One local socket's lane: a stream to the TURN server while there is something to say, a new one when it breaks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::ForwarderReport;
use super::frame::{Deframer, put};
use super::road::{RoadError, Roads, Stream};
use super::talk::Talk;
use crate::ice::IceUrl;

/// A local socket that says nothing for this long is gone. Above the five minutes between two refreshes of an allocation
/// (half of the ten that RFC 8656, section 3.2, gives one).
pub const IDLE: Duration = Duration::from_secs(360);
/// A write that takes this long is a stream that will not come back.
const WRITE_WITHIN: Duration = Duration::from_secs(8);
/// How often a silent stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause before another stream: at most this, doubled with each failure, in full jitter.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// And never more than this: a WebRTC peer has given up by then, and its successor begins anew.
const PAUSE_MOST: Duration = Duration::from_secs(5);
const READ_SIZE: usize = 16 * 1024;
const BATCH: usize = 16 * 1024;

/// What a forwarder has seen; shared by its lanes.
#[derive(Default)]
pub(super) struct Tally {
    pub open: AtomicU64,
    pub streams: AtomicU64,
    pub reconnects: AtomicU64,
    pub bytes_up: AtomicU64,
    pub bytes_down: AtomicU64,
    pub dropped: AtomicU64,
    pub refused: AtomicU64,
    words: Mutex<Words>,
}

#[derive(Default, Clone)]
struct Words {
    road: Option<IceUrl>,
    error: Option<String>,
    connected_in: Option<Duration>,
}

impl Tally {
    pub(super) fn report(&self, best: IceUrl) -> ForwarderReport {
        // Held until all is read: streams open and close under it, with the words of why.
        let words = self.words();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ForwarderReport {
            road: words.road.clone().unwrap_or(best),
            open: count(&self.open),
            streams: count(&self.streams),
            reconnects: count(&self.reconnects),
            bytes_up: count(&self.bytes_up),
            bytes_down: count(&self.bytes_down),
            dropped: count(&self.dropped),
            refused: count(&self.refused),
            connected_in: words.connected_in,
            last_error: words.error.clone(),
        }
    }

    /// A stream is open no more; `error` says what broke it.
    fn closed(&self, error: Option<String>) {
        let mut words = self.words();
        if error.is_some() {
            words.error = error;
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What listener and lane share.
#[derive(Default)]
pub(super) struct Mouth {
    talk: Mutex<Talk>,
    said: Notify,
}

impl Mouth {
    /// Takes a datagram; answers how many older ones it displaced. Never waits.
    pub(super) fn say(&self, datagram: Bytes) -> u64 {
        let dropped = self.talk().say(datagram);
        self.said.notify_one();
        dropped
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One local socket's way to the server.
pub(super) struct Lane {
    pub client: SocketAddr,
    pub local: Arc<UdpSocket>,
    pub mouth: Arc<Mouth>,
    pub roads: Arc<Roads>,
    pub tally: Arc<Tally>,
}

/// Why a stream ended.
enum End {
    /// The local socket is gone, or has given its allocation back.
    Done,
    /// The stream broke.
    Lost(String),
}

impl Lane {
    /// Works until the local socket is gone.
    pub(super) async fn run(self) {
        let (mut failures, mut lost) = (0, false);
        while self.is_wanted().await {
            let begun = Instant::now();
            match self.roads.connect().await {
                Ok((stream, road)) => {
                    self.opened(&road, begun.elapsed(), std::mem::take(&mut lost));
                    let end = self.carry(stream).await;
                    let End::Lost(reason) = end else {
                        self.tally.closed(None);
                        return;
                    };
                    lost = true;
                    let spoke = self.mouth.talk().has_heard();
                    if spoke {
                        failures = 0;
                    } else {
                        self.roads.demote(&road);
                    }
                    let words = format!("{}: {reason}", road.to_url());
                    tracing::info!(road = road.to_url(), reason, spoke, "a stream to the TURN server broke");
                    self.tally.closed(Some(words));
                }
                Err(error) => self.unopened(&error),
            }
            failures += 1;
            tokio::time::sleep(pause(failures, rand::random())).await;
        }
    }

    /// Waits for a request; false when none came for [`IDLE`].
    async fn is_wanted(&self) -> bool {
        let wanted = async {
            while !self.mouth.talk().wants_stream() {
                self.mouth.said.notified().await;
            }
        };
        tokio::time::timeout(IDLE, wanted).await.is_ok()
    }

    fn opened(&self, road: &IceUrl, took: Duration, again: bool) {
        let dropped = self.mouth.talk().stream_opened();
        let tally = &self.tally;
        let mut words = tally.words();
        tally.dropped.fetch_add(dropped, Ordering::Relaxed);
        tally.open.fetch_add(1, Ordering::Relaxed);
        tally.streams.fetch_add(1, Ordering::Relaxed);
        tally.reconnects.fetch_add(u64::from(again), Ordering::Relaxed);
        words.road = Some(road.clone());
        words.connected_in = Some(took);
        words.error = None;
        tracing::debug!(road = road.to_url(), took_ms = took.as_millis() as u64, again, "a stream to the TURN server");
    }

    fn unopened(&self, error: &RoadError) {
        let words = error.to_string();
        let before = self.tally.words().error.replace(words.clone());
        // A server that is away is asked again and again; said once.
        match before.as_ref() == Some(&words) {
            false => tracing::warn!(%error, "no stream to the TURN server"),
            true => tracing::debug!(%error, "no stream to the TURN server"),
        }
    }

    async fn carry(&self, stream: Box<dyn Stream>) -> End {
        let (reader, writer) = tokio::io::split(stream);
        tokio::select! {
            end = self.down(reader) => end,
            end = self.up(writer) => end,
            end = self.watch() => end,
        }
    }

    /// From the server to the local socket.
    async fn down(&self, mut reader: ReadHalf<Box<dyn Stream>>) -> End {
        let (mut deframer, mut buffer) = (Deframer::default(), vec![0; READ_SIZE]);
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return End::Lost("the server has closed it".to_owned()),
                Ok(length) => deframer.push(&buffer[..length]),
                Err(error) => return End::Lost(error.kind().to_string()),
            }
            loop {
                let message = match deframer.next_message() {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(error) => return End::Lost(error.to_string()),
                };
                let released = self.mouth.talk().hear(Instant::now(), &message);
                self.tally.bytes_down.fetch_add(message.len() as u64, Ordering::Relaxed);
                // A local socket whose owner is slow loses datagrams, as it would from the network.
                if self.local.try_send_to(&message, self.client).is_err() {
                    self.tally.dropped.fetch_add(1, Ordering::Relaxed);
                }
                if released {
                    return End::Done;
                }
            }
        }
    }

    /// From the local socket to the server.
    async fn up(&self, mut writer: WriteHalf<Box<dyn Stream>>) -> End {
        let mut batch = BytesMut::with_capacity(BATCH + 2_048);
        loop {
            self.fill(&mut batch);
            if batch.is_empty() {
                if tokio::time::timeout(IDLE, self.mouth.said.notified()).await.is_err() {
                    return End::Done;
                }
                continue;
            }
            let sent = async {
                writer.write_all(&batch).await?;
                writer.flush().await
            };
            match tokio::time::timeout(WRITE_WITHIN, sent).await {
                Ok(Ok(())) => batch.clear(),
                Ok(Err(error)) => return End::Lost(error.kind().to_string()),
                Err(_) => return End::Lost("it takes nothing any more".to_owned()),
            }
        }
    }

    /// As much of what waits as goes into one write.
    fn fill(&self, batch: &mut BytesMut) {
        let (mut talk, now) = (self.mouth.talk(), Instant::now());
        let mut bytes = 0;
        while batch.len() < BATCH
            && let Some(message) = talk.next_message(now)
        {
            // The listener let nothing else through.
            if put(&message, batch).is_ok() {
                bytes += message.len() as u64;
            }
        }
        self.tally.bytes_up.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Resolves when the server leaves a request unanswered for too long.
    async fn watch(&self) -> End {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            if self.mouth.talk().is_unanswered(Instant::now()) {
                return End::Lost("the server does not answer".to_owned());
            }
        }
    }
}

/// Full jitter: anything from nothing to the bound, so that a box's peers do not come back all at once.
fn pause(failures: u32, jitter: f64) -> Duration {
    let bound = PAUSE_FIRST.saturating_mul(1 << (failures.saturating_sub(1)).min(8)).min(PAUSE_MOST);
    bound.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds_and_are_anything_below() {
        assert_eq!(pause(1, 1.0), PAUSE_FIRST);
        assert_eq!(pause(3, 1.0), 4 * PAUSE_FIRST);
        assert_eq!(pause(u32::MAX, 1.0), PAUSE_MOST);
        assert_eq!(pause(7, 0.0), Duration::ZERO);
    }
}
