//! Secrets that have to be read again, such as what a webhook's messages are signed with, as they lie in the database: sealed
//! with a key of the server's, so that whoever has the database alone has none of them. What only has to be recognised is hashed
//! instead (`auth/secret`).
//!
//! Sealed is `sealed:v1:` and, in base64, a nonce and what XChaCha20-Poly1305 makes of the text with it. Nonces are 24 random
//! bytes, so many that none comes twice. The place is sealed in: what is sealed for one row does not open in another. The
//! key is made of the one that signs commands, which every server of a fleet has, every back-up holds, and nobody throws away.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use r58_mqtt::sign::CommandSigner;
use rand::RngCore as _;

/// What a sealed text begins with.
const MARK: &str = "sealed:v1:";
/// What the key is for, apart from all else that is made of the same one.
const PURPOSE: &str = "secrets in the database";
/// Bytes of a nonce.
const NONCE: usize = 24;

/// The key. Cheap to clone.
#[derive(Clone)]
pub struct Vault(XChaCha20Poly1305);

/// A secret that this server's key does not open: it was sealed with another one, for another place, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read with this server's keys; set its address and secret anew")]
pub struct Sealed;

impl Vault {
    /// The vault of the server that signs with this key.
    pub fn of(signer: &CommandSigner) -> Self {
        Self(XChaCha20Poly1305::new(&signer.derived_key(PURPOSE).into()))
    }

    /// Seals `text` for `place`.
    pub fn seal(&self, place: &str, text: &str) -> String {
        let mut nonce = [0; NONCE];
        rand::rngs::OsRng.fill_bytes(&mut nonce);
        let payload = Payload { msg: text.as_bytes(), aad: place.as_bytes() };
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload).expect("a text of fewer than 256 GiB");
        format!("{MARK}{}", BASE64.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// What was sealed for `place`; a text that is not sealed comes back as it is.
    ///
    /// # Errors
    /// [`Sealed`].
    pub fn open(&self, place: &str, sealed: &str) -> Result<String, Sealed> {
        let Some(encoded) = sealed.strip_prefix(MARK) else { return Ok(sealed.to_owned()) };
        let bytes = BASE64.decode(encoded).map_err(|_| Sealed)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE).ok_or(Sealed)?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        let opened = self.0.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| Sealed)?;
        String::from_utf8(opened).map_err(|_| Sealed)
    }
}

/// Whether a text is sealed. No secret may begin as if it were.
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_place_and_nowhere_else() {
        let signer = CommandSigner::generate();
        let vault = Vault::of(&signer);
        let (one, two) = (vault.seal("a/1", "s3cret"), vault.seal("a/1", "s3cret"));
        assert!(one != two && is_sealed(&one) && !one.contains("s3cret"));
        assert_eq!(Vault::of(&signer).open("a/1", &one).as_deref(), Ok("s3cret"));
        assert_eq!(vault.open("a/2", &one), Err(Sealed));
        assert_eq!(Vault::of(&CommandSigner::generate()).open("a/1", &one), Err(Sealed));
        for damaged in [MARK.to_owned(), format!("{MARK}AAAA"), format!("{MARK}not base64"), format!("{one}AAAA")] {
            assert_eq!(vault.open("a/1", &damaged), Err(Sealed), "{damaged}");
        }
        assert_eq!(vault.open("a/1", "of an older version").as_deref(), Ok("of an older version"));
    }
}
