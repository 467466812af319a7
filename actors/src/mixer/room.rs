//! The programme's place in the studio: the running programme and what the Mixer had in mind, for whichever life of the
//! Mixer comes next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use r58_pipelines::RtpFanout;
use r58_pipelines::programme::ProgrammeStats;

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
    /// What it was told, input by input; belongs to this programme and no other.
    pub applied: Arc<Mutex<BTreeMap<String, Applied>>>,
}

/// See the module.
#[derive(Default)]
pub struct ProgrammeRoom {
    on_air: Mutex<Option<OnAir>>,
    mind: Mutex<Option<MixerCore>>,
}

impl ProgrammeRoom {
    pub(super) fn on_air(&self) -> Option<OnAir> {
        lock(&self.on_air).clone()
    }

    pub(super) fn install(&self, composer: Arc<dyn Composer>) {
        *lock(&self.on_air) = Some(OnAir { composer, applied: Arc::default() });
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

    /// Who encodes it, and why; empty while no programme runs.
    pub fn encoder(&self) -> EncoderState {
        self.on_air().map(|on_air| on_air.composer.encoder()).unwrap_or_default()
    }
}
