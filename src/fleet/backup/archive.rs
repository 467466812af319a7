//! The file of a back-up: parts, and a manifest behind them.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ulid::Ulid;

use super::super::keys::KEY_FILES;
use super::{DATABASE, create_private};

/// Version of the form.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// Largest manifest that is read, in bytes.
const MANIFEST_LIMIT: u64 = 64 * 1024 * 1024;

/// What a back-up holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Of the program that wrote it.
    pub version: String,
    /// `sqlite` or `postgres`.
    pub engine: String,
    /// Newest migration of the database.
    pub schema: i64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// All but the manifest.
    pub parts: Vec<Part>,
    /// What the server also had and is not in it: files and variables of its configuration.
    #[serde(default)]
    pub elsewhere: Vec<String>,
}

impl Manifest {
    /// How many support bundles it holds.
    pub fn bundles(&self) -> usize {
        self.parts.iter().filter(|part| part.name.starts_with("bundles/")).count()
    }
}

/// One file in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name within.
    pub name: String,
    /// Bytes.
    pub size: u64,
    sha256: String,
}

/// Whether a name is one that a back-up may hold.
pub fn is_part(name: &str) -> bool {
    match name.split_once('/') {
        None => name == DATABASE,
        Some(("keys", key)) => KEY_FILES.contains(&key),
        Some(("bundles", file)) => file
            .strip_suffix(".tar.gz")
            .and_then(|id| id.parse::<Ulid>().ok())
            .is_some_and(|id| format!("{id}.tar.gz") == file),
        Some(_) => false,
    }
}

/// A back-up in the making.
pub struct Writer {
    tar: tar::Builder<BufWriter<File>>,
    parts: Vec<Part>,
}

impl Writer {
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { tar: tar::Builder::new(BufWriter::new(create_private(path)?)), parts: Vec::new() })
    }

    /// Adds a file as long as it is now: it may still grow.
    pub fn add(&mut self, name: &str, path: &Path) -> Result<()> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut hashed = Hashed::new(Padded { file: BufReader::new(file), left: size });
        self.tar.append_data(&mut header(size), name, &mut hashed).with_context(|| path.display().to_string())?;
        self.parts.push(Part { name: name.to_owned(), size, sha256: hashed.finish() });
        Ok(())
    }

    /// Writes the manifest and makes everything durable.
    pub fn finish(mut self, engine: &str, schema: i64, at: DateTime<Utc>, elsewhere: Vec<String>) -> Result<Manifest> {
        let (version, engine) = (env!("CARGO_PKG_VERSION").to_owned(), engine.to_owned());
        let manifest = Manifest { format: FORMAT, version, engine, schema, at, parts: self.parts, elsewhere };
        let text = serde_json::to_vec_pretty(&manifest)?;
        self.tar.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())?;
        let mut file = self.tar.into_inner()?;
        file.flush()?;
        file.get_ref().sync_all()?;
        Ok(manifest)
    }
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_cksum();
    header
}

/// Reads a back-up to its end and gives each part to `take`; answers with the manifest if everything is as it says.
///
/// # Errors
/// What does not fit. Whatever was taken before is worth nothing then.
pub fn read(path: &Path, mut take: impl FnMut(&str, &mut dyn Read) -> Result<()>) -> Result<Manifest> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    let (mut found, mut manifest) = (Vec::new(), None);
    for entry in archive.entries().context("not a back-up")? {
        let mut entry = entry.context("the back-up is damaged")?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if manifest.is_some() {
            bail!("the back-up is damaged: something follows its manifest");
        }
        if name == MANIFEST {
            let mut text = Vec::new();
            entry.take(MANIFEST_LIMIT).read_to_end(&mut text)?;
            manifest = Some(serde_json::from_slice::<Manifest>(&text).context("its manifest cannot be read")?);
            continue;
        }
        if !is_part(&name) || !entry.header().entry_type().is_file() {
            bail!("not a back-up of a fleet server, or one of a newer version: it holds {name:?}");
        }
        let size = entry.size();
        let mut hashed = Hashed::new(&mut entry);
        take(&name, &mut hashed)?;
        io::copy(&mut hashed, &mut io::sink()).context("the back-up is damaged")?;
        found.push(Part { name, size, sha256: hashed.finish() });
    }
    let Some(manifest) = manifest else { bail!("the back-up is damaged: its end is missing") };
    if manifest.format != FORMAT {
        bail!("the back-up has form {}, which this version does not know", manifest.format);
    }
    if found != manifest.parts {
        bail!("the back-up is damaged: a checksum does not fit");
    }
    let count = |name: &str| found.iter().filter(|part| part.name == name).count();
    let needed = KEY_FILES.iter().map(|key| format!("keys/{key}")).chain([DATABASE.to_owned()]);
    match needed.into_iter().find(|name| count(name) != 1) {
        Some(name) => bail!("the back-up is not whole: there is no {name} in it, or more than one"),
        None => Ok(manifest),
    }
}

/// What is read through it is hashed.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn finish(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// A file with a length that stays: what was cut off meanwhile (the unsettled end of an upload) is zeros.
struct Padded<R> {
    file: R,
    left: u64,
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let read = match self.file.read(buffer)? {
            0 => {
                buffer.fill(0);
                most
            }
            read => read,
        };
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_a_back_up_holds_is_taken_from_one() {
        let bundle = format!("bundles/{}.tar.gz", Ulid::from_parts(1, 2));
        for good in ["database", "keys/access-token.key", "keys/command-key.pem", bundle.as_str()] {
            assert!(is_part(good), "{good}");
        }
        for bad in ["", "/database", "../database", "keys/../x", "keys/authorized_keys", "bundles/x.tar.gz", "bundles/"]
        {
            assert!(!is_part(bad), "{bad}");
        }
    }

    #[test]
    fn a_file_that_shrinks_under_the_reader_is_filled_up() {
        let mut text = Vec::new();
        Padded { file: &b"abc"[..], left: 5 }.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"abc\0\0");
        let mut text = Vec::new();
        Padded { file: &b"abcdef"[..], left: 4 }.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"abcd");
    }
}
