//! The way to a TURN server by stream: which URLs, in which order, and the TCP or TLS connection over the first that works.
//!
//! All roads of a server are tried, each a little after the one before (as RFC 8305 does with addresses), and the first that is
//! connected wins and is tried first from then on. TLS goes before TCP: its handshake proves that the other end is the server
//! and not some proxy of the venue's; port 443 goes first of all, because it is the last that a firewall closes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::error::ErrorKind;
use crate::ice::{IceScheme, IceUrl};

/// One road's head start before the next one: above the two round trips of TCP and TLS to a server of the same continent.
const STAGGER: Duration = Duration::from_millis(300);
/// One road's time to connect, handshake included.
const CONNECT_WITHIN: Duration = Duration::from_secs(6);
/// One address's time, so that a dead one leaves some to the next.
const ADDRESS_WITHIN: Duration = Duration::from_millis(2_500);
/// Send buffer of the system's: a tenth of a second at 10 Mbit/s. More would only be delay once the stream stalls.
const SEND_BUFFER: u32 = 128 * 1024;

/// Why there is no stream to a TURN server. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RoadError {
    /// None of the URLs is TURN over TCP or TLS.
    #[error("no address of TURN over TCP or TLS")]
    NoRoad,
    /// The name has no address.
    #[error("{0} has no address")]
    Unresolved(String),
    /// No connection.
    #[error("{host} port {port}: {reason}")]
    Unconnected {
        /// Whom.
        host: String,
        /// Where.
        port: u16,
        /// What the system said.
        reason: String,
    },
    /// The server's certificate proves nothing.
    #[error("the certificate of {host} port {port} is refused: {reason}")]
    Certificate {
        /// Whose.
        host: String,
        /// Where.
        port: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// This machine trusts nobody, so nobody can be checked.
    #[error("no certificates to trust on this machine (install ca-certificates)")]
    NoTrust,
    /// A file of certificates without one in it.
    #[error("the file of certificates to trust holds none")]
    EmptyTrust,
    /// No socket or thread of our own.
    #[error("the turn forwarder cannot start: {0}")]
    System(String),
}

impl RoadError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unresolved(_) | Self::Unconnected { .. } => ErrorKind::Transient,
            Self::Certificate { .. } | Self::NoRoad => ErrorKind::Unavailable,
            Self::NoTrust | Self::EmptyTrust => ErrorKind::Misconfigured,
            Self::System(_) => ErrorKind::Bug,
        }
    }
}

/// Whom TLS believes: the system's roots, and more on request.
#[derive(Clone)]
pub(super) struct Trust(Option<TlsConnector>);

impl Trust {
    /// Reads the system's certificates; blocks for as long as the disk takes. `extra` is PEM.
    pub(super) fn load(extra: Option<&[u8]>) -> Result<Self, RoadError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = extra {
            let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(RoadError::EmptyTrust);
            }
        }
        if roots.is_empty() {
            return Ok(Self(None));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RoadError::System(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }
}

/// A connected stream of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// All roads to one server, the best first.
pub(super) struct Roads {
    ranked: Mutex<Vec<IceUrl>>,
    trust: Trust,
}

impl Roads {
    /// From a server's URLs; those of UDP are left out.
    pub(super) fn new(urls: &[IceUrl], trust: Trust) -> Result<Self, RoadError> {
        let mut ranked: Vec<IceUrl> =
            urls.iter().filter(|url| matches!(url.scheme, IceScheme::Tls | IceScheme::TurnTcp)).cloned().collect();
        ranked.sort_by_key(|url| (url.scheme != IceScheme::Tls, url.port != 443));
        if ranked.is_empty() { Err(RoadError::NoRoad) } else { Ok(Self { ranked: Mutex::new(ranked), trust }) }
    }

    /// The road that would be tried first.
    pub(super) fn best(&self) -> IceUrl {
        self.lock()[0].clone()
    }

    /// A road that connected and then did not speak TURN: it is tried last from now on.
    pub(super) fn demote(&self, road: &IceUrl) {
        let mut ranked = self.lock();
        if let Some(at) = ranked.iter().position(|url| url == road) {
            ranked[at..].rotate_left(1);
        }
    }

    /// Connects by the first road that lets us.
    pub(super) async fn connect(&self) -> Result<(Box<dyn Stream>, IceUrl), RoadError> {
        let mut left = self.lock().clone().into_iter();
        let mut tries = JoinSet::new();
        let mut errors: Vec<RoadError> = Vec::new();
        loop {
            if let Some(url) = left.next() {
                let trust = self.trust.clone();
                tries.spawn(async move {
                    let stream = tokio::time::timeout(CONNECT_WITHIN, open(&url, &trust)).await;
                    (stream.unwrap_or_else(|_| Err(unconnected(&url, "no answer in time"))), url)
                });
            }
            let ended = match left.len() {
                0 => tries.join_next().await,
                _ => match tokio::time::timeout(STAGGER, tries.join_next()).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                },
            };
            match ended {
                Some(Ok((Ok(stream), url))) => {
                    self.promote(&url);
                    return Ok((stream, url));
                }
                Some(Ok((Err(error), _))) => errors.push(error),
                Some(Err(_)) => {}
                None if left.len() == 0 => return Err(worst(errors)),
                None => {}
            }
        }
    }

    fn promote(&self, road: &IceUrl) {
        let mut ranked = self.lock();
        if let Some(at) = ranked.iter().position(|url| url == road) {
            ranked[..=at].rotate_right(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<IceUrl>> {
        self.ranked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to tell of several: a refused certificate is news, a closed port is what firewalls do.
fn worst(mut errors: Vec<RoadError>) -> RoadError {
    errors.sort_by_key(|error| !matches!(error, RoadError::Certificate { .. } | RoadError::NoTrust));
    errors.into_iter().next().unwrap_or(RoadError::NoRoad)
}

fn unconnected(url: &IceUrl, reason: impl std::fmt::Display) -> RoadError {
    RoadError::Unconnected { host: url.host.clone(), port: url.port, reason: reason.to_string() }
}

async fn open(url: &IceUrl, trust: &Trust) -> Result<Box<dyn Stream>, RoadError> {
    let tcp = tcp(url).await?;
    if url.scheme != IceScheme::Tls {
        return Ok(Box::new(tcp));
    }
    let connector = trust.0.as_ref().ok_or(RoadError::NoTrust)?;
    let name = ServerName::try_from(url.host.clone()).map_err(|_| RoadError::Unresolved(url.host.clone()))?;
    match connector.connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(fault)) => {
                RoadError::Certificate { host: url.host.clone(), port: url.port, reason: certificate_words(fault) }
            }
            _ => unconnected(url, format_args!("no TLS: {error}")),
        }),
    }
}

fn certificate_words(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody whom this machine trusts has signed it".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet (is the clock right?)".to_owned()
        }
        CertificateError::Revoked => "it was revoked".to_owned(),
        other => other.to_string(),
    }
}

async fn tcp(url: &IceUrl) -> Result<TcpStream, RoadError> {
    let unresolved = || RoadError::Unresolved(url.host.clone());
    let addresses = tokio::net::lookup_host((url.host.as_str(), url.port)).await.map_err(|_| unresolved())?;
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let mut last = unresolved();
    for address in addresses {
        match tokio::time::timeout(ADDRESS_WITHIN, connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = unconnected(url, error.kind()),
            Err(_) => last = unconnected(url, "no answer in time"),
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_keepalive(true)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roads(urls: &[&str]) -> Result<Roads, RoadError> {
        let urls: Vec<IceUrl> = urls.iter().map(|url| IceUrl::parse(url).unwrap()).collect();
        Roads::new(&urls, Trust(None))
    }

    #[test]
    fn tls_on_443_is_tried_first_and_whatever_worked_last_before_that() {
        let roads =
            roads(&["turn:t.example?transport=tcp", "turns:t.example", "turn:t.example", "turns:t.example:443"]);
        let roads = roads.unwrap();
        let order = |roads: &Roads| roads.lock().iter().map(IceUrl::to_url).collect::<Vec<_>>();
        let [tcp, tls, tls_443] = [
            "turn:t.example:3478?transport=tcp",
            "turns:t.example:5349?transport=tcp",
            "turns:t.example:443?transport=tcp",
        ];
        assert_eq!(order(&roads), [tls_443, tls, tcp]);
        roads.promote(&IceUrl::parse(tcp).unwrap());
        assert_eq!(order(&roads), [tcp, tls_443, tls]);
        roads.demote(&IceUrl::parse(tcp).unwrap());
        assert_eq!(order(&roads), [tls_443, tls, tcp]);
    }

    #[test]
    fn a_server_by_udp_alone_has_no_road() {
        assert_eq!(roads(&["turn:t.example"]).err(), Some(RoadError::NoRoad));
    }

    #[test]
    fn a_refused_certificate_is_told_before_a_closed_port() {
        let closed = RoadError::Unresolved("t.example".into());
        let refused = RoadError::Certificate { host: "t".into(), port: 443, reason: "it has expired".into() };
        assert_eq!(worst(vec![closed, refused.clone()]), refused);
        assert_eq!(refused.to_string(), "the certificate of t port 443 is refused: it has expired");
    }
}
