//! Corrupt data are set aside, not deleted: the directory is renamed to `{name}.corrupt-{n}`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::MqttError;

/// How many set-aside directories are kept; the oldest goes when there are more, so that a failing disk does not fill.
const KEPT: usize = 4;

fn io(what: String) -> impl FnOnce(std::io::Error) -> MqttError {
    move |source| MqttError::Io { what, source }
}

/// `path` with `suffix` appended to its last component.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames `dir` (whatever it is) out of the way and returns its new name.
pub(super) fn set_aside(dir: &Path) -> Result<PathBuf, MqttError> {
    let mut held = numbers(dir);
    let next = held.iter().max().map_or(1, |n| n + 1);
    let target = beside(dir, &format!(".corrupt-{next}"));
    fs::rename(dir, &target).map_err(io(format!("set aside {} as {}", dir.display(), target.display())))?;
    held.sort_unstable();
    for old in held.iter().rev().skip(KEPT - 1) {
        let old = beside(dir, &format!(".corrupt-{old}"));
        let removed = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
        if let Err(error) = removed {
            tracing::warn!(path = %old.display(), %error, "an old quarantined directory could not be removed");
        }
    }
    Ok(target)
}

fn numbers(dir: &Path) -> Vec<u64> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let prefix = format!("{name}.corrupt-");
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()).collect()
}

/// Counts starts that did not get past opening the data, in a small file beside them.
///
/// Opening corrupt data can end in more than an error: an allocation of an absurd size aborts the process, which nothing
/// inside it can catch. After [`OpeningMark::LIMIT`] such starts the data count as corrupt.
pub(super) struct OpeningMark(PathBuf);

impl OpeningMark {
    /// Starts in a row that may die while opening.
    const LIMIT: u32 = 3;

    /// Notes that opening begins; true when it has failed too often.
    pub(super) fn begin(dir: &Path) -> (Self, bool) {
        let path = beside(dir, ".opening");
        let died: u32 = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let spent = died >= Self::LIMIT;
        let count = if spent { 1 } else { died + 1 };
        if let Err(error) = fs::write(&path, count.to_string()) {
            tracing::debug!(path = %path.display(), %error, "the opening mark could not be written");
        }
        (Self(path), spent)
    }

    /// Notes that opening is over, well or not.
    pub(super) fn end(self) {
        let _ = fs::remove_file(self.0);
    }
}
