//! The seam between the Mixer and the programme pipeline, so that a scripted one can take its place; and the real one.

use std::sync::Arc;

use r58_pipelines::encoder::EncoderDesk;
use r58_pipelines::layout;
use r58_pipelines::programme::{
    Programme, ProgrammeEvent, ProgrammeInput, ProgrammePlan, ProgrammeStats, ReturnMix, TakeTicket,
};
use r58_pipelines::scene::Scene;
use r58_pipelines::thumbnail::Thumbnails;
use r58_pipelines::{Feed, Mode, PipelineError, RtpFanout};

use super::core::TakeKind;
use crate::state::EncoderState;
use crate::studio::InputName;
use crate::viewers::PROGRAMME;

/// A running programme. None of its calls waits for pictures. Dropping it stops it, and may block.
pub trait Composer: Send + Sync {
    /// An input's feed has pictures to offer.
    fn attach(&self, input: &str, feed: &Feed);
    /// It has none any more; its place shows the slate.
    fn detach(&self, input: &str, reason: &str);
    /// What the slate says while there is no picture.
    fn set_slate(&self, input: &str, reason: &str);
    /// Puts a scene on the programme.
    ///
    /// # Errors
    /// When the scene or the transition cannot be carried out.
    fn take(&self, scene: &Scene, kind: TakeKind) -> Result<TakeTicket, PipelineError>;
    /// Shows a name over the picture, or takes it away.
    fn identify(&self, text: Option<&str>);
    /// Makes encoding cheaper: 0 as configured.
    fn set_preset(&self, level: u8);
    /// What left the compositor.
    fn stats(&self) -> ProgrammeStats;
    /// The encoded programme.
    fn rtp(&self) -> Option<RtpFanout>;
    /// Starts what a guest is sent back; `None` where there is no such thing.
    ///
    /// # Errors
    /// When it does not start.
    fn return_mix(&self, _seat: &str) -> Result<Option<ReturnMix>, PipelineError> {
        Ok(None)
    }
    /// Small pictures by name: of `programme`, and of what each input's place shows, its slate included.
    fn thumbnails(&self) -> Vec<(String, Thumbnails)>;
    /// Who encodes it.
    fn encoder(&self) -> EncoderState;
}

/// Takes a programme's news; called on streaming threads, must not block.
pub type ProgrammeNews = Arc<dyn Fn(ProgrammeEvent) + Send + Sync>;

/// Starts a programme. Blocks: called on a thread of its own.
pub trait ComposerStarter: Send + Sync {
    /// Starts it.
    ///
    /// # Errors
    /// Whatever keeps it from running.
    fn start(&self, news: ProgrammeNews) -> Result<Arc<dyn Composer>, PipelineError>;
}

/// Chooses an encoder and starts the programme pipeline.
pub struct PipelineStarter {
    mode: Mode,
    inputs: Vec<ProgrammeInput>,
    encoders: EncoderDesk,
    bitrate_kbps: u32,
}

impl PipelineStarter {
    /// For these inputs in this order, with an encoder from that desk.
    pub fn new(mode: &Mode, inputs: &[InputName], encoders: EncoderDesk, bitrate_kbps: u32) -> Self {
        let inputs = inputs.iter().map(|name| ProgrammeInput { id: name.id.clone(), label: name.label.clone() });
        Self { mode: *mode, inputs: inputs.collect(), encoders, bitrate_kbps }
    }
}

impl ComposerStarter for PipelineStarter {
    fn start(&self, news: ProgrammeNews) -> Result<Arc<dyn Composer>, PipelineError> {
        let lease = self.encoders.for_programme(&self.mode)?;
        let plan = ProgrammePlan {
            mode: self.mode,
            inputs: self.inputs.clone(),
            encoder: Some(lease.choice().clone()),
            bitrate_kbps: self.bitrate_kbps,
        };
        let programme = Programme::start(plan, move |event| news(event))?;
        Ok(Arc::new(Running { programme: programme.holding(lease) }))
    }
}

struct Running {
    programme: Programme,
}

/// The studio knows the same inputs as the programme: a refusal here is a mistake of ours, and not worth a frame.
fn note(what: &str, input: &str, result: Result<(), PipelineError>) {
    if let Err(error) = result {
        tracing::error!(input, %error, "the programme refused to {what}");
    }
}

impl Composer for Running {
    fn attach(&self, input: &str, feed: &Feed) {
        note("attach", input, self.programme.attach(input, feed));
    }

    fn detach(&self, input: &str, reason: &str) {
        note("detach", input, self.programme.detach(input, reason));
    }

    fn set_slate(&self, input: &str, reason: &str) {
        note("change a slate", input, self.programme.set_slate(input, reason));
    }

    fn take(&self, scene: &Scene, kind: TakeKind) -> Result<TakeTicket, PipelineError> {
        let transition = match kind {
            TakeKind::Cut => layout::Transition::Cut,
            TakeKind::Mix { .. } => layout::Transition::Mix { duration: kind.duration() },
        };
        self.programme.take(scene, transition)
    }

    fn identify(&self, text: Option<&str>) {
        if let Err(error) = self.programme.identify(text) {
            tracing::error!(%error, "the name cannot be shown");
        }
    }

    fn set_preset(&self, level: u8) {
        self.programme.set_preset(level);
    }

    fn stats(&self) -> ProgrammeStats {
        self.programme.stats()
    }

    fn rtp(&self) -> Option<RtpFanout> {
        Some(self.programme.rtp())
    }

    fn return_mix(&self, seat: &str) -> Result<Option<ReturnMix>, PipelineError> {
        self.programme.return_mix(seat).map(Some)
    }

    fn thumbnails(&self) -> Vec<(String, Thumbnails)> {
        let inputs = self.inputs().filter_map(|id| Some((id.clone(), self.programme.input_thumbnail(id)?)));
        inputs.chain([(PROGRAMME.to_owned(), self.programme.thumbnail())]).collect()
    }

    fn encoder(&self) -> EncoderState {
        let Some(lease) = self.programme.lease() else { return EncoderState::default() };
        let choice = lease.choice();
        EncoderState {
            name: choice.name.clone(),
            reason: choice.reason.clone(),
            rejected: choice.rejected.iter().map(|no| (no.name.clone(), no.reason.clone())).collect(),
            sessions: lease.usage(),
        }
    }
}

impl Running {
    fn inputs(&self) -> impl Iterator<Item = &String> {
        self.programme.plan().inputs.iter().map(|input| &input.id)
    }
}
