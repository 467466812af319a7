//! Ending a pipeline without waiting for it.
//!
//! `set_state(NULL)` can hang for ever in a driver or a network element. It runs on a thread of its own with a deadline; a
//! pipeline that misses it is left to its thread (quarantined) and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use gst::prelude::*;

/// How long a pipeline may take to stop.
pub const DEADLINE: Duration = Duration::from_secs(3);

static QUARANTINED: AtomicU64 = AtomicU64::new(0);

/// Pipelines that did not stop in time since the process started.
pub fn quarantined() -> u64 {
    QUARANTINED.load(Ordering::Relaxed)
}

/// Stops a pipeline on its own thread and waits at most [`DEADLINE`] for it. Answers whether it stopped.
pub fn dismantle(pipeline: gst::Pipeline) -> bool {
    dismantle_holding(pipeline, ())
}

/// The same; `held` is dropped when the pipeline really has stopped, be that long after the deadline.
pub fn dismantle_holding(pipeline: gst::Pipeline, held: impl Send + 'static) -> bool {
    let name = pipeline.name().to_string();
    bounded(&name, DEADLINE, move || {
        if pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!(pipeline = %pipeline.name(), "pipeline refused to stop");
        }
        drop(held);
    })
}

/// Starts stopping a pipeline and returns at once; the deadline is watched by the thread that does it. `held` is dropped when
/// it really has stopped.
pub fn dismantle_in_background(pipeline: gst::Pipeline, held: impl Send + 'static) {
    let spawned = std::thread::Builder::new().name("dismantle".into()).spawn(move || {
        dismantle_holding(pipeline, held);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to stop a pipeline with");
    }
}

fn bounded(name: &str, deadline: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, finished) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("set-null".into()).spawn(move || {
        work();
        let _ = done.send(());
    });
    let stopped = spawned.is_ok() && finished.recv_timeout(deadline).is_ok();
    if !stopped {
        QUARANTINED.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(pipeline = name, "pipeline did not stop in time and is left behind");
    }
    stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_that_never_stops_is_left_behind_and_counted() {
        let before = quarantined();
        let (_keep, never) = mpsc::channel::<()>();
        let stopped = bounded("stuck", Duration::from_millis(20), move || {
            let _ = never.recv();
        });
        assert!(!stopped);
        assert_eq!(quarantined(), before + 1);
    }
}
