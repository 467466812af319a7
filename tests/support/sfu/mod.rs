//! A stand-in for Cloudflare's SFU: its HTTPS API on loopback, with its traps, and peers behind it that really forward media.
//!
//! | room | what |
//! |---|---|
//! | `desk` | requests and answers in the API's own form; what goes wrong on demand |
//! | `session` | a session's peer connection: what it publishes, what it pulls, forwarding |
//!
//! As the service is said to: `sessions/new` wants not a byte of body; an SDP whose last line end is missing is refused; a change
//! beside another one, or while an answer is awaited, gets 406; a pull from a publisher that is not connected 425; a session that
//! is gone 410; what is wrong with one track stands in a 200. Its ends of ICE are lite.

mod desk;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use webrtc::api::API;

use session::Session;

/// The app that it knows.
pub const APP_ID: &str = "0123456789abcdef0123456789abcdef";
/// What opens it.
pub const SECRET: &str = "secret-of-the-stand-in";

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    New,
    Push,
    Pull,
    Renegotiate,
    Close,
    Look,
}

/// What goes wrong with the next request of a kind.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is not carried out; this status with this body.
    Status(u16, &'static str),
    /// It is carried out after this time.
    Delay(Duration),
    /// It is carried out, and the connection breaks before the answer.
    LostReply,
    /// This track of it gets this error; the others are carried out.
    Track(&'static str, &'static str),
}

/// What the desk and the sessions share.
pub struct Shared {
    api: API,
    runtime: tokio::runtime::Handle,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    faults: Mutex<BTreeMap<Call, VecDeque<Fault>>>,
    /// Each request with its status, in order.
    log: Mutex<Vec<String>>,
}

/// A running stand-in; ended when dropped.
pub struct Sfu {
    /// Base address for `device.sfu.base_url`.
    pub url: String,
    shared: Arc<Shared>,
    server: ServerHandle,
    thread: Option<std::thread::JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Sfu {
    /// Starts one on a free port of loopback; its peers offer every address of this machine, or of this namespace.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1")
    }

    /// The same on a free port of another address.
    pub fn start_on(address: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let shared = Arc::new(Shared {
            api: session::api(),
            runtime: runtime.handle().clone(),
            sessions: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
        });
        let data = web::Data::from(shared.clone());
        let (tell, told) = std::sync::mpsc::channel();
        let address = address.to_owned();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let app = move || App::new().app_data(data.clone()).configure(desk::routes);
                let server = HttpServer::new(app).workers(1).disable_signals().bind((address, 0)).expect("a port");
                let address = server.addrs()[0];
                let server = server.run();
                tell.send((address, server.handle())).expect("whoever started it");
                let _ = server.await;
            });
        });
        let (address, server) = told.recv().expect("a server");
        Self { url: format!("http://{address}"), shared, server, thread: Some(thread), runtime: Some(runtime) }
    }

    /// The next request of this kind goes wrong like this; more of them queue up.
    pub fn next(&self, call: Call, fault: Fault) {
        self.shared.faults.lock().expect("faults").entry(call).or_default().push_back(fault);
    }

    /// Sessions with their open tracks and whether a peer connection is open; those without either are as good as gone.
    pub fn open(&self) -> Vec<String> {
        let sessions = self.shared.sessions.lock().expect("sessions");
        sessions.values().filter_map(|session| session.is_open()).collect()
    }

    /// Every request so far, with its status.
    pub fn log(&self) -> Vec<String> {
        self.shared.log.lock().expect("log").clone()
    }

    /// Ends every session, as the service does with what it thinks idle: 410 from now on.
    pub fn expire_all(&self) {
        for session in self.shared.sessions.lock().expect("sessions").values() {
            session.expire(&self.shared.runtime);
        }
    }
}

impl Drop for Sfu {
    fn drop(&mut self) {
        // The future of it is not needed: the order is given when it is made.
        drop(self.server.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
