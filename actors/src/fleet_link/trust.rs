//! Whom the box believes on the way to its fleet besides the system's authorities, and the certificate that it shows.

use std::path::PathBuf;

use reqwest::{Certificate, ClientBuilder, Identity};

/// Certificates of a box; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Authorities in PEM.
    pub ca: Option<Vec<u8>>,
    /// Files of the box's own certificate and its key, in PEM; read anew whenever they are shown.
    pub shown: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// An HTTP client that believes them, for requests with a token.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn believe(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, String> {
        if let Some(pem) = &self.ca {
            let list = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if list.is_empty() {
                return Err("the file of authorities holds no certificate in PEM".into());
            }
            builder = list.into_iter().fold(builder, ClientBuilder::add_root_certificate);
        }
        Ok(builder)
    }

    /// The same, which also shows the box's own certificate, if it has one. Blocks for a moment.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn believe_and_show(&self, builder: ClientBuilder) -> Result<ClientBuilder, String> {
        let builder = self.believe(builder)?;
        let Some((cert, key)) = &self.shown else { return Ok(builder) };
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
        let mut both = read(cert)?;
        both.push(b'\n');
        both.extend(read(key)?);
        let own = Identity::from_pem(&both)
            .map_err(|_| format!("{} and {} are no certificate and its key", cert.display(), key.display()))?;
        Ok(builder.identity(own))
    }
}
