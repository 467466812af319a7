//! Random secrets that are handed out once, and the hashes that are kept of them.

use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

/// Crockford's base 32: no I, L, O, U, so that a code can be read out.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// 256 bits as 64 hex digits: a device's token, a refresh token.
pub fn token() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// 80 bits as four groups of four: an enrolment code.
pub fn code() -> String {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    let digits: Vec<u8> = bytes.iter().map(|byte| ALPHABET[usize::from(byte & 31)]).collect();
    let groups: Vec<String> = digits.chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join("-")
}

/// 95 bits in one word of 19 letters and digits: a generated password.
pub fn password() -> String {
    let code = code();
    let mut bytes = [0; 3];
    OsRng.fill_bytes(&mut bytes);
    let tail: String = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    format!("{}{tail}", code.replace('-', "")).to_lowercase()
}

/// A code as it is hashed: upper case, without dashes and spaces, look-alikes read as what they look like.
pub fn normalized_code(code: &str) -> String {
    code.chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

/// SHA-256 in hex. Enough for secrets of 80 bits and more; passwords go through argon2id.
pub fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// Compares without telling by its duration where the difference is.
pub fn equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_was_read_out_and_typed_in_is_the_same_code() {
        let code = code();
        assert_eq!(code.len(), 19);
        let typed = format!(" {} ", code.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l"));
        assert_eq!(normalized_code(&typed), normalized_code(&code));
    }

    #[test]
    fn tokens_are_64_hex_digits_and_never_the_same() {
        let (a, b) = (token(), token());
        assert!(a.len() == 64 && a.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(!equal(&a, &b) && equal(&a, &a.clone()) && !equal(&a, &a[1..]));
        assert_ne!(hash(&a), a);
    }
}
