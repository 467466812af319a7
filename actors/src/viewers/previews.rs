//! Inputs that are encoded while somebody watches them, by WHEP or HLS; guests' return feeds, which are kept likewise.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use r58_pipelines::RtpFanout;
use tokio::sync::oneshot;
use tracing::info;

use super::Viewers;
use super::doorway::Preview;
use super::returns::return_of;
use crate::error::GuestError;
use crate::offthread::{drop_off_thread, off_thread};
use crate::studio::InputRoom;

/// An input's encoder is kept this long after its last viewer: a page that is reloaded finds it running.
pub(super) const LINGER: Duration = Duration::from_secs(3);

/// Said when nobody knows better.
const NO_ENCODER: &str = "the input's encoder did not start";

pub(super) struct RunningPreview {
    pub(super) preview: Preview,
    pub(super) unused_since: Option<Instant>,
}

/// How a viewer comes to its stream.
enum Way {
    Programme,
    Running(RtpFanout),
    /// It is the first: the encoder starts with it.
    Start(Arc<InputRoom>),
    /// Another one starts it.
    Wait(oneshot::Receiver<Option<String>>),
}

/// What came of it.
pub(super) enum Stream {
    Known(Result<RtpFanout, GuestError>),
    Started(Result<Preview, GuestError>),
    Joined,
}

impl Viewers {
    /// Finds the stream of that name, starting its encoder when it is an input that nobody watches yet. What comes out is for
    /// [`Viewers::found`].
    pub(super) fn stream(
        &mut self,
        name: &str,
        room: Option<Arc<InputRoom>>,
    ) -> impl Future<Output = Stream> + use<> + 'static {
        let way = self.way(name, room);
        let (doorway, studio) = (self.settings.doorway.clone(), self.settings.studio.clone());
        let returns = return_of(name).is_some();
        async move {
            match way {
                Way::Programme => {
                    let fanout = studio.programme().fanout();
                    Stream::Known(fanout.ok_or_else(|| GuestError::Unavailable("the programme is starting".into())))
                }
                Way::Running(fanout) => Stream::Known(Ok(fanout)),
                Way::Start(room) => {
                    let start = move || if returns { doorway.return_feed(&room) } else { doorway.preview(&room) };
                    let started = off_thread("preview-start", start).await;
                    Stream::Started(started.unwrap_or_else(|| Err(GuestError::Unavailable(NO_ENCODER.into()))))
                }
                Way::Wait(told) => match told.await {
                    Ok(Some(fault)) => Stream::Known(Err(GuestError::Unavailable(fault))),
                    Ok(None) | Err(_) => Stream::Joined,
                },
            }
        }
    }

    /// Takes note of what came of it, and tells those who wait for the same.
    pub(super) fn found(&mut self, name: &str, stream: Stream) -> Result<RtpFanout, GuestError> {
        match stream {
            Stream::Known(fanout) => fanout,
            Stream::Started(result) => self.came_up(name, result),
            Stream::Joined => self.joined(name),
        }
    }

    fn way(&mut self, name: &str, room: Option<Arc<InputRoom>>) -> Way {
        let Some(room) = room else { return Way::Programme };
        if let Some(running) = self.previews.get(name) {
            return Way::Running(running.preview.fanout.clone());
        }
        if let Some(waiting) = self.starting.get_mut(name) {
            let (tell, told) = oneshot::channel();
            waiting.push(tell);
            return Way::Wait(told);
        }
        self.starting.insert(name.to_owned(), Vec::new());
        Way::Start(room)
    }

    fn came_up(&mut self, name: &str, result: Result<Preview, GuestError>) -> Result<RtpFanout, GuestError> {
        let waiting = self.starting.remove(name).unwrap_or_default();
        let fault = result.as_ref().err().map(GuestError::to_string);
        let fanout = result.map(|preview| {
            info!(input = name, "input encoded for viewers");
            let fanout = preview.fanout.clone();
            self.previews.insert(name.to_owned(), RunningPreview { preview, unused_since: None });
            fanout
        });
        for one in waiting {
            let _ = one.send(fault.clone());
        }
        fanout
    }

    /// The stream that another viewer has started.
    fn joined(&self, name: &str) -> Result<RtpFanout, GuestError> {
        let running = self.previews.get(name).map(|running| running.preview.fanout.clone());
        running.ok_or_else(|| GuestError::Unavailable(NO_ENCODER.into()))
    }

    /// Stops encoders that nobody needs any more, or may not have.
    pub(super) fn sweep_previews(&mut self) {
        let allowed = self.settings.studio.previews_allowed();
        let over = |running: &RunningPreview| running.unused_since.is_some_and(|since| since.elapsed() >= LINGER);
        let ended: Vec<String> = self
            .previews
            .iter()
            .filter(|(name, running)| (!allowed && return_of(name).is_none()) || over(running))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            if let Some(running) = self.previews.remove(&name) {
                info!(input = name, "input no longer encoded");
                drop_off_thread("preview-stop", running.preview);
            }
        }
    }
}
