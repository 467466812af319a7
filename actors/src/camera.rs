//! Camera: one input of the box's own, from opening its source to its word on the slate.
//!
//! Job: open the source off-thread within a deadline, fill the input's feed, judge the signal by what was decoded, open anew
//! what stalls or breaks. In: [`GetSignal`], [`Rehearse`], [`Reopen`], and the source's own news. Out: the input's face in the
//! studio, and [`InputChanged`] to the mixer.
//!
//! Failure policy: sources come and go by nature, so the core tries for ever, every five seconds at the longest, and once a
//! minute where somebody has to change something first (a refused password, which some cameras answer with a lock). A panic
//! costs the picture of this input for about a second; its pipeline is stopped off-thread. Supervised by the house, not
//! essential.

pub mod core;
pub mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, Supervised, WrapFuture as _};
use r58_pipelines::{ErrorKind, PipelineError};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use self::core::{CameraCore, CameraInput, CameraOutput};
use self::source::{CameraSource, SourceEvent, SourceNews, SourceOpener};
use crate::error::ActorsError;
use crate::mixer::InputChanged;
use crate::offthread::{drop_off_thread, off_thread};
use crate::studio::InputRoom;
use crate::supervision::{Door, Life, Retire};

/// How often the source is asked; its own watch looks ten times a second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Asks how an input's signal is.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "SignalReport")]
pub struct GetSignal;

/// One input's signal, by what it decoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalReport {
    /// The input.
    pub id: String,
    /// The signal in one word.
    pub signal: String,
    /// Why; empty while it is live.
    pub reason: String,
    /// Pictures decoded since the process started.
    pub frames: u64,
    /// Pictures per second over the last second.
    pub fps: f64,
    /// What the source delivers, once it is known.
    pub format: Option<String>,
    /// Why a capture device's sound is missing; empty when it is there, or none is configured.
    #[serde(default)]
    pub sound: String,
}

/// A fault to rehearse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RehearsedFault {
    /// Back to normal: frames go on, the cable is in again.
    None,
    /// The source stays open and delivers nothing.
    Stall,
    /// The source is gone until [`RehearsedFault::None`], whatever happens to the actor meanwhile.
    Unplug,
    /// The actor panics.
    Panic,
}

/// Rehearses a fault, where the configuration allows it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), ActorsError>")]
pub struct Rehearse {
    /// Which one.
    pub fault: RehearsedFault,
}

/// Opens the source anew, at once.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Reopen;

/// What a [`Camera`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct CameraSettings {
    /// Its place in the studio.
    pub room: Arc<InputRoom>,
    /// Opens its source.
    pub opener: Arc<dyn SourceOpener>,
    /// Whether its source waits for its signal by itself, as capture devices do.
    pub patient: bool,
    /// Whom to tell when the input's face changes.
    pub mixer: Door<InputChanged>,
    /// Whether faults may be rehearsed.
    pub rehearsal: bool,
}

/// The actor.
pub struct Camera {
    life: Life,
    settings: CameraSettings,
    core: CameraCore,
    source: Option<Box<dyn CameraSource>>,
    /// A source that came up and waits for the core's verdict.
    fresh: Option<Box<dyn CameraSource>>,
    format: Option<String>,
}

impl Camera {
    /// For the house's factory.
    pub fn new(life: Life, settings: CameraSettings) -> Self {
        let mut core = CameraCore::new(Instant::now(), settings.patient, rand::random());
        if settings.room.is_unplugged() {
            core.handle(Instant::now(), CameraInput::Unplug);
        }
        Self { life, settings, core, source: None, fresh: None, format: None }
    }

    fn id(&self) -> &str {
        &self.settings.room.name().id
    }

    fn feed_in(&mut self, input: CameraInput, ctx: &mut Context<Self>) -> bool {
        let counts = self.core.handle(Instant::now(), input);
        self.drain(ctx);
        counts
    }

    /// Asks the source, in case its news was lost, and lets time pass.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let sound = self.source.as_ref().map(|source| source.sound()).unwrap_or_default();
        if self.settings.room.show_sound(&sound) && !sound.is_empty() {
            warn!(input = self.id(), reason = sound, "no sound");
        }
        match self.source.as_ref().map(|source| source.signal()) {
            Some((signal, reason, format)) => {
                self.format = format;
                let attempt = self.core.attempt();
                self.feed_in(CameraInput::Signal { attempt, signal, reason }, ctx);
            }
            None => {
                self.core.handle_timeout(Instant::now());
                self.drain(ctx);
            }
        }
    }

    fn drain(&mut self, ctx: &mut Context<Self>) {
        let mut news = false;
        while let Some(output) = self.core.poll_output() {
            match output {
                CameraOutput::Open { attempt } => self.open(attempt, ctx),
                CameraOutput::Attach { .. } => {
                    self.source = self.fresh.take();
                    self.life.opened();
                    news = true;
                }
                CameraOutput::Close { reason, .. } => {
                    info!(input = self.id(), reason, "source closed");
                    if let Some(source) = self.source.take() {
                        drop_off_thread("source-stop", source);
                    }
                    self.format = None;
                    news = true;
                }
                CameraOutput::Changed => news = true,
            }
        }
        if news {
            self.show();
        }
    }

    fn show(&self) {
        let (signal, reason) = self.core.signal();
        if self.settings.room.show(signal.word(), reason, self.source.is_some()) {
            info!(input = self.id(), signal = signal.word(), reason, "signal");
            self.life.detail(signal.word());
            self.tell_mixer();
        }
    }

    /// A mixer that misses it looks by itself.
    fn tell_mixer(&self) {
        let _ = self.settings.mixer.try_send(InputChanged { input: self.id().to_owned() });
    }

    fn open(&mut self, attempt: u64, ctx: &mut Context<Self>) {
        debug!(input = self.id(), attempt, "opening");
        let me = ctx.address().recipient::<SourceSpoke>();
        let news: SourceNews = Arc::new(move |news| {
            // From a streaming thread; a full mailbox or a later life costs one remark, the counters tell the rest.
            let _ = me.try_send(SourceSpoke { attempt, news });
        });
        let (opener, room) = (self.settings.opener.clone(), self.settings.room.clone());
        let opening = off_thread("source-open", move || opener.open(&room, news));
        let opened = opening.into_actor(self).map(move |result, me, ctx| me.came_up(attempt, result, ctx));
        ctx.spawn(opened);
    }

    fn came_up(
        &mut self,
        attempt: u64,
        result: Option<Result<Box<dyn CameraSource>, PipelineError>>,
        ctx: &mut Context<Self>,
    ) {
        let (reason, lasting) = match result {
            Some(Ok(source)) => {
                self.fresh = Some(source);
                self.feed_in(CameraInput::Opened { attempt }, ctx);
                if let Some(late) = self.fresh.take() {
                    drop_off_thread("source-late", late);
                }
                return self.look(ctx);
            }
            Some(Err(error)) => (error.to_string(), error.kind() == ErrorKind::Misconfigured),
            None => ("opening the source failed in an unforeseen way".to_owned(), false),
        };
        self.feed_in(CameraInput::Broke { attempt, reason, lasting }, ctx);
    }
}

impl Actor for Camera {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Open);
    }
}

impl Supervised for Camera {}
crate::supervised!(Camera, ping only);

/// Starts the work, outside of `started`.
#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Handler<Open> for Camera {
    type Result = ();
    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, Self::look);
        self.look(ctx);
    }
}

/// The source says something.
#[derive(Message)]
#[rtype(result = "()")]
struct SourceSpoke {
    attempt: u64,
    news: SourceEvent,
}

impl Handler<SourceSpoke> for Camera {
    type Result = ();
    fn handle(&mut self, SourceSpoke { attempt, news }: SourceSpoke, ctx: &mut Self::Context) {
        match news {
            SourceEvent::Signal(signal, reason) => {
                self.feed_in(CameraInput::Signal { attempt, signal, reason }, ctx);
            }
            SourceEvent::Format(text) if attempt == self.core.attempt() => self.format = Some(text),
            SourceEvent::Format(_) => {}
            SourceEvent::Broke { reason, lasting } => {
                self.feed_in(CameraInput::Broke { attempt, reason, lasting }, ctx);
            }
        }
    }
}

impl Handler<GetSignal> for Camera {
    type Result = actix::MessageResult<GetSignal>;
    fn handle(&mut self, _: GetSignal, _: &mut Self::Context) -> Self::Result {
        let (signal, reason) = self.core.signal();
        actix::MessageResult(SignalReport {
            id: self.id().to_owned(),
            signal: signal.word().to_owned(),
            reason: reason.to_owned(),
            frames: self.settings.room.stats().frames,
            fps: self.settings.room.fps(),
            format: self.format.clone(),
            sound: self.settings.room.face().sound,
        })
    }
}

impl Handler<Rehearse> for Camera {
    type Result = Result<(), ActorsError>;
    fn handle(&mut self, Rehearse { fault }: Rehearse, ctx: &mut Self::Context) -> Self::Result {
        if !self.settings.rehearsal {
            return Err(ActorsError::Misconfigured("rehearsal is not enabled on this box".into()));
        }
        info!(input = self.id(), ?fault, "fault rehearsed");
        match (fault, &self.source) {
            (RehearsedFault::Panic, _) => panic!("rehearsed"),
            (RehearsedFault::Unplug, _) => {
                self.settings.room.set_unplugged(true);
                self.feed_in(CameraInput::Unplug, ctx);
            }
            (RehearsedFault::None, None) => {
                let was_unplugged = self.settings.room.set_unplugged(false);
                self.feed_in(if was_unplugged { CameraInput::Plug } else { CameraInput::Reopen }, ctx);
            }
            (_, Some(source)) => source.rehearse(fault)?,
            (RehearsedFault::Stall, None) => return Err(ActorsError::Unavailable("the source is not open".into())),
        }
        Ok(())
    }
}

impl Handler<Reopen> for Camera {
    type Result = ();
    fn handle(&mut self, _: Reopen, ctx: &mut Self::Context) {
        self.feed_in(CameraInput::Reopen, ctx);
    }
}

impl Handler<Retire> for Camera {
    type Result = ();
    fn handle(&mut self, _: Retire, _: &mut Self::Context) {
        if let Some(source) = self.source.take() {
            drop_off_thread("source-stop", source);
        }
    }
}

impl Drop for Camera {
    /// However it ends, its pipeline is not left running, and not waited for.
    fn drop(&mut self) {
        for source in [self.source.take(), self.fresh.take()].into_iter().flatten() {
            drop_off_thread("source-stop", source);
        }
        if std::thread::panicking() {
            self.settings.room.show("failed", "the camera is being restarted", false);
            self.tell_mixer();
        }
    }
}
