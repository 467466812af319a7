//! Pictures and sound: pure plans, the GStreamer pipelines that carry them out, and WebRTC peers.
//!
//! One pipeline per input delivers a [`feed::Feed`]; one programme pipeline that never leaves PLAYING composes the feeds.
//! Neither can stall the other. The plans (scenes, layouts, takes, signal states, time maps) are pure and tested without
//! GStreamer; the runners are thin.

pub mod clock;
pub mod elements;
pub mod error;
pub mod fanout;
pub mod feed;
pub mod ice;
pub mod mode;
pub mod peer;
pub mod sdp;

pub use elements::{check_elements, init};
pub use error::{ErrorKind, PipelineError};
pub use fanout::RtpFanout;
pub use feed::{Feed, FeedConsumer, FeedLink, FeedStats};
pub use mode::Mode;
