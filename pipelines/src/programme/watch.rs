//! The programme's watch: a thread that notices silent inputs, draws their slates, and listens to the pipeline's bus.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::Shared;
use super::types::ProgrammeEvent;
use crate::error::PipelineError;
use crate::render;

/// How often silent inputs are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Slates kept drawn. Reasons are few; a flood of different ones must not fill the memory.
const MOST_SLATES: usize = 6;

/// Starts the watch. It ends by itself when the programme stops or is dropped.
pub(super) fn spawn(shared: &Arc<Shared>) -> Result<(), PipelineError> {
    let weak = Arc::downgrade(shared);
    let bus = shared.built.pipeline.bus().ok_or_else(|| PipelineError::Bug("a pipeline without a bus".into()))?;
    let spawned = std::thread::Builder::new().name("programme-watch".into()).spawn(move || watch(&weak, &bus));
    spawned.map(|_| ()).map_err(|error| PipelineError::failed("programme", error))
}

fn watch(weak: &Weak<Shared>, bus: &gst::Bus) {
    let wanted = [gst::MessageType::Error, gst::MessageType::Eos, gst::MessageType::Warning];
    let mut slates = HashMap::new();
    let tick = gst::ClockTime::from_nseconds(TICK.as_nanos() as u64);
    loop {
        {
            let Some(shared) = weak.upgrade().filter(|shared| !shared.stopping.load(Ordering::SeqCst)) else { return };
            shared.draw_slates(&mut slates);
        }
        let Some(message) = bus.timed_pop_filtered(tick, &wanted) else { continue };
        let Some(shared) = weak.upgrade().filter(|shared| !shared.stopping.load(Ordering::SeqCst)) else { return };
        match message.view() {
            gst::MessageView::Error(error) => {
                let message = format!("{}: {}", source_name(&message), error.error());
                (shared.events)(ProgrammeEvent::Failed { message });
            }
            gst::MessageView::Eos(_) => {
                (shared.events)(ProgrammeEvent::Failed { message: "the programme reached its end".into() });
            }
            gst::MessageView::Warning(warning) => {
                tracing::warn!(element = source_name(&message), warning = %warning.error(), "programme warning");
            }
            _ => {}
        }
    }
}

impl Shared {
    fn draw_slates(&self, slates: &mut HashMap<(usize, String), gst::Buffer>) {
        for (n, slot) in self.slots.iter().enumerate() {
            let Some(reason) = slot.wants_slate(Instant::now()) else { continue };
            let key = (n, reason);
            if !slates.contains_key(&key) {
                if slates.len() >= MOST_SLATES {
                    slates.clear();
                }
                match render::slate(&self.plan.mode, &slot.headline(), &key.1) {
                    Ok(picture) => slates.insert(key.clone(), picture),
                    Err(error) => {
                        tracing::warn!(input = slot.input.id, %error, "slate could not be drawn");
                        continue;
                    }
                };
            }
            if let Some(picture) = slates.get(&key) {
                slot.show_slate(picture, &key.1);
            }
        }
    }
}

/// The first error on a pipeline's bus, in words.
pub(super) fn first_error(pipeline: &gst::Pipeline) -> String {
    let message = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => error.error().to_string(),
        _ => "refused to start".into(),
    }
}

fn source_name(message: &gst::Message) -> String {
    message.src().map_or_else(|| "pipeline".into(), |source| source.name().to_string())
}
