//! Pictures and sound: pure plans, the GStreamer pipelines that carry them out, and WebRTC peers.
//!
//! One pipeline per input delivers a [`feed::Feed`]; one programme pipeline that never leaves PLAYING composes the feeds.
//! Neither can stall the other. The plans (scenes, layouts, takes, signal states, time maps) are pure and tested without
//! GStreamer; the runners are thin.

pub mod clock;
pub mod elements;
pub mod encoder;
pub mod error;
pub mod fanout;
pub mod feed;
pub mod forwarder;
pub mod graphs;
pub mod guest;
pub mod hls;
pub mod ice;
pub mod input;
pub mod layout;
pub mod mode;
mod output;
pub mod peer;
pub mod preview;
pub mod profile;
pub mod programme;
pub mod render;
pub mod scene;
pub mod sdp;
pub mod signal;
pub mod teardown;
pub mod thumbnail;

pub use elements::{check_elements, init};
pub use encoder::{EncoderChoice, choose_encoder};
pub use error::{ErrorKind, PipelineError};
pub use fanout::RtpFanout;
pub use feed::{Feed, FeedConsumer, FeedLink, FeedStats};
pub use hls::HlsStream;
pub use input::{Fault, InputEvent, InputPipeline, SignalReport, SourceSpec};
pub use layout::Transition;
pub use mode::Mode;
pub use preview::PreviewEncoder;
pub use profile::Profile;
pub use programme::{
    InputOnProgramme, Programme, ProgrammeEvent, ProgrammeInput, ProgrammePlan, ProgrammeStats, TakeTicket,
};
pub use scene::shipped::{SceneInput, SceneSet};
pub use scene::{Scene, Slot, SourceType};
pub use signal::Signal;
pub use thumbnail::{Thumbnail, Thumbnails};
