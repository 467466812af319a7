//! Records in files: JSON lines, each file named by its first record's number, the oldest removed when there are too many.
//!
//! A thread of its own writes; whoever logs never waits for the disk. What it cannot write is counted and stays in memory. A
//! line that a power cut left half written is skipped when files are read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Record;

/// Records that may wait for the disk.
const QUEUE: usize = 4_096;
/// Longest line that is read back, in bytes.
const LONGEST_LINE: u64 = 256 * 1024;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// Bytes after which a new file is begun.
    pub bytes: u64,
    /// Files kept.
    pub files: usize,
}

impl Default for FileLimits {
    /// Six files of 2 MiB: some 40,000 records.
    fn default() -> Self {
        Self { bytes: 2 * 1024 * 1024, files: 6 }
    }
}

/// The files of one book.
pub struct Files {
    directory: PathBuf,
    queue: SyncSender<Arc<Record>>,
}

impl Files {
    /// Opens a directory (mode 0700); also answers the highest number in it.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(directory: &Path, limits: FileLimits) -> io::Result<(Self, u64)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let last = last_seq(directory)?;
        let (queue, records) = sync_channel(QUEUE);
        let writer = Writer { directory: directory.to_owned(), limits, open: None };
        std::thread::Builder::new().name("logs".to_owned()).spawn(move || writer.run(&records))?;
        Ok((Self { directory: directory.to_owned(), queue }, last))
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves a record for the writer; false when too many wait.
    pub fn write(&self, record: Arc<Record>) -> bool {
        self.queue.try_send(record).is_ok()
    }
}

/// Every file with the number of its first record, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("log-").and_then(|rest| rest.strip_suffix(".jsonl"));
        if let Some(first) = number.and_then(|number| number.parse().ok()) {
            found.push((first, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads a file's records in order until `each` says stop. What cannot be read is skipped.
///
/// # Errors
/// When the file cannot be opened or read.
pub fn read(path: &Path, mut each: impl FnMut(Record) -> bool) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Ok(record) = serde_json::from_slice(&line) else { continue };
        if !each(record) {
            return Ok(());
        }
    }
}

fn last_seq(directory: &Path) -> io::Result<u64> {
    let mut last = 0;
    // The newest file may hold nothing but half a line.
    for (first, path) in list(directory)?.into_iter().rev().take(2) {
        last = last.max(first.saturating_sub(1));
        read(&path, |record| {
            last = last.max(record.seq);
            true
        })?;
    }
    Ok(last)
}

struct Writer {
    directory: PathBuf,
    limits: FileLimits,
    open: Option<(BufWriter<File>, u64)>,
}

impl Writer {
    /// Ends with the book. Errors are not logged: that would be a record more.
    fn run(mut self, records: &Receiver<Arc<Record>>) {
        while let Ok(record) = records.recv() {
            let mut next = Some(record);
            while let Some(record) = next {
                if self.write(&record).is_err() {
                    // Another file, perhaps on a disk with space again, for the next record.
                    self.open = None;
                }
                next = records.try_recv().ok();
            }
            let flushed = self.open.as_mut().map_or(Ok(()), |(file, _)| file.flush());
            if flushed.is_err() {
                self.open = None;
            }
        }
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.open.as_ref().is_none_or(|(_, written)| written + line.len() as u64 > self.limits.bytes) {
            self.begin(record.seq)?;
        }
        let Some((file, written)) = &mut self.open else { return Ok(()) };
        file.write_all(&line)?;
        *written += line.len() as u64;
        Ok(())
    }

    fn begin(&mut self, first: u64) -> io::Result<()> {
        if let Some((mut file, _)) = self.open.take() {
            file.flush()?;
        }
        let path = self.directory.join(format!("log-{first:020}.jsonl"));
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        self.open = Some((BufWriter::new(file), written));
        let files = list(&self.directory)?;
        let surplus = files.len().saturating_sub(self.limits.files.max(1));
        for (_, path) in files.into_iter().take(surplus) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}
