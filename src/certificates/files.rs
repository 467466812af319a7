//! A server's files: certificate, key, whose clients it believes, and which of them no longer.

use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

/// Others than owner and group may read (or more): a key is then no secret any more.
const EVERYBODY: u32 = 0o007;

/// Where a TLS listener finds its papers, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, followed by those between it and the authority.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// Authorities whose clients are believed; clients are not asked for a certificate without.
    pub client_ca: Option<PathBuf>,
    /// What those authorities have revoked.
    pub crl: Option<PathBuf>,
}

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The clients' authorities.
    ClientCa,
    /// What they revoked.
    Crl,
}

/// What is wrong with a file, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The file.
    pub part: Part,
    /// Its path and what is wrong.
    pub message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

/// What the files hold, ready to be used.
pub(super) struct Papers {
    pub key: Arc<CertifiedKey>,
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
}

fn wrong(part: Part, path: &Path, what: impl fmt::Display) -> Wrong {
    Wrong { part, message: format!("{} {what}", path.display()) }
}

fn read(part: Part, path: &Path) -> Result<Vec<u8>, Wrong> {
    fs::read(path).map_err(|error| Wrong { part, message: format!("cannot read {}: {error}", path.display()) })
}

fn day(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0)
        .map(|at| at.format("%Y-%m-%d %H:%M UTC").to_string())
        .unwrap_or_default()
}

fn certificates(part: Part, path: &Path, now: DateTime<Utc>) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let bytes = read(part, path)?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let list = list.map_err(|_| wrong(part, path, "is damaged: it is not PEM"))?;
    if list.is_empty() {
        return Err(wrong(part, path, "holds no certificate in PEM"));
    }
    for der in &list {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| wrong(part, path, "holds a certificate that cannot be read"))?;
        let validity = certificate.validity();
        if validity.not_after.timestamp() < now.timestamp() {
            return Err(wrong(part, path, format!("expired on {}", day(validity.not_after.timestamp()))));
        }
        if validity.not_before.timestamp() > now.timestamp() {
            return Err(wrong(part, path, format!("is not valid before {}", day(validity.not_before.timestamp()))));
        }
    }
    Ok(list)
}

/// A private key that only those read who should.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    let bytes = read(Part::Key, path)?;
    let mode = fs::metadata(path).map(|of| of.permissions().mode()).unwrap_or_default();
    if mode & EVERYBODY != 0 {
        return Err(wrong(Part::Key, path, format!("is readable by everybody (chmod o= {})", path.display())));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| wrong(Part::Key, path, "holds no private key in PEM"))
}

/// Checks a certificate and its key.
///
/// # Errors
/// What is wrong with either, or that they do not belong together.
pub fn pair(cert: &Path, key: &Path, now: DateTime<Utc>) -> Result<CertifiedKey, Wrong> {
    let chain = certificates(Part::Certificate, cert, now)?;
    let secret = private_key(key)?;
    let secret = ring::sign::any_supported_type(&secret)
        .map_err(|_| wrong(Part::Key, key, "is of a kind that TLS does not know here (ECDSA, Ed25519 or RSA is)"))?;
    let certified = CertifiedKey::new(chain, secret);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(wrong(Part::Key, key, format!("is not the key of {}", cert.display())))
        }
        _ => Ok(certified),
    }
}

fn clients(ca: &Path, crl: Option<&Path>, now: DateTime<Utc>) -> Result<Arc<dyn ClientCertVerifier>, Wrong> {
    let authorities = certificates(Part::ClientCa, ca, now)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|_| wrong(Part::ClientCa, ca, "holds no certificate of an authority"))?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).allow_unauthenticated();
    if let Some(path) = crl {
        builder = builder.with_crls(revoked(path, ca, &authorities)?);
    }
    builder.build().map_err(|error| match crl {
        Some(path) => wrong(Part::Crl, path, format!("cannot be used: {error}")),
        None => wrong(Part::ClientCa, ca, format!("cannot be used: {error}")),
    })
}

fn revoked(
    path: &Path,
    ca: &Path,
    authorities: &[CertificateDer<'static>],
) -> Result<Vec<CertificateRevocationListDer<'static>>, Wrong> {
    let bytes = read(Part::Crl, path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let lists = lists.map_err(|_| wrong(Part::Crl, path, "is damaged: it is not PEM"))?;
    if lists.is_empty() {
        return Err(wrong(Part::Crl, path, "holds no revocation list in PEM"));
    }
    for der in &lists {
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|_| wrong(Part::Crl, path, "holds a revocation list that cannot be read"))?;
        let issued = authorities.iter().any(|authority| {
            let Ok((_, authority)) = X509Certificate::from_der(authority) else { return false };
            authority.subject().as_raw() == list.issuer().as_raw()
                && list.verify_signature(authority.public_key()).is_ok()
        });
        if !issued {
            return Err(wrong(Part::Crl, path, format!("is not signed by an authority in {}", ca.display())));
        }
    }
    Ok(lists)
}

/// Reads and checks all of them. Blocks.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn load(files: &TlsFiles, now: DateTime<Utc>) -> Result<Papers, Wrong> {
    let key = Arc::new(pair(&files.cert, &files.key, now)?);
    let clients = files.client_ca.as_deref().map(|ca| clients(ca, files.crl.as_deref(), now)).transpose()?;
    Ok(Papers { key, clients })
}

/// Says what is wrong with a server's files, if anything is. Blocks.
pub fn check(files: &TlsFiles, now: DateTime<Utc>) -> Option<Wrong> {
    load(files, now).err()
}

/// What changes when a file does: of each, inode, size, and time of the last change in nanoseconds.
pub(super) type Trace = Vec<Option<(u64, u64, i64, i64)>>;

impl TlsFiles {
    pub(super) fn trace(&self) -> Trace {
        let paths = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref(), self.crl.as_ref()];
        let look =
            |path: &PathBuf| fs::metadata(path).ok().map(|of| (of.ino(), of.size(), of.mtime(), of.mtime_nsec()));
        paths.into_iter().flatten().map(look).collect()
    }
}
