//! TLS in front of rmqtt: it takes connections, looks at certificates, and passes the rest on to rmqtt's own port on loopback.
//!
//! rmqtt's TLS reads its files once and tells hooks a certificate's subject alone, so handshakes are made here, with what
//! [`Certificates`] holds at that moment. Each connection goes on from an address of its own (a random one of 127.0.0.0/8 and
//! a port that the system gives to nobody else while it is open), by which the hooks find out who it was. A connection ends when its
//! certificate does, or is revoked.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::MqttError;

/// A handshake takes no longer, as rmqtt's own.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left) it waits for some to be closed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// A client that has closed its half gets what rmqtt still says for so long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A certificate without an end in sight is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3_600);

/// Whom a client's certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// Organization.
    pub org: String,
    /// Device.
    pub dev: String,
    /// End of the certificate.
    pub until: SystemTime,
}

/// The certificates of a broker that speaks TLS.
pub trait Certificates: fmt::Debug + Send + Sync + 'static {
    /// What the next handshake is made with.
    fn server_config(&self) -> Arc<rustls::ServerConfig>;

    /// The device that a client's certificates name, if they are good at this moment.
    fn vouched(&self, chain: &[CertificateDer<'static>]) -> Option<Vouched>;

    /// Moves when certificates or what is revoked have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Who is behind an address on loopback.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<SocketAddr, Vouched>>);

impl Known {
    /// The device whose certificate was shown there.
    pub(super) fn device(&self, at: SocketAddr) -> Option<Vouched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&at).cloned()
    }
}

/// Forgets an address when its connection ends, before the system may give it away again.
struct Place<'a> {
    known: &'a Known,
    at: SocketAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.known.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.at);
    }
}

/// The port that clients see.
pub(super) struct Front {
    listener: TcpListener,
    certificates: Arc<dyn Certificates>,
    places: Arc<Semaphore>,
}

impl Front {
    /// Takes the port. Within a runtime.
    pub(super) fn bind(
        listen: SocketAddr,
        certificates: Arc<dyn Certificates>,
        max_connections: usize,
    ) -> Result<Self, MqttError> {
        let refused = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                MqttError::Broker(format!("{listen} is already in use by another program"))
            }
            _ => MqttError::Broker(format!("cannot listen on {listen}: {error}")),
        };
        let listener = std::net::TcpListener::bind(listen).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = TcpListener::from_std(listener).map_err(refused)?;
        Ok(Self { listener, certificates, places: Arc::new(Semaphore::new(max_connections)) })
    }

    pub(super) fn addr(&self) -> Result<SocketAddr, MqttError> {
        self.listener.local_addr().map_err(|error| MqttError::Broker(error.to_string()))
    }

    /// Takes connections for ever.
    pub(super) async fn run(self, inner: SocketAddr, known: Arc<Known>) {
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok(taken) => taken,
                Err(error) => {
                    warn!(%error, "the broker cannot take a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                debug!(%from, "no room for another connection");
                continue;
            };
            let (certificates, known) = (self.certificates.clone(), known.clone());
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = serve(stream, &*certificates, inner, &known).await {
                    debug!(%from, %error, "a connection by TLS failed");
                }
            });
        }
    }
}

/// One connection, from its handshake to its end.
async fn serve(
    stream: TcpStream,
    certificates: &dyn Certificates,
    inner: SocketAddr,
    known: &Known,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut changes = certificates.changes();
    let acceptor = TlsAcceptor::from(certificates.server_config());
    let tls = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await??;
    let chain: Vec<_> =
        tls.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let vouched = certificates.vouched(&chain);
    let onward = onward(inner).await?;
    let at = onward.local_addr()?;
    let _place = vouched.clone().map(|vouched| {
        known.0.lock().unwrap_or_else(PoisonError::into_inner).insert(at, vouched);
        Place { known, at }
    });
    let Some(vouched) = vouched else { return carry(tls, onward).await };
    let voided = async {
        loop {
            let left = vouched.until.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
                changed = changes.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
            if certificates.vouched(&chain).as_ref() != Some(&vouched) {
                return;
            }
        }
    };
    tokio::select! {
        carried = carry(tls, onward) => carried,
        () = voided => {
            warn!(org = vouched.org, device = vouched.dev, "a connection ends: its certificate is no longer good");
            Ok(())
        }
    }
}

/// A connection to rmqtt from an address that is nobody else's.
async fn onward(inner: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // One address alone has only some 28,000 ports to give.
    let [a, b, c] = rand::random::<[u8; 3]>();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, a, b, c.clamp(1, 254)), 0)))?;
    let stream = socket.connect(inner).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn carry(tls: TlsStream<TcpStream>, onward: TcpStream) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(tls);
    let (mut from_broker, mut to_broker) = onward.into_split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_broker).await?;
        to_broker.shutdown().await?;
        tokio::time::sleep(LAST_WORDS).await;
        Ok(())
    };
    let down = async {
        tokio::io::copy(&mut from_broker, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        up = up => up,
        down = down => down,
    }
}
