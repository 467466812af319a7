//! The seam between a Camera and what it opens, so that a scripted source can take a pipeline's place.

use std::sync::Arc;

use r58_pipelines::input::{Fault, InputEvent, InputPipeline, SourceSpec};
use r58_pipelines::signal::Signal;
use r58_pipelines::{ErrorKind, Feed, FeedConsumer, FeedLink, Mode, PipelineError};

use super::RehearsedFault;
use crate::error::ActorsError;
use crate::studio::InputRoom;

/// What a source says on its own, from whichever thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// How its signal is, and why.
    Signal(Signal, String),
    /// What it delivers, for people.
    Format(String),
    /// It is broken and will not deliver any more.
    Broke {
        /// Why.
        reason: String,
        /// Whether somebody has to change something first, so that another try soon is of no use.
        lasting: bool,
    },
}

/// Takes a source's news; must not block.
pub type SourceNews = Arc<dyn Fn(SourceEvent) + Send + Sync>;

/// An open source. Dropping it stops it, and may block.
pub trait CameraSource: Send {
    /// How its signal is at the moment, and what it delivers when that is known.
    fn signal(&self) -> (Signal, String, Option<String>);

    /// Why its sound is missing; empty when it is there, or none is expected.
    fn sound(&self) -> String {
        String::new()
    }

    /// Plays a fault.
    ///
    /// # Errors
    /// When this source cannot.
    fn rehearse(&self, fault: RehearsedFault) -> Result<(), ActorsError>;
}

/// Opens a source that fills the room's feed. Blocks: called on a thread of its own.
pub trait SourceOpener: Send + Sync {
    /// Opens it.
    ///
    /// # Errors
    /// Whatever keeps the source from delivering.
    fn open(&self, room: &InputRoom, news: SourceNews) -> Result<Box<dyn CameraSource>, PipelineError>;
}

/// Opens an input pipeline.
pub struct PipelineOpener {
    /// Where the pictures come from.
    pub source: SourceSpec,
    /// What they are made into.
    pub mode: Mode,
}

impl SourceOpener for PipelineOpener {
    fn open(&self, room: &InputRoom, news: SourceNews) -> Result<Box<dyn CameraSource>, PipelineError> {
        let name = room.name();
        let events = Arc::new(move |event| match event {
            // The first picture changes the signal, too.
            InputEvent::FirstFrame => {}
            InputEvent::SignalChanged { signal, reason } => news(SourceEvent::Signal(signal, reason)),
            InputEvent::FormatChanged { format } => news(SourceEvent::Format(format)),
            InputEvent::Error { message, kind } => {
                news(SourceEvent::Broke { reason: message, lasting: kind == ErrorKind::Misconfigured });
            }
            InputEvent::Eos => news(SourceEvent::Broke { reason: "the source ended".into(), lasting: false }),
        });
        let pipeline = InputPipeline::start(&name.id, &name.label, &self.source, &self.mode, events)?;
        let link = pipeline.feed().subscribe(Arc::new(Relay(room.feed().clone())));
        Ok(Box::new(Running { pipeline: Some(pipeline), _link: link }))
    }
}

/// From one pipeline's feed into the room's, which outlives it.
struct Relay(Feed);

impl FeedConsumer for Relay {
    fn video(&self, at: u64, picture: &gst::Buffer) {
        self.0.push_video(at, picture);
    }

    fn audio(&self, at: u64, sound: &gst::Buffer) {
        self.0.push_audio(at, sound);
    }
}

struct Running {
    pipeline: Option<InputPipeline>,
    _link: FeedLink,
}

impl CameraSource for Running {
    fn signal(&self) -> (Signal, String, Option<String>) {
        match &self.pipeline {
            Some(pipeline) => {
                let report = pipeline.signal();
                (report.signal, report.reason, report.format)
            }
            None => (Signal::Failed, "stopped".into(), None),
        }
    }

    fn sound(&self) -> String {
        self.pipeline.as_ref().map(|pipeline| pipeline.signal().sound).unwrap_or_default()
    }

    fn rehearse(&self, fault: RehearsedFault) -> Result<(), ActorsError> {
        let fault = match fault {
            RehearsedFault::None | RehearsedFault::Panic => Fault::None,
            RehearsedFault::Stall => Fault::Stall,
            RehearsedFault::Unplug => Fault::Unplug,
        };
        self.pipeline.as_ref().map_or(Ok(()), |pipeline| pipeline.rehearse(fault)).map_err(ActorsError::from)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take()
            && !pipeline.stop()
        {
            tracing::warn!("a source does not stop; it is left to its thread");
        }
    }
}
