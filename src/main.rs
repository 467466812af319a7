//! The `r58` binary; everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    r58::cli::main()
}
