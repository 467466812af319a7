//! The harness: starts the real parts on ports of their own, waits for conditions, and ends what it started.

#![allow(dead_code, reason = "each promise uses its own part of the harness")]

pub mod authority;
pub mod axe;
pub mod browser;
pub mod by_http;
pub mod dashboard;
pub mod environment;
pub mod footage;
pub mod hook;
pub mod jpeg;
pub mod mosquitto;
pub mod namespace;
pub mod nat;
pub mod paper;
pub mod postgres;
pub mod process;
pub mod python;
pub mod r58;
pub mod rmqttd;
pub mod road;
pub mod sdp;
pub mod sfu;
pub mod sim;
pub mod site;
pub mod voice;
pub mod wire;

use std::fmt::Debug;
use std::future::Future;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

/// Takes the stage: tests that run a box do so one at a time.
pub async fn stage() -> MutexGuard<'static, ()> {
    static STAGE: OnceLock<Mutex<()>> = OnceLock::new();
    STAGE.get_or_init(|| Mutex::new(())).lock().await
}

/// Takes the room behind it: tests that keep fleet servers busy, and run no box, do so one at a time as well, beside whoever is
/// on stage.
pub async fn backstage() -> MutexGuard<'static, ()> {
    static BACKSTAGE: OnceLock<Mutex<()>> = OnceLock::new();
    BACKSTAGE.get_or_init(|| Mutex::new(())).lock().await
}

/// Asks again and again until `probe` answers `Some`, and fails with the last excuse when `within` has passed.
///
/// The pause between two questions only spares the processor; what is waited for is the condition.
pub async fn until<T, E, F, P>(within: Duration, what: &str, mut probe: P) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
    P: FnMut() -> F,
{
    let begin = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(excuse) if begin.elapsed() > within => panic!("{what}: not within {within:?}; last: {excuse:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A TCP port that was free a moment ago, for what must come back on the same port after a restart.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A UDP port that was free a moment ago.
pub fn free_udp_port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("its address").port()
}
