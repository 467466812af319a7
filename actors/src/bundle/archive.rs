//! The archive itself: a tar.gz that never grows past its bound, with a manifest of what is in it and what is not, and why.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Room that is kept for the manifest and tar's own blocks, in bytes.
const RESERVE: u64 = 128 * 1024;

/// One file of an archive, as its manifest tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the archive.
    pub path: String,
    /// Its size before compression, in bytes.
    pub size_bytes: u64,
    /// Its checksum.
    pub sha256: String,
}

/// What was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omission {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Writes one archive. Not finished, it leaves nothing but a file that the next start removes.
pub struct Archive {
    tar: tar::Builder<GzEncoder<Counted>>,
    entries: Vec<Entry>,
    omitted: Vec<Omission>,
    /// Bytes before compression that may still come.
    left: u64,
    created: u64,
}

impl Archive {
    /// A new file, for at most `bytes` of content; `created` is in seconds since 1970.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(path: &Path, bytes: u64, created: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let counted = Counted { file, written: 0, limit: bytes, hash: Sha256::new() };
        let tar = tar::Builder::new(GzEncoder::new(counted, Compression::default()));
        Ok(Self { tar, entries: Vec::new(), omitted: Vec::new(), left: bytes.saturating_sub(RESERVE), created })
    }

    /// Adds a file, unless there is no room for it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        // A tar entry is a block and its content in whole blocks (POSIX.1-1988, ustar).
        let takes = 512 + size.next_multiple_of(512);
        if takes > self.left {
            self.leave_out(path, "there is no room left for it");
            return Ok(());
        }
        self.left -= takes;
        self.append(path, content)?;
        let sha256 = hex::encode(Sha256::digest(content));
        self.entries.push(Entry { path: path.to_owned(), size_bytes: size, sha256 });
        Ok(())
    }

    /// Notes what is not in it.
    pub fn leave_out(&mut self, what: &str, why: &str) {
        self.omitted.push(Omission { what: what.to_owned(), why: why.to_owned() });
    }

    /// Adds the manifest and makes everything durable; answers with size and checksum of the archive.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self, mut manifest: serde_json::Value) -> io::Result<(u64, String)> {
        if let Some(fields) = manifest.as_object_mut() {
            fields.insert("entries".to_owned(), serde_json::to_value(&self.entries)?);
            fields.insert("left_out".to_owned(), serde_json::to_value(&self.omitted)?);
        }
        self.append("manifest.json", &serde_json::to_vec_pretty(&manifest)?)?;
        let counted = self.tar.into_inner()?.finish()?;
        counted.file.sync_all()?;
        Ok((counted.written, hex::encode(counted.hash.finalize())))
    }

    fn append(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.created);
        self.tar.append_data(&mut header, path, content)
    }
}

/// Counts and hashes what reaches the disk; refuses what would be too much.
struct Counted {
    file: File,
    written: u64,
    limit: u64,
    hash: Sha256,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the bundle would be larger than it may be"));
        }
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Bytes that this file system has left for us.
///
/// # Errors
/// What the system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Removes what an interrupted start left half written.
///
/// # Errors
/// What the system says.
pub fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
