//! TURN over TCP and TLS for a stack that speaks TURN over UDP alone.
//!
//! In a network that lets no UDP out, the box reaches its TURN server by TCP or TLS. A [`Forwarder`] listens on 127.0.0.1 and
//! is a TURN server to the box's own peers (`turn:127.0.0.1:PORT?transport=udp`); each of their sockets gets a stream of its own
//! to the real one, because to a TURN server a stream is what a socket is: the owner of an allocation. Nothing is opened or
//! changed on the way but the framing ([`frame`]): credentials, integrity and relayed addresses are between the two ends.
//!
//! A Binding is refused: what the far end sees of a stream is no address of a UDP socket, and the peers' stack, which asks TURN
//! servers for it too, would offer it to guests.
//!
//! What cannot be carried is dropped and counted, as on any network: the local side never waits. A stream that breaks takes its
//! allocation with it (RFC 8656, section 3.1); the lane opens another one when its socket asks for something, so a new peer, or
//! one that repeats its first request, comes through.

pub mod frame;
mod lane;
mod probe;
mod road;
pub mod talk;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinSet};

use self::lane::{Lane, Mouth, Tally};
use self::road::{Roads, Trust};
use crate::ice::IceUrl;

pub use self::lane::IDLE;
pub use self::probe::{PROBE_WITHIN, answers_by_udp};
pub use self::road::RoadError;

/// Local sockets at the same time: fifty viewers, eight guests and their spares have some 120.
pub const MOST_LANES: usize = 256;

/// What a forwarder has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwarderReport {
    /// The road of the last stream; before the first one, the road that will be tried first.
    pub road: IceUrl,
    /// Streams that are open now.
    pub open: u64,
    /// Streams that were opened.
    pub streams: u64,
    /// Of these, how many in place of one that broke.
    pub reconnects: u64,
    /// Bytes of TURN messages to the server, without padding and TLS.
    pub bytes_up: u64,
    /// Bytes of TURN messages from the server.
    pub bytes_down: u64,
    /// Messages that were dropped: too many waiting, or of no use to a new stream.
    pub dropped: u64,
    /// Datagrams that were no TURN, or of one local socket too many.
    pub refused: u64,
    /// What it took to open the last stream, the name's address and the TLS handshake included.
    pub connected_in: Option<Duration>,
    /// Why the last stream broke or did not come about; none since one did.
    pub last_error: Option<String>,
}

/// Makes forwarders; the last clone ends them all. Cheap to clone.
#[derive(Clone)]
pub struct Forwarders {
    shared: Arc<Shared>,
}

struct Shared {
    trust: Trust,
    runtime: Option<Runtime>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Dropping a runtime waits for its blocking tasks, which is not allowed on another runtime's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Forwarders {
    /// With a thread of its own for all streams. `extra_ca` are certificates in PEM to trust beside the system's. Blocks for
    /// as long as it takes to read these.
    ///
    /// # Errors
    /// When `extra_ca` holds no certificate, or the thread cannot be started.
    pub fn new(extra_ca: Option<&[u8]>) -> Result<Self, RoadError> {
        let trust = Trust::load(extra_ca)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("r58-turn")
            .enable_all()
            .build()
            .map_err(|error| RoadError::System(error.to_string()))?;
        let shared = Shared { trust, runtime: Some(runtime) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Listens for the peers of one TURN server that is reached by any of `urls`.
    ///
    /// # Errors
    /// When none of them is of TCP or TLS, or there is no local port.
    pub fn open(&self, urls: &[IceUrl]) -> Result<Forwarder, RoadError> {
        let roads = Arc::new(Roads::new(urls, self.shared.trust.clone())?);
        let runtime = self.shared.runtime.as_ref().ok_or_else(|| RoadError::System("closed".into()))?;
        let system = |error: std::io::Error| RoadError::System(error.to_string());
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(system)?;
        socket.set_nonblocking(true).map_err(system)?;
        let address = socket.local_addr().map_err(system)?;
        let socket = {
            let _inside = runtime.enter();
            Arc::new(UdpSocket::from_std(socket).map_err(system)?)
        };
        let tally = Arc::new(Tally::default());
        let desk = Desk { socket, roads: roads.clone(), tally: tally.clone(), mouths: Arc::default() };
        let listener = runtime.spawn(desk.listen()).abort_handle();
        Ok(Forwarder { address, roads, tally, listener, _shared: self.shared.clone() })
    }
}

/// A TURN server on 127.0.0.1 in front of the real one; dropped, it takes its streams along.
pub struct Forwarder {
    address: SocketAddr,
    roads: Arc<Roads>,
    tally: Arc<Tally>,
    listener: AbortHandle,
    _shared: Arc<Shared>,
}

impl Forwarder {
    /// The URL for the box's own peers, with the credential of the real server.
    pub fn url(&self) -> String {
        format!("turn:{}:{}?transport=udp", self.address.ip(), self.address.port())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    pub fn report(&self) -> ForwarderReport {
        self.tally.report(self.roads.best())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

type Mouths = Arc<Mutex<HashMap<SocketAddr, Arc<Mouth>>>>;

/// Receives for all lanes.
struct Desk {
    socket: Arc<UdpSocket>,
    roads: Arc<Roads>,
    tally: Arc<Tally>,
    mouths: Mouths,
}

impl Desk {
    /// The lanes end with this future: they are its own.
    async fn listen(self) {
        let mut lanes = JoinSet::new();
        let mut buffer = vec![0; frame::MAX_MESSAGE + 1];
        loop {
            let received = tokio::select! {
                received = self.socket.recv_from(&mut buffer) => received,
                Some(_) = lanes.join_next() => continue,
            };
            // An error is what ICMP said of a local socket that is gone; its lane will notice.
            let Ok((length, client)) = received else { continue };
            let datagram = &buffer[..length];
            if frame::check(datagram).is_err() {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if let Some(refusal) = frame::binding_refused(datagram) {
                let _ = self.socket.try_send_to(&refusal, client);
                continue;
            }
            let dropped = match self.mouth(client, &mut lanes) {
                Some(mouth) => mouth.say(Bytes::copy_from_slice(datagram)),
                None => {
                    self.tally.refused.fetch_add(1, Ordering::Relaxed);
                    0
                }
            };
            self.tally.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn mouth(&self, client: SocketAddr, lanes: &mut JoinSet<()>) -> Option<Arc<Mouth>> {
        let mut mouths = self.mouths.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mouth) = mouths.get(&client) {
            return Some(mouth.clone());
        }
        if mouths.len() >= MOST_LANES {
            return None;
        }
        let mouth = Arc::new(Mouth::default());
        mouths.insert(client, mouth.clone());
        let lane = Lane {
            client,
            local: self.socket.clone(),
            mouth: mouth.clone(),
            roads: self.roads.clone(),
            tally: self.tally.clone(),
        };
        let place = Place { client, mouths: self.mouths.clone() };
        lanes.spawn(async move {
            let _place = place;
            lane.run().await;
        });
        Some(mouth)
    }
}

/// A lane's entry; taken out however the lane ends.
struct Place {
    client: SocketAddr,
    mouths: Mouths,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.mouths.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
    }
}
