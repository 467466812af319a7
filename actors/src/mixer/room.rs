//! The programme's place in the studio: the running programme and what the Mixer had in mind, for whichever life of the
//! Mixer comes next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use r58_pipelines::programme::{ProgrammeEvent, ProgrammeStats, ReturnMix};
use r58_pipelines::{PipelineError, RtpFanout};

use super::composer::Composer;
use super::core::MixerCore;
use crate::state::EncoderState;
use crate::supervision::lock;

/// What was last said to the programme about one input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub attached: bool,
    pub reason: String,
}

/// What a running programme comes with.
#[derive(Clone)]
pub(super) struct OnAir {
    pub composer: Arc<dyn Composer>,
    /// Tells the news of this programme from that of one before it.
    pub revision: u64,
    pub since: Instant,
    /// What it was told, input by input; belongs to this programme and no other.
    pub applied: Arc<Mutex<BTreeMap<String, Applied>>>,
}

/// See the module.
#[derive(Default)]
pub struct ProgrammeRoom {
    on_air: Mutex<Option<OnAir>>,
    mind: Mutex<Option<MixerCore>>,
    /// Which programme broke last, and why.
    broken: Arc<Mutex<Option<(u64, String)>>>,
}

impl ProgrammeRoom {
    pub(super) fn on_air(&self) -> Option<OnAir> {
        lock(&self.on_air).clone()
    }

    pub(super) fn install(&self, revision: u64, composer: Arc<dyn Composer>) {
        *lock(&self.on_air) = Some(OnAir { composer, revision, since: Instant::now(), applied: Arc::default() });
    }

    /// Takes a programme's news. A break is kept here for whichever life of the Mixer looks next.
    pub(super) fn news(&self, revision: u64) -> impl Fn(ProgrammeEvent) + Send + Sync + use<> {
        let broken = self.broken.clone();
        move |event| match event {
            ProgrammeEvent::Failed { message } => *lock(&broken) = Some((revision, message)),
            ProgrammeEvent::TakeLanded { id, frames } => tracing::debug!(id, frames, "take landed"),
            other => tracing::debug!(?other, "programme"),
        }
    }

    /// Why the programme of this revision broke, if it did.
    pub(super) fn take_break(&self, revision: u64) -> Option<String> {
        lock(&self.broken).take_if(|(broken, _)| *broken == revision).map(|(_, message)| message)
    }

    /// Takes the programme out. Dropping the answer stops it, and may block.
    pub(super) fn clear(&self) -> Option<impl Send + use<>> {
        lock(&self.on_air).take()
    }

    /// What the Mixer has in mind; `None` before its first scene.
    pub fn mind(&self) -> Option<MixerCore> {
        lock(&self.mind).clone()
    }

    pub(super) fn keep(&self, mind: &MixerCore) {
        *lock(&self.mind) = Some(mind.clone());
    }

    /// What left the compositor; `None` while no programme runs.
    pub fn stats(&self) -> Option<ProgrammeStats> {
        Some(self.on_air()?.composer.stats())
    }

    /// The encoded programme; `None` while none runs.
    pub fn fanout(&self) -> Option<RtpFanout> {
        self.on_air()?.composer.rtp()
    }

    /// Starts the return feed of a guest; `None` while no programme runs. May block for some milliseconds.
    ///
    /// # Errors
    /// When it does not start.
    pub fn return_mix(&self, seat: &str) -> Result<Option<ReturnMix>, PipelineError> {
        self.on_air().map_or(Ok(None), |on_air| on_air.composer.return_mix(seat))
    }

    /// Who encodes it, and why; empty while no programme runs.
    pub fn encoder(&self) -> EncoderState {
        self.on_air().map(|on_air| on_air.composer.encoder()).unwrap_or_default()
    }
}
