//! What one guest hears of the programme: its sound without the guest's own (N-1, mix-minus), beside its pictures as encoded once.
//!
//! ```text
//! every other slot's sound, as the programme takes it -> appsrc ! audiomixer ! opusenc ! rtpopuspay ! appsink
//! ```
//! It is the programme's sound and no more: who is not on air is not heard, by the guests neither. What the slots hand over is
//! faded by the crew already; the gain that the programme mixes it with is applied here. The pipeline is one of its own, so
//! that the programme's never changes while it runs; it exists for as long as its guest listens.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use super::build::{AUDIO_LATENCY, Primed, aggregate_live, join, live_source, request};
use super::slot::SoundTap;
use super::{PRIME_LIMIT, Programme, lock, silence};
use crate::clock;
use crate::elements::{add_linked, make};
use crate::error::PipelineError;
use crate::fanout::RtpFanout;
use crate::feed::fader::fade;
use crate::mode::audio_caps;
use crate::output::audio_tail;
use crate::teardown;

/// The return feed of one guest. Dropping it stops it in the background.
pub struct ReturnMix {
    fanout: RtpFanout,
    pipeline: gst::Pipeline,
    /// The slots hold these weakly.
    taps: Vec<Arc<SoundTap>>,
}

impl ReturnMix {
    /// Pictures of the programme, sound of everyone but that guest.
    pub fn rtp(&self) -> RtpFanout {
        self.fanout.clone()
    }
}

impl Drop for ReturnMix {
    fn drop(&mut self) {
        self.taps.clear();
        teardown::dismantle_in_background(self.pipeline.clone(), ());
    }
}

impl Programme {
    /// Starts the return feed for who sits at that input. Blocks for some milliseconds.
    ///
    /// # Errors
    /// `Rejected` when there is no such input, `Failed` when the pipeline does not start.
    pub fn return_mix(&self, input: &str) -> Result<ReturnMix, PipelineError> {
        self.slot(input)?;
        let name = format!("return-{input}");
        let pipeline = gst::Pipeline::with_name(&name);
        clock::adopt(&pipeline);
        let fanout = self.rtp().with_other_sound();
        let mixer = aggregate_live("audiomixer", AUDIO_LATENCY)?;
        mixer.set_property("output-buffer-duration", 20_000_000u64);
        mixer.set_property("discont-wait", 0u64);
        let filter = make("capsfilter")?;
        filter.set_property("caps", audio_caps());
        add_linked(&pipeline, &[&mixer, &filter])?;
        let failed = |error: &dyn std::fmt::Display| PipelineError::failed(&name, error);
        filter.link(&audio_tail(&pipeline, &fanout)?).map_err(|e| failed(&e))?;
        let (mut sources, mut pads) = (Vec::new(), Vec::new());
        let others: Vec<_> = self.shared.slots.iter().filter(|slot| slot.input.id != input).collect();
        for slot in &others {
            let source = live_source(&format!("sound-{}", slot.input.id), &audio_caps(), 50);
            pipeline.add(&source).map_err(|e| failed(&e))?;
            let pad = request(&mixer)?;
            join(source.upcast_ref(), &pad)?;
            pads.push(pad);
            sources.push(source);
        }
        let mut mix = ReturnMix { fanout, pipeline, taps: Vec::new() };
        let primed = Primed::count(&pads);
        for source in &sources {
            let _ = source.push_buffer(silence(&self.shared.plan.mode));
        }
        let base = Arc::new(std::sync::atomic::AtomicU64::new(0));
        primed.play(&mix.pipeline, PRIME_LIMIT, |at| base.store(at, Ordering::Relaxed))?;
        // What a slot's stamps have to be moved by; they count from the programme's beginning.
        let later = base.load(Ordering::Relaxed).saturating_sub(self.base.load(Ordering::Relaxed));
        for (slot, source) in others.into_iter().zip(sources) {
            let last = Mutex::new(0.0);
            let tap: Arc<SoundTap> = Arc::new(move |sound, gain| {
                let was = std::mem::replace(&mut *lock(&last), gain);
                let Some(at) = sound.pts().and_then(|at| at.nseconds().checked_sub(later)) else { return };
                let mut sound = fade(sound, was, gain);
                if let Some(buffer) = sound.get_mut() {
                    buffer.set_pts(gst::ClockTime::from_nseconds(at));
                    buffer.set_dts(None);
                }
                let _ = source.push_buffer(sound);
            });
            slot.tap_sound(&tap);
            mix.taps.push(tap);
        }
        Ok(mix)
    }
}
