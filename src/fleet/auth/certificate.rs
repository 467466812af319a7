//! Devices that prove themselves by a certificate in the TLS connection itself. No header is believed: behind a proxy that ends
//! TLS, nobody shows one.

use std::any::Any;
use std::sync::Arc;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::rt::net::TcpStream;
use r58_mqtt::DeviceAddress;
use rustls::pki_types::CertificateDer;

use crate::certificates::Certificates;

/// The certificates that a connection's client has shown.
pub struct ShownCertificate {
    chain: Vec<CertificateDer<'static>>,
    judge: Arc<Certificates>,
}

impl ShownCertificate {
    /// Of a new connection; none when it has shown none.
    pub fn of(judge: &Arc<Certificates>, connection: &dyn Any) -> Option<Self> {
        let stream = connection.downcast_ref::<TlsStream<TcpStream>>()?;
        let (_, tls) = stream.get_ref();
        let chain = tls.peer_certificates()?.iter().map(|one| one.clone().into_owned()).collect();
        Some(Self { chain, judge: judge.clone() })
    }

    /// The device that this request's client proves to be, at this moment: a connection may outlive its certificate.
    pub fn device(request: &HttpRequest) -> Option<DeviceAddress> {
        let shown = request.conn_data::<Self>()?;
        Some(shown.judge.device(&shown.chain)?.device)
    }
}
