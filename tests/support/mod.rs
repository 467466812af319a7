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
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

/// Boxes that two cores carry side by side while nobody counts their frames. A single one leaves them three quarters idle.
const PLACES: u32 = 2;

static STAGE: Semaphore = Semaphore::const_new(PLACES as usize);

/// Takes a place on stage: tests that run a box take one each.
pub async fn stage() -> SemaphorePermit<'static> {
    STAGE.acquire().await.expect("the stage is never closed")
}

/// Takes the whole stage: for tests that count missed frame slots or measure seconds, which another box beside them would take.
pub async fn stage_alone() -> SemaphorePermit<'static> {
    STAGE.acquire_many(PLACES).await.expect("the stage is never closed")
}

/// Takes the room behind it: tests that keep fleet servers busy, and run no box, do so one at a time as well, beside whoever is
/// on stage.
pub async fn backstage() -> MutexGuard<'static, ()> {
    static BACKSTAGE: Mutex<()> = Mutex::const_new(());
    BACKSTAGE.lock().await
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

/// A TCP port that nobody has, for what must come back on the same port after a restart.
pub fn free_port() -> u16 {
    next_port(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

/// A UDP port that nobody has.
pub fn free_udp_port() -> u16 {
    next_port(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

/// Each port once, from below those that Linux gives to whoever asks for any (32768 and up, ip_local_port_range): while its owner
/// is away, nobody else is given it. Test binaries begin apart from one another.
fn next_port(is_free: impl Fn(u16) -> bool) -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id().wrapping_mul(101) % u32::from(COUNT)) as u16;
    let mut ports = (0..COUNT).map(|_| FIRST + (begin + GIVEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT);
    ports.find(|port| is_free(*port)).expect("a free port")
}
