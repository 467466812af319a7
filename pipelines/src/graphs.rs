//! The pipelines that live, for those who look for what is wrong: each as a graph in GraphViz's language.
//!
//! Pipelines are noted when they are built and forgotten when they are gone. A graph holds the elements' properties, addresses
//! with passwords among them: whoever passes it on takes secrets out first.

use std::sync::{Mutex, PoisonError};

use gst::glib;
use gst::prelude::*;

static LIVE: Mutex<Vec<glib::WeakRef<gst::Pipeline>>> = Mutex::new(Vec::new());

/// Notes a pipeline that was built.
pub fn note(pipeline: &gst::Pipeline) {
    let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    live.retain(|known| known.upgrade().is_some());
    live.push(pipeline.downgrade());
}

/// Name and graph of every pipeline that lives. May block while one hangs in a change of state: not for an actor's thread.
pub fn draw() -> Vec<(String, String)> {
    let live: Vec<gst::Pipeline> =
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(glib::WeakRef::upgrade).collect();
    let drawn = live.iter().map(|pipeline| {
        (pipeline.name().to_string(), pipeline.debug_to_dot_data(gst::DebugGraphDetails::all()).to_string())
    });
    drawn.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_drawn_while_it_lives() {
        gst::init().expect("GStreamer");
        let pipeline = gst::Pipeline::with_name("drawn-in-a-test");
        let source = gst::ElementFactory::make("fakesrc").name("one-source").build().expect("an element");
        pipeline.add(&source).expect("added");
        note(&pipeline);
        let of_mine = || draw().into_iter().find(|(name, _)| name == "drawn-in-a-test");
        let (_, graph) = of_mine().expect("drawn");
        assert!(graph.starts_with("digraph") && graph.contains("one-source"), "{graph}");
        drop(source);
        drop(pipeline);
        assert!(of_mine().is_none());
    }
}
