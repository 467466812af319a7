//! How a certificate names a device: a subject alternative name of the kind URI, `r58:ORG/DEVICE` (RFC 5280, section
//! 4.2.1.6). The subject says the same to people (`O=ORG, CN=DEVICE`) and is not read.

use std::time::{Duration, SystemTime};

use r58_mqtt::DeviceAddress;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// Scheme of the URI.
const SCHEME: &str = "r58:";

/// A device and how long its certificate is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The device.
    pub device: DeviceAddress,
    /// End of the certificate.
    pub until: SystemTime,
}

/// The URI of a device.
pub fn uri(device: &DeviceAddress) -> String {
    format!("{SCHEME}{}/{}", device.org.as_str(), device.device.as_str())
}

/// The device of a URI; `None` for every other one.
pub fn parse(uri: &str) -> Option<DeviceAddress> {
    let (org, device) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    DeviceAddress::new(org, device).ok()
}

/// The device that a certificate (DER) names. `None` when it names none, or more than one: then it speaks for nobody.
pub fn of(certificate: &[u8]) -> Option<Named> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
        _ => None,
    });
    let device = parse(uris.next()?)?;
    if uris.next().is_some() {
        return None;
    }
    let until = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(Named { device, until: SystemTime::UNIX_EPOCH + Duration::from_secs(until) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["box.example".to_owned()]).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_device_is_named_by_its_uri_and_by_nothing_else() {
        let device = DeviceAddress::new("acme", "box-1.left").unwrap();
        assert_eq!(parse(&uri(&device)), Some(device));
        for wrong in [
            "",
            "r58:",
            "r58:acme",
            "r58:acme/",
            "r58:/box",
            "r58:acme/box/1",
            "R58:acme/box",
            "r58:a b/c",
            "r58://acme/box",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_certificate_with_several_names_speaks_for_nobody() {
        let named = |uris: &[&str]| of(&certificate(uris)).map(|named| uri(&named.device));
        assert_eq!(named(&["r58:acme/box1"]), Some("r58:acme/box1".to_owned()));
        assert_eq!(named(&["https://acme.example/", "r58:acme/box1"]), Some("r58:acme/box1".to_owned()));
        assert_eq!(named(&["r58:acme/box1", "r58:acme/box2"]), None);
        assert_eq!(named(&["r58:acme/box1", "r58:nonsense"]), None);
        assert_eq!(named(&[]), None);
        assert_eq!(of(b"no certificate"), None);
    }
}
