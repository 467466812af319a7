//! A camera on the network: GStreamer's RTSP server on loopback, that can be killed without a goodbye and come back.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::JoinHandle;

use gst::glib;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{
    RTSP_PERM_MEDIA_FACTORY_ACCESS, RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, RTSP_TOKEN_MEDIA_FACTORY_ROLE, RTSPAuth,
    RTSPFilterResult, RTSPMediaFactory, RTSPServer, RTSPToken,
};

/// What the cameras' microphones hear, in hertz.
pub const TONE: u32 = 1000;

const H264: &str = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay config-interval=-1";
const H265: &str = "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph265pay config-interval=-1";
const AAC: &str = "audio/x-raw,rate=48000,channels=2 ! avenc_aac ! rtpmp4gpay";
const OPUS: &str = "audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay";
const PCMA: &str = "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay";

/// What a camera sends.
#[derive(Clone, Copy)]
pub enum Kind {
    H264Aac,
    H264Opus,
    H264Pcma,
    /// Without a microphone.
    H265,
}

impl Kind {
    fn launch(self) -> String {
        let (video, audio) = match self {
            Self::H264Aac => (H264, Some(AAC)),
            Self::H264Opus => (H264, Some(OPUS)),
            Self::H264Pcma => (H264, Some(PCMA)),
            Self::H265 => (H265, None),
        };
        let picture =
            "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate=30/1";
        let sound = audio.map_or(String::new(), |audio| {
            format!(
                "audiotestsrc is-live=true samplesperbuffer=480 freq={TONE} volume=0.5 ! audioconvert ! audioresample ! \
                 {audio} name=pay1 pt=97"
            )
        });
        format!("( {picture} ! {video} name=pay0 pt=96 {sound} )")
    }
}

/// Who may watch.
pub const USER: &str = "crew";
/// With which word.
pub const PASSWORD: &str = "seven-seas";

/// A running camera. Dropping it kills it.
pub struct Camera {
    port: u16,
    described: Arc<AtomicUsize>,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    /// On a free port, for everybody.
    pub fn start(kind: Kind) -> Self {
        Self::run(kind, 0, false)
    }

    /// On a port where one ran before.
    pub fn start_on(kind: Kind, port: u16) -> Self {
        Self::run(kind, port, false)
    }

    /// On a free port, for [`USER`] with [`PASSWORD`].
    pub fn start_guarded(kind: Kind) -> Self {
        Self::run(kind, 0, true)
    }

    fn run(kind: Kind, port: u16, guarded: bool) -> Self {
        gst::init().unwrap();
        let described = Arc::new(AtomicUsize::new(0));
        let (started, up) = mpsc::channel();
        let count = described.clone();
        let thread = std::thread::spawn(move || {
            let context = glib::MainContext::new();
            let main_loop = glib::MainLoop::new(Some(&context), false);
            let server = server(kind, port, guarded, count);
            let source = server.attach(Some(&context)).unwrap();
            started.send((server.bound_port(), main_loop.clone())).unwrap();
            main_loop.run();
            if let Some(listening) = context.find_source_by_id(&source) {
                listening.destroy();
            }
            server.client_filter(Some(&mut |_, client| {
                client.close();
                RTSPFilterResult::Remove
            }));
        });
        let (port, main_loop) = up.recv().unwrap();
        Self { port: u16::try_from(port).unwrap(), described, main_loop, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address; `login` such as `user:password`.
    pub fn url(&self, login: Option<&str>) -> String {
        let login = login.map_or(String::new(), |login| format!("{login}@"));
        format!("rtsp://{login}127.0.0.1:{}/live", self.port)
    }

    /// How often somebody asked for the description of its stream, let in or not.
    pub fn described(&self) -> usize {
        self.described.load(SeqCst)
    }

    /// Its sockets close, and that is all that anybody hears of it.
    pub fn kill(self) {}
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn server(kind: Kind, port: u16, guarded: bool, described: Arc<AtomicUsize>) -> RTSPServer {
    let server = RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&port.to_string());
    let factory = RTSPMediaFactory::new();
    factory.set_launch(&kind.launch());
    factory.set_shared(true);
    if guarded {
        let role = gst::Structure::builder("crew")
            .field(RTSP_PERM_MEDIA_FACTORY_ACCESS.as_str(), true)
            .field(RTSP_PERM_MEDIA_FACTORY_CONSTRUCT.as_str(), true)
            .build();
        factory.add_role_from_structure(&role);
        let token = RTSPToken::builder().field(RTSP_TOKEN_MEDIA_FACTORY_ROLE.as_str(), "crew").build();
        let auth = RTSPAuth::new();
        auth.add_basic(&RTSPAuth::make_basic(USER, PASSWORD), &token);
        server.set_auth(Some(&auth));
    }
    server.mount_points().unwrap().add_factory("/live", factory);
    server.connect_client_connected(move |_, client| {
        let described = described.clone();
        client.connect_pre_describe_request(move |_, _| {
            described.fetch_add(1, SeqCst);
            gst_rtsp_server::gst_rtsp::RTSPStatusCode::Ok
        });
    });
    server
}
