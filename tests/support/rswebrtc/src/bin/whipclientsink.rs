//! A guest as GStreamer's users run one: `whipclientsink` of gst-plugins-rs sends a test picture and a tone to an endpoint.
//!
//! `whipclientsink ENDPOINT TOKEN` offers every codec that it finds an encoder for, as the element does by itself. SIGINT ends
//! it as it ends `gst-launch-1.0`: the pipeline stops, and the session with it.

use anyhow::{Context, Result, bail};
use gst::prelude::*;

const SOURCES: &str = "whipclientsink name=guest \
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 ! queue ! guest. \
    audiotestsrc is-live=true freq=440 ! queue ! guest.";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().context("no endpoint")?;
    let token = arguments.next().context("no token")?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    gst::init()?;
    gstrswebrtc::plugin_register_static()?;

    let Ok(pipeline) = gst::parse::launch(SOURCES)?.downcast::<gst::Pipeline>() else { bail!("not a pipeline") };
    let guest = pipeline.by_name("guest").context("no guest")?;
    // By default it asks a STUN server on the Internet, and offers only when that is done: nobody needs it on loopback.
    guest.set_property("stun-server", None::<String>);
    let signaller = guest.property::<gst::glib::Object>("signaller");
    signaller.set_property("whip-endpoint", &endpoint);
    signaller.set_property("auth-token", &token);

    let bus = pipeline.bus().context("a pipeline has a bus")?;
    let told = bus.clone();
    ctrlc::set_handler(move || drop(told.post(gst::message::Eos::new())))?;
    pipeline.set_state(gst::State::Playing)?;
    let mut fault = None;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Error(error) => {
                fault = Some(format!("{} ({:?})", error.error(), error.debug()));
                break;
            }
            gst::MessageView::Eos(_) => break,
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null)?;
    match fault {
        Some(fault) => bail!(fault),
        None => Ok(()),
    }
}
