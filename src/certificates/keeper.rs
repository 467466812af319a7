//! What TLS listeners ask during each handshake: the certificate as it is now, and who is believed now. Files that change are
//! taken up without a restart; a broken new one changes nothing and is named in the log.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use r58_actors::rounds::Round;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::sync::watch;

use super::files::{self, Papers, TlsFiles, Trace, Wrong};
use super::name::{self, Named};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The papers of a TLS listener, always the latest that were right.
pub struct Certificates {
    files: TlsFiles,
    held: RwLock<Papers>,
    /// Whose clients are asked for, as a hint. The TLS library borrows it, so it is lent for ever: authorities change a few times
    /// in a process's life, and each time leaves some hundred bytes behind.
    hints: RwLock<&'static [DistinguishedName]>,
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// What is wrong with them, in one sentence.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, Wrong> {
        let held = files::load(&files, Utc::now())?;
        let hints = RwLock::new(&*hints_of(&held).leak());
        Ok(Arc::new(Self { files, held: RwLock::new(held), hints, changes: watch::Sender::new(0) }))
    }

    fn hints(&self) -> &'static [DistinguishedName] {
        *self.hints.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self) -> Arc<CertifiedKey> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).key.clone()
    }

    fn clients(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clients.clone()
    }

    /// For a listener: TLS 1.2 and 1.3, the certificate and the clients that are right at each handshake. Clients may come
    /// without a certificate.
    ///
    /// # Errors
    /// Only when the TLS library refuses its own defaults.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        if self.files.client_ca.is_none() {
            return Ok(builder.with_no_client_auth().with_cert_resolver(self.clone()));
        }
        let mut config = builder.with_client_cert_verifier(self.clone()).with_cert_resolver(self.clone());
        // A resumed session is believed without another look at the certificate, which may be revoked by then.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// The device that a client's certificates name, if they are good at this moment.
    pub fn device(&self, chain: &[CertificateDer<'_>]) -> Option<Named> {
        let (own, between) = chain.split_first()?;
        self.clients()?.verify_client_cert(own, between, UnixTime::now()).ok()?;
        name::of(own)
    }

    /// Counts the changes that were taken up.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Follows the files.
    pub fn follower(self: Arc<Self>) -> Follower {
        Follower { certificates: self, taken: None, before: None }
    }

    async fn take_up(self: Arc<Self>) {
        let own = self.clone();
        match tokio::task::spawn_blocking(move || files::load(&own.files, Utc::now())).await {
            Ok(Ok(papers)) => {
                let hints = hints_of(&papers);
                if in_bytes(&hints) != in_bytes(self.hints()) {
                    *self.hints.write().unwrap_or_else(PoisonError::into_inner) = hints.leak();
                }
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = papers;
                self.changes.send_modify(|count| *count += 1);
                tracing::info!(certificate = %self.files.cert.display(), "changed certificates are in use");
            }
            Ok(Err(error)) => tracing::error!(%error, "changed certificates cannot be used; those from before stay"),
            Err(_) => tracing::error!("reading the certificates failed; those from before stay"),
        }
    }
}

/// Takes up files that change, round by round.
pub struct Follower {
    certificates: Arc<Certificates>,
    taken: Option<Trace>,
    before: Option<Trace>,
}

#[async_trait]
impl Round for Follower {
    async fn round(&mut self) -> Result<Duration, String> {
        let own = self.certificates.clone();
        let now = tokio::task::spawn_blocking(move || own.files.trace()).await.map_err(|error| error.to_string())?;
        // Certificate and key are written one after the other: only what stands still is read.
        if self.taken.as_ref().is_some_and(|taken| *taken != now) && self.before.as_ref() == Some(&now) {
            self.taken = Some(now.clone());
            self.certificates.clone().take_up().await;
        }
        self.taken.get_or_insert_with(|| now.clone());
        self.before = Some(now);
        Ok(LOOK_EVERY)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

fn hints_of(papers: &Papers) -> Vec<DistinguishedName> {
    papers.clients.as_ref().map(|clients| clients.root_hint_subjects().to_vec()).unwrap_or_default()
}

fn in_bytes(names: &[DistinguishedName]) -> Vec<&[u8]> {
    names.iter().map(|name| name.as_ref()).collect()
}

fn nobody() -> Error {
    Error::General("no authority for clients".into())
}

impl ClientCertVerifier for Certificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.hints()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.clients().ok_or_else(nobody)?.verify_client_cert(own, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients().ok_or_else(nobody)?.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients().ok_or_else(nobody)?.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::authority::Authority;

    #[tokio::test]
    async fn clients_are_asked_for_by_the_authorities_of_now() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = Authority::create(here.path(), "One", 30).unwrap().server(&["localhost".into()], 30).unwrap();
        drop(Authority::create(there.path(), "Another", 30).unwrap());
        let client_ca = here.path().join("clients.pem");
        let one = std::fs::read_to_string(here.path().join("ca.pem")).unwrap();
        std::fs::write(&client_ca, &one).unwrap();
        let files =
            TlsFiles { cert: server.cert_file, key: server.key_file, client_ca: Some(client_ca.clone()), crl: None };
        let certificates = Certificates::open(files).unwrap();
        let before = certificates.root_hint_subjects();
        certificates.clone().take_up().await;
        assert!(std::ptr::eq(certificates.root_hint_subjects(), before), "nothing is lent anew");
        let another = std::fs::read_to_string(there.path().join("ca.pem")).unwrap();
        std::fs::write(&client_ca, one + &another).unwrap();
        certificates.clone().take_up().await;
        assert_eq!(certificates.root_hint_subjects().len(), before.len() + 1);
        // A broken file changes nothing.
        std::fs::write(&client_ca, "nonsense").unwrap();
        certificates.clone().take_up().await;
        assert_eq!(certificates.root_hint_subjects().len(), before.len() + 1);
    }
}
