//! Passwords: argon2id, never stored or logged in the clear.

use std::sync::LazyLock;

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, password_hash};
use tokio::sync::Semaphore;

/// Shortest password a person may choose (NIST SP 800-63B asks for at least 8).
pub const MIN_CHARS: usize = 10;
/// Longest, so that hashing has a bound.
pub const MAX_BYTES: usize = 256;

/// Each hash takes 19 MiB and about 30 ms (argon2's defaults, OWASP's second choice); two at a time bound both.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Checked in place of an unknown user's, so that the answer takes as long.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash_now("nobody has this password").unwrap_or_default());

fn hash_now(password: &str) -> Result<String, password_hash::Error> {
    let salt = SaltString::generate(&mut OsRng);
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string())
}

/// Hashes a password, on a thread that may block.
///
/// # Errors
/// `None` when hashing fails, which only a lack of memory can cause.
pub async fn hash(password: String) -> Option<String> {
    let _permit = AT_ONCE.acquire().await.ok()?;
    tokio::task::spawn_blocking(move || hash_now(&password).ok()).await.ok()?
}

/// Checks a password against a stored hash; without one it takes as long and says no.
pub async fn verify(password: String, stored: Option<String>) -> bool {
    let Ok(_permit) = AT_ONCE.acquire().await else { return false };
    if password.len() > MAX_BYTES {
        return false;
    }
    let checked = tokio::task::spawn_blocking(move || {
        let known = stored.is_some();
        let text = stored.unwrap_or_else(|| NOBODY.clone());
        let right = PasswordHash::new(&text)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        right && known
    });
    checked.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_checked_against_its_hash_and_nothing_else() {
        let stored = hash("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$") && !stored.contains("horse"));
        assert!(verify("correct horse".into(), Some(stored.clone())).await);
        assert!(!verify("correct house".into(), Some(stored)).await);
        assert!(!verify("nobody has this password".into(), None).await);
        assert!(!verify("anything".into(), Some("not a hash".into())).await);
    }
}
