//! An authority of one's own in a directory: `ca.pem`, `ca.key` (mode 0600), `crl.pem` and `issued.json`. It works offline; what
//! servers need of it are copies of `ca.pem` and `crl.pem`.
//!
//! Keys are ECDSA P-256, which every TLS of this century speaks, browsers and small boxes too.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use nix::fcntl::{Flock, FlockArg};
use r58_actors::fleet_link::identity::write_private;
use r58_mqtt::{DeviceAddress, DeviceId};
use rand::RngCore as _;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::name;

/// Life of an authority unless asked otherwise, in days.
pub const AUTHORITY_DAYS: u32 = 3_650;
/// Life of a server's certificate: what browsers still take (398 days at most).
pub const SERVER_DAYS: u32 = 397;
/// Life of a device's.
pub const DEVICE_DAYS: u32 = 730;
/// Longest life of anything.
pub const MOST_DAYS: u32 = 36_500;
/// Clocks that go behind by this much still take a fresh certificate.
const BEFORE: Duration = Duration::from_secs(3_600);
/// Random bytes of a serial number (RFC 5280 section 4.1.2.2 allows 20).
const SERIAL_BYTES: usize = 16;

/// For whom a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A server, by name and address.
    Server,
    /// A device of an organization.
    Device,
    /// A program that shows it to a broker; no device.
    Client,
}

/// One certificate that was issued.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    /// Serial number in hex.
    pub serial: String,
    /// For whom.
    pub kind: Kind,
    /// The server's names, or `ORG/DEVICE`.
    pub name: String,
    /// Its end.
    pub not_after: DateTime<Utc>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A certificate and its key, written.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// What was issued.
    #[serde(flatten)]
    pub issued: Issued,
    /// File of the certificate.
    pub cert_file: PathBuf,
    /// File of its key (mode 0600).
    pub key_file: PathBuf,
}

/// What an authority says of itself.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// Its name.
    pub name: String,
    /// SHA-256 of its certificate, in hex.
    pub fingerprint: String,
    /// Its end.
    pub not_after: DateTime<Utc>,
    /// File of its certificate.
    pub ca_file: PathBuf,
    /// File of what it revoked.
    pub crl_file: PathBuf,
    /// What it issued, oldest first.
    pub certificates: Vec<Issued>,
}

/// An authority, alone in its directory while this lives.
pub struct Authority {
    dir: PathBuf,
    certificate: Certificate,
    key: KeyPair,
    issued: Vec<Issued>,
    _lock: Flock<File>,
}

fn lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot write to {}", dir.display()))?;
    match Flock::lock(file, FlockArg::LockExclusive) {
        Ok(lock) => Ok(lock),
        Err((_, errno)) => bail!("cannot lock {}: {errno}", path.display()),
    }
}

fn serial() -> Vec<u8> {
    let mut bytes = [0; SERIAL_BYTES];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    // Positive, and of the same length always.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes.to_vec()
}

fn life(days: u32) -> Result<Duration> {
    ensure!((1..=MOST_DAYS).contains(&days), "days: 1 to {MOST_DAYS}");
    Ok(Duration::from_secs(u64::from(days) * 86_400))
}

fn public(path: &Path, text: &str) -> Result<()> {
    write_private(path, text.as_bytes())
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
        .with_context(|| format!("cannot write {}", path.display()))
}

impl Authority {
    /// Makes one where there is none.
    ///
    /// # Errors
    /// When the directory holds one already, or cannot be written.
    pub fn create(dir: &Path, name: &str, days: u32) -> Result<Self> {
        ensure!(!name.trim().is_empty() && name.len() <= 64, "name: 1 to 64 bytes");
        let life = life(days)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let lock = lock(dir)?;
        let (cert_file, key_file) = (dir.join("ca.pem"), dir.join("ca.key"));
        for path in [&cert_file, &key_file] {
            ensure!(!path.exists(), "{} is there already: an authority is never overwritten", path.display());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.trim());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from(serial()));
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - BEFORE).into(), (now + life).into());
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key_file)?;
        file.write_all(key.serialize_pem().as_bytes()).and_then(|()| file.sync_all())?;
        public(&cert_file, &certificate.pem())?;
        let made = Self { dir: dir.to_owned(), certificate, key, issued: Vec::new(), _lock: lock };
        made.note()?;
        Ok(made)
    }

    /// Opens the one in a directory.
    ///
    /// # Errors
    /// When there is none, or its files do not belong together.
    pub fn open(dir: &Path) -> Result<Self> {
        let (cert_file, key_file) = (dir.join("ca.pem"), dir.join("ca.key"));
        ensure!(cert_file.is_file(), "{} holds no authority; r58 ctl ca init makes one", dir.display());
        let lock = lock(dir)?;
        super::files::pair(&cert_file, &key_file, Utc::now())?;
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let key = KeyPair::from_pem(&read(&key_file)?)
            .with_context(|| format!("{} holds no key that can sign", key_file.display()))?;
        let params = CertificateParams::from_ca_cert_pem(&read(&cert_file)?)
            .with_context(|| format!("{} holds no certificate", cert_file.display()))?;
        ensure!(matches!(params.is_ca, IsCa::Ca(_)), "{} is no authority's certificate", cert_file.display());
        let path = dir.join("issued.json");
        let issued = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        // What signs needs the authority's name and key identifier; its own signature counts for nothing here.
        let certificate = params.self_signed(&key)?;
        Ok(Self { dir: dir.to_owned(), certificate, key, issued, _lock: lock })
    }

    /// A certificate for a server of these names and addresses.
    ///
    /// # Errors
    /// A name that is none, or a file that cannot be written.
    pub fn server(&mut self, hosts: &[String], days: u32) -> Result<Written> {
        let Some(first) = hosts.first() else { bail!("host: at least one name or address") };
        for host in hosts {
            let right = !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:*_".contains(&byte));
            ensure!(right, "host: {host:?} is neither a name nor an address");
        }
        let mut params = CertificateParams::new(hosts.to_vec()).context("host")?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, first.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let place = self.dir.join("servers").join(first.replace(['*', ':'], "_"));
        self.issue(params, Kind::Server, hosts.join(", "), days, &place)
    }

    /// A certificate with which a device proves itself.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn device(&mut self, device: &DeviceAddress, days: u32) -> Result<Written> {
        let (org, id) = (device.org.as_str(), device.device.as_str());
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, org);
        params.distinguished_name.push(DnType::CommonName, id);
        params.subject_alt_names = vec![SanType::URI(name::uri(device).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let place = self.dir.join("devices").join(org).join(id);
        self.issue(params, Kind::Device, format!("{org}/{id}"), days, &place)
    }

    /// A certificate that a fleet server, say, shows to a broker of somebody else. Its name begins with `$`, as no device's and no
    /// organization's does: brokers that go by common names cannot take one for the other.
    ///
    /// # Errors
    /// Another name, or a file that cannot be written.
    pub fn client(&mut self, name: &str, days: u32) -> Result<Written> {
        let right = name.strip_prefix('$').is_some_and(|rest| DeviceId::new(rest).is_ok());
        ensure!(right && name.len() <= 64, "name: wants a dollar sign, then letters, digits, \"-\", \"_\" and \".\"");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let place = self.dir.join("clients").join(&name[1..]);
        self.issue(params, Kind::Client, name.to_owned(), days, &place)
    }

    fn issue(
        &mut self,
        mut params: CertificateParams,
        kind: Kind,
        name: String,
        days: u32,
        place: &Path,
    ) -> Result<Written> {
        let (now, serial) = (SystemTime::now(), serial());
        // Nobody believes a certificate for longer than who signed it.
        let end: SystemTime = self.certificate.params().not_after.into();
        let until = (now + life(days)?).min(end);
        (params.not_before, params.not_after) = ((now - BEFORE).into(), until.into());
        params.serial_number = Some(SerialNumber::from(serial.clone()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.certificate, &self.key)?;
        let issued = Issued { serial: hex::encode(serial), kind, name, not_after: until.into(), revoked_at: None };
        // Noted first: what is not in the list could never be revoked.
        self.issued.push(issued.clone());
        self.note()?;
        let with = |ending: &str| {
            let mut path = place.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let (cert_file, key_file) = (with(".pem"), with(".key"));
        write_private(&key_file, key.serialize_pem().as_bytes())
            .with_context(|| format!("cannot write {}", key_file.display()))?;
        public(&cert_file, &certificate.pem())?;
        Ok(Written { issued, cert_file, key_file })
    }

    /// Revokes a certificate; one that is revoked already stays so.
    ///
    /// # Errors
    /// When this authority has issued none with this serial number.
    pub fn revoke(&mut self, serial: &str) -> Result<Issued> {
        let wanted = serial.replace(':', "").to_ascii_lowercase();
        let found = self.issued.iter_mut().find(|issued| issued.serial == wanted);
        let Some(found) = found else { bail!("no certificate with the serial number {serial} was issued here") };
        found.revoked_at.get_or_insert_with(Utc::now);
        let found = found.clone();
        self.note()?;
        Ok(found)
    }

    /// Writes the list of what was issued, and of what is revoked. The latter ends with the authority: servers that look at that
    /// date would else refuse everybody one day.
    fn note(&self) -> Result<()> {
        let path = self.dir.join("issued.json");
        let list = serde_json::to_vec_pretty(&self.issued)?;
        write_private(&path, &list).with_context(|| format!("cannot write {}", path.display()))?;
        let now = SystemTime::now();
        let revoked = self.issued.iter().filter_map(|issued| Some((issued, issued.revoked_at?)));
        let revoked_certs = revoked.map(|(issued, at)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(hex::decode(&issued.serial)?),
                revocation_time: SystemTime::from(at).into(),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let number = now.duration_since(SystemTime::UNIX_EPOCH).map(|at| at.as_millis()).unwrap_or_default();
        let list = CertificateRevocationListParams {
            this_update: (now - BEFORE).into(),
            next_update: self.certificate.params().not_after,
            crl_number: SerialNumber::from(u64::try_from(number)?),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::PreSpecified(self.certificate.key_identifier()),
        };
        public(&self.dir.join("crl.pem"), &list.signed_by(&self.certificate, &self.key)?.pem()?)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When its certificate cannot be read any more.
    pub fn about(&self) -> Result<About> {
        let ca_file = self.dir.join("ca.pem");
        let der = {
            use rustls::pki_types::pem::PemObject as _;
            rustls::pki_types::CertificateDer::from_pem_file(&ca_file).context("cannot read the certificate")?
        };
        let params = self.certificate.params();
        let name = match params.distinguished_name.get(&DnType::CommonName) {
            Some(rcgen::DnValue::Utf8String(name)) => name.clone(),
            Some(rcgen::DnValue::PrintableString(name)) => name.as_str().to_owned(),
            _ => String::new(),
        };
        let not_after: SystemTime = params.not_after.into();
        Ok(About {
            name,
            fingerprint: hex::encode(Sha256::digest(&der)),
            not_after: not_after.into(),
            ca_file,
            crl_file: self.dir.join("crl.pem"),
            certificates: self.issued.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::files::{self, Part, TlsFiles};
    use crate::certificates::keeper::Certificates;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn device(text: &str) -> DeviceAddress {
        let (org, id) = text.split_once('/').unwrap();
        DeviceAddress::new(org, id).unwrap()
    }

    fn server_files(dir: &Path, made: &Written) -> TlsFiles {
        TlsFiles {
            cert: made.cert_file.clone(),
            key: made.key_file.clone(),
            client_ca: Some(dir.join("ca.pem")),
            crl: Some(dir.join("crl.pem")),
        }
    }

    #[test]
    fn an_authority_is_never_overwritten_and_its_key_is_its_owners() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("ca");
        drop(Authority::create(&dir, "R58", 30).unwrap());
        assert_eq!((mode(&dir), mode(&dir.join("ca.key"))), (0o700, 0o600));
        let before = fs::read(dir.join("ca.key")).unwrap();
        let refused = Authority::create(&dir, "R58", 30).err().unwrap().to_string();
        assert!(refused.contains("never overwritten"), "{refused}");
        assert_eq!(fs::read(dir.join("ca.key")).unwrap(), before);
    }

    #[test]
    fn a_device_is_believed_until_its_certificate_is_revoked() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        let mut authority = Authority::create(dir, "R58", 30).unwrap();
        let server = authority.server(&["localhost".into(), "127.0.0.1".into()], 365).unwrap();
        let made = authority.device(&device("acme/box1"), 365).unwrap();
        let other = authority.device(&device("acme/box2"), 365).unwrap();
        let (ends, own) = (authority.about().unwrap().not_after, made.issued.not_after);
        assert!(own <= ends, "no longer than the authority");
        assert_eq!(mode(&made.key_file), 0o600);
        let named = |made: &Written| {
            let certificates = Certificates::open(server_files(dir, &server)).unwrap();
            let der = CertificateDer::from_pem_file(&made.cert_file).unwrap();
            certificates.device(&[der]).map(|named| name::uri(&named.device))
        };
        assert_eq!(named(&made).as_deref(), Some("r58:acme/box1"));
        assert_eq!(named(&server), None, "a server's certificate is no client's");
        assert_eq!(named(&authority.client("$fleet", 365).unwrap()), None, "and a program is no device");
        for wrong in ["fleet", "$", "$a/b", "box1", ""] {
            assert!(authority.client(wrong, 365).is_err(), "{wrong}");
        }
        drop(authority);
        let mut authority = Authority::open(dir).unwrap();
        assert!(authority.revoke("00ff").is_err());
        let shown = made.issued.serial.to_uppercase();
        assert_eq!(authority.revoke(&shown).unwrap().name, "acme/box1");
        assert_eq!(named(&made), None);
        assert_eq!(named(&other).as_deref(), Some("r58:acme/box2"));
    }

    #[test]
    fn another_authority_of_the_same_name_vouches_for_nobody_here() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = Authority::create(here.path(), "R58", 30).unwrap().server(&["localhost".into()], 30).unwrap();
        let stranger = Authority::create(there.path(), "R58", 30).unwrap().device(&device("acme/box1"), 30).unwrap();
        let certificates = Certificates::open(server_files(here.path(), &server)).unwrap();
        let der = CertificateDer::from_pem_file(&stranger.cert_file).unwrap();
        assert_eq!(certificates.device(&[der]), None);
        let mut files = server_files(here.path(), &server);
        files.crl = Some(there.path().join("crl.pem"));
        let wrong = files::check(&files, Utc::now()).unwrap();
        assert_eq!(wrong.part, Part::Crl);
        assert!(wrong.message.contains("not signed by"), "{wrong}");
    }

    #[test]
    fn every_bad_file_is_named_in_one_sentence() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        let mut authority = Authority::create(dir, "R58", 30).unwrap();
        let server = authority.server(&["localhost".into()], 10).unwrap();
        let other = authority.server(&["other".into()], 10).unwrap();
        let good = server_files(dir, &server);
        let now = Utc::now();
        assert_eq!(files::check(&good, now), None);
        let said = |change: &dyn Fn(&mut TlsFiles), now| {
            let mut files = good.clone();
            change(&mut files);
            let wrong = files::check(&files, now).expect("something is wrong");
            (wrong.part, wrong.message)
        };
        let none = dir.join("none.pem");
        let (part, text) = said(&|files| files.cert.clone_from(&none), now);
        assert!(part == Part::Certificate && text.starts_with("cannot read"), "{text}");
        let (part, text) = said(&|files| files.cert.clone_from(&server.key_file), now);
        assert!(part == Part::Certificate && text.contains("no certificate"), "{text}");
        let (part, text) = said(&|files| files.key.clone_from(&other.key_file), now);
        assert!(part == Part::Key && text.contains("is not the key of"), "{text}");
        let (part, text) = said(&|_| {}, now + chrono::Duration::days(11));
        assert!(part == Part::Certificate && text.contains("expired on"), "{text}");
        let (part, text) = said(&|_| {}, now - chrono::Duration::days(1));
        assert!(part == Part::Certificate && text.contains("not valid before"), "{text}");
        let (part, text) = said(&|files| files.client_ca = Some(server.key_file.clone()), now);
        assert!(part == Part::ClientCa && text.contains("no certificate"), "{text}");
        let (part, text) = said(&|files| files.crl = Some(dir.join("ca.pem")), now);
        assert!(part == Part::Crl && text.contains("no revocation list"), "{text}");
        fs::set_permissions(&server.key_file, fs::Permissions::from_mode(0o604)).unwrap();
        let (part, text) = said(&|_| {}, now);
        assert!(part == Part::Key && text.contains("readable by everybody"), "{text}");
    }
}
