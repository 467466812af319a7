//! What an HTTP client of ours believes besides the system's roots, and what it shows.

use std::path::Path;

use anyhow::{Context, Result};

/// Adds the authorities of a file in PEM, and a certificate with its key.
///
/// # Errors
/// Names the file that cannot be read or holds something else.
pub fn prepare(
    mut builder: reqwest::ClientBuilder,
    ca: Option<&Path>,
    shown: Option<(&Path, &Path)>,
) -> Result<reqwest::ClientBuilder> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    if let Some(path) = ca {
        let list = reqwest::Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
        anyhow::ensure!(!list.is_empty(), "{} holds no certificate in PEM", path.display());
        for authority in list {
            builder = builder.add_root_certificate(authority);
        }
    }
    if let Some((cert, key)) = shown {
        let mut both = read(cert)?;
        both.push(b'\n');
        both.extend(read(key)?);
        let own = reqwest::Identity::from_pem(&both);
        let own =
            own.with_context(|| format!("{} and {} are no certificate and its key", cert.display(), key.display()))?;
        builder = builder.identity(own);
    }
    Ok(builder)
}
