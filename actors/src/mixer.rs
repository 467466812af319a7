//! Mixer: keeps the programme on air and carries out what the crew wants to see on it.
//!
//! Job: preview and programme, cuts and mixes, tally, slates from the inputs' faces, the identification. In: [`SetPreview`],
//! [`Transition`], [`TakeScene`], [`Identify`], [`InputChanged`], [`GetMixer`], the Governor's preset. Out: the programme
//! itself, and its room in the studio.
//!
//! Failure policy: **the programme pipeline is not the actor's.** It stands in the studio; a Mixer that panics or hangs is
//! rebuilt and finds it running, with the scenes as they were. A pipeline that broke is started anew within the soft budget.
//! Supervised by the house, essential.

pub mod composer;
pub mod core;
pub mod room;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, MessageResult,
    Supervised, WrapFuture as _,
};
use r58_pipelines::programme::ProgrammeStats;
use r58_pipelines::{Scene, SceneSet};
use serde::Serialize;
use tracing::{debug, error, info, warn};

use self::composer::{Composer, ComposerStarter, ProgrammeNews};
use self::core::{MixerCore, MixerRefusal, SceneFacts, TakeKind, TakePlan};
use crate::error::ActorsError;
use crate::governor::SetProgrammePreset;
use crate::offthread::{drop_off_thread, off_thread};
use crate::state::{EncoderState, TakeState};
use crate::studio::Studio;
use crate::supervision::{Life, Retire};

/// Encoders are tried for up to five seconds each before the programme starts.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How often inputs' faces and running transitions are looked at, in case a message was lost.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A programme whose last frame is this old is stuck. A hundred times the longest gap that was measured with a dying input.
const STUCK_AFTER: Duration = Duration::from_secs(6);

/// Puts a scene on preview.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<MixerReport, ActorsError>")]
pub struct SetPreview {
    /// The scene's id.
    pub scene: String,
}

/// Takes the preview to the programme; the two swap.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<MixerReport, ActorsError>")]
pub struct Transition {
    /// How.
    pub kind: TakeKind,
}

/// Takes a scene straight to the programme; the preview stays.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<MixerReport, ActorsError>")]
pub struct TakeScene {
    /// The scene's id.
    pub scene: String,
    /// How.
    pub kind: TakeKind,
}

/// Shows a name on the programme for a while.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ActorsError>")]
pub struct Identify {
    /// What to show.
    pub text: String,
    /// For how long, at most five minutes.
    pub length: Duration,
}

/// An input's face in the studio has changed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct InputChanged {
    /// Its id.
    pub input: String,
}

/// Asks what is on and how it goes.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "MixerReport")]
pub struct GetMixer;

/// What is on and how it goes.
#[derive(Debug, Clone, Serialize)]
pub struct MixerReport {
    /// The scene on programme.
    pub pgm: String,
    /// The scene on preview.
    pub pvw: String,
    /// The transition that is running.
    pub transition: Option<TakeState>,
    /// The name that is shown.
    pub identify: Option<String>,
    /// By the frames that left the compositor; absent while no programme runs.
    pub stats: Option<ProgrammeStats>,
    /// Who encodes it.
    pub encoder: EncoderState,
}

/// What a [`Mixer`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct MixerSettings {
    /// Where the programme and the inputs stand.
    pub studio: Studio,
    /// All scenes, in the order of the buttons.
    pub scenes: Arc<SceneSet>,
    /// Starts the programme when none runs.
    pub starter: Arc<dyn ComposerStarter>,
}

/// The actor.
pub struct Mixer {
    life: Life,
    settings: MixerSettings,
    core: MixerCore,
}

impl Mixer {
    /// For the house's factory. Takes up the mind of an earlier life.
    pub fn new(life: Life, settings: MixerSettings) -> Self {
        let core = settings.studio.programme().mind().unwrap_or_else(|| {
            let all = settings.scenes.all().iter();
            MixerCore::new(all.map(|scene| facts(scene, &settings.studio)).collect())
        });
        Self { life, settings, core }
    }

    fn composer(&self) -> Result<Arc<dyn Composer>, ActorsError> {
        let on_air = self.settings.studio.programme().on_air();
        on_air.map(|on_air| on_air.composer).ok_or_else(|| ActorsError::Unavailable("the programme is starting".into()))
    }

    /// Writes down what is in mind, for pages and for a next life.
    fn keep(&self) {
        self.settings.studio.programme().keep(&self.core);
        self.settings.studio.changed();
    }

    fn report(&self) -> MixerReport {
        let programme = self.settings.studio.programme();
        MixerReport {
            pgm: self.core.pgm().to_owned(),
            pvw: self.core.pvw().to_owned(),
            transition: self.core.transition().map(TakeState::from),
            identify: self.core.identify().map(str::to_owned),
            stats: programme.stats(),
            encoder: programme.encoder(),
        }
    }

    fn carry_out(&mut self, plan: TakePlan) -> Result<MixerReport, ActorsError> {
        let scene = self.settings.scenes.get(&plan.scene).ok_or(MixerRefusal::UnknownScene(plan.scene.clone()))?;
        let ticket = self.composer()?.take(scene, plan.kind)?;
        info!(scene = plan.scene, kind = ?plan.kind, frame = ticket.frame, "take");
        self.core.handle_taken(Instant::now(), plan);
        self.keep();
        Ok(self.report())
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        if self.settings.studio.programme().on_air().is_some() {
            debug!("the programme is running already");
            self.up(ctx);
            return;
        }
        let revision = self.settings.studio.next_revision();
        let news: ProgrammeNews = Arc::new(self.settings.studio.programme().news(revision));
        let starter = self.settings.starter.clone();
        let starting = tokio::time::timeout(START_WITHIN, off_thread("programme", move || starter.start(news)));
        let started = starting.into_actor(self).map(move |result, me, ctx| match result {
            Ok(Some(Ok(composer))) => {
                me.put_on_air(revision, composer);
                me.up(ctx);
            }
            Ok(Some(Err(error))) => me.lost(error.to_string(), ctx),
            Ok(None) => me.lost("starting the programme failed in an unforeseen way".into(), ctx),
            Err(_) => me.lost(format!("the programme did not start within {} s", START_WITHIN.as_secs()), ctx),
        });
        ctx.spawn(started);
    }

    fn put_on_air(&mut self, revision: u64, composer: Arc<dyn Composer>) {
        for (name, thumbnails) in composer.thumbnails() {
            self.settings.studio.thumbnails().put_up(&name, thumbnails);
        }
        self.settings.studio.programme().install(revision, composer.clone());
        let scene = self.settings.scenes.get(self.core.pgm());
        if let Some(scene) = scene
            && let Err(error) = composer.take(scene, TakeKind::Cut)
        {
            warn!(scene = scene.id, %error, "the first scene was refused");
        }
        composer.identify(self.core.identify());
        info!(encoder = composer.encoder().name, scene = self.core.pgm(), "programme on air");
    }

    fn up(&mut self, ctx: &mut Context<Self>) {
        self.life.opened();
        self.keep();
        self.look(ctx);
        ctx.run_interval(LOOK_EVERY, Self::look);
    }

    fn lost(&mut self, cause: String, ctx: &mut Context<Self>) {
        error!(cause, "programme lost");
        if let Some(programme) = self.settings.studio.programme().clear() {
            drop_off_thread("programme-stop", programme);
        }
        self.life.failed(cause);
        ctx.stop();
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let Some(on_air) = self.settings.studio.programme().on_air() else { return };
        let shown = self.core.identify().is_some();
        if self.core.handle_timeout(now) {
            if shown && self.core.identify().is_none() {
                on_air.composer.identify(None);
            }
            self.keep();
        }
        for room in self.settings.studio.inputs() {
            on_air.apply(room);
        }
        if let Some(message) = self.settings.studio.programme().take_break(on_air.revision) {
            return self.lost(message, ctx);
        }
        let silence = on_air.composer.stats().silence(now).unwrap_or_else(|| now.duration_since(on_air.since));
        if silence >= STUCK_AFTER {
            self.lost(format!("no programme frame for {} s", STUCK_AFTER.as_secs()), ctx);
        }
    }
}

impl room::OnAir {
    /// Tells the programme what it does not know yet about an input.
    fn apply(&self, room: &crate::studio::InputRoom) {
        let (id, face) = (&room.name().id, room.face());
        let mut applied = crate::supervision::lock(&self.applied);
        let known = applied.entry(id.clone()).or_default();
        match (known.attached, face.attached) {
            (false, true) => self.composer.attach(id, room.feed()),
            (true, false) => self.composer.detach(id, &face.reason),
            _ => {}
        }
        if !face.reason.is_empty() && known.reason != face.reason {
            self.composer.set_slate(id, &face.reason);
        }
        *known = room::Applied { attached: face.attached, reason: face.reason };
    }
}

fn facts(scene: &Scene, studio: &Studio) -> SceneFacts {
    let ids = studio.inputs().iter().map(|room| &room.name().id);
    SceneFacts { id: scene.id.clone(), inputs: ids.filter(|id| scene.shows(id)).cloned().collect() }
}

impl Actor for Mixer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.life.opening() {
            ctx.notify_later(Open, pause);
        }
    }
}

impl Supervised for Mixer {}
crate::supervised!(Mixer, ping only);

/// Finds or starts the programme, outside of `started`.
#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Handler<Open> for Mixer {
    type Result = ();
    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.open(ctx);
    }
}

impl Handler<SetPreview> for Mixer {
    type Result = Result<MixerReport, ActorsError>;
    fn handle(&mut self, SetPreview { scene }: SetPreview, _: &mut Self::Context) -> Self::Result {
        self.core.handle_set_preview(&scene)?;
        self.keep();
        Ok(self.report())
    }
}

impl Handler<Transition> for Mixer {
    type Result = Result<MixerReport, ActorsError>;
    fn handle(&mut self, Transition { kind }: Transition, _: &mut Self::Context) -> Self::Result {
        let plan = self.core.plan(None, kind)?;
        self.carry_out(plan)
    }
}

impl Handler<TakeScene> for Mixer {
    type Result = Result<MixerReport, ActorsError>;
    fn handle(&mut self, TakeScene { scene, kind }: TakeScene, _: &mut Self::Context) -> Self::Result {
        let plan = self.core.plan(Some(&scene), kind)?;
        self.carry_out(plan)
    }
}

impl Handler<Identify> for Mixer {
    type Result = Result<(), ActorsError>;
    fn handle(&mut self, Identify { text, length }: Identify, _: &mut Self::Context) -> Self::Result {
        self.composer()?.identify(Some(&text));
        self.core.handle_identify(Instant::now(), &text, length);
        self.keep();
        Ok(())
    }
}

impl Handler<InputChanged> for Mixer {
    type Result = ();
    fn handle(&mut self, InputChanged { input }: InputChanged, _: &mut Self::Context) {
        let studio = &self.settings.studio;
        if let (Some(on_air), Some(room)) = (studio.programme().on_air(), studio.input(&input)) {
            on_air.apply(room);
        }
    }
}

impl Handler<GetMixer> for Mixer {
    type Result = MessageResult<GetMixer>;
    fn handle(&mut self, _: GetMixer, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.report())
    }
}

impl Handler<SetProgrammePreset> for Mixer {
    type Result = ();
    fn handle(&mut self, SetProgrammePreset(level): SetProgrammePreset, _: &mut Self::Context) {
        if let Ok(composer) = self.composer() {
            composer.set_preset(level);
        }
    }
}

impl Handler<Retire> for Mixer {
    type Result = actix::ResponseFuture<()>;
    fn handle(&mut self, _: Retire, _: &mut Self::Context) -> Self::Result {
        let programme = self.settings.studio.programme().clear();
        let stopped = off_thread("programme-stop", move || drop(programme));
        Box::pin(async {
            stopped.await;
        })
    }
}
