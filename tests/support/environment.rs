//! The Python environment of the tests, with pinned packages.

use std::path::{Path, PathBuf};
use std::process::Command;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");

/// The environment; made anew when the list of packages has changed.
pub fn environment() -> PathBuf {
    static MADE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = MADE.lock().expect("the environment");
    let wanted = std::fs::read_to_string(format!("{HERE}/requirements.txt")).expect("the list of packages");
    let place = Path::new(env!("CARGO_BIN_EXE_r58")).with_file_name("test-python");
    if std::fs::read_to_string(place.join("made-from")).is_ok_and(|made| made == wanted) {
        return place;
    }
    let run = |command: &mut Command| {
        let status = command.status().expect("python3 (Debian packages python3 and python3-venv) is needed");
        assert!(status.success(), "{command:?}: {status}");
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place));
    run(Command::new(place.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "-r"])
        .arg(format!("{HERE}/requirements.txt")));
    std::fs::write(place.join("made-from"), wanted).expect("write what it was made from");
    place
}
