//! HLS streams that are watched: put up by the first request for one, taken off when nobody has asked for a while.
//!
//! The shelf outlives the actor's lives and is read without a mailbox: players ask many times a second. The streams on it
//! belong to the actor, which takes them all off when it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{ActorFutureExt as _, Handler, Message, ResponseActFuture, WrapFuture as _};
use r58_pipelines::HlsStream;
use r58_pipelines::hls::playlist::WINDOW;
use r58_pipelines::preview::preview_mode;
use tracing::info;

use super::{PROGRAMME, Viewers};
use crate::error::GuestError;
use crate::supervision::lock;

/// A stream is kept this long after its last request: a player that was held up for a moment finds it running.
pub const HLS_LINGER: Duration = Duration::from_secs(10);
/// What another stream replaced is kept for those who have just read of it.
const REPLACED_KEPT: Duration = Duration::from_secs(WINDOW.as_secs() * 2);

/// Makes sure that a stream is on the shelf.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), GuestError>")]
pub struct OpenHls {
    /// `programme`, or an input's id.
    pub name: String,
}

/// The streams by name. Cheap to clone.
#[derive(Clone)]
pub struct HlsShelf {
    streams: Arc<Mutex<BTreeMap<String, Shelved>>>,
    linger: Duration,
}

struct Shelved {
    current: HlsStream,
    replaced: Vec<(Instant, HlsStream)>,
}

impl HlsShelf {
    /// An empty one, whose streams are kept for `linger` after their last request.
    pub fn new(linger: Duration) -> Self {
        Self { streams: Arc::default(), linger }
    }

    /// The stream of that name.
    pub fn get(&self, name: &str) -> Option<HlsStream> {
        lock(&self.streams).get(name).map(|shelved| shelved.current.clone())
    }

    /// The streams that had that name before it, the newest first.
    pub fn replaced(&self, name: &str) -> Vec<HlsStream> {
        let streams = lock(&self.streams);
        let replaced = streams.get(name).map(|shelved| shelved.replaced.iter().rev());
        replaced.into_iter().flatten().map(|(_, stream)| stream.clone()).collect()
    }

    fn names(&self) -> Vec<String> {
        lock(&self.streams).keys().cloned().collect()
    }

    fn put_up(&self, name: &str, stream: HlsStream) {
        let mut streams = lock(&self.streams);
        match streams.get_mut(name) {
            Some(shelved) => {
                let before = std::mem::replace(&mut shelved.current, stream);
                shelved.replaced.retain(|(since, _)| since.elapsed() < REPLACED_KEPT);
                shelved.replaced.push((Instant::now(), before));
            }
            None => {
                streams.insert(name.to_owned(), Shelved { current: stream, replaced: Vec::new() });
            }
        }
    }

    fn take_off(&self, name: &str) {
        lock(&self.streams).remove(name);
    }

    pub(super) fn clear(&self) {
        lock(&self.streams).clear();
    }
}

impl Viewers {
    /// Takes off what nobody watches or what may not be watched, and follows a programme that was built anew.
    pub(super) fn sweep_hls(&mut self) {
        let shelf = self.settings.hls.clone();
        for name in shelf.names() {
            let Some(stream) = shelf.get(&name) else { continue };
            let source = if name == PROGRAMME {
                self.settings.studio.programme().fanout()
            } else {
                self.previews.get(&name).map(|running| running.preview.fanout.clone())
            };
            // A programme that is being rebuilt comes back.
            let gone = source.is_none() && name != PROGRAMME;
            if gone || stream.idle() >= shelf.linger {
                info!(name, "no longer packaged as HLS");
                shelf.take_off(&name);
                self.count(&name);
            } else if let Some(source) = source.filter(|source| !stream.is_of(source)) {
                shelf.put_up(&name, HlsStream::start(&source, &self.mode_of(&name)));
            }
        }
    }

    fn mode_of(&self, name: &str) -> r58_pipelines::Mode {
        let mode = self.settings.studio.mode();
        if name == PROGRAMME { mode } else { preview_mode(&mode) }
    }
}

impl Handler<OpenHls> for Viewers {
    type Result = ResponseActFuture<Self, Result<(), GuestError>>;

    fn handle(&mut self, OpenHls { name }: OpenHls, _: &mut Self::Context) -> Self::Result {
        let room = match self.check_name(&name) {
            Ok(room) => room,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal)).into_actor(self)),
        };
        let stream = self.stream(&name, room);
        Box::pin(stream.into_actor(self).map(move |stream, me, _| {
            let fanout = me.found(&name, stream)?;
            let current = me.settings.hls.get(&name);
            if current.is_none_or(|stream| !stream.is_of(&fanout)) {
                info!(name, "packaged as HLS");
                me.settings.hls.put_up(&name, HlsStream::start(&fanout, &me.mode_of(&name)));
            }
            me.count(&name);
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use r58_pipelines::{Mode, RtpFanout};

    use super::*;

    #[tokio::test]
    async fn a_stream_that_is_replaced_stays_for_those_who_have_just_read_of_it() {
        let shelf = HlsShelf::new(HLS_LINGER);
        let fanouts = [RtpFanout::new(), RtpFanout::new()];
        for fanout in &fanouts {
            shelf.put_up(PROGRAMME, HlsStream::start(fanout, &Mode::default()));
        }
        assert!(shelf.get(PROGRAMME).is_some_and(|stream| stream.is_of(&fanouts[1])));
        let replaced = shelf.replaced(PROGRAMME);
        assert!(replaced.len() == 1 && replaced[0].is_of(&fanouts[0]));
        shelf.take_off(PROGRAMME);
        assert!(shelf.get(PROGRAMME).is_none() && shelf.replaced(PROGRAMME).is_empty());
    }
}
