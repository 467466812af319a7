//! A certificate of the test's own authority.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use sha2::{Digest as _, Sha256};

/// Who vouches, what is vouched for, and the key to it; all in PEM.
pub struct Paper {
    /// The authority's certificate.
    pub authority: String,
    /// The server's.
    pub certificate: String,
    /// The server's private key.
    pub key: String,
    /// What browsers call the server's key: SHA-256 of its public half, in base64.
    pub pin: String,
}

impl Paper {
    /// For a server of this name or address.
    pub fn of(name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::<String>::new()).expect("an authority");
        authority.distinguished_name.push(DnType::CommonName, "authority of this test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        let authority = authority.self_signed(&authority_key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = certificate.signed_by(&key, &authority, &authority_key).expect("a certificate");
        Self {
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            pin: STANDARD.encode(Sha256::digest(key.public_key_der())),
        }
    }
}
