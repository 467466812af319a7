//! The shape of what the fleet server is reached by: its certificates and the MQTT broker.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::certificates::TlsFiles;

/// Certificates of the fleet server, all files in PEM. Changed files are taken up without a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificate chain; with `key_file`, API and dashboard speak HTTPS only.
    pub cert_file: Option<PathBuf>,
    /// Private key of that certificate; not readable by everybody.
    pub key_file: Option<PathBuf>,
    /// Authorities whose devices are believed: they register, and connect to the embedded broker, by certificate.
    pub client_ca_file: Option<PathBuf>,
    /// What those authorities have revoked.
    pub crl_file: Option<PathBuf>,
}

impl TlsSettings {
    /// For the API and the dashboard; none without a certificate.
    pub fn files(&self) -> Option<TlsFiles> {
        self.with(self.cert_file.clone().zip(self.key_file.clone()))
    }

    /// For the embedded broker; none when it speaks plain MQTT.
    pub fn for_broker(&self, broker: &BrokerSettings) -> Option<TlsFiles> {
        let own = broker.tls_cert.clone().zip(broker.tls_key.clone());
        if own.is_none() && !broker.tls {
            return None;
        }
        self.with(own.or_else(|| self.cert_file.clone().zip(self.key_file.clone())))
    }

    fn with(&self, pair: Option<(PathBuf, PathBuf)>) -> Option<TlsFiles> {
        let (cert, key) = pair?;
        Some(TlsFiles { cert, key, client_ca: self.client_ca_file.clone(), crl: self.crl_file.clone() })
    }
}

/// The MQTT broker: embedded, or somebody else's by `url`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSettings {
    /// Where the embedded broker listens. Loopback unless said otherwise; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate chain of the embedded broker in PEM; with `tls_key` it speaks TLS only.
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate in PEM.
    pub tls_key: Option<PathBuf>,
    /// The embedded broker speaks TLS only, with the certificate of `[fleet.tls]`.
    pub tls: bool,
    /// `mqtt://` or `mqtts://` address of an external broker, or of each node of a cluster, separated by commas; the
    /// embedded one then stays off.
    pub url: Option<String>,
    /// User of the server on the external broker.
    pub username: Option<String>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// Authorities that the external broker's certificate may be of, besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Certificate in PEM that the server shows to the external broker (`r58 ctl ca client`); a renewed one is shown from the
    /// next connection on.
    pub cert_file: Option<PathBuf>,
    /// Private key of that certificate, in PEM (PKCS #8).
    pub key_file: Option<PathBuf>,
    /// File with what the nodes of an rmqttd cluster show when they ask `/api/v1/broker/auth` who may connect.
    pub auth_secret_file: Option<PathBuf>,
    /// Address that devices are told; default: made from `listen` or `url`.
    pub public_url: Option<String>,
    /// Retained messages that the embedded broker keeps; what would be one more is refused. 1,000 to 10,000,000.
    pub max_retained: u64,
    /// Memory for them in megabytes: each takes its bytes, twice its topic, and some 200 bytes. 1 to 65,536.
    pub max_retained_mb: u64,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            tls_cert: None,
            tls_key: None,
            tls: false,
            url: None,
            username: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            auth_secret_file: None,
            public_url: None,
            max_retained: 1_000_000,
            max_retained_mb: 256,
        }
    }
}
