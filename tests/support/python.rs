//! Python clients in an environment of their own, with pinned packages, made once beside the build.

use std::process::Command;

use super::environment::environment;
use super::process::Process;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");

/// Starts one of the scripts in `clients/`.
pub fn client(script: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(environment().join("bin/python"));
    Process::start(script, command.arg(format!("{HERE}/clients/{script}")).args(arguments))
}
