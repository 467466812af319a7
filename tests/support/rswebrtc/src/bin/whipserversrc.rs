//! The peer of the guest's benchmark: `whipserversrc` of gst-plugins-rs, decoding one guest.
//!
//! It says where it listens, and says so when the first picture is decoded; it runs until it is ended.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use gst::prelude::*;

fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    gst::init()?;
    gstrswebrtc::plugin_register_static()?;
    // It takes no port 0, so a free one is found first.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("http://127.0.0.1:{port}");

    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("whipserversrc").build()?;
    let signaller = source.property::<gst::glib::Object>("signaller");
    signaller.set_property("host-addr", &address);
    // By default it asks a STUN server on the Internet, and answers only when that is done: nobody needs it on loopback.
    signaller.set_property("stun-server", None::<String>);
    source.set_property("stun-server", None::<String>);
    pipeline.add(&source)?;
    let inside = pipeline.downgrade();
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = inside.upgrade() else { return };
        if let Err(error) = sink(&pipeline, pad) {
            eprintln!("{}: {error:#}", pad.name());
        }
    });
    pipeline.set_state(gst::State::Playing)?;
    while TcpListener::bind(("127.0.0.1", port)).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    println!("listening on {address}/whip/endpoint");
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        if let gst::MessageView::Error(error) = message.view() {
            eprintln!("{}", error.error());
        }
    }
    Ok(())
}

/// Takes the decoded stream of one pad and throws it away.
fn sink(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<()> {
    let video = pad.name().starts_with("video");
    let raw = gst::ElementFactory::make("capsfilter")
        .property("caps", gst::Caps::new_empty_simple(if video { "video/x-raw" } else { "audio/x-raw" }))
        .build()?;
    let fake = gst::ElementFactory::make("fakesink").property("sync", false).build()?;
    pipeline.add_many([&raw, &fake])?;
    raw.link(&fake)?;
    let first = AtomicBool::new(true);
    let entry = fake.static_pad("sink").context("a sink has a pad")?;
    entry.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if video && first.swap(false, Ordering::Relaxed) {
            println!("first picture of a guest");
        }
        gst::PadProbeReturn::Ok
    });
    raw.sync_state_with_parent()?;
    fake.sync_state_with_parent()?;
    pad.link(&raw.static_pad("sink").context("a filter has a pad")?)?;
    Ok(())
}
