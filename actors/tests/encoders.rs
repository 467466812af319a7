//! Which encoder the programme has, which the previews have, and how many run: the profile's list and budget at work, with a
//! stand-in for the box's chip.
#![allow(clippy::unwrap_used)]

mod support;

use r58_actors::device::DevicePlan;
use r58_actors::state::EncoderState;
use r58_actors::viewers::doorway::{Preview, ViewerDoorway, WebRtcViewerDoorway};
use r58_pipelines::encoder::EncoderDesk;
use r58_pipelines::encoder::budget::SessionUsage;
use r58_pipelines::{PipelineError, Profile};
use support::*;

/// An encoder with the chip's name and properties, that encodes with x264.
mod chip {
    use std::sync::OnceLock;

    use gst::glib;
    use gst::prelude::*;
    use gst::subclass::prelude::*;

    #[derive(Default)]
    pub struct Inner;

    #[glib::object_subclass]
    impl ObjectSubclass for Inner {
        const NAME: &'static str = "StandInChip";
        type Type = Chip;
        type ParentType = gst::Bin;
    }

    glib::wrapper! {
        pub struct Chip(ObjectSubclass<Inner>) @extends gst::Bin, gst::Element, gst::Object;
    }

    impl ObjectImpl for Inner {
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: OnceLock<Vec<glib::ParamSpec>> = OnceLock::new();
            PROPERTIES.get_or_init(|| {
                vec![
                    glib::ParamSpecUInt::builder("bps").build(),
                    glib::ParamSpecInt::builder("gop").build(),
                    glib::ParamSpecString::builder("profile").build(),
                    glib::ParamSpecString::builder("rc-mode").build(),
                ]
            })
        }

        fn set_property(&self, _: usize, _: &glib::Value, _: &glib::ParamSpec) {}

        fn property(&self, _: usize, spec: &glib::ParamSpec) -> glib::Value {
            spec.default_value().clone()
        }

        fn constructed(&self) {
            self.parent_constructed();
            let encoder = gst::ElementFactory::make("x264enc").build().unwrap();
            encoder.set_property_from_str("tune", "zerolatency");
            encoder.set_property_from_str("speed-preset", "ultrafast");
            self.obj().add(&encoder).unwrap();
            for name in ["sink", "src"] {
                let pad = gst::GhostPad::with_target(&encoder.static_pad(name).unwrap()).unwrap();
                self.obj().add_pad(&pad).unwrap();
            }
        }
    }

    impl GstObjectImpl for Inner {}

    impl ElementImpl for Inner {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
            let make = || gst::subclass::ElementMetadata::new("Stand-in", "Codec/Encoder/Video", "For tests", "R58");
            Some(METADATA.get_or_init(make))
        }
    }

    impl BinImpl for Inner {}

    pub fn install() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            gst::init().unwrap();
            gst::Element::register(None, "mpph264enc", gst::Rank::NONE, Chip::static_type()).unwrap();
        });
    }
}

fn desk(encoders: &[&str], sessions: u32) -> EncoderDesk {
    let mut profile = Profile::auto();
    profile.encoders = encoders.iter().map(|name| (*name).to_owned()).collect();
    profile.budgets.encoder_sessions = sessions;
    EncoderDesk::new(&profile, None)
}

/// Asks for previews as viewers do.
fn doorway(subject: &Studio58, encoders: &EncoderDesk) -> WebRtcViewerDoorway {
    let (peers, studio) = (subject.handle.peers.clone(), subject.handle.studio.clone());
    WebRtcViewerDoorway { peers, studio, encoders: encoders.clone() }
}

async fn sessions(subject: &mut Studio58, hardware: u32, most: u32, software: u32) -> EncoderState {
    let wanted = SessionUsage { hardware, most, software };
    let state = subject.until("as many sessions", |state| state.programme.encoder.sessions == wanted).await;
    state.programme.encoder.clone()
}

async fn delivers(preview: &Preview) {
    tokio::time::timeout(LIMIT, preview.fanout.subscribe_video().recv()).await.unwrap().unwrap();
}

#[test]
fn previews_beyond_the_chips_budget_are_encoded_in_software_and_the_state_counts_them() {
    chip::install();
    let encoders = desk(&["mpph264enc", "openh264enc"], 2);
    let plan = DevicePlan { encoders: encoders.clone(), ..plan() };
    with_this_box(plan, |mut subject| async move {
        let alone = sessions(&mut subject, 1, 2, 0).await;
        assert_eq!(alone.name, "mpph264enc");
        assert!(alone.reason.starts_with("encoded 15 test frames"), "{}", alone.reason);
        let doorway = doorway(&subject, &encoders);
        let room = |id: &str| subject.handle.studio.input(id).unwrap().clone();
        let (cam1, cam2) = (room("cam1"), room("cam2"));
        let first = doorway.preview(&cam1).unwrap();
        let second = doorway.preview(&cam2).unwrap();
        sessions(&mut subject, 2, 2, 1).await;
        delivers(&first).await;
        delivers(&second).await;
        drop((first, second));
        sessions(&mut subject, 1, 2, 0).await;
    });
}

#[test]
fn a_chip_that_has_no_session_left_and_no_help_from_software_refuses_a_preview_and_not_the_programme() {
    chip::install();
    let encoders = desk(&["mpph264enc"], 2);
    let plan = DevicePlan { encoders: encoders.clone(), ..plan() };
    with_this_box(plan, |mut subject| async move {
        let doorway = doorway(&subject, &encoders);
        let room = |id: &str| subject.handle.studio.input(id).unwrap().clone();
        let (cam1, cam2) = (room("cam1"), room("cam2"));
        let first = doorway.preview(&cam1).unwrap();
        let refused = doorway.preview(&cam2).err().unwrap();
        assert!(
            matches!(&refused, r58_actors::GuestError::Pipeline(PipelineError::EncodersBusy { most: 2, .. })),
            "{refused}"
        );
        assert_eq!(refused.status(), 503);
        sessions(&mut subject, 2, 2, 0).await;
        subject.frames(5).await;
        drop(first);
        sessions(&mut subject, 1, 2, 0).await;
        delivers(&doorway.preview(&cam2).unwrap()).await;
    });
}
