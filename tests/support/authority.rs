//! An authority made by `r58 ctl ca`, in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::r58::binary;

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Paper {
    /// File of the certificate.
    pub cert: PathBuf,
    /// File of its key.
    pub key: PathBuf,
    /// Serial number in hex.
    pub serial: String,
}

impl Paper {
    /// Both, one after the other, as reqwest wants them.
    pub fn identity(&self) -> reqwest::Identity {
        let mut both = std::fs::read(&self.cert).expect("the certificate");
        both.extend(std::fs::read(&self.key).expect("the key"));
        reqwest::Identity::from_pem(&both).expect("a certificate and its key")
    }
}

/// An authority; its directory goes with it.
pub struct Authority {
    home: TempDir,
}

impl Authority {
    /// Makes one.
    pub fn new() -> Self {
        let made = Self { home: tempfile::tempdir().expect("a directory") };
        made.ca(&["init"]);
        made
    }

    /// Its directory.
    pub fn dir(&self) -> PathBuf {
        self.home.path().join("ca")
    }

    /// What others believe.
    pub fn pem(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }

    /// What it has revoked.
    pub fn crl(&self) -> PathBuf {
        self.dir().join("crl.pem")
    }

    /// Runs `r58 ctl --json ca` on it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(["ctl", "--json", "ca"]).args(&arguments[..1]).arg("--dir").arg(self.dir()).args(&arguments[1..]);
        command.output().expect("r58 ctl ca")
    }

    fn ca(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn paper(&self, arguments: &[&str]) -> Paper {
        let made = self.ca(arguments);
        let text = |key: &str| made[key].as_str().expect("text").to_owned();
        Paper { cert: text("cert_file").into(), key: text("key_file").into(), serial: text("serial") }
    }

    /// A certificate for servers on this machine; the second time another one in the same files.
    pub fn server(&self) -> Paper {
        self.paper(&["server", "--host", "localhost", "--host", "127.0.0.1"])
    }

    /// A certificate for a device.
    pub fn device(&self, org: &str, id: &str) -> Paper {
        self.paper(&["device", "--org", org, "--id", id])
    }

    /// A certificate that the fleet server shows to a broker of somebody else.
    pub fn client(&self) -> Paper {
        self.paper(&["client"])
    }

    /// Revokes one.
    pub fn revoke(&self, paper: &Paper) {
        self.ca(&["revoke", "--serial", &paper.serial]);
    }

    /// A device's certificate of this authority that has ended.
    pub fn expired(&self, org: &str, id: &str, into: &Path) -> Paper {
        let read = |name: &str| std::fs::read_to_string(self.dir().join(name)).expect("a file");
        let key = rcgen::KeyPair::from_pem(&read("ca.key")).expect("its key");
        let own = rcgen::CertificateParams::from_ca_cert_pem(&read("ca.pem")).expect("its certificate");
        let own = own.self_signed(&key).expect("its certificate");
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(format!("r58:{org}/{id}").try_into().expect("a name"))];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let device = rcgen::KeyPair::generate().expect("a key");
        let made = params.signed_by(&device, &own, &key).expect("a certificate");
        let paper = Paper { cert: into.join("expired.pem"), key: into.join("expired.key"), serial: String::new() };
        std::fs::write(&paper.cert, made.pem()).expect("write");
        std::fs::write(&paper.key, device.serialize_pem()).expect("write");
        paper
    }
}
