//! The one clock of the box's pictures and sounds.
//!
//! Every pipeline runs on the system's monotonic clock, so that a moment in one of them is the same moment in all of them:
//! `base time + running time` is comparable between pipelines whenever they were started.

use gst::prelude::*;

/// The clock that all pipelines share.
pub fn media_clock() -> gst::Clock {
    gst::SystemClock::obtain()
}

/// Makes a pipeline run on the shared clock, whatever its elements offer, and notes it for those who look at all of them
/// ([`crate::graphs`]). Call it before the first state change.
pub fn adopt(pipeline: &gst::Pipeline) {
    pipeline.use_clock(Some(&media_clock()));
    crate::graphs::note(pipeline);
}

/// Now, in nanoseconds of the shared clock.
pub fn now_nanos() -> u64 {
    media_clock().time().nseconds()
}
